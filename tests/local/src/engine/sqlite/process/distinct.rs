//! The tables of values by which distinct values are counted.

use std::ops::Range;
use std::time::Instant;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, StatementStatus};

use super::{Process, kept};
use crate::engine::EngineError;
use crate::engine::sqlite::error::query_error;

impl Process {
    /// Adds the values of some events to the tables of values, and counts the new ones in the rows that are to be added.
    pub(super) fn add_values(
        &self,
        connection: &Connection,
        places: &Range<i64>,
        deadline: Instant,
    ) -> Result<u64, EngineError> {
        let (mut steps, mut new) = (0_u64, 0);
        for values in &self.values {
            let mut found: Vec<Value> = Vec::new();
            let width = {
                let _inside = self.sandbox.enter(Some(deadline));
                let mut reading = connection.prepare_cached(&values.read).map_err(query_error)?;
                let width = reading.column_count();
                let mut events = reading.query([places.start, places.end]).map_err(query_error)?;
                while let Some(event) = events.next().map_err(query_error)? {
                    if event.get_ref(width - 1)? == ValueRef::Null {
                        continue;
                    }
                    for column in 0..width {
                        found.push(kept(event.get_ref(column)?));
                    }
                }
                drop(events);
                steps += u64::from(reading.reset_status(StatementStatus::VmStep).unsigned_abs());
                width
            };
            let _inside = self.sandbox.enter(None);
            let mut insert = connection.prepare_cached(&values.insert)?;
            let mut count = connection.prepare_cached(&values.count)?;
            for value in found.chunks_exact(width) {
                for (place, value) in (1..).zip(value) {
                    insert.raw_bind_parameter(place, ToSqlOutput::from(value))?;
                }
                if insert.raw_execute().map_err(query_error)? == 0 {
                    continue;
                }
                new += 1;
                for (place, key) in (1..).zip(&value[..width - 1]) {
                    count.raw_bind_parameter(place, ToSqlOutput::from(key))?;
                }
                count.raw_execute().map_err(query_error)?;
            }
            for statement in [&insert, &count] {
                let taken = statement.reset_status(StatementStatus::VmStep);
                steps += u64::from(taken.unsigned_abs());
            }
        }
        if new > 0 {
            self.keep_count(connection, new)?;
        }
        Ok(steps)
    }

    /// Counts values that have been added, or taken out.
    fn keep_count(&self, connection: &Connection, more: i64) -> Result<(), EngineError> {
        let count = "INSERT INTO distincts VALUES (?1, ?2)
            ON CONFLICT DO UPDATE SET kept = kept + ?2 RETURNING kept";
        let mut count = connection.prepare_cached(count)?;
        let kept: u64 = count.query_row([self.number, more], |row| row.get(0))?;
        let most = self.most_distinct;
        if more > 0 && kept > most {
            return Err(EngineError::Full(format!(
                "the process counts more than {most} distinct values, which is the most that it may keep"
            )));
        }
        Ok(())
    }

    /// Forgets the values of groups that are about to go.
    pub(super) fn forget_values(
        &self,
        connection: &Connection,
        condition: &str,
        parameter: &str,
    ) -> Result<(), EngineError> {
        let Some(plan) = self.compiled.plan() else { return Ok(()) };
        let mut gone = 0;
        for forget in plan.forget_values(&self.table(), condition) {
            let forgotten = connection.prepare_cached(&forget)?.execute([parameter])?;
            gone += i64::try_from(forgotten).unwrap_or(i64::MAX);
        }
        if gone > 0 { self.keep_count(connection, -gone) } else { Ok(()) }
    }
}
