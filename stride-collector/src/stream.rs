//! The open batches of one stream, where `collect` leaves its events.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// How many open batches a stream has for threads that collide on it. Four keep eight threads apart;
/// a lone thread fills one only, so that its batches are full ones.
pub(crate) const SHARDS: usize = 4;

/// What an open or sealed batch of one stream costs beside its bytes: its buffer's head, its entry
/// in the batch and in the lists. It keeps many tiny batches within the budget, too.
pub(crate) const OVERHEAD: usize = 128;

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
        if spares.len() < SPARES && buffer.capacity() <= self.limit / 16 / SPARES {
            spares.push(buffer);
        }
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
}

impl Events {
    /// What they take of the budget.
    pub(crate) fn cost(&self) -> usize {
        match self.bytes.capacity() {
            0 => 0,
            capacity => capacity + OVERHEAD,
        }
    }

    /// Makes room for `more` bytes, as the budget allows: generously, else exactly.
    #[cold]
    fn grow(&mut self, more: usize, hint: usize, limit: usize, budget: &Budget) -> bool {
        let (length, before) = (self.bytes.len(), self.cost());
        let exactly = length + more;
        if before == 0 && hint > 0 {
            let spare = budget.spares().pop_if(|spare| spare.capacity() >= hint);
            if let Some(spare) = spare
                && budget.try_reserve(spare.capacity() + OVERHEAD)
            {
                self.bytes = spare;
                return self.bytes.capacity() >= exactly || self.grow(more, 0, limit, budget);
            }
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
    /// How many batches were opened before this one: tells a deadline whether it is still meant.
    opening: u64,
    /// Whether the batcher knows of the open batch's first event, and so when it is due.
    known: bool,
    full: Vec<Events>,
    stopped: bool,
}

impl Shard {
    fn close(&mut self) -> Events {
        self.opening += 1;
        self.known = false;
        std::mem::take(&mut self.open)
    }

    fn fill(&mut self, hint: &AtomicUsize) {
        let length = self.open.bytes.len();
        hint.store(length + length / 16 + 64, Ordering::Relaxed);
        let full = self.close();
        self.full.push(full);
    }
}

/// Keeps each shard's lock on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

impl Aligned {
    fn lock(&self) -> MutexGuard<'_, Shard> {
        // No user code runs under the lock, so a poisoned one holds nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    #[inline]
    pub(crate) fn append(
        &self,
        event: &[u8],
        preferred: &Cell<usize>,
        limits: BatchLimits,
        budget: &Budget,
    ) -> Appended {
        let mut shard = self.lock(preferred);
        if shard.stopped {
            return Appended::Stopped;
        }
        let mut tell = false;
        // The brackets count: one takes the place of the first comma.
        if shard.open.count > 0 && shard.open.bytes.len() + event.len() + 1 > limits.bytes {
            shard.fill(&self.hint);
            tell = true;
        }
        if shard.open.bytes.capacity() - shard.open.bytes.len() < event.len() {
            let hint = self.hint.load(Ordering::Relaxed);
            if !shard.open.grow(event.len(), hint, limits.bytes, budget) {
                return Appended::Full { tell };
            }
        }
        shard.open.bytes.extend_from_slice(event);
        shard.open.count += 1;
        tell |= shard.open.count == 1;
        if shard.open.count >= limits.events {
            shard.fill(&self.hint);
            tell = true;
        }
        Appended::Accepted { tell }
    }

    #[inline]
    fn lock(&self, preferred: &Cell<usize>) -> MutexGuard<'_, Shard> {
        let first = preferred.get() % SHARDS;
        match self.shards[first].0.try_lock() {
            Ok(shard) => shard,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_another(preferred, first),
        }
    }

    #[cold]
    fn lock_another(&self, preferred: &Cell<usize>, taken: usize) -> MutexGuard<'_, Shard> {
        for step in 1..SHARDS {
            let index = (taken + step) % SHARDS;
            if let Ok(shard) = self.shards[index].0.try_lock() {
                preferred.set(index);
                return shard;
            }
        }
        self.shards[taken].lock()
    }

    /// Takes the full batches into `full`, and gives the shards that have a batch which was opened
    /// since the last call, with the number of that opening.
    pub(crate) fn take_full(&self, full: &mut Vec<Events>) -> [Option<u64>; SHARDS] {
        std::array::from_fn(|index| {
            let mut shard = self.shards[index].lock();
            full.append(&mut shard.full);
            let news = shard.open.count > 0 && !shard.known;
            shard.known |= news;
            news.then_some(shard.opening)
        })
    }

    /// Takes a shard's open batch if it is still the one that was opened then.
    pub(crate) fn take_open(&self, shard: usize, opening: u64) -> Option<Events> {
        let mut shard = self.shards[shard].lock();
        if shard.opening != opening || shard.open.count == 0 {
            return None;
        }
        // A trickle: no need for a large buffer, nor for its memory.
        self.hint.store(0, Ordering::Relaxed);
        Some(shard.close())
    }

    /// Whether a shard's open batch is still the one that was opened then.
    pub(crate) fn is_open(&self, shard: usize, opening: u64) -> bool {
        let shard = self.shards[shard].lock();
        shard.opening == opening && shard.open.count > 0
    }

    /// Takes everything: the full batches and the open ones. Accepts no event any more if `stop`.
    pub(crate) fn take_all(&self, full: &mut Vec<Events>, open: &mut Vec<Events>, stop: bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.stopped |= stop;
            full.append(&mut shard.full);
            if shard.open.count > 0 {
                open.push(shard.close());
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
