//! Waiting until something has happened, without sleeping.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts changes; waiters look again after each.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Changes {
    pub(crate) fn note(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until `done` returns `true`, at most `within`, and returns its last result.
    pub(crate) fn wait_until(&self, within: Duration, done: impl Fn() -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            let seen = *self.count.lock().unwrap_or_else(PoisonError::into_inner);
            // Asked without the lock, as `done` may take other locks. What changes
            // meanwhile moves the count, and the wait below returns at once.
            if done() {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_timeout_while(count, left, |count| *count == seen));
        }
    }
}
