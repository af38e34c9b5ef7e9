//! The engine keeps events, keeps processes up to date and answers queries. It knows no HTTP.
//!
//! The rest of the server knows of its database only one narrow trait, `Engine`. [SQLite](sqlite) is behind
//! it, or PostgreSQL with the feature `postgres`. This page says how another database would take its place.
//!
//! # With a database that keeps views itself
//!
//! Any engine has to pass the tests of `engine/contract`, which are generic over the trait.
//! RisingWave and Materialize speak PostgreSQL's protocol and keep continuous views. What the trait
//! asks for maps to them so:
//!
//! | the trait | with RisingWave or Materialize |
//! |---|---|
//! | `append` | `COPY` or a multi-row `INSERT` into a table `events_NAME (id, at, event jsonb)`, one transaction for all streams of a request; RisingWave: then `FLUSH`, so that 200 means stored |
//! | an `$id` that is known | the primary key of that table, with `ON CONFLICT DO NOTHING` (RisingWave), or a lookup before the insert (Materialize) |
//! | `events_after` | a `place` beside the `$id`, from a row of a table `streams` that the transaction of `append` has locked; `WHERE place > $1 ORDER BY place LIMIT` |
//! | a stream as a relation | the same rewriting, with `event ->> 'key'` in the place of `jsonb_extract`; the columns that a stream has had are kept in a table of ours |
//! | `create_process` | `CREATE MATERIALIZED VIEW name AS` the rewritten query; every process is incremental then, joins and windows included, and `stats` says so |
//! | `now() - INTERVAL` | a temporal filter: `mz_now()`, or RisingWave's `now()` in a `WHERE` |
//! | `snapshot` | what that subscription begins with |
//! | `changed` | `SUBSCRIBE (view) ENVELOPE UPSERT` (Materialize), or `CREATE SUBSCRIPTION` and a cursor (RisingWave), one connection for all subscribers of a process; an update is a pair of old and new row of one timestamp |
//! | `stored` | by ourselves, after the commit: the events are at hand |
//! | `query` | `SELECT` as a role that may only read, with `statement_timeout`; rows as text with `row_to_json` |
//! | `change_process` | a new view under another name, then `ALTER ... RENAME`, or `SWAP` |
//! | retention, `ttl` | a temporal filter in the view; `DELETE` of old events by a task of ours |
//! | saved queries | a table of ours |
//! | `EngineError` | by SQLSTATE: class 42 is `Invalid`, 08, 53 and 57 are `Unavailable` |
//!
//! Two things would change for users: SQL is PostgreSQL's, and a process would follow its streams a
//! moment after the commit instead of with it.

#[cfg(test)]
mod contract;
pub(crate) mod position;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "postgres")]
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::oneshot;

use self::position::Position;
use crate::events::batch::Batch;
use crate::events::ids::EventId;
use crate::events::timestamp;
use crate::sql::times;
use crate::subscribers::records::Records;

/// Why the engine did not do what it was asked to. The message is for the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or others depend on what is there.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense, or takes more than a query may take.
    #[error("{0}")]
    Invalid(String),
    /// The storage cannot be used now: the disk is full, the file is locked. Nothing was changed, and
    /// asking again later helps.
    #[error("{0}")]
    Unavailable(String),
    /// What was to be gone on from is no more.
    #[error("{0}")]
    Gone(String),
    /// There is no room for what is new, until something is deleted. Nothing was changed.
    #[error("{0}")]
    Full(String),
    /// The database is damaged, which does not pass. Nothing was changed.
    #[error("{0}")]
    Damaged(String),
    /// The engine itself failed.
    #[error("{0}")]
    Broken(String),
}

impl EngineError {
    /// A query ended because its result was no longer wanted.
    pub(crate) fn unwanted() -> Self {
        Self::Invalid("the result of this query is no longer wanted".to_owned())
    }

    /// Whether this is a failure, and not an error of whoever asked.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Damaged(_) | Self::Broken(_))
    }
}

/// Becomes known once a transaction is over. It can be awaited, and waited for.
pub(crate) type Commit = oneshot::Receiver<Result<(), EngineError>>;

/// Who adds events: some may add less than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// The bearer of the secret key.
    Trusted,
    /// The bearer of the open key, who may be anybody.
    Anybody,
}

/// What there is to say about one stream.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many events were ever stored.
    pub(crate) count: u64,
    /// When its first and its last event were stored, RFC 3339 in UTC.
    pub(crate) first_seen: String,
    pub(crate) last_seen: String,
}

/// Where to begin to read a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Before the oldest event that it still holds.
    Oldest,
    /// After the newest one that is committed.
    Newest,
    /// After the one with this `$id`.
    After(&'a EventId),
}

/// How much a page may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimit {
    pub(crate) events: usize,
    /// Of their text, with delimiters.
    pub(crate) bytes: usize,
}

/// Events that follow on each other.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// None: there are no more for now.
    pub(crate) events: Records,
    /// How many came before them, after the position that was asked for, and are no longer held.
    pub(crate) missing: u64,
    /// Where to go on.
    pub(crate) end: Position,
}

/// A process as it was asked for. Its action is always `MATERIALIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) query: String,
    pub(crate) ttl: Option<Ttl>,
}

/// Rows go once the time in `column` is older than `duration`, as in `1 day` or `90 minutes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ttl {
    pub(crate) duration: String,
    pub(crate) column: String,
}

impl Ttl {
    /// The place of its column among those of a process, and how old a row may get, in microseconds.
    pub(crate) fn of<'a>(
        &self,
        mut columns: impl Iterator<Item = &'a str>,
    ) -> Result<(usize, i64), EngineError> {
        let micros = times::duration(&self.duration)?;
        if micros <= 0 {
            return Err(EngineError::Invalid("a ttl lasts longer than nothing".to_owned()));
        }
        let column = columns.position(|column| column == self.column);
        let column = column.ok_or_else(|| {
            EngineError::Invalid(format!("the query has no column {:?} for the ttl", self.column))
        })?;
        Ok((column, micros))
    }
}

/// What to change of a process; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) query: Option<String>,
    pub(crate) ttl: Option<Ttl>,
}

/// How a process is kept up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Each event is added to the result: what it costs does not depend on those before it.
    Incremental,
    /// The query is run again, at a bounded rate, when what it reads has changed.
    Recomputed,
}

/// How a process fares. Counts are since the server started, but `rows`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProcessStats {
    pub(crate) mode: Mode,
    /// Why its query is run again.
    pub(crate) why: Option<String>,
    /// How long the steps are in which a window forgets what has left it, in milliseconds.
    pub(crate) step_ms: Option<u64>,
    /// While it has not been given all events that were stored before it.
    pub(crate) filling: Option<Filling>,
    /// Rows that it has now, with groups that its `HAVING` leaves out.
    pub(crate) rows: u64,
    /// Events of its streams that it has been given.
    pub(crate) events: u64,
    /// Events that its query failed at and that it therefore lacks.
    pub(crate) skipped: u64,
    /// Steps of the database's virtual machine, if it has one.
    pub(crate) steps: u64,
    /// How often its query was run, and how long that took the last time, in milliseconds.
    pub(crate) runs: u64,
    pub(crate) last_run_ms: u64,
    /// What last went wrong.
    pub(crate) last_error: Option<String>,
    /// Its rows are those of an earlier run, because later ones failed, and since when, RFC 3339 in UTC.
    pub(crate) stale: bool,
    pub(crate) stale_since: Option<String>,
}

/// How far a process has been given the events that were stored before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Filling {
    pub(crate) given: u64,
    pub(crate) of: u64,
}

impl ProcessStats {
    pub(crate) fn new(mode: Mode) -> Self {
        let (why, step_ms, filling) = (None, None, None);
        let (rows, events, skipped, steps, runs, last_run_ms) = (0, 0, 0, 0, 0, 0);
        let (last_error, stale, stale_since) = (None, false, None);
        Self {
            mode,
            why,
            step_ms,
            filling,
            rows,
            events,
            skipped,
            steps,
            runs,
            last_run_ms,
            last_error,
            stale,
            stale_since,
        }
    }

    /// Its rows are stale from now on, or no longer are.
    pub(crate) fn set_stale(&mut self, stale: bool) {
        self.stale = stale;
        self.stale_since = match self.stale_since.take() {
            since if stale => Some(since.unwrap_or_else(timestamp::now)),
            _ => None,
        };
    }
}

/// Everything that there is.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    /// Whether it outlives the server.
    pub(crate) kept: bool,
    /// How much the database takes on the disk.
    pub(crate) bytes: u64,
    /// By name.
    pub(crate) streams: Vec<(String, Summary)>,
    pub(crate) processes: Vec<(String, Definition, ProcessStats)>,
}

/// Figures for operators, counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCounters {
    pub(crate) events: u64,
    pub(crate) transactions: u64,
    /// Transactions and queries that the storage failed at.
    pub(crate) storage_errors: u64,
    pub(crate) queries: u64,
    pub(crate) failed_queries: u64,
    pub(crate) query_micros: u64,
    /// Events that processes lack because their queries failed at them.
    pub(crate) skipped_events: u64,
    /// Processes that show an old result because later runs failed.
    pub(crate) stale_processes: usize,
    /// Processes that keep up with every event, and those whose query is run again.
    pub(crate) incremental_processes: usize,
    pub(crate) recomputed_processes: usize,
    /// Those that have not been given all events that were stored before them.
    pub(crate) filling_processes: usize,
    /// Queries that run now, those of processes included.
    pub(crate) running_queries: usize,
}

/// Is told what was committed, in the order of the transactions, by the thread that wrote: it must
/// not wait for anything.
pub(crate) trait Listener: Send + Sync + fmt::Debug {
    /// So many events were added to `stream`.
    fn added(&self, stream: &str, events: u64);
    /// These events were added to `stream`, after `position`.
    fn stored(&self, stream: &str, position: Position, events: &Records);
    /// Whether anybody wants to know what is added to `stream`: an engine that has to read it need not tell others.
    #[cfg(feature = "postgres")]
    fn wants_events(&self, _stream: &str) -> bool {
        true
    }
    /// Whether anybody wants to know what changes in `process`.
    fn wants_changes(&self, process: &str) -> bool;
    /// Rows of `process` changed: objects with `old` and `new`.
    fn changed(&self, process: &str, changes: &Records);
    /// Rows of `process` changed, and nobody noted which.
    fn changed_unseen(&self, process: &str);
    /// The process is no more.
    fn process_deleted(&self, process: &str);
    /// A transaction is over, one way or the other.
    fn progressed(&self);
}

/// Takes the rows of a process, which are told of like changes. It must not wait for anything.
pub(crate) type Deliver = Box<dyn FnOnce(Records) + Send>;

/// Whether the result of a query is still wanted, which the query asks while it runs, or is told.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    given_up: Arc<AtomicBool>,
    /// Called when it is given up.
    #[cfg(feature = "postgres")]
    calls: Arc<Mutex<Calls>>,
}

#[cfg(feature = "postgres")]
type Calls = Vec<Box<dyn FnOnce() + Send>>;

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("given_up", &self.is_given_up()).finish_non_exhaustive()
    }
}

impl Wanted {
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        #[cfg(feature = "postgres")]
        for call in std::mem::take(&mut *self.calls()) {
            call();
        }
    }

    /// Has `call` called once it is given up, at once if it was. It must not wait for anything.
    #[cfg(feature = "postgres")]
    pub(crate) fn when_given_up(&self, call: impl FnOnce() + Send + 'static) {
        self.calls().push(Box::new(call));
        // Should it have been given up just before.
        if self.is_given_up() {
            self.give_up();
        }
    }

    #[cfg(feature = "postgres")]
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

/// The result of a query.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// A JSON array of objects.
    pub(crate) json: Bytes,
    /// The processes that it comes from and whose own rows are of an earlier run than they should be.
    pub(crate) stale: Vec<String>,
}

/// A database for one server. All methods but `append` may block for as long as a query may take.
///
/// Streams and processes share one namespace, and the names are checked by the caller.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    /// Adds events to streams in one transaction: all of them or none, but for those whose `$id`
    /// their stream still remembers. Once the commit is known to have succeeded, nothing but the loss of
    /// the storage itself can lose them.
    fn append(&self, batches: Vec<(String, Batch)>, author: Author) -> Commit;

    /// The names of the streams, sorted.
    fn streams(&self) -> Result<Vec<String>, EngineError>;
    fn stream(&self, name: &str) -> Result<Summary, EngineError>;
    fn delete_stream(&self, name: &str) -> Result<(), EngineError>;
    /// Where to begin to read a stream, which need not be there yet. If its `$id` is not known, it is `Gone`.
    fn position(&self, stream: &str, start: Start<'_>) -> Result<Position, EngineError>;
    /// Committed events after a position, in order: as many as `most` allows, but at least one if there is any. A
    /// position of another storage or stream than this one, or of an event that never was, is `Gone`.
    fn events_after(
        &self,
        stream: &str,
        position: Position,
        most: PageLimit,
    ) -> Result<Page, EngineError>;

    /// Delivers all rows of a process, between what was told of its changes before and what will be told: each is
    /// new. `Invalid` if they take more than so many bytes.
    fn snapshot(&self, process: &str, most: usize, deliver: Deliver) -> Result<(), EngineError>;

    /// Starts a process over what is stored and what will be.
    fn create_process(&self, name: &str, definition: &Definition) -> Result<(), EngineError>;
    /// The names of the processes, sorted.
    fn processes(&self) -> Result<Vec<String>, EngineError>;
    fn process(&self, name: &str) -> Result<Definition, EngineError>;
    fn process_stats(&self, name: &str) -> Result<ProcessStats, EngineError>;
    /// A new query starts anew, over what is stored, and takes the place of the old one when it has been given all of it.
    /// The query and the `ttl` that the process has change nothing.
    fn change_process(&self, name: &str, change: &Change) -> Result<(), EngineError>;
    fn delete_process(&self, name: &str) -> Result<(), EngineError>;

    /// Saves a query, in place of one of the same name. Its SQL is checked.
    fn save_query(&self, name: &str, query: &str) -> Result<(), EngineError>;
    /// The names of the saved queries, sorted.
    fn saved_queries(&self) -> Result<Vec<String>, EngineError>;
    fn saved_query(&self, name: &str) -> Result<String, EngineError>;
    fn delete_query(&self, name: &str) -> Result<(), EngineError>;

    /// Runs one `SELECT` and returns a JSON array of objects. `parameters` stand in for `:name` in
    /// the query; those that it does not name are ignored. It ends early, with an error, once the result is no longer wanted.
    fn query_while(
        &self,
        sql: &str,
        parameters: &[(String, Value)],
        wanted: &Wanted,
    ) -> Result<Rows, EngineError>;

    /// The same, to its end.
    fn query(&self, sql: &str, parameters: &[(String, Value)]) -> Result<Rows, EngineError> {
        self.query_while(sql, parameters, &Wanted::default())
    }

    /// All streams and processes.
    fn overview(&self) -> Result<Overview, EngineError>;

    /// Whether the storage can be written to and read from now, and nothing damaged has been found in it.
    fn health(&self) -> Result<(), EngineError>;
    fn counters(&self) -> EngineCounters;
    /// Ends the engine's threads once everything that was appended is committed. What comes
    /// later is `Unavailable`.
    fn close(&self);
}

/// What the server holds: it does not care which one.
pub(crate) type SharedEngine = Arc<dyn Engine>;
