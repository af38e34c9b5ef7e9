//! The collectors that programs hold: on threads here, as tokio tasks in its child.

#[cfg(feature = "tokio")]
mod asynchronous;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stride_core::transport::Target;

#[cfg(feature = "tokio")]
pub use self::asynchronous::AsyncCollector;
use crate::config::Builder;
use crate::error::StartError;
use crate::intake::Intake;
use crate::report::Report;
use crate::sender::threads;
use crate::shared::Shared;

/// How long `flush` and `stop` wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long dropping the last handle waits.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Collects events and sends them in the background, in batches, on its own threads.
///
/// Cheap to clone: clones share one collector, and may be used from any thread. Every accepted event
/// ends exactly once, delivered or lost, and [`stats`](Intake::stats) counts both. When the last
/// handle is dropped, the collector stops, within one second; [`stop`](Self::stop) gives it longer
/// and returns the report.
///
/// Collecting never waits for the network: the event is serialised on the calling thread and
/// appended to a buffer.
///
/// What it has in common with an `AsyncCollector`, such as `collect`, are the methods of [`Intake`].
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
pub struct Collector {
    intake: Intake,
}

impl Clone for Collector {
    fn clone(&self) -> Self {
        Self { intake: self.intake.share() }
    }
}

impl Deref for Collector {
    type Target = Intake;

    fn deref(&self) -> &Intake {
        &self.intake
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Collector {
    /// Starts a collector with the default settings that sends to a client's Stride, or to any
    /// [`Target`].
    ///
    /// # Errors
    ///
    /// The operating system could not start a thread.
    pub fn start(target: impl Into<Target>) -> Result<Self, StartError> {
        Self::builder().start(target)
    }

    /// Settings for a collector.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let at_end = |shared: &Shared| {
            let _ = threads::stop(shared, LAST_WAIT);
        };
        Self { intake: Intake::new(shared, at_end) }
    }

    /// Sends all events that were accepted before this call, without waiting for batches to fill, and
    /// waits up to 30 s for them to be delivered or lost. With a spool, events that have left memory for
    /// the disk are not waited for, and the report's `spooled` tells how many of the pending ones are safe.
    pub fn flush(&self) -> Report {
        self.flush_within(PATIENCE)
    }

    /// Like [`flush`](Self::flush), and returns within `limit` whatever the server does. What is
    /// pending then is still sent later. It does not make a server that is down be tried more often.
    pub fn flush_within(&self, limit: Duration) -> Report {
        let until = Instant::now().checked_add(limit);
        let shared = self.intake.shared();
        threads::reach(shared, until, shared.flush());
        shared.report()
    }

    /// Stops accepting events on all handles and waits up to 30 s for pending events to be delivered
    /// or lost. What is pending then is lost; with a spool it goes to disk for the next collector, and stays
    /// pending in the report.
    pub fn stop(&self) -> Report {
        self.stop_within(PATIENCE)
    }

    /// Like [`stop`](Self::stop), and returns within `limit` whatever the server does. Afterwards
    /// nothing is pending: the events of a request that is still in flight count as lost
    /// ([`MaybeSent`](stride_core::transport::Delivery::MaybeSent)).
    ///
    /// With a spool, a disk that is slow to take what is left may need up to 5 s more. What it has taken
    /// is pending and `spooled`.
    ///
    /// Of several calls at the same time, the one whose limit is reached first gives up for all.
    pub fn stop_within(&self, limit: Duration) -> Report {
        threads::stop(self.intake.shared(), limit)
    }
}
