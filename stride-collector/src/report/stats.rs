//! The figures of a running collector.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::Report;
use crate::activity::ServerState;

/// A running collector in figures: what operators look at. It dereferences to the [`Report`] of that
/// moment, which tells what became of the events.
///
/// ```
/// # fn example(collector: &stride_collector::Collector) {
/// let stats = collector.stats();
/// println!("{} of {} events are lost", stats.lost(), stats.accepted);
/// println!("compressed {} times", stats.json_bytes / stats.sent_bytes.max(1));
/// # }
/// ```
#[must_use = "reading the figures changes nothing"]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    pub(crate) report: Report,
    /// The number of requests that were begun.
    pub requests: u64,
    /// How many of them failed in a way that may pass, so that their events were sent again.
    pub retries: u64,
    /// The length of the events in all requests, in bytes of JSON before compression.
    pub json_bytes: u64,
    /// The length of the bodies of all requests, in bytes as they were sent.
    pub sent_bytes: u64,
    /// The number of requests in flight.
    pub in_flight: usize,
    /// The age of the oldest pending event, from the time when its batch was closed; for one in a batch
    /// that is open, since that was opened. Exact to some 100 ms. `None` if nothing is pending.
    pub oldest: Option<Duration>,
    /// How much of the memory budget is used, in bytes.
    pub memory: usize,
    /// The number of streams with pending events.
    pub streams: usize,
    /// How the server as a whole is doing.
    pub server: ServerState,
    /// The spool, if there is one.
    #[cfg(feature = "spool")]
    pub spool: crate::spool::SpoolStats,
}

impl Deref for Stats {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

/// The report in one line.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}
