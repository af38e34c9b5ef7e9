//! From a syntax tree to the text that SQLite gets.
//!
//! What is sent has to mean what was parsed. sqlparser does not promise that of the text it prints: it leaves
//! a quote alone that follows a backslash, for example. So it never gets to print a name or a literal:
//! each is replaced by text that is quoted here. What has come out is parsed again, and has to be the same
//! tree.

use std::fmt::Display;
use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, Query, Value, ValueWithSpan, VisitMut, VisitorMut};

use super::{parse, visit};
use crate::engine::EngineError;

/// A query as SQL.
pub(crate) fn query(query: &Query) -> Result<String, EngineError> {
    checked(query, parse::parse_query)
}

/// An expression as SQL.
pub(crate) fn expression(expr: &Expr) -> Result<String, EngineError> {
    checked(expr, parse::parse_expression)
}

fn checked<T: Clone + Display + PartialEq + VisitMut>(
    tree: &T,
    parse: fn(&str) -> Result<T, EngineError>,
) -> Result<String, EngineError> {
    let mut meant = tree.clone();
    visit::change(&mut meant, &mut Encode)?;
    let mut quoted = meant.clone();
    visit::change(&mut quoted, &mut Quote)?;
    let printed = quoted.to_string();
    visit::change(&mut meant, &mut SpellOut)?;
    // An error here is of what the parser accepts and then prints in words that it does not know.
    if parse(&printed).is_ok_and(|parsed| parsed == meant) {
        return Ok(printed);
    }
    tracing::debug!(printed, "what is printed is not what was parsed");
    Err(EngineError::Invalid(
        "the query cannot be put in the words of the database: write it in a simpler way"
            .to_owned(),
    ))
}

/// A name in quotes.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", encode(name).replace('"', "\"\""))
}

/// A text as a literal. It must not hold a NUL, which would be the end of the SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What stands for a relation in the printed query. Nobody else can write it: the names of parts of a query
/// may not hold the character that it starts with.
pub(crate) fn marker(source: usize) -> String {
    format!("{MARK}{source}")
}

/// The number of the relation that a marker stands for.
pub(crate) fn marked(name: &str) -> Option<usize> {
    name.strip_prefix(MARK)?.parse().ok()
}

/// Whether SQLite has this name from a marker.
pub(crate) fn is_printed_marker(name: &str) -> bool {
    name.strip_prefix(MARK).is_some_and(|rest| rest.starts_with(MARK_CODE))
}

/// What no name of a part of a query may hold.
pub(crate) const MARK: char = '\u{1}';

/// What follows [`MARK`] where it stands for itself, and where it stands for a NUL.
const MARK_CODE: char = '1';
const NUL_CODE: char = '0';

/// A name that holds no NUL, which would be the end of the SQL; different names stay different.
fn encode(name: &str) -> String {
    if !name.contains(['\0', MARK]) {
        return name.to_owned();
    }
    let mut encoded = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        match letter {
            '\0' => encoded.extend([MARK, NUL_CODE]),
            MARK => encoded.extend([MARK, MARK_CODE]),
            letter => encoded.push(letter),
        }
    }
    encoded
}

/// The name that was encoded.
pub(crate) fn decode(name: &str) -> String {
    let mut decoded = String::with_capacity(name.len());
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        match letter {
            MARK => decoded.push(if letters.next() == Some(NUL_CODE) { '\0' } else { MARK }),
            letter => decoded.push(letter),
        }
    }
    decoded
}

/// SQL of our own as an expression: a name without quotes is printed as it is.
pub(crate) fn raw(sql: &str) -> Expr {
    Expr::Identifier(Ident::new(sql))
}

/// Whether this is an expression of our own: nobody can write such a name.
pub(crate) fn is_raw(name: &Ident) -> bool {
    name.quote_style.is_none() && name.value.contains(['(', '\''])
}

/// Encodes names.
struct Encode;

impl VisitorMut for Encode {
    type Break = EngineError;

    fn pre_visit_ident(&mut self, ident: &mut Ident) -> ControlFlow<EngineError> {
        ident.value = encode(&ident.value);
        ControlFlow::Continue(())
    }
}

/// Replaces names and literals by text that sqlparser prints as it is.
struct Quote;

impl VisitorMut for Quote {
    type Break = EngineError;

    fn pre_visit_ident(&mut self, ident: &mut Ident) -> ControlFlow<EngineError> {
        // Without quotes it is a word that the parser has read, or an expression of our own.
        if ident.quote_style.is_some() {
            *ident = Ident::new(format!("\"{}\"", ident.value.replace('"', "\"\"")));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<EngineError> {
        let refuse = |why: &str| ControlFlow::Break(EngineError::Invalid(why.to_owned()));
        match &value.value {
            Value::SingleQuotedString(text) if text.contains('\0') => {
                refuse("a NUL cannot stand here")
            }
            Value::SingleQuotedString(text) => {
                // A placeholder is printed as it is.
                value.value = Value::Placeholder(literal(text));
                ControlFlow::Continue(())
            }
            Value::HexStringLiteral(digits) if digits.bytes().all(|it| it.is_ascii_hexdigit()) => {
                ControlFlow::Continue(())
            }
            Value::Number(..) | Value::Boolean(_) | Value::Null | Value::Placeholder(_) => {
                ControlFlow::Continue(())
            }
            _ => refuse("a literal of this kind is not understood"),
        }
    }
}

/// Parses the expressions of our own that stand in the place of names.
struct SpellOut;

impl VisitorMut for SpellOut {
    type Break = EngineError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        if let Expr::Identifier(name) = expr
            && is_raw(name)
        {
            match parse::parse_expression(&name.value) {
                Ok(parsed) => *expr = parsed,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}
