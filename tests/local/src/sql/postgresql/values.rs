//! Values of any type in PostgreSQL's words. Where SQL has a function or an operator for one type only, the operands
//! are put into calls of functions of ours, of which PostgreSQL finds the one for their type. So a query means the same
//! whatever types the values of a key have had, and as much as possible the same as on SQLite.

pub(super) mod functions;

use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, Expr, Ident, InTarget, OrderByExpr,
    OrderByOptions, OrderBySort, TypedString, UnaryOperator, Value,
};

use self::functions::{PARTS, check_unit, of_function, part_of_text};
use super::own;
use crate::engine::EngineError;
use crate::sql::compare::{self, TIMESTAMP};
use crate::sql::relations::ARRIVAL;
use crate::sql::times::{self, Span};
use crate::sql::translate;
use crate::sql::tree::{arguments, binary, call, null, number, take, text};
use crate::sql::visit;

/// How long the results of a `CASE` can be that are written several times.
const SHORT: usize = 200;

/// Changes one expression, whose parts have been.
pub(super) fn adapt(expr: &mut Expr) -> Result<(), EngineError> {
    use BinaryOperator as Op;
    match expr {
        Expr::Function(function) => {
            if let Some(changed) = of_function(function)? {
                *expr = changed;
            }
        }
        Expr::Cast { expr: value, data_type: DataType::Date, .. } => {
            *expr = own("day", [own("time", [take(value)])]);
        }
        Expr::Cast { expr: value, data_type, .. } => cast(value, data_type),
        Expr::TypedString(TypedString { data_type, value, .. }) => {
            let mut time = Expr::Value(value.clone());
            as_moment(&mut time)?;
            *expr = if *data_type == DataType::Date { own("day", [time]) } else { time };
        }
        Expr::BinaryOp { left, op, right } => match op {
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                comparable(&mut [left, right])?;
            }
            Op::Plus | Op::Minus if is_interval(right) && !is_interval(left) => {
                wrap("time", left);
                **right = span(right)?;
            }
            Op::Plus if is_interval(left) && !is_interval(right) => {
                wrap("time", right);
                **left = span(left)?;
            }
            Op::Plus | Op::Minus if is_moment(left) || is_moment(right) => {
                return Err(compare::no_durations());
            }
            Op::Plus | Op::Minus | Op::Multiply => {
                as_number(left);
                as_number(right);
            }
            // One event is not to fail a query, nor a process.
            Op::Divide => {
                as_number(left);
                as_number(right);
                **right = call("nullif", [take(right), number("0")]);
            }
            Op::Modulo => {
                [&mut *left, &mut *right].into_iter().for_each(|it| wrap("whole", it));
                **right = call("nullif", [take(right), number("0")]);
            }
            Op::BitwiseAnd | Op::BitwiseOr => {
                wrap("bits", left);
                wrap("bits", right);
            }
            Op::StringConcat => {
                as_text(left);
                as_text(right);
            }
            Op::And | Op::Or => {
                truth(left);
                truth(right);
            }
            Op::Arrow | Op::LongArrow => *expr = part_of(left, op, right),
            Op::Is | Op::IsNot => {
                distinguishable(left, right)?;
                let (one, other) = (Box::new(take(left)), Box::new(take(right)));
                *expr = match op {
                    Op::Is => Expr::IsNotDistinctFrom(one, other),
                    _ => Expr::IsDistinctFrom(one, other),
                };
            }
            _ => {}
        },
        Expr::UnaryOp { op: UnaryOperator::Not, expr }
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr) => truth(expr),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => as_number(expr),
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr } => wrap("bits", expr),
        Expr::IsUnknown(value) => *expr = Expr::IsNull(Box::new(take(value))),
        Expr::IsNotUnknown(value) => *expr = Expr::IsNotNull(Box::new(take(value))),
        Expr::Like { expr, pattern, escape_char, .. }
        | Expr::ILike { expr, pattern, escape_char, .. } => {
            as_text(expr);
            as_text(pattern);
            // Without one, a backslash is a letter like any other.
            escape_char.get_or_insert_with(|| Box::new(text("")));
        }
        Expr::Between { expr, low, high, .. } => comparable(&mut [expr, low, high])?,
        Expr::In { expr, target: InTarget::List(list), .. } => {
            let mut all: Vec<&mut Expr> = list.iter_mut().collect();
            all.push(expr);
            comparable(&mut all)?;
        }
        Expr::IsDistinctFrom(one, other) | Expr::IsNotDistinctFrom(one, other) => {
            distinguishable(one, other)?;
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            for CaseWhen { condition, .. } in &mut *conditions {
                match operand {
                    Some(operand) => comparable(&mut [operand, condition])?,
                    None => truth(condition),
                }
            }
            let results = conditions.iter_mut().map(|it| &mut it.result);
            alike(results.chain(else_result.as_deref_mut()).collect());
        }
        Expr::Substring { expr: value, substring_from, substring_for, .. } => {
            let from = substring_from.as_deref_mut().map_or_else(|| number("1"), take);
            let length = substring_for.as_deref_mut().map(take);
            *expr = part_of_text([take(value), from].into_iter().chain(length).collect());
        }
        Expr::Trim { expr, .. } => as_text(expr),
        Expr::Position { expr, r#in } => {
            as_text(expr);
            as_text(r#in);
        }
        Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => wrap("num", expr),
        Expr::Extract { field, expr: at, .. } => {
            check_unit("date_part", &field.to_string(), &PARTS)?;
            wrap("time", at);
        }
        // All times are in UTC.
        Expr::AtTimeZone { timestamp, .. } => *expr = own("time", [take(timestamp)]),
        _ => {}
    }
    Ok(())
}

/// A condition has a truth value, whatever it is written as.
pub(super) fn truth(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => truth(inner),
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Function(_)
        | Expr::Case { .. }
        | Expr::Subquery(_) => wrap("truth", expr),
        Expr::Value(value) if matches!(value.value, Value::Number(..)) => wrap("truth", expr),
        _ => {}
    }
}

/// Orders as SQLite does: `NULL` is the least, and numbers come before texts.
pub(super) fn order(by: &mut OrderByExpr) {
    null_first(&mut by.options);
    if !is_literal(&by.expr) {
        wrap("ordered", &mut by.expr);
    }
}

pub(super) fn null_first(OrderByOptions { sort, nulls_first }: &mut OrderByOptions) {
    nulls_first.get_or_insert(*sort != Some(OrderBySort::Desc));
}

fn wrap(name: &str, expr: &mut Expr) {
    *expr = own(name, [take(expr)]);
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) => true,
        Expr::Nested(inner) => is_literal(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_literal(expr),
        _ => false,
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

/// An interval as it is everywhere: of whole months and of microseconds.
fn span(interval: &mut Expr) -> Result<Expr, EngineError> {
    match interval {
        Expr::Nested(inner) => span(inner),
        Expr::Interval(interval) => {
            let Span { months, micros } = translate::span(interval)?;
            let words = text(format!("{months} months {micros} microseconds"));
            Ok(cast_to(words, DataType::Interval { fields: None, precision: None }))
        }
        other => Ok(take(other)),
    }
}

fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) => true,
        Expr::Nested(inner) => is_interval(inner),
        _ => false,
    }
}

/// Whether an expression is surely a time.
fn is_moment(expr: &Expr) -> bool {
    let is_name = |name: &Ident| name.value == TIMESTAMP || name.value == ARRIVAL;
    match expr {
        Expr::Identifier(name) => is_name(name),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_name),
        Expr::Nested(inner) => is_moment(inner),
        Expr::Cast { data_type: DataType::Timestamp(..), .. } => true,
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident());
            match name.map(|name| name.value.to_ascii_lowercase()).as_deref() {
                Some("now" | "time" | "date_trunc") => true,
                Some("either" | "alike") => {
                    arguments(function).is_some_and(|them| them.into_iter().any(is_moment))
                }
                Some("min" | "max" | "nullif" | "lag" | "lead" | "first_value" | "last_value") => {
                    let arguments = arguments(function);
                    arguments.is_some_and(|them| them.first().is_some_and(|it| is_moment(it)))
                }
                _ => false,
            }
        }
        Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter().map(|it| &it.result);
            results.chain(else_result.as_deref()).any(is_moment)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, right } => {
            let is_span =
                |it: &Expr| matches!(it, Expr::Cast { data_type: DataType::Interval { .. }, .. });
            is_span(left) || is_span(right)
        }
        _ => false,
    }
}

/// A literal as the time that it has to be. PostgreSQL reads it once, and not for every row.
fn as_moment(expr: &mut Expr) -> Result<(), EngineError> {
    if let Expr::Value(literal) = expr
        && let Value::SingleQuotedString(time) = &literal.value
    {
        times::check(&literal.value).map_err(EngineError::Invalid)?;
        let time = times::micros_of(time).map_or_else(null, |micros| text(times::text_of(micros)));
        *expr = cast_to(time, timestamptz());
    }
    Ok(())
}

fn timestamptz() -> DataType {
    DataType::Timestamp(None, sqlparser::ast::TimezoneInfo::WithTimeZone)
}

/// A literal in quotes is a text, or a time where it is compared with one. PostgreSQL would read it as whatever the other
/// side is, and end the query where it is none.
fn comparable(operands: &mut [&mut Expr]) -> Result<(), EngineError> {
    if operands.iter().any(|it| is_moment(it)) {
        return operands.iter_mut().try_for_each(|it| as_moment(it));
    }
    operands.iter_mut().for_each(|it| typed(it));
    Ok(())
}

/// Two values that are told apart, also where one of them is not there.
fn distinguishable(one: &mut Expr, other: &mut Expr) -> Result<(), EngineError> {
    let are_times = is_moment(one) || is_moment(other);
    comparable(&mut [&mut *one, &mut *other])?;
    if are_times {
        wrap("time", one);
        wrap("time", other);
    }
    Ok(())
}

/// A literal in quotes as a text.
fn typed(expr: &mut Expr) {
    if is_text(expr) {
        *expr = cast_to(take(expr), DataType::Text);
    }
}

fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, format: None }
}

fn numeric() -> DataType {
    DataType::Numeric(sqlparser::ast::ExactNumberInfo::None)
}

fn as_number(expr: &mut Expr) {
    use BinaryOperator as Op;
    match expr {
        Expr::Nested(inner) => as_number(inner),
        Expr::Value(value) if matches!(value.value, Value::Number(..)) => {}
        Expr::BinaryOp {
            op: Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo,
            ..
        } => {}
        _ => wrap("amount", expr),
    }
}

fn as_text(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => as_text(inner),
        Expr::Value(value) if !matches!(value.value, Value::Number(..) | Value::Boolean(_)) => {}
        Expr::BinaryOp { op: BinaryOperator::StringConcat, .. } => {}
        _ => wrap("text", expr),
    }
}

/// What is taken out of an object or an array: with `->>` it is a value like that of a key.
fn part_of(left: &mut Expr, op: &BinaryOperator, right: &mut Expr) -> Expr {
    let (json, key) = (own("json", [take(left)]), take(right));
    let is_path = matches!(&key, Expr::Value(value)
        if matches!(&value.value, Value::SingleQuotedString(path) if path.starts_with('$')));
    let part = match is_path {
        true => call("jsonb_path_query_first", [json, key]),
        false => Expr::Nested(Box::new(binary(json, BinaryOperator::Arrow, key))),
    };
    match op {
        BinaryOperator::LongArrow => own("value", [part]),
        _ => part,
    }
}

fn cast(value: &mut Expr, data_type: &mut DataType) {
    use DataType as Type;
    match data_type {
        Type::Int(_)
        | Type::Integer(_)
        | Type::BigInt(_)
        | Type::SmallInt(_)
        | Type::Int2(_)
        | Type::Int4(_)
        | Type::Int8(_) => {
            wrap("whole", value);
            // Which has no limits that one event could exceed.
            *data_type = numeric();
        }
        Type::Real
        | Type::Float(_)
        | Type::Float4
        | Type::Float8
        | Type::Double(_)
        | Type::DoublePrecision
        | Type::Numeric(_)
        | Type::Decimal(_) => {
            wrap("amount", value);
            *data_type = numeric();
        }
        Type::Text
        | Type::Varchar(_)
        | Type::CharacterVarying(_)
        | Type::Char(_)
        | Type::Character(_) => as_text(value),
        Type::Timestamp(..) | Type::Datetime(_) => {
            wrap("time", value);
            *data_type = timestamptz();
        }
        Type::JSON | Type::JSONB => {
            wrap("parsed", value);
            *data_type = Type::JSONB;
        }
        _ => {}
    }
}

/// Results of different types become values of several types.
fn alike(mut results: Vec<&mut Expr>) {
    let mut different: Vec<Expr> = Vec::new();
    for result in &mut results {
        if is_null(result) {
            continue;
        }
        typed(result);
        let is_query = visit::any_expression(&**result, |it| {
            matches!(it, Expr::Subquery(_) | Expr::Case { .. })
        });
        if is_query || result.to_string().len() > SHORT {
            return;
        }
        if !different.contains(result) {
            different.push(result.clone());
        }
    }
    if different.len() < 2 {
        return;
    }
    let all = different.into_iter().rev().reduce(|all, it| own("alike", [it, all]));
    let Some(all) = all else { return };
    for result in results {
        if !is_null(result) {
            *result = own("alike", [take(result), all.clone()]);
        }
    }
}

/// The first of some values that is there.
fn either(values: impl DoubleEndedIterator<Item = Expr>) -> Option<Expr> {
    let values = values.filter(|value| !is_null(value)).map(|mut value| {
        typed(&mut value);
        value
    });
    values.rev().reduce(|rest, value| own("either", [value, rest]))
}
