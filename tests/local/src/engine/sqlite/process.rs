//! A process, and the table that its rows are in.

mod distinct;
mod of_events;

use std::ops::Range;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Params, StatementStatus, params};

use super::catalogue::Tables;
use super::compiled::Compiled;
use super::diff::Stored;
use super::error::query_error;
use super::objects::{ChangeRecords, Objects, kept};
use super::sandbox::Sandbox;
use super::sliding::Moved;
use crate::engine::{EngineError, ProcessStats, Ttl};
use crate::sql::columns::Column;
use crate::sql::plan::{Plan, Values};
use crate::sql::rewrite;
use crate::sql::{print, times};

/// Which column a row's age is told by, and how old it may get, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    column: usize,
    micros: i64,
}

impl Expiry {
    pub(super) fn new(ttl: &Ttl, columns: &[Column]) -> Result<Self, EngineError> {
        let micros = times::duration(&ttl.duration)?;
        if micros <= 0 {
            return Err(EngineError::Invalid("a ttl lasts longer than nothing".to_owned()));
        }
        let column = columns.iter().position(|column| column.name == ttl.column);
        let column = column.ok_or_else(|| {
            EngineError::Invalid(format!("the query has no column {:?} for the ttl", ttl.column))
        })?;
        Ok(Self { column, micros })
    }
}

/// A process as the writer holds it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: i64,
    pub(super) compiled: Compiled,
    pub(super) expiry: Option<Expiry>,
    pub(super) objects: Objects,
    /// How to read events, once that has been found out.
    read: Option<String>,
    /// How to count distinct values, once that has been found out.
    values: Vec<Values>,
    /// How many distinct values it may keep.
    pub(super) most_distinct: u64,
    /// While it has not been given all stored events: the place of the next one. It is given no new ones then.
    pub(super) next: Option<i64>,
    /// How many events to give it at once then.
    pub(super) slice: i64,
    /// How far its window has moved, if it is kept in steps.
    pub(super) moved: Option<Moved>,
    /// That of the connection that writes.
    sandbox: Sandbox,
}

/// How many events of a transaction may fail one by one. If it is more, the rest of those that are with
/// them is left out unseen: to try them all takes too long.
pub(super) const MOST_TRIED: u64 = 100;

/// How long a process may take for some events. Everybody who writes waits meanwhile.
pub(super) fn time_for(events: u64) -> Duration {
    const LEAST: Duration = Duration::from_secs(1);
    const EACH: Duration = Duration::from_micros(50);
    const MOST: Duration = Duration::from_millis(1500);
    let each = EACH.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX));
    LEAST.saturating_add(each).min(MOST)
}

/// What adding some events came to.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) steps: u64,
    pub(super) skipped: u64,
    pub(super) error: Option<String>,
    /// The query cannot be run at all, whatever the events are.
    pub(super) unread: bool,
    /// It took too long.
    late: bool,
    /// It may keep no more: from which place on nothing was added, and why.
    pub(super) full: Option<(i64, String)>,
}

impl Process {
    pub(super) fn new(
        number: i64,
        compiled: Compiled,
        expiry: Option<Expiry>,
        sandbox: Sandbox,
    ) -> Self {
        let objects = Objects::new(&compiled.columns);
        let (read, values, next, slice) = (None, Vec::new(), None, 1000);
        let most_distinct = u64::MAX;
        let steps = compiled.plan.as_ref().and_then(Plan::window);
        let moved = steps.map(|steps| Moved::new(steps, None));
        Self {
            number,
            compiled,
            expiry,
            objects,
            read,
            values,
            most_distinct,
            next,
            slice,
            moved,
            sandbox,
        }
    }

    /// The table that holds its rows.
    pub(super) fn table(&self) -> String {
        table(self.number)
    }

    /// The table for what is to be added next. It lasts as long as the connection.
    pub(super) fn delta(&self) -> String {
        format!("delta_{}", self.number)
    }

    /// The value of a column, in terms of the table.
    fn value(&self, place: usize) -> String {
        match &self.compiled.plan {
            Some(plan) => plan.output(place).to_owned(),
            None => format!("c{place}"),
        }
    }

    fn values(&self) -> String {
        let values = (0..self.compiled.columns.len()).map(|place| self.value(place));
        values.collect::<Vec<_>>().join(", ")
    }

    /// A `SELECT` of its rows, for those who read it.
    pub(super) fn select(&self) -> String {
        let columns = self.compiled.columns.iter().enumerate().map(|(place, column)| {
            let collation = if column.time { times::COLLATED } else { "" };
            format!("{}{collation} AS {}", self.value(place), print::name(&column.name))
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let having = self.compiled.plan.as_ref().and_then(Plan::having);
        let having = having.map_or_else(String::new, |having| format!(" WHERE {having}"));
        format!("SELECT {columns} FROM {}{having}", self.groups(&format!("main.{}", self.table())))
    }

    /// What its rows are read from.
    fn groups(&self, table: &str) -> String {
        match &self.compiled.plan {
            Some(plan) => plan.groups(table),
            None => table.to_owned(),
        }
    }

    /// A query for how many rows it has.
    pub(super) fn count(&self) -> String {
        let table = self.table();
        let rows = self.compiled.plan.as_ref().and_then(|plan| plan.distinct_groups(&table));
        format!("SELECT count(*) FROM {}", rows.unwrap_or(table))
    }

    /// What is to be said of it before anything has come of it.
    pub(super) fn stats(&self) -> ProcessStats {
        let steps = self.compiled.plan.as_ref().and_then(Plan::window);
        let step_ms = steps.map(|steps| steps.length().unsigned_abs() / 1000);
        let why = self.compiled.why.clone();
        ProcessStats { why, step_ms, ..ProcessStats::new(self.compiled.mode()) }
    }

    /// Its rows, unless there are more than so many.
    pub(super) fn shown(
        &self,
        connection: &Connection,
        most: usize,
    ) -> Result<Option<Vec<Vec<Value>>>, EngineError> {
        let _inside = self.sandbox.enter(Some(Instant::now() + time_for(0)));
        let limited = format!("SELECT * FROM ({}) LIMIT {}", self.select(), most + 1);
        let rows = rows(connection, &limited)?;
        Ok((rows.len() <= most).then_some(rows))
    }

    /// Writes down how others read its rows.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), EngineError> {
        let columns = serde_json::json!(self.compiled.columns).to_string();
        let update = "UPDATE processes SET rows = ?1, columns = ?2
            WHERE number = ?3 AND (rows <> ?1 OR columns <> ?2)";
        connection.execute(update, params![self.select(), columns, self.number])?;
        let homes = serde_json::json!(self.compiled.homes).to_string();
        let insert = "INSERT INTO homes VALUES (?1, ?2)
            ON CONFLICT DO UPDATE SET streams = ?2 WHERE streams <> ?2";
        connection.execute(insert, params![self.number, homes])?;
        Ok(())
    }

    /// Looks again at what is true or false: the keys of the stream have had new kinds of values.
    /// Returns whether anything changed.
    pub(super) fn learn_columns(&mut self, connection: &Connection) -> Result<bool, EngineError> {
        let runnable = rewrite::rewrite(&self.compiled.parsed()?, &Tables { connection })?;
        if let Some(columns) = runnable.columns
            && columns != self.compiled.columns
        {
            *self = self.with_columns(columns);
            self.save(connection)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Its query has been run, over events that may have brought keys which it names: they mean from here on what
    /// they meant then.
    pub(super) fn settle(&mut self, connection: &Connection) -> Result<(), EngineError> {
        let homes = rewrite::rewrite(&self.compiled.parsed()?, &Tables { connection })?.homes;
        if self.compiled.homes != homes {
            self.compiled.homes = homes;
            self.save(connection)?;
        }
        Ok(())
    }

    pub(super) fn create_table(&self, connection: &Connection) -> Result<(), EngineError> {
        let create = match &self.compiled.plan {
            Some(plan) => {
                let table = self.table();
                format!("{}; {}", plan.create(&table, false), plan.create_values(&table))
            }
            None => {
                let columns = (0..self.compiled.columns.len()).map(|place| format!("c{place}"));
                let columns = columns.collect::<Vec<_>>().join(", ");
                format!("CREATE TABLE {} ({columns})", self.table())
            }
        };
        // With keys and states, a plan may have more columns than its result.
        connection.execute_batch(&create).map_err(query_error)
    }

    /// Whether its table is one for the way in which it is kept. That of an earlier version may have been kept in another.
    pub(super) fn fits_table(&self, connection: &Connection) -> Result<bool, EngineError> {
        let columns = match &self.compiled.plan {
            Some(plan) => plan.table_columns(),
            None => (0..self.compiled.columns.len()).map(|place| format!("c{place}")).collect(),
        };
        Ok(columns == columns_of(connection, &self.table())?)
    }

    /// Starts it over what is stored, with nothing as yet.
    pub(super) fn start(&mut self, connection: &Connection) -> Result<(), EngineError> {
        let Some(plan) = &self.compiled.plan else { return Ok(()) };
        let places = Tables { connection }.places(plan.stream())?;
        // Of no events at all, an aggregate of everything has its row.
        self.add(connection, 0..0, None)?;
        self.stop_at(connection, places.map(|places| places.start))
    }

    /// It lacks the events from this place on, if there is one.
    pub(super) fn stop_at(
        &mut self,
        connection: &Connection,
        next: Option<i64>,
    ) -> Result<(), EngineError> {
        match next {
            Some(next) => {
                let save = "INSERT INTO fills VALUES (?1, ?2) ON CONFLICT DO UPDATE SET next = ?2";
                connection.prepare_cached(save)?.execute([self.number, next])?;
            }
            None => {
                let delete = "DELETE FROM fills WHERE process = ?";
                connection.prepare_cached(delete)?.execute([self.number])?;
            }
        }
        self.next = next;
        Ok(())
    }

    pub(super) fn create_delta(&self, connection: &Connection) -> Result<(), EngineError> {
        if let Some(plan) = self.compiled.plan.as_ref().filter(|plan| !plan.is_of_events()) {
            let delta = self.delta();
            let create = plan.create(&delta, true);
            connection
                .execute_batch(&format!("DROP TABLE IF EXISTS temp.{delta}; {create}"))
                .map_err(query_error)?;
        }
        Ok(())
    }

    pub(super) fn drop_tables(&self, connection: &Connection) -> Result<(), EngineError> {
        let (table, delta) = (self.table(), self.delta());
        let mut drop = format!("DROP TABLE {table}; DROP TABLE IF EXISTS temp.{delta};");
        let plan = self.compiled.plan.iter();
        for values in plan.flat_map(|plan| plan.value_tables(&table)) {
            // One that an earlier version made has none.
            drop.push_str(&format!("DROP TABLE IF EXISTS {values};"));
        }
        connection.execute_batch(&drop)?;
        connection.execute("DELETE FROM distincts WHERE process = ?", [self.number])?;
        connection.execute("DELETE FROM homes WHERE process = ?", [self.number])?;
        connection.execute("DELETE FROM windows WHERE process = ?", [self.number])?;
        Ok(())
    }

    /// Adds the events at `places` to the result. Events that the query fails at are left out: they
    /// can only be found by trying. `changes` are noted if somebody wants to know them.
    pub(super) fn add(
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
            && let Some(plan) = &self.compiled.plan
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
        let Some(plan) = &self.compiled.plan else { return Ok(0) };
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
    pub(super) fn note_changes<T>(
        &self,
        connection: &Connection,
        changes: &mut ChangeRecords,
        deadline: Option<Instant>,
        change: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Some(plan) = &self.compiled.plan else { return change() };
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

    /// Takes away the rows that have become too old.
    pub(super) fn expire(
        &self,
        connection: &Connection,
        now: i64,
        changes: &mut ChangeRecords,
    ) -> Result<(), EngineError> {
        let Some(Expiry { column, micros }) = self.expiry else { return Ok(()) };
        let before = times::text_of(now.saturating_sub(micros));
        let (table, column, values) = (self.table(), self.value(column), self.values());
        let is_old = format!("utc({column}) < ?");
        let having = self.compiled.plan.as_ref().and_then(Plan::having).unwrap_or("1");
        let groups = self.groups(&table);
        let old =
            format!("SELECT {values}, CASE WHEN {having} THEN 1 END FROM {groups} WHERE {is_old}");
        let inside = self.sandbox.enter(Some(Instant::now() + time_for(0)));
        let mut select = connection.prepare_cached(&old)?;
        let mut rows = select.query([&before])?;
        let mut any = false;
        while let Some(row) = rows.next().map_err(query_error)? {
            any = true;
            // One that was not in the result cannot leave it.
            if row.get_ref(self.compiled.columns.len())? != ValueRef::Null {
                changes.push(connection, &self.objects, Some(&self.row(row)?), None)?;
            }
        }
        drop(rows);
        drop(inside);
        if any {
            // It asks the same again, which has just been answered in time.
            let _inside = self.sandbox.enter(None);
            self.forget_values(connection, &is_old, &before)?;
            let rows_of_old = match &self.compiled.plan {
                Some(plan) => plan.rows_of_groups(&table, &is_old),
                None => is_old,
            };
            let delete = format!("DELETE FROM {table} WHERE {rows_of_old}");
            connection.prepare_cached(&delete)?.execute([&before])?;
        }
        Ok(())
    }

    /// Whether a row of a result has become too old to be kept.
    pub(super) fn is_old(&self, row: &[Value], now: i64) -> bool {
        let Some(Expiry { column, micros }) = self.expiry else { return false };
        match row.get(column) {
            Some(Value::Text(at)) => {
                times::micros_of(at).is_some_and(|at| at < now.saturating_sub(micros))
            }
            _ => false,
        }
    }

    /// The same process with other columns, because that is what its query has come to give.
    pub(super) fn with_columns(&self, columns: Vec<Column>) -> Self {
        let mut compiled = self.compiled.clone();
        compiled.columns = columns;
        let expiry = self.expiry.and_then(|expiry| {
            let name = &self.compiled.columns.get(expiry.column)?.name;
            let column = compiled.columns.iter().position(|column| column.name == *name)?;
            Some(Expiry { column, ..expiry })
        });
        let (next, slice, moved) = (self.next, self.slice, self.moved);
        let most_distinct = self.most_distinct;
        let other = Self::new(self.number, compiled, expiry, self.sandbox.clone());
        Self { next, slice, moved, most_distinct, ..other }
    }

    /// Makes `rows` the rows of this process, which is one that is computed anew, and changes no more
    /// in the table than is different. Rows that are equal in the columns `by` are one row that changed.
    pub(super) fn replace(
        &self,
        connection: &Connection,
        rows: Vec<Vec<Value>>,
        by: Option<&[usize]>,
        changes: &mut ChangeRecords,
    ) -> Result<(), EngineError> {
        let table = self.table();
        let (mut old, mut count) = (Stored::default(), 0);
        let mut select =
            connection.prepare_cached(&format!("SELECT rowid, {} FROM {table}", self.values()))?;
        let mut stored = select.query([])?;
        while let Some(row) = stored.next()? {
            count += 1;
            let number = row.get(0)?;
            let values =
                (1..=self.compiled.columns.len()).map(|place| Ok(kept(row.get_ref(place)?)));
            old.put(number, values.collect::<rusqlite::Result<_>>()?);
        }
        drop(stored);
        // A result of one row that stays one is that row, whatever it is made of.
        let by = by.or((count == 1 && rows.len() == 1).then_some(&[]));
        let new: Vec<Vec<Value>> = rows.into_iter().filter(|row| !old.take_equal(row)).collect();
        let mut old = old.left(by);
        let new: Vec<_> =
            new.into_iter().map(|row| (by.and_then(|by| old.take(&row, by)), row)).collect();

        let mut delete =
            connection.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?"))?;
        for (number, row) in old.rest() {
            delete.execute([number])?;
            changes.push(connection, &self.objects, Some(&row), None)?;
        }
        let marks = vec!["?"; self.compiled.columns.len()].join(", ");
        let mut insert =
            connection.prepare_cached(&format!("INSERT INTO {table} VALUES ({marks})"))?;
        for (before, row) in new {
            if let Some((number, _)) = &before {
                delete.execute([number])?;
            }
            insert.execute(rusqlite::params_from_iter(&row))?;
            let before = before.as_ref().map(|(_, row)| &row[..]);
            changes.push(connection, &self.objects, before, Some(&row))?;
        }
        Ok(())
    }

    pub(super) fn row(&self, row: &rusqlite::Row<'_>) -> Result<Vec<Value>, EngineError> {
        let values = (0..self.compiled.columns.len()).map(|place| Ok(kept(row.get_ref(place)?)));
        Ok(values.collect::<rusqlite::Result<_>>()?)
    }
}

/// The table that holds the rows of the process with this number.
pub(super) fn table(number: i64) -> String {
    format!("process_{number}")
}

/// The columns that a table has.
fn columns_of(connection: &Connection, table: &str) -> Result<Vec<String>, EngineError> {
    let columns = "SELECT name FROM pragma_table_info(?) ORDER BY cid";
    let mut columns = connection.prepare_cached(columns)?;
    let columns = columns.query_map([table], |row| row.get(0))?;
    Ok(columns.collect::<Result<_, _>>()?)
}

/// Runs a statement of a process and returns the steps that it took.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<u64, EngineError> {
    let mut statement = connection.prepare_cached(sql).map_err(query_error)?;
    statement.execute(params).map_err(query_error)?;
    let steps = statement.reset_status(StatementStatus::VmStep);
    Ok(steps.unsigned_abs().into())
}

fn rows(connection: &Connection, sql: &str) -> Result<Vec<Vec<Value>>, EngineError> {
    let mut statement = connection.prepare_cached(sql).map_err(query_error)?;
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| (0..columns).map(|place| Ok(kept(row.get_ref(place)?))).collect());
    rows.and_then(Iterator::collect).map_err(query_error)
}
