//! Queries whose result can be added to, as one upsert: aggregates of one stream that can be combined.
//!
//! The *part* groups and aggregates some events. The upsert adds it to what is kept, one row for each group, with its
//! key and the state of each aggregate. The *outputs* are the query's columns, in terms of keys and states.

use sqlparser::ast::{
    Expr, Function, GroupByExpr, Ident, InTarget, Query, Select, SelectItem, SetExpr, TableFactor,
};

use super::own;
use crate::engine::EngineError;
use crate::sql::groups::{Aggregate, aggregate, mentions, named, result_only, same, spelled_out};
use crate::sql::parse::{Homes, Parsed};
use crate::sql::print::{self, is_raw, raw};
use crate::sql::relations::Catalogue;
use crate::sql::rewrite::Runnable;
use crate::sql::tree::{function_name, number, only_part};
use crate::sql::visit::{self, Change};

/// Functions of several rows, besides those whose parts can be combined.
const OF_ROWS: [&str; 19] = [
    "array_agg",
    "bool_and",
    "bool_or",
    "dense_rank",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "rank",
    "row_number",
    "string_agg",
    "total",
];

/// How many keys a group can have: as many as one function takes arguments.
const MOST_KEYS: usize = 50;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) stream: String,
    part: Query,
    keys: usize,
    states: Vec<State>,
    /// The columns of the result as SQL, with their names.
    pub(crate) outputs: Vec<(String, String)>,
}

/// One column that is kept of an aggregate.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// What it is of some events.
    part: Expr,
    merge: Merge,
}

/// How two states become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    Add,
    Min,
    Max,
}

impl Plan {
    /// The plan for a query, if it is one that can be added to.
    pub(crate) fn new(parsed: &Parsed) -> Option<Self> {
        let query = &parsed.query;
        let is_plain = !parsed.changes_with_time()
            && query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none();
        let SetExpr::Select(select) = &*query.body else { return None };
        let mut select = (**select).clone();
        if !is_plain || select.distinct.is_some() || select.having.is_some() {
            return None;
        }
        let stream = only_stream(&select)?;
        let named = named(&select.projection)?;
        let keys = keys(&select, &named)?;
        if let Some(condition) = &select.selection {
            check(condition, &[])?;
        }
        let mut split = Split { keys: &keys, states: Vec::new() };
        let outputs = named.iter().map(|(expr, name)| {
            let mut expr = expr.clone();
            visit::change(&mut expr, &mut split)?;
            Ok((print::expression(&expr)?, name.clone()))
        });
        let outputs = outputs.collect::<Result<Vec<_>, EngineError>>().ok()?;
        let Split { states, .. } = split;
        if keys.is_empty() && states.is_empty() || keys.len() > MOST_KEYS {
            return None;
        }
        for state in &states {
            check_functions(&state.part)?;
        }
        let keyed = keys.iter().map(|key| own("key", key.clone()));
        let columns = keyed.chain(states.iter().map(|state| state.part.clone()));
        select.projection = columns
            .enumerate()
            .map(|(place, expr)| SelectItem::ExprWithAlias {
                expr,
                // No key of an event has such a name, so nothing in the query can mean it.
                alias: Ident::with_quote('"', format!("\u{1}{place}")),
            })
            .collect();
        // By their places: a key that is a number would be taken for one.
        let places = (1..=keys.len()).map(|place| number(place.to_string())).collect();
        select.group_by = GroupByExpr::Expressions(places, Vec::new());
        let part = Query { body: Box::new(SetExpr::Select(Box::new(select))), ..query.clone() };
        Some(Self { stream, part, keys: keys.len(), states, outputs })
    }

    /// The columns that are kept, besides the hash of the key.
    fn columns(&self) -> Vec<String> {
        let keys = (0..self.keys).map(|key| format!("k{key}"));
        keys.chain((0..self.states.len()).map(|state| format!("a{state}"))).collect()
    }

    /// Reads the rows that the events in `catalogue` give, as they are kept.
    pub(crate) fn read(&self, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
        let parsed = Parsed { query: self.part.clone(), clock_reads: 0, homes: Homes::new() };
        let Runnable { sql, .. } = super::rewrite(&parsed, catalogue)?;
        let keys: Vec<String> = (0..self.keys).map(|key| format!("k{key}")).collect();
        let keys = keys.join(", ");
        let columns = self.columns().join(", ");
        // A key may be longer than an entry of an index.
        let hash = format!("sha256(convert_to(jsonb_build_array({keys})::text, 'UTF8'))");
        Ok(format!("SELECT {hash} AS hash, {columns} FROM ({sql}) AS part ({columns})"))
    }

    /// What an upsert does with a group that is there already.
    pub(crate) fn on_conflict(&self) -> String {
        let updates = self.states.iter().enumerate().map(|(state, State { merge, .. })| {
            let (column, old, new) =
                (format!("a{state}"), format!("kept.a{state}"), format!("excluded.a{state}"));
            match merge {
                Merge::Add => format!("{column} = coalesce({old} + {new}, {old}, {new})"),
                Merge::Min => format!("{column} = least({old}, {new})"),
                Merge::Max => format!("{column} = greatest({old}, {new})"),
            }
        });
        let updates: Vec<String> = updates.collect();
        match updates.is_empty() {
            true => "DO NOTHING".to_owned(),
            false => format!("DO UPDATE SET {}", updates.join(", ")),
        }
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
        Some(key)
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

/// There is no function of other rows, and nothing that is a query of its own.
fn check_functions(expr: &Expr) -> Option<()> {
    let is_of_others = visit::any_expression(expr, |expr| match expr {
        Expr::Function(function) => {
            let name = function_name(function);
            function.over.is_some() || function.filter.is_some() || OF_ROWS.contains(&&*name)
        }
        Expr::Subquery(_) | Expr::Exists { .. } => true,
        Expr::In { target, .. } => !matches!(target, InTarget::List(_)),
        _ => false,
    });
    (!is_of_others).then_some(())
}

/// Takes a result apart: what is a key or an aggregate in it is replaced by columns that are kept.
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
            *expr = raw(&format!("(k{key})"));
            return Ok(());
        }
        match expr {
            Expr::Function(function) => match aggregate(function) {
                Some(found) if function.filter.is_none() && found != Aggregate::CountDistinct => {
                    *expr = self.state(function, found);
                }
                Some(_) => return Err(no_part()),
                None if check_functions(&Expr::Function(function.clone())).is_none() => {
                    return Err(no_part());
                }
                None => {}
            },
            // A column that is neither aggregated nor grouped by.
            Expr::Identifier(name) if !is_raw(name) => return Err(no_part()),
            Expr::CompoundIdentifier(_) => return Err(no_part()),
            _ => {}
        }
        Ok(())
    }
}

/// What is in a result that is neither a key nor made of aggregates.
fn no_part() -> EngineError {
    EngineError::Invalid("the query is not one that can be added to".to_owned())
}

impl Split<'_> {
    /// What gives the aggregate's value from its states, which are added if they are new.
    fn state(&mut self, function: &Function, aggregate: Aggregate) -> Expr {
        let mut keep = |name: &str, merge| {
            let mut function = function.clone();
            function.name = vec![Ident::new(name)].into();
            let state = State { part: Expr::Function(function), merge };
            self.states.iter().position(|known| *known == state).unwrap_or_else(|| {
                self.states.push(state);
                self.states.len() - 1
            })
        };
        let value = match aggregate {
            Aggregate::Count => format!("(a{})", keep("count", Merge::Add)),
            Aggregate::Sum | Aggregate::Total => format!("(a{})", keep("sum", Merge::Add)),
            Aggregate::Min => format!("(a{})", keep("min", Merge::Min)),
            Aggregate::Max => format!("(a{})", keep("max", Merge::Max)),
            // It is not taken apart.
            Aggregate::CountDistinct => String::new(),
            Aggregate::Average => {
                let (sum, count) = (keep("sum", Merge::Add), keep("count", Merge::Add));
                format!("(a{sum} / nullif(a{count}, 0))")
            }
        };
        raw(&value)
    }
}
