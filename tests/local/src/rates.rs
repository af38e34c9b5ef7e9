//! How many events each stream got in each of the last 120 seconds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many seconds are remembered, but for the one that has not passed yet.
const SECONDS: u64 = 120;

/// How often streams without events are forgotten, in seconds.
const SWEEP: u64 = 30;

/// The rates of all streams that got events of late. A stream takes eight bytes for each second in which it got any.
#[derive(Debug)]
pub(crate) struct Rates {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<String, VecDeque<(u32, u32)>>,
    /// When those without events are forgotten next.
    sweep_at: u64,
}

/// What one stream got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recent {
    /// In all of the seconds.
    pub(crate) sum: u64,
    /// In those in which it got any, counted from the oldest that is remembered.
    counts: Vec<(u32, u32)>,
}

impl Recent {
    /// Each second, the oldest first.
    pub(crate) fn seconds(&self) -> Vec<u32> {
        let mut seconds = vec![0; SECONDS as usize];
        for (place, count) in &self.counts {
            if let Some(second) = seconds.get_mut(*place as usize) {
                *second = *count;
            }
        }
        seconds
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }
}

impl Rates {
    /// This stream got so many events now.
    pub(crate) fn note(&self, stream: &str, events: u64) {
        self.state().note(stream, events, self.start.elapsed().as_secs());
    }

    /// What each stream got, if it got anything.
    pub(crate) fn of_all(&self) -> HashMap<String, Recent> {
        self.state().of_all(self.start.elapsed().as_secs())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, stream: &str, events: u64, now: u64) {
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            self.streams.retain(|_, counts| counts.back().is_some_and(|(at, _)| is_kept(*at, now)));
        }
        let (second, events) = (as_u32(now), u32::try_from(events).unwrap_or(u32::MAX));
        let counts = match self.streams.get_mut(stream) {
            Some(counts) => counts,
            None => self.streams.entry(stream.to_owned()).or_default(),
        };
        while counts.front().is_some_and(|(at, _)| !is_kept(*at, now)) {
            counts.pop_front();
        }
        match counts.back_mut() {
            Some((at, count)) if *at == second => *count = count.saturating_add(events),
            _ => counts.push_back((second, events)),
        }
    }

    fn of_all(&self, now: u64) -> HashMap<String, Recent> {
        let recent = |counts: &VecDeque<(u32, u32)>| {
            let passed = counts.iter().filter(|(at, _)| is_kept(*at, now) && u64::from(*at) < now);
            let place = |at: u32| as_u32(u64::from(at) + SECONDS - now);
            let counts: Vec<_> = passed.map(|(at, count)| (place(*at), *count)).collect();
            let sum = counts.iter().map(|(_, count)| u64::from(*count)).sum();
            (sum > 0).then_some(Recent { sum, counts })
        };
        let all = self.streams.iter();
        all.filter_map(|(name, counts)| Some((name.clone(), recent(counts)?))).collect()
    }
}

fn is_kept(second: u32, now: u64) -> bool {
    u64::from(second) + SECONDS >= now
}

/// A server does not run for 136 years.
fn as_u32(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_counts_once_it_has_passed_and_for_two_minutes() {
        let mut state = State::default();
        state.note("s", 3, 10);
        state.note("s", 4, 10);
        assert_eq!(state.of_all(10), HashMap::new());
        state.note("s", 5, 12);
        let recent = |now| state.of_all(now).remove("s");
        assert_eq!(recent(12).unwrap().sum, 7);
        let seconds = recent(13).unwrap().seconds();
        assert_eq!(seconds[117..], [7, 0, 5]);
        assert_eq!(seconds[..117], [0; 117]);
        assert_eq!(recent(130).unwrap().seconds()[..3], [7, 0, 5]);
        assert_eq!(recent(131).unwrap().seconds()[..3], [0, 5, 0]);
        assert_eq!(recent(133), None);
    }

    #[test]
    fn memory_is_for_what_is_told() {
        let mut state = State::default();
        for second in 0..1000 {
            state.note("always", 1, second);
            state.note(&format!("once_{second}"), 1, second);
        }
        assert_eq!(state.of_all(1000)["always"].sum, SECONDS);
        assert!(state.streams["always"].len() as u64 <= SECONDS + 1);
        assert!((state.streams.len() as u64) <= SECONDS + SWEEP + 2, "{}", state.streams.len());
    }
}
