//! Queries whose result can be added to: aggregates of one stream that can be combined.
//!
//! A plan splits such a query in three. The *part* groups and aggregates some events, which is all
//! that is ever read of them. The *merge* adds a part to what is kept: one row for each group, with
//! its key and the state of each aggregate. The *outputs* are the query's columns, in terms of keys
//! and states.

#[cfg(feature = "postgres")]
mod counterpart;
mod dialect;
mod distinct;
mod rows;
mod sliding;
mod split;

use std::collections::BTreeSet;

use sqlparser::ast::{
    Distinct as SelectDistinct, Expr, GroupByExpr, Ident, LimitClause, Query, Select, SelectItem,
    SetExpr, TableFactor,
};

pub(crate) use self::dialect::Dialect;
use self::distinct::Distinct;
pub(crate) use self::distinct::Values;
use self::split::{SpellOut, Split, check, check_functions};
use super::groups::{Aggregate, is_aggregate, mentions, named, result_only, spelled_out};
use super::parse::{Homes, Parsed};
use super::print;
use super::relations::{Catalogue, Relation};
use super::tree::{function_name, number, only_part};
use super::visit;
use super::windows::{self, Steps};
use super::{rewrite, times};
use crate::engine::EngineError;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) stream: String,
    /// A query of the stream for keys and states.
    pub(super) part: Query,
    /// Over a window: its steps. States are then kept for each step and group, and merged when they are read.
    pub(super) window: Option<Steps>,
    pub(super) keys: usize,
    pub(super) states: Vec<State>,
    /// In the order in which the query has them.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only a copy compares plans")
    )]
    uses: Vec<Use>,
    /// The columns of the result as SQL, in terms of the table of keys and states.
    pub(super) outputs: Vec<String>,
    /// Which groups are rows of the result, as SQL.
    pub(super) having: Option<String>,
    /// The distinct counts, each with a query of the stream for keys and values.
    pub(super) distinct: Vec<(Distinct, Query)>,
    /// There are no groups: each event is a row, and goes with it.
    pub(super) of_events: bool,
}

/// What events are grouped by.
#[derive(Clone, Debug)]
struct Key {
    expr: Expr,
    /// It is a time as it was sent, of which there are many texts.
    is_time: bool,
}

impl Key {
    fn new(dialect: Dialect, expr: Expr) -> Self {
        // The table of groups compares texts. Those that a function gives are the same for the same time.
        let is_call = matches!(&expr, Expr::Function(function)
            if times::FUNCTIONS.contains(&&*function_name(function)));
        Self { is_time: !is_call && dialect.is_time(&expr), expr }
    }

    /// What stands for it in the table.
    fn column(&self, dialect: Dialect) -> Expr {
        dialect.key(self.expr.clone(), self.is_time)
    }
}

/// An aggregate of the query, and the states that it is made of.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only a copy compares plans"))]
struct Use {
    aggregate: Aggregate,
    states: Vec<usize>,
}

/// One column that is kept of an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// What it is of some events.
    pub(super) part: Expr,
    pub(super) merge: Merge,
    /// Of its texts, those are equal that are the same time.
    pub(super) time: bool,
}

/// How two states become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// Both are numbers.
    Add,
    /// The same, of values that the table of values did not have.
    Distinct,
    /// Either may be `NULL`.
    Sum,
    Min,
    Max,
}

impl Plan {
    /// The plan for a query, or why it is not one that can be added to.
    pub(crate) fn new(parsed: &Parsed, dialect: Dialect) -> Result<Self, String> {
        let (query, mut select, stream) = of_one_stream(parsed)?;
        let window = match dialect.keeps_windows() {
            true => windows::take(&mut select, parsed.clock_reads),
            false => None,
        };
        if parsed.changes_with_time() && window.is_none() {
            let why = match dialect.keeps_windows() {
                true => "it changes with time, other than by one window over $timestamp",
                false => "it changes with time, and so is run again on PostgreSQL",
            };
            return Err(why.to_owned());
        }
        let (window, step) = window.unzip();
        let named = named(&select.projection)
            .ok_or("it has a *, and the columns of a stream become more")?;
        if let Some(condition) = &select.selection {
            check(dialect, condition, &[])?;
        }
        let GroupByExpr::Expressions(group_by, modifiers) = &select.group_by else {
            return Err("it has GROUP BY ALL".to_owned());
        };
        if !modifiers.is_empty() {
            return Err("its GROUP BY is of several kinds".to_owned());
        }
        let aggregates = visit::any_expression(
            &select.projection,
            |expr| matches!(expr, Expr::Function(function) if is_aggregate(function)),
        );
        let is_grouped = !group_by.is_empty() || aggregates || select.having.is_some();
        let keys: Vec<Key> = match select.distinct.take() {
            None | Some(SelectDistinct::All) if !is_grouped && window.is_some() => {
                return Err("it has single events of a window".to_owned());
            }
            None | Some(SelectDistinct::All) if !is_grouped => {
                return Self::of_events(dialect, query, select, stream, named);
            }
            None | Some(SelectDistinct::All) => keys(dialect, &select, group_by, &named)?,
            Some(SelectDistinct::Distinct) if is_grouped => {
                return Err("it has DISTINCT over groups".to_owned());
            }
            Some(SelectDistinct::Distinct) => {
                let keys = named.iter().map(|(expr, _)| {
                    check(dialect, expr, &[])?;
                    Ok(Key::new(dialect, expr.clone()))
                });
                keys.collect::<Result<_, String>>()?
            }
            Some(SelectDistinct::On(_)) => return Err("it has DISTINCT ON".to_owned()),
        };

        let (states, uses, distinct) = (Vec::new(), Vec::new(), Vec::new());
        let mut split = Split { dialect, keys: &keys, states, uses, distinct, why: None };
        let mut taken_apart = |mut expr: Expr| {
            let printed = visit::change(&mut expr, &mut split)
                // What cannot be printed as a part cannot be run in whole, either: that says why.
                .and_then(|()| print::expression(&expr));
            printed.map_err(|error| split.why.take().unwrap_or_else(|| error.to_string()))
        };
        let outputs = named.iter().map(|(expr, _)| taken_apart(expr.clone()));
        let outputs = outputs.collect::<Result<Vec<String>, String>>()?;
        let having = select.having.take().map(|mut having| {
            let mut columns = BTreeSet::new();
            visit::any_expression(&select.selection, |expr| {
                if let Expr::Identifier(name) = expr {
                    columns.insert(name.value.to_ascii_lowercase());
                }
                false
            });
            let mut spell_out = SpellOut { named: &named, columns };
            visit::change(&mut having, &mut spell_out).map_err(|error| error.to_string())?;
            taken_apart(having)
        });
        let having = having.transpose()?;
        let Split { states, uses, distinct, .. } = split;
        if keys.is_empty() && states.is_empty() {
            return Err("it aggregates nothing".to_owned());
        }
        if window.is_some() && !distinct.is_empty() {
            return Err("it counts distinct values over a window".to_owned());
        }
        let values =
            distinct.iter().flat_map(|distinct| distinct.filter.iter().chain([&distinct.value]));
        let parts = states.iter().map(|state| &state.part);
        for expr in keys.iter().map(|key| &key.expr).chain(parts).chain(values) {
            check_functions(dialect, expr)?;
        }

        let key_columns: Vec<Expr> = keys.iter().map(|key| key.column(dialect)).collect();
        let with_body = |body| Query { body: Box::new(body), ..query.clone() };
        let distinct = distinct.into_iter().map(|distinct| {
            let values = distinct.query(dialect, select.clone(), &key_columns);
            (distinct, with_body(values))
        });
        let distinct = distinct.collect();
        let state_columns = states.iter().map(|state| state.part.clone());
        let count = usize::from(window.is_some()) + keys.len();
        select.projection = aliased(step.into_iter().chain(key_columns).chain(state_columns));
        // By their places: a key that is a number would be taken for one.
        let places = (1..=count).map(|place| number(place.to_string())).collect();
        select.group_by = GroupByExpr::Expressions(places, Vec::new());
        let part = with_body(SetExpr::Select(Box::new(select)));
        let (keys, of_events) = (keys.len(), false);
        Ok(Self { stream, part, window, keys, states, uses, outputs, having, distinct, of_events })
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Column `place` of the result, in terms of the table of keys and states.
    pub(crate) fn output(&self, place: usize) -> &str {
        &self.outputs[place]
    }

    pub(crate) fn window(&self) -> Option<Steps> {
        self.window
    }

    /// What the events are grouped by.
    fn group_columns(&self) -> Vec<String> {
        (0..self.keys).map(|key| format!("k{key}")).collect()
    }

    /// The columns that the table of a process has.
    pub(crate) fn table_columns(&self) -> Vec<String> {
        if self.of_events {
            return self.event_columns();
        }
        let mut columns = self.key_columns();
        columns.extend((0..self.states.len()).map(|state| format!("a{state}")));
        columns
    }

    /// The columns that are the key of the table. Without a `GROUP BY` there is one group, and its key is 0.
    fn key_columns(&self) -> Vec<String> {
        let mut columns = self.group_columns();
        match (self.window, columns.is_empty()) {
            // In this order what leaves the window lies together.
            (Some(_), _) => columns.insert(0, "step".to_owned()),
            (None, true) => columns.push("k".to_owned()),
            (None, false) => {}
        }
        columns
    }

    /// Makes the tables for what is kept (`table`) and for what is to be added (`delta`).
    pub(crate) fn create(&self, table: &str, temporary: bool) -> String {
        if self.of_events {
            return self.create_of_events(table);
        }
        let columns = self.table_columns();
        let temporary = if temporary { "TEMP " } else { "" };
        format!(
            "CREATE {temporary}TABLE {table} ({}, PRIMARY KEY ({})) WITHOUT ROWID",
            columns.join(", "),
            self.key_columns().join(", "),
        )
    }

    /// Reads what is to be added, from the events at places from `?1` up to, but without, `?2`: a row for `delta`
    /// for each group, or for each step and group. What can never be in the window has `NULL` as its step.
    pub(crate) fn read(&self, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
        let part = self.read_events(&self.part, catalogue)?;
        let has_key = self.keys > 0 || self.of_events || self.window.is_some();
        Ok(if has_key { part } else { format!("SELECT 0, * FROM ({part})") })
    }

    fn read_events(&self, query: &Query, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
        let some = SomeEvents { catalogue, stream: &self.stream };
        let parsed = Parsed { query: query.clone(), clock_reads: 0, homes: Homes::new() };
        Ok(rewrite::rewrite(&parsed, &some)?.sql)
    }

    /// Puts a row into `delta`, or that of an event into the table itself.
    pub(crate) fn insert(&self, table: &str) -> String {
        let marks = vec!["?"; self.table_columns().len()].join(", ");
        format!("INSERT INTO {table} VALUES ({marks})")
    }

    /// What holds for those groups that are rows of the result, if not for all.
    pub(crate) fn having(&self) -> Option<&str> {
        self.having.as_deref()
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
                    Merge::Add | Merge::Distinct => return format!("a{place} = {old} + {new}"),
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
            self.key_columns().join(", "),
        )
    }

    /// The rows of the result that `delta` is about to change or has changed, in the order of their
    /// keys; those that are not there yet are `NULL` in their first column. Over a window, `scanning` reads all of it.
    pub(crate) fn touched(&self, table: &str, delta: &str, scanning: bool) -> String {
        let columns: Vec<String> =
            (0..self.outputs.len()).map(|place| format!("o{place}")).collect();
        let outputs: Vec<String> = self
            .outputs
            .iter()
            .zip(&columns)
            .map(|(output, column)| format!("{output} AS {column}"))
            .collect();
        if self.window.is_some() {
            return self.touched_in_window(table, delta, &outputs.join(", "), scanning);
        }
        let keys = self.key_columns().join(", ");
        let is_there = match &self.having {
            Some(having) => format!("CASE WHEN {having} THEN 1 END"),
            None => "1".to_owned(),
        };
        format!(
            "SELECT t.is_there, {} FROM {delta} LEFT JOIN \
             (SELECT {is_there} AS is_there, {keys}, {} FROM {table}) AS t USING ({keys}) \
             ORDER BY {keys}",
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

/// The parts of a query that reads one stream, from beginning to end: it may group, and does not order.
fn of_one_stream(parsed: &Parsed) -> Result<(&Query, Select, String), String> {
    let query = &parsed.query;
    let Query { with, body, order_by, limit_clause, fetch, .. } = query;
    let why = match &**body {
        _ if with.is_some() => "it has WITH",
        _ if order_by.is_some() => "it has ORDER BY",
        _ if !matches!(
            limit_clause,
            None | Some(LimitClause::LimitOffset { limit: None, offset: None, .. })
        ) || fetch.is_some() =>
        {
            "it has LIMIT"
        }
        SetExpr::Select(select) => match &select.from[..] {
            [table] if table.joins.is_empty() => match &table.relation {
                TableFactor::Table { name, args: None, .. } => {
                    let stream = only_part(name).ok_or("it reads something else than a stream")?;
                    return Ok((query, (**select).clone(), stream.value.clone()));
                }
                TableFactor::Derived { .. } => "it has a subquery",
                _ => "it reads something else than a stream",
            },
            [] => "it reads no stream",
            _ => "it joins",
        },
        SetExpr::SetOperation { .. } => "it is made of several SELECTs",
        _ => "it is not one plain SELECT",
    };
    Err(why.to_owned())
}

/// What the events are grouped by, with results spelled out.
fn keys(
    dialect: Dialect,
    select: &Select,
    group_by: &[Expr],
    named: &[(Expr, String)],
) -> Result<Vec<Key>, String> {
    let keys = group_by.iter().map(|expr| {
        // In a condition a name is a column, and then it is one here, too.
        if let (Expr::Identifier(name), Some(condition)) = (expr, &select.selection)
            && mentions(condition, &name.value)
            && result_only(name, named).is_some()
        {
            return Err(format!("its WHERE takes the result {} for a column", name.value));
        }
        let key = spelled_out(expr, named).ok_or("it groups by something that is not a result")?;
        check(dialect, &key, named)?;
        Ok(Key::new(dialect, key))
    });
    keys.collect()
}

/// Results that have names which no key of an event has, so that nothing in the query can mean them.
fn aliased(results: impl IntoIterator<Item = Expr>) -> Vec<SelectItem> {
    let alias = |place| Ident::with_quote('"', format!("\u{1}{place}"));
    let results = results.into_iter().enumerate();
    results.map(|(place, expr)| SelectItem::ExprWithAlias { expr, alias: alias(place) }).collect()
}
