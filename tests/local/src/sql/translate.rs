//! A query put in the words that SQLite knows: times, intervals, and texts in the place of JSON in its binary form.

use sqlparser::ast::{
    BinaryOperator, DataType, DateTimeField, Expr, FunctionArguments, Interval, Query,
    UnaryOperator, Value,
};

use super::times::{self, Span};
use super::tree::{
    arguments_mut, binary, call, function_name, negative, null, number, take, text, wrap,
};
use super::visit::{self, Change};
use super::{compare, dialect};
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

impl Change for Translation {
    fn leave_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        dialect::translate_query(query)
    }

    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        dialect::translate(expr)?;
        match expr {
            Expr::Value(value) => {
                if let Value::SingleQuotedString(text) = &value.value {
                    self.clock_reads += usize::from(text.eq_ignore_ascii_case("now"));
                    if text.contains('\0') {
                        *expr = without_nul(text);
                    }
                }
            }
            Expr::Function(_) => self.function(expr),
            Expr::Like { expr, pattern, .. } => {
                as_text(expr);
                as_text(pattern);
            }
            Expr::ILike { negated, expr: text, pattern, escape_char, .. } => {
                let mut arguments = vec![take(pattern), take(text)];
                arguments.iter_mut().for_each(as_text);
                arguments.extend(escape_char.as_deref_mut().map(take));
                let (like, op) = (Box::new(call("ilike", arguments)), UnaryOperator::Not);
                *expr = match negated {
                    true => Expr::Nested(Box::new(Expr::UnaryOp { op, expr: like })),
                    false => *like,
                };
            }
            Expr::Trim { expr, .. } | Expr::Substring { expr, .. } => as_text(expr),
            Expr::TypedString(typed) => {
                times::check(&typed.value.value).map_err(EngineError::Invalid)?;
                let is_date = typed.data_type == DataType::Date;
                *expr = call("utc", [Expr::Value(typed.value.clone())]);
                if is_date {
                    wrap("date", expr);
                }
            }
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::Arrow | BinaryOperator::LongArrow => json_or_null(left),
                BinaryOperator::StringConcat | BinaryOperator::Glob => {
                    as_text(left);
                    as_text(right);
                }
                _ => {
                    if let Some(sum) = sum(left, op, right)? {
                        *expr = sum;
                    }
                }
            },
            Expr::Cast { expr: value, data_type, .. } => match data_type {
                DataType::Date => *expr = call("date", [call("utc", [take(value)])]),
                DataType::Timestamp(..) | DataType::Datetime(_) => {
                    *expr = call("utc", [take(value)]);
                }
                DataType::Text | DataType::Varchar(_) | DataType::Char(_) => as_text(value),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

impl Translation {
    fn function(&mut self, expr: &mut Expr) {
        let Expr::Function(function) = expr else { return };
        let name = function_name(function);
        let arguments = match &function.args {
            FunctionArguments::None => Some(0),
            FunctionArguments::List(list) => Some(list.args.len()),
            FunctionArguments::Subquery(_) => None,
        };
        match (name.as_str(), arguments) {
            (
                "now"
                | "current_timestamp"
                | "clock_timestamp"
                | "statement_timestamp"
                | "transaction_timestamp"
                | "localtimestamp",
                Some(0),
            ) => {
                self.clock_reads += 1;
                *expr = call("now", []);
            }
            ("current_date" | "current_time" | "random" | "randomblob", _)
            | ("date" | "time" | "datetime" | "julianday" | "unixepoch", Some(0))
            // With a format alone it is the time it is now.
            | ("strftime", Some(1)) => self.clock_reads += 1,
            // They read the text of JSON, and what is in a column is in SQLite's binary form.
            ("json_patch", _) => {
                arguments_mut(function).for_each(|json| wrap("json", json));
                wrap("json", expr);
            }
            (name, _) if OF_TEXTS.contains(&name) => arguments_mut(function).for_each(as_text),
            _ => {}
        }
    }
}

/// A text as one that holds no NUL, which would be the end of the SQL.
fn without_nul(literal: &str) -> Expr {
    let concat = |left, right| binary(left, BinaryOperator::StringConcat, right);
    let mut parts = literal.split('\0').map(text);
    let first = parts.next().unwrap_or_else(null);
    let nul = || call("char", [number("0")]);
    let all = parts.fold(first, |all, part| concat(concat(all, nul()), part));
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
            let kind = call("typeof", [value.clone()]);
            let is_binary = binary(kind, BinaryOperator::Eq, text("blob"));
            let json = call("json", [value.clone()]);
            *value = call("iif", [is_binary, json, value.clone()]);
        }
        Expr::Nested(inner) => as_text(inner),
        Expr::Case { conditions, else_result, .. } => {
            conditions.iter_mut().for_each(|it| as_text(&mut it.result));
            else_result.iter_mut().for_each(|it| as_text(it));
        }
        Expr::Function(function) if function_name(function) == "jsonb" => wrap("json", value),
        Expr::Function(function) if compare::PASSING.contains(&&*function_name(function)) => {
            arguments_mut(function).for_each(as_text);
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
    // 1: JSON as text, 4: in SQLite's binary form, which is not looked at any closer.
    let is_json = call("json_valid", [value.clone(), number("5")]);
    *value = call("iif", [is_json, take(value), null()]);
}

/// A time with an interval added or taken away, if that is what it is.
fn sum(left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>, EngineError> {
    let (at, interval, sign) = match (left, op, right) {
        (at, BinaryOperator::Plus, Expr::Interval(interval)) => (at, interval, 1),
        (at, BinaryOperator::Minus, Expr::Interval(interval)) => (at, interval, -1),
        (Expr::Interval(interval), BinaryOperator::Plus, at) => (at, interval, 1),
        _ => return Ok(None),
    };
    let signed = |number: i64| match sign * number {
        number @ 0.. => self::number(number.to_string()),
        number => negative(number.unsigned_abs().to_string()),
    };
    let Span { months, micros } = span(interval)?;
    let months = (months != 0).then(|| signed(months));
    Ok(Some(call("time_add", [at.clone(), signed(micros)].into_iter().chain(months))))
}

/// How long an interval is.
pub(crate) fn span(interval: &Interval) -> Result<Span, EngineError> {
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
    use crate::sql::{STACK, parse};

    fn translated(sql: &str) -> String {
        parse(sql).unwrap().query.to_string()
    }

    #[test]
    fn what_is_put_around_operands_does_not_multiply_them() {
        let run = || {
            let nested = (0..25).fold("x".to_owned(), |inner, _| format!("abs({inner} -> 'a')"));
            let translated = translated(&format!("SELECT {nested} FROM s"));
            assert!(translated.len() < 2000, "{translated}");
            let nested = (0..25).fold("x".to_owned(), |inner, _| format!("instr(y, {inner})"));
            assert!(parse(&format!("SELECT {nested} FROM s")).is_ok());
        };
        std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
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
