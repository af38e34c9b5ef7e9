//! The settings of a server, and its start.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::changes::Changes;
use crate::engine::sqlite::read::QueryLimits;
use crate::engine::sqlite::retention::Retention;
use crate::engine::sqlite::storage::OpenShare;
use crate::engine::sqlite::{Settings, Sqlite};
use crate::http::accept;
use crate::http::auth::Keys;
use crate::http::faults::Faults;
use crate::http::limits::{Limits, Rooms};
use crate::http::metrics::Counters;
use crate::local::Local;
use crate::shared::Shared;
use crate::subscribers::Announcer;
use crate::subscribers::hub::Hub;

/// How long the last tasks may take to notice that the runtime ends.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Settings of a [`Local`] before its start, made by [`Local::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    listen: SocketAddr,
    keys: Keys,
    threads: usize,
    keep_alive: Duration,
    limits: Limits,
    subscriber_buffer: usize,
    storage: Settings,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            keys: Keys { secret: "secret_key".to_owned(), open: None, open_streams: None },
            threads: 1,
            keep_alive: Duration::from_secs(5),
            limits: Limits::default(),
            subscriber_buffer: 32 * MIB,
            storage: Settings {
                path: None,
                retention: Retention {
                    events: 1_000_000,
                    bytes: 256 * 1024 * 1024,
                    age: Duration::from_secs(30 * 24 * 60 * 60),
                },
                limits: QueryLimits {
                    time: Duration::from_secs(10),
                    rows: 100_000,
                    bytes: 64 * MIB,
                },
                open_share: OpenShare { streams: 1000, bytes: 4 * 1024 * 1024 * 1024 },
            },
        }
    }

    /// Where to listen; port 0 is any free port. By default `127.0.0.1:0`.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// The key that may do everything. By default `secret_key`, as in pystride's README.
    pub fn secret_key(mut self, key: impl Into<String>) -> Self {
        self.keys.secret = key.into();
        self
    }

    /// A key that may only `POST` to `/collect`. By default there is none.
    pub fn open_key(mut self, key: impl Into<String>) -> Self {
        self.keys.open = Some(key.into());
        self
    }

    /// Holds the open key to these streams: events for another are refused with 403. By default it may write to
    /// any, and make 1,000 new ones; past those it gets a 507.
    pub fn open_streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.keys.open_streams = Some(streams.into_iter().map(Into::into).collect());
        self
    }

    /// How large the database may become by what the open key writes, in bytes. From there on the open key gets a
    /// 507, until events grow old or something is deleted; the secret key can still write. By default 4 GiB.
    pub fn max_open_bytes(mut self, bytes: usize) -> Self {
        self.storage.open_share.bytes = bytes as u64;
        self
    }

    /// How many threads serve connections. By default one, which leaves the rest of the machine to
    /// the program that embeds the server. Queries and large bodies have threads besides.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How long a subscription is silent before it is sent an empty line. By default 5 seconds.
    pub fn keep_alive(mut self, every: Duration) -> Self {
        self.keep_alive = every.max(Duration::from_millis(1));
        self
    }

    /// How large the body of a request may be as sent, in bytes. By default 16 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.limits.max_body = bytes;
        self
    }

    /// How large a body may be once it is inflated, in bytes; the events may take twice this once
    /// they have their `$id` and `$timestamp`. By default 64 MiB.
    pub fn max_inflated(mut self, bytes: usize) -> Self {
        self.limits.max_inflated = bytes;
        self
    }

    /// How long the body of a request may take to arrive. By default 60 seconds.
    pub fn body_time(mut self, limit: Duration) -> Self {
        self.limits.body_time = limit;
        self
    }

    /// How long a client may take to send the head of a request, including the silence before it. A
    /// head that stops half-way then gets a 408; a connection without one is closed. By
    /// default 60 seconds.
    pub fn head_time(mut self, limit: Duration) -> Self {
        self.limits.head_time = limit;
        self
    }

    /// How long a request may take in all, from its head to the head of its response. One that takes
    /// longer gets a 503; what it was to store may still be stored. By default 120
    /// seconds.
    pub fn request_time(mut self, limit: Duration) -> Self {
        self.limits.request_time = limit;
        self
    }

    /// How long a client may read nothing of what it is sent, a response or a subscription, before its
    /// connection is closed. By default 5 minutes.
    pub fn write_time(mut self, limit: Duration) -> Self {
        self.limits.write_time = limit;
        self
    }

    /// How many connections may be open at once. One more gets a 503 and is closed. By
    /// default 512.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// The file to keep everything in; it is created if it does not exist, and two more files lie beside it.
    /// Whatever got a 200 is in it, even if the server is killed, and on the disk, even if the machine stops,
    /// provided that the disk keeps its promises.
    ///
    /// By default there is no such file: everything is kept in a temporary folder, and gone with the server.
    pub fn data(mut self, file: impl Into<PathBuf>) -> Self {
        self.storage.path = Some(file.into());
        self
    }

    /// How long a stream keeps an event after it was stored. By default 30 days.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.storage.retention.age = age;
        self
    }

    /// How long a query may take. By default 10 seconds.
    pub fn query_time(mut self, limit: Duration) -> Self {
        self.storage.limits.time = limit;
        self
    }

    /// How many rows the result of a query may have. By default 100,000.
    pub fn query_rows(mut self, rows: usize) -> Self {
        self.storage.limits.rows = rows;
        self
    }

    /// How many events a stream keeps. Past it the oldest go, and with them the memory of their
    /// ids. By default 1,000,000.
    pub fn max_events(mut self, events: usize) -> Self {
        self.storage.retention.events = events as u64;
        self
    }

    /// How many bytes of events a stream keeps. Past it the oldest go. By default 256 MiB.
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.storage.retention.bytes = bytes as u64;
        self
    }

    /// How many bytes of events may wait for one subscriber. What comes past it is lost to that
    /// subscriber, and counted by [`Local::lost`]. By default 32 MiB.
    pub fn subscriber_buffer(mut self, bytes: usize) -> Self {
        self.subscriber_buffer = bytes;
        self
    }

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
        let subscribers = Arc::new(Hub::new(self.subscriber_buffer));
        let changes = Arc::new(Changes::default());
        let announcer =
            Announcer { subscribers: Arc::clone(&subscribers), changes: Arc::clone(&changes) };
        let engine = Sqlite::open(&self.storage, Arc::new(announcer))?;
        let shared = Arc::new(Shared {
            addr,
            keys: self.keys,
            rooms: Rooms::new(&self.limits)?,
            limits: self.limits,
            keep_alive: self.keep_alive,
            engine: Arc::new(engine),
            subscribers,
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
