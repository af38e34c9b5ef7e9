//! What the names in a query mean, found out on the way down.

use std::collections::BTreeSet;

use sqlparser::ast::{
    Expr, Ident, InTarget, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableAlias, TableFactor, TableWithJoins,
};

use super::columns::{name_results, output_names};
use super::parse::Homes;
use super::print::{self, MARK};
use super::relations::{Catalogue, Relation, Source};
use super::tree::parts;
use super::visit::{self, Change};
use super::windows;
use crate::engine::EngineError;

/// How many columns a query may have in all its parts, with each `*` spelled out: what SQLite plans grows with
/// them, before it looks at the clock.
const MOST_COLUMNS: usize = 10_000;

/// How many relations a query may read, each counted as often as the part that it is in is read.
pub(crate) const MOST_READS: usize = 1_000;

/// The query reads more than that.
pub(crate) fn too_many_reads() -> EngineError {
    EngineError::Invalid(format!(
        "the query reads more than {MOST_READS} relations, those of its parts counted each time"
    ))
}

/// Finds out what every name stands for, on the way down.
pub(crate) struct Names<'a> {
    catalogue: &'a dyn Catalogue,
    /// What names were found to mean earlier. It stays so, whatever keys come later.
    settled: &'a Homes,
    pub(crate) homes: Homes,
    pub(crate) reads: BTreeSet<String>,
    pub(crate) sources: Vec<Source>,
    /// Of the `SELECT`s that enclose the place, the innermost last.
    scopes: Vec<Scope>,
    /// Of the `SELECT`s in whose `FROM` the place is: it cannot speak of what stands beside it.
    aside: Vec<Option<Scope>>,
    queries: Vec<Frame>,
    /// How many columns there are so far.
    columns: usize,
}

/// What the names of columns in one `SELECT` can mean.
#[derive(Debug, Default)]
struct Scope {
    relations: Vec<(String, Meaning)>,
    /// Names given to results, and names that are mentioned where they can only be columns: in the
    /// results themselves, in conditions of events and of joins. Elsewhere a result comes first.
    aliases: BTreeSet<String>,
    columns: BTreeSet<String>,
    /// Columns that are joined by name, and so come once in `*`.
    joined_by: Vec<String>,
}

impl Scope {
    /// What the name of a relation means.
    fn relation(&self, name: &Ident) -> Option<&(String, Meaning)> {
        let mut relations = self.relations.iter();
        relations.find(|(known_as, _)| known_as.eq_ignore_ascii_case(&name.value))
    }

    /// Its relations that are not parts of the query.
    fn sources(&self) -> impl Iterator<Item = usize> {
        self.relations.iter().filter_map(|(_, meaning)| match meaning {
            Meaning::Source(source) => Some(*source),
            _ => None,
        })
    }
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
    parts: Vec<(String, Meaning)>,
}

impl Change for Names<'_> {
    fn enter_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        if let Some(forged) = parts(query).find(|part| part.alias.name.value.contains(MARK)) {
            let name = &forged.alias.name.value;
            return Err(EngineError::Invalid(format!("{name:?} cannot be a name")));
        }
        let parts = parts(query).map(|part| {
            let names = if part.alias.columns.is_empty() {
                output_names(&part.query)
            } else {
                Some(part.alias.columns.iter().map(|column| column.name.value.clone()).collect())
            };
            (part.alias.name.value.clone(), names.map_or(Meaning::Unknown, Meaning::Part))
        });
        let parts = parts.collect();
        self.queries.push(Frame { depth: self.scopes.len(), parts });
        Ok(())
    }

    fn leave_query(&mut self, _: &mut Query) -> Result<(), EngineError> {
        if let Some(frame) = self.queries.pop() {
            self.scopes.truncate(frame.depth);
        }
        Ok(())
    }

    /// The scope stays until the query ends, because its `ORDER BY` still speaks of it.
    fn enter_select(&mut self, select: &mut Select) -> Result<(), EngineError> {
        self.scopes.truncate(self.queries.last().map_or(0, |frame| frame.depth));
        let scope = self.scope_of(select)?;
        self.scopes.push(scope);
        Ok(())
    }

    fn enter_table(&mut self, table: &mut TableFactor) -> Result<(), EngineError> {
        if matches!(table, TableFactor::Derived { .. }) {
            self.aside.push(self.scopes.pop());
        }
        Ok(())
    }

    fn leave_table(&mut self, table: &mut TableFactor) -> Result<(), EngineError> {
        if matches!(table, TableFactor::Derived { .. }) {
            self.scopes.extend(self.aside.pop().flatten());
        }
        Ok(())
    }

    fn enter_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
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
                return Err(EngineError::Invalid(format!("write IN (SELECT ... FROM {name})")));
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Names<'a> {
    pub(crate) fn new(settled: &'a Homes, catalogue: &'a dyn Catalogue) -> Self {
        Self {
            catalogue,
            settled,
            homes: settled.clone(),
            reads: BTreeSet::new(),
            sources: Vec::new(),
            scopes: Vec::new(),
            aside: Vec::new(),
            queries: Vec::new(),
            columns: 0,
        }
    }
}

impl Names<'_> {
    fn scope_of(&mut self, select: &mut Select) -> Result<Scope, EngineError> {
        name_results(&mut select.projection);
        let mut scope = Scope::default();
        for table in &mut select.from {
            self.bind_joined(table, &mut scope)?;
        }
        for window in windows::of(select) {
            let relation = match window.relation {
                Some(name) => scope.relation(name),
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
                        for source in scope.sources() {
                            self.sources[source].mention(&mut column.clone());
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
                } else if let Some(meaning) = self.part(&called) {
                    meaning
                } else {
                    if self.sources.len() >= MOST_READS {
                        return Err(too_many_reads());
                    }
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
                    alias.get_or_insert_with(|| alias_of(called));
                    Meaning::Source(source)
                };
                scope.relations.push((known_as, meaning));
            }
            TableFactor::Derived { subquery, alias, .. } => {
                // Without a name its columns could not be told from those beside it.
                let number = scope.relations.len();
                let alias = alias.get_or_insert_with(|| alias_of(format!("{MARK}{number}")));
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

    /// What the name of a part of the query means.
    fn part(&self, name: &str) -> Option<Meaning> {
        let mut parts = self.queries.iter().rev().flat_map(|frame| &frame.parts);
        let (_, meaning) = parts.find(|(part, _)| part.eq_ignore_ascii_case(name))?;
        Some(meaning.clone())
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
                ) => name.0.last().and_then(|part| {
                    let (name, meaning) = scope.relation(part.as_ident()?)?;
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
            let streams: Vec<usize> =
                scope.sources().filter(|source| self.has(*source, &column.value)).collect();
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
        let mut nearest = self.scopes.iter().rev().flat_map(Scope::sources);
        let is_stream =
            |source: &usize| matches!(self.sources[*source].relation, Relation::Stream { .. });
        let nearest = nearest.find(is_stream);
        if let Some(stream) = nearest {
            self.sources[stream].mention(column);
        }
    }

    fn column_of(&mut self, relation: &Ident, column: &mut Ident) {
        let mut scopes = self.scopes.iter().rev();
        let found = scopes.find_map(|scope| scope.relation(relation));
        if let Some((_, Meaning::Source(source))) = found {
            self.sources[*source].mention(column);
        }
    }
}

fn alias_of(name: String) -> TableAlias {
    let name = Ident::with_quote('"', name);
    TableAlias { explicit: true, name, columns: Vec::new(), at: None }
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
