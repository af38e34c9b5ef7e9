//! The settings of a server: what they are called, what they mean and what they are by default.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::http::auth::Keys;

/// Settings of a [`Local`](crate::Local) before its start, made by [`Local::builder`](crate::Local::builder).
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) listen: SocketAddr,
    pub(crate) keys: Keys,
    pub(crate) threads: usize,
    pub(crate) data: Option<PathBuf>,
    #[cfg(feature = "postgres")]
    pub(crate) database: Option<Database>,
    pub(crate) limits: Limits,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            keys: Keys { secret: "secret_key".to_owned(), open: None, open_streams: None },
            threads: 1,
            data: None,
            #[cfg(feature = "postgres")]
            database: None,
            limits: Limits::default(),
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

    /// How many threads serve connections. By default one, which leaves the rest of the machine to
    /// the program that embeds the server. Queries and large bodies have threads besides.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The file to keep everything in; it is created if it does not exist, and two more files lie beside it.
    /// Whatever got a 200 is in it, even if the server is killed, and on the disk, even if the machine stops,
    /// provided that the disk keeps its promises.
    ///
    /// By default there is no such file: everything is kept in a temporary folder, and gone with the server.
    pub fn data(mut self, file: impl Into<PathBuf>) -> Self {
        self.data = Some(file.into());
        self
    }

    /// The PostgreSQL database to keep everything in, in the place of a file: `postgres://user@host/database`. Any
    /// number of servers can share it. `reader`: the URL of the login by which queries run; it needs no privileges, and
    /// is given that of reading. Without one they run by the same login, in transactions that only read.
    #[cfg(feature = "postgres")]
    pub fn database(mut self, url: impl Into<String>, reader: Option<String>) -> Self {
        self.database = Some(Database { url: url.into(), reader });
        self
    }
}

/// A PostgreSQL database, by the URLs of its logins.
#[cfg(feature = "postgres")]
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) reader: Option<String>,
}

/// A limit, as the command line has it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limit {
    /// The option, without dashes.
    pub flag: &'static str,
    /// What its number counts: `N`, `MIB`, `SECONDS` or `DAYS`.
    pub unit: &'static str,
    /// The number that it is by default.
    pub default: &'static str,
    /// What it bounds, and what happens past it.
    pub meaning: &'static str,
    /// Whether it bounds what is stored, and not what clients may take.
    pub is_of_storage: bool,
    /// The least it can be.
    pub least: u64,
    /// Sets it to so many of its unit.
    pub set: fn(Builder, u64) -> Builder,
}

/// What the number of a limit counts.
trait Unit {
    type Value;
    const NAME: &str;
    /// A time of nothing would let nothing through.
    const LEAST: u64 = 0;

    fn value(number: u64) -> Self::Value;
}

struct Count;
struct Mib;
struct Seconds;
struct Days;

impl Unit for Count {
    type Value = usize;
    const NAME: &str = "N";

    fn value(number: u64) -> usize {
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

impl Unit for Mib {
    type Value = usize;
    const NAME: &str = "MIB";

    fn value(number: u64) -> usize {
        Count::value(number.saturating_mul(1024 * 1024))
    }
}

impl Unit for Seconds {
    type Value = Duration;
    const NAME: &str = "SECONDS";
    const LEAST: u64 = 1;

    fn value(number: u64) -> Duration {
        Duration::from_secs(number)
    }
}

impl Unit for Days {
    type Value = Duration;
    const NAME: &str = "DAYS";

    fn value(number: u64) -> Duration {
        Duration::from_secs(number.saturating_mul(24 * 60 * 60))
    }
}

/// The type of a limit of a unit, and what follows its default in the docs.
macro_rules! of_unit {
    (type Count) => {
        usize
    };
    (type Mib) => {
        usize
    };
    (type Seconds) => {
        Duration
    };
    (type Days) => {
        Duration
    };
    (words Count) => {
        "."
    };
    (words Mib) => {
        " MiB; it is set in bytes."
    };
    (words Seconds) => {
        " seconds."
    };
    (words Days) => {
        " days."
    };
}

/// All that there is to know of each limit stands in one place: its method, its option, its unit, its default and what it means.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident, $flag:literal, $unit:ident = $default:literal, $storage:literal;)+) => {
        /// What a server is held to.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct Limits {
            $($(#[doc = $doc])+ pub(crate) $name: of_unit!(type $unit),)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $unit::value($default),)+ }
            }
        }

        /// Limits. Each is an option of the program, too: see [`Builder::LIMITS`].
        impl Builder {
            $(
                $(#[doc = $doc])+
                ///
                #[doc = concat!("By default ", stringify!($default), of_unit!(words $unit))]
                pub fn $name(mut self, value: of_unit!(type $unit)) -> Self {
                    self.limits.$name = value;
                    self
                }
            )+

            /// All limits, for a program that takes them as options.
            pub const LIMITS: &[Limit] = &[$(Limit {
                flag: $flag,
                unit: $unit::NAME,
                default: concat!($default),
                meaning: concat!($($doc),+),
                is_of_storage: $storage,
                least: $unit::LEAST,
                set: |builder, number| builder.$name($unit::value(number)),
            }),+];
        }
    };
}

limits! {
    /// How many of its last events a stream keeps. Past it the oldest go, and with them the memory of their ids.
    max_events, "max-events", Count = 1_000_000, true;

    /// How much of its last events a stream keeps. Past it the oldest go.
    max_event_bytes, "max-event-mib", Mib = 256, true;

    /// How long a stream keeps an event after it was stored.
    max_age, "max-days", Days = 30, true;

    /// How many distinct values a process may keep to count them, over all its groups. Past it the process stops: it
    /// shows what it had before, says so in its `stats`, and goes on once it may keep more.
    max_distinct, "max-distinct", Count = 10_000_000, true;

    /// How large the database may become by what the open key writes. From there on the open key gets a 507, until
    /// events grow old or something is deleted; the secret key can still write.
    max_open_bytes, "max-open-mib", Mib = 4096, true;

    /// How long a subscription is silent before it is sent an empty line.
    keep_alive, "keep-alive", Seconds = 5, false;

    /// How many connections may be open at once. One more gets a 503 and is closed.
    max_connections, "max-connections", Count = 512, false;

    /// How large the body of a request may be as sent.
    max_body, "max-body-mib", Mib = 16, false;

    /// How large a body may be once it is inflated; the events may take twice this once they have their `$id` and
    /// `$timestamp`.
    max_inflated, "max-inflated-mib", Mib = 64, false;

    /// How much may wait for one subscriber. A subscriber of a stream reads what comes past it from the storage; to
    /// others it is lost, and counted.
    subscriber_buffer, "subscriber-buffer-mib", Mib = 32, false;

    /// How long a query may take.
    query_time, "query-time", Seconds = 10, false;

    /// How many rows the result of a query may have.
    query_rows, "query-rows", Count = 100_000, false;

    /// How large the result of a query may be.
    query_bytes, "query-mib", Mib = 64, false;

    /// How long a client may take to send the head of a request, including the silence before it. A head that stops
    /// half-way then gets a 408; a connection without one is closed.
    head_time, "head-time", Seconds = 60, false;

    /// How long the body of a request may take to arrive.
    body_time, "body-time", Seconds = 60, false;

    /// How long a request may take in all, from its head to the head of its response. One that takes longer gets a
    /// 503; what it was to store may still be stored.
    request_time, "request-time", Seconds = 120, false;

    /// How long a client may read nothing of what it is sent, a response or a subscription, before its connection is
    /// closed.
    write_time, "write-time", Seconds = 300, false;
}
