//! PostgreSQL as an engine, for any number of servers at once.
//!
//! * **Servers** hold nothing that another needs: every one can take events, answer queries and serve subscribers. All
//!   is in the schema `stride` of one database.
//! * **Events** are kept as the text that came. A transaction locks the row of each of its streams before it adds to
//!   it, so places have no holes, and are in the order of the commits.
//! * **Subscribers** are told by each server's follower, which reads by position what all servers committed. A
//!   notification only wakes it.
//! * **Queries** run by a login of their own, which needs nothing but to read, in a transaction that only reads, with a
//!   `statement_timeout`. Only known functions and types are let through. The keys of a stream become columns with
//!   types: `boolean`, `numeric` or `text` if all their values were that, else `jsonb`; `"$timestamp"` and
//!   `arrival_timestamp` are `timestamptz`.
//! * **Processes** that can be added to are, by one upsert in the transaction that stores the events, while it holds the
//!   lock of their stream. The others are run again when what they read has changed, at most once a second, by one
//!   server at a time: an advisory lock says which, and goes with its transaction. What changed is kept for ten minutes,
//!   in which every server reads it. When a key has other kinds of values than before, the columns of a process's table
//!   get another type. Where they cannot, it is made anew over all events that the stream still holds.
//! * **A process is filled** in slices, each a transaction that locks its row and not its stream. The row says how far it has
//!   come, so another server goes on when one dies. Events of that time are left to the fill. The last slice locks the
//!   stream, as an append does. Another query, or other columns, are those of a successor, which is out of sight until it
//!   takes the place of its process in that transaction.
//! * **Retention**: the row of a stream knows its oldest event and how much all of them take. An append lets go what it
//!   adds too much, while it holds that row. What is too old, rows past their `ttl`, events of deleted streams and changes
//!   that were read go by one server at a time, which holds an advisory lock for as long as its connection lasts.
//! * **Connections** are encrypted as their string says, and their number is bounded. A query that nobody waits for any
//!   longer is cancelled on the database. While that is away, one at a time tries to reach it, and the others are told at once.
//! * **Errors**: SQLSTATE classes 08, 25, 28, 3D, 53, 55, 57 and 58, and a database that cannot be reached, are
//!   `Unavailable`; a transaction that the database ended (40, or before its commit was asked for) is done again. A commit
//!   of which nobody knows whether it succeeded is `Unavailable`, too, and not done again.
//!
//! # What differs from SQLite
//!
//! * What a query means is the same but for what `docs/postgresql.md` lists, among it: numbers of events are `numeric`, so
//!   that half of 5 is 2.5 and fractions are exact; times are sent in UTC with six digits of a second.
//! * What a `\u0000` stands for in an event is a U+FFFD in queries. Subscribers get the event as it came.
//! * `max-open-mib` counts the events that streams hold, with their ids and indexes, and what all other tables take on
//!   the disk; a server measures it once a second. The names of keys have no bound but this one.
//! * A `ttl` and windows go by the clock of the database, the age of events by that of the server that stored them.
//! * A new process, or another query for one, is not forgotten when its server dies: another server fills it.
//! * A process that is made anew shows its old rows, as stale, until it has been given what is stored.
//! * A process over a window of time is run again, at most once a second, and says so in its `stats`.
//! * A process that is made anew because a key has another kind of value lacks what retention has taken from its stream,
//!   and says so.
//! * A column of a process has a name of at most 63 bytes.

mod connections;
mod error;
mod follow;
pub(crate) mod import;
mod inner;
mod pages;
mod process;
mod query;
mod retention;
mod schema;
mod storage;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde_json::Value;
use tokio::sync::oneshot;

use self::connections::Connections;
use self::follow::Follower;
use self::inner::{Counted, Inner, Snapshot};
use self::process::{Filled, Statements};
use self::query::Caller;
use self::sweep::Sweeper;
use crate::engine::position::Position;
use crate::engine::{
    Author, Change, Commit, Definition, Deliver, Engine, EngineCounters, EngineError, Listener,
    Overview, Page, PageLimit, ProcessStats, Rows, Start, Summary, Wanted,
};
use crate::events::batch::Batch;
use crate::events::ids::EventId;
use crate::events::timestamp;
use crate::pool::Pool;
use crate::settings::Limits;
use crate::sql::{self, postgresql, print};

/// What every connection sets, so that nothing depends on the settings of a login.
const SETTINGS: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET extra_float_digits = 1;
    SET standard_conforming_strings = on; SET search_path = pg_catalog, stride;
    SET plan_cache_mode = force_custom_plan;";

/// How many requests one server works on at once: each takes a connection.
const WRITERS: usize = 8;

/// How many queries one server runs at once.
const READERS: usize = 4;

/// How long a transaction waits for a lock.
const LOCKED: Duration = Duration::from_secs(20);

/// How long the database keeps the locks of a transaction whose server has stopped in the middle of it.
const IDLE: Duration = Duration::from_secs(60);

/// How long to wait for another server that fills a process.
const BUSY: Duration = Duration::from_millis(50);

/// Fills two pages.
const PROBE: &str = "INSERT INTO stride.probe SELECT repeat('x', 1900) FROM generate_series(1, 8)";

/// Events, processes and saved queries in a PostgreSQL database.
pub(crate) struct Postgres {
    inner: Arc<Inner>,
    background: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects to a database, and makes the tables that are not there yet. `reader`: the login of queries, if it is
    /// not the same.
    pub(crate) fn open(
        database: &str,
        reader: Option<&str>,
        limits: &Limits,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Self> {
        let (database, reader) = (database.to_owned(), reader.map(str::to_owned));
        let limits = *limits;
        std::thread::scope(|scope| {
            // The driver has a runtime of its own, which cannot be used inside of another.
            let open = || Self::open_here(&database, reader.as_deref(), limits, listener);
            let opening = std::thread::Builder::new()
                .name("stride-local-open".to_owned())
                .spawn_scoped(scope, open)?;
            opening
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("opening the database panicked")))
        })
    }

    fn open_here(
        database: &str,
        reader: Option<&str>,
        limits: Limits,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Self> {
        let (lock, idle) = (LOCKED.as_millis(), IDLE.as_millis());
        let writes = format!(
            "{SETTINGS} SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {idle};"
        );
        let storage = Connections::that_write(database, writes)?;
        let timeout = limits.query_time.as_millis().max(1);
        let only_reads = format!(
            "{SETTINGS} SET statement_timeout = {timeout}; SET default_transaction_read_only = on;"
        );
        let readers = match reader {
            Some(reader) => Connections::new(reader, only_reads)?,
            // Not to a standby, which lags behind.
            None => Connections::that_write(database, only_reads)?,
        };
        let mut first = storage.connect().map_err(io::Error::other)?;
        let drawn = schema::create(&mut first).map_err(io::Error::other)?;
        if import::is_under_way(&mut first).map_err(io::Error::other)? {
            let why =
                "a file is being copied to the database, which is not done: run the copy again";
            return Err(io::Error::other(why));
        }
        storage.put_back(first);
        if let Some(role) = readers.user().filter(|role| storage.user() != Some(role)) {
            let role = print::name(role);
            let grant = format!(
                "GRANT USAGE ON SCHEMA stride TO {role};
                 GRANT SELECT ON ALL TABLES IN SCHEMA stride TO {role};
                 ALTER DEFAULT PRIVILEGES IN SCHEMA stride GRANT SELECT ON TABLES TO {role}"
            );
            storage
                .transaction(|transaction| {
                    schema::lock_names(transaction)?;
                    Ok(transaction.batch_execute(&grant)?)
                })
                .map_err(io::Error::other)?;
        }
        readers
            .with(|client| client.batch_execute("SELECT FROM stride.events WHERE false"))
            .map_err(io::Error::other)?;
        let inner = Arc::new(Inner {
            storage,
            readers,
            writers: Pool::start("writer", WRITERS, sql::STACK)?,
            threads: Pool::start("query", READERS, sql::STACK)?,
            // As many as can run: one that does not end must not keep others from it.
            cancels: Pool::start("cancel", READERS, sql::STACK)?,
            drawn,
            limits,
            listener,
            counted: Counted::default(),
            statements: Statements::default(),
            keys: Mutex::new(HashMap::new()),
            room: Mutex::default(),
            snapshots: Mutex::default(),
            work: Mutex::default(),
            changed: Condvar::new(),
        });
        let follower = Follower::new(&inner).map_err(io::Error::other)?;
        let engine = Self { inner: Arc::clone(&inner), background: Mutex::default() };
        let thread = |name: &str| {
            let thread = std::thread::Builder::new().name(format!("stride-local-{name}"));
            thread.stack_size(sql::STACK)
        };
        let following = Arc::clone(&inner);
        let follower = thread("follower").spawn(move || follower.work(&following))?;
        engine.background().push(follower);
        let sweeping = Arc::clone(&inner);
        let sweeper = move || Sweeper::default().work(&sweeping);
        engine.background().push(thread("sweeper").spawn(sweeper)?);
        let filling = Arc::clone(&inner);
        engine.background().push(thread("filler").spawn(move || filling.fill())?);
        engine.background().push(thread("process").spawn(move || inner.rerun())?);
        Ok(engine)
    }

    fn background(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a process what it lacks of the stored events, slice by slice, and returns whether it was there until the end.
    fn fill(&self, number: i64, mut filled: Filled) -> Result<bool, EngineError> {
        loop {
            let is_last = match filled {
                Filled::Partly => false,
                Filled::Nearly => true,
                Filled::Busy => {
                    self.inner.pause(BUSY);
                    false
                }
                Filled::Whole(_) => return Ok(true),
                Filled::Gone => return Ok(false),
            };
            let fill = move |inner: &Arc<Inner>| inner.fill_some(number, is_last);
            filled = self.inner.wait_for(|inner| &inner.writers, fill)?;
        }
    }

    fn names(&self, sql: &'static str) -> Result<Vec<String>, EngineError> {
        self.inner.transaction(|transaction| {
            let rows = transaction.query(sql, &[])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.close();
    }
}

fn no_stream(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no stream {name:?}"))
}

/// A process did not stay until it had what was stored.
fn gone(process: &str) -> EngineError {
    EngineError::Conflict(format!("{process:?} was deleted or changed before it was filled"))
}

fn no_query(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no saved query {name:?}"))
}

impl Engine for Postgres {
    fn append(&self, mut batches: Vec<(String, Batch)>, author: Author) -> Commit {
        let (done, commit) = oneshot::channel();
        let done = Arc::new(Mutex::new(Some(done)));
        let answer = |done: &Mutex<Option<oneshot::Sender<_>>>, result| {
            let done = done.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The caller may have hung up.
            drop(done.map(|done| done.send(result)));
        };
        let told = Arc::clone(&done);
        let run = self.inner.run(
            |inner| &inner.writers,
            move |inner| {
                let result = inner.append(&mut batches, author, &timestamp::now());
                if let Err(error) = &result {
                    inner.failed(error);
                }
                answer(&told, result);
                inner.listener.progressed();
            },
        );
        if let Err(error) = run {
            answer(&done, Err(error));
        }
        commit
    }

    fn streams(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM stride.streams ORDER BY name")
    }

    fn stream(&self, name: &str) -> Result<Summary, EngineError> {
        let stream = name.to_owned();
        let summary = self.inner.transaction(move |transaction| {
            let select =
                "SELECT next - 1, first_seen, last_seen FROM stride.streams WHERE name = $1";
            let row = transaction.query_opt(select, &[&stream])?;
            Ok(row.map(|row| Summary {
                count: row.get::<_, i64>(0).unsigned_abs(),
                first_seen: row.get(1),
                last_seen: row.get(2),
            }))
        })?;
        summary.ok_or_else(|| no_stream(name))
    }

    fn delete_stream(&self, name: &str) -> Result<(), EngineError> {
        let stream = name.to_owned();
        self.inner.transaction(move |transaction| {
            let deleted = storage::delete(transaction, &stream)?;
            let (number, changed) = deleted.ok_or_else(|| no_stream(&stream))?;
            inner::notify(transaction, &[number], &changed)
        })
    }

    fn position(&self, stream: &str, start: Start<'_>) -> Result<Position, EngineError> {
        let (stream, drawn) = (stream.to_owned(), self.inner.drawn);
        let after: Option<EventId> =
            if let Start::After(id) = start { Some(id.clone()) } else { None };
        let is_oldest = matches!(start, Start::Oldest);
        self.inner.transaction(move |transaction| {
            let start = match &after {
                Some(id) => Start::After(id),
                None if is_oldest => Start::Oldest,
                None => Start::Newest,
            };
            pages::position(transaction, drawn, &stream, start)
        })
    }

    fn events_after(
        &self,
        stream: &str,
        position: Position,
        most: PageLimit,
    ) -> Result<Page, EngineError> {
        let (stream, drawn) = (stream.to_owned(), self.inner.drawn);
        self.inner.transaction(move |transaction| {
            pages::after(transaction, drawn, &stream, position, most)
        })
    }

    fn snapshot(&self, process: &str, most: usize, deliver: Deliver) -> Result<(), EngineError> {
        let process = process.to_owned();
        self.inner.wait_for(
            |inner| &inner.writers,
            move |inner| {
                let (done, is_done) = mpsc::sync_channel(1);
                inner.snapshots().push(Snapshot { process, most, deliver, done });
                inner.wake()?;
                is_done.recv().map_err(|_| inner::ended())?
            },
        )
    }

    fn create_process(&self, name: &str, definition: &Definition) -> Result<(), EngineError> {
        let process = name;
        let (name, Definition { query, ttl }) = (name.to_owned(), definition.clone());
        let limits = self.inner.limits;
        let (number, filled) = self.inner.transaction(move |transaction| {
            let number = process::create(transaction, &name, &query, &limits)?;
            process::set_ttl(transaction, number, ttl.as_ref())?;
            // At once, if that is little.
            let filled = process::finish(transaction, &limits, number)?;
            inner::tell(transaction, number)?;
            Ok((number, filled))
        })?;
        match self.fill(number, filled)? {
            true => Ok(()),
            false => Err(gone(process)),
        }
    }

    fn processes(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM stride.processes WHERE successor_of IS NULL ORDER BY name")
    }

    fn process(&self, name: &str) -> Result<Definition, EngineError> {
        let process = name.to_owned();
        let definition = self.inner.transaction(move |transaction| {
            let select = "SELECT number, query FROM stride.processes WHERE name = $1";
            let Some(row) = transaction.query_opt(select, &[&process])? else { return Ok(None) };
            let ttl = process::ttl(transaction, row.get(0))?;
            Ok(Some(Definition { query: row.get(1), ttl }))
        })?;
        definition.ok_or_else(|| process::no_process(name))
    }

    fn process_stats(&self, name: &str) -> Result<ProcessStats, EngineError> {
        let name = name.to_owned();
        let (number, mut stats) =
            self.inner.transaction(move |transaction| process::stats(transaction, &name))?;
        self.inner.counted.add_to(number, &mut stats);
        Ok(stats)
    }

    fn change_process(&self, name: &str, change: &Change) -> Result<(), EngineError> {
        let process = name;
        let (name, Change { query, ttl }) = (name.to_owned(), change.clone());
        let limits = self.inner.limits;
        let successor = self.inner.transaction(move |transaction| {
            let successor = match &query {
                Some(query) => process::change(transaction, &name, query, &limits)?,
                None => None,
            };
            let number = match successor {
                Some(number) => number,
                None => process::find(transaction, &name)?.number,
            };
            process::set_ttl(transaction, number, ttl.as_ref())?;
            let Some(number) = successor else { return Ok(None) };
            // At once, if that is little.
            let filled = process::finish(transaction, &limits, number)?;
            if let Filled::Whole(process) = filled {
                inner::tell(transaction, process)?;
            }
            Ok(Some((number, filled)))
        })?;
        let Some((number, filled)) = successor else { return Ok(()) };
        // Another server may have done the rest.
        if self.fill(number, filled)? || Some(self.process(process)?.query) == change.query {
            return Ok(());
        }
        Err(gone(process))
    }

    fn delete_process(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.inner.transaction(move |transaction| {
            let number = process::delete(transaction, &name)?;
            inner::tell(transaction, number)
        })
    }

    fn save_query(&self, name: &str, query: &str) -> Result<(), EngineError> {
        let (name, query) = (name.to_owned(), query.to_owned());
        self.inner.wait_for(
            |inner| &inner.threads,
            move |inner| {
                inner.storage.transaction(|transaction| query::save(transaction, &name, &query))
            },
        )
    }

    fn saved_queries(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM stride.queries ORDER BY name")
    }

    fn saved_query(&self, name: &str) -> Result<String, EngineError> {
        let query = name.to_owned();
        let found = self.inner.transaction(move |transaction| {
            let select = "SELECT query FROM stride.queries WHERE name = $1";
            Ok(transaction.query_opt(select, &[&query])?.map(|row| row.get(0)))
        })?;
        found.ok_or_else(|| no_query(name))
    }

    fn delete_query(&self, name: &str) -> Result<(), EngineError> {
        let query = name.to_owned();
        let deleted = self.inner.transaction(move |transaction| {
            Ok(transaction.execute("DELETE FROM stride.queries WHERE name = $1", &[&query])?)
        })?;
        if deleted > 0 { Ok(()) } else { Err(no_query(name)) }
    }

    fn query_while(
        &self,
        sql: &str,
        parameters: &[(String, Value)],
        wanted: &Wanted,
    ) -> Result<Rows, EngineError> {
        let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
        let (caller, result) = Caller::new();
        let (waiting, inner) = (caller.clone(), Arc::clone(&self.inner));
        wanted.when_given_up(move || {
            if waiting.stop_waiting() {
                let engine = Arc::clone(&inner);
                inner.cancels.run(move || waiting.cancel(|query| engine.readers.cancel(query)));
            }
        });
        let caller = caller.held();
        self.inner.run(
            |inner| &inner.threads,
            move |inner| {
                // It may have waited for its turn.
                if !caller.waits() {
                    return;
                }
                let counted = &inner.counted;
                let start = Instant::now();
                counted.running.fetch_add(1, Ordering::Relaxed);
                let rows = postgresql::parse(&sql, &parameters)
                    .and_then(|parsed| query::run(&inner.readers, &inner.limits, &parsed, &caller));
                counted.running.fetch_sub(1, Ordering::Relaxed);
                counted.queries.fetch_add(1, Ordering::Relaxed);
                counted.failed_queries.fetch_add(u64::from(rows.is_err()), Ordering::Relaxed);
                let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                counted.query_micros.fetch_add(micros, Ordering::Relaxed);
                if let Err(error) = &rows {
                    inner.failed(error);
                }
                caller.tell(rows);
            },
        )?;
        result.recv().unwrap_or_else(|_| Err(inner::ended()))
    }

    fn overview(&self) -> Result<Overview, EngineError> {
        let (streams, bytes, processes) = self.inner.transaction(|transaction| {
            let select = "SELECT name, next - 1, first_seen, last_seen FROM stride.streams
                ORDER BY name";
            let streams = transaction.query(select, &[])?;
            let streams = streams.iter().map(|row| {
                let count = row.get::<_, i64>(1).unsigned_abs();
                (row.get(0), Summary { count, first_seen: row.get(2), last_seen: row.get(3) })
            });
            let streams = streams.collect::<Vec<_>>();
            let bytes = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
                FROM pg_class WHERE relnamespace = 'stride'::regnamespace AND relkind = 'r'";
            let bytes: i64 = transaction.query_one(bytes, &[])?.get(0);
            Ok((streams, bytes.unsigned_abs(), process::all(transaction)?))
        })?;
        let processes = processes.into_iter().map(|(number, name, definition, mut stats)| {
            self.inner.counted.add_to(number, &mut stats);
            (name, definition, stats)
        });
        Ok(Overview { kept: true, bytes, streams, processes: processes.collect() })
    }

    fn health(&self) -> Result<(), EngineError> {
        self.inner.wait_for(
            |inner| &inner.writers,
            |inner| {
                inner.storage.with(|client| {
                    let mut transaction = client.transaction()?;
                    // Only what takes room tells whether there is any left.
                    transaction.batch_execute(PROBE)?;
                    transaction.rollback()?;
                    Ok(())
                })
            },
        )
    }

    fn counters(&self) -> EngineCounters {
        self.inner.counted.read()
    }

    fn close(&self) {
        self.inner.close();
        let background = std::mem::take(&mut *self.background());
        if background.is_empty() {
            return;
        }
        let inner = &self.inner;
        let end = move || {
            // Without it, the follower wakes a moment later.
            drop(inner.wake());
            let joined =
                background.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
            inner.storage.close();
            inner.readers.close();
            joined
        };
        let panicked = std::thread::scope(|scope| scope.spawn(end).join());
        if !matches!(panicked, Ok(0)) {
            tracing::error!("a thread of the engine panicked");
        }
    }
}
