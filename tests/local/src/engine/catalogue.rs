//! What names stand for, looked up in the tables.

use rusqlite::{Connection, OptionalExtension as _};

use super::EngineError;
use super::rewrite::{self, Catalogue, Relation};
use crate::streams::keys::Kinds;

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
            let rows = Some(rewrite::of_stream(number));
            return Ok(Relation::Stream { rows, keys: self.keys(number)? });
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
            None => Relation::Stream { rows: None, keys: Vec::new() },
        })
    }
}
