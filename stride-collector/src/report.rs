//! The books of a collector, and what was lost.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use stride_core::transport::Delivery;

/// Why events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// They could not be delivered within 120 s, pauses included.
    Expired,
    /// The server answered 400 or 422: an event among them is not what it takes.
    Rejected,
    /// The server answered 413: the batch is too large for it.
    TooLarge,
    /// The server answered 401 or 403: the key may not write here.
    Unauthorized,
    /// The server gave another answer that no repetition changes.
    Refused,
    /// The collector's end came first.
    Stopped,
}

impl LossReason {
    /// Every reason, in the order in which reports are written.
    pub const ALL: [Self; 6] = [
        Self::Expired,
        Self::Rejected,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Refused,
        Self::Stopped,
    ];

    /// What an answer that is neither a success nor transient means for a batch.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 422 => Self::Rejected,
            413 => Self::TooLarge,
            401 | 403 => Self::Unauthorized,
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::TooLarge => "too large",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        })
    }
}

/// The events of one stream and one batch that were lost, as `on_lost` is given them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Lost {
    /// The stream they were meant for.
    pub stream: Arc<str>,
    /// The events as a JSON array, byte for byte as they were or would have been sent.
    pub events: Bytes,
    /// How many there are.
    pub count: usize,
    /// Why they were lost.
    pub reason: LossReason,
    /// Whether the server may have them all the same: after any attempt that it may have read.
    pub delivery: Delivery,
    /// The server's last answer to them, if it ever gave one.
    pub status: Option<StatusCode>,
}

/// Without the events themselves: they do not belong into a log.
impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost")
            .field("stream", &self.stream)
            .field("count", &self.count)
            .field("reason", &self.reason)
            .field("delivery", &self.delivery)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What became of the events so far, counted from the collector's start.
///
/// `accepted == delivered + lost() + pending` in every report. Its text is one line of these.
#[must_use = "a report may tell of lost events"]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Events for which `collect` returned `Ok`.
    pub accepted: u64,
    /// Events that a request held which was answered with a success (2xx).
    pub delivered: u64,
    /// Events that wait to be sent, are being sent, or wait to be sent again.
    pub pending: u64,
    lost: [[u64; 2]; LossReason::ALL.len()],
}

impl Report {
    /// Events that were lost, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.as_flattened().iter().sum()
    }

    /// Events that were lost for this reason, and were or were not possibly received.
    #[must_use]
    pub fn lost_by(&self, reason: LossReason, delivery: Delivery) -> u64 {
        self.lost[reason as usize][delivery as usize]
    }

    pub(crate) fn add_lost(&mut self, reason: LossReason, delivery: Delivery, count: u64) {
        self.lost[reason as usize][delivery as usize] += count;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, delivered, pending, .. } = self;
        write!(f, "{accepted} accepted, {delivered} delivered, {} lost", self.lost())?;
        let mut before = " (";
        for reason in LossReason::ALL {
            let [not_sent, maybe_sent] = self.lost[reason as usize];
            if not_sent + maybe_sent > 0 {
                write!(f, "{before}{} {reason}", not_sent + maybe_sent)?;
                before = ", ";
            }
        }
        write!(f, "{}, {pending} pending", if before == ", " { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_one_line() {
        let mut report = Report { accepted: 10, delivered: 3, pending: 2, ..Report::default() };
        report.add_lost(LossReason::Expired, Delivery::NotSent, 1);
        report.add_lost(LossReason::Expired, Delivery::MaybeSent, 2);
        report.add_lost(LossReason::Stopped, Delivery::MaybeSent, 2);
        assert_eq!(
            report.to_string(),
            "10 accepted, 3 delivered, 5 lost (3 expired, 2 stopped), 2 pending"
        );
        assert_eq!(report.lost_by(LossReason::Expired, Delivery::MaybeSent), 2);
        assert_eq!(Report::default().to_string(), "0 accepted, 0 delivered, 0 lost, 0 pending");
    }

    #[test]
    fn reasons_and_deliveries_index_the_table() {
        for (index, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        assert_eq!((Delivery::NotSent as usize, Delivery::MaybeSent as usize), (0, 1));
    }
}
