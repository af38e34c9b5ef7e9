//! What users hold: a collector, and a stream of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;
use stride_core::Connection;

use crate::builder::{Builder, StartError};
use crate::report::Report;
use crate::scratch::Local;
use crate::shared::{Shared, Target};
use crate::stream::Stream;
use crate::thread;

/// How long `flush` and `stop` wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long dropping the last handle waits.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Why an event was not accepted. Nothing of it is held, and no other event is harmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A stream's name is a letter, then letters, digits and underscores, all of them ASCII.
    #[error("{name:?} is not a name: a letter, then letters, digits and underscores")]
    Name {
        /// The name as it was given.
        name: String,
    },
    /// An event is a JSON object.
    #[error("an event must be a JSON object")]
    NotAnObject,
    /// The event is longer than the collector's `max_event`.
    #[error("the event is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes of JSON.
        limit: usize,
    },
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// What is held takes all of the memory budget: the server is slower than the events, or away.
    #[error("the collector is full: its memory budget is used up")]
    Full,
    /// The collector was stopped.
    #[error("the collector was stopped")]
    Stopped,
}

/// Not all events were accepted: those before this one were, and those after it were not looked at.
#[derive(Debug, thiserror::Error)]
#[error("event {accepted} of several was not accepted")]
#[non_exhaustive]
pub struct CollectAllError {
    /// How many were accepted; also the index of the one that was not.
    pub accepted: usize,
    /// Why it was not.
    #[source]
    pub error: CollectError,
}

/// Collects events and sends them in the background, in batches, on threads of its own.
///
/// A cheap handle: clones share one collector, and may be used from any thread. Every accepted event
/// ends exactly once, delivered or lost, and [`stats`](Self::stats) says how many of each there are.
/// When the last handle is dropped, the collector stops, within one second; [`stop`](Self::stop)
/// gives it longer and returns the report.
///
/// Collecting never waits for the network: the event is serialised on the calling thread and
/// appended to a buffer. Until its `collect` returns it may still be changed, afterwards no change
/// has any effect.
///
/// ```no_run
/// use serde_json::json;
/// use stride_collector::Collector;
///
/// # fn example(stride: stride_core::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::start(stride)?;
/// collector.collect("mystream", &json!({"bojack": "horseman"}))?;
/// let report = collector.stop();
/// assert_eq!(report.accepted, report.delivered + report.lost());
/// # Ok(())
/// # }
/// ```
///
/// # Forks
///
/// Threads do not survive a fork: start the collector in the child, not before.
#[derive(Clone)]
pub struct Collector {
    owner: Arc<Owner>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Collector {
    /// Starts a collector with the default settings: a client, such as `&stride`, or a
    /// [`Connection`] says where to.
    ///
    /// # Errors
    ///
    /// The operating system gave no thread.
    pub fn start(connection: impl Into<Connection>) -> Result<Self, StartError> {
        Self::builder().start(connection)
    }

    /// The settings of a collector that is about to be started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { owner: Arc::new(Owner(shared)) }
    }

    /// Accepts an event for a stream, or returns at once with the reason why not. An event is
    /// anything that serialises as a JSON object.
    ///
    /// # Errors
    ///
    /// Any [`CollectError`]; [`Full`](CollectError::Full) may pass with time.
    #[inline]
    pub fn collect<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
    ) -> Result<(), CollectError> {
        self.owner.collect(Target::Name(stream), event)
    }

    /// Accepts several events, one after the other.
    ///
    /// # Errors
    ///
    /// The first event that is not accepted; those before it were.
    pub fn collect_all<T: Serialize>(
        &self,
        stream: &str,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        self.owner.collect_all(Target::Name(stream), events)
    }

    /// Accepts an event that is JSON already, and sends it as it stands.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, stream: &str, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(Target::Name(stream), event)
    }

    /// Accepts an event, and waits for room up to `timeout` while the collector is full.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); [`Full`](CollectError::Full) when no room came in time.
    pub fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        self.owner.collect_timeout(Target::Name(stream), event, timeout)
    }

    /// One stream of this collector: its name is checked and found once, for the hottest loops.
    ///
    /// # Errors
    ///
    /// The name is no good.
    pub fn stream(&self, name: &str) -> Result<StreamHandle, CollectError> {
        let stream = self.owner.0.stream(name)?;
        Ok(StreamHandle { owner: Arc::clone(&self.owner), stream })
    }

    /// Sends what was accepted before this call, without waiting for batches to fill, and waits up to
    /// 30 s until it is delivered or lost.
    pub fn flush(&self) -> Report {
        self.flush_within(PATIENCE)
    }

    /// Like [`flush`](Self::flush), and returns within `limit` whatever the server does. What is
    /// pending then stays so, and is still sent. A server that is down is not asked more often
    /// because of it.
    pub fn flush_within(&self, limit: Duration) -> Report {
        let until = Instant::now().checked_add(limit);
        let shared = &*self.owner.0;
        let barrier = shared.flush();
        thread::wait(shared, until, || shared.is_settled(barrier).then_some(()));
        shared.report()
    }

    /// Accepts no event any more, from any handle, and waits up to 30 s until those that were
    /// accepted are delivered or lost. What is pending then is lost.
    pub fn stop(&self) -> Report {
        self.stop_within(PATIENCE)
    }

    /// Like [`stop`](Self::stop), and returns within `limit` whatever the server does. Afterwards
    /// nothing is pending: a request that is still under way then ends by itself, and counts as lost
    /// ([`MaybeSent`](stride_core::Delivery::MaybeSent)).
    ///
    /// Of several calls at a time, the one whose limit is reached first gives up for all.
    pub fn stop_within(&self, limit: Duration) -> Report {
        self.owner.stop_within(limit)
    }

    /// What became of the events so far.
    pub fn stats(&self) -> Report {
        self.owner.0.report()
    }

    /// How much of the memory budget is used now, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.owner.0.memory()
    }
}

/// One stream of a [`Collector`], for the hottest loops: collecting through it looks up no name.
///
/// A cheap handle to clone; while one is left, the collector runs.
#[derive(Clone)]
pub struct StreamHandle {
    owner: Arc<Owner>,
    stream: Arc<Stream>,
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("name", &self.stream.name).finish_non_exhaustive()
    }
}

impl StreamHandle {
    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.stream.name
    }

    /// As [`Collector::collect`].
    ///
    /// # Errors
    ///
    /// Any [`CollectError`] but one about the name.
    #[inline]
    pub fn collect<T: Serialize + ?Sized>(&self, event: &T) -> Result<(), CollectError> {
        self.owner.collect(Target::Stream(&self.stream), event)
    }

    /// As [`Collector::collect_all`].
    ///
    /// # Errors
    ///
    /// The first event that is not accepted; those before it were.
    pub fn collect_all<T: Serialize>(
        &self,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        self.owner.collect_all(Target::Stream(&self.stream), events)
    }

    /// As [`Collector::collect_json`].
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(Target::Stream(&self.stream), event)
    }

    /// As [`Collector::collect_timeout`].
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); [`Full`](CollectError::Full) when no room came in time.
    pub fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        self.owner.collect_timeout(Target::Stream(&self.stream), event, timeout)
    }
}

/// What all handles share; the senders do not, so that the last handle's end is noticed.
struct Owner(Arc<Shared>);

impl Owner {
    #[inline]
    fn collect<T: Serialize + ?Sized>(
        &self,
        target: Target<'_>,
        event: &T,
    ) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.0.encode(event, scratch.bytes(), local)?;
            self.0.append(target, scratch.bytes(), local)
        });
        outcome.map_err(|error| *error)
    }

    fn collect_all<T: Serialize>(
        &self,
        target: Target<'_>,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        for (accepted, event) in events.into_iter().enumerate() {
            self.collect(target, &event).map_err(|error| CollectAllError { accepted, error })?;
        }
        Ok(())
    }

    fn collect_json(&self, target: Target<'_>, event: &RawValue) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.0.copy(event, scratch.bytes(), local)?;
            self.0.append(target, scratch.bytes(), local)
        });
        outcome.map_err(|error| *error)
    }

    fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        target: Target<'_>,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.0.encode(event, scratch.bytes(), local)?;
            let mut append = || match self.0.append(target, scratch.bytes(), local) {
                Err(error) if matches!(*error, CollectError::Full) => None,
                result => Some(result),
            };
            if let Some(result) = append() {
                return result;
            }
            let until = Instant::now().checked_add(timeout);
            thread::wait(&self.0, until, append).unwrap_or(Err(CollectError::Full.into()))
        });
        outcome.map_err(|error| *error)
    }

    fn stop_within(&self, limit: Duration) -> Report {
        let until = Instant::now().checked_add(limit);
        let shared = &*self.0;
        shared.stop();
        let finished = || shared.is_finished().then_some(());
        if thread::wait(shared, until, finished).is_none() {
            shared.give_up();
        }
        shared.report()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.stop_within(LAST_WAIT);
    }
}
