//! What became of the events: the totals, and what was lost.

mod lost;
mod stats;

use std::fmt;

use stride_core::transport::Delivery;

pub(crate) use self::lost::with_sources;
pub use self::lost::{LossReason, LostBatch};
pub use self::stats::Stats;

/// What became of the events so far, counted from the collector's start.
///
/// `accepted + recovered == delivered + lost() + pending` in every report; without a spool, nothing is
/// recovered. `Display` writes it as one line.
///
/// With the feature `serde` it serialises as its five fields and `lost`, a list of
/// `{"reason", "delivery", "count"}` without the zeros.
#[must_use = "a report may tell of lost events"]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Events for which `collect` returned `Ok`.
    pub accepted: u64,
    /// Events that were in a request that got a success (2xx).
    pub delivered: u64,
    /// Events that wait to be sent, are being sent, or wait to be sent again.
    pub pending: u64,
    /// Events that an earlier process left on disk, and that were read since the start.
    pub recovered: u64,
    /// Those of the pending events that are safe on disk, whatever becomes of the process.
    pub spooled: u64,
    lost: [[u64; 2]; LossReason::ALL.len()],
}

impl Report {
    /// Events that were lost, for any reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.as_flattened().iter().sum()
    }

    /// Events that were lost for this reason, by whether the server may have received them.
    #[must_use]
    pub fn lost_by(&self, reason: LossReason, delivery: Delivery) -> u64 {
        self.lost[reason as usize][delivery as usize]
    }

    /// The same report with `count` more events accepted and delivered: for a test of what a
    /// program does with its reports.
    ///
    /// ```
    /// use stride_collector::{Delivery, LossReason, Report};
    ///
    /// let report = Report::default()
    ///     .with_delivered(7)
    ///     .with_lost(LossReason::Expired, Delivery::NotSent, 2)
    ///     .with_pending(1);
    /// assert_eq!((report.accepted, report.lost()), (10, 2));
    /// ```
    pub fn with_delivered(mut self, count: u64) -> Self {
        self.accepted += count;
        self.delivered += count;
        self
    }

    /// The same report with `count` more events accepted and pending.
    pub fn with_pending(mut self, count: u64) -> Self {
        self.accepted += count;
        self.pending += count;
        self
    }

    /// The same report with `count` more events accepted and lost.
    pub fn with_lost(mut self, reason: LossReason, delivery: Delivery, count: u64) -> Self {
        self.accepted += count;
        self.add_lost(reason, delivery, count);
        self
    }

    pub(crate) fn add_lost(&mut self, reason: LossReason, delivery: Delivery, count: u64) {
        self.lost[reason as usize][delivery as usize] += count;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, delivered, pending, recovered, spooled, .. } = self;
        write!(f, "{accepted} accepted, {delivered} delivered, {} lost", self.lost())?;
        let mut before = " (";
        for reason in LossReason::ALL {
            let [not_sent, maybe_sent] = self.lost[reason as usize];
            if not_sent + maybe_sent > 0 {
                write!(f, "{before}{} {reason}", not_sent + maybe_sent)?;
                before = ", ";
            }
        }
        write!(f, "{}, {pending} pending", if before == ", " { ")" } else { "" })?;
        if *spooled > 0 {
            write!(f, " ({spooled} on disk)")?;
        }
        if *recovered > 0 {
            write!(f, ", {recovered} recovered")?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        #[derive(serde::Serialize)]
        struct Loss {
            reason: LossReason,
            delivery: Delivery,
            count: u64,
        }
        let loss = |reason, delivery| {
            let count = self.lost_by(reason, delivery);
            (count > 0).then_some(Loss { reason, delivery, count })
        };
        let deliveries = [Delivery::NotSent, Delivery::MaybeSent];
        let of_reason = |reason| deliveries.into_iter().filter_map(move |it| loss(reason, it));
        let lost: Vec<Loss> = LossReason::ALL.into_iter().flat_map(of_reason).collect();
        let mut report = serializer.serialize_struct("Report", 6)?;
        report.serialize_field("accepted", &self.accepted)?;
        report.serialize_field("delivered", &self.delivered)?;
        report.serialize_field("pending", &self.pending)?;
        report.serialize_field("recovered", &self.recovered)?;
        report.serialize_field("spooled", &self.spooled)?;
        report.serialize_field("lost", &lost)?;
        report.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::default()
            .with_delivered(3)
            .with_pending(2)
            .with_lost(LossReason::Expired, Delivery::NotSent, 1)
            .with_lost(LossReason::Expired, Delivery::MaybeSent, 2)
            .with_lost(LossReason::Stopped, Delivery::MaybeSent, 2)
    }

    #[test]
    fn a_report_reads_as_one_line() {
        assert_eq!(
            report().to_string(),
            "10 accepted, 3 delivered, 5 lost (3 expired, 2 stopped), 2 pending"
        );
        assert_eq!(report().lost_by(LossReason::Expired, Delivery::MaybeSent), 2);
        let report = Report { recovered: 3, spooled: 2, ..Report::default().with_pending(4) };
        let line = "4 accepted, 0 delivered, 0 lost, 4 pending (2 on disk), 3 recovered";
        assert_eq!(report.to_string(), line);
        assert_eq!(Report::default().to_string(), "0 accepted, 0 delivered, 0 lost, 0 pending");
    }

    #[test]
    fn reasons_and_deliveries_index_the_table() {
        for (index, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        assert_eq!((Delivery::NotSent as usize, Delivery::MaybeSent as usize), (0, 1));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a5_a_report_serialises() {
        assert_eq!(
            serde_json::to_value(report()).unwrap(),
            serde_json::json!({
                "accepted": 10,
                "delivered": 3,
                "pending": 2,
                "recovered": 0,
                "spooled": 0,
                "lost": [
                    {"reason": "expired", "delivery": "not_sent", "count": 1},
                    {"reason": "expired", "delivery": "maybe_sent", "count": 2},
                    {"reason": "stopped", "delivery": "maybe_sent", "count": 2},
                ],
            })
        );
    }
}
