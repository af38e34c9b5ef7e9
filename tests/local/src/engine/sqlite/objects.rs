//! Rows of a result as JSON objects.

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use crate::engine::EngineError;
use crate::sql::columns::Column;
use crate::subscribers::records::{DELIMITER, Records};

/// Writes rows that all have the same columns.
#[derive(Debug)]
pub(super) struct Objects {
    /// What comes before each value, and whether it is true or false.
    columns: Vec<(Vec<u8>, bool)>,
}

impl Objects {
    pub(super) fn new(columns: &[Column]) -> Self {
        let columns = columns.iter().enumerate().map(|(place, column)| {
            let comma = if place == 0 { "" } else { "," };
            let name = serde_json::Value::from(&*column.name);
            (format!("{comma}{name}:").into_bytes(), column.boolean)
        });
        Self { columns: columns.collect() }
    }

    /// Appends one row to `out`. The connection is needed for what SQLite holds in its binary form.
    pub(super) fn write<'v>(
        &self,
        connection: &Connection,
        row: impl IntoIterator<Item = ValueRef<'v>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        out.push(b'{');
        for ((name, boolean), value) in self.columns.iter().zip(row) {
            out.extend_from_slice(name);
            match value {
                ValueRef::Null => out.extend_from_slice(b"null"),
                ValueRef::Integer(number @ (0 | 1)) if *boolean => {
                    out.extend_from_slice(if number == 1 { b"true" } else { b"false" });
                }
                ValueRef::Integer(number) => write(out, &number),
                // JSON has no infinity: it becomes `null`.
                ValueRef::Real(number) => write(out, &number),
                ValueRef::Text(text) => write(out, &String::from_utf8_lossy(text)),
                ValueRef::Blob(blob) => {
                    let json: rusqlite::Result<String> = connection
                        .prepare_cached("SELECT json(?)")?
                        .query_row([blob], |row| row.get(0));
                    let json = json.map_err(|_| {
                        EngineError::Invalid("a value of the result is a BLOB and no JSON".into())
                    })?;
                    out.extend_from_slice(json.as_bytes());
                }
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// A value to be kept. A text that is not UTF-8, as one made of a BLOB may be, becomes one.
pub(super) fn kept(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Numbers and texts always are JSON, and a `Vec` takes all of it.
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Changes of rows as their subscribers get them.
#[derive(Debug, Default)]
pub(super) struct ChangeRecords {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl ChangeRecords {
    /// One row changed: it was `old`, if it was there, and is `new`, if it still is.
    pub(super) fn push(
        &mut self,
        connection: &Connection,
        objects: &Objects,
        old: Option<&[Value]>,
        new: Option<&[Value]>,
    ) -> Result<(), EngineError> {
        for (name, row) in [(&br#"{"old":"#[..], old), (&br#","new":"#[..], new)] {
            self.text.extend_from_slice(name);
            match row {
                Some(row) => {
                    objects.write(connection, row.iter().map(ValueRef::from), &mut self.text)?;
                }
                None => self.text.extend_from_slice(b"null"),
            }
        }
        self.text.push(b'}');
        self.text.extend_from_slice(DELIMITER);
        self.ends.push(self.text.len());
        Ok(())
    }

    /// Takes back all but the first `count` changes.
    pub(super) fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.text.truncate(self.ends.last().copied().unwrap_or_default());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn into_records(self) -> Records {
        Records { text: self.text.into(), ends: self.ends }
    }
}
