//! SQL as it comes in: parsed, and refused if it is not one query.

use std::fmt::Display;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Query, Statement,
    UnaryOperator, Value, VisitorMut,
};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{self, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::EngineError;
use super::rewrite::Homes;
use super::times::{self, Span};
use super::{compare, dialect, visit};

/// How long a query may be, in bytes.
const LONGEST: usize = 100_000;

/// How many tokens a query may have. A chain of operators is as deep a tree as it is long.
const MOST_TOKENS: usize = 10_000;

/// The stack, in bytes, of a thread that handles queries: what is done with a tree descends into it, and
/// without optimisation a level takes up to 20 KB. Only what is used takes memory.
pub(crate) const STACK: usize = 128 * 1024 * 1024;

/// A query that was parsed, with what SQLite does not know put in its words.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) query: Query,
    /// How often it asks for the time, or for what is random.
    pub(super) clock_reads: usize,
    /// What its names were found to mean when it was run before.
    pub(super) homes: Homes,
}

impl Parsed {
    /// Its result changes though no event comes.
    pub(super) fn changes_with_time(&self) -> bool {
        self.clock_reads > 0
    }
}

/// How deep what we print may be nested: somewhat deeper than what was parsed.
const DEEPEST_PRINTED: usize = 200;

/// Reads one `SELECT`, with or without a `WITH`.
pub(super) fn parse(sql: &str) -> Result<Parsed, EngineError> {
    let invalid = |why: String| EngineError::Invalid(why);
    if sql.len() > LONGEST {
        return Err(invalid(format!("the query is longer than {LONGEST} bytes")));
    }
    let tokens = tokenize(sql)?;
    let words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    if words.count() > MOST_TOKENS {
        return Err(invalid(format!("the query has more than {MOST_TOKENS} words")));
    }
    let mut query = one_query(Parser::new(&DIALECT).with_tokens_with_locations(tokens))?;
    let mut translation = Translation { clock_reads: 0 };
    visit::change(&mut query, &mut translation)?;
    dialect::check(&query)?;
    let Translation { clock_reads } = translation;
    Ok(Parsed { query, clock_reads, homes: Homes::new() })
}

/// Reads a query as it was printed.
pub(super) fn parse_query(sql: &str) -> Result<Query, EngineError> {
    one_query(printed(tokenize(sql)?))
}

/// Reads an expression as it was printed.
pub(super) fn parse_expression(sql: &str) -> Result<Expr, EngineError> {
    let mut parser = printed(tokenize(sql)?);
    let expr = parser.parse_expr().map_err(|error| bad_sql(&error))?;
    parser.expect_token(&Token::EOF).map_err(|error| bad_sql(&error))?;
    Ok(expr)
}

const DIALECT: SQLiteDialect = SQLiteDialect {};

fn printed(tokens: Vec<TokenWithSpan>) -> Parser<'static> {
    Parser::new(&DIALECT).with_recursion_limit(DEEPEST_PRINTED).with_tokens_with_locations(tokens)
}

fn bad_sql(error: &impl Display) -> EngineError {
    EngineError::Invalid(format!("bad SQL: {error}"))
}

fn one_query(mut parser: Parser<'_>) -> Result<Query, EngineError> {
    let invalid = |why: &str| EngineError::Invalid(why.to_owned());
    let mut statements = parser.parse_statements().map_err(|error| bad_sql(&error))?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(invalid("expected one SELECT and nothing else"));
    };
    let Statement::Query(query) = statement else {
        return Err(invalid("only a SELECT can be run: events come by POST /collect"));
    };
    Ok(*query)
}

/// Takes SQL apart, without what SQLite would read in another way than sqlparser.
fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, EngineError> {
    let mut tokens =
        Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|error| bad_sql(&error))?;
    for token in &mut tokens {
        match &mut token.token {
            // SQLite would take `$timestamp` for a parameter.
            Token::Placeholder(name) if name.starts_with('$') => {
                token.token = Token::make_word(name, Some('"'));
            }
            // There is one way to quote a name.
            Token::Word(word) if word.quote_style.is_some() => word.quote_style = Some('"'),
            // A comment, which the parser may keep as a hint and print.
            Token::Whitespace(_) => token.token = Token::Whitespace(Whitespace::Space),
            // To sqlparser `0x1F` and `x'1F'` are the same; to SQLite the first is a number.
            Token::HexStringLiteral(digits) if starts_with_zero(sql, token.span) => {
                let number = i64::from_str_radix(digits, 16).map_err(|error| bad_sql(&error))?;
                token.token = Token::Number(number.to_string(), false);
            }
            Token::SingleQuotedString(_) | Token::HexStringLiteral(_) => {}
            Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_) => {
                return Err(EngineError::Invalid(
                    "a text is written in single quotes, without a letter before them".to_owned(),
                ));
            }
            _ => {}
        }
    }
    Ok(tokens)
}

fn starts_with_zero(sql: &str, span: tokenizer::Span) -> bool {
    let (line, column) = (span.start.line, span.start.column);
    let line =
        usize::try_from(line).ok().and_then(|line| sql.split('\n').nth(line.checked_sub(1)?));
    let column = usize::try_from(column).ok().and_then(|column| column.checked_sub(1));
    let start = line.zip(column).and_then(|(line, column)| line.chars().nth(column));
    start == Some('0')
}

/// The name of a function, in lower case and without quotes.
pub(super) fn function_name(function: &Function) -> String {
    match &function.name.0[..] {
        [part] => part.as_ident().map(|name| name.value.to_ascii_lowercase()).unwrap_or_default(),
        _ => String::new(),
    }
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

/// The arguments of a function, without names and wildcards.
pub(super) fn arguments(function: &mut Function) -> impl Iterator<Item = &mut Expr> {
    let list = match &mut function.args {
        FunctionArguments::List(list) => Some(list),
        _ => None,
    };
    list.into_iter().flat_map(|list| &mut list.args).filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    })
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

/// A call of the function of this name.
pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Function(function_call(name, arguments))
}

fn function_call(name: &str, arguments: Vec<Expr>) -> Function {
    let args = arguments
        .into_iter()
        .map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)))
        .collect();
    Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(sql: &str) -> String {
        parse(sql).unwrap().query.to_string()
    }

    #[test]
    fn only_one_select_passes() {
        for sql in [
            "",
            "SELECT 1; SELECT 2",
            "INSERT INTO s VALUES (1)",
            "UPDATE s SET x = 1",
            "DELETE FROM s",
            "DROP TABLE s",
            "CREATE TABLE t (x)",
            "ATTACH 'x' AS y",
            "PRAGMA user_version",
            "VACUUM",
            "BEGIN",
            "EXPLAIN SELECT 1",
            "SELECT",
            "SELECT (",
        ] {
            assert!(parse(sql).is_err(), "{sql}");
        }
        assert!(parse("SELECT 1;").is_ok());
        assert!(parse("WITH a AS (SELECT 1) SELECT * FROM a -- and that is all").is_ok());
    }

    #[test]
    fn long_and_deep_queries_are_refused_and_not_a_crash() {
        assert!(parse(&format!("SELECT {}", "x".repeat(LONGEST))).is_err());
        assert!(parse(&format!("SELECT 1{}", "+1".repeat(MOST_TOKENS))).is_err());
        assert!(parse(&format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000))).is_err());
        // As deep as it gets.
        let deep = format!("SELECT 1{}", "+1".repeat(MOST_TOKENS / 2 - 2));
        let run = move || parse(&deep).map(|parsed| parsed.query.to_string().len());
        assert!(std::thread::spawn(run).join().unwrap().is_ok());
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
