//! The settings of a collector.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stride_core::gzip::GzipLevel;
#[cfg(feature = "tokio")]
use stride_core::transport::AsyncTarget;
use stride_core::transport::Target;

use crate::Collector;
use crate::report::Lost;
use crate::request;
use crate::shared::{OnLost, Shared};
use crate::stamp;
use crate::stream::OVERHEAD;
#[cfg(feature = "tokio")]
use crate::task::{self, Senders};
use crate::thread;

/// What a collector goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) flush_interval: Duration,
    pub(crate) batch_size: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) concurrency: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) memory_budget: usize,
    pub(crate) max_event: usize,
    pub(crate) gzip_level: GzipLevel,
    pub(crate) stamp: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(250),
            batch_size: 1000,
            batch_bytes: 1 << 20,
            concurrency: 2,
            request_timeout: Duration::from_secs(5),
            memory_budget: 64 << 20,
            max_event: 1 << 20,
            gzip_level: GzipLevel::FASTEST,
            stamp: false,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), StartError> {
        let hour = Duration::from_secs(3600);
        let gigabyte = 1 << 30;
        let wrong = |setting, reason| Err(StartError::Setting { setting, reason });
        if self.flush_interval.is_zero() || self.flush_interval > hour {
            return wrong("flush_interval", "is not between 1 ns and 1 h");
        }
        if self.batch_size == 0 || self.batch_size > 1_000_000 {
            return wrong("batch_size", "is not between 1 and 1,000,000 events");
        }
        if self.batch_bytes < 1 << 10 || self.batch_bytes > gigabyte {
            return wrong("batch_bytes", "is not between 1 KiB and 1 GiB");
        }
        if self.concurrency == 0 || self.concurrency > 256 {
            return wrong("concurrency", "is not between 1 and 256");
        }
        if self.request_timeout.is_zero() || self.request_timeout > hour {
            return wrong("request_timeout", "is not between 1 ns and 1 h");
        }
        if self.max_event < 2 || self.max_event > gigabyte {
            return wrong("max_event", "is not between 2 bytes and 1 GiB");
        }
        let stamp = if self.stamp { stamp::LONGEST } else { 0 };
        // With the comma before it.
        if self.memory_budget < self.max_event + stamp + 1 + OVERHEAD {
            return wrong("memory_budget", "has no room for one event of max_event bytes");
        }
        Ok(())
    }
}

/// Why a collector could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    #[error("{setting} {reason}")]
    Setting {
        /// The name of the setting, as the builder calls it.
        setting: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// The operating system gave no thread.
    #[error("a sender thread cannot be started")]
    Thread(#[source] io::Error),
    /// An `AsyncCollector` is started in a tokio runtime, as whose tasks it runs.
    #[error("there is no tokio runtime here to run in")]
    NoRuntime,
}

/// The settings of a collector that is about to be started, a [`Collector`] or an `AsyncCollector`;
/// see [`Collector::builder`].
///
/// The defaults are those of the original Python client, pystride, where it had the setting.
///
/// ```
/// # fn example(target: stride_core::transport::Target) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use stride_collector::Collector;
///
/// let collector = Collector::builder()
///     .flush_interval(Duration::from_millis(100))
///     .memory_budget(16 << 20)
///     .on_lost(|lost| eprintln!("{} events of {} {}", lost.count, lost.stream, lost.reason))
///     .start(target)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it is started"]
pub struct Builder<C = Collector> {
    settings: Settings,
    on_lost: Option<OnLost>,
    starts: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<C> Builder<C> {
    pub(crate) fn new() -> Self {
        Self { settings: Settings::default(), on_lost: None, starts: PhantomData }
    }

    /// How long an event waits for others at most before its batch is sent, counted from the
    /// batch's first event: 250 ms, as pystride; at most an hour.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// How many events a batch has at most: 1000, as pystride; at most 1,000,000. Batches of 200
    /// make a collector four times slower.
    pub fn batch_size(mut self, events: usize) -> Self {
        self.settings.batch_size = events;
        self
    }

    /// How long a batch is at most, in bytes of JSON before compression: 1 MiB; from 1 KiB to
    /// 1 GiB. A single event that is longer is sent alone.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// How many requests are in flight at most, and how many threads or tasks send them: 2, as
    /// pystride; at most 256. The second more than doubles what one reaches; more pay only on slow
    /// networks.
    pub fn concurrency(mut self, senders: usize) -> Self {
        self.settings.concurrency = senders;
        self
    }

    /// How long a request may take, its answer included: 5 s, as pystride; at most an hour.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// How much memory the held events may take, in bytes: 64 MiB, over open and closed batches,
    /// compressed ones and those in flight. When it is used up, `collect` returns
    /// [`CollectError::Full`](crate::CollectError::Full).
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.settings.memory_budget = bytes;
        self
    }

    /// How long an event may be, in bytes of JSON: 1 MiB; at most 1 GiB.
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.settings.max_event = bytes;
        self
    }

    /// How hard to compress: [`GzipLevel::FASTEST`].
    pub fn gzip_level(mut self, level: GzipLevel) -> Self {
        self.settings.gzip_level = level;
        self
    }

    /// Whether `collect` gives each event a `$id`, unique across processes, and a `$timestamp`, the
    /// time of the call in RFC 3339; not by default. Those that an event has are kept.
    ///
    /// A batch may be sent twice, when its answer is lost on the way; Stride stores events with the
    /// same id once. It costs a look at the clock and some 90 bytes per event.
    pub fn stamp(mut self, stamp: bool) -> Self {
        self.settings.stamp = stamp;
        self
    }

    /// What to do with events that are lost: called once for each stream and batch, with the events
    /// as they were or would have been sent. Without it, losses are counted and logged.
    ///
    /// It runs on a sender's thread (at the deadline of a `stop`, on the thread that stops), under no
    /// lock, so it may take its time and call `collect`; a sender that runs it sends nothing
    /// meanwhile. An `AsyncCollector` runs it on a thread that its runtime has for blocking work; but
    /// when the runtime is shut down, on one of those that do that, where it must not wait for the
    /// runtime.
    ///
    /// A panic in it harms nothing. `flush` waits for it, within its deadline; `stop` does, too, but
    /// what is lost at its deadline is handed over before it returns, however long that takes. Called
    /// from inside of it, they would wait for themselves. A collector that it owns is never dropped.
    pub fn on_lost(mut self, on_lost: impl Fn(&Lost) + Send + Sync + 'static) -> Self {
        self.on_lost = Some(Box::new(on_lost));
        self
    }
}

impl Builder<Collector> {
    /// Starts the collector with threads of its own.
    ///
    /// # Errors
    ///
    /// A setting that cannot be used, or the operating system gave no thread.
    pub fn start(self, target: impl Into<Target>) -> Result<Collector, StartError> {
        let Self { settings, on_lost, .. } = self;
        settings.check()?;
        let target = target.into();
        let shared = Arc::new(Shared::new(settings, on_lost, Instant::now));
        for number in 0..settings.concurrency {
            let sender = thread::Sender {
                number,
                shared: Arc::clone(&shared),
                target: target.clone(),
                gzip_level: settings.gzip_level,
                limits: request::limits(settings.request_timeout),
            };
            if let Err(error) = sender.spawn() {
                // Ends those that run already.
                shared.stop();
                return Err(StartError::Thread(error));
            }
        }
        Ok(Collector::new(shared))
    }
}

#[cfg(feature = "tokio")]
impl Builder<crate::AsyncCollector> {
    /// Starts the collector as tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// A setting that cannot be used, or there is no tokio runtime here.
    ///
    /// # Panics
    ///
    /// As tokio does, if the runtime's time is not enabled.
    pub fn start(
        self,
        target: impl Into<AsyncTarget>,
    ) -> Result<crate::AsyncCollector, StartError> {
        let Self { settings, on_lost, .. } = self;
        settings.check()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        // Panics here, at the call that can be mended, rather than in a task.
        drop(tokio::time::sleep(Duration::ZERO));
        let target = target.into();
        let shared = Arc::new(Shared::new(settings, on_lost, task::now));
        let senders = Arc::new(Senders(Arc::clone(&shared)));
        for number in 0..settings.concurrency {
            let sender = task::Sender {
                number,
                senders: Arc::clone(&senders),
                target: target.clone(),
                gzip_level: settings.gzip_level,
                limits: request::limits(settings.request_timeout),
            };
            sender.spawn(&runtime);
        }
        Ok(crate::AsyncCollector::new(shared))
    }
}
