//! Windows: conditions by which a query reads only what is younger than some moment. They tell which events need not be
//! looked at, when a result changes though nothing comes, and in which steps a window can be kept.

use std::collections::BTreeSet;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
    UnaryOperator, Value,
};
use time::OffsetDateTime;

use super::compare::TIMESTAMP;
use super::parse::{self, Parsed};
use super::tree::{arguments, binary, call, function_name, number, only_part, parts};
use super::visit;

/// A condition that has to hold for every row of a `SELECT`: a column is younger than a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'q> {
    /// The name of the relation, if the column is written with it.
    pub(crate) relation: Option<&'q Ident>,
    pub(crate) column: &'q Ident,
    /// The moment: it is one for the whole query.
    pub(crate) after: &'q Expr,
    condition: &'q Expr,
}

/// The windows of one `SELECT`.
pub(crate) fn of(select: &Select) -> Vec<Window<'_>> {
    let mut windows = Vec::new();
    let mut left: Vec<&Expr> = select.selection.iter().collect();
    while let Some(condition) = left.pop() {
        let (column, after) = match condition {
            Expr::Nested(inner) => {
                left.push(inner);
                continue;
            }
            Expr::BinaryOp { left: one, op: BinaryOperator::And, right: other } => {
                left.extend([&**one, &**other]);
                continue;
            }
            Expr::BinaryOp { left, op: BinaryOperator::Gt | BinaryOperator::GtEq, right } => {
                (left, right)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Lt | BinaryOperator::LtEq, right } => {
                (right, left)
            }
            Expr::Between { expr, negated: false, low, .. } => (expr, low),
            _ => continue,
        };
        if let Some((relation, column)) = column_of(column)
            && is_moment(after)
        {
            windows.push(Window { relation, column, after, condition });
        }
    }
    windows
}

fn column_of(expr: &Expr) -> Option<(Option<&Ident>, &Ident)> {
    match expr {
        Expr::Nested(inner) => column_of(inner),
        Expr::Identifier(column) => Some((None, column)),
        Expr::CompoundIdentifier(parts) => match &parts[..] {
            [relation, column] => Some((Some(relation), column)),
            _ => None,
        },
        Expr::Function(function) if function_name(function) == "utc" => {
            match arguments(function)?[..] {
                [inner] => column_of(inner),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether an expression is made of nothing but literals and the time it is.
fn is_moment(expr: &Expr) -> bool {
    const FUNCTIONS: [&str; 6] = ["now", "utc", "time_add", "date_trunc", "datetime", "date"];
    let is_time = match expr {
        Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_)),
        expr => matches!(expr, Expr::Function(_)),
    };
    is_time
        && !visit::any_expression(expr, |expr| match expr {
            Expr::Value(value) => matches!(value.value, Value::Placeholder(_) | Value::Null),
            Expr::Function(function) => !FUNCTIONS.contains(&&*function_name(function)),
            Expr::Nested(_) | Expr::UnaryOp { op: UnaryOperator::Minus, .. } => false,
            _ => true,
        })
}

/// What has to become so old that a result changes: the oldest row of a window, and its length in microseconds.
#[derive(Debug)]
pub(crate) struct Oldest {
    /// Gives one time, or `NULL` if there is nothing in the window.
    pub(crate) query: Parsed,
    pub(crate) micros: i64,
}

/// All windows of a query. `None`: it changes with time in other ways, too.
pub(crate) fn oldest(parsed: &Parsed) -> Option<Vec<Oldest>> {
    let mut names = BTreeSet::new();
    visit::queries(&parsed.query, |query| {
        names.extend(parts(query).map(|part| part.alias.name.value.to_ascii_lowercase()));
    });
    let mut all = Vec::new();
    visit::queries(&parsed.query, |query| {
        for select in selects(&query.body) {
            for window in of(select) {
                let relation = relation(select, window.relation, &names);
                if let Some((relation, micros)) = relation.zip(length(window.after)) {
                    all.extend(oldest_of(relation, &window).map(|query| Oldest { query, micros }));
                }
            }
        }
    });
    (all.len() == parsed.clock_reads).then_some(all)
}

fn selects(body: &SetExpr) -> Vec<&Select> {
    match body {
        SetExpr::Select(select) => vec![select],
        SetExpr::SetOperation { left, right, .. } => {
            let mut all = selects(left);
            all.extend(selects(right));
            all
        }
        _ => Vec::new(),
    }
}

/// How long a window is that ends now.
fn length(after: &Expr) -> Option<i64> {
    let Expr::Function(function) = after else { return None };
    match (&*function_name(function), &arguments(function)?[..]) {
        ("now", []) => Some(0),
        ("time_add", [now, Expr::UnaryOp { op: UnaryOperator::Minus, expr: micros }])
            if length(now) == Some(0) =>
        {
            let Expr::Value(value) = &**micros else { return None };
            let Value::Number(digits, _) = &value.value else { return None };
            digits.parse().ok()
        }
        _ => None,
    }
}

/// The relation that a window is of, unless it is a part of the query.
fn relation<'q>(
    select: &'q Select,
    name: Option<&Ident>,
    parts: &BTreeSet<String>,
) -> Option<&'q TableFactor> {
    let joined = |table: &'q TableWithJoins| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    };
    let all: Vec<&TableFactor> = select.from.iter().flat_map(joined).collect();
    let found = all.iter().find(|table| {
        let TableFactor::Table { name: called, alias, args: None, .. } = table else {
            return false;
        };
        let Some(called) = only_part(called) else { return false };
        let known_as = alias.as_ref().map_or(called, |alias| &alias.name);
        !parts.contains(&called.value.to_ascii_lowercase())
            && match name {
                Some(name) => known_as.value.eq_ignore_ascii_case(&name.value),
                None => all.len() == 1,
            }
    });
    found.copied()
}

fn oldest_of(relation: &TableFactor, window: &Window<'_>) -> Option<Parsed> {
    let mut parsed = parse::parse("SELECT 1 AS oldest FROM s").ok()?;
    let SetExpr::Select(select) = &mut *parsed.query.body else { return None };
    let column = match window.relation {
        Some(relation) => Expr::CompoundIdentifier(vec![relation.clone(), window.column.clone()]),
        None => Expr::Identifier(window.column.clone()),
    };
    let oldest = call("min", [call("utc", [column])]);
    select.projection = vec![SelectItem::UnnamedExpr(oldest)];
    select.from = vec![TableWithJoins { relation: relation.clone(), joins: Vec::new() }];
    select.selection = Some(window.condition.clone());
    Some(parsed)
}

/// How many steps a window has.
const STEPS: i64 = 20;

/// How short a step may be, in microseconds.
const SHORTEST: i64 = 1_000_000;

/// A window that ends now, cut into steps: what is kept of it leaves it a step at a time. Steps are counted from
/// 1970, so that they are the same for every window of that length. All times are in microseconds since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    window: i64,
}

impl Steps {
    /// How long a step is.
    pub(crate) fn length(self) -> i64 {
        (self.window / STEPS).max(SHORTEST)
    }

    /// The first step that has some of the window in it at `now`.
    pub(crate) fn first(self, now: i64) -> i64 {
        now.saturating_sub(self.window).div_euclid(self.length())
    }

    /// When the last of `step` leaves the window.
    pub(crate) fn leaves(self, step: i64) -> i64 {
        step.saturating_add(1).saturating_mul(self.length()).saturating_add(self.window)
    }
}

/// The step of a time: of lengths in microseconds, each with its beginning or, if `after`, with its end, so that a step
/// ends where `>` does.
pub(crate) fn step_of(at: OffsetDateTime, length: i64, after: bool) -> i64 {
    let nanos = at.unix_timestamp_nanos() - i128::from(after);
    let step = nanos.div_euclid(i128::from(length.max(1)) * 1000);
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// Takes the condition out of a `SELECT` of one stream that makes it one over a window, if there is nothing else in it
/// that asks for the time. Returns the window's steps, and what gives the step of an event: `NULL` if it can never be in the window.
pub(crate) fn take(select: &mut Select, clock_reads: usize) -> Option<(Steps, Expr)> {
    if clock_reads != 1 {
        return None;
    }
    let (steps, step, condition) = of(select).into_iter().find_map(|found| {
        let window = length(found.after).filter(|window| *window > 0)?;
        if found.column.value != TIMESTAMP {
            return None;
        }
        let (at, op) = match found.condition {
            Expr::BinaryOp {
                left, op: op @ (BinaryOperator::Gt | BinaryOperator::GtEq), ..
            } => (left, op),
            Expr::BinaryOp {
                right, op: op @ (BinaryOperator::Lt | BinaryOperator::LtEq), ..
            } => (right, op),
            _ => return None,
        };
        let after = u8::from(matches!(op, BinaryOperator::Gt | BinaryOperator::Lt));
        let steps = Steps { window };
        let length = number(steps.length().to_string());
        let step = call("time_step", [(**at).clone(), length, number(after.to_string())]);
        Some((steps, step, found.condition.clone()))
    })?;
    select.selection = without(select.selection.take()?, &condition);
    Some((steps, step))
}

/// A condition without one of those that all have to hold.
fn without(all: Expr, condition: &Expr) -> Option<Expr> {
    match all {
        all if all == *condition => None,
        Expr::Nested(inner) => without(*inner, condition).map(|rest| Expr::Nested(Box::new(rest))),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            match (without(*left, condition), without(*right, condition)) {
                (Some(left), Some(right)) => Some(binary(left, BinaryOperator::And, right)),
                (left, right) => left.or(right),
            }
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::times;

    fn lengths(sql: &str) -> Option<Vec<(String, i64)>> {
        let all = oldest(&parse::parse(sql).unwrap())?;
        Some(all.into_iter().map(|it| (it.query.query.to_string(), it.micros)).collect())
    }

    #[test]
    fn the_windows_of_a_query_are_found() {
        assert_eq!(
            lengths("SELECT count(*) FROM s WHERE a = 1 AND ($timestamp > now() - INTERVAL '5 s')"),
            Some(vec![(
                r#"SELECT min(utc("$timestamp")) FROM s WHERE "$timestamp" > time_add(now(), -5000000)"#
                    .to_owned(),
                5_000_000
            )])
        );
        let joined =
            "SELECT 1 FROM s JOIN t AS u ON s.a = u.a WHERE now() - INTERVAL '1 s' < u.at AND
            s.$timestamp BETWEEN clock_timestamp() - INTERVAL '2 s' AND '2100-01-01'";
        assert_eq!(lengths(joined).unwrap().len(), 2);
        assert_eq!(lengths("SELECT count(*) FROM s WHERE $timestamp > '2015-05-05'"), Some(vec![]));
    }

    #[test]
    fn what_changes_with_time_in_other_ways_is_told_from_windows() {
        for sql in [
            "SELECT count(*), now() FROM s WHERE $timestamp > now() - INTERVAL '5 s'",
            "SELECT count(*) FROM s WHERE $timestamp > now() - INTERVAL '1 month'",
            "SELECT count(*) FROM s WHERE $timestamp > date_trunc('day', now())",
            "SELECT count(*) FROM s WHERE a = 1 OR $timestamp > now() - INTERVAL '5 s'",
            "SELECT count(*) FROM s WHERE $timestamp < now() - INTERVAL '5 s'",
            "SELECT count(*) FROM s, t WHERE at > now() - INTERVAL '5 s'",
            "WITH t AS (SELECT at FROM s) SELECT 1 FROM t WHERE at > now() - INTERVAL '5 s'",
            "SELECT random()",
        ] {
            assert_eq!(lengths(sql), None, "{sql}");
        }
    }

    /// The window of a query in microseconds, what gives the step of an event, and what is left of its conditions.
    fn taken(sql: &str) -> Option<(i64, String, Option<String>)> {
        let mut parsed = parse::parse(sql).unwrap();
        let SetExpr::Select(select) = &mut *parsed.query.body else { panic!("{sql}") };
        let (steps, step) = take(select, parsed.clock_reads)?;
        let rest = select.selection.as_ref().map(ToString::to_string);
        Some((steps.window, step.to_string(), rest))
    }

    #[test]
    fn a_window_is_taken_out_of_the_conditions() {
        let minute = 60_000_000;
        let step = |at: &str, after: u8| format!("time_step({at}, 3000000, {after})");
        let at = "\"$timestamp\"";
        for (condition, taken_step, rest) in [
            ("$timestamp > now() - INTERVAL '1 minute'", step(at, 1), None),
            ("$timestamp >= now() - INTERVAL '1 minute'", step(at, 0), None),
            ("now() - INTERVAL '1 minute' < s.$timestamp", step(&format!("s.{at}"), 1), None),
            (
                "a = 1 AND (utc($timestamp) > now() - INTERVAL '1 minute' AND b = 2)",
                step(&format!("utc({at})"), 1),
                Some("a = 1 AND (b = 2)".to_owned()),
            ),
        ] {
            let taken = taken(&format!("SELECT count(*) FROM s WHERE {condition}"));
            assert_eq!(taken, Some((minute, taken_step, rest)), "{condition}");
        }
        for condition in [
            "$timestamp > '2015-05-05'",
            "at > now() - INTERVAL '1 minute'",
            "arrival_timestamp > now() - INTERVAL '1 minute'",
            "$timestamp > now() - INTERVAL '1 month'",
            "$timestamp > now() + INTERVAL '1 minute'",
            "$timestamp > now()",
            "$timestamp > date_trunc('day', now())",
            "$timestamp BETWEEN now() - INTERVAL '1 minute' AND '2100-01-01'",
            "a = 1 OR $timestamp > now() - INTERVAL '1 minute'",
            "$timestamp > now() - INTERVAL '1 minute' AND $timestamp < now()",
        ] {
            let sql = format!("SELECT count(*) FROM s WHERE {condition}");
            assert_eq!(taken(&sql), None, "{condition}");
        }
    }

    #[test]
    fn the_steps_hold_the_window_and_less_than_a_step_more() {
        let micros = |seconds: f64| (seconds * 1e6) as i64;
        for window in [micros(0.25), micros(7.0), micros(60.0), micros(86_400.0), 33_333_333] {
            let steps = Steps { window };
            assert!(
                steps.length() >= SHORTEST && steps.length() * STEPS <= window.max(20 * SHORTEST)
            );
            for now in (0..200).map(|i| 1_430_869_227_000_042 + i * 977_777) {
                let first = steps.first(now);
                let begins = first * steps.length();
                assert!(begins <= now - window && now - window < begins + steps.length());
                // It is the first until just before it leaves.
                let leaves = steps.leaves(first);
                assert!(now < leaves && steps.first(leaves - 1) == first);
                assert_eq!(steps.first(leaves), first + 1);
            }
        }
    }

    #[test]
    fn a_step_ends_where_the_condition_does() {
        let at = |text: &str| times::parse(text).unwrap();
        let step = |text: &str, after| step_of(at(text), 1_000_000, after);
        let second = step("2015-05-05T23:40:27Z", false);
        assert_eq!(second, 1_430_869_227);
        assert_eq!(step("2015-05-06T01:40:27.999999999+02:00", false), second);
        assert_eq!(step("2015-05-05T23:40:28Z", false), second + 1);
        assert_eq!(step("2015-05-05T23:40:28Z", true), second);
        assert_eq!(step("2015-05-05T23:40:28.000000001Z", true), second + 1);
        assert_eq!(step("1969-12-31T23:59:59.5Z", false), -1);
    }
}
