//! What names stand for, looked up in the tables.

use std::collections::BTreeSet;
use std::ops::Range;

use rusqlite::{Connection, OptionalExtension as _};

use crate::engine::EngineError;
use crate::events::keys::Kinds;
use crate::sql::places;
use crate::sql::relations::{Catalogue, Relation};

/// The names as a connection sees them now.
pub(super) struct Tables<'c> {
    pub(super) connection: &'c Connection,
}

impl Tables<'_> {
    pub(super) fn stream(&self, name: &str) -> Result<Option<i64>, EngineError> {
        let select = "SELECT number FROM streams WHERE name = ?";
        Ok(self
            .connection
            .prepare_cached(select)?
            .query_row([name], |row| row.get(0))
            .optional()?)
    }

    /// The places of the events that a stream has.
    pub(super) fn places(&self, stream: &str) -> Result<Option<Range<i64>>, EngineError> {
        let places = "SELECT number << 40 | first, number << 40 | next FROM streams WHERE name = ?";
        let mut places = self.connection.prepare_cached(places)?;
        Ok(places.query_row([stream], |row| Ok(row.get(0)?..row.get(1)?)).optional()?)
    }

    pub(super) fn keys(&self, stream: i64) -> Result<Vec<(String, Kinds)>, EngineError> {
        let select = "SELECT name, kinds FROM columns WHERE stream = ? ORDER BY place";
        let mut select = self.connection.prepare_cached(select)?;
        let keys = select.query_map([stream], |row| Ok((row.get(0)?, Kinds(row.get(1)?))))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }
}

impl Catalogue for Tables<'_> {
    fn relation(&self, name: &str) -> Result<Relation, EngineError> {
        if let Some(number) = self.stream(name)? {
            let rows = Some(places::of_stream(number));
            let keys = self.keys(number)?;
            return Ok(Relation::Stream { number: Some(number), rows, keys });
        }
        let select = "SELECT rows, columns FROM processes WHERE name = ?";
        let process: Option<(String, String)> = self
            .connection
            .prepare_cached(select)?
            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match process {
            Some((select, columns)) => {
                let columns = serde_json::from_str(&columns)
                    .map_err(|error| EngineError::Broken(format!("bad columns: {error}")))?;
                Relation::Process { select, columns }
            }
            None => Relation::Stream { number: None, rows: None, keys: Vec::new() },
        })
    }
}

/// Which events a query is run over, if not over all that there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// Of this stream only these.
    pub(super) only: Option<(String, Range<i64>)>,
    /// None of these.
    pub(super) without: BTreeSet<i64>,
}

/// The names, with events chosen.
pub(super) struct Chosen<'c> {
    pub(super) tables: &'c Tables<'c>,
    pub(super) choice: &'c Choice,
}

impl Catalogue for Chosen<'_> {
    fn relation(&self, name: &str) -> Result<Relation, EngineError> {
        let mut relation = self.tables.relation(name)?;
        if let Relation::Stream { rows: Some(rows), .. } = &mut relation {
            let Choice { only, without } = self.choice;
            if let Some((_, Range { start, end })) = only.as_ref().filter(|only| only.0 == name) {
                rows.push_str(&format!(" AND place >= {start} AND place < {end}"));
            }
            if !without.is_empty() {
                let places: Vec<String> = without.iter().map(ToString::to_string).collect();
                rows.push_str(&format!(" AND place NOT IN ({})", places.join(", ")));
            }
        }
        Ok(relation)
    }
}
