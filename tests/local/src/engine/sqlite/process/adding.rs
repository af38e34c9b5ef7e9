//! Giving events to a process.

use std::ops::Range;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, StatementStatus};

use super::{Process, execute, rows};
use crate::engine::EngineError;
use crate::engine::sqlite::catalogue::Tables;
use crate::engine::sqlite::error::query_error;
use crate::engine::sqlite::objects::ChangeRecords;

/// How many events of a transaction may fail one by one. If it is more, the rest of those that are with
/// them is left out unseen: to try them all takes too long.
pub(in crate::engine::sqlite) const MOST_TRIED: u64 = 100;

/// How long a process may take for some events. Everybody who writes waits meanwhile.
pub(in crate::engine::sqlite) fn time_for(events: u64) -> Duration {
    const LEAST: Duration = Duration::from_secs(1);
    const EACH: Duration = Duration::from_micros(50);
    const MOST: Duration = Duration::from_millis(1500);
    let each = EACH.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX));
    LEAST.saturating_add(each).min(MOST)
}

/// What adding some events came to.
#[derive(Debug, Default)]
pub(in crate::engine::sqlite) struct Added {
    pub(in crate::engine::sqlite) steps: u64,
    pub(in crate::engine::sqlite) skipped: u64,
    pub(in crate::engine::sqlite) error: Option<String>,
    /// The query cannot be run at all, whatever the events are.
    pub(in crate::engine::sqlite) unread: bool,
    /// It took too long.
    late: bool,
    /// It may keep no more: from which place on nothing was added, and why.
    pub(in crate::engine::sqlite) full: Option<(i64, String)>,
}

impl Process {
    /// Adds the events at `places` to the result. Events that the query fails at are left out: they
    /// can only be found by trying. `changes` are noted if somebody wants to know them.
    pub(in crate::engine::sqlite) fn add(
        &mut self,
        connection: &Connection,
        places: Range<i64>,
        mut changes: Option<&mut ChangeRecords>,
    ) -> Result<Added, EngineError> {
        let mut added = Added::default();
        // What is made once of the query is not held against the events.
        match self.prepare(connection) {
            Ok(()) => {}
            Err(EngineError::Invalid(why)) => {
                added.skipped = places.end.abs_diff(places.start);
                (added.error, added.unread) = (Some(why), true);
                return Ok(added);
            }
            Err(error) => return Err(error),
        }
        let time = time_for(places.end.abs_diff(places.start));
        let deadline = Instant::now() + time;
        let mut left = vec![places];
        while let Some(places) = left.pop() {
            if added.skipped >= MOST_TRIED || added.late {
                added.skipped += places.end.abs_diff(places.start);
                continue;
            }
            connection.prepare_cached("SAVEPOINT part")?.execute([])?;
            let noted = changes.as_ref().map_or(0, |changes| changes.len());
            match self.add_part(connection, &places, deadline, changes.as_deref_mut()) {
                Ok(steps) => added.steps += steps,
                Err(EngineError::Invalid(why)) => {
                    connection.prepare_cached("ROLLBACK TO part")?.execute([])?;
                    if let Some(changes) = &mut changes {
                        changes.truncate(noted);
                    }
                    if Instant::now() >= deadline {
                        added.late = true;
                        added.skipped += places.end.abs_diff(places.start);
                        let millis = time.as_millis();
                        added.error = Some(format!("the events take more than {millis} ms"));
                    } else if places.end - places.start > 1 {
                        let middle = places.start + (places.end - places.start) / 2;
                        left.extend([middle..places.end, places.start..middle]);
                    } else {
                        added.skipped += 1;
                        added.error = Some(why);
                    }
                }
                Err(EngineError::Full(why)) => {
                    connection.prepare_cached("ROLLBACK TO part")?.execute([])?;
                    if let Some(changes) = &mut changes {
                        changes.truncate(noted);
                    }
                    // Those before it are added, or left out for other reasons.
                    added.full = Some((places.start, why));
                    left.clear();
                }
                Err(error) => return Err(error),
            }
            connection.prepare_cached("RELEASE part")?.execute([])?;
        }
        Ok(added)
    }

    /// Finds out how to read events, unless that is known.
    fn prepare(&mut self, connection: &Connection) -> Result<(), EngineError> {
        if self.read.is_none()
            && let Some(plan) = self.compiled.plan()
        {
            let tables = Tables { connection };
            let read = plan.read(&tables)?;
            let values = plan.values(&self.table(), &self.delta(), &tables)?;
            // Done once and in a moment; the limit is for what nobody thought of.
            let _inside = self.sandbox.enter(Some(Instant::now() + time_for(0) * 5));
            connection.prepare_cached(&read).map_err(query_error)?;
            for values in &values {
                connection.prepare_cached(&values.read).map_err(query_error)?;
            }
            (self.read, self.values) = (Some(read), values);
        }
        Ok(())
    }

    fn add_part(
        &self,
        connection: &Connection,
        places: &Range<i64>,
        deadline: Instant,
        changes: Option<&mut ChangeRecords>,
    ) -> Result<u64, EngineError> {
        let (table, delta) = (self.table(), self.delta());
        let Some(plan) = self.compiled.plan() else { return Ok(0) };
        if plan.is_of_events() {
            return self.add_rows(connection, plan, places, deadline, changes);
        }
        let Some(read) = &self.read else { return Ok(0) };
        let mut steps = execute(connection, &format!("DELETE FROM {delta}"), [])?;
        {
            // Only what reads is held to the time: SQLite ends the whole transaction when it interrupts a
            // statement that writes.
            let _inside = self.sandbox.enter(Some(deadline));
            let mut reading = connection.prepare_cached(read).map_err(query_error)?;
            let mut insert = connection.prepare_cached(&plan.insert(&delta))?;
            let columns = reading.column_count();
            let mut groups = reading.query([places.start, places.end]).map_err(query_error)?;
            while let Some(group) = groups.next().map_err(query_error)? {
                if let Some(moved) = &self.moved
                    && !group.get::<_, Option<i64>>(0)?.is_some_and(|step| moved.holds(step))
                {
                    continue;
                }
                for column in 0..columns {
                    let value = ToSqlOutput::Borrowed(group.get_ref(column)?);
                    insert.raw_bind_parameter(column + 1, value)?;
                }
                insert.raw_execute().map_err(query_error)?;
            }
            drop(groups);
            steps += u64::from(reading.reset_status(StatementStatus::VmStep).unsigned_abs());
        }
        steps += self.add_values(connection, places, deadline)?;
        let merge = || {
            let _inside = self.sandbox.enter(None);
            execute(connection, &plan.merge(&table, &delta), [])
        };
        steps += match changes {
            Some(changes) => self.note_changes(connection, changes, Some(deadline), merge)?,
            None => merge()?,
        };
        Ok(steps)
    }

    /// Notes what `change` changes of the groups that are in `delta`.
    pub(in crate::engine::sqlite) fn note_changes<T>(
        &self,
        connection: &Connection,
        changes: &mut ChangeRecords,
        deadline: Option<Instant>,
        change: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Some(plan) = self.compiled.plan() else { return change() };
        let scanning = match plan.many_steps(&self.table()) {
            Some(many) => connection.prepare_cached(&many)?.query_row([], |row| row.get(0))?,
            None => false,
        };
        let touched = plan.touched(&self.table(), &self.delta(), scanning);
        let touched = || {
            let _inside = self.sandbox.enter(deadline);
            rows(connection, &touched)
        };
        let old = touched()?;
        let changed = change()?;
        let new = touched()?;
        for (old, new) in old.iter().zip(&new) {
            let row = |row: &'_ [Value]| (row[0] != Value::Null).then(|| row[1..].to_vec());
            let (old, new) = (row(old), row(new));
            if old != new {
                changes.push(connection, &self.objects, old.as_deref(), new.as_deref())?;
            }
        }
        Ok(changed)
    }
}
