//! A collector that runs as tokio tasks.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use stride_core::transport::AsyncTarget;

use super::PATIENCE;
use crate::config::Builder;
use crate::error::StartError;
use crate::intake::Intake;
use crate::report::Report;
use crate::sender::tasks;
use crate::shared::Shared;

/// Collects events and sends them in the background, in batches, as tasks of a tokio runtime.
///
/// The same as a [`Collector`](crate::Collector), with the same promises, for programs that are
/// asynchronous already: it starts from an asynchronous client, [`flush`](Self::flush) and
/// [`stop`](Self::stop) are awaited, and [`collect_wait`](Intake::collect_wait) awaits room. What it
/// has in common with a `Collector`, such as `collect`, are the methods of [`Intake`].
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
/// Dropping the last handle only signals the tasks: they go on until everything is delivered or lost,
/// as long as their runtime lives. At the end of a program it does not, so call [`stop`](Self::stop).
///
/// # Runtimes
///
/// It runs on the runtime in which it was started, current-thread or multi-thread, whose time has to
/// be enabled. Its handles can be used anywhere: in other runtimes and on threads of none. When its
/// runtime is shut down, what is pending is lost ([`Stopped`](crate::LossReason::Stopped)) and handed
/// to `on_lost` by the threads that shut it down, and nothing more is accepted; after a
/// `shutdown_background` that may take a moment. While its runtime stands still, nothing is sent;
/// `flush` and `stop` still keep their limits.
///
/// Long batches are compressed in slices of 32 KiB, between which other tasks have their turn; that
/// is some 30 us each at the default level, and six times that at level 6.
pub struct AsyncCollector {
    intake: Intake,
}

impl Clone for AsyncCollector {
    fn clone(&self) -> Self {
        Self { intake: self.intake.share() }
    }
}

impl Deref for AsyncCollector {
    type Target = Intake;

    fn deref(&self) -> &Intake {
        &self.intake
    }
}

impl fmt::Debug for AsyncCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCollector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl AsyncCollector {
    /// Starts a collector with the default settings on the current runtime, which sends to a client's
    /// Stride, or to any [`AsyncTarget`].
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

    /// Settings for a collector.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { intake: Intake::new(shared, Shared::stop) }
    }

    /// Sends all events that were accepted before the first poll, without waiting for batches to fill,
    /// and waits up to 30 s for them to be delivered or lost. With a spool, events that have left memory
    /// for the disk are not waited for, and the report's `spooled` tells how many of the pending ones are
    /// safe.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time, as do the other methods that wait for a limit. It may be
    /// another runtime than the collector's.
    pub async fn flush(&self) -> Report {
        self.flush_within(PATIENCE).await
    }

    /// Like [`flush`](Self::flush), and returns within `limit` whatever the server does. What is
    /// pending then is still sent later. It does not make a server that is down be tried more often.
    ///
    /// Cancel safe: when the future is dropped, the events are still sent.
    pub async fn flush_within(&self, limit: Duration) -> Report {
        let until = tasks::now().checked_add(limit);
        let shared = self.intake.shared();
        tasks::reach(shared, until, shared.flush()).await;
        shared.report()
    }

    /// Stops accepting events on all handles and waits up to 30 s for pending events to be delivered
    /// or lost. What is pending then is lost; with a spool it goes to disk for the next collector, and stays
    /// pending in the report.
    pub async fn stop(&self) -> Report {
        self.stop_within(PATIENCE).await
    }

    /// Like [`stop`](Self::stop), and returns within `limit` whatever the server does. Afterwards
    /// nothing is pending: the events of a request that is still in flight count as lost
    /// ([`MaybeSent`](stride_core::transport::Delivery::MaybeSent)).
    ///
    /// With a spool, a disk that is slow to take what is left may need up to 5 s more. What it has taken
    /// is pending and `spooled`.
    ///
    /// Of several calls at the same time, the one whose limit is reached first gives up for all. With an
    /// `on_lost`, it returns when that was given what is lost by it.
    ///
    /// Once it was polled, the collector is stopped, even when the future is dropped; what is pending
    /// then is still sent.
    pub async fn stop_within(&self, limit: Duration) -> Report {
        tasks::stop(self.intake.shared(), limit).await
    }
}
