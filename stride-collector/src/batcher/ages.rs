//! How old the oldest pending event is.

use std::collections::BTreeMap;
use std::time::Instant;

/// Events that were taken in within this many milliseconds are counted together, so that this stays
/// small however many batches there are.
const TOGETHER: u128 = 128;

/// How many events are pending of each time.
#[derive(Debug)]
pub(super) struct Ages {
    start: Instant,
    pending: BTreeMap<u128, (Instant, u64)>,
}

impl Ages {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, pending: BTreeMap::new() }
    }

    fn slot(&self, time: Instant) -> u128 {
        time.saturating_duration_since(self.start).as_millis() / TOGETHER
    }

    pub(super) fn add(&mut self, time: Instant, events: u32) {
        let (_, count) = self.pending.entry(self.slot(time)).or_insert((time, 0));
        *count += u64::from(events);
    }

    pub(super) fn remove(&mut self, time: Instant, events: u32) {
        let slot = self.slot(time);
        if let Some((_, count)) = self.pending.get_mut(&slot) {
            *count = count.saturating_sub(u64::from(events));
            if *count == 0 {
                self.pending.remove(&slot);
            }
        }
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, (time, _))| *time)
    }
}
