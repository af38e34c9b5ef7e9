//! All rows of a process at one moment, for those who subscribe to what changes in it from then on.

use rusqlite::Connection;

use super::error::query_error;
use super::objects::ChangeRecords;
use super::process::Process;
use super::processes::{Processes, no_process};
use crate::engine::EngineError;
use crate::subscribers::records::Records;

impl Processes {
    /// The rows of a process, as if all of them had just come. At most so many bytes of them.
    pub(super) fn snapshot(
        &mut self,
        connection: &Connection,
        name: &str,
        most: usize,
    ) -> Result<Records, EngineError> {
        let process = self.all(connection)?.get(name).ok_or_else(|| no_process(name))?;
        process.rows(connection, most)
    }
}

impl Process {
    fn rows(&self, connection: &Connection, most: usize) -> Result<Records, EngineError> {
        let mut rows = ChangeRecords::default();
        let mut select = connection.prepare_cached(&self.select()).map_err(query_error)?;
        let mut found = select.query([]).map_err(query_error)?;
        while let Some(row) = found.next().map_err(query_error)? {
            let row = self.row(row)?;
            rows.push(connection, &self.objects, None, Some(&row))?;
            if rows.bytes() > most {
                return Err(EngineError::Invalid(format!(
                    "the rows of the process take more than the {most} bytes that may wait for a subscriber"
                )));
            }
        }
        Ok(rows.into_records())
    }
}
