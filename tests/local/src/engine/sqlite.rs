//! SQLite as an engine: one thread writes, others read.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::schema;
use super::storage::{Retention, Storage};
use super::writer::{Job, Task, Writer};
use super::{
    Change, Commit, Counted, Definition, Engine, EngineCounters, EngineError, Listener,
    ProcessStats, Summary,
};
use crate::streams::batch::Batch;

/// Where the events are kept, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The database; `None` is one that ends with the server.
    pub(crate) path: Option<PathBuf>,
    pub(crate) retention: Retention,
}

/// Events, processes and saved queries in an SQLite database.
pub(crate) struct Sqlite {
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Reads what the engine itself wants to know.
    catalogue: Mutex<Connection>,
    counted: Arc<Counted>,
    /// Kept until the connections are closed: the lock on the file, or the folder that is to go.
    _home: Home,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("home", &self._home).finish_non_exhaustive()
    }
}

/// What has to last as long as the database.
#[derive(Debug)]
enum Home {
    /// Locked, so that no second server takes the same file.
    Kept(#[expect(dead_code, reason = "it is dropped")] File),
    Temporary(#[expect(dead_code, reason = "it is dropped")] TempDir),
}

impl Sqlite {
    pub(crate) fn open(settings: &Settings, listener: Arc<dyn Listener>) -> io::Result<Self> {
        let (home, path) = match &settings.path {
            Some(path) => (Home::Kept(lock(path)?), path.clone()),
            None => {
                let folder = tempfile::Builder::new().prefix("stride-local-").tempdir()?;
                let path = folder.path().join("events.db");
                (Home::Temporary(folder), path)
            }
        };
        let durable = matches!(home, Home::Kept(_));
        let (connection, ids) = schema::open_writer(&path, durable).map_err(io::Error::other)?;
        let catalogue = schema::open_reader(&path).map_err(io::Error::other)?;
        let counted = Arc::new(Counted::default());
        let storage = Storage::new(ids, settings.retention.clone());
        let writer = Writer::new(connection, storage, listener, Arc::clone(&counted));
        let (jobs, received) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("stride-local-writer".to_owned())
            .spawn(move || writer.work(&received))?;
        Ok(Self {
            jobs,
            thread: Mutex::new(Some(thread)),
            catalogue: Mutex::new(catalogue),
            counted,
            _home: home,
        })
    }

    /// Does something in a transaction of the writer's, and waits for it.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, is_done) = mpsc::sync_channel(1);
        let task = Closure { work: Some(work), value: None, done };
        self.jobs.send(Job::Run(Box::new(task))).map_err(|_| ended())?;
        is_done.recv().map_err(|_| ended())?
    }

    /// Looks something up in the engine's own tables.
    fn look_up<T>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, EngineError> {
        let catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(look(&catalogue)?)
    }

    fn names(&self, sql: &str) -> Result<Vec<String>, EngineError> {
        self.look_up(|catalogue| {
            catalogue.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let file = File::create(path.with_file_name(name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("another server has {} open", path.display()),
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn ended() -> EngineError {
    EngineError::Unavailable("the server is ending".to_owned())
}

fn no_stream(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no stream {name:?}"))
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
        // Whoever asked waits, but its thread may be gone.
        drop(done.send(end.and_then(|()| value.ok_or_else(ended))));
    }
}

impl Engine for Sqlite {
    fn append(&self, batches: Vec<(String, Batch)>) -> Commit {
        let (done, commit) = oneshot::channel();
        if let Err(mpsc::SendError(Job::Append { done, .. })) =
            self.jobs.send(Job::Append { batches, done })
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
        let summary = self.look_up(|catalogue| {
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
        self.write(move |writer| {
            let deleted = writer.storage.delete(&writer.connection, &name)?;
            deleted.map(|_| ()).ok_or_else(|| no_stream(&name))
        })
    }

    fn events(&self, name: &str) -> Result<Vec<String>, EngineError> {
        let select = "SELECT event FROM streams JOIN events
            ON place >= number << 40 | first AND place < number << 40 | next
            WHERE name = ? ORDER BY place";
        self.look_up(|catalogue| {
            catalogue.prepare_cached(select)?.query_map([name], |row| row.get(0))?.collect()
        })
    }

    fn create_process(&self, _: &str, _: &Definition) -> Result<(), EngineError> {
        Err(not_yet())
    }

    fn processes(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM processes ORDER BY name")
    }

    fn process(&self, _: &str) -> Result<Definition, EngineError> {
        Err(not_yet())
    }

    fn process_stats(&self, _: &str) -> Result<ProcessStats, EngineError> {
        Err(not_yet())
    }

    fn change_process(&self, _: &str, _: &Change) -> Result<(), EngineError> {
        Err(not_yet())
    }

    fn delete_process(&self, _: &str) -> Result<(), EngineError> {
        Err(not_yet())
    }

    fn save_query(&self, _: &str, _: &str) -> Result<(), EngineError> {
        Err(not_yet())
    }

    fn saved_queries(&self) -> Result<Vec<String>, EngineError> {
        self.names("SELECT name FROM queries ORDER BY name")
    }

    fn saved_query(&self, _: &str) -> Result<String, EngineError> {
        Err(not_yet())
    }

    fn delete_query(&self, _: &str) -> Result<(), EngineError> {
        Err(not_yet())
    }

    fn query(&self, _: &str, _: &[(String, String)]) -> Result<Bytes, EngineError> {
        Err(not_yet())
    }

    fn health(&self) -> Result<(), EngineError> {
        self.look_up(|catalogue| catalogue.query_row("SELECT 1 FROM meta", [], |_| Ok(())))?;
        self.write(|_| Ok(()))
    }

    fn counters(&self) -> EngineCounters {
        let Counted { events, transactions, storage_errors, queries, failed_queries, query_micros } =
            &*self.counted;
        EngineCounters {
            events: events.load(Ordering::Relaxed),
            transactions: transactions.load(Ordering::Relaxed),
            storage_errors: storage_errors.load(Ordering::Relaxed),
            queries: queries.load(Ordering::Relaxed),
            failed_queries: failed_queries.load(Ordering::Relaxed),
            query_micros: query_micros.load(Ordering::Relaxed),
        }
    }

    fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It fails only if the thread has ended already.
            drop(self.jobs.send(Job::Stop));
            if thread.join().is_err() {
                tracing::error!("the writer's thread panicked");
            }
        }
    }
}

fn not_yet() -> EngineError {
    EngineError::Broken("not built yet".to_owned())
}
