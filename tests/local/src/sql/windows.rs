//! Windows: conditions by which a query reads only what is younger than some moment. They tell which events need not be
//! looked at, and when a result changes though nothing comes.

use std::collections::BTreeSet;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
    UnaryOperator, Value,
};

use super::parse::{self, Parsed};
use super::tree::{arguments, call, function_name, only_part, parts};
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
