//! What the threads of the engine share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::Transaction;

use super::connections::Connections;
use super::error::Failure;
use super::follow::{self, CHANNEL, NOTHING};
use super::process::{self, Filled, Rerun, Statements, Stored};
use super::retention;
use super::schema::Drawn;
use super::storage::{self, KnownKeys};
use crate::engine::{Author, Deliver, EngineCounters, EngineError, Listener, ProcessStats};
use crate::events::batch::Batch;
use crate::events::keys::Kinds;
use crate::pool::Pool;
use crate::settings::Limits;

/// How long to wait before processes are run again.
const RERUN: Duration = Duration::from_secs(1);

/// How long this server goes by what it has measured the database to take, and by what it has added since.
const MEASURED: Duration = Duration::from_secs(1);

/// Of how many streams the keys are kept in memory.
const MOST_KNOWN: usize = 10_000;

const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// What the threads of the engine share.
pub(super) struct Inner {
    /// Connections of the login that writes, and of the one that queries.
    pub(super) storage: Connections,
    pub(super) readers: Connections,
    pub(super) writers: Pool,
    pub(super) threads: Pool,
    /// Ends queries that nobody waits for.
    pub(super) cancels: Pool,
    pub(super) drawn: Drawn,
    pub(super) limits: Limits,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) counted: Counted,
    pub(super) statements: Statements,
    pub(super) keys: Mutex<KnownKeys>,
    pub(super) room: Mutex<Room>,
    /// Snapshots that wait for the follower, who knows what was told.
    pub(super) snapshots: Mutex<Vec<Snapshot>>,
    /// How much is under way, and whether no more is taken.
    pub(super) work: Mutex<Work>,
    pub(super) changed: Condvar,
}

/// How much the database takes, as far as this server knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    used: u64,
    measured: Option<Instant>,
}

/// Somebody who wants the rows of a process.
pub(super) struct Snapshot {
    pub(super) process: String,
    pub(super) most: usize,
    pub(super) deliver: Deliver,
    pub(super) done: mpsc::SyncSender<Result<(), EngineError>>,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    under_way: usize,
    closed: bool,
    /// What was under way is done, too.
    over: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) events: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) storage_errors: AtomicU64,
    pub(super) queries: AtomicU64,
    pub(super) failed_queries: AtomicU64,
    pub(super) query_micros: AtomicU64,
    pub(super) running: AtomicU64,
    pub(super) skipped: AtomicU64,
    /// How many processes are incremental, recomputed, stale, and being filled, as last looked up.
    pub(super) processes: [AtomicUsize; 4],
    /// The runs of processes by this server, by the number of the process, and how long the last took in milliseconds.
    pub(super) runs: Mutex<HashMap<i64, (u64, u64)>>,
}

impl Counted {
    pub(super) fn read(&self) -> EngineCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineCounters {
            events: of(&self.events),
            transactions: of(&self.transactions),
            storage_errors: of(&self.storage_errors),
            queries: of(&self.queries),
            failed_queries: of(&self.failed_queries),
            query_micros: of(&self.query_micros),
            skipped_events: of(&self.skipped),
            stale_processes: self.processes[2].load(Ordering::Relaxed),
            incremental_processes: self.processes[0].load(Ordering::Relaxed),
            recomputed_processes: self.processes[1].load(Ordering::Relaxed),
            filling_processes: self.processes[3].load(Ordering::Relaxed),
            running_queries: usize::try_from(of(&self.running)).unwrap_or(usize::MAX),
        }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<i64, (u64, u64)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what this server has counted of a process.
    pub(super) fn add_to(&self, process: i64, stats: &mut ProcessStats) {
        let runs = self.runs().get(&process).copied();
        (stats.runs, stats.last_run_ms) = runs.unwrap_or_default();
    }
}

impl Inner {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.work().closed
    }

    /// Takes no more work, and waits for what is under way.
    pub(super) fn close(&self) {
        let mut work = self.work();
        work.closed = true;
        self.changed.notify_all();
        while work.under_way > 0 {
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        work.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.work().over
    }

    /// Waits, unless the engine ends.
    pub(super) fn pause(&self, most: Duration) {
        drop(self.changed.wait_timeout_while(self.work(), most, |work| !work.closed));
    }

    /// Does `job` on a thread of its pool: the driver has a runtime of its own, which cannot be used on every thread.
    pub(super) fn run(
        self: &Arc<Self>,
        pool: fn(&Self) -> &Pool,
        job: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> Result<(), EngineError> {
        {
            let mut work = self.work();
            if work.closed {
                return Err(ended());
            }
            work.under_way += 1;
        }
        let ending = Ending(Arc::clone(self));
        pool(self).run(move || job(&ending.0));
        Ok(())
    }

    /// Does `job` and waits for it.
    pub(super) fn wait_for<T: Send + 'static>(
        self: &Arc<Self>,
        pool: fn(&Self) -> &Pool,
        job: impl FnOnce(&Arc<Self>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, is_done) = mpsc::sync_channel(1);
        self.run(pool, move |inner| {
            let result = job(inner);
            if let Err(error) = &result {
                inner.failed(error);
            }
            // The caller waits, but its thread may be gone.
            drop(done.send(result));
        })?;
        is_done.recv().map_err(|_| EngineError::Broken("a job panicked".to_owned()))?
    }

    /// Does `work` in a transaction, and waits for it.
    pub(super) fn transaction<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.wait_for(|inner| &inner.writers, |inner| inner.storage.transaction(work))
    }

    pub(super) fn failed(&self, error: &EngineError) {
        self.counted.storage_errors.fetch_add(u64::from(error.is_failure()), Ordering::Relaxed);
    }

    /// One request: all of it or nothing.
    pub(super) fn append(
        &self,
        batches: &mut [(String, Batch)],
        author: Author,
        now: &str,
    ) -> Result<(), EngineError> {
        self.check_room(author)?;
        batches.sort_by(|one, other| one.0.cmp(&other.0));
        // A stream comes into being with its first event, and an empty array has none.
        let mut batches: Vec<&mut (String, Batch)> =
            batches.iter_mut().filter(|(_, batch)| !batch.records.is_empty()).collect();
        if batches.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = batches.iter().map(|(name, _)| name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (added, known, skipped) =
            self.storage.prepared_transaction(|transaction, prepared| {
                let mut streams = storage::lock(transaction, prepared, &names, author, now)?;
                let (mut added, mut known, mut skipped) = (0, Vec::new(), 0);
                let mut processes = Vec::new();
                for (stream, (name, batch)) in streams.iter_mut().zip(&mut batches) {
                    let mut keys = self.keys_of(transaction, stream)?;
                    let from = stream.next;
                    let new = storage::add(
                        transaction,
                        prepared,
                        self.drawn,
                        stream,
                        &mut keys,
                        batch,
                        now,
                    )?;
                    if new > 0 {
                        let (limits, places) = (&self.limits, from..stream.next);
                        let stored = Stored { name, stream, keys: &keys, places };
                        let known = &self.statements;
                        let news = process::added(transaction, prepared, known, limits, &stored)?;
                        processes.extend(news.changed);
                        skipped += news.skipped;
                        let gone = retention::let_go(transaction, stream, &self.limits, new)?;
                        processes.extend(gone);
                    }
                    added += new;
                    known.push((stream.number, (stream.keys_version, keys)));
                }
                let numbers: Vec<i64> = streams.iter().map(|stream| stream.number).collect();
                let notify = prepared.of(transaction, NOTIFY)?;
                transaction.execute(&notify, &[&CHANNEL, &follow::notice(&numbers, &processes)])?;
                Ok((added, known, skipped))
            })?;
        // Now that they are committed.
        let text: usize = batches.iter().map(|(_, batch)| batch.text.len()).sum();
        self.room().used += text as u64;
        let mut keys = self.known_keys();
        // They are read again when they are needed.
        if keys.len() > MOST_KNOWN {
            keys.clear();
        }
        keys.extend(known);
        drop(keys);
        self.counted.events.fetch_add(added, Ordering::Relaxed);
        self.counted.skipped.fetch_add(skipped, Ordering::Relaxed);
        self.counted.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Runs processes again, until the engine has ended; before that, has those go on that have stopped.
    pub(super) fn rerun(&self) {
        let mut has_gone_on = false;
        while !self.is_closed() {
            if !has_gone_on {
                has_gone_on = self.go_on().inspect_err(|error| self.failed(error)).is_ok();
            }
            if let Err(error) = self.rerun_all() {
                tracing::debug!(%error, "processes cannot be run again now");
                self.failed(&error);
            }
            self.pause(RERUN);
        }
    }

    /// Has processes go on that may keep more than they might.
    fn go_on(&self) -> Result<(), EngineError> {
        for number in self.storage.transaction(process::stopped)? {
            self.storage.prepared_transaction(|transaction, prepared| {
                let limits = &self.limits;
                if process::go_on(transaction, prepared, &self.statements, limits, number)? {
                    tell(transaction, number)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives a process some of the events that were stored before it. `is_last`: others do not add to its stream meanwhile.
    pub(super) fn fill_some(&self, number: i64, is_last: bool) -> Result<Filled, EngineError> {
        let limits = &self.limits;
        let filled = self.storage.transaction(|transaction| {
            let filled = match is_last {
                true => process::finish(transaction, limits, number)?,
                false => process::slice(transaction, limits, number)?,
            };
            match filled {
                Filled::Whole(process) => tell(transaction, process)?,
                Filled::Partly | Filled::Nearly => tell(transaction, number)?,
                Filled::Busy | Filled::Gone => {}
            }
            Ok(filled)
        });
        if let Err(EngineError::Invalid(why)) = &filled {
            self.storage.transaction(|transaction| {
                match process::give_up(transaction, number, why)? {
                    Some(process) => tell(transaction, process),
                    None => Ok(()),
                }
            })?;
        }
        filled
    }

    /// Fills processes that are to be made anew, and those whose server has died, until the engine has ended.
    pub(super) fn fill(&self) {
        while !self.is_closed() {
            if let Err(error) = self.fill_all() {
                tracing::debug!(%error, "processes cannot be filled now");
                self.failed(&error);
            }
            self.pause(RERUN);
        }
    }

    fn fill_all(&self) -> Result<(), EngineError> {
        // One that fails must not hold up the others.
        let failed = |number: i64, error: &EngineError| {
            tracing::debug!(process = number, %error, "a process cannot be filled now");
            self.failed(error);
        };
        for number in self.storage.transaction(process::outdated)? {
            let begin = |transaction: &mut Transaction<'_>| {
                process::begin_anew(transaction, number, &self.limits)
            };
            if let Err(error) = self.storage.transaction(begin) {
                failed(number, &error);
            }
        }
        for number in self.storage.transaction(process::unfilled)? {
            let mut is_last = false;
            while !self.is_closed() {
                is_last = match self.fill_some(number, is_last) {
                    Ok(Filled::Partly) => false,
                    Ok(Filled::Nearly) => true,
                    Ok(Filled::Whole(_) | Filled::Busy | Filled::Gone) => break,
                    Err(error) => {
                        failed(number, &error);
                        break;
                    }
                };
            }
        }
        Ok(())
    }

    fn rerun_all(&self) -> Result<(), EngineError> {
        let recomputed = self.storage.transaction(process::recomputed)?;
        self.counted.runs().retain(|number, _| recomputed.binary_search(number).is_ok());
        for number in recomputed {
            let start = Instant::now();
            let run = self.storage.transaction(|transaction| {
                let run = process::run_again(transaction, number, &self.limits)?;
                if run == (Rerun::Ran { changed: true }) {
                    tell(transaction, number)?;
                }
                Ok(run)
            });
            match run {
                Ok(Rerun::Not) => {}
                Ok(Rerun::Ran { .. }) => {
                    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let mut runs = self.counted.runs();
                    let (count, last) = runs.entry(number).or_default();
                    (*count, *last) = (*count + 1, took);
                }
                Err(error) => {
                    tracing::warn!(process = number, %error, "a process could not be run again");
                    self.failed(&error);
                }
            }
        }
        let counts = self.storage.transaction(process::counts)?;
        for (counted, now) in self.counted.processes.iter().zip(counts) {
            counted.store(usize::try_from(now).unwrap_or_default(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Refuses the open key once the database is as large as it may make it. All that events leave behind counts.
    fn check_room(&self, author: Author) -> Result<(), EngineError> {
        let most = self.limits.max_open_bytes as u64;
        if author == Author::Trusted {
            return Ok(());
        }
        let known = *self.room();
        let used = match known.measured {
            Some(at) if at.elapsed() < MEASURED => known.used,
            _ => {
                let used = self.storage.transaction(retention::used)?;
                *self.room() = Room { used, measured: Some(Instant::now()) };
                used
            }
        };
        if used < most {
            return Ok(());
        }
        Err(EngineError::Full(format!(
            "the database has {} MiB, and the open key may add nothing past {} MiB",
            used >> 20,
            most >> 20
        )))
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the followers, of which one is its own.
    pub(super) fn wake(&self) -> Result<(), EngineError> {
        self.storage.with(|client| client.execute(NOTIFY, &[&CHANNEL, &NOTHING]))?;
        Ok(())
    }

    pub(super) fn snapshots(&self) -> MutexGuard<'_, Vec<Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_keys(&self) -> MutexGuard<'_, KnownKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of a stream whose row is locked.
    fn keys_of(
        &self,
        transaction: &mut Transaction<'_>,
        stream: &storage::Stream,
    ) -> Result<Vec<(String, Kinds)>, Failure> {
        let known = self.known_keys().get(&stream.number).cloned();
        match known.filter(|(version, _)| *version == stream.keys_version) {
            Some((_, keys)) => Ok(keys),
            None => storage::keys(transaction, stream.number),
        }
    }
}

/// Tells all servers that a process has changed, or is no more.
pub(super) fn tell(transaction: &mut Transaction<'_>, process: i64) -> Result<(), Failure> {
    notify(transaction, &[], &[process])
}

/// Tells all servers that something is new about these, or that they are no more.
pub(super) fn notify(
    transaction: &mut Transaction<'_>,
    streams: &[i64],
    processes: &[i64],
) -> Result<(), Failure> {
    let notice = follow::notice(streams, processes);
    transaction.execute(NOTIFY, &[&CHANNEL, &notice])?;
    Ok(())
}

/// Notes that a job has ended, however it did.
struct Ending(Arc<Inner>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.work().under_way -= 1;
        self.0.changed.notify_all();
    }
}

pub(super) fn ended() -> EngineError {
    EngineError::Unavailable("the server is ending".to_owned())
}
