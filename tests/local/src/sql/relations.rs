//! What a query reads: streams and processes, and the SQL that gives their rows.

use serde_json::Value;
use sqlparser::ast::Ident;

use super::columns::Column;
use super::compare::TIMESTAMP;
use super::print::{self, MARK};
use super::windows::Window;
use super::{places, times};
use crate::engine::EngineError;
use crate::events::keys::Kinds;

/// The column that every stream has besides its keys: when an event came.
pub(crate) const ARRIVAL: &str = "arrival_timestamp";

/// A column of the events that a plan reads: their place. No key with a NUL in it is a column.
pub(crate) const PLACE: &str = "\0place";

/// What a name in a query stands for.
#[derive(Clone, Debug)]
pub(crate) enum Relation {
    /// A stream: which rows of the table of events are to be read, and the keys that its events have had.
    /// One that nobody has written to has no rows. `number`: by what the blocks of these rows are found.
    Stream { number: Option<i64>, rows: Option<String>, keys: Vec<(String, Kinds)> },
    /// What a process keeps: a `SELECT` of its rows, and its columns.
    Process { select: String, columns: Vec<Column> },
}

/// Knows what names stand for.
pub(crate) trait Catalogue {
    fn relation(&self, name: &str) -> Result<Relation, EngineError>;
}

/// A place in the query where a stream or a process is named.
#[derive(Debug)]
pub(crate) struct Source {
    /// The stream or process.
    pub(crate) name: String,
    pub(crate) relation: Relation,
    /// The columns that are mentioned of a stream, by name, and the keys they are of.
    pub(crate) columns: Vec<(String, String)>,
    /// What the blocks of a stream have to be like, so that they can hold rows that the query wants.
    pub(crate) blocks: Vec<String>,
}

impl Source {
    /// A column of this relation is mentioned. In SQL `a` and `A` are one name, but they are two keys,
    /// so the second is given a name that nobody can have meant.
    pub(crate) fn mention(&mut self, column: &mut Ident) {
        if matches!(self.relation, Relation::Process { .. }) {
            return;
        }
        let key = &column.value;
        let name = match self.columns.iter().find(|(_, known)| known == key) {
            Some((name, _)) => name.clone(),
            None => {
                let mut name = key.clone();
                while self.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                    name.push(MARK);
                }
                self.columns.push((name.clone(), key.clone()));
                name
            }
        };
        *column = Ident::with_quote('"', name);
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.relation {
            Relation::Stream { keys, .. } => keys.iter().any(|(key, _)| key == name),
            Relation::Process { columns, .. } => {
                columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Whether a column is the time at which events came.
    pub(crate) fn is_arrival(&self, name: &str) -> bool {
        matches!(self.relation, Relation::Stream { .. }) && name == ARRIVAL && !self.has(name)
    }

    /// Only rows in `window` are wanted.
    pub(crate) fn narrow(&mut self, window: &Window<'_>) -> Result<(), EngineError> {
        let latest = match &*window.column.value {
            TIMESTAMP => "latest",
            name if self.is_arrival(name) => "arrived",
            _ => return Ok(()),
        };
        let after = print::expression(window.after)?;
        // To the second: SQLite rounds what is shorter.
        self.blocks.push(format!("blocks.{latest} >= (unixepoch(utc({after})) - 1) * 1000000"));
        Ok(())
    }

    /// The columns that it has in this query.
    pub(crate) fn columns(&self) -> Vec<Column> {
        match &self.relation {
            Relation::Process { columns, .. } => columns.clone(),
            Relation::Stream { keys, .. } => self
                .columns
                .iter()
                .map(|(name, of)| Column {
                    name: name.clone(),
                    boolean: keys.iter().any(|(key, kinds)| key == of && kinds.is_boolean()),
                    time: of == TIMESTAMP || self.is_arrival(of),
                })
                .collect(),
        }
    }

    /// The columns that the query mentions, of all rows that it may want.
    pub(crate) fn select(&self) -> String {
        let (number, rows) = match &self.relation {
            Relation::Process { select, .. } => return select.clone(),
            Relation::Stream { number, rows, .. } => (number, rows),
        };
        let value = |key: &str| match key {
            PLACE if number.is_none() && rows.is_some() => "place".to_owned(),
            _ if rows.is_none() || key.contains('\0') => "NULL".to_owned(),
            TIMESTAMP => format!("{}{}", value_of(key), times::COLLATED),
            _ if self.is_arrival(key) => {
                format!("time_add('1970-01-01T00:00:00Z', at){}", times::COLLATED)
            }
            _ => value_of(key),
        };
        let columns = self.columns.iter();
        let columns = columns.map(|(name, key)| format!("{} AS {}", value(key), print::name(name)));
        let mut columns = columns.collect::<Vec<_>>().join(", ");
        if columns.is_empty() {
            columns.push('1');
        }
        match (rows, number) {
            (Some(rows), Some(number)) if !self.blocks.is_empty() => {
                let (from, to) = (places::block(*number), places::block(number + 1));
                let blocks = self.blocks.join(" AND ");
                let (first, next) = (places::first("number"), places::first("number + 1"));
                // The other way round, SQLite would read all events.
                format!(
                    "SELECT {columns} FROM main.blocks CROSS JOIN main.events \
                     WHERE number >= {from} AND number < {to} AND {blocks} \
                     AND place >= {first} AND place < {next} AND {rows}"
                )
            }
            (Some(rows), _) => format!("SELECT {columns} FROM main.events WHERE {rows}"),
            (None, _) => format!("SELECT {columns} WHERE false"),
        }
    }
}

/// The value of a key: objects and arrays in SQLite's binary form, so that they can be told from texts.
pub(crate) fn value_of(key: &str) -> String {
    format!("jsonb_extract(event, {})", print::literal(&format!("$.{}", Value::from(key))))
}
