//! Queries: on connections of their own that can only read, and that are held to limits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, ErrorCode, Row, Statement, StatementStatus};
use serde_json::Value;

use super::catalogue::{Choice, Chosen, Tables};
use super::compiled::Compiled;
use super::error::query_error;
use super::functions::times::{self, Clock};
use super::objects::Objects;
use super::sandbox::{LARGEST_VALUE, Sandbox};
use super::{functions, schema, trial};
use crate::engine::{EngineError, Wanted};
use crate::settings::Limits;
use crate::sql::columns::{Column, unique};
use crate::sql::{Parsed, print, rewrite};

/// How many queries run at once; others wait for their turn.
pub(super) const READERS: usize = 4;

/// Connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) limits: Limits,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<Reader>,
    /// Of all of them.
    sandboxes: Vec<Sandbox>,
    ended: bool,
}

/// A reader on loan.
pub(super) struct Loan {
    readers: Arc<Readers>,
    reader: Option<Reader>,
}

impl Readers {
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, EngineError> {
        let idle: Vec<Reader> =
            (0..READERS).map(|_| Reader::open(path, limits)).collect::<Result<_, _>>()?;
        let sandboxes = idle.iter().map(|reader| reader.sandbox.clone()).collect();
        let state = Mutex::new(State { idle, sandboxes, ended: false });
        Ok(Self { limits, state, returned: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with a reader, as soon as there is one.
    pub(super) fn lend(self: &Arc<Self>) -> Result<Loan, EngineError> {
        let none = |state: &mut State| state.idle.is_empty() && !state.ended;
        let (mut state, _) = self
            .returned
            .wait_timeout_while(self.state(), self.limits.query_time, none)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Err(EngineError::Unavailable("the server is ending".to_owned()));
        }
        match state.idle.pop() {
            Some(reader) => {
                // A query that panicked may have left it.
                let reader = Reader { wanted: None, ..reader };
                Ok(Loan { readers: Arc::clone(self), reader: Some(reader) })
            }
            None => Err(EngineError::Unavailable("too many queries are running".to_owned())),
        }
    }

    /// How many readers are on loan.
    pub(super) fn lent(&self) -> usize {
        let state = self.state();
        if state.ended { 0 } else { READERS - state.idle.len() }
    }

    /// Ends the queries that run, and lends no more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        for sandbox in &state.sandboxes {
            sandbox.end();
        }
        state.idle.clear();
        drop(state);
        self.returned.notify_all();
    }
}

impl Loan {
    pub(super) fn reader(&mut self) -> Result<&mut Reader, EngineError> {
        self.reader.as_mut().ok_or_else(|| EngineError::Broken("there is no reader".to_owned()))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut state = self.readers.state();
        if !state.ended {
            state.idle.extend(self.reader.take());
        }
        drop(state);
        self.readers.returned.notify_one();
    }
}

/// One connection that reads.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    pub(super) limits: Limits,
    clock: Clock,
    sandbox: Sandbox,
    /// Ends what runs early.
    wanted: Option<Wanted>,
}

/// How a query went.
#[derive(Debug)]
pub(super) struct Effort {
    pub(super) columns: Vec<Column>,
    pub(super) steps: u64,
    /// The streams and processes that it read.
    pub(super) reads: BTreeSet<String>,
}

/// Why a query was not run.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: EngineError,
    /// It failed at something that it read, and not at what it is or takes.
    pub(super) at_an_event: bool,
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self { error, at_an_event: false }
    }
}

impl From<Failed> for EngineError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Reader {
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, EngineError> {
        let mut connection = schema::open_reader(path)?;
        let clock = times::install(&connection)?;
        connection.pragma_update(None, "cache_size", -8 * 1024)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        limit(&connection)?;
        let sandbox = Sandbox::install(&mut connection, false)?;
        functions::install(&connection, &sandbox)?;
        Ok(Self { connection, limits, clock, sandbox, wanted: None })
    }

    /// Runs a query and returns a JSON array of objects, and what it read, unless it is given up before.
    pub(super) fn json_while(
        &mut self,
        parsed: &Parsed,
        parameters: &[(String, Value)],
        wanted: &Wanted,
    ) -> Result<(Vec<u8>, BTreeSet<String>), EngineError> {
        self.wanted = Some(wanted.clone());
        let json = self.json(parsed, parameters);
        self.wanted = None;
        // Whatever it came to: an error would tell of a limit.
        if wanted.is_given_up() { Err(EngineError::unwanted()) } else { json }
    }

    fn json(
        &mut self,
        parsed: &Parsed,
        parameters: &[(String, Value)],
    ) -> Result<(Vec<u8>, BTreeSet<String>), EngineError> {
        let most = self.limits.query_bytes;
        let mut out = vec![b'['];
        let mut objects = None;
        let everything = Choice::default();
        let effort = self.run(parsed, parameters, &everything, |connection, columns, row| {
            let objects = objects.get_or_insert_with(|| Objects::new(columns));
            if out.len() > 1 {
                out.push(b',');
            }
            let values: Vec<_> =
                (0..columns.len()).map(|place| row.get_ref(place)).collect::<Result<_, _>>()?;
            // Before it is copied.
            if out.len() + values.iter().map(length).sum::<usize>() > most {
                return Err(too_large(most));
            }
            objects.write(connection, values, &mut out)?;
            if out.len() > most { Err(too_large(most)) } else { Ok(()) }
        })?;
        out.push(b']');
        Ok((out, effort.reads))
    }

    /// Gives back the pages that were read. They would lie between what a query needs only for a while, and the
    /// allocator could not give that back.
    pub(super) fn shrink(&self) {
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::warn!(%error, "a reader keeps its memory");
        }
    }

    /// Checks that a query could be run, with `parameters` or without.
    pub(super) fn check(&mut self, parsed: &Parsed, parameters: bool) -> Result<(), EngineError> {
        self.in_snapshot(|reader| {
            let runnable = rewrite::rewrite(parsed, &Tables { connection: &reader.connection })?;
            let _inside = reader.sandbox.enter(Some(Instant::now() + reader.limits.query_time));
            let statement = reader.connection.prepare(&runnable.sql).map_err(query_error)?;
            if !parameters && statement.parameter_count() > 0 {
                return Err(EngineError::Invalid("a process has no parameters".to_owned()));
            }
            Ok(())
        })
    }

    /// What a query would make of a process.
    pub(super) fn compile(&mut self, query: &str) -> Result<Compiled, EngineError> {
        self.in_snapshot(|reader| Compiled::new(query, &Tables { connection: &reader.connection }))
    }

    /// Tries what a process is to be over made-up events.
    pub(super) fn try_out(
        &mut self,
        compiled: &Compiled,
        parsed: &Parsed,
    ) -> Result<(), EngineError> {
        self.in_snapshot(|reader| {
            trial::of_process(compiled, parsed, &Tables { connection: &reader.connection })
        })
    }

    /// The streams that a query reads, with the places of their events.
    pub(super) fn streams(
        &mut self,
        parsed: &Parsed,
    ) -> Result<BTreeMap<String, Range<i64>>, EngineError> {
        self.in_snapshot(|reader| {
            let tables = Tables { connection: &reader.connection };
            let mut streams = BTreeMap::new();
            for name in rewrite::rewrite(parsed, &tables)?.reads {
                if let Some(places) = tables.places(&name)? {
                    streams.insert(name, places);
                }
            }
            Ok(streams)
        })
    }

    /// Runs a query over the events of a `choice` and hands its rows over one by one.
    pub(super) fn run(
        &mut self,
        parsed: &Parsed,
        parameters: &[(String, Value)],
        choice: &Choice,
        mut take: impl FnMut(&Connection, &[Column], &Row<'_>) -> Result<(), EngineError>,
    ) -> Result<Effort, Failed> {
        let Limits { query_time: time, query_rows: most, .. } = self.limits;
        self.clock.set_now();
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => EngineError::Invalid(format!(
                "the query takes more than {} ms, which is the most that is allowed",
                time.as_millis()
            )),
            Some(ErrorCode::OutOfMemory) => {
                EngineError::Invalid("the query takes more memory than there is for it".to_owned())
            }
            _ => query_error(error),
        };
        self.in_snapshot(|reader| {
            let Self { connection, sandbox, wanted, .. } = reader;
            let chosen = Chosen { tables: &Tables { connection }, choice };
            let runnable = rewrite::rewrite(parsed, &chosen)?;
            let _inside = sandbox.enter_while(Some(Instant::now() + time), wanted.clone());
            let mut statement = connection.prepare(&runnable.sql).map_err(failed)?;
            bind(&mut statement, parameters)?;
            let columns = columns(&statement, runnable.columns);
            let mut rows = statement.raw_query();
            let mut count = 0;
            while let Some(row) = rows.next().map_err(|error| Failed {
                at_an_event: !matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::OperationInterrupted | ErrorCode::OutOfMemory)
                ),
                error: failed(error),
            })? {
                count += 1;
                if count > most {
                    let why = format!("the result has more than {most} rows: use LIMIT");
                    return Err(EngineError::Invalid(why).into());
                }
                take(connection, &columns, row)?;
            }
            drop(rows);
            let steps = statement.get_status(StatementStatus::VmStep);
            let steps = steps.unsigned_abs().into();
            Ok(Effort { columns, steps, reads: runnable.reads })
        })
    }

    /// All that `work` reads is of one moment.
    fn in_snapshot<T, E: From<EngineError>>(
        &mut self,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.connection.execute_batch("BEGIN").map_err(EngineError::from)?;
        let result = work(self);
        self.connection.execute_batch("ROLLBACK").map_err(EngineError::from)?;
        result
    }
}

/// Bounds what a statement may be, and what it may make of a value.
pub(super) fn limit(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "trusted_schema", false)?;
    // "x" is a column, never a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    let largest = i32::try_from(LARGEST_VALUE).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, largest)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    // What a statement compiles to: a query of people has some thousands.
    connection.set_limit(Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000)?;
    Ok(())
}

fn length(value: &ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    }
}

pub(super) fn too_large(most: usize) -> EngineError {
    EngineError::Invalid(format!(
        "the result is larger than {most} bytes: ask for less, or use LIMIT"
    ))
}

/// SQLite knows the names better than anybody, once the statement is prepared.
fn columns(statement: &Statement<'_>, known: Option<Vec<Column>>) -> Vec<Column> {
    let names = statement.column_names();
    match known {
        Some(columns) if columns.len() == names.len() => columns,
        _ => {
            let column =
                |name: &str| Column { name: print::decode(name), boolean: false, time: false };
            unique(names.into_iter().map(column).collect())
        }
    }
}

/// Sets what stands for `:name`.
fn bind(statement: &mut Statement<'_>, given: &[(String, Value)]) -> Result<(), EngineError> {
    for place in 1..=statement.parameter_count() {
        let name = statement.parameter_name(place).unwrap_or("?").to_owned();
        let value = given
            .iter()
            .find(|(given, _)| name.strip_prefix([':', '@', '$']) == Some(given))
            .map(|(_, value)| value)
            .ok_or_else(|| {
                EngineError::Invalid(format!(
                    "the query has a parameter {name}, and no value for it"
                ))
            })?;
        match value {
            Value::Null => statement.raw_bind_parameter(place, Null)?,
            Value::Bool(flag) => statement.raw_bind_parameter(place, flag)?,
            Value::Number(number) => match number.as_i64() {
                Some(number) => statement.raw_bind_parameter(place, number)?,
                None => statement.raw_bind_parameter(place, number.as_f64())?,
            },
            Value::String(text) => statement.raw_bind_parameter(place, text)?,
            json => statement.raw_bind_parameter(place, json.to_string())?,
        }
    }
    Ok(())
}
