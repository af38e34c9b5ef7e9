//! Queries whose result can be added to: aggregates of one stream that can be combined.
//!
//! A plan splits such a query in three. The *part* groups and aggregates some events, which is all
//! that is ever read of them. The *merge* adds a part to what is kept: one row for each group, with
//! its key and the state of each aggregate. The *outputs* are the query's columns, in terms of keys
//! and states.

use sqlparser::ast::{
    Expr, Function, GroupByExpr, Ident, InTarget, LimitClause, Query, Select, SelectItem, SetExpr,
    TableFactor, Value,
};

use super::compare::is_time;
use super::groups::{Aggregate, aggregate, mentions, named, result_only, same, spelled_out};
use super::parse::{Homes, Parsed};
use super::print::{self, is_raw, raw};
use super::relations::{Catalogue, Relation};
use super::tree::{call, function_name, number, only_part};
use super::visit::{self, Change};
use super::{rewrite, times};
use crate::engine::EngineError;

/// The functions that can stand in such a query besides the aggregates: what they give depends on
/// nothing but their arguments, and is not much longer than they are.
const FUNCTIONS: [&str; 41] = [
    "abs",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "date",
    "date_part",
    "datetime",
    "exp",
    "floor",
    "ifnull",
    "iif",
    "ilike",
    "instr",
    "json",
    "json_array_length",
    "json_extract",
    "json_type",
    "json_valid",
    "julianday",
    "length",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "max",
    "min",
    "mod",
    "nullif",
    "pow",
    "power",
    "round",
    "sign",
    "sqrt",
    "strftime",
    "substr",
    "time",
    "trunc",
    "typeof",
    "upper",
];

/// Stands for `NULL` in a key, because `NULL`s are not equal to each other: a BLOB of this byte. It is not JSON
/// in SQLite's binary form, so no event can have it.
const NULL_KEY: &str = "FF";

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    stream: String,
    /// A query of the stream for keys and states.
    part: Query,
    keys: usize,
    states: Vec<State>,
    /// The columns of the result as SQL, in terms of the table of keys and states.
    outputs: Vec<String>,
}

/// One column that is kept of an aggregate.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// What it is of some events.
    part: Expr,
    merge: Merge,
    /// Of its texts, those are equal that are the same time.
    time: bool,
}

/// How two states become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    /// Both are numbers.
    Add,
    /// Either may be `NULL`.
    Sum,
    Min,
    Max,
}

impl Plan {
    /// The plan for a query, if it is one that can be added to.
    pub(crate) fn new(parsed: &Parsed) -> Option<Self> {
        if parsed.changes_with_time() {
            return None;
        }
        let Query { with: None, body, order_by: None, limit_clause, fetch: None, .. } =
            &parsed.query
        else {
            return None;
        };
        if !matches!(
            limit_clause,
            None | Some(LimitClause::LimitOffset { limit: None, offset: None, .. })
        ) {
            return None;
        }
        let SetExpr::Select(select) = &**body else { return None };
        let mut select = (**select).clone();
        let stream = only_stream(&select)?;
        if select.distinct.is_some() || select.having.is_some() {
            return None;
        }
        let named = named(&select.projection)?;
        let keys = keys(&select, &named)?;
        if let Some(condition) = &select.selection {
            check(condition, &[])?;
        }

        let mut split = Split { keys: &keys, states: Vec::new() };
        let outputs = named.iter().map(|(expr, _)| {
            let mut expr = expr.clone();
            visit::change(&mut expr, &mut split)?;
            // What cannot be printed as a part cannot be run in whole, either: that says why.
            print::expression(&expr)
        });
        let outputs = outputs.collect::<Result<Vec<String>, EngineError>>().ok()?;
        let Split { states, .. } = split;
        if keys.is_empty() && states.is_empty() {
            return None;
        }
        for expr in keys.iter().chain(states.iter().map(|state| &state.part)) {
            check_functions(expr)?;
        }

        let null = Expr::Value(Value::HexStringLiteral(NULL_KEY.to_owned()).into());
        let key_columns = keys.iter().map(|key| call("ifnull", [key.clone(), null.clone()]));
        let state_columns = states.iter().map(|state| state.part.clone());
        select.projection = key_columns
            .chain(state_columns)
            .enumerate()
            .map(|(place, expr)| SelectItem::ExprWithAlias {
                expr,
                // No key of an event has such a name, so nothing in the query can mean it.
                alias: Ident::with_quote('"', format!("\u{1}{place}")),
            })
            .collect();
        // By their places: a key that is a number would be taken for one.
        let count = keys.len();
        let places = (1..=count).map(|place| number(place.to_string())).collect();
        select.group_by = GroupByExpr::Expressions(places, Vec::new());
        let part =
            Query { body: Box::new(SetExpr::Select(Box::new(select))), ..parsed.query.clone() };
        Some(Self { stream, part, keys: count, states, outputs })
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Column `place` of the result, in terms of the table of keys and states.
    pub(crate) fn output(&self, place: usize) -> &str {
        &self.outputs[place]
    }

    /// The columns of the table of keys and states.
    fn columns(&self) -> Vec<String> {
        let keys = (0..self.keys).map(|key| format!("k{key}"));
        keys.chain((0..self.states.len()).map(|state| format!("a{state}"))).collect()
    }

    /// The columns that are the key. Without a `GROUP BY` there is one group, and its key is 0.
    fn key_columns(&self) -> String {
        let keys: Vec<String> = (0..self.keys).map(|key| format!("k{key}")).collect();
        if keys.is_empty() { "k".to_owned() } else { keys.join(", ") }
    }

    /// Makes the tables for what is kept (`table`) and for what is to be added (`delta`).
    pub(crate) fn create(&self, table: &str, temporary: bool) -> String {
        let mut columns = self.columns();
        if self.keys == 0 {
            columns.insert(0, "k".to_owned());
        }
        let temporary = if temporary { "TEMP " } else { "" };
        format!(
            "CREATE {temporary}TABLE {table} ({}, PRIMARY KEY ({})) WITHOUT ROWID",
            columns.join(", "),
            self.key_columns(),
        )
    }

    /// Reads what is to be added, from the events at places from `?1` up to, but without, `?2`: a row for `delta`
    /// for each group.
    pub(crate) fn read(&self, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
        let some = SomeEvents { catalogue, stream: &self.stream };
        let homes = Homes::new();
        let parsed = Parsed { query: self.part.clone(), clock_reads: 0, homes };
        let part = rewrite::rewrite(&parsed, &some)?.sql;
        Ok(if self.keys == 0 { format!("SELECT 0, * FROM ({part})") } else { part })
    }

    /// Puts a row into `delta`.
    pub(crate) fn insert(&self, delta: &str) -> String {
        let columns = self.keys.max(1) + self.states.len();
        format!("INSERT INTO {delta} VALUES ({})", vec!["?"; columns].join(", "))
    }

    /// Adds what is in `delta` to `table`.
    pub(crate) fn merge(&self, table: &str, delta: &str) -> String {
        let updates: Vec<String> = self
            .states
            .iter()
            .enumerate()
            .map(|(place, state)| {
                let (old, new) = (format!("{table}.a{place}"), format!("excluded.a{place}"));
                let collation = if state.time { times::COLLATED } else { "" };
                let other = match state.merge {
                    Merge::Add => return format!("a{place} = {old} + {new}"),
                    Merge::Sum => format!("{old} + {new}"),
                    // As the aggregates do: of equals, the first.
                    Merge::Min => {
                        format!("CASE WHEN {new} < {old}{collation} THEN {new} ELSE {old} END")
                    }
                    Merge::Max => {
                        format!("CASE WHEN {new} > {old}{collation} THEN {new} ELSE {old} END")
                    }
                };
                format!(
                    "a{place} = CASE WHEN {new} IS NULL THEN {old} WHEN {old} IS NULL THEN {new} \
                     ELSE {other} END"
                )
            })
            .collect();
        let update = match updates.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", updates.join(", ")),
        };
        // Without a `WHERE`, SQLite would take `ON` for a join's.
        format!(
            "INSERT INTO {table} SELECT * FROM {delta} WHERE true ON CONFLICT ({}) DO {update}",
            self.key_columns(),
        )
    }

    /// The rows of the result that `delta` is about to change or has changed, in the order of their
    /// keys; those that are not there yet are `NULL` in their first column, which is 1 else.
    pub(crate) fn touched(&self, table: &str, delta: &str) -> String {
        let columns: Vec<String> =
            (0..self.outputs.len()).map(|place| format!("o{place}")).collect();
        let outputs: Vec<String> = self
            .outputs
            .iter()
            .zip(&columns)
            .map(|(output, column)| format!("{output} AS {column}"))
            .collect();
        let keys = self.key_columns();
        format!(
            "SELECT t.is_there, {} FROM {delta} LEFT JOIN \
             (SELECT 1 AS is_there, {keys}, {} FROM {table}) AS t USING ({keys}) ORDER BY {keys}",
            columns.iter().map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", "),
            outputs.join(", "),
        )
    }
}

/// Some of the events of one stream, in place of all of them.
struct SomeEvents<'a> {
    catalogue: &'a dyn Catalogue,
    stream: &'a str,
}

impl Catalogue for SomeEvents<'_> {
    fn relation(&self, name: &str) -> Result<Relation, EngineError> {
        Ok(match self.catalogue.relation(name)? {
            Relation::Stream { keys, .. } if name == self.stream => {
                let rows = Some("place >= ?1 AND place < ?2".to_owned());
                Relation::Stream { number: None, rows, keys }
            }
            other => other,
        })
    }
}

/// The name of the stream, if nothing else is read.
fn only_stream(select: &Select) -> Option<String> {
    let [table] = &select.from[..] else { return None };
    if !table.joins.is_empty() {
        return None;
    }
    let TableFactor::Table { name, args: None, .. } = &table.relation else { return None };
    Some(only_part(name)?.value.clone())
}

/// What the events are grouped by, with results spelled out.
fn keys(select: &Select, named: &[(Expr, String)]) -> Option<Vec<Expr>> {
    let GroupByExpr::Expressions(group_by, modifiers) = &select.group_by else { return None };
    if !modifiers.is_empty() {
        return None;
    }
    let keys = group_by.iter().map(|expr| {
        // In a condition a name is a column, and then it is one here, too.
        if let (Expr::Identifier(name), Some(condition)) = (expr, &select.selection)
            && mentions(condition, &name.value)
            && result_only(name, named).is_some()
        {
            return None;
        }
        let key = spelled_out(expr, named)?;
        check(&key, named)?;
        // The table of groups compares texts. Those that a function gives are the same for the same time.
        let is_call = matches!(&key, Expr::Function(function)
            if times::FUNCTIONS.contains(&&*function_name(function)));
        (is_call || !is_time(&key)).then_some(key)
    });
    keys.collect()
}

/// An expression about one event: no aggregate, no query, no name of a result.
fn check(expr: &Expr, named: &[(Expr, String)]) -> Option<()> {
    let is_of_results = visit::any_expression(expr, |expr| match expr {
        Expr::Identifier(name) => result_only(name, named).is_some(),
        Expr::Function(function) => aggregate(function).is_some(),
        _ => false,
    });
    if is_of_results { None } else { check_functions(expr) }
}

/// All functions are known, and there is nothing that is a query of its own.
fn check_functions(expr: &Expr) -> Option<()> {
    let is_unknown = visit::any_expression(expr, |expr| {
        let known = match expr {
            Expr::Function(function) => {
                let name = function_name(function);
                aggregate(function).is_some()
                    || function.over.is_none()
                        && function.filter.is_none()
                        && (FUNCTIONS.contains(&&*name) || times::FUNCTIONS.contains(&&*name))
            }
            Expr::Subquery(_) | Expr::Exists { .. } => false,
            Expr::In { target, .. } => matches!(target, InTarget::List(_)),
            // In what order texts come, and which are equal, is another matter there.
            Expr::Collate { .. } => false,
            Expr::Trim { trim_what, trim_characters, .. } => {
                trim_what.is_none() && trim_characters.is_none()
            }
            Expr::Value(value) => !matches!(value.value, Value::Placeholder(_)),
            _ => true,
        };
        !known
    });
    (!is_unknown).then_some(())
}

/// Takes a result apart: what is a key or an aggregate in it is replaced by columns of the table.
struct Split<'a> {
    keys: &'a [Expr],
    states: Vec<State>,
}

impl Change for Split<'_> {
    fn enter_query(&mut self, _: &mut Query) -> Result<(), EngineError> {
        Err(no_part())
    }

    fn enter_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        if let Some(key) = self.keys.iter().position(|key| same(key, expr)) {
            let column = format!("nullif(k{key}, x'{NULL_KEY}')");
            // A cast says how its value is compared, too.
            *expr = match &self.keys[key] {
                Expr::Cast { data_type, .. } => raw(&format!("CAST({column} AS {data_type})")),
                key if is_time(key) => raw(&format!("({column}{})", times::COLLATED)),
                _ => raw(&column),
            };
            return Ok(());
        }
        let is_one = match expr {
            Expr::Function(function) => match aggregate(function) {
                Some(aggregate) => {
                    *expr = self.state(function, aggregate);
                    true
                }
                None => check_functions(&Expr::Function(function.clone())).is_some(),
            },
            // A column that is neither aggregated nor grouped by, or one that this function made.
            Expr::Identifier(name) => is_raw(name),
            Expr::CompoundIdentifier(_) | Expr::Collate { .. } => false,
            Expr::Value(value) => !matches!(value.value, Value::Placeholder(_)),
            _ => true,
        };
        if is_one { Ok(()) } else { Err(no_part()) }
    }
}

/// What is in a result that is neither a key nor made of aggregates.
fn no_part() -> EngineError {
    EngineError::Invalid("the query is not one that can be added to".to_owned())
}

impl Split<'_> {
    /// What gives the aggregate's value from its states, which are added if they are new.
    fn state(&mut self, function: &Function, aggregate: Aggregate) -> Expr {
        let named = |name: &str| {
            let mut function = function.clone();
            function.name = vec![Ident::new(name)].into();
            Expr::Function(function)
        };
        let of_times = is_time(&Expr::Function(function.clone()));
        let mut keep = |part: Expr, merge| {
            let time = of_times && matches!(merge, Merge::Min | Merge::Max);
            let state = State { part, merge, time };
            self.states.iter().position(|known| *known == state).unwrap_or_else(|| {
                self.states.push(state);
                self.states.len() - 1
            })
        };
        let collated = if of_times { times::COLLATED } else { "" };
        let value = match aggregate {
            Aggregate::Count => format!("(a{})", keep(named("count"), Merge::Add)),
            Aggregate::Total => format!("(a{})", keep(named("total"), Merge::Add)),
            Aggregate::Sum => format!("(a{})", keep(named("sum"), Merge::Sum)),
            Aggregate::Min => format!("(a{}{collated})", keep(named("min"), Merge::Min)),
            Aggregate::Max => format!("(a{}{collated})", keep(named("max"), Merge::Max)),
            Aggregate::Average => {
                let total = keep(named("total"), Merge::Add);
                let count = keep(named("count"), Merge::Add);
                format!("(a{total} / nullif(a{count}, 0))")
            }
        };
        raw(&value)
    }
}
