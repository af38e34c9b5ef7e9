//! The one thread that writes. Requests that come while it is busy share the next transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::counters::Counted;
use super::objects::ChangeRecords;
use super::processes::Processes;
use super::storage::{Now, Storage, Totals};
use crate::engine::position::Position;
use crate::engine::{Author, EngineError, Listener};
use crate::events::batch::Batch;
use crate::events::timestamp;
use crate::subscribers::records::Records;

/// How much one transaction takes at most, in bytes of events: the first requests are not to wait
/// for all the others.
const GROUP: usize = 16 * 1024 * 1024;

/// How often to look for what has become too old.
const SWEEP: Duration = Duration::from_secs(10);

/// How often, when there are rows that last only for a time.
const SWEEP_ROWS: Duration = Duration::from_secs(1);

/// What time it is.
pub(super) type Clock = Box<dyn Fn() -> OffsetDateTime + Send>;

/// What the writer can be asked to do.
pub(super) enum Job {
    Append {
        batches: Vec<(String, Batch)>,
        author: Author,
        done: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Something else, in a separate transaction.
    Run(Box<dyn Task>),
    Stop,
}

/// Work in a transaction. It keeps its result until it is `finish`ed.
pub(super) trait Task: Send {
    fn run(&mut self, writer: &mut Writer) -> Result<(), EngineError>;
    /// The transaction is over, or could not begin.
    fn finish(self: Box<Self>, end: Result<(), EngineError>);
}

/// What to tell the listener once the transaction is committed.
#[derive(Debug)]
pub(super) enum Notice {
    /// Events of a stream, and what they come after.
    Stored(String, Position, Records),
    /// Rows of a process: which ones, if somebody wanted to know.
    Changed(String, Option<Records>),
    /// What a process reads has changed.
    Outdated(String),
    /// A stream has lost events.
    Shrunk(String),
    /// There is a process of this name now.
    Created(String),
    /// The process is gone.
    Deleted(String),
}

impl Notice {
    pub(super) fn changed(process: &str, changes: Option<ChangeRecords>) -> Self {
        Self::Changed(process.to_owned(), changes.map(ChangeRecords::into_records))
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) storage: Storage,
    pub(super) processes: Processes,
    pub(super) notices: Vec<Notice>,
    pub(super) now: Now,
    clock: Clock,
    /// After a step that failed.
    no_step_before: Instant,
    listener: Arc<dyn Listener>,
    counted: Arc<Counted>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        storage: Storage,
        processes: Processes,
        clock: Clock,
        listener: Arc<dyn Listener>,
        counted: Arc<Counted>,
    ) -> Self {
        let (notices, now) = (Vec::new(), now(clock()));
        let no_step_before = Instant::now();
        Self {
            connection,
            storage,
            processes,
            notices,
            now,
            clock,
            no_step_before,
            listener,
            counted,
        }
    }

    /// Works until it is told to stop, or until all senders are gone.
    pub(super) fn work(mut self, jobs: &Receiver<Job>) {
        let mut sweep = Instant::now() + SWEEP;
        let mut next = None;
        loop {
            let (now, pause) = (Instant::now(), self.pause());
            sweep = sweep.min(now + pause);
            let job = match next.take() {
                Some(job) => Some(job),
                None => {
                    let wait = sweep.saturating_duration_since(now).min(self.next_step());
                    match jobs.recv_timeout(wait) {
                        Ok(job) => Some(job),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            // Before the job: the machine may have slept while there was none.
            if self.next_step().is_zero() {
                self.step();
            }
            let now = Instant::now();
            if sweep <= now {
                // If there is more, waiting jobs have their turn before the next sweep.
                sweep = now + if self.sweep() { Duration::ZERO } else { self.pause() };
            }
            let Some(job) = job else { continue };
            match job {
                Job::Append { batches, author, done } => {
                    next = self.append(batches, author, done, jobs);
                }
                Job::Run(mut task) => {
                    let end = self.transaction(|writer| task.run(writer));
                    task.finish(end);
                    self.listener.progressed();
                }
                Job::Stop => return self.fold(),
            }
        }
    }

    fn pause(&self) -> Duration {
        if self.processes.have_ttl() { SWEEP_ROWS } else { SWEEP }
    }

    /// How long it is until a window moves on by a step.
    fn next_step(&self) -> Duration {
        let next = self.processes.next_step(timestamp::micros((self.clock)()));
        let next = next.map_or(SWEEP, |micros| Duration::from_micros(micros.unsigned_abs()));
        next.max(self.no_step_before.saturating_duration_since(Instant::now()))
    }

    /// Has windows forget what has left them. What is long is done in parts, between which waiting jobs have their turn.
    fn step(&mut self) {
        let stepped = self.transaction(|writer| {
            let Self { connection, processes, notices, now, .. } = writer;
            processes.step(connection, now.micros, notices)
        });
        if let Err(error) = stepped {
            tracing::warn!(%error, "windows still hold what has left them");
            self.no_step_before = Instant::now() + SWEEP_ROWS;
        }
        self.listener.progressed();
    }

    /// Folds the log into the database, so that its file alone is all there is.
    fn fold(&self) {
        let fold = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy = self.connection.query_row(fold, [], |row| row.get::<_, bool>(0));
        match is_busy {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the log of the database could not be folded into its file"),
            Err(error) => tracing::warn!(%error, "the log of the database was not folded"),
        }
    }

    /// Stores what was asked for and what has come since, and returns the first job that is of
    /// another kind.
    fn append(
        &mut self,
        batches: Vec<(String, Batch)>,
        author: Author,
        done: oneshot::Sender<Result<(), EngineError>>,
        jobs: &Receiver<Job>,
    ) -> Option<Job> {
        let mut waiting = Vec::new();
        let mut next = None;
        let mut job = Some((batches, author, done));
        let end = self.transaction(|writer| {
            let mut size = 0;
            while let Some((batches, author, done)) = job.take() {
                size += batches.iter().map(|(_, batch)| batch.text.len()).sum::<usize>();
                match writer.append_one(batches, author) {
                    Ok(()) => waiting.push((done, Ok(()))),
                    // Of one request, and nothing of it is left.
                    Err(error) if !error.is_failure() => {
                        waiting.push((done, Err(error)));
                    }
                    Err(error) => {
                        waiting.push((done, Ok(())));
                        return Err(error);
                    }
                }
                if size < GROUP {
                    match jobs.try_recv() {
                        Ok(Job::Append { batches, author, done }) => {
                            job = Some((batches, author, done));
                        }
                        Ok(other) => next = Some(other),
                        Err(_) => {}
                    }
                }
            }
            Ok(())
        });
        // One is left if the transaction could not even begin.
        waiting.extend(job.map(|(_, _, done)| (done, Ok(()))));
        for (done, result) in waiting {
            // The caller may have hung up.
            drop(done.send(result.and(end.clone())));
        }
        self.listener.progressed();
        next
    }

    /// One request: all of it or nothing.
    fn append_one(
        &mut self,
        batches: Vec<(String, Batch)>,
        author: Author,
    ) -> Result<(), EngineError> {
        self.storage.check_room(&self.connection, author)?;
        let (notices, totals) = (self.notices.len(), self.storage.totals);
        self.connection.prepare_cached("SAVEPOINT request")?.execute([])?;
        let stored = batches.into_iter().try_for_each(|(name, batch)| {
            // A stream comes into being with its first event, and an empty array has none.
            if batch.records.is_empty() {
                return Ok(());
            }
            let Self { connection, storage, processes, notices, now, .. } = self;
            let stored = storage.add(connection, &name, batch, author, now)?;
            if !stored.places.is_empty() {
                processes.stored(connection, &name, &stored, notices)?;
            }
            storage.settle(connection, &name, now)?;
            processes.drop_rows(connection, Some(&name), notices)?;
            notices.push(Notice::Stored(name, stored.after, stored.records));
            Ok(())
        });
        if stored.is_err() {
            self.notices.truncate(notices);
            // Not counted anew: that would let requests that are refused hold up the others.
            self.storage.rolled_back(totals);
            self.processes.rolled_back();
            // SQLite has ended the whole transaction: the disk is full, say.
            if self.connection.is_autocommit() {
                return stored;
            }
            self.connection.prepare_cached("ROLLBACK TO request")?.execute([])?;
        }
        self.connection.prepare_cached("RELEASE request")?.execute([])?;
        stored
    }

    /// Deletes what is too old, and returns whether there is more of it.
    fn sweep(&mut self) -> bool {
        let mut more = false;
        let swept = self.transaction(|writer| {
            let Self { connection, storage, processes, notices, now, .. } = writer;
            more = storage.sweep(connection, now, notices)?;
            more |= processes.drop_rows(connection, None, notices)?;
            processes.expire(connection, now.micros, notices)
        });
        self.listener.progressed();
        if let Err(error) = swept {
            tracing::warn!(%error, "old events could not be deleted");
            return false;
        }
        more
    }

    /// Does `work` in a transaction and tells the listener what came of it.
    fn transaction(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.now = now((self.clock)());
        let end = self.commit(work);
        match &end {
            Ok(()) => {
                self.processes.committed();
                self.counted.transactions.fetch_add(1, Ordering::Relaxed);
                for notice in self.notices.drain(..) {
                    match notice {
                        Notice::Stored(stream, after, records) => {
                            let events = records.ends.len() as u64;
                            self.counted.events.fetch_add(events, Ordering::Relaxed);
                            self.listener.added(&stream, events);
                            self.listener.stored(&stream, after, &records);
                        }
                        Notice::Changed(process, records) => {
                            self.processes.outdate_readers_of(&process);
                            match records {
                                Some(records) => self.listener.changed(&process, &records),
                                None => self.listener.changed_unseen(&process),
                            }
                        }
                        Notice::Outdated(process) => self.processes.outdated(&process),
                        Notice::Shrunk(stream) => self.processes.outdate_readers_of(&stream),
                        Notice::Created(process) => {
                            self.processes.created(&process);
                            self.processes.outdate_readers_of(&process);
                        }
                        Notice::Deleted(process) => self.listener.process_deleted(&process),
                    }
                }
            }
            Err(error) => {
                self.notices.clear();
                self.storage.rolled_back(Totals::default());
                self.processes.rolled_back();
                self.counted.failed(error);
            }
        }
        end
    }

    fn commit(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let end = work(self).and_then(|()| {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        });
        // Some errors have ended the transaction themselves.
        if end.is_err() && !self.connection.is_autocommit() {
            self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        }
        end
    }
}

fn now(now: OffsetDateTime) -> Now {
    Now { text: timestamp::rfc3339(now), micros: timestamp::micros(now) }
}
