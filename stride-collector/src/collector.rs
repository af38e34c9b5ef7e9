//! A collector that runs on threads of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;
use stride_core::transport::Target;

use crate::builder::{Builder, StartError};
use crate::handle::{CollectAllError, CollectError, Owner, StreamHandle};
use crate::report::Report;
use crate::shared::{Shared, To};
use crate::thread;

/// How long `flush` and `stop` wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long dropping the last handle waits.
const LAST_WAIT: Duration = Duration::from_secs(1);

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
/// # fn example(stride: stride_core::transport::Target) -> Result<(), Box<dyn std::error::Error>> {
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
    /// [`Target`] says where to.
    ///
    /// # Errors
    ///
    /// The operating system gave no thread.
    pub fn start(target: impl Into<Target>) -> Result<Self, StartError> {
        Self::builder().start(target)
    }

    /// The settings of a collector that is about to be started.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let at_end = |shared: &Shared| {
            let _ = thread::stop(shared, LAST_WAIT);
        };
        Self { owner: Arc::new(Owner { shared, at_end }) }
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
        self.owner.collect(To::Name(stream), event)
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
        self.owner.collect_all(To::Name(stream), events)
    }

    /// Accepts an event that is JSON already, and sends it as it stands.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, stream: &str, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(To::Name(stream), event)
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
        self.owner.collect_timeout(To::Name(stream), event, timeout)
    }

    /// Accepts an event, and waits for room while the collector is full: for asynchronous programs,
    /// on whatever runtime. The event is written before the first wait, and held beside the memory
    /// budget meanwhile.
    ///
    /// Cancel safe: when the future is dropped before it is done, the event was not accepted.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect), but never [`Full`](CollectError::Full).
    pub async fn collect_wait<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
    ) -> Result<(), CollectError> {
        self.owner.collect_wait(To::Name(stream), event).await
    }

    /// One stream of this collector: its name is checked and found once, for the hottest loops.
    ///
    /// # Errors
    ///
    /// The name is no good.
    pub fn stream(&self, name: &str) -> Result<StreamHandle, CollectError> {
        StreamHandle::new(&self.owner, name)
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
        let shared = &*self.owner.shared;
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
    /// ([`MaybeSent`](stride_core::transport::Delivery::MaybeSent)).
    ///
    /// Of several calls at a time, the one whose limit is reached first gives up for all.
    pub fn stop_within(&self, limit: Duration) -> Report {
        thread::stop(&self.owner.shared, limit)
    }

    /// What became of the events so far.
    pub fn stats(&self) -> Report {
        self.owner.shared.report()
    }

    /// How much of the memory budget is used now, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.owner.shared.memory()
    }
}
