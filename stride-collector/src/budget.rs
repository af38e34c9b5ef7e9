//! The memory budget, and those who wait for room in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// The memory that everything that is held may take, and the queue of those who wait for room in it:
/// first come, first served, by bytes, so that a large event is not overtaken for ever.
///
/// Shared by the threads that collect and the driver; no waker is woken under its lock. The collector
/// reserves when a buffer is made or grows, never per event.
///
/// ```
/// use std::task::Waker;
/// use stride_collector::batcher::Budget;
///
/// let budget = Budget::new(1000);
/// assert!(budget.try_reserve(900, &mut 0));
/// let number = budget.wait(200, None, Waker::noop());
/// assert!(!budget.try_reserve(50, &mut 0), "what becomes free is for those who wait");
///
/// budget.adjust(900, 0); // a batch was delivered
/// budget.serve().into_iter().for_each(Waker::wake);
/// let mut grant = budget.granted(number).unwrap();
/// assert!(budget.try_reserve(180, &mut grant));
/// budget.adjust(grant, 0); // what is left of it
/// assert_eq!(budget.used(), 180);
/// ```
#[derive(Debug)]
pub struct Budget {
    // Who frees bytes looks for waiters afterwards, and who waits says so and looks for bytes afterwards.
    // One of the two must see the other, which takes sequential consistency.
    used: AtomicUsize,
    limit: usize,
    /// Somebody waits: what becomes free is theirs.
    is_waited_for: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    /// Those who were given room, and have not come for it yet.
    granted: HashMap<u64, usize>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    waker: Waker,
}

impl Budget {
    /// A budget of so many bytes, none of them used.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let is_waited_for = AtomicBool::new(false);
        Self { used: AtomicUsize::new(0), limit, is_waited_for, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many bytes: from what was granted before, else if they are free and nobody waits for
    /// them.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize, grant: &mut usize) -> bool {
        let missing = bytes.saturating_sub(*grant);
        // Who has been granted something has had its turn.
        let is_turn = *grant > 0 || !self.is_waited_for.load(Ordering::SeqCst);
        if missing > 0 && !(is_turn && self.try_take(missing)) {
            return false;
        }
        *grant -= bytes - missing;
        true
    }

    fn try_take(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, within).is_ok()
    }

    /// Counts what one thing costs after a change. This may exceed the limit a little: what was
    /// accepted is held, whatever form it takes.
    pub fn adjust(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::SeqCst);
        } else {
            self.used.fetch_sub(before - after, Ordering::SeqCst);
        }
    }

    /// How much there is in all, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How much is used, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A place in the queue for so many bytes; `before` is one that was served with too few. Then
    /// [`serve`](Self::serve): there may be room by now.
    #[must_use]
    pub fn wait(&self, bytes: usize, before: Option<u64>, waker: &Waker) -> u64 {
        let mut queue = self.queue();
        let number = before.unwrap_or(queue.next);
        queue.next += u64::from(before.is_none());
        // More than the limit is never free; to ask for all of it is to ask for as much as there is.
        let bytes = bytes.min(self.limit);
        queue.waiting.insert(number, Waiting { bytes, waker: waker.clone() });
        self.is_waited_for.store(true, Ordering::SeqCst);
        number
    }

    /// Whom else to wake instead. Outside of the lock, as the one before is dropped.
    pub fn set_waker(&self, number: u64, waker: &Waker) {
        let mut waker = waker.clone();
        let mut queue = self.queue();
        if let Some(waiting) = queue.waiting.get_mut(&number) {
            std::mem::swap(&mut waiting.waker, &mut waker);
        }
        drop(queue);
        drop(waker);
    }

    /// What was given to a place in the queue, which ends with that; `None` while nothing was.
    #[must_use]
    pub fn granted(&self, number: u64) -> Option<usize> {
        self.queue().granted.remove(&number)
    }

    /// Gives up a place in the queue. What was given to it is free again: then
    /// [`serve`](Self::serve).
    pub fn leave(&self, number: u64) {
        let mut queue = self.queue();
        let waiting = queue.waiting.remove(&number);
        if let Some(bytes) = queue.granted.remove(&number) {
            self.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        self.is_waited_for.store(!queue.waiting.is_empty(), Ordering::SeqCst);
        drop(queue);
        drop(waiting);
    }

    /// Gives what is free to those who wait, first come, first served. They are to be woken.
    #[must_use]
    pub fn serve(&self) -> Vec<Waker> {
        if !self.is_waited_for.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut queue = self.queue();
        let mut wakers = Vec::new();
        while let Some((_, first)) = queue.waiting.first_key_value()
            && self.try_take(first.bytes)
            && let Some((number, Waiting { bytes, waker })) = queue.waiting.pop_first()
        {
            queue.granted.insert(number, bytes);
            wakers.push(waker);
        }
        self.is_waited_for.store(!queue.waiting.is_empty(), Ordering::SeqCst);
        wakers
    }

    /// Wakes all that wait, because there is nothing to wait for any longer.
    #[must_use]
    pub fn wake_all(&self) -> Vec<Waker> {
        self.queue().waiting.values().map(|waiting| waiting.waker.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c10_a_large_event_is_not_overtaken() {
        let budget = Budget::new(1000);
        assert!(budget.try_reserve(900, &mut 0));
        let large = budget.wait(800, None, Waker::noop());
        let small = budget.wait(50, None, Waker::noop());
        // There is room for the small one, and for others who do not wait, but it is not their turn.
        assert_eq!(budget.serve().len(), 0);
        assert!(!budget.try_reserve(10, &mut 0));
        budget.adjust(900, 0);
        assert_eq!(budget.serve().len(), 2);
        assert_eq!((budget.granted(large), budget.granted(small)), (Some(800), Some(50)));
        assert_eq!(budget.used(), 850);
        assert!(budget.try_reserve(150, &mut 0));
    }

    #[test]
    fn who_leaves_gives_back_what_was_granted() {
        let budget = Budget::new(100);
        let first = budget.wait(60, None, Waker::noop());
        let second = budget.wait(60, None, Waker::noop());
        assert_eq!(budget.serve().len(), 1);
        budget.leave(first);
        assert_eq!(budget.serve().len(), 1);
        budget.leave(second);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_reserve(100, &mut 0));
    }
}
