//! SQLite as an engine: one thread writes, others read.
//!
//! * **Streams.** All events are in one table, as the text that came, under a key of stream and
//!   place in the stream. A stream costs one row, so 10,000 of them in one request are cheap. There
//!   may be 100,000.
//! * **Writes** are made by one thread. Requests that wait while it commits share the next
//!   transaction, and each has a savepoint in it, so that one that is refused leaves the others alone.
//!   With a file ([`Builder::data`](crate::Builder::data)) a commit is synced to the disk before it is
//!   answered: neither the end of the process nor that of the machine loses what had the response
//!   200, if the disk does what it says. Without one, a database in a temporary folder is never
//!   synced, and loses its name as soon as it is open, so that nothing is left behind.
//! * **Retention.** A stream keeps its last events, by count, bytes and age; the oldest go when new
//!   ones come, and old ones every ten seconds, at most 20,000 at once.
//! * **Queries** run on four connections that can only read, each on a snapshot, so that they and
//!   the writer do not wait for each other. They are parsed and rewritten: the name of a stream
//!   becomes that of a part before the query, which gives those of its keys that the query mentions, the name of a
//!   process that of one over its rows. Names and literals are quoted here, what is printed is parsed again and
//!   has to be the same, and the connection refuses to read events and rows anywhere but in these parts. Keys are told apart by case, and `*` is the first 1,000 keys that a stream has
//!   had. Objects and arrays are JSON in SQLite's binary form until they are sent, so `->`,
//!   `->>` and `json_each` work on them. A key that has only had `true` and `false` is sent as
//!   that, and in SQL is 1 or 0. A query is held to limits of
//!   time, of rows and bytes of result, and no value may be larger than 4 MiB.
//! * **Times** are texts, as in RFC 3339. `now()`, `date_trunc(unit, time)`, `TIMESTAMP '...'` and
//!   adding and taking away an `INTERVAL` give them in UTC and in one length. Each mention of
//!   a time is given a collation that compares times. The tables have none of it, so that other programs can read them.
//! * **Windows**, which is a condition that `"$timestamp"` or `arrival_timestamp` is after some moment, read only
//!   blocks of 1,024 events in which there is a time after it. An index of every event would cost much of what storing it does.
//! * **Processes** with a query of one stream that aggregates with `count`, `sum`, `min`, `max`,
//!   `avg` or `total`, with or without `GROUP BY` and `WHERE`, are *incremental*: in the transaction
//!   that stores events, these alone are aggregated, and the result is merged into one row for each
//!   group. Sums of fractions may differ in their last digits from those of another order. An event
//!   that the query fails at, or takes too long for, is left out, and counted. The events that were stored before
//!   the process are given to it in slices, between which others write.
//! * Over a **window that ends now** these are kept as a row for each step and group, in this order, where a step is a twentieth of the
//!   window. An event goes to its own step; what leaves is one range, which is deleted at once or, if there are subscribers, in
//!   slices of groups, whose rows before and after are looked up in every step. Who reads it merges the steps of each
//!   group. `windows` has where each begins, so that a restart goes on, and a clock that was set back is noticed.
//! * All other processes are *recomputed*, without the events that their queries fail at, at most once a second, and all
//!   together no more than a quarter of the time: when what they read has changed, or when the oldest event of a window has
//!   left it, or always, if they ask for the time in other ways. What changed is found by
//!   comparing the rows: those that are equal in what the query groups by are one row.
//! * What a process reads can be deleted if it is a stream, which is empty then, but not if it is
//!   a process: that is a 409.

pub(crate) mod backup;
mod catalogue;
mod compiled;
mod counters;
mod diff;
mod error;
#[cfg(feature = "postgres")]
pub(crate) mod export;
mod functions;
mod home;
mod inner;
mod objects;
mod pages;
mod process;
mod processes;
mod read;
mod recompute;
mod retention;
mod sandbox;
mod schedule;
mod schema;
mod sliding;
mod snapshots;
mod stats;
mod storage;
mod successor;
#[cfg(test)]
pub(super) mod tests;
mod trial;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{fmt, io};

use bytes::Bytes;
use rusqlite::OptionalExtension as _;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use self::counters::Counted;
use self::home::Home;
use self::inner::{Inner, ended};
use self::processes::{Draft, Processes, no_process};
use self::read::{READERS, Readers};
use self::recompute::Failing;
use self::sandbox::Sandbox;
use self::schedule::Schedule;
use self::stats::Stats;
use self::storage::Storage;
use self::writer::{Clock, Job, Notice, Writer};
use crate::engine::position::Position;
use crate::engine::{
    Author, Change, Commit, Definition, Deliver, Engine, EngineCounters, EngineError, Listener,
    Mode, Overview, Page, PageLimit, ProcessStats, Rows, Start, Summary, Ttl, Wanted,
};
use crate::events::batch::Batch;
use crate::pool::Pool;
use crate::settings::Limits;
use crate::sql;

/// Events, processes and saved queries in an SQLite database.
pub(crate) struct Sqlite {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("home", &self.inner.home).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the database in a file, or one that ends with the server, on a thread that has the stack for whatever is defined in it.
    pub(crate) fn open(
        path: Option<&Path>,
        limits: &Limits,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Self> {
        Self::open_at(path, limits, listener, Box::new(OffsetDateTime::now_utc))
    }

    /// The same with another clock, by which windows move.
    fn open_at(
        path: Option<&Path>,
        limits: &Limits,
        listener: Arc<dyn Listener>,
        clock: Clock,
    ) -> io::Result<Self> {
        std::thread::scope(|scope| {
            let opening = std::thread::Builder::new()
                .name("stride-local-open".to_owned())
                .stack_size(sql::STACK)
                .spawn_scoped(scope, || Self::open_here(path, limits, listener, clock))?;
            opening
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("opening the database panicked")))
        })
    }

    fn open_here(
        path: Option<&Path>,
        limits: &Limits,
        listener: Arc<dyn Listener>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (home, path) = Home::take(path)?;
        let (mut connection, pages) =
            schema::open_writer(&path, home.is_kept()).map_err(io::Error::other)?;
        let catalogue = schema::open_reader(&path).map_err(io::Error::other)?;
        let counted = Arc::new(Counted::default());
        let (stats, schedule) = (Stats::default(), Arc::new(Schedule::default()));
        let storage = Storage::new(pages, *limits);
        let sandbox = Sandbox::install(&mut connection, true).map_err(io::Error::other)?;
        functions::install(&connection, &sandbox).map_err(io::Error::other)?;
        let mut processes = Processes::new(
            sandbox,
            limits,
            stats.clone(),
            Arc::clone(&schedule),
            Arc::clone(&listener),
        );
        processes.forget_successors(&connection).map_err(io::Error::other)?;
        let unfilled = processes.unfilled();
        let told = Arc::clone(&listener);
        let writer = Writer::new(connection, storage, processes, clock, told, Arc::clone(&counted));
        let (jobs, received) = mpsc::channel();
        let readers = Readers::open(&path, *limits).map_err(io::Error::other)?;
        let (readers, threads) = (Arc::new(readers), Pool::start("query", READERS, sql::STACK)?);
        home.hide()?;
        let catalogue = Mutex::new(Some(catalogue));
        let failing = Mutex::default();
        let inner = Inner {
            jobs,
            readers,
            threads,
            catalogue,
            stats,
            schedule,
            failing,
            pages,
            counted,
            listener,
            home,
        };
        let inner = Arc::new(inner);
        let thread = |name: &str| {
            let thread = std::thread::Builder::new().name(format!("stride-local-{name}"));
            thread.stack_size(sql::STACK)
        };
        let engine = Self { inner: Arc::clone(&inner), threads: Mutex::default() };
        let writing = thread("writer").spawn(move || writer.work(&received))?;
        engine.threads().push(writing);
        engine.threads().push(thread("process").spawn(move || inner.recompute(&unfilled))?);
        Ok(engine)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self, sql: &str) -> Result<Vec<String>, EngineError> {
        self.inner.look_up(|catalogue| {
            catalogue.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Lets the database grow no larger than it is, or than so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<u32>) -> Result<(), EngineError> {
        self.inner.write(move |writer| {
            let pages = pages.unwrap_or(u32::MAX - 1);
            let limit = format!("PRAGMA max_page_count = {pages}");
            Ok(writer.connection.query_row(&limit, [], |_| Ok(()))?)
        })
    }

    /// Checks what a process is to be, and runs it once if that is how it is kept.
    fn draft(&self, name: &str, definition: &Definition) -> Result<Draft, EngineError> {
        let inner = Arc::clone(&self.inner);
        let (name, definition) = (name.to_owned(), definition.clone());
        self.inner.with_reader(move |reader| {
            let compiled = reader.compile(&definition.query)?;
            if compiled.reads.contains(&name) {
                return Err(EngineError::Invalid(format!("{name:?} would read itself")));
            }
            let parsed = compiled.parsed()?;
            reader.check(&parsed, false)?;
            reader.try_out(&compiled, &parsed)?;
            let run = match compiled.mode() {
                Mode::Incremental => None,
                Mode::Recomputed => {
                    let mut failing = Failing::default();
                    let run = recompute::run(reader, &parsed, &mut failing)?;
                    inner.failing().insert(name.clone(), (definition.query.clone(), failing));
                    Some(run)
                }
            };
            Ok(Draft { name, definition, run })
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

fn no_query(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no saved query {name:?}"))
}

fn no_stream(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no stream {name:?}"))
}

impl Engine for Sqlite {
    fn append(&self, batches: Vec<(String, Batch)>, author: Author) -> Commit {
        let (done, commit) = oneshot::channel();
        if let Err(mpsc::SendError(Job::Append { done, .. })) =
            self.inner.jobs.send(Job::Append { batches, author, done })
        {
            // Nobody can have hung up yet.
            drop(done.send(Err(ended())));
        }
        commit
    }

    fn streams(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM streams ORDER BY name")
    }

    fn stream(&self, name: &str) -> Result<Summary, EngineError> {
        let select = "SELECT next - 1, first_seen, last_seen FROM streams WHERE name = ?";
        let summary = self.inner.look_up(|catalogue| {
            catalogue
                .prepare_cached(select)?
                .query_row([name], |row| {
                    let (count, first_seen) = (row.get(0)?, row.get(1)?);
                    Ok(Summary { count, first_seen, last_seen: row.get(2)? })
                })
                .optional()
        })?;
        summary.ok_or_else(|| no_stream(name))
    }

    fn delete_stream(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.inner.write(move |writer| {
            if !writer.storage.delete(&writer.connection, &name)? {
                return Err(no_stream(&name));
            }
            let Writer { connection, processes, notices, .. } = writer;
            processes.drop_rows(connection, Some(&name), notices)?;
            notices.push(Notice::Shrunk(name));
            Ok(())
        })
    }

    fn position(&self, stream: &str, start: Start<'_>) -> Result<Position, EngineError> {
        self.inner.look_up(|catalogue| self.inner.pages.position(catalogue, stream, start))
    }

    fn events_after(
        &self,
        stream: &str,
        position: Position,
        most: PageLimit,
    ) -> Result<Page, EngineError> {
        self.inner.look_up(|catalogue| self.inner.pages.after(catalogue, stream, position, most))
    }

    fn snapshot(&self, process: &str, most: usize, deliver: Deliver) -> Result<(), EngineError> {
        let process = process.to_owned();
        // In a transaction with nothing else: what was told before is in the rows, and what comes is not.
        self.inner.write(move |writer| {
            let Writer { connection, processes, .. } = writer;
            deliver(processes.snapshot(connection, &process, most)?);
            Ok(())
        })
    }

    fn create_process(&self, name: &str, definition: &Definition) -> Result<(), EngineError> {
        // Said first, and again in the transaction: a query may take its time.
        if self.inner.process(name).is_ok() {
            return Err(EngineError::Conflict(format!("there is a process {name:?} already")));
        }
        let draft = self.draft(name, definition)?;
        self.inner.write(move |writer| {
            let Writer { connection, processes, now, notices, .. } = writer;
            processes.create(connection, draft, now.micros, notices)
        })?;
        self.inner.fill(name).inspect_err(|_| {
            // It has never been whole.
            if let Err(error) = self.delete_process(name) {
                tracing::warn!(process = name, %error, "half a process could not be deleted");
            }
        })
    }

    fn processes(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM processes WHERE name NOT LIKE char(1) || '%' ORDER BY name")
    }

    fn process(&self, name: &str) -> Result<Definition, EngineError> {
        let select = "SELECT query, ttl_duration, ttl_column FROM processes WHERE name = ?";
        let process = self.inner.look_up(|catalogue| {
            let mut select = catalogue.prepare_cached(select)?;
            let definition = select.query_row([name], |row| {
                let ttl = match (row.get(1)?, row.get(2)?) {
                    (Some(duration), Some(column)) => Some(Ttl { duration, column }),
                    _ => None,
                };
                Ok(Definition { query: row.get(0)?, ttl })
            });
            definition.optional()
        })?;
        process.ok_or_else(|| no_process(name))
    }

    fn process_stats(&self, name: &str) -> Result<ProcessStats, EngineError> {
        let stats = &self.inner.stats;
        let (stats, count) = (stats.of(name), stats.count_of(name));
        let (mut stats, count) = stats.zip(count).ok_or_else(|| no_process(name))?;
        stats.rows =
            self.inner.look_up(|catalogue| catalogue.query_row(&count, [], |row| row.get(0)))?;
        Ok(stats)
    }

    fn change_process(&self, name: &str, change: &Change) -> Result<(), EngineError> {
        let definition = self.process(name)?;
        // What is as it was is left alone.
        let query = change.query.clone().filter(|query| *query != definition.query);
        let ttl = change.ttl.clone().filter(|ttl| Some(ttl) != definition.ttl.as_ref());
        let (changed, successor) = (name.to_owned(), successor::of(name));
        let Some(query) = query else {
            let Some(ttl) = ttl else { return Ok(()) };
            return self.inner.write(move |writer| {
                writer.processes.change_ttl(&writer.connection, &changed, &ttl)
            });
        };
        let mut draft = self.draft(name, &Definition { query, ttl: ttl.or(definition.ttl) })?;
        draft.name.clone_from(&successor);
        self.inner.write(move |writer| {
            let Writer { connection, processes, now, notices, .. } = writer;
            processes.create_successor(connection, draft, now.micros, notices)
        })?;
        let filled = self.inner.fill(&successor).and_then(|()| {
            self.inner.write(move |writer| {
                let Writer { connection, processes, notices, .. } = writer;
                processes.succeed(connection, &changed, notices)
            })
        });
        filled.inspect_err(|_| {
            // The process stays what it was.
            if let Err(error) = self.delete_process(&successor) {
                tracing::warn!(process = name, %error, "half a process could not be deleted");
            }
        })
    }

    fn delete_process(&self, name: &str) -> Result<(), EngineError> {
        let deleted = name.to_owned();
        self.inner.write(move |writer| {
            let Writer { connection, processes, notices, .. } = writer;
            processes.delete(connection, &deleted, notices)
        })?;
        self.inner.failing().remove(name);
        Ok(())
    }

    fn save_query(&self, name: &str, query: &str) -> Result<(), EngineError> {
        let (name, query) = (name.to_owned(), query.to_owned());
        let query = self.inner.with_reader(move |reader| {
            let parsed = sql::parse(&query)?;
            reader.check(&parsed, true)?;
            trial::of_query(&parsed.query)?;
            Ok(query)
        })?;
        self.inner.write(move |writer| {
            let insert = "INSERT OR REPLACE INTO queries VALUES (?, ?)";
            writer.connection.prepare_cached(insert)?.execute([name, query])?;
            Ok(())
        })
    }

    fn saved_queries(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM queries ORDER BY name")
    }

    fn saved_query(&self, name: &str) -> Result<String, EngineError> {
        let select = "SELECT query FROM queries WHERE name = ?";
        let query = self.inner.look_up(|catalogue| {
            catalogue.prepare_cached(select)?.query_row([name], |row| row.get(0)).optional()
        })?;
        query.ok_or_else(|| no_query(name))
    }

    fn delete_query(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.inner.write(move |writer| {
            let delete = "DELETE FROM queries WHERE name = ?";
            match writer.connection.prepare_cached(delete)?.execute([&name])? {
                0 => Err(no_query(&name)),
                _ => Ok(()),
            }
        })
    }

    fn query_while(
        &self,
        sql: &str,
        parameters: &[(String, Value)],
        wanted: &Wanted,
    ) -> Result<Rows, EngineError> {
        let start = Instant::now();
        let counted = &self.inner.counted;
        let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
        let (storage, wanted) = (Arc::clone(counted), wanted.clone());
        let rows = self.inner.with_reader(move |reader| {
            // It may have waited for its turn.
            if wanted.is_given_up() {
                return Err(EngineError::unwanted());
            }
            let rows = reader.json_while(&sql::parse(&sql)?, &parameters, &wanted);
            rows.inspect_err(|error| storage.failed(error))
        });
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        counted.queries.fetch_add(1, Ordering::Relaxed);
        counted.query_micros.fetch_add(micros, Ordering::Relaxed);
        if rows.is_err() {
            counted.failed_queries.fetch_add(1, Ordering::Relaxed);
        }
        let (json, reads) = rows?;
        Ok(Rows { json: Bytes::from(json), stale: self.inner.stats.stale_of(reads) })
    }

    fn overview(&self) -> Result<Overview, EngineError> {
        let select = "SELECT name, next - 1, first_seen, last_seen FROM streams ORDER BY name";
        let (streams, bytes) = self.inner.look_up(|catalogue| {
            let mut select = catalogue.prepare_cached(select)?;
            let streams = select.query_map([], |row| {
                let (count, first_seen) = (row.get(1)?, row.get(2)?);
                Ok((row.get(0)?, Summary { count, first_seen, last_seen: row.get(3)? }))
            })?;
            let streams = streams.collect::<rusqlite::Result<Vec<_>>>()?;
            let bytes = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
            let bytes = catalogue.prepare_cached(bytes)?.query_row([], |row| row.get(0))?;
            Ok::<_, rusqlite::Error>((streams, bytes))
        })?;
        let mut processes = Vec::new();
        for name in self.processes()? {
            match self.process(&name).and_then(|it| Ok((it, self.process_stats(&name)?))) {
                Ok((definition, stats)) => processes.push((name, definition, stats)),
                // It was deleted meanwhile, or is only being made.
                Err(EngineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Overview { kept: self.inner.home.is_kept(), bytes, streams, processes })
    }

    fn health(&self) -> Result<(), EngineError> {
        if self.inner.counted.damaged.load(Ordering::Relaxed) {
            return Err(EngineError::Damaged("the file is damaged: see the log".to_owned()));
        }
        self.inner
            .look_up(|catalogue| catalogue.query_row("SELECT 1 FROM meta", [], |_| Ok(())))?;
        // Only what takes room tells whether there is any left.
        for probe in [
            "INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(16384))",
            "DELETE FROM meta WHERE key = 'probe'",
        ] {
            self.inner.write(move |writer| {
                writer.connection.prepare_cached(probe)?.execute([])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn counters(&self) -> EngineCounters {
        let Counted {
            events,
            transactions,
            storage_errors,
            queries,
            failed_queries,
            query_micros,
            damaged: _,
        } = &*self.inner.counted;
        let stats = &self.inner.stats;
        EngineCounters {
            events: events.load(Ordering::Relaxed),
            transactions: transactions.load(Ordering::Relaxed),
            storage_errors: storage_errors.load(Ordering::Relaxed),
            queries: queries.load(Ordering::Relaxed),
            failed_queries: failed_queries.load(Ordering::Relaxed),
            query_micros: query_micros.load(Ordering::Relaxed),
            skipped_events: stats.skipped(),
            stale_processes: stats.count(|stats| stats.stale),
            incremental_processes: stats.count(|stats| stats.mode == Mode::Incremental),
            recomputed_processes: stats.count(|stats| stats.mode == Mode::Recomputed),
            filling_processes: stats.count(|stats| stats.filling.is_some()),
            running_queries: self.inner.readers.lent(),
        }
    }

    fn close(&self) {
        self.inner.schedule.close();
        // The connection that writes is to be the last: SQLite then removes its other files.
        self.inner.readers.end();
        drop(self.inner.catalogue().take());
        // Those fail only if the thread has ended already.
        drop(self.inner.jobs.send(Job::Stop));
        for thread in self.threads().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
    }
}
