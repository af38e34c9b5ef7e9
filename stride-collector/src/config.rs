//! The settings of a collector.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stride_core::gzip::GzipLevel;
#[cfg(feature = "tokio")]
use stride_core::transport::AsyncTarget;
use stride_core::transport::Target;
use stride_core::{Api, ConfigError};

use crate::Collector;
use crate::activity::Activity;
use crate::batcher::{BATCH_COST, SpoolMode};
use crate::error::StartError;
use crate::intake::stamp;
use crate::intake::stream::STREAM_COST;
use crate::report::LostBatch;
#[cfg(feature = "tokio")]
use crate::sender::tasks::{self, Senders};
use crate::sender::{limits, threads};
use crate::shared::{Callbacks, Shared};
#[cfg(feature = "spool")]
use crate::spool::{Opened, Spool};

/// All settings.
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
    pub(crate) retry_for: Duration,
    pub(crate) ordered: bool,
    pub(crate) spool: Option<SpoolMode>,
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
            retry_for: Duration::from_secs(120),
            ordered: false,
            spool: None,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        let hour = Duration::from_secs(3600);
        let gigabyte = 1 << 30;
        let wrong = |setting, reason| Err(ConfigError::Setting { setting, reason });
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
        if self.retry_for.is_zero() || self.retry_for > hour * 24 {
            return wrong("retry_for", "is not between 1 ns and 24 h");
        }
        if self.max_event < 2 || self.max_event > gigabyte {
            return wrong("max_event", "is not between 2 bytes and 1 GiB");
        }
        let stamp = if self.stamp { stamp::LONGEST } else { 0 };
        // With the comma before it.
        if self.memory_budget < self.max_event + stamp + 1 + BATCH_COST + STREAM_COST {
            return wrong("memory_budget", "has no room for one event of max_event bytes");
        }
        Ok(())
    }
}

/// Settings for a [`Collector`] or an `AsyncCollector`; see [`Collector::builder`].
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
#[derive(Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder<C = Collector> {
    settings: Settings,
    callbacks: Callbacks,
    #[cfg(feature = "spool")]
    spool: Option<Spool>,
    starts: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<C> Builder<C> {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            callbacks: Callbacks::default(),
            #[cfg(feature = "spool")]
            spool: None,
            starts: PhantomData,
        }
    }

    /// The longest time that an event waits for others before its batch is sent, counted from the
    /// batch's first event. 250 ms by default, as in pystride; at most an hour.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// The largest number of events in a batch. 1000 by default, as in pystride; at most 1,000,000.
    pub fn batch_size(mut self, events: usize) -> Self {
        self.settings.batch_size = events;
        self
    }

    /// The greatest length of a batch, in bytes of JSON before compression. 1 MiB by default; from
    /// 1 KiB to 1 GiB. A single event that is longer is sent alone.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// The number of threads or tasks that send, and so of requests in flight. 2 by default, as in
    /// pystride; at most 256. More than two pay only on slow networks.
    pub fn concurrency(mut self, senders: usize) -> Self {
        self.settings.concurrency = senders;
        self
    }

    /// How long a request may take, response included. 5 s by default, as in pystride; at most an hour.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// How long events are retried before they are lost. 120 s by default; at most a day. The time of a
    /// pause that the server asks for with `Retry-After` is not counted, up to 300 s; and nothing is
    /// lost before it was tried once.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.settings.retry_for = time;
        self
    }

    /// Whether the events of a stream arrive in the order in which they were accepted; not by default.
    /// Then a stream has one request in flight at a time, and a batch that has to be retried holds up
    /// those behind it. Streams do not wait for each other.
    ///
    /// What is lost is missing, and what was stored although the response was lost is sent again; for a
    /// reader that knows each event by its `$id` (see [`stamp`](Self::stamp)), the order holds over
    /// retries, narrowing and restarts of the server.
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.settings.ordered = ordered;
        self
    }

    /// A folder on disk for events that memory cannot hold, or that must survive the end of the process;
    /// none by default. The [guide](crate::guide::spool) says what each mode promises.
    #[cfg(feature = "spool")]
    pub fn spool(mut self, spool: Spool) -> Self {
        self.settings.spool = Some(spool.mode);
        self.settings.stamp |= spool.mode == SpoolMode::WriteAhead;
        self.spool = Some(spool);
        self
    }

    /// How much memory the collector may take, in bytes: events in open batches, closed ones, compressed
    /// ones and those in flight, and what it has to know of their streams. 64 MiB by default. When it is
    /// used up, `collect` returns [`CollectError::Full`](crate::CollectError::Full).
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.settings.memory_budget = bytes;
        self
    }

    /// The greatest length of an event, in bytes of JSON. 1 MiB by default; at most 1 GiB.
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.settings.max_event = bytes;
        self
    }

    /// How hard to compress. [`GzipLevel::FASTEST`] by default.
    pub fn gzip_level(mut self, level: GzipLevel) -> Self {
        self.settings.gzip_level = level;
        self
    }

    /// Whether `collect` gives each event a `$id`, unique across processes, and a `$timestamp`, the
    /// time of the call in RFC 3339; not by default. Those that an event has are kept.
    ///
    /// A batch may be sent twice, when the response to it is lost on the way; Stride stores events with
    /// the same id once. It costs a reading of the clock and some 90 bytes per event.
    pub fn stamp(mut self, stamp: bool) -> Self {
        self.settings.stamp = stamp;
        self
    }

    /// What to do with lost events: called once for each stream and batch, with the events as they were
    /// or would have been sent. Without it, losses are counted and logged.
    ///
    /// It runs on a sender's thread (at the deadline of a `stop`, on the thread that stops), without a
    /// lock, so it may take its time and call `collect`; the sender that runs it sends nothing
    /// meanwhile. An `AsyncCollector` runs it on its runtime's threads for blocking work, except when
    /// the runtime is shut down: then on a thread that does that, where it must not wait for the
    /// runtime.
    ///
    /// A panic in it is caught. `flush` and `stop` wait for it, within their deadline; but what is lost
    /// at the deadline of a `stop` is handed over before that returns, however long it takes. Do not
    /// call them from inside of it: they would wait for themselves. A collector that it owns is never
    /// dropped.
    pub fn on_lost(mut self, on_lost: impl Fn(&LostBatch) + Send + Sync + 'static) -> Self {
        self.callbacks.on_lost = Some(Arc::new(on_lost));
        self
    }

    /// What to do with all that happens: called with each [`Activity`](crate::Activity), for counters
    /// and alerts. [`stats`](crate::Intake::stats) has most figures without it.
    ///
    /// It runs where the collector works: on a sender's thread or in its task, or on the thread that
    /// stops. So it must not block; but it holds no lock, may call `collect`, and a panic in it is
    /// caught. `flush` and `stop` do not wait for it. Do not call them from inside of it.
    pub fn observer(mut self, observer: impl Fn(&Activity) + Send + Sync + 'static) -> Self {
        self.callbacks.observer = Some(Arc::new(observer));
        self
    }
}

impl<C> Builder<C> {
    /// Checks the settings, and opens the spool. Its thread runs when the senders do.
    fn open(&self, api: &Api, now: fn() -> Instant) -> Result<Arc<Shared>, StartError> {
        self.settings.check()?;
        let shared = Shared::new(self.settings, self.callbacks.clone(), now);
        #[cfg(feature = "spool")]
        if let Some(spool) = &self.spool {
            spool.check(self.settings.ordered)?;
            let opened = Opened::new(spool, api.base()).map_err(StartError::Spool)?;
            let (spooler, thread) = opened.into_parts();
            let shared = Arc::new(shared.with_spool(spooler));
            thread.spawn(Arc::clone(&shared)).map_err(StartError::Thread)?;
            return Ok(shared);
        }
        #[cfg(not(feature = "spool"))]
        let _ = api;
        Ok(Arc::new(shared))
    }
}

impl Builder<Collector> {
    /// Starts the collector on its own threads.
    ///
    /// # Errors
    ///
    /// A setting cannot be used, or the operating system could not start a thread.
    pub fn start(self, target: impl Into<Target>) -> Result<Collector, StartError> {
        let (settings, target) = (self.settings, target.into());
        let shared = self.open(&target.api, Instant::now)?;
        for number in 0..settings.concurrency {
            let sender = threads::Sender {
                number,
                shared: Arc::clone(&shared),
                target: target.clone(),
                gzip_level: settings.gzip_level,
                limits: limits(settings.request_timeout),
            };
            if let Err(error) = sender.spawn() {
                // Ends those that run already, and the spool.
                shared.stop();
                shared.give_up();
                while shared.end() {}
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
    /// A setting cannot be used, or this is not inside a tokio runtime.
    ///
    /// # Panics
    ///
    /// As tokio does, if the runtime's time is not enabled.
    pub fn start(
        self,
        target: impl Into<AsyncTarget>,
    ) -> Result<crate::AsyncCollector, StartError> {
        let settings = self.settings;
        settings.check()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        // Panics here, at the call that can be mended, rather than in a task.
        drop(tokio::time::sleep(Duration::ZERO));
        let target = target.into();
        let shared = self.open(&target.api, tasks::now)?;
        let senders = Arc::new(Senders(Arc::clone(&shared)));
        for number in 0..settings.concurrency {
            let sender = tasks::Sender {
                number,
                senders: Arc::clone(&senders),
                target: target.clone(),
                gzip_level: settings.gzip_level,
                limits: limits(settings.request_timeout),
            };
            sender.spawn(&runtime);
        }
        Ok(crate::AsyncCollector::new(shared))
    }
}
