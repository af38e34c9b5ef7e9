//! `?sample=N`: at most N events in any second, spread over it.
//!
//! Two pure functions: *when* an event may go, which is a function of time, and *which* of many
//! that came at once are worth keeping for then.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// More a second than this is sampled as this: the pace is kept in whole nanoseconds.
const HIGHEST: u32 = 1_000_000;

/// Says when the next event may go.
///
/// It is a leaky bucket. An event takes a share of a second, and the bucket holds a hundredth of a
/// second's worth (at least one event), because timers wake at the grain of a millisecond and must
/// then let out what is due. What may burst is taken off the rate, so that no window of one second,
/// wherever it starts, ever holds more than N.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// The share of a second that an event takes.
    share: Duration,
    /// How far ahead of its share an event may go.
    ahead: Duration,
    /// Where the shares of all events so far end.
    used: Option<Instant>,
}

impl Sampler {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let per_second = per_second.get().min(HIGHEST);
        let burst = 1 + per_second / 100;
        let share =
            Duration::from_nanos(1_000_000_000_u64.div_ceil((per_second - burst + 1).into()));
        Self { share, ahead: share * (burst - 1), used: None }
    }

    /// Lets one event go, or says when the next one may.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        let used = self.used.unwrap_or(now);
        match used.checked_sub(self.ahead) {
            Some(due) if due > now => Err(due),
            _ => {
                self.used = Some(used.max(now) + self.share);
                Ok(())
            }
        }
    }
}

/// Which of `events` that came at once to keep if there is room for `room`: evenly spread.
pub(crate) fn spread(events: usize, room: usize) -> impl Iterator<Item = usize> {
    let keep = events.min(room);
    (0..keep).map(move |index| index * events / keep)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Offers an event at each of `offers` (nanoseconds since the start, in order) and returns
    /// when events went.
    fn sent(per_second: u32, offers: impl IntoIterator<Item = u64>) -> Vec<Instant> {
        let start = Instant::now();
        let mut sampler = Sampler::new(NonZeroU32::new(per_second).unwrap());
        offers
            .into_iter()
            .map(|offer| start + Duration::from_nanos(offer))
            .filter(|now| sampler.admit(*now).is_ok())
            .collect()
    }

    fn most_in_a_second(sent: &[Instant]) -> usize {
        let mut from = 0;
        sent.iter()
            .enumerate()
            .map(|(to, at)| {
                while *at - sent[from] >= SECOND {
                    from += 1;
                }
                to - from + 1
            })
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn never_more_than_n_in_any_second(
            per_second in prop_oneof![1_u32..5, 90_u32..250, 900_u32..3000],
            gaps in prop::collection::vec(
                prop_oneof![Just(0_u64), 0_u64..2_000_000, 0_u64..400_000_000],
                1..6000,
            ),
        ) {
            let offers = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) });
            let sent = sent(per_second, offers);
            prop_assert!(most_in_a_second(&sent) <= per_second as usize);
        }

        #[test]
        fn spread_is_even_and_in_order(events in 0_usize..5000, room in 0_usize..3000) {
            let kept: Vec<usize> = spread(events, room).collect();
            prop_assert_eq!(kept.len(), events.min(room));
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(kept.iter().all(|index| *index < events));
            if let (Some(first), Some(last)) = (kept.first(), kept.last()) {
                prop_assert_eq!(*first, 0);
                prop_assert!(events - last <= events.div_ceil(kept.len()));
            }
        }
    }

    #[test]
    fn a_firehose_gets_nearly_n_spread_over_each_second() {
        for per_second in [1, 2, 3, 10, 100, 1000, 20_000] {
            // An offer every 10 us for 3 s.
            let sent = sent(per_second, (0..300_000).map(|offer| offer * 10_000));
            assert!(most_in_a_second(&sent) <= per_second as usize);
            let wanted = 3 * per_second as usize;
            assert!(sent.len() * 100 >= wanted * 98, "{per_second}: {} of {wanted}", sent.len());
            // No tenth of a second has more than its share and the burst.
            let share = (per_second as usize).div_ceil(10) + 1 + per_second as usize / 100;
            for from in 0..sent.len() {
                let in_a_tenth =
                    sent[from..].iter().take_while(|at| **at - sent[from] < SECOND / 10).count();
                assert!(in_a_tenth <= share, "{per_second}: {in_a_tenth} in a tenth");
                if from > 2000 {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_timer_of_a_millisecond_is_fine_enough() {
        let start = Instant::now();
        let mut sampler = Sampler::new(NonZeroU32::new(50_000).unwrap());
        let sent: usize = (0..1000)
            .map(|tick| start + Duration::from_millis(tick))
            .map(|now| std::iter::from_fn(|| sampler.admit(now).ok()).count())
            .sum();
        assert!((49_000..=50_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_refusal_says_when_and_keeps_its_word() {
        let start = Instant::now();
        let mut sampler = Sampler::new(NonZeroU32::new(4).unwrap());
        assert_eq!(sampler.admit(start), Ok(()));
        let due = sampler.admit(start).unwrap_err();
        assert_eq!(due, start + SECOND / 4);
        assert_eq!(sampler.admit(due - Duration::from_nanos(1)), Err(due));
        assert_eq!(sampler.admit(due), Ok(()));
    }

    #[test]
    fn the_largest_n_is_no_error() {
        let start = Instant::now();
        let mut sampler = Sampler::new(NonZeroU32::MAX);
        assert_eq!(sampler.admit(start), Ok(()));
    }
}
