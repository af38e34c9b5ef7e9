//! A collector that runs as tokio tasks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use stride_core::transport::AsyncTarget;

use crate::builder::{Builder, StartError};
use crate::collector::PATIENCE;
use crate::handle::{CollectAllError, CollectError, Owner, StreamHandle};
use crate::report::Report;
use crate::shared::{Shared, To};
use crate::task;

/// Collects events and sends them in the background, in batches, as tasks of a tokio runtime.
///
/// The same as a [`Collector`](crate::Collector), with the same promises, for programs that are
/// asynchronous already: it starts from an asynchronous client, [`flush`](Self::flush) and
/// [`stop`](Self::stop) are awaited, and [`collect_wait`](Self::collect_wait) awaits room.
///
/// ```no_run
/// use serde_json::json;
/// use stride_collector::AsyncCollector;
///
/// # async fn example(stride: stride_core::transport::AsyncTarget) -> Result<(), Box<dyn std::error::Error>> {
/// let collector = AsyncCollector::start(stride)?;
/// collector.collect("mystream", &json!({"bojack": "horseman"}))?; // never waits
/// let report = collector.stop().await;
/// assert_eq!(report.accepted, report.delivered + report.lost());
/// # Ok(())
/// # }
/// ```
///
/// # The end
///
/// Dropping the last handle only signals: the tasks go on until all is delivered or lost, which takes
/// at most the 120 s after which a batch expires, and a last request; if their runtime lives that
/// long. At the end of a program it does not, so [`stop`](Self::stop) first.
///
/// # Runtimes
///
/// It runs on the runtime in which it was started, current-thread or multi-thread, whose time has to
/// be enabled. Its handles can be used anywhere: in other runtimes and on threads of none. When its
/// runtime is shut down, what is pending is lost ([`Stopped`](crate::LossReason::Stopped)) and handed
/// to `on_lost` by the threads that shut it down, and nothing more is accepted; after a
/// `shutdown_background` that may take a moment. While its runtime stands still, nothing is sent;
/// `flush` and `stop` keep their limits all the same.
///
/// Long batches are compressed in slices of 32 KiB, between which other tasks have their turn; that
/// is some 30 us each at the default level, and six times that at level 6.
#[derive(Clone)]
pub struct AsyncCollector {
    owner: Arc<Owner>,
}

impl fmt::Debug for AsyncCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCollector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl AsyncCollector {
    /// Starts a collector with the default settings on the current runtime: a client, such as
    /// `&stride`, or an [`AsyncTarget`] says where to.
    ///
    /// # Errors
    ///
    /// [`StartError::NoRuntime`] outside of a tokio runtime.
    ///
    /// # Panics
    ///
    /// As tokio does, if the runtime's time is not enabled.
    pub fn start(target: impl Into<AsyncTarget>) -> Result<Self, StartError> {
        Self::builder().start(target)
    }

    /// The settings of a collector that is about to be started.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { owner: Arc::new(Owner { shared, at_end: Shared::stop }) }
    }

    /// As [`Collector::collect`](crate::Collector::collect).
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

    /// As [`Collector::collect_all`](crate::Collector::collect_all).
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

    /// As [`Collector::collect_json`](crate::Collector::collect_json).
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, stream: &str, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(To::Name(stream), event)
    }

    /// As [`Collector::collect_wait`](crate::Collector::collect_wait).
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

    /// As [`Collector::stream`](crate::Collector::stream).
    ///
    /// # Errors
    ///
    /// The name is no good.
    pub fn stream(&self, name: &str) -> Result<StreamHandle, CollectError> {
        StreamHandle::new(&self.owner, name)
    }

    /// Sends what was accepted before this was first polled, without waiting for batches to fill, and
    /// waits up to 30 s until it is delivered or lost.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time, as do the other methods that wait for a limit. It may be
    /// another runtime than the collector's.
    pub async fn flush(&self) -> Report {
        self.flush_within(PATIENCE).await
    }

    /// Like [`flush`](Self::flush), and returns within `limit` whatever the server does. What is
    /// pending then stays so, and is still sent. A server that is down is not asked more often
    /// because of it.
    ///
    /// Cancel safe: when the future is dropped, the events are sent all the same.
    pub async fn flush_within(&self, limit: Duration) -> Report {
        let until = task::now().checked_add(limit);
        let shared = &*self.owner.shared;
        let barrier = shared.flush();
        task::wait(shared, until, || shared.is_settled(barrier).then_some(())).await;
        shared.report()
    }

    /// Accepts no event any more, from any handle, and waits up to 30 s until those that were
    /// accepted are delivered or lost. What is pending then is lost.
    pub async fn stop(&self) -> Report {
        self.stop_within(PATIENCE).await
    }

    /// Like [`stop`](Self::stop), and returns within `limit` whatever the server does. Afterwards
    /// nothing is pending: a request that is still under way then ends by itself, and counts as lost
    /// ([`MaybeSent`](stride_core::transport::Delivery::MaybeSent)).
    ///
    /// Of several calls at a time, the one whose limit is reached first gives up for all. With an
    /// `on_lost`, it returns when that was given what is lost by it.
    ///
    /// Once it was polled, the collector is stopped, though the future is dropped; what is pending
    /// then is still sent.
    pub async fn stop_within(&self, limit: Duration) -> Report {
        task::stop(&self.owner.shared, limit).await
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
