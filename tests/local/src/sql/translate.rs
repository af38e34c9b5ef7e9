//! A query put in the words that SQLite knows: times, intervals, and texts in the place of JSON in its binary form.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, DateTimeField, Expr, Function, FunctionArguments, Interval, Query,
    UnaryOperator, Value, VisitorMut,
};

use super::calls::{arguments, call, function_call, function_name};
use super::times::{self, Span};
use super::{compare, dialect, visit};
use crate::engine::EngineError;

/// Puts a query in SQLite's words, and returns how often it asks for the time, or for what is random.
pub(crate) fn translate(query: &mut Query) -> Result<usize, EngineError> {
    let mut translation = Translation { clock_reads: 0 };
    visit::change(query, &mut translation)?;
    dialect::check(query)?;
    Ok(translation.clock_reads)
}

/// Puts times and reserved keys in SQLite's words.
struct Translation {
    clock_reads: usize,
}

impl VisitorMut for Translation {
    type Break = EngineError;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        match dialect::translate_query(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        if let Err(error) = dialect::translate(expr) {
            return ControlFlow::Break(error);
        }
        match expr {
            Expr::Value(value) => {
                if let Value::SingleQuotedString(text) = &value.value
                    && text.eq_ignore_ascii_case("now")
                {
                    self.clock_reads += 1;
                }
                if let Value::SingleQuotedString(text) = &value.value
                    && text.contains('\0')
                {
                    *expr = without_nul(text);
                }
            }
            Expr::Function(function) => self.function(function),
            Expr::Like { expr, pattern, .. } => {
                as_text(expr);
                as_text(pattern);
            }
            Expr::ILike { negated, expr: text, pattern, escape_char, .. } => {
                let mut arguments = vec![(**pattern).clone(), (**text).clone()];
                arguments.iter_mut().for_each(as_text);
                arguments.extend(escape_char.as_deref().cloned());
                let like = call("ilike", arguments);
                *expr = match negated {
                    true => Expr::Nested(Box::new(Expr::UnaryOp {
                        op: UnaryOperator::Not,
                        expr: Box::new(like),
                    })),
                    false => like,
                };
            }
            Expr::Trim { expr, .. } | Expr::Substring { expr, .. } => as_text(expr),
            Expr::TypedString(typed) => {
                let text = Expr::Value(typed.value.clone());
                *expr = call("utc", vec![text]);
            }
            Expr::BinaryOp {
                left, op: BinaryOperator::Arrow | BinaryOperator::LongArrow, ..
            } => {
                json_or_null(left);
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::StringConcat | BinaryOperator::Glob,
                right,
            } => {
                as_text(left);
                as_text(right);
            }
            Expr::BinaryOp { left, op, right } => {
                if let Some(sum) = sum(left, op, right) {
                    match sum {
                        Ok(sum) => *expr = sum,
                        Err(error) => return ControlFlow::Break(error),
                    }
                }
            }
            Expr::Cast { expr: value, data_type, .. } => {
                let function = match data_type {
                    DataType::Date => "date",
                    DataType::Timestamp(..) | DataType::Datetime(_) => "utc",
                    DataType::Text | DataType::Varchar(_) | DataType::Char(_) => {
                        as_text(value);
                        return ControlFlow::Continue(());
                    }
                    _ => return ControlFlow::Continue(()),
                };
                let value = std::mem::replace(&mut **value, Expr::Value(Value::Null.into()));
                *expr = call(function, vec![value]);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Translation {
    fn function(&mut self, function: &mut Function) {
        let name = function_name(function);
        let bare = match &function.args {
            FunctionArguments::None => true,
            FunctionArguments::List(list) => list.args.is_empty(),
            FunctionArguments::Subquery(_) => false,
        };
        let one_argument =
            matches!(&function.args, FunctionArguments::List(list) if list.args.len() == 1);
        match name.as_str() {
            "now"
            | "current_timestamp"
            | "clock_timestamp"
            | "statement_timestamp"
            | "transaction_timestamp"
            | "localtimestamp"
                if bare =>
            {
                self.clock_reads += 1;
                *function = function_call("now", Vec::new());
            }
            "current_date" | "current_time" | "random" | "randomblob" => {
                self.clock_reads += 1;
            }
            "date" | "time" | "datetime" | "julianday" | "unixepoch" if bare => {
                self.clock_reads += 1;
            }
            // With a format alone it is the time it is now.
            "strftime" if one_argument => self.clock_reads += 1,
            // They read the text of JSON, and what is in a column is in SQLite's binary form.
            "json_patch" => {
                for json in arguments(function) {
                    let any = std::mem::replace(json, Expr::Value(Value::Null.into()));
                    *json = call("json", vec![any]);
                }
                let patched = std::mem::replace(function, function_call("now", Vec::new()));
                *function = function_call("json", vec![Expr::Function(patched)]);
            }
            name if OF_TEXTS.contains(&name) => arguments(function).for_each(as_text),
            _ => {}
        }
    }
}

/// A text as one that holds no NUL, which would be the end of the SQL.
fn without_nul(text: &str) -> Expr {
    let literal = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    let nul = || call("char", vec![Expr::Value(Value::Number("0".to_owned(), false).into())]);
    let concat = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::StringConcat,
        right: Box::new(right),
    };
    let mut parts = text.split('\0');
    let first = literal(parts.next().unwrap_or_default());
    let all = parts.fold(first, |all, part| concat(concat(all, nul()), literal(part)));
    Expr::Nested(Box::new(all))
}

/// Functions of texts.
const OF_TEXTS: [&str; 20] = [
    "concat",
    "concat_ws",
    "format",
    "glob",
    "group_concat",
    "hex",
    "instr",
    "length",
    "like",
    "lower",
    "ltrim",
    "octet_length",
    "printf",
    "replace",
    "rtrim",
    "string_agg",
    "substr",
    "substring",
    "trim",
    "upper",
];

/// Has the JSON of an object or an array in the place of SQLite's binary form of it.
fn as_text(value: &mut Expr) {
    match value {
        Expr::Identifier(name) if name.value == compare::TIMESTAMP => {}
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            let blob = Expr::Value(Value::SingleQuotedString("blob".to_owned()).into());
            let is_binary = Expr::BinaryOp {
                left: Box::new(call("typeof", vec![value.clone()])),
                op: BinaryOperator::Eq,
                right: Box::new(blob),
            };
            let json = call("json", vec![value.clone()]);
            *value = call("iif", vec![is_binary, json, value.clone()]);
        }
        Expr::Nested(inner) => as_text(inner),
        Expr::Case { conditions, else_result, .. } => {
            conditions.iter_mut().for_each(|it| as_text(&mut it.result));
            else_result.iter_mut().for_each(|it| as_text(it));
        }
        Expr::Function(function) if compare::PASSING.contains(&&*function_name(function)) => {
            arguments(function).for_each(as_text);
        }
        _ => {}
    }
}

/// What `->` looks into. SQLite fails at a text that is no JSON; one event that has a text where the
/// others have an object is not to fail the query. SQLite's `->` binds closer than any other operator.
fn json_or_null(mut value: &mut Expr) {
    loop {
        match value {
            Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. } => return,
            Expr::BinaryOp { right, .. } => value = right,
            Expr::UnaryOp { expr, .. } => value = expr,
            _ => break,
        }
    }
    // It is written twice, and so has to be short.
    if !matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return;
    }
    let looked_into = std::mem::replace(value, Expr::Value(Value::Null.into()));
    // 1: JSON as text, 4: in SQLite's binary form, which is not looked at any closer.
    let flags = Expr::Value(Value::Number("5".to_owned(), false).into());
    let is_json = call("json_valid", vec![looked_into.clone(), flags]);
    *value = call("iif", vec![is_json, looked_into, Expr::Value(Value::Null.into())]);
}

/// A time with an interval added or taken away, if that is what it is.
fn sum(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Result<Expr, EngineError>> {
    let (at, interval, sign) = match (left, op, right) {
        (at, BinaryOperator::Plus, Expr::Interval(interval)) => (at, interval, 1),
        (at, BinaryOperator::Minus, Expr::Interval(interval)) => (at, interval, -1),
        (Expr::Interval(interval), BinaryOperator::Plus, at) => (at, interval, 1),
        _ => return None,
    };
    let number = |number: i64| {
        let digits = Value::Number(number.unsigned_abs().to_string(), false);
        let digits = Expr::Value(digits.into());
        match number {
            0.. => digits,
            _ => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(digits) },
        }
    };
    Some(span(interval).map(|Span { months, micros }| {
        let mut arguments = vec![at.clone(), number(sign * micros)];
        if months != 0 {
            arguments.push(number(sign * months));
        }
        call("time_add", arguments)
    }))
}

fn span(interval: &Interval) -> Result<Span, EngineError> {
    let unknown = || EngineError::Invalid(format!("{interval} is not understood"));
    let Expr::Value(value) = &*interval.value else { return Err(unknown()) };
    let number = match &value.value {
        Value::SingleQuotedString(text) | Value::Number(text, _) => text,
        _ => return Err(unknown()),
    };
    match &interval.leading_field {
        None => times::span(number),
        Some(DateTimeField::Week(None)) => times::span(&format!("{number} week")),
        Some(field) => times::span(&format!("{number} {field}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::parse;

    fn translated(sql: &str) -> String {
        parse(sql).unwrap().query.to_string()
    }

    #[test]
    fn what_is_put_around_operands_does_not_multiply_them() {
        let nested = (0..25).fold("x".to_owned(), |inner, _| format!("abs({inner} -> 'a')"));
        let translated = translated(&format!("SELECT {nested} FROM s"));
        assert!(translated.len() < 2000, "{translated}");
        let nested = (0..25).fold("x".to_owned(), |inner, _| format!("instr(y, {inner})"));
        assert!(parse(&format!("SELECT {nested} FROM s")).is_ok());
    }

    #[test]
    fn reserved_keys_may_be_written_bare() {
        assert_eq!(
            translated("SELECT $id, w.$timestamp FROM s AS w ORDER BY w.$timestamp"),
            "SELECT \"$id\", w.\"$timestamp\" FROM s AS w ORDER BY w.\"$timestamp\""
        );
    }

    #[test]
    fn intervals_become_calls() {
        assert_eq!(
            translated("SELECT 1 FROM s WHERE \"$timestamp\" > now() - INTERVAL '5 minutes'"),
            "SELECT 1 FROM s WHERE \"$timestamp\" > time_add(now(), -300000000)"
        );
        assert_eq!(
            translated("SELECT 1 FROM s WHERE $timestamp >= CURRENT_TIMESTAMP - INTERVAL '1' DAY"),
            "SELECT 1 FROM s WHERE \"$timestamp\" >= time_add(now(), -86400000000)"
        );
        assert_eq!(
            translated(
                "SELECT 1 FROM s WHERE at BETWEEN now() AND TIMESTAMP '2015-05-05T23:40:27Z'"
            ),
            "SELECT 1 FROM s WHERE at BETWEEN now() AND utc('2015-05-05T23:40:27Z')"
        );
        assert_eq!(
            translated("SELECT now() - INTERVAL '1 month 2 days'"),
            "SELECT time_add(now(), -172800000000, -1)"
        );
    }

    #[test]
    fn what_changes_with_time_is_known() {
        for sql in [
            "SELECT now()",
            "SELECT CURRENT_TIMESTAMP",
            "SELECT date('now')",
            "SELECT random()",
            "SELECT strftime('%s')",
        ] {
            assert!(parse(sql).unwrap().changes_with_time(), "{sql}");
        }
        assert!(!parse("SELECT date(x), 'later' FROM s").unwrap().changes_with_time());
    }
}
