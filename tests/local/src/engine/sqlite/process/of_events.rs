//! Processes whose rows are made of one event each, and go with it.

use std::ops::Range;
use std::time::Instant;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, OptionalExtension as _, StatementStatus};

use super::{Process, kept};
use crate::engine::EngineError;
use crate::engine::sqlite::catalogue::Tables;
use crate::engine::sqlite::error::query_error;
use crate::engine::sqlite::objects::ChangeRecords;
use crate::engine::sqlite::processes::Processes;
use crate::engine::sqlite::writer::Notice;
use crate::sql::plan::Plan;

/// How many rows go at once: everybody who writes waits meanwhile.
const CHUNK: i64 = 20_000;

impl Process {
    /// Adds a row for each of some events.
    pub(super) fn add_rows(
        &self,
        connection: &Connection,
        plan: &Plan,
        places: &Range<i64>,
        deadline: Instant,
        mut changes: Option<&mut ChangeRecords>,
    ) -> Result<u64, EngineError> {
        let Some(read) = &self.read else { return Ok(0) };
        let mut found: Vec<Value> = Vec::new();
        let mut steps;
        let width = {
            let _inside = self.sandbox.enter(Some(deadline));
            let mut reading = connection.prepare_cached(read).map_err(query_error)?;
            let width = reading.column_count();
            let mut events = reading.query([places.start, places.end]).map_err(query_error)?;
            while let Some(event) = events.next().map_err(query_error)? {
                for column in 0..width {
                    found.push(kept(event.get_ref(column)?));
                }
            }
            drop(events);
            steps = u64::from(reading.reset_status(StatementStatus::VmStep).unsigned_abs());
            width
        };
        let mut insert = connection.prepare_cached(&plan.insert(&self.table()))?;
        for row in found.chunks_exact(width) {
            for (place, value) in (1..).zip(row) {
                insert.raw_bind_parameter(place, ToSqlOutput::from(value))?;
            }
            insert.raw_execute().map_err(query_error)?;
            if let Some(changes) = &mut changes {
                changes.push(connection, &self.objects, None, Some(&row[1..]))?;
            }
        }
        steps += u64::from(insert.reset_status(StatementStatus::VmStep).unsigned_abs());
        Ok(steps)
    }

    /// Takes away rows whose events lay before a place, and returns whether there are more of them.
    fn drop_before(
        &self,
        connection: &Connection,
        plan: &Plan,
        before: i64,
        changes: &mut Option<ChangeRecords>,
    ) -> Result<Option<bool>, EngineError> {
        let table = self.table();
        let first = format!("SELECT 1 FROM {table} WHERE place < ?");
        if !connection.prepare_cached(&first)?.exists([before])? {
            return Ok(None);
        }
        let end =
            format!("SELECT place FROM {table} WHERE place < ? ORDER BY place LIMIT 1 OFFSET ?");
        let mut end = connection.prepare_cached(&end)?;
        let end: Option<i64> = end.query_row([before, CHUNK], |row| row.get(0)).optional()?;
        let (is_all, end) = (end.is_none(), end.unwrap_or(before));
        if let Some(changes) = changes {
            let mut select = connection.prepare_cached(&plan.rows_before(&table))?;
            let mut rows = select.query([end])?;
            while let Some(row) = rows.next()? {
                changes.push(connection, &self.objects, Some(&self.row(row)?), None)?;
            }
        }
        let delete = format!("DELETE FROM {table} WHERE place < ?");
        connection.prepare_cached(&delete)?.execute([end])?;
        Ok(Some(!is_all))
    }
}

impl Processes {
    /// Takes away rows whose events are gone, of all streams or of one, and returns whether there are more of them.
    pub(in crate::engine::sqlite) fn drop_rows(
        &mut self,
        connection: &Connection,
        of: Option<&str>,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, EngineError> {
        let listener = self.listener();
        let mut are_more = false;
        for (name, process) in self.all(connection)? {
            let Some(plan) = process.compiled.plan().filter(|plan| plan.is_of_events()) else {
                continue;
            };
            if of.is_some_and(|of| of != plan.stream()) {
                continue;
            }
            // Another stream of this name lies behind the one that it had before.
            let places = Tables { connection }.places(plan.stream())?;
            let before = places.map_or(i64::MAX, |places| places.start);
            let mut changes = listener.wants_changes(name).then(ChangeRecords::default);
            if let Some(more) = process.drop_before(connection, plan, before, &mut changes)? {
                are_more |= more;
                notices.push(Notice::changed(name, changes));
            }
        }
        Ok(are_more)
    }
}
