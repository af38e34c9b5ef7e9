//! Faults on demand: what a client must survive, at a word of the test.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

/// Something that goes wrong, as given to [`Local::fault`](crate::Local::fault).
///
/// Several can be set at once. Delays add up; of the others, the one set first that applies to a
/// request wins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Every `every`th request (1, like 0, is each) gets `status` as response and, if given, with
    /// `Retry-After` in whole seconds. Its body is read and thrown away.
    Status {
        /// Counted from when the fault was set: with 5, the 5th, the 10th and so on.
        every: u32,
        /// The status of the response.
        status: u16,
        /// Rounded up to whole seconds.
        retry_after: Option<Duration>,
    },
    /// Every request waits this long before it is looked at.
    Delay(Duration),
    /// The server is down: open connections are cut and new ones refused. The port stays reserved,
    /// and [`Local::clear_faults`](crate::Local::clear_faults) opens it again.
    Refuse,
    /// The connection is reset when the head of the request has arrived, and nothing is stored.
    ResetBeforeRead,
    /// The request is carried out in full, but a reset comes instead of the response.
    ResetAfterStore,
    /// The request is read and gets no response; nothing is stored.
    Stall,
    /// A subscription breaks off after `at` bytes of its body, without the end that HTTP asks for.
    CutSubscription {
        /// How many bytes arrive, keep-alive lines included.
        at: usize,
    },
}

/// What is to happen to one request.
#[derive(Debug, PartialEq)]
pub(crate) struct Effects {
    pub(crate) delay: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) cut: Option<usize>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Served,
    Status { status: StatusCode, retry_after: Option<u64> },
    ResetBeforeRead,
    ResetAfterStore,
    Stall,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    active: Mutex<Vec<Active>>,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    /// Requests that have come since it was set.
    seen: u64,
    /// How many more times it strikes; `None` is without a bound.
    left: Option<u32>,
}

impl Faults {
    fn active(&self) -> MutexGuard<'_, Vec<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, fault: Fault, left: Option<u32>) {
        self.active().push(Active { fault, seen: 0, left });
    }

    pub(crate) fn clear(&self) {
        self.active().clear();
    }

    /// What is to happen to the request that has just come.
    pub(crate) fn next(&self, subscription: bool) -> Effects {
        let mut effects = Effects { delay: Duration::ZERO, outcome: Outcome::Served, cut: None };
        let mut active = self.active();
        for Active { fault, seen, left } in &mut *active {
            let free = effects.outcome == Outcome::Served;
            let strikes = match fault {
                Fault::Delay(delay) => {
                    effects.delay += *delay;
                    true
                }
                Fault::Status { every, status, retry_after } => {
                    *seen += 1;
                    let due = seen.is_multiple_of(u64::from(*every).max(1));
                    if due && free {
                        effects.outcome = Outcome::Status {
                            // Checked when the fault was set.
                            status: StatusCode::from_u16(*status).unwrap_or_default(),
                            retry_after: retry_after.map(whole_seconds),
                        };
                    }
                    due && free
                }
                Fault::CutSubscription { at } if subscription && effects.cut.is_none() => {
                    effects.cut = Some(*at);
                    true
                }
                Fault::ResetBeforeRead if free => {
                    effects.outcome = Outcome::ResetBeforeRead;
                    true
                }
                Fault::ResetAfterStore if free => {
                    effects.outcome = Outcome::ResetAfterStore;
                    true
                }
                Fault::Stall if free => {
                    effects.outcome = Outcome::Stall;
                    true
                }
                _ => false,
            };
            if strikes && let Some(left) = left {
                *left -= 1;
            }
        }
        active.retain(|active| active.left != Some(0));
        effects
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_and_so_many_times() {
        let faults = Faults::default();
        faults.add(
            Fault::Status { every: 2, status: 503, retry_after: Some(Duration::from_millis(1500)) },
            Some(2),
        );
        let struck: Vec<bool> =
            (0..6).map(|_| faults.next(false).outcome != Outcome::Served).collect();
        assert_eq!(struck, [false, true, false, true, false, false]);
    }

    #[test]
    fn delays_add_up_and_the_first_fault_wins() {
        let faults = Faults::default();
        faults.add(Fault::Delay(Duration::from_secs(1)), None);
        faults.add(Fault::Delay(Duration::from_secs(2)), None);
        faults.add(Fault::Stall, Some(1));
        faults.add(Fault::ResetAfterStore, Some(1));
        faults.add(Fault::CutSubscription { at: 7 }, Some(1));
        let first = faults.next(false);
        assert_eq!((first.delay, first.outcome), (Duration::from_secs(3), Outcome::Stall));
        assert_eq!(first.cut, None);
        let second = faults.next(true);
        assert_eq!((second.outcome, second.cut), (Outcome::ResetAfterStore, Some(7)));
        faults.clear();
        assert_eq!(faults.next(true).delay, Duration::ZERO);
    }
}
