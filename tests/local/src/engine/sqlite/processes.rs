//! All processes, as the writing connection keeps them: up to date in the transaction that stores.

mod filling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, params};

pub(super) use self::filling::Filled;
use super::catalogue::Tables;
use super::compiled::{Compiled, check_width};
use super::objects::ChangeRecords;
use super::process::{Expiry, Process};
use super::recompute::Run;
use super::sandbox::Sandbox;
use super::schedule::Schedule;
use super::stats::Stats;
use super::storage::Stored;
use super::successor::visible;
use super::writer::Notice;
use crate::engine::{Definition, EngineError, Listener, Mode, ProcessStats, Ttl};
use crate::settings::Limits;
use crate::sql::Homes;
use crate::sql::columns::Column;
use crate::sql::groups::same_row_by;

/// How many processes there may be.
const MOST: usize = 1000;

#[derive(Debug)]
pub(super) struct Processes {
    /// As they are in the table; `None` when that has to be looked up again.
    pub(super) loaded: Option<BTreeMap<String, Process>>,
    /// Whether something in there is not committed yet.
    pub(super) touched: bool,
    sandbox: Sandbox,
    /// How many distinct values each may keep.
    most_distinct: u64,
    pub(super) stats: Stats,
    pub(super) schedule: Arc<Schedule>,
    pub(super) listener: Arc<dyn Listener>,
}

/// A process as it is stored.
struct Row {
    number: i64,
    name: String,
    query: String,
    columns: Vec<Column>,
    ttl: Option<Ttl>,
    next: Option<i64>,
    homes: Homes,
    /// The first step of its window.
    first: Option<i64>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let (duration, column): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
        Ok(Self {
            number: row.get(0)?,
            name: row.get(1)?,
            query: row.get(2)?,
            columns: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
            ttl: duration.zip(column).map(|(duration, column)| Ttl { duration, column }),
            next: row.get(6)?,
            homes: homes(row.get(7)?),
            first: row.get(8)?,
        })
    }
}

/// What is settled of the names in a process's query. Processes of earlier versions have nothing of it.
pub(super) fn homes(json: Option<String>) -> Homes {
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

/// A process that is to be made, checked as far as that needs no lock.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) definition: Definition,
    /// Its first result, if it is one that is computed anew.
    pub(super) run: Option<Run>,
}

impl Processes {
    pub(super) fn new(
        sandbox: Sandbox,
        limits: &Limits,
        stats: Stats,
        schedule: Arc<Schedule>,
        listener: Arc<dyn Listener>,
    ) -> Self {
        let most_distinct = limits.max_distinct as u64;
        Self { loaded: None, touched: false, sandbox, most_distinct, stats, schedule, listener }
    }

    pub(super) fn listener(&self) -> Arc<dyn Listener> {
        Arc::clone(&self.listener)
    }

    /// Forgets what has not become true.
    pub(super) fn rolled_back(&mut self) {
        if std::mem::take(&mut self.touched) {
            self.loaded = None;
        }
    }

    pub(super) fn committed(&mut self) {
        self.touched = false;
    }

    pub(super) fn all(
        &mut self,
        connection: &Connection,
    ) -> Result<&mut BTreeMap<String, Process>, EngineError> {
        let all = match self.loaded.take() {
            Some(all) => all,
            None => self.load(connection)?,
        };
        Ok(self.loaded.insert(all))
    }

    fn load(&self, connection: &Connection) -> Result<BTreeMap<String, Process>, EngineError> {
        let select =
            "SELECT number, name, query, columns, ttl_duration, ttl_column, next, streams, first
            FROM processes LEFT JOIN fills ON fills.process = number
            LEFT JOIN homes ON homes.process = number
            LEFT JOIN windows ON windows.process = number";
        let rows: Vec<Row> = connection
            .prepare_cached(select)?
            .query_map([], Row::read)?
            .collect::<Result<_, _>>()?;
        let mut all = BTreeMap::new();
        for Row { number, name, query, columns, ttl, next, homes, first } in rows {
            // The table has the columns of the last run, whatever `*` would be now.
            let (compiled, error) =
                Compiled::stored(&query, columns, homes, &Tables { connection })?;
            let expiry = ttl.and_then(|ttl| Expiry::new(&ttl, &compiled.columns).ok());
            let mut process = Process::new(number, compiled, expiry, self.sandbox.clone());
            (process.next, process.most_distinct) = (next, self.most_distinct);
            process.move_to(first);
            if error.is_none() && !process.fits_table(connection)? {
                connection.execute_batch("SAVEPOINT anew")?;
                process.drop_tables(connection)?;
                process.create_table(connection)?;
                process.create_delta(connection)?;
                process.start(connection)?;
                process.save(connection)?;
                connection.execute_batch("RELEASE anew")?;
            }
            // An earlier version may have printed it in another way.
            process.save(connection)?;
            process.create_delta(connection)?;
            let mode = process.compiled.mode();
            if self.stats.of(&name).is_none_or(|stats| stats.mode != mode) {
                let stale = error.is_some();
                let filling = Self::filling(connection, &process)?;
                let stats = ProcessStats { last_error: error, stale, filling, ..process.stats() };
                self.stats.put(&name, &process, stats);
                self.schedule(&name, &process);
            }
            all.insert(name, process);
        }
        Ok(all)
    }

    /// Has a process computed from here on, if it is one of that kind.
    fn schedule(&self, name: &str, process: &Process) {
        match process.compiled.mode() {
            Mode::Incremental => self.schedule.remove(name),
            Mode::Recomputed => {
                self.schedule.put(name);
            }
        }
    }

    pub(super) fn end(&self, name: &str) {
        self.stats.remove(name);
        self.schedule.remove(name);
    }

    /// Gives new events of a stream to the processes that read it.
    pub(super) fn stored(
        &mut self,
        connection: &Connection,
        stream: &str,
        stored: &Stored,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        let places = &stored.places;
        let (stats, listener) = (self.stats.clone(), self.listener());
        let events = places.end.abs_diff(places.start);
        let mut touched = self.touched;
        for (name, process) in self.all(connection)? {
            if !process.compiled.reads.contains(stream) {
                continue;
            }
            if process.next.is_some() {
                // It gets to them in its turn.
                stats.note(name, |stats| stats.events += events);
            } else if process.compiled.plan().is_some() {
                if stored.new_kinds {
                    touched |= process.learn_columns(connection)?;
                }
                touched |= process.save_window(connection)?;
                let mut changes = listener.wants_changes(name).then(ChangeRecords::default);
                let mut added = process.add(connection, places.clone(), changes.as_mut())?;
                let full = added.full.take();
                stats.note(name, |stats| stats.events += events);
                stats.added(name, added);
                if let Some((place, why)) = full {
                    touched = true;
                    process.stop_at(connection, Some(place))?;
                    stats.full(name, &why);
                }
                notices.push(Notice::changed(name, changes));
            } else {
                stats.note(name, |stats| stats.events += events);
                notices.push(Notice::Outdated(name.clone()));
            }
        }
        self.touched = touched;
        Ok(())
    }

    /// Takes away the rows that have become too old.
    pub(super) fn expire(
        &mut self,
        connection: &Connection,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        let stats = self.stats.clone();
        for (name, process) in self.all(connection)? {
            let mut changes = ChangeRecords::default();
            match process.expire(connection, now, &mut changes) {
                // Of this process, and no reason to keep the rows of others.
                Err(EngineError::Invalid(why)) => {
                    stats.note(name, |stats| stats.last_error = Some(why));
                    continue;
                }
                expired => expired?,
            }
            if changes.len() > 0 {
                notices.push(Notice::changed(name, Some(changes)));
            }
        }
        Ok(())
    }

    pub(super) fn have_ttl(&self) -> bool {
        let all = self.loaded.iter().flat_map(BTreeMap::values);
        all.into_iter().any(|process| process.expiry.is_some())
    }

    pub(super) fn create(
        &mut self,
        connection: &Connection,
        draft: Draft,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        let name = draft.name.clone();
        let all = self.all(connection)?;
        if all.contains_key(&name) {
            return Err(EngineError::Conflict(format!("there is a process {name:?} already")));
        }
        if all.len() >= MOST {
            return Err(EngineError::Invalid(format!(
                "there are {MOST} processes already, which is the most there may be"
            )));
        }
        let stream = "SELECT 1 FROM streams WHERE name = ?";
        if connection.prepare_cached(stream)?.exists([&name])? {
            return Err(EngineError::Conflict(format!("{name:?} is a stream, not a process")));
        }
        if let Some(reader) = self.reader_of(connection, &name)? {
            return Err(EngineError::Conflict(format!(
                "the process {reader:?} reads {name:?} as a stream"
            )));
        }
        self.insert(connection, draft, now, notices)
    }

    fn make(
        &self,
        connection: &Connection,
        number: i64,
        query: &str,
        ttl: Option<&Ttl>,
    ) -> Result<Process, EngineError> {
        let compiled = Compiled::new(query, &Tables { connection })?;
        let expiry = ttl.map(|ttl| Expiry::new(ttl, &compiled.columns)).transpose()?;
        let mut process = Process::new(number, compiled, expiry, self.sandbox.clone());
        process.most_distinct = self.most_distinct;
        process.create_delta(connection)?;
        Ok(process)
    }

    pub(super) fn insert(
        &mut self,
        connection: &Connection,
        draft: Draft,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        self.touched = true;
        let Draft { name, definition, run } = draft;
        let Definition { query, ttl } = &definition;
        let insert = "INSERT INTO processes (name, query, ttl_duration, ttl_column, rows, columns)
            VALUES (?, ?, ?, ?, '', '')";
        let number = connection.prepare_cached(insert)?.insert(params![
            name,
            query,
            ttl.as_ref().map(|ttl| &ttl.duration),
            ttl.as_ref().map(|ttl| &ttl.column),
        ])?;
        let mut process = self.make(connection, number, query, ttl.as_ref())?;
        if process.compiled.reads.contains(&name) {
            return Err(EngineError::Invalid("a process cannot read itself".to_owned()));
        }
        process.create_table(connection)?;
        process.save(connection)?;
        self.stats.put(&name, &process, process.stats());
        match (process.compiled.plan(), run) {
            (Some(plan), None) => {
                let first = plan.window().map(|steps| steps.first(now));
                process.move_to(first);
                process.save_window(connection)?;
                process.start(connection)?;
                let filling = Self::filling(connection, &process)?;
                self.stats.note(&name, |stats| stats.filling = filling);
            }
            (None, Some(run)) => {
                self.stats.ran(&name, &run);
                update(connection, &mut process, run, now, &mut ChangeRecords::default())?;
            }
            _ => {
                return Err(EngineError::Conflict(
                    "what the query reads has changed meanwhile: try again".to_owned(),
                ));
            }
        }
        notices.push(Notice::Created(name.clone()));
        self.all(connection)?.insert(name, process);
        Ok(())
    }

    /// Puts the result of a new run in the place of the last one, and returns whether it is another.
    pub(super) fn ran(
        &mut self,
        connection: &Connection,
        name: &str,
        number: i64,
        run: Run,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, EngineError> {
        let stats = self.stats.clone();
        self.touched = true;
        // It may be gone by now, or be another one.
        let Some(process) =
            self.all(connection)?.get_mut(name).filter(|process| process.number == number)
        else {
            return Ok(false);
        };
        let mut changes = ChangeRecords::default();
        stats.ran(name, &run);
        update(connection, process, run, now, &mut changes)?;
        process.settle(connection)?;
        let has_changed = changes.len() > 0;
        if has_changed {
            notices.push(Notice::changed(name, Some(changes)));
        }
        Ok(has_changed)
    }

    /// Changes what is not the query of a process.
    pub(super) fn change_ttl(
        &mut self,
        connection: &Connection,
        name: &str,
        ttl: &Ttl,
    ) -> Result<(), EngineError> {
        self.touched = true;
        let process = self.all(connection)?.get_mut(name).ok_or_else(|| no_process(name))?;
        process.expiry = Some(Expiry::new(ttl, &process.compiled.columns)?);
        let update = "UPDATE processes SET ttl_duration = ?, ttl_column = ? WHERE name = ?";
        connection.execute(update, [&ttl.duration, &ttl.column, name])?;
        Ok(())
    }

    /// A process that came to read itself through others would never be done.
    pub(super) fn check_no_circle(
        &mut self,
        connection: &Connection,
        name: &str,
        successor: &str,
    ) -> Result<(), EngineError> {
        let all = self.all(connection)?;
        let successor = all.get(successor).into_iter();
        let reads = successor.flat_map(|process| &process.compiled.reads);
        let mut left: Vec<&String> = reads.collect();
        let mut seen = BTreeSet::new();
        while let Some(read) = left.pop() {
            if read == name {
                return Err(EngineError::Invalid(format!(
                    "{name:?} would read itself, through other processes"
                )));
            }
            if seen.insert(read) {
                left.extend(all.get(read).iter().flat_map(|process| &process.compiled.reads));
            }
        }
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        connection: &Connection,
        name: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        if let Some(reader) = self.reader_of(connection, name)? {
            return Err(EngineError::Conflict(format!("the process {reader:?} reads {name:?}")));
        }
        let process = self.all(connection)?.remove(name).ok_or_else(|| no_process(name))?;
        self.touched = true;
        process.drop_tables(connection)?;
        connection.execute("DELETE FROM fills WHERE process = ?", [process.number])?;
        connection.execute("DELETE FROM processes WHERE name = ?", [name])?;
        self.end(name);
        notices.push(Notice::Deleted(name.to_owned()));
        Ok(())
    }

    /// A process that reads `name`.
    fn reader_of(
        &mut self,
        connection: &Connection,
        name: &str,
    ) -> Result<Option<String>, EngineError> {
        let all = self.all(connection)?;
        let reader = all.iter().find(|(_, process)| process.compiled.reads.contains(name));
        Ok(reader.map(|(reader, _)| visible(reader).to_owned()))
    }

    /// The processes that have to be computed anew because `name` has changed.
    pub(super) fn outdate_readers_of(&self, name: &str) {
        for (reader, process) in self.loaded.iter().flatten() {
            if process.compiled.plan().is_none() && process.compiled.reads.contains(name) {
                self.schedule.outdated(reader);
            }
        }
    }

    /// A new process is committed.
    pub(super) fn created(&self, name: &str) {
        if let Some(process) = self.loaded.as_ref().and_then(|all| all.get(name)) {
            self.schedule(name, process);
        }
    }

    pub(super) fn outdated(&self, name: &str) {
        self.schedule.outdated(name);
    }
}

pub(super) fn no_process(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no process {name:?}"))
}

/// Gives a process the rows of a run, and another table if `*` has come to mean other columns.
fn update(
    connection: &Connection,
    process: &mut Process,
    run: Run,
    now: i64,
    changes: &mut ChangeRecords,
) -> Result<(), EngineError> {
    check_width(&run.columns)?;
    let by = same_row_by(&process.compiled.parsed()?);
    if process.compiled.columns != run.columns {
        let other = process.with_columns(run.columns);
        if other.compiled.columns.len() != process.compiled.columns.len() {
            process.replace(connection, Vec::new(), None, changes)?;
            process.drop_tables(connection)?;
            other.create_table(connection)?;
        }
        other.save(connection)?;
        *process = other;
    }
    let mut rows = run.rows;
    rows.retain(|row| !process.is_old(row, now));
    process.replace(connection, rows, by.as_deref(), changes)
}
