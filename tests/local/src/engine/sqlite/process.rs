//! A process, and the table that its rows are in.

mod adding;
mod distinct;
mod expiry;
mod of_events;

use std::time::Instant;

use rusqlite::types::Value;
use rusqlite::{Connection, Params, StatementStatus, params};

pub(super) use self::adding::{Added, MOST_TRIED, time_for};
pub(super) use self::expiry::Expiry;
use super::catalogue::Tables;
use super::compiled::Compiled;
use super::diff::Stored;
use super::error::query_error;
use super::objects::{ChangeRecords, Objects, kept};
use super::sandbox::Sandbox;
use super::sliding::Moved;
use crate::engine::{EngineError, ProcessStats};
use crate::sql::columns::Column;
use crate::sql::plan::{Plan, Values};
use crate::sql::rewrite;
use crate::sql::{print, times};

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
        let steps = compiled.plan().and_then(Plan::window);
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
        match self.compiled.plan() {
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
        let having = self.compiled.plan().and_then(Plan::having);
        let having = having.map_or_else(String::new, |having| format!(" WHERE {having}"));
        format!("SELECT {columns} FROM {}{having}", self.groups(&format!("main.{}", self.table())))
    }

    /// What its rows are read from.
    fn groups(&self, table: &str) -> String {
        match self.compiled.plan() {
            Some(plan) => plan.groups(table),
            None => table.to_owned(),
        }
    }

    /// A query for how many rows it has.
    pub(super) fn count(&self) -> String {
        let table = self.table();
        let rows = self.compiled.plan().and_then(|plan| plan.distinct_groups(&table));
        format!("SELECT count(*) FROM {}", rows.unwrap_or(table))
    }

    /// What is to be said of it before anything has come of it.
    pub(super) fn stats(&self) -> ProcessStats {
        let steps = self.compiled.plan().and_then(Plan::window);
        let step_ms = steps.map(|steps| steps.length().unsigned_abs() / 1000);
        let why = self.compiled.plan.as_ref().err().cloned();
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
        let create = match self.compiled.plan() {
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
        let columns = match self.compiled.plan() {
            Some(plan) => plan.table_columns(),
            None => (0..self.compiled.columns.len()).map(|place| format!("c{place}")).collect(),
        };
        Ok(columns == columns_of(connection, &self.table())?)
    }

    /// Starts it over what is stored, with nothing as yet.
    pub(super) fn start(&mut self, connection: &Connection) -> Result<(), EngineError> {
        let Some(plan) = self.compiled.plan() else { return Ok(()) };
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
        if let Some(plan) = self.compiled.plan().filter(|plan| !plan.is_of_events()) {
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
        let plan = self.compiled.plan().into_iter();
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
pub(super) fn columns_of(connection: &Connection, table: &str) -> Result<Vec<String>, EngineError> {
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
