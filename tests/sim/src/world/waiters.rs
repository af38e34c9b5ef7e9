//! Those who wait for room, as `collect_wait` does: with the collector's own budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use stride_collector::batcher::BATCH_COST;

use super::{Checked, World, text};

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    lane: usize,
    padding: usize,
    number: u64,
    woken: Arc<Woken>,
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Waiter {
    /// Whether it has something to come for.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }
}

impl World {
    /// Collects an event, and waits for room if there is none; gives its number if there is.
    pub fn collect_wait(&mut self, lane: usize, padding: usize) -> Option<u64> {
        let event = self.collect_padded(lane, padding);
        if event.is_some() || self.stopped {
            return event;
        }
        let bytes = text(self.fates.len() as u64, padding).len() + 16 + BATCH_COST;
        let woken = Arc::new(Woken::default());
        let number = self.budget.wait(bytes, None, &Waker::from(Arc::clone(&woken)));
        self.waiters.push(Waiter { lane, padding, number, woken });
        self.wake_served();
        None
    }

    /// One of those who wait goes away.
    pub fn leave(&mut self, index: u32) {
        if !self.waiters.is_empty() {
            let waiter = self.waiters.remove(index as usize % self.waiters.len());
            self.budget.leave(waiter.number);
            self.wake_served();
        }
    }

    fn wake_served(&mut self) {
        self.budget.serve().into_iter().for_each(Waker::wake);
        self.press_once();
    }

    /// Nothing is accepted any longer: nobody waits on.
    pub(super) fn end_waiting(&mut self) {
        self.budget.wake_all().into_iter().for_each(Waker::wake);
        for waiter in std::mem::take(&mut self.waiters) {
            if !waiter.is_woken() {
                // It is found among those who wait for ever.
                self.waiters.push(waiter);
                continue;
            }
            self.budget.leave(waiter.number);
        }
    }

    /// Those who were woken come for their room.
    pub(super) fn serve(&mut self) -> Checked {
        self.budget.serve().into_iter().for_each(Waker::wake);
        loop {
            // First come, first served: each that got something stands before those that did not.
            if self.overtakes || !self.waiters.is_sorted_by_key(|waiter| !waiter.is_woken()) {
                return Err("somebody who waits for room was overtaken".to_owned());
            }
            if !self.waiters.first().is_some_and(Waiter::is_woken) {
                return Ok(());
            }
            let Waiter { lane, padding, number, .. } = self.waiters.remove(0);
            let Some(mut grant) = self.budget.granted(number) else {
                return Err("somebody was woken for no room".to_owned());
            };
            if self.append(lane, padding, &mut grant).is_none() && !self.stopped {
                return Err("there was less room than was granted".to_owned());
            }
            self.budget.adjust(grant, 0);
            self.wake_served();
        }
    }
}
