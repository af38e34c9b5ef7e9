//! What is compared with what: times with times, whatever their texts look like, and numbers with numbers.
//!
//! A time is a text, and SQLite would compare it as one. So each time that a query mentions is given the
//! collation under which texts are in the order of the times. It is written out at each place, because
//! that of a column gives way to the column on its left, and is lost in functions and subqueries.

use std::collections::BTreeSet;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, InTarget, ObjectName, Query, Select, SelectItem, SetExpr, Value,
};

use super::times;
use super::tree::{arguments_mut, call, function_name, only_part, parts, take, wrap};
use super::visit::{self, Change};
use crate::engine::EngineError;

/// The key of an event that is always a time.
pub(crate) const TIMESTAMP: &str = "$timestamp";

/// Functions that hand on one of their arguments.
pub(crate) const PASSING: [&str; 11] = [
    "coalesce",
    "first_value",
    "ifnull",
    "iif",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "nth_value",
    "nullif",
];

/// How often a query is gone through to find what it calls a time.
const MOST_PASSES: usize = 100;

/// Has times compared as times. `known`: names of columns that are times, besides `$timestamp`.
pub(crate) fn times(query: &mut Query, known: BTreeSet<String>) -> Result<(), EngineError> {
    let mut times = Times::default();
    times.names.extend(known);
    // A part of the query may call a time by another name, and may come after those who read it.
    for _ in 0..MOST_PASSES {
        let (count, mut marked) = (times.names.len(), query.clone());
        visit::change(&mut marked, &mut times)?;
        if times.names.len() == count {
            *query = marked;
            return Ok(());
        }
    }
    Err(EngineError::Invalid("the parts of the query are read by too many others".to_owned()))
}

/// Whether an expression over the columns of a stream is a time.
pub(crate) fn is_time(expr: &Expr) -> bool {
    let mut marked = expr.clone();
    visit::change(&mut marked, &mut Times::default()).is_ok() && is_marked(&marked)
}

/// Whether [`times()`] has found an expression to be a time.
pub(crate) fn is_marked(expr: &Expr) -> bool {
    marked(expr).is_some()
}

/// The time that the collation was given to.
fn marked(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Nested(inner) => marked(inner),
        Expr::Collate { expr, collation } => {
            only_part(collation).filter(|name| name.value == times::COLLATION).map(|_| &**expr)
        }
        _ => None,
    }
}

struct Times {
    /// Names of columns that are times, in lower case.
    names: BTreeSet<String>,
}

impl Default for Times {
    fn default() -> Self {
        Self { names: BTreeSet::from([TIMESTAMP.to_owned()]) }
    }
}

impl Change for Times {
    fn leave_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        for part in parts(query) {
            let results = first_select(&part.query).into_iter().flat_map(|it| &it.projection);
            for (name, item) in part.alias.columns.iter().zip(results) {
                self.find(&name.name, item);
            }
        }
        Ok(())
    }

    fn leave_select(&mut self, select: &mut Select) -> Result<(), EngineError> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.find(alias, item);
            }
        }
        Ok(())
    }

    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        self.expression(expr).map_err(EngineError::Invalid)
    }
}

impl Times {
    fn find(&mut self, name: &Ident, item: &SelectItem) {
        if let SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) = item
            && is_marked(expr)
        {
            self.names.insert(name.value.to_ascii_lowercase());
        }
    }

    fn is_name(&self, name: &Ident) -> bool {
        self.names.contains(&name.value.to_ascii_lowercase())
    }

    fn expression(&self, expr: &mut Expr) -> Result<(), String> {
        use BinaryOperator as Op;
        match expr {
            Expr::Identifier(name) if self.is_name(name) => mark(expr),
            Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|it| self.is_name(it)) => {
                mark(expr);
            }
            Expr::Function(function) => {
                let name = function_name(function);
                let is_time = times::FUNCTIONS.contains(&&*name);
                if PASSING.contains(&&*name) {
                    let mut arguments: Vec<&mut Expr> = arguments_mut(function).collect();
                    if arguments.iter().any(|it| is_marked(it)) {
                        // Those that compare their arguments do it as the first of them says.
                        if matches!(&*name, "max" | "min" | "nullif") {
                            arguments.first_mut().into_iter().for_each(|it| mark(it));
                        }
                        mark(expr);
                    }
                    return Ok(());
                }
                arguments_mut(function).for_each(unmark);
                if is_time {
                    mark(expr);
                }
            }
            Expr::Case { conditions, else_result, .. } => {
                let results = conditions.iter().map(|it| &it.result);
                if results.chain(else_result.as_deref()).any(is_marked) {
                    mark(expr);
                }
            }
            Expr::Subquery(query) if is_time_of(query) => mark(expr),
            Expr::BinaryOp { left, op, right } => match op {
                Op::Eq | Op::NotEq => compare(&mut [left, right])?,
                Op::Gt | Op::Lt | Op::GtEq | Op::LtEq => {
                    compare(&mut [left, right])?;
                    of_types(expr);
                }
                Op::Plus | Op::Minus if is_marked(left) || is_marked(right) => {
                    return Err(NO_DURATIONS.to_owned());
                }
                Op::StringConcat => {
                    unmark(left);
                    unmark(right);
                }
                _ => {}
            },
            Expr::Between { expr, low, high, .. } => {
                compare(&mut [expr, low, high])?;
                of_one_type(expr, low);
            }
            Expr::In { expr, target, .. } => match target {
                InTarget::List(list) => {
                    let mut all: Vec<&mut Expr> = list.iter_mut().collect();
                    all.push(expr);
                    compare(&mut all)?;
                    // The list is compared as the left side says.
                    if list.iter().any(is_marked) {
                        mark(expr);
                    }
                }
                InTarget::Subquery(query)
                    if is_time_of(query) && !matches!(**expr, Expr::Tuple(_)) =>
                {
                    mark(expr);
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

/// What is compared with a time is a time, or `NULL`: otherwise every text would come before or after it.
fn compare(operands: &mut [&mut Expr]) -> Result<(), String> {
    // Of a time that only its name tells, another column may have that name.
    let is_sure = |time: &Expr| match time {
        Expr::Identifier(name) => name.value == TIMESTAMP,
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|it| it.value == TIMESTAMP),
        _ => true,
    };
    if !operands.iter().any(|it| marked(it).is_some_and(is_sure)) {
        return Ok(());
    }
    for operand in operands {
        match &**operand {
            Expr::Value(value) => {
                times::check(&value.value)?;
                if let Value::Placeholder(_) = &value.value {
                    wrap("time_or_null", operand);
                }
            }
            _ if !is_marked(operand) => wrap("time_or_null", operand),
            _ => {}
        }
    }
    Ok(())
}

/// What is compared with a literal in an expression, but not deeper in it, is of the literal's type.
pub(crate) fn of_types(expr: &mut Expr) {
    use BinaryOperator as Op;
    match expr {
        Expr::BinaryOp { left, op: Op::Gt | Op::Lt | Op::GtEq | Op::LtEq, right } => {
            of_one_type(left, right);
            of_one_type(right, left);
        }
        Expr::Between { expr, low, .. } => of_one_type(expr, low),
        _ => {}
    }
}

/// What is compared with a literal or a parameter is of its type, or `NULL`: in SQLite every text is greater than
/// every number.
fn of_one_type(column: &mut Expr, literal: &Expr) {
    let is_literal = match literal {
        Expr::UnaryOp { expr, .. } => matches!(**expr, Expr::Value(_)),
        expr => matches!(expr, Expr::Value(_)),
    };
    let is_column = matches!(
        column,
        Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::BinaryOp { op: BinaryOperator::LongArrow, .. }
    );
    if is_literal && is_column {
        *column = call("same_type", [take(column), literal.clone()]);
    }
}

const NO_DURATIONS: &str = "only an INTERVAL can be added to a time or taken from it: for a difference in seconds write \
     extract(epoch FROM a) - extract(epoch FROM b)";

/// A time is not a number, and there is no type for the difference between two.
#[cfg(feature = "postgres")]
pub(crate) fn no_durations() -> EngineError {
    EngineError::Invalid(NO_DURATIONS.to_owned())
}

fn mark(expr: &mut Expr) {
    if !is_marked(expr) {
        let mut time = take(expr);
        if matches!(time, Expr::BinaryOp { .. } | Expr::UnaryOp { .. }) {
            time = Expr::Nested(Box::new(time));
        }
        let collation = ObjectName::from(vec![Ident::new(times::COLLATION)]);
        *expr = Expr::Nested(Box::new(Expr::Collate { expr: Box::new(time), collation }));
    }
}

/// What a function makes of a time is another thing, whose text SQLite would compare under the collation, too.
fn unmark(expr: &mut Expr) {
    while is_marked(expr)
        && let Expr::Nested(inner) | Expr::Collate { expr: inner, .. } = expr
    {
        // Not a copy: calls may be nested thousands deep.
        *expr = take(inner);
    }
}

/// Whether what a subquery gives is a time.
fn is_time_of(query: &Query) -> bool {
    let first = first_select(query).and_then(|select| select.projection.first());
    matches!(first, Some(SelectItem::ExprWithAlias { expr, .. }) if is_marked(expr))
}

/// The `SELECT` that gives a query its columns.
pub(crate) fn first_select(query: &Query) -> Option<&Select> {
    let mut body = &*query.body;
    loop {
        match body {
            SetExpr::Select(select) => return Some(select),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => body = &query.body,
            _ => return None,
        }
    }
}
