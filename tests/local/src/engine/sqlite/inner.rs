//! What the threads of the engine share, and what they do with it.

use std::collections::HashMap;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _};

use super::counters::Counted;
use super::home::Home;
use super::pages::Pages;
use super::processes::{Filled, homes, no_process};
use super::read::{Reader, Readers};
use super::recompute::{self, Failing};
use super::schedule::{Due, Schedule};
use super::stats::Stats;
use super::writer::{Job, Task, Writer};
use crate::engine::{EngineError, Listener, Mode};
use crate::pool::Pool;
use crate::sql::{self, Parsed};

/// What the threads of the engine share.
pub(super) struct Inner {
    pub(super) jobs: Sender<Job>,
    pub(super) readers: Arc<Readers>,
    /// As many as readers.
    pub(super) threads: Pool,
    /// Reads what the engine itself wants to know; `None` at the end.
    pub(super) catalogue: Mutex<Option<Connection>>,
    pub(super) stats: Stats,
    pub(super) schedule: Arc<Schedule>,
    /// Which events the queries of processes fail at, by the name of the process.
    pub(super) failing: Mutex<HashMap<String, (String, Failing)>>,
    pub(super) pages: Pages,
    pub(super) counted: Arc<Counted>,
    pub(super) listener: Arc<dyn Listener>,
    /// The last to go: the connections are closed before it.
    pub(super) home: Home,
}

impl Inner {
    /// Does something in a transaction of the writer's, and waits for it.
    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, is_done) = mpsc::sync_channel(1);
        let task = Closure { work: Some(work), value: None, done };
        self.jobs.send(Job::Run(Box::new(task))).map_err(|_| ended())?;
        is_done.recv().map_err(|_| ended())?
    }

    /// Works on a query with a reader, on a thread that has the stack for it.
    pub(super) fn with_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        // There are as many threads as readers: who has one has a thread at once.
        let mut loan = self.readers.lend()?;
        let (done, is_done) = mpsc::sync_channel(1);
        self.threads.run(move || {
            let result = loan.reader().and_then(|reader| {
                let result = work(reader);
                reader.shrink();
                result
            });
            drop(loan);
            // The caller waits, but its thread may be gone.
            drop(done.send(result));
        });
        is_done.recv().map_err(|_| EngineError::Broken("a query panicked".to_owned()))?
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, Option<Connection>> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failing(&self) -> MutexGuard<'_, HashMap<String, (String, Failing)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks something up in the engine's own tables.
    pub(super) fn look_up<T, E: Into<EngineError>>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, EngineError> {
        let catalogue = self.catalogue();
        let looked = look(catalogue.as_ref().ok_or_else(ended)?).map_err(Into::into);
        looked.inspect_err(|error| self.counted.failed(error))
    }

    /// Gives a process the events that were stored before it, slice by slice: others write in between.
    pub(super) fn fill(&self, name: &str) -> Result<(), EngineError> {
        loop {
            let process = name.to_owned();
            let filled = self.write(move |writer| {
                let Writer { connection, processes, notices, .. } = writer;
                processes.fill(connection, &process, notices)
            })?;
            match filled {
                Filled::Partly => {}
                Filled::Whole => return Ok(()),
                Filled::Failed(why) => return Err(EngineError::Invalid(why)),
            }
        }
    }

    /// Runs the queries of processes that have to be computed anew, until the end; before that, gives those that
    /// the last end cut short the rest of their events.
    pub(super) fn recompute(&self, unfilled: &[String]) {
        for name in unfilled {
            if let Err(error) = self.fill(name) {
                tracing::warn!(process = name, %error, "a process lacks events that were stored before it");
            }
        }
        while let Some(name) = self.schedule.next() {
            let start = Instant::now();
            let due = match self.recompute_one(&name) {
                Ok(due) => due,
                Err(EngineError::NotFound(_)) => {
                    self.schedule.remove(&name);
                    Due::Never
                }
                Err(error) => {
                    self.failed(&name, &error);
                    Due::Never
                }
            };
            self.schedule.done(&name, start.elapsed(), due);
        }
    }

    /// A process shows an old result.
    fn failed(&self, name: &str, error: &EngineError) {
        tracing::warn!(process = name, %error, "a process shows an old result: it could not be computed");
        self.counted.failed(error);
        self.stats.failed(name, error);
        self.listener.progressed();
    }

    fn recompute_one(&self, name: &str) -> Result<Due, EngineError> {
        if self.stats.of(name).is_some_and(|stats| stats.mode == Mode::Incremental) {
            // It was emptied, and is to be filled again.
            self.schedule.remove(name);
            self.fill(name)?;
            return Ok(Due::Never);
        }
        let (number, query) = self.process(name)?;
        let mut parsed = sql::parse(&query)?;
        let settled = "SELECT streams FROM homes WHERE process = ?";
        parsed.homes = homes(self.look_up(|catalogue| {
            catalogue.prepare_cached(settled)?.query_row([number], |row| row.get(0)).optional()
        })?);
        match self.run_again(name, number, query, &parsed) {
            Ok(_) if !parsed.changes_with_time() => Ok(Due::Never),
            // It goes on changing, as likely as not.
            Ok(true) => Ok(Due::Soon),
            Ok(false) => recompute::due(self.readers.lend()?.reader()?, &parsed),
            Err(error) if error.is_failure() || parsed.changes_with_time() => {
                self.failed(name, &error);
                Ok(Due::Soon)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether the result is another one.
    fn run_again(
        &self,
        name: &str,
        number: i64,
        query: String,
        parsed: &Parsed,
    ) -> Result<bool, EngineError> {
        let known = self.failing().remove(name).filter(|(of, _)| *of == query);
        let mut failing = known.map(|(_, failing)| failing).unwrap_or_default();
        let run = recompute::run(self.readers.lend()?.reader()?, parsed, &mut failing);
        self.failing().insert(name.to_owned(), (query, failing));
        let (name, run) = (name.to_owned(), run?);
        self.write(move |writer| {
            let Writer { connection, processes, notices, now, .. } = writer;
            processes.ran(connection, &name, number, run, now.micros, notices)
        })
    }

    /// The number of a process, and its query.
    pub(super) fn process(&self, name: &str) -> Result<(i64, String), EngineError> {
        let select = "SELECT number, query FROM processes WHERE name = ?";
        let process = self.look_up(|catalogue| {
            let mut select = catalogue.prepare_cached(select)?;
            select.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })?;
        process.ok_or_else(|| no_process(name))
    }
}

pub(super) fn ended() -> EngineError {
    EngineError::Unavailable("the server is ending".to_owned())
}

/// A closure as work for the writer.
struct Closure<F, T> {
    work: Option<F>,
    value: Option<T>,
    done: SyncSender<Result<T, EngineError>>,
}

impl<T: Send, F: FnOnce(&mut Writer) -> Result<T, EngineError> + Send> Task for Closure<F, T> {
    fn run(&mut self, writer: &mut Writer) -> Result<(), EngineError> {
        self.value = self.work.take().map(|work| work(writer)).transpose()?;
        Ok(())
    }

    fn finish(self: Box<Self>, end: Result<(), EngineError>) {
        let Self { value, done, .. } = *self;
        // The caller waits, but its thread may be gone.
        drop(done.send(end.and_then(|()| value.ok_or_else(ended))));
    }
}
