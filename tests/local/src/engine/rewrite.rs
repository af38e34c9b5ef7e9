//! From a query over streams and processes to one over the tables that SQLite has.
//!
//! Each name of a stream becomes a subquery that gives the keys which the query mentions as
//! columns, each name of a process one over the rows it keeps. So a stream may have any number of
//! keys: those that nobody asks for cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde_json::Value;
use sqlparser::ast::{
    Expr, Ident, InTarget, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableAlias, TableFactor, TableWithJoins, VisitorMut,
};

use super::EngineError;
use super::columns::{Column, Outputs, name_results, output_names, unique};
use super::compare::TIMESTAMP;
use super::print::{self, MARK};
use super::sql::Parsed;
use super::windows::{self, Window};
use super::{compare, schema, times, visit};
use crate::streams::keys::Kinds;

/// How many columns a query may have in all its parts, with each `*` spelled out: what SQLite plans grows with
/// them, before it looks at the clock.
const MOST_COLUMNS: usize = 10_000;

/// How many relations a query may read, each counted as often as the part that it is in is read.
const MOST_READS: usize = 1_000;

/// Names in a query that are keys of streams, with the streams that have them.
pub(super) type Homes = BTreeMap<String, BTreeSet<String>>;

/// The column that every stream has besides its keys: when an event came.
const ARRIVAL: &str = "arrival_timestamp";

/// What a name in a query stands for.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// A stream: which rows of the table of events are to be read, and the keys that its events have had.
    /// One that nobody has written to has no rows. `number`: by what the blocks of these rows are found.
    Stream { number: Option<i64>, rows: Option<String>, keys: Vec<(String, Kinds)> },
    /// What a process keeps: a `SELECT` of its rows, and its columns.
    Process { select: String, columns: Vec<Column> },
}

/// Knows what names stand for.
pub(super) trait Catalogue {
    fn relation(&self, name: &str) -> Result<Relation, EngineError>;
}

/// A query that SQLite can run.
#[derive(Clone, Debug)]
pub(super) struct Runnable {
    pub(super) sql: String,
    /// The columns of the result, as far as they are known beforehand.
    pub(super) columns: Option<Vec<Column>>,
    /// The streams and processes that it reads, by name.
    pub(super) reads: BTreeSet<String>,
    /// What is known now of its names.
    pub(super) homes: Homes,
}

/// Puts tables in the place of names.
pub(super) fn rewrite(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Runnable, EngineError> {
    let mut query = parsed.query.clone();
    let mut names = Names {
        catalogue,
        settled: &parsed.homes,
        homes: parsed.homes.clone(),
        reads: BTreeSet::new(),
        sources: Vec::new(),
        scopes: Vec::new(),
        aside: Vec::new(),
        queries: Vec::new(),
        columns: 0,
    };
    visit::change(&mut query, &mut names)?;
    if reads(&query) > MOST_READS {
        return Err(EngineError::Invalid(format!(
            "the query reads more than {MOST_READS} relations, those of its parts counted each time"
        )));
    }
    let Names { reads, sources, homes, .. } = names;
    let of_processes = sources.iter().flat_map(Source::columns).filter(|column| column.time);
    compare::times(&mut query, of_processes.map(|it| it.name.to_ascii_lowercase()).collect())?;
    let columns_of = |name: &ObjectName| Some(sources.get(source_number(name)?)?.columns());
    let columns = Outputs::new(&columns_of).of_query(&query).map(unique);
    Ok(Runnable { sql: with_sources(&query, &sources)?, columns, reads, homes })
}

/// A place in the query where a stream or a process is named.
#[derive(Debug)]
struct Source {
    /// The stream or process.
    name: String,
    relation: Relation,
    /// The columns that are mentioned of a stream, by name, and the keys they are of.
    columns: Vec<(String, String)>,
    /// What the blocks of a stream have to be like, so that they can hold rows that the query wants.
    blocks: Vec<String>,
}

impl Source {
    /// A column of this relation is mentioned. In SQL `a` and `A` are one name, but they are two keys,
    /// so the second is given a name that nobody can have meant.
    fn mention(&mut self, column: &mut Ident) {
        if matches!(self.relation, Relation::Process { .. }) {
            return;
        }
        let key = &column.value;
        let name = match self.columns.iter().find(|(_, known)| known == key) {
            Some((name, _)) => name.clone(),
            None => {
                let mut name = key.clone();
                while self.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                    name.push(MARK);
                }
                self.columns.push((name.clone(), key.clone()));
                name
            }
        };
        *column = Ident::with_quote('"', name);
    }

    fn has(&self, name: &str) -> bool {
        match &self.relation {
            Relation::Stream { keys, .. } => keys.iter().any(|(key, _)| key == name),
            Relation::Process { columns, .. } => {
                columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Whether a column is the time at which events came.
    fn is_arrival(&self, name: &str) -> bool {
        matches!(self.relation, Relation::Stream { .. }) && name == ARRIVAL && !self.has(name)
    }

    /// Only rows in `window` are wanted.
    fn narrow(&mut self, window: &Window<'_>) -> Result<(), EngineError> {
        let latest = match &*window.column.value {
            TIMESTAMP => "latest",
            name if self.is_arrival(name) => "arrived",
            _ => return Ok(()),
        };
        let after = print::expression(window.after)?;
        // To the second: SQLite rounds what is shorter.
        self.blocks.push(format!("blocks.{latest} >= (unixepoch(utc({after})) - 1) * 1000000"));
        Ok(())
    }

    /// The columns that it has in this query.
    fn columns(&self) -> Vec<Column> {
        match &self.relation {
            Relation::Process { columns, .. } => columns.clone(),
            Relation::Stream { keys, .. } => self
                .columns
                .iter()
                .map(|(name, of)| Column {
                    name: name.clone(),
                    boolean: keys.iter().any(|(key, kinds)| key == of && kinds.is_boolean()),
                    time: of == TIMESTAMP || self.is_arrival(of),
                })
                .collect(),
        }
    }

    fn select(&self) -> String {
        match &self.relation {
            Relation::Process { select, .. } => select.clone(),
            Relation::Stream { number, rows, .. } => {
                let columns: Vec<String> = self
                    .columns
                    .iter()
                    .map(|(name, key)| {
                        let name = print::name(name);
                        match rows {
                            Some(_) if key == TIMESTAMP => {
                                format!("{}{} AS {name}", value_of(key), times::COLLATED)
                            }
                            Some(_) if self.is_arrival(key) => {
                                let at = "time_add('1970-01-01T00:00:00Z', at)";
                                format!("{at}{} AS {name}", times::COLLATED)
                            }
                            Some(_) if !key.contains('\0') => {
                                format!("{} AS {name}", value_of(key))
                            }
                            _ => format!("NULL AS {name}"),
                        }
                    })
                    .collect();
                let columns = match columns.is_empty() {
                    true => "1".to_owned(),
                    false => columns.join(", "),
                };
                match (rows, number) {
                    (Some(rows), Some(number)) if !self.blocks.is_empty() => {
                        let (from, to) = (schema::block(*number), schema::block(number + 1));
                        let blocks = self.blocks.join(" AND ");
                        let (first, next) = (schema::first("number"), schema::first("number + 1"));
                        // The other way round, SQLite would read all events.
                        format!(
                            "SELECT {columns} FROM main.blocks CROSS JOIN main.events \
                             WHERE number >= {from} AND number < {to} AND {blocks} \
                             AND place >= {first} AND place < {next} AND {rows}"
                        )
                    }
                    (Some(rows), _) => format!("SELECT {columns} FROM main.events WHERE {rows}"),
                    (None, _) => format!("SELECT {columns} WHERE false"),
                }
            }
        }
    }
}

/// The value of a key: objects and arrays in SQLite's binary form, so that they can be told from texts.
pub(super) fn value_of(key: &str) -> String {
    format!("jsonb_extract(event, {})", print::literal(&format!("$.{}", Value::from(key))))
}

/// Which rows of the table of events are of this stream.
pub(super) fn of_stream(number: i64) -> String {
    let (from, to) = (schema::place(number, 0), schema::place(number + 1, 0));
    format!("place >= {from} AND place < {to}")
}

/// Finds out what every name stands for, on the way down.
struct Names<'a> {
    catalogue: &'a dyn Catalogue,
    /// What names were found to mean earlier. It stays so, whatever keys come later.
    settled: &'a Homes,
    homes: Homes,
    reads: BTreeSet<String>,
    sources: Vec<Source>,
    /// Of the `SELECT`s that enclose the place, the innermost last.
    scopes: Vec<Scope>,
    /// Of the `SELECT`s in whose `FROM` the place is: it cannot speak of what stands beside it.
    aside: Vec<Option<Scope>>,
    queries: Vec<Frame>,
    /// How many columns there are so far.
    columns: usize,
}

/// What the names of columns in one `SELECT` can mean.
#[derive(Debug)]
struct Scope {
    relations: Vec<(String, Meaning)>,
    /// Names given to results, and names that are mentioned where they can only be columns: in the
    /// results themselves, in conditions of events and of joins. Elsewhere a result comes first.
    aliases: BTreeSet<String>,
    columns: BTreeSet<String>,
    /// Columns that are joined by name, and so come once in `*`.
    joined_by: Vec<String>,
}

#[derive(Clone, Debug)]
enum Meaning {
    Source(usize),
    /// A part of the query itself, with the names of its columns.
    Part(Vec<String>),
    Unknown,
}

#[derive(Debug)]
struct Frame {
    /// How many scopes enclose the query.
    depth: usize,
    ctes: Vec<(String, Meaning)>,
}

impl VisitorMut for Names<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        let mut parts = query.with.iter().flat_map(|with| &with.cte_tables);
        if let Some(forged) = parts.find(|part| part.alias.name.value.contains(MARK)) {
            let name = &forged.alias.name.value;
            return ControlFlow::Break(EngineError::Invalid(format!("{name:?} cannot be a name")));
        }
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| {
            let names = if cte.alias.columns.is_empty() {
                output_names(&cte.query)
            } else {
                Some(cte.alias.columns.iter().map(|column| column.name.value.clone()).collect())
            };
            (cte.alias.name.value.clone(), names.map_or(Meaning::Unknown, Meaning::Part))
        });
        let ctes = ctes.collect();
        self.queries.push(Frame { depth: self.scopes.len(), ctes });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<EngineError> {
        if let Some(frame) = self.queries.pop() {
            self.scopes.truncate(frame.depth);
        }
        ControlFlow::Continue(())
    }

    /// The scope stays until the query ends, because its `ORDER BY` still speaks of it.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        self.scopes.truncate(self.queries.last().map_or(0, |frame| frame.depth));
        match self.scope_of(select) {
            Ok(scope) => {
                self.scopes.push(scope);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<EngineError> {
        if matches!(table, TableFactor::Derived { .. }) {
            self.aside.push(self.scopes.pop());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<EngineError> {
        if matches!(table, TableFactor::Derived { .. }) {
            self.scopes.extend(self.aside.pop().flatten());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        match expr {
            Expr::Identifier(column) => {
                column.quote_style = Some('"');
                self.column(column);
            }
            Expr::CompoundIdentifier(parts) => {
                parts.iter_mut().for_each(|part| part.quote_style = Some('"'));
                if let [relation, column] = &mut parts[..] {
                    self.column_of(relation, column);
                }
            }
            Expr::In { target: InTarget::Table { name, .. }, .. } => {
                return ControlFlow::Break(EngineError::Invalid(format!(
                    "write IN (SELECT ... FROM {name})"
                )));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn scope_of(&mut self, select: &mut Select) -> Result<Scope, EngineError> {
        name_results(&mut select.projection);
        let mut scope = Scope {
            relations: Vec::new(),
            aliases: BTreeSet::new(),
            columns: BTreeSet::new(),
            joined_by: Vec::new(),
        };
        for table in &mut select.from {
            self.bind_joined(table, &mut scope)?;
        }
        for window in windows::of(select) {
            let relation = match window.relation {
                Some(name) => {
                    let mut relations = scope.relations.iter();
                    relations.find(|(known_as, _)| known_as.eq_ignore_ascii_case(&name.value))
                }
                None if scope.relations.len() == 1 => scope.relations.first(),
                None => None,
            };
            if let Some((_, Meaning::Source(source))) = relation {
                self.sources[*source].narrow(&window)?;
            }
        }
        self.spell_out_wildcards(&mut select.projection, &scope);
        self.columns += select.projection.len();
        if self.columns > MOST_COLUMNS {
            return Err(EngineError::Invalid(format!(
                "the query has more than {MOST_COLUMNS} columns in all its parts"
            )));
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                scope.aliases.insert(alias.value.to_ascii_lowercase());
            }
        }
        let columns = &mut scope.columns;
        let mut mentioned = |expr: &Expr| {
            if let Expr::Identifier(column) = expr {
                columns.insert(column.value.to_ascii_lowercase());
            }
            false
        };
        visit::any_expression(&select.projection, &mut mentioned);
        visit::any_expression(&select.selection, &mut mentioned);
        let joins = select.from.iter().flat_map(|table| &table.joins);
        for constraint in joins.filter_map(|join| constraint(&join.join_operator)) {
            visit::any_expression(constraint, &mut mentioned);
        }
        Ok(scope)
    }

    fn bind_joined(
        &mut self,
        table: &mut TableWithJoins,
        scope: &mut Scope,
    ) -> Result<(), EngineError> {
        self.bind(&mut table.relation, scope)?;
        for join in &mut table.joins {
            self.bind(&mut join.relation, scope)?;
            match constraint(&join.join_operator) {
                Some(JoinConstraint::Using(columns)) => {
                    for column in columns {
                        let Some(column) = column.0.last().and_then(|part| part.as_ident()) else {
                            continue;
                        };
                        for (_, meaning) in &scope.relations {
                            if let Meaning::Source(source) = meaning {
                                self.sources[*source].mention(&mut column.clone());
                            }
                        }
                        scope.joined_by.push(column.value.clone());
                    }
                }
                Some(JoinConstraint::Natural) => {
                    return Err(EngineError::Invalid(
                        "streams have no fixed columns to join by: use JOIN ... ON".to_owned(),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn bind(&mut self, table: &mut TableFactor, scope: &mut Scope) -> Result<(), EngineError> {
        let no_such = || EngineError::Invalid("a FROM of this kind is not understood".to_owned());
        match table {
            TableFactor::Table { name, alias, args, .. } => {
                let [part] = &name.0[..] else {
                    return Err(EngineError::Invalid(format!(
                        "{name} is the name of no stream and no process"
                    )));
                };
                let called = part.as_ident().ok_or_else(no_such)?.value.clone();
                alias.iter_mut().for_each(|alias| alias.name.quote_style = Some('"'));
                let known_as = alias.as_ref().map_or(&called, |alias| &alias.name.value).clone();
                let meaning = if args.is_some() {
                    table_function(&called)?
                } else if let Some(meaning) = self.cte(&called) {
                    meaning
                } else {
                    let relation = self.catalogue.relation(&called)?;
                    self.reads.insert(called.clone());
                    self.sources.push(Source {
                        name: called.clone(),
                        relation,
                        columns: Vec::new(),
                        blocks: Vec::new(),
                    });
                    let source = self.sources.len() - 1;
                    let marker = Ident::with_quote('"', print::marker(source));
                    *name = ObjectName::from(vec![marker]);
                    if alias.is_none() {
                        *alias = Some(TableAlias {
                            explicit: true,
                            name: Ident::with_quote('"', called),
                            columns: Vec::new(),
                            at: None,
                        });
                    }
                    Meaning::Source(source)
                };
                scope.relations.push((known_as, meaning));
            }
            TableFactor::Derived { subquery, alias, .. } => {
                // Without a name its columns could not be told from those beside it.
                let alias = alias.get_or_insert_with(|| TableAlias {
                    explicit: true,
                    name: Ident::with_quote('"', format!("{MARK}{}", scope.relations.len())),
                    columns: Vec::new(),
                    at: None,
                });
                alias.name.quote_style = Some('"');
                let known_as = alias.name.value.clone();
                let names = output_names(subquery);
                let meaning = names.map_or(Meaning::Unknown, Meaning::Part);
                scope.relations.push((known_as, meaning));
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.bind_joined(table_with_joins, scope)?;
            }
            _ => return Err(no_such()),
        }
        Ok(())
    }

    fn cte(&self, name: &str) -> Option<Meaning> {
        let ctes = self.queries.iter().rev().flat_map(|frame| &frame.ctes);
        ctes.into_iter()
            .find(|(cte, _)| cte.eq_ignore_ascii_case(name))
            .map(|(_, meaning)| meaning.clone())
    }

    /// `*` of a stream is what its events have had, not what the query mentions besides.
    fn spell_out_wildcards(&self, projection: &mut Vec<SelectItem>, scope: &Scope) {
        for item in std::mem::take(projection) {
            if projection.len() > MOST_COLUMNS {
                return;
            }
            let spelled = match &item {
                SelectItem::Wildcard(_) => self.all_columns(scope),
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => name.0.last().and_then(|part| part.as_ident()).and_then(|called| {
                    let mut relations = scope.relations.iter();
                    let (name, meaning) =
                        relations.find(|(name, _)| name.eq_ignore_ascii_case(&called.value))?;
                    self.columns(name, meaning)
                }),
                _ => None,
            };
            match spelled.filter(|spelled| !spelled.is_empty()) {
                Some(spelled) => projection.extend(spelled),
                None => projection.push(item),
            }
        }
    }

    fn all_columns(&self, scope: &Scope) -> Option<Vec<SelectItem>> {
        let is_joined = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { alias, .. } => scope.joined_by.contains(&alias.value),
            _ => false,
        };
        let joined = scope.joined_by.iter().map(|name| {
            let name = Ident::with_quote('"', name);
            SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias: name }
        });
        let mut all: Vec<SelectItem> = joined.collect();
        for (name, meaning) in &scope.relations {
            all.extend(self.columns(name, meaning)?.into_iter().filter(|item| !is_joined(item)));
        }
        Some(all)
    }

    fn columns(&self, relation: &str, meaning: &Meaning) -> Option<Vec<SelectItem>> {
        let names: Vec<&String> = match meaning {
            Meaning::Unknown => return None,
            Meaning::Part(names) => {
                // Of columns of one name only the first could be told.
                let distinct: BTreeSet<_> = names.iter().map(|it| it.to_lowercase()).collect();
                if distinct.len() < names.len() {
                    return None;
                }
                names.iter().collect()
            }
            Meaning::Source(source) => match &self.sources[*source].relation {
                Relation::Stream { keys, .. } => keys.iter().map(|(key, _)| key).collect(),
                Relation::Process { columns, .. } => columns.iter().map(|it| &it.name).collect(),
            },
        };
        let quoted = |name: &str| Ident::with_quote('"', name);
        let items = names.into_iter().map(|name| SelectItem::ExprWithAlias {
            expr: Expr::CompoundIdentifier(vec![quoted(relation), quoted(name)]),
            alias: quoted(name),
        });
        Some(items.collect())
    }

    /// Whether a stream has a key, as far as this query is concerned.
    fn has(&self, source: usize, key: &str) -> bool {
        let source = &self.sources[source];
        let settled = self.settled.get(key).map(|streams| streams.contains(&source.name));
        settled.unwrap_or_else(|| source.has(key))
    }

    fn column(&mut self, column: &mut Ident) {
        let name = column.value.to_ascii_lowercase();
        for scope in self.scopes.iter().rev() {
            if scope.aliases.contains(&name) && !scope.columns.contains(&name) {
                return;
            }
            let is_other = |meaning: &Meaning| match meaning {
                Meaning::Part(names) => names.iter().any(|it| it.eq_ignore_ascii_case(&name)),
                Meaning::Source(source) => {
                    matches!(self.sources[*source].relation, Relation::Process { .. })
                        && self.sources[*source].has(&name)
                }
                Meaning::Unknown => false,
            };
            if scope.relations.iter().any(|(_, meaning)| is_other(meaning)) {
                return;
            }
            let streams: Vec<usize> = scope
                .relations
                .iter()
                .filter_map(|(_, meaning)| match meaning {
                    Meaning::Source(source) if self.has(*source, &column.value) => Some(*source),
                    _ => None,
                })
                .collect();
            if !streams.is_empty() {
                let key = column.value.clone();
                for stream in streams {
                    let source = &mut self.sources[stream];
                    source.mention(column);
                    self.homes.entry(key.clone()).or_default().insert(source.name.clone());
                }
                return;
            }
            if scope.relations.iter().any(|(_, meaning)| matches!(meaning, Meaning::Unknown)) {
                return;
            }
        }
        // No event has had it: it is a column of the nearest stream, so that it is nobody else's.
        let nearest = self.scopes.iter().rev().flat_map(|scope| &scope.relations);
        let nearest = nearest.into_iter().find_map(|(_, meaning)| match meaning {
            Meaning::Source(source) => match self.sources[*source].relation {
                Relation::Stream { .. } => Some(*source),
                Relation::Process { .. } => None,
            },
            _ => None,
        });
        if let Some(stream) = nearest {
            self.sources[stream].mention(column);
        }
    }

    fn column_of(&mut self, relation: &Ident, column: &mut Ident) {
        let relations = self.scopes.iter().rev().flat_map(|scope| &scope.relations);
        let found = relations
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&relation.value))
            .map(|(_, meaning)| meaning);
        if let Some(Meaning::Source(source)) = found {
            let source = *source;
            self.sources[source].mention(column);
        }
    }
}

/// How many relations a query reads.
fn reads(query: &Query) -> usize {
    // What each part reads, by name; of parts of one name, the most.
    let mut parts = BTreeMap::<String, usize>::new();
    let weigh = |query: &Query, parts: &BTreeMap<String, usize>| {
        let mut read = 0_usize;
        visit::relations(query, &mut |name| {
            let part = parts.get(&name.to_ascii_lowercase());
            read = read.saturating_add(part.map_or(1, |reads| (*reads).max(1)));
        });
        read
    };
    visit::queries(query, &mut |query| {
        for part in query.with.iter().flat_map(|with| &with.cte_tables) {
            let read = weigh(&part.query, &parts);
            let most = parts.entry(part.alias.name.value.to_ascii_lowercase()).or_default();
            *most = read.max(*most);
        }
    });
    weigh(query, &parts)
}

/// The query, with the relations that it reads before it. Only in these may events be read: the
/// connection knows them by their names.
fn with_sources(query: &Query, sources: &[Source]) -> Result<String, EngineError> {
    let printed = print::query(query)?;
    if sources.is_empty() {
        return Ok(printed);
    }
    let mut with = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let name = print::name(&print::marker(number));
        with.push(format!("{name} AS NOT MATERIALIZED ({})", source.select()));
    }
    let with = with.join(", ");
    Ok(match printed.strip_prefix("WITH ") {
        Some(rest) => match rest.strip_prefix("RECURSIVE ") {
            Some(rest) => format!("WITH RECURSIVE {with}, {rest}"),
            None => format!("WITH {with}, {rest}"),
        },
        None => format!("WITH {with} {printed}"),
    })
}

fn source_number(name: &ObjectName) -> Option<usize> {
    let [part] = &name.0[..] else { return None };
    print::marked(&part.as_ident()?.value)
}

fn constraint(join: &JoinOperator) -> Option<&JoinConstraint> {
    match join {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint) => Some(constraint),
        _ => None,
    }
}

/// SQLite has other functions that give tables, but they tell of its own ones.
fn table_function(name: &str) -> Result<Meaning, EngineError> {
    if !["json_each", "json_tree"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(EngineError::Invalid(format!("there is no function {name:?} that gives rows")));
    }
    let columns = ["key", "value", "type", "atom", "id", "parent", "fullkey", "path"];
    Ok(Meaning::Part(columns.map(str::to_owned).into()))
}
