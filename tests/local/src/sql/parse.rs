//! SQL as it comes in: parsed, and refused if it is not one query.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use sqlparser::ast::{Expr, Query, Statement};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{self, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::translate;
use crate::engine::EngineError;

/// How long a query may be, in bytes.
const LONGEST: usize = 100_000;

/// How many tokens a query may have. A chain of operators is as deep a tree as it is long.
const MOST_TOKENS: usize = 10_000;

/// The stack, in bytes, of a thread that handles queries: what is done with a tree descends into it, and
/// without optimisation a level takes up to 20 KB. Only what is used takes memory.
pub(crate) const STACK: usize = 128 * 1024 * 1024;

/// Names in a query that are keys of streams, with the streams that have them.
pub(crate) type Homes = BTreeMap<String, BTreeSet<String>>;

/// A query that was parsed, with what SQLite does not know put in its words.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) query: Query,
    /// How often it asks for the time, or for what is random.
    pub(crate) clock_reads: usize,
    /// What its names were found to mean when it was run before.
    pub(crate) homes: Homes,
}

impl Parsed {
    /// Its result changes though no event comes.
    pub(crate) fn changes_with_time(&self) -> bool {
        self.clock_reads > 0
    }
}

/// How deep what we print may be nested: somewhat deeper than what was parsed.
const DEEPEST_PRINTED: usize = 200;

/// Reads one `SELECT`, with or without a `WITH`, and puts it in SQLite's words.
pub(crate) fn parse(sql: &str) -> Result<Parsed, EngineError> {
    let mut query = read(sql)?;
    let clock_reads = translate::translate(&mut query)?;
    Ok(Parsed { query, clock_reads, homes: Homes::new() })
}

/// Reads one `SELECT` as it is.
pub(super) fn read(sql: &str) -> Result<Query, EngineError> {
    let invalid = |why: String| EngineError::Invalid(why);
    if sql.len() > LONGEST {
        return Err(invalid(format!("the query is longer than {LONGEST} bytes")));
    }
    let tokens = tokenize(sql)?;
    let words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    if words.count() > MOST_TOKENS {
        return Err(invalid(format!("the query has more than {MOST_TOKENS} words")));
    }
    one_query(Parser::new(&DIALECT).with_tokens_with_locations(tokens))
}

/// Reads a query as it was printed.
pub(crate) fn parse_query(sql: &str) -> Result<Query, EngineError> {
    one_query(printed(tokenize(sql)?))
}

/// Reads an expression as it was printed.
pub(crate) fn parse_expression(sql: &str) -> Result<Expr, EngineError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let thread = std::thread::Builder::new().stack_size(STACK);
        assert!(thread.spawn(run).unwrap().join().unwrap().is_ok());
    }
}
