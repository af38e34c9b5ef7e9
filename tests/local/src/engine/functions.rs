//! The functions that queries have beside SQLite's own: those of [`moment`], and two that keep the
//! others in bounds.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error};
use serde::de::IgnoredAny;

use super::moment::{self, Clock};

/// What [`sql`](super::sql) writes around arguments.
pub(super) const JSON_OR_NULL: &str = "json_or_null";
pub(super) const AT_MOST: &str = "at_most";

/// Teaches a connection all of them.
pub(super) fn install(connection: &Connection) -> rusqlite::Result<Clock> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    // SQLite's `->` fails at a text that is no JSON, and with it the query.
    connection.create_scalar_function(JSON_OR_NULL, 1, pure, |context| {
        Ok(match context.get_raw(0) {
            ValueRef::Text(text) if serde_json::from_slice::<IgnoredAny>(text).is_err() => {
                Value::Null
            }
            value => Value::try_from(value)?,
        })
    })?;
    // What takes the product of two lengths cannot be interrupted on its way.
    connection.create_scalar_function(AT_MOST, 2, pure, |context| {
        let most: usize = context.get(1)?;
        match context.get_raw(0) {
            ValueRef::Text(text) | ValueRef::Blob(text) if text.len() > most => {
                let why = format!("what is looked for in a text has at most {most} bytes");
                Err(Error::UserFunctionError(why.into()))
            }
            value => Ok(Value::try_from(value)?),
        }
    })?;
    moment::install(connection)
}
