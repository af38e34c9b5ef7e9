//! A server: its start, and the handle to it while it runs.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use crate::changes::Changes;
#[cfg(feature = "postgres")]
use crate::engine::postgres::Postgres;
use crate::engine::sqlite::Sqlite;
use crate::engine::{EngineError, Listener, PageLimit, SharedEngine, Start};
use crate::http::accept::{self, Command};
use crate::http::auth::Keys;
use crate::http::faults::{Fault, Faults};
use crate::http::limits::Rooms;
use crate::http::metrics::Counters;
use crate::rates::Rates;
use crate::settings::Builder;
#[cfg(feature = "postgres")]
use crate::settings::Database;
use crate::shared::Shared;
use crate::subscribers::Announcer;
use crate::subscribers::hub::{Hub, Source};

/// How long [`Local::stop`] waits for open requests and subscriptions to finish.
const GRACE: Duration = Duration::from_secs(5);

/// How long the last tasks may take to notice that the runtime ends.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Why a [`Local`] could not say what it has stored: the disk is full, the file is damaged, or a result is too
/// large.
#[derive(Clone, Debug, Error)]
#[error(transparent)]
pub struct StorageError(#[from] EngineError);

/// A Stride that runs on this machine, on its own thread.
///
/// Dropping it is like pulling the plug: connections are cut. [`stop`](Self::stop) ends it
/// properly. Both return when the port is free.
pub struct Local {
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("addr", &self.shared.addr).finish_non_exhaustive()
    }
}

impl Local {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: UnboundedSender<Command>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { shared, commands, thread: Some(thread) }
    }

    /// Starts a server on a free loopback port, with the secret key `secret_key`.
    ///
    /// # Errors
    ///
    /// The system gives no port or no thread.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Options for a server.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Where clients send their requests, version included: what `STRIDE_ENDPOINT` holds.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.shared.addr)
    }

    /// The address that is listened on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// The key that may do everything.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.shared.keys.secret
    }

    /// The key that may only write events, if there is one.
    #[must_use]
    pub fn open_key(&self) -> Option<&str> {
        self.shared.keys.open.as_deref()
    }

    /// The names of all streams, sorted.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn streams(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.shared.engine.streams()?)
    }

    /// How many events were ever stored in this stream; 0 if there is none of that name.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn count(&self, stream: &str) -> Result<u64, StorageError> {
        Ok(found(self.shared.engine.stream(stream))?.map_or(0, |summary| summary.count))
    }

    /// The events that this stream still holds, the oldest first, with `$id` and `$timestamp`; none if there is
    /// no stream of that name.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn events(&self, stream: &str) -> Result<Vec<Value>, StorageError> {
        const MOST: PageLimit = PageLimit { events: 10_000, bytes: 1024 * 1024 };
        let engine = &self.shared.engine;
        let mut position = engine.position(stream, Start::Oldest)?;
        let mut all = Vec::new();
        loop {
            let page = match engine.events_after(stream, position, MOST) {
                // It was deleted meanwhile.
                Err(EngineError::Gone(_)) => return Ok(all),
                page => page?,
            };
            if page.events.ends.is_empty() {
                return Ok(all);
            }
            for event in page.events.iter() {
                all.push(json(event)?);
            }
            position = page.end;
        }
    }

    /// The names of all processes, sorted.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn processes(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.shared.engine.processes()?)
    }

    /// The rows that this process has now, as queries see them; none if there is none of that name. A process
    /// that is recomputed lags behind its streams: see [`wait_until`](Self::wait_until).
    ///
    /// # Errors
    ///
    /// The storage failed, or there are more rows than a query may return.
    pub fn rows(&self, process: &str) -> Result<Vec<Value>, StorageError> {
        let engine = &self.shared.engine;
        match found(engine.process(process))? {
            Some(_) => json(&engine.query(&format!("SELECT * FROM \"{process}\""), &[])?.json),
            None => Ok(Vec::new()),
        }
    }

    /// How many are subscribed to the changes of this process now.
    #[must_use]
    pub fn process_subscribers(&self, process: &str) -> usize {
        self.shared.subscribers.of(Source::Process, process)
    }

    /// How many are subscribed to this stream now.
    #[must_use]
    pub fn subscribers(&self, stream: &str) -> usize {
        self.shared.subscribers.of(Source::Stream, stream)
    }

    /// How many subscriptions are open now, over all streams and processes.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.subscribers.count_all()
    }

    /// How many events the subscribers of this stream missed in total because retention overtook them.
    #[must_use]
    pub fn lost(&self, stream: &str) -> u64 {
        self.shared.subscribers.lost(Source::Stream, stream)
    }

    /// How many requests have arrived so far, including those that met a fault.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.counters.requests.load(Ordering::Relaxed)
    }

    /// How many connections have been accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.counters.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.counters.open.load(Ordering::Relaxed)
    }

    /// Waits until `done` returns `true`, at most `within`, and returns its last result. It is called again
    /// whenever something changes that this type has a method for. Blocks the thread: in a test on a
    /// current-thread runtime, use `spawn_blocking`.
    pub fn wait_until(&self, within: Duration, done: impl Fn(&Self) -> bool) -> bool {
        self.shared.changes.wait_until(within, || done(self))
    }

    /// Lets something go wrong from now on, until [`clear_faults`](Self::clear_faults).
    ///
    /// # Panics
    ///
    /// If the status of a [`Fault::Status`] is not from 200 to 999.
    pub fn fault(&self, fault: Fault) {
        self.set(fault, None);
    }

    /// Lets something go wrong `times` times. [`Fault::Refuse`] cannot be counted and lasts until [`clear_faults`](Self::clear_faults).
    ///
    /// # Panics
    ///
    /// If the status of a [`Fault::Status`] is not from 200 to 999.
    pub fn fault_times(&self, fault: Fault, times: u32) {
        if times > 0 {
            self.set(fault, Some(times));
        }
    }

    fn set(&self, fault: Fault, times: Option<u32>) {
        match fault {
            Fault::Refuse => return self.tell(|done| Command::Refuse { done }),
            Fault::Status { status, .. } => {
                let valid = StatusCode::from_u16(status).is_ok_and(|it| !it.is_informational());
                assert!(valid, "{status} is not a status of a response");
            }
            _ => {}
        }
        self.shared.faults.add(fault, times);
    }

    /// Ends all faults. Requests that they have already hit stay as they are: a stalled one gets no response.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
        self.tell(|done| Command::Accept { done });
    }

    /// Cuts every open connection, as a restart of the server would.
    pub fn disconnect(&self) {
        self.tell(|done| Command::Disconnect { done });
    }

    /// Has the server's thread do something, and waits until it is done.
    fn tell(&self, command: impl FnOnce(mpsc::Sender<()>) -> Command) {
        let (done, is_done) = mpsc::channel();
        if self.commands.send(command(done)).is_ok() {
            // Nothing is ever sent: the sender is dropped when it is done.
            let _ = is_done.recv();
        }
    }

    /// Ends the server: it accepts no new connections, open requests finish, and subscribers get what waits for
    /// them and then a clean end. What is not done after 5 seconds is cut off.
    pub fn stop(self) {
        self.stop_within(GRACE);
    }

    /// [`stop`](Self::stop) with another limit.
    pub fn stop_within(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread has ended already.
            drop(self.commands.send(Command::Stop { grace }));
            if thread.join().is_err() {
                tracing::error!("the server's thread panicked");
            }
        }
    }
}

impl Builder {
    /// Starts the server. When this returns, it can be connected to.
    ///
    /// # Errors
    ///
    /// The server cannot listen on the address, a key is empty or holds a `:`, both keys are the same, the
    /// file cannot be opened or another server has it open, or the system gives no thread.
    pub fn start(self) -> io::Result<Local> {
        check_keys(&self.keys)?;
        let listener = TcpListener::bind(self.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = if self.threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(self.threads).thread_name("stride-local-worker");
            builder
        }
        .enable_io()
        .enable_time()
        .build()?;
        let subscribers = Arc::new(Hub::new(self.limits.subscriber_buffer));
        let changes = Arc::new(Changes::default());
        let rates = Arc::new(Rates::default());
        let announcer = Announcer {
            subscribers: Arc::clone(&subscribers),
            rates: Arc::clone(&rates),
            changes: Arc::clone(&changes),
        };
        let engine = self.open(Arc::new(announcer))?;
        let shared = Arc::new(Shared {
            addr,
            keys: self.keys,
            rooms: Rooms::new(&self.limits)?,
            limits: self.limits,
            engine,
            subscribers,
            rates,
            faults: Faults::default(),
            counters: Counters::default(),
            changes,
        });
        let (commands, received) = tokio::sync::mpsc::unbounded_channel();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let server = accept::run(listener, Arc::clone(&shared), received);
        let engine = Arc::clone(&shared.engine);
        let thread =
            std::thread::Builder::new().name("stride-local".to_owned()).spawn(move || {
                runtime.block_on(server);
                runtime.shutdown_timeout(LAST_TASKS);
                engine.close();
            })?;
        tracing::info!(%addr, "listening");
        Ok(Local::new(shared, commands, thread))
    }
}

impl Builder {
    /// Opens what everything is kept in.
    fn open(&self, listener: Arc<dyn Listener>) -> io::Result<SharedEngine> {
        #[cfg(feature = "postgres")]
        if let Some(Database { url, reader }) = &self.database {
            if self.data.is_some() {
                let why = "everything is kept in a file or in a database, not in both";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let reader = reader.as_deref();
            return Ok(Arc::new(Postgres::open(url, reader, &self.limits, listener)?));
        }
        Ok(Arc::new(Sqlite::open(self.data.as_deref(), &self.limits, listener)?))
    }
}

fn check_keys(keys: &Keys) -> io::Result<()> {
    let bad = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    for key in std::iter::once(&keys.secret).chain(&keys.open) {
        if key.is_empty() {
            return bad("a key is empty");
        }
        // In HTTP Basic a colon ends the user name, which is where the key travels.
        if key.contains(':') {
            return bad("a key holds a colon");
        }
    }
    if keys.open.as_ref() == Some(&keys.secret) {
        return bad("the open key is the secret key");
    }
    Ok(())
}

/// What the engine has, if there is something of that name.
fn found<T>(has: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match has {
        Err(EngineError::NotFound(_)) => Ok(None),
        has => has.map(Some),
    }
}

fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(text).map_err(|error| {
        StorageError(EngineError::Damaged(format!("the storage holds bad JSON: {error}")))
    })
}

impl Drop for Local {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
