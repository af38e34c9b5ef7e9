//! The open batches of one stream, where `collect` leaves its events.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, TryLockError};
use std::task::Waker;

use super::inbox::{Closed, Inbox};
use crate::batcher::{BATCH_COST, Events, Input, LaneId};
use crate::budget::Budget;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard};

/// How many open batches a stream has for threads that collide on it. Four keep eight threads apart;
/// a stream gets the others when two threads first collide, and a lone thread fills the first only.
const SHARDS: usize = 4;

/// What a stream takes of the budget while it holds events, beside its name: this, its entries in
/// tables and lists, and its lane in the batcher.
pub(crate) const STREAM_COST: usize = 320;

/// The first buffer of a stream of which nothing is known.
const SMALLEST: usize = 64;

/// When an open batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// A stream's events stay in order: it has one open batch at a time.
    pub(crate) ordered: bool,
}

/// How many buffers are kept for the next batches: those that two senders just emptied, and as many
/// again.
const SPARES: usize = 4;

/// Smaller buffers are as fast from the allocator.
const SPARE_FROM: usize = 16 << 10;

/// What streams of a collector share.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) limits: BatchLimits,
    pub(crate) budget: Budget,
    pub(crate) inbox: Inbox,
    /// Buffers of sent batches: fresh memory costs more than filling it (`collect/web`).
    spares: Mutex<Vec<Vec<u8>>>,
    longest_spare: usize,
}

impl Held {
    pub(crate) fn new(limits: BatchLimits, budget: usize) -> Self {
        Self {
            limits,
            budget: Budget::new(budget),
            inbox: Inbox::default(),
            spares: Mutex::default(),
            longest_spare: budget / 16 / SPARES,
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back the buffer of a batch. All of them take a sixteenth of the budget at most, beside
    /// it, and nothing when the collector is idle.
    pub(crate) fn recycle(&self, mut buffer: Vec<u8>) {
        if (SPARE_FROM..=self.longest_spare).contains(&buffer.capacity()) {
            buffer.clear();
            let mut spares = self.spares();
            if spares.len() < SPARES {
                spares.push(buffer);
            }
        }
    }

    /// Gives the spare buffers back: nothing is going on.
    pub(crate) fn drop_spares(&self) {
        self.spares().clear();
    }

    /// A spare buffer that is as long as it is likely to be needed, and for which there is room.
    fn spare(&self, hint: usize, least: usize, grant: &mut usize) -> Option<Vec<u8>> {
        if hint < SPARE_FROM {
            return None;
        }
        let mut spares = self.spares();
        let fits = |spare: &Vec<u8>| spare.capacity() >= (hint - hint / 16).max(least);
        let index = spares.iter().position(fits)?;
        let cost = spares[index].capacity() + BATCH_COST;
        self.budget.try_reserve(cost, grant).then(|| spares.swap_remove(index))
    }
}

/// What became of an event that was brought to its stream.
#[derive(Debug)]
pub(crate) enum Appended {
    Accepted,
    /// Somebody has to be woken, outside of every lock.
    Wakes(Waker),
    /// There is no room for it; somebody may have to be woken.
    Full(Option<Waker>),
    /// The collector was stopped.
    Stopped,
    /// The stream was given back. It has to be looked up again.
    Retired,
}

#[derive(Debug, Default)]
struct Open {
    /// Each event with a comma before it.
    text: Vec<u8>,
    count: u32,
    /// How many batches were sealed, modulo 2³². It is never set back: the number that a lane is to be given back at would
    /// come a second time.
    sealed: u32,
    retired: bool,
}

#[derive(Debug, Default)]
struct Shard {
    open: Mutex<Open>,
    /// How many events it ever accepted. Written under the lock only.
    accepted: AtomicU64,
}

/// A shard that lies beside no other on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(Shard);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // No user code runs under the lock, so a poisoned one holds nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn count(&self, open: &mut Open) {
        open.count += 1;
        let accepted = self.accepted.load(Ordering::Relaxed);
        self.accepted.store(accepted + 1, Ordering::Release);
    }
}

/// A stream's name and its open batches.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Tells the streams of several collectors apart.
    pub(crate) collector: u64,
    pub(crate) lane: LaneId,
    pub(crate) name: Arc<str>,
    first: Shard,
    others: OnceLock<Box<[Apart; SHARDS - 1]>>,
    /// Whether the budget counts it.
    charged: AtomicBool,
    /// How many handles keep it. Changed under the lock of the table.
    pub(crate) pins: AtomicUsize,
    /// How many batches of its lane were sealed when that was last given back. Changed under the lock of the table.
    given_back: AtomicU32,
    /// A little more than the last full batch took: the next one likely needs it.
    hint: AtomicUsize,
}

impl Stream {
    /// `sealed`: how many batches the streams sealed that had its lane before.
    pub(crate) fn new(
        collector: u64,
        lane: LaneId,
        name: &str,
        charged: bool,
        sealed: u32,
    ) -> Self {
        let first = Shard::default();
        first.lock().sealed = sealed;
        Self {
            collector,
            lane,
            name: name.into(),
            first,
            others: OnceLock::new(),
            charged: AtomicBool::new(charged),
            pins: AtomicUsize::new(0),
            given_back: AtomicU32::new(sealed),
            hint: AtomicUsize::new(0),
        }
    }

    /// What it takes of the budget while it holds events.
    pub(crate) fn cost(name: &str) -> usize {
        STREAM_COST + name.len()
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        let others = self.others.get().into_iter().flat_map(|others| others.iter());
        std::iter::once(&self.first).chain(others.map(|apart| &apart.0))
    }

    /// Takes an event, written as JSON with a comma before it. `preferred` is the shard that the
    /// thread found free the last time.
    #[inline(always)]
    pub(crate) fn append(
        &self,
        event: &[u8],
        preferred: &Cell<usize>,
        held: &Held,
        grant: &mut usize,
    ) -> Appended {
        let (shard, mut open) = self.lock(preferred, held);
        let room = open.text.capacity() - open.text.len();
        // The brackets count: one takes the place of the first comma.
        if room < event.len() || open.text.len() + event.len() >= held.limits.bytes {
            return self.append_growing(shard, open, event, held, grant);
        }
        open.text.extend_from_slice(event);
        shard.count(&mut open);
        if open.count as usize >= held.limits.events {
            return self.fill(open, held);
        }
        Appended::Accepted
    }

    /// Takes the event that makes a batch full.
    #[cold]
    fn fill(&self, mut open: MutexGuard<'_, Open>, held: &Held) -> Appended {
        let length = open.text.len();
        self.hint.store(length + length / 16 + 64, Ordering::Relaxed);
        self.seal_open(&mut open, held).map_or(Appended::Accepted, Appended::Wakes)
    }

    fn seal_open(&self, open: &mut Open, held: &Held) -> Option<Waker> {
        let events = open.take();
        held.inbox.sealed(self.lane, &self.name, events)
    }

    /// Takes an event that the open batch has no room for, or for which there is no open batch.
    #[cold]
    fn append_growing(
        &self,
        shard: &Shard,
        mut open: MutexGuard<'_, Open>,
        event: &[u8],
        held: &Held,
        grant: &mut usize,
    ) -> Appended {
        if open.retired {
            return Appended::Retired;
        }
        let mut waker = None;
        if open.count > 0 && open.text.len() + event.len() >= held.limits.bytes {
            let length = open.text.len();
            self.hint.store(length + length / 16 + 64, Ordering::Relaxed);
            waker = self.seal_open(&mut open, held);
        }
        if open.count > 0 {
            if !grow(&mut open.text, event.len(), held, grant) {
                return Appended::Full(waker);
            }
            open.text.extend_from_slice(event);
            shard.count(&mut open);
            if open.count as usize >= held.limits.events {
                return self.fill(open, held);
            }
            return Appended::Accepted;
        }
        match self.open(shard, &mut open, event, held, grant) {
            Ok(None) => waker.map_or(Appended::Accepted, Appended::Wakes),
            Ok(Some(opened)) => Appended::Wakes(waker.unwrap_or(opened)),
            Err(Refused::Full) => Appended::Full(waker),
            Err(Refused::Closed) => Appended::Stopped,
        }
    }

    /// Opens a batch with an event.
    fn open(
        &self,
        shard: &Shard,
        open: &mut Open,
        event: &[u8],
        held: &Held,
        grant: &mut usize,
    ) -> Result<Option<Waker>, Refused> {
        let budget = &held.budget;
        let cost = Self::cost(&self.name);
        let charges = !self.charged.swap(true, Ordering::Relaxed);
        if charges && !budget.try_reserve(cost, grant) {
            self.charged.store(false, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let refuse = |refused| {
            if charges && self.charged.swap(false, Ordering::Relaxed) {
                budget.adjust(cost, 0);
            }
            Err(refused)
        };
        let is_full = held.limits.events == 1;
        let hint = if is_full { 0 } else { self.hint.load(Ordering::Relaxed).max(SMALLEST) };
        let generously = hint.min(held.limits.bytes).max(event.len());
        let mut reserve = || {
            if let Some(spare) = held.spare(hint, event.len(), grant) {
                return Some(spare);
            }
            let mut capacities = [generously, event.len()].into_iter();
            let capacity =
                capacities.find(|capacity| budget.try_reserve(capacity + BATCH_COST, grant))?;
            let text = Vec::with_capacity(capacity);
            budget.adjust(capacity, text.capacity());
            Some(text)
        };
        let Some(mut text) = reserve() else { return refuse(Refused::Full) };
        text.extend_from_slice(event);
        if is_full {
            let events = Events { text, count: 1 };
            // Counted before it can be seen among those that were sealed.
            shard.count(open);
            open.count = 0;
            return match held.inbox.sealed_at_once(self.lane, &self.name, events) {
                Ok(waker) => {
                    open.sealed = open.sealed.wrapping_add(1);
                    Ok(waker)
                }
                Err((Closed, events)) => {
                    shard.accepted.fetch_sub(1, Ordering::Release);
                    budget.adjust(events.cost(), 0);
                    refuse(Refused::Closed)
                }
            };
        }
        match held.inbox.opened(self.lane, &self.name) {
            Ok(waker) => {
                open.text = text;
                shard.count(open);
                Ok(waker)
            }
            Err(Closed) => {
                budget.adjust(text.capacity() + BATCH_COST, 0);
                refuse(Refused::Closed)
            }
        }
    }

    #[inline(always)]
    fn lock(&self, preferred: &Cell<usize>, held: &Held) -> (&Shard, MutexGuard<'_, Open>) {
        let shard = match (preferred.get(), self.others.get()) {
            (0, _) | (_, None) => &self.first,
            (index, Some(others)) => &others[(index - 1) % (SHARDS - 1)].0,
        };
        match shard.open.try_lock() {
            Ok(open) => (shard, open),
            Err(TryLockError::Poisoned(error)) => (shard, error.into_inner()),
            Err(TryLockError::WouldBlock) => self.lock_another(preferred, held),
        }
    }

    #[cold]
    fn lock_another(&self, preferred: &Cell<usize>, held: &Held) -> (&Shard, MutexGuard<'_, Open>) {
        if held.limits.ordered {
            return (&self.first, self.first.lock());
        }
        let Some(others) = self.others.get() else {
            let open = self.first.lock();
            // Under the lock: who gives the stream back holds it, and then all that there are. New ones
            // would not know that it was given back.
            if !open.retired {
                self.others.get_or_init(Box::default);
            }
            return (&self.first, open);
        };
        let taken = preferred.get();
        for index in (taken + 1..taken + SHARDS).map(|index| index % SHARDS) {
            let shard = if index == 0 { &self.first } else { &others[index - 1].0 };
            if let Ok(open) = shard.open.try_lock() {
                preferred.set(index);
                return (shard, open);
            }
        }
        let shard = if taken == 0 { &self.first } else { &others[(taken - 1) % (SHARDS - 1)].0 };
        (shard, shard.lock())
    }

    /// Passes a record on that was read from disk; gives it back if the stream was given back, or the
    /// collector stopped.
    #[cfg(feature = "spool")]
    pub(crate) fn replay(
        &self,
        replay: crate::batcher::Replay,
        held: &Held,
    ) -> Result<Option<Waker>, (Appended, crate::batcher::Replay)> {
        let mut open = self.first.lock();
        if open.retired {
            return Err((Appended::Retired, replay));
        }
        if !self.charged.swap(true, Ordering::Relaxed) {
            held.budget.adjust(0, Self::cost(&self.name));
        }
        let waker = held
            .inbox
            .replayed(self.lane, &self.name, replay)
            .map_err(|replay| (Appended::Stopped, replay))?;
        open.sealed = open.sealed.wrapping_add(1);
        Ok(waker)
    }

    /// Seals what is open.
    pub(crate) fn seal(&self, held: &Held) -> Option<Waker> {
        let mut waker = None;
        for shard in self.shards() {
            let mut open = shard.lock();
            if open.count > 0 {
                // A trickle: no need for a large buffer, nor for its memory.
                self.hint.store(0, Ordering::Relaxed);
                waker = self.seal_open(&mut open, held).or(waker);
            }
        }
        waker
    }

    /// How many events were ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.shards().map(|shard| shard.accepted.load(Ordering::Acquire)).sum()
    }

    /// Gives it back, if it holds nothing and sealed no batch beyond those that were seen. A stream
    /// with handles stays in the table, but takes nothing of the budget. `seen` is `None` if the batcher
    /// does not know of it.
    pub(crate) fn retire(&self, seen: Option<u32>, held: &Held) -> bool {
        let mut open = vec![self.first.lock()];
        let others = self.others.get().into_iter().flat_map(|others| others.iter());
        open.extend(others.map(|apart| apart.0.lock()));
        let sealed = open.iter().fold(0_u32, |sum, open| sum.wrapping_add(open.sealed));
        if open.iter().any(|open| open.count > 0 || open.retired)
            || sealed != seen.unwrap_or_else(|| self.given_back())
        {
            return false;
        }
        self.given_back.store(sealed, Ordering::Relaxed);
        let keeps = self.pins.load(Ordering::Relaxed) > 0;
        for open in &mut open {
            open.retired = !keeps;
        }
        if self.charged.swap(false, Ordering::Relaxed) {
            held.budget.adjust(Self::cost(&self.name), 0);
        }
        if seen.is_some() {
            // A sender does this: it need not be woken.
            held.inbox.lock().inputs.push_back(Input::Retired(self.lane));
        }
        !keeps
    }

    /// How many batches of its lane were sealed when that was last given back.
    pub(crate) fn given_back(&self) -> u32 {
        self.given_back.load(Ordering::Relaxed)
    }
}

impl Open {
    fn take(&mut self) -> Events {
        self.sealed = self.sealed.wrapping_add(1);
        Events { text: std::mem::take(&mut self.text), count: std::mem::take(&mut self.count) }
    }
}

#[derive(Debug, Clone, Copy)]
enum Refused {
    Full,
    Closed,
}

/// Makes room for `more` bytes, as the budget allows: generously, else exactly.
fn grow(text: &mut Vec<u8>, more: usize, held: &Held, grant: &mut usize) -> bool {
    let (length, before) = (text.len(), text.capacity());
    let exactly = length + more;
    if exactly <= before {
        return true;
    }
    for capacity in [(before * 2).min(held.limits.bytes).max(exactly), exactly] {
        if held.budget.try_reserve(capacity - before, grant) {
            text.reserve_exact(capacity - length);
            held.budget.adjust(capacity, text.capacity());
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_any_length_come_out_as_they_went_in() {
        let limits = BatchLimits { events: 200, bytes: 1 << 16, ordered: false };
        let held = Held::new(limits, 1 << 20);
        let stream = Stream::new(0, LaneId(0), "mystream", false, 0);
        let mut written = Vec::new();
        for index in 0..limits.events {
            let event = vec![b'a' + (index % 26) as u8; index * 37 % 256 + 1];
            written.extend_from_slice(&event);
            let appended = stream.append(&event, &Cell::new(0), &held, &mut 0);
            assert!(matches!(appended, Appended::Accepted), "{appended:?}");
        }
        assert_eq!(stream.accepted(), 200);
        let mut inputs = std::mem::take(&mut held.inbox.lock().inputs);
        assert!(matches!(inputs.pop_front(), Some(Input::Opened { .. })));
        let Some(Input::Sealed { events, .. }) = inputs.pop_front() else { panic!("{inputs:?}") };
        assert_eq!((events.text.as_slice(), events.count), (written.as_slice(), 200));
        held.budget.adjust(events.cost(), 0);
        assert!(!stream.retire(Some(0), &held), "the batcher has not seen the batch yet");
        assert!(stream.retire(Some(1), &held));
        assert_eq!(held.budget.used(), 0);
        let appended = stream.append(b",{}", &Cell::new(0), &held, &mut 0);
        assert!(matches!(appended, Appended::Retired), "{appended:?}");
    }
}
