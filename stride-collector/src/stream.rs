//! The open batches of one stream, where `collect` leaves its events.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// How many open batches a stream has for threads that collide on it. Four keep eight threads apart;
/// a lone thread fills one only, so that its batches are full ones.
pub(crate) const SHARDS: usize = 4;

/// What an open or sealed batch of one stream costs beside its bytes: its buffer's head, its entry
/// in the batch and in the lists. It keeps many tiny batches within the budget, too.
pub(crate) const OVERHEAD: usize = 128;

/// How much of a buffer is brought into the processor's cache at once for small events. A buffer that
/// a sender has emptied lies in another processor's, and to wait for it event by event takes a fifth
/// of the time of a small one.
const AHEAD: usize = 1024;

/// From this length on an event is waited for as a whole, and so at once.
const LARGE: usize = 128;

/// How many buffers are kept for the next batches: those that two senders just emptied, and as many
/// again.
const SPARES: usize = 4;

/// The memory that all that is held may take. Reserved when a buffer grows, never per event.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    /// Buffers of sent batches: fresh memory costs more than filling it.
    spares: Mutex<Vec<Vec<u8>>>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit, spares: Mutex::default() }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back the buffer of events that are held in another form now. All spare buffers
    /// together take at most a sixteenth of the budget, beside it.
    pub(crate) fn recycle(&self, events: &mut Events) {
        let mut buffer = std::mem::take(&mut events.bytes);
        buffer.clear();
        let mut spares = self.spares();
        if buffer.capacity() <= self.limit / 16 / SPARES {
            spares.push(buffer);
        }
        if spares.len() > SPARES {
            // A large one serves every stream.
            let smallest = (0..spares.len()).min_by_key(|&index| spares[index].capacity());
            smallest.map(|index| spares.swap_remove(index));
        }
    }

    /// Gives a spare buffer of at least so many bytes.
    fn spare(&self, least: usize) -> Option<Vec<u8>> {
        let mut spares = self.spares();
        let fitting = spares.iter().position(|spare| spare.capacity() >= least)?;
        Some(spares.swap_remove(fitting))
    }

    /// Gives the spare buffers back: nothing is going on.
    pub(crate) fn drop_spares(&self) {
        self.spares().clear();
    }

    fn try_reserve(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    /// Counts what one thing costs after a change. This may exceed the limit a little: what was
    /// accepted is held, whatever form it takes.
    pub(crate) fn exchange(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Events of one stream, each with a comma before it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: usize,
    /// Up to where the buffer may be filled before [`make_ready`](Self::make_ready) is asked again.
    ready: usize,
}

impl Events {
    /// What they take of the budget.
    pub(crate) fn cost(&self) -> usize {
        match self.bytes.capacity() {
            0 => 0,
            capacity => capacity + OVERHEAD,
        }
    }

    /// Events that were written already.
    pub(crate) fn new(bytes: Vec<u8>, count: usize) -> Self {
        Self { bytes, count, ready: 0 }
    }

    /// Whether `more` bytes can be appended as they are.
    #[inline(always)]
    fn is_ready(&self, more: usize) -> bool {
        self.ready - self.bytes.len() >= more
    }

    /// Makes room for `more` bytes, if the budget allows, and has it at hand.
    #[cold]
    fn make_ready(&mut self, more: usize, hint: usize, limit: usize, budget: &Budget) -> bool {
        let length = self.bytes.len();
        if self.bytes.capacity() - length < more && !self.grow(more, hint, limit, budget) {
            return false;
        }
        self.ready = self.bytes.capacity();
        if more < LARGE {
            self.ready = self.ready.min(length + AHEAD);
            self.bytes.resize(self.ready, 0);
            self.bytes.truncate(length);
        }
        true
    }

    /// Makes room for `more` bytes, as the budget allows: generously, else exactly.
    fn grow(&mut self, more: usize, hint: usize, limit: usize, budget: &Budget) -> bool {
        let (length, before) = (self.bytes.len(), self.cost());
        let exactly = length + more;
        if before == 0
            && hint > 0
            && let Some(spare) = budget.spare(hint - hint / 16)
            && budget.try_reserve(spare.capacity() + OVERHEAD)
        {
            self.bytes = spare;
            return self.bytes.capacity() >= exactly || self.grow(more, 0, limit, budget);
        }
        let generously = if before == 0 { hint.max(64) } else { self.bytes.capacity() * 2 };
        for capacity in [generously.min(limit).max(exactly), exactly] {
            let reserved = capacity + OVERHEAD - before;
            if budget.try_reserve(reserved) {
                self.bytes.reserve_exact(capacity - length);
                budget.exchange(before + reserved, self.cost());
                return true;
            }
        }
        false
    }
}

/// When an open batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What became of an event that was brought to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is accepted. Tell the batcher if a batch was opened or became full.
    Accepted { tell: bool },
    /// There is no room for it. Tell the batcher if a batch was closed on its behalf.
    Full { tell: bool },
    /// The collector has stopped.
    Stopped,
}

/// One open batch, and the full ones that the batcher has not taken yet.
#[derive(Debug, Default)]
struct Shard {
    open: Events,
    /// Whether the batcher knows of the open batch's first event, and so when it is due.
    known: bool,
    full: Vec<Events>,
    stopped: bool,
}

/// A shard on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned {
    shard: Mutex<Shard>,
    /// How many batches were closed: tells a deadline whether it is still meant. Changed under the
    /// lock only, and read without it, so that senders do not get in the way of those who collect.
    closed: AtomicU64,
}

impl Aligned {
    fn lock(&self) -> MutexGuard<'_, Shard> {
        // No user code runs under the lock, so a poisoned one holds nothing half done.
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, shard: &mut Shard) -> Events {
        self.closed.fetch_add(1, Ordering::Release);
        shard.known = false;
        std::mem::take(&mut shard.open)
    }
}

/// A stream's name and its open batches.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Tells the streams of several collectors apart.
    pub(crate) collector: u64,
    pub(crate) number: usize,
    pub(crate) name: Arc<str>,
    shards: [Aligned; SHARDS],
    /// A little more than the last full batch took: the next one, in whatever shard, likely needs
    /// it. Looked at once per batch.
    hint: AtomicUsize,
}

impl Stream {
    pub(crate) fn new(collector: u64, number: usize, name: &str) -> Self {
        Self {
            collector,
            number,
            name: name.into(),
            shards: Default::default(),
            hint: AtomicUsize::new(0),
        }
    }

    /// Takes an event, written as JSON with a comma before it. `preferred` is the shard that the
    /// thread found free the last time.
    #[inline(always)]
    pub(crate) fn append(
        &self,
        event: &[u8],
        preferred: &Cell<usize>,
        limits: BatchLimits,
        budget: &Budget,
    ) -> Appended {
        let (aligned, mut shard) = self.lock(preferred);
        if shard.stopped {
            return Appended::Stopped;
        }
        let mut tell = false;
        // The brackets count: one takes the place of the first comma.
        if shard.open.count > 0 && shard.open.bytes.len() + event.len() + 1 > limits.bytes {
            self.fill(aligned, &mut shard);
            tell = true;
        }
        if !shard.open.is_ready(event.len()) {
            let hint = self.hint.load(Ordering::Relaxed);
            if !shard.open.make_ready(event.len(), hint, limits.bytes, budget) {
                return Appended::Full { tell };
            }
        }
        shard.open.bytes.extend_from_slice(event);
        shard.open.count += 1;
        tell |= shard.open.count == 1;
        if shard.open.count >= limits.events {
            self.fill(aligned, &mut shard);
            tell = true;
        }
        Appended::Accepted { tell }
    }

    #[cold]
    fn fill(&self, aligned: &Aligned, shard: &mut Shard) {
        let length = shard.open.bytes.len();
        self.hint.store(length + length / 16 + 64, Ordering::Relaxed);
        let full = aligned.close(shard);
        shard.full.push(full);
    }

    #[inline(always)]
    fn lock(&self, preferred: &Cell<usize>) -> (&Aligned, MutexGuard<'_, Shard>) {
        let first = &self.shards[preferred.get() % SHARDS];
        match first.shard.try_lock() {
            Ok(shard) => (first, shard),
            Err(TryLockError::Poisoned(error)) => (first, error.into_inner()),
            Err(TryLockError::WouldBlock) => self.lock_another(preferred),
        }
    }

    #[cold]
    fn lock_another(&self, preferred: &Cell<usize>) -> (&Aligned, MutexGuard<'_, Shard>) {
        let taken = preferred.get();
        for index in (taken + 1..taken + SHARDS).map(|index| index % SHARDS) {
            if let Ok(shard) = self.shards[index].shard.try_lock() {
                preferred.set(index);
                return (&self.shards[index], shard);
            }
        }
        let first = &self.shards[taken % SHARDS];
        (first, first.lock())
    }

    /// Takes the full batches into `full`, and gives the shards that have a batch which was opened
    /// since the last call, with the number of that opening.
    pub(crate) fn take_full(&self, full: &mut Vec<Events>) -> [Option<u64>; SHARDS] {
        std::array::from_fn(|index| {
            let aligned = &self.shards[index];
            let mut shard = aligned.lock();
            full.append(&mut shard.full);
            let news = shard.open.count > 0 && !shard.known;
            shard.known |= news;
            news.then(|| aligned.closed.load(Ordering::Relaxed))
        })
    }

    /// Takes a shard's open batch if it is still the one that was opened then.
    pub(crate) fn take_open(&self, shard: usize, opening: u64) -> Option<Events> {
        let aligned = &self.shards[shard];
        let mut shard = aligned.lock();
        if aligned.closed.load(Ordering::Relaxed) != opening {
            return None;
        }
        // A trickle: no need for a large buffer, nor for its memory.
        self.hint.store(0, Ordering::Relaxed);
        Some(aligned.close(&mut shard))
    }

    /// Whether a shard's open batch is still the one that was opened then.
    pub(crate) fn is_open(&self, shard: usize, opening: u64) -> bool {
        self.shards[shard].closed.load(Ordering::Acquire) == opening
    }

    /// Takes everything: the full batches and the open ones. Accepts no event any more if `stop`.
    pub(crate) fn take_all(&self, full: &mut Vec<Events>, open: &mut Vec<Events>, stop: bool) {
        for aligned in &self.shards {
            let mut shard = aligned.lock();
            shard.stopped |= stop;
            full.append(&mut shard.full);
            if shard.open.count > 0 {
                open.push(aligned.close(&mut shard));
            }
        }
    }

    /// How many events wait here.
    pub(crate) fn count(&self) -> u64 {
        let count = |shard: &Aligned| {
            let shard = shard.lock();
            shard.open.count + shard.full.iter().map(|events| events.count).sum::<usize>()
        };
        self.shards.iter().map(count).sum::<usize>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_any_length_come_out_as_they_went_in() {
        let budget = Budget::new(1 << 20);
        let limits = BatchLimits { events: 200, bytes: 1 << 16 };
        let stream = Stream::new(0, 0, "mystream");
        for round in 0..3 {
            let (mut written, mut full) = (Vec::new(), Vec::new());
            for index in 0..limits.events {
                // Small and large ones in turns, and all of the lengths around the threshold.
                let length = (index * 37 + round) % (2 * LARGE) + 1;
                let event = vec![b'a' + (index % 26) as u8; length];
                written.extend_from_slice(&event);
                let appended = stream.append(&event, &Cell::new(0), limits, &budget);
                assert!(matches!(appended, Appended::Accepted { .. }));
            }
            stream.take_full(&mut full);
            let [events] = &mut full[..] else { panic!("{} batches", full.len()) };
            assert_eq!(events.bytes, written);
            // The next round finds a buffer that holds these bytes still.
            let cost = events.cost();
            budget.recycle(events);
            budget.exchange(cost, 0);
        }
        assert_eq!(budget.used(), 0);
    }
}
