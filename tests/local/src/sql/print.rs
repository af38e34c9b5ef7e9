//! From a syntax tree to the text that SQLite gets.
//!
//! What is sent has to mean what was parsed. sqlparser does not promise that of the text it prints: it leaves
//! a quote alone that follows a backslash, for example. So it never gets to print a name or a literal:
//! each is replaced by text that is quoted here. What has come out is parsed again, and has to be the same
//! tree.

use std::fmt::Display;

use sqlparser::ast::{Expr, Ident, Query, Value, ValueWithSpan, VisitMut};

use super::parse;
use super::visit::{self, Change};
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
    let (mut meant, mut quoted) = (tree.clone(), tree.clone());
    visit::change(&mut meant, &mut SpellOut)?;
    visit::change(&mut quoted, &mut Quote)?;
    let printed = quoted.to_string();
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

/// Replaces names and literals by text that sqlparser prints as it is.
struct Quote;

impl Change for Quote {
    fn name(&mut self, ident: &mut Ident) -> Result<(), EngineError> {
        // Without quotes it is a word that the parser has read, or an expression of our own.
        *ident = Ident::new(match ident.quote_style {
            Some(_) => name(&ident.value),
            None => encode(&ident.value),
        });
        Ok(())
    }

    fn literal(&mut self, value: &mut ValueWithSpan) -> Result<(), EngineError> {
        let refused = |why: &str| Err(EngineError::Invalid(why.to_owned()));
        match &value.value {
            Value::SingleQuotedString(text) if text.contains('\0') => {
                return refused("a NUL cannot stand here");
            }
            // A placeholder is printed as it is.
            Value::SingleQuotedString(text) => value.value = Value::Placeholder(literal(text)),
            Value::HexStringLiteral(digits) if digits.bytes().all(|it| it.is_ascii_hexdigit()) => {}
            Value::Number(..) | Value::Boolean(_) | Value::Null | Value::Placeholder(_) => {}
            _ => return refused("a literal of this kind is not understood"),
        }
        Ok(())
    }
}

/// Makes of a tree what parsing gives of the text it is printed as.
struct SpellOut;

impl Change for SpellOut {
    fn name(&mut self, ident: &mut Ident) -> Result<(), EngineError> {
        ident.value = encode(&ident.value);
        Ok(())
    }

    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        if let Expr::Identifier(name) = expr
            && is_raw(name)
        {
            *expr = parse::parse_expression(&name.value)?;
        }
        Ok(())
    }
}
