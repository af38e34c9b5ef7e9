//! What callers and senders share: the streams, the batcher, and who waits for what.
//!
//! Nothing here knows which driver runs. A driver is woken, as is whoever waits for the end of a
//! flush or for room, through a [`Waker`]; threads make one of a condition variable.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use stride_core::api::is_name;
use stride_core::transport::TransportError;

use crate::CollectError;
use crate::batch::{Barrier, Batcher, Change, Job, Last, Loss, Policy, Step};
use crate::config::Settings;
use crate::report::{LostBatch, Report, with_sources};
use crate::request::Response;
use crate::scratch::{self, Buffer, Local, Outcome};
use crate::stamp::{self, Stamp};
use crate::stream::{Appended, BatchLimits, Budget, Stream};

/// What a user does with lost events.
pub(crate) type OnLost = Arc<dyn Fn(&LostBatch) + Send + Sync>;

pub(crate) struct Shared {
    /// Tells collectors apart in what threads remember.
    id: u64,
    limits: BatchLimits,
    max_event: usize,
    stamp: Option<Stamp>,
    budget: Arc<Budget>,
    streams: RwLock<HashMap<Arc<str>, Arc<Stream>>>,
    state: Mutex<State>,
    on_lost: Option<OnLost>,
    /// The time as the driver has it.
    now: fn() -> Instant,
}

struct State {
    batcher: Batcher,
    /// The senders that sleep, each at its number.
    sleepers: Vec<Option<Sleeper>>,
    /// Who waits for a batch to be settled, or for room.
    waiters: BTreeMap<u64, Waker>,
    next_waiter: u64,
}

struct Sleeper {
    waker: Waker,
    /// When it wakes by itself.
    until: Option<Instant>,
}

impl State {
    /// Takes out those who must wake now that the batcher has changed.
    fn rouse(&mut self) -> Wakers {
        Wakers { sleeper: self.rouse_sleeper(), waiters: self.waiters_for_room() }
    }

    /// Takes out those who wait, if there may be room for them.
    fn waiters_for_room(&mut self) -> BTreeMap<u64, Waker> {
        if self.batcher.made_room() { std::mem::take(&mut self.waiters) } else { BTreeMap::new() }
    }

    /// Takes out a sleeper that must wake, because there is something to do before one does so by
    /// itself. One is enough: it comes back here, and so wakes the next.
    ///
    /// For work it is one that does not watch the clock, if there is one: else another would have to
    /// wake only to watch it instead.
    fn rouse_sleeper(&mut self) -> Option<Waker> {
        let due = self.batcher.due()?;
        let wakes_in_time = |it: &Sleeper| it.until.is_some_and(|until| until <= due);
        if self.sleepers.iter().flatten().any(wakes_in_time) {
            return None;
        }
        let is_due = self.batcher.is_due();
        let is_second_choice = |it: &Sleeper| it.until.is_some() == is_due;
        let asleep = self.sleepers.iter_mut().filter(|it| it.is_some());
        let chosen = asleep.min_by_key(|it| it.as_ref().is_some_and(is_second_choice));
        chosen?.take().map(|it| it.waker)
    }
}

/// Those who must wake, once the lock is given back: a waker may be anybody's.
#[must_use]
struct Wakers {
    sleeper: Option<Waker>,
    waiters: BTreeMap<u64, Waker>,
}

impl Wakers {
    fn wake(self) {
        self.sleeper.into_iter().chain(self.waiters.into_values()).for_each(Waker::wake);
    }
}

/// Where an event goes.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    Name(&'a str),
    Stream(&'a Arc<Stream>),
}

impl Shared {
    pub(crate) fn new(settings: Settings, on_lost: Option<OnLost>, now: fn() -> Instant) -> Self {
        static COLLECTORS: AtomicU64 = AtomicU64::new(0);
        let limits = BatchLimits { events: settings.batch_size, bytes: settings.batch_bytes };
        let budget = Arc::new(Budget::new(settings.memory_budget));
        let seed = stamp::random();
        let policy = Policy { flush_interval: settings.flush_interval, limits, seed };
        let state = State {
            batcher: Batcher::new(policy, Arc::clone(&budget), now()),
            sleepers: (0..settings.concurrency).map(|_| None).collect(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
        };
        Self {
            id: COLLECTORS.fetch_add(1, Ordering::Relaxed),
            limits,
            max_event: settings.max_event,
            stamp: settings.stamp.then(Stamp::new),
            budget,
            streams: RwLock::default(),
            state: Mutex::new(state),
            on_lost,
            now,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The call site. It is compiled into one piece by force, from here down to the stream's lock: left
    // to the compiler, its calls take a fifth of the time of a small event.

    /// Writes an event into a thread's buffer, behind what is there.
    #[inline(always)]
    pub(crate) fn encode<T: Serialize + ?Sized>(
        &self,
        event: &T,
        scratch: &mut Buffer,
        local: &Local,
    ) -> Outcome {
        scratch::encode(event, self.max_event, scratch)?;
        self.stamp(scratch, local);
        Ok(())
    }

    /// Copies an event that is JSON already.
    pub(crate) fn copy(&self, event: &RawValue, scratch: &mut Vec<u8>, local: &Local) -> Outcome {
        scratch::copy(event, self.max_event, scratch)?;
        self.stamp(scratch, local);
        Ok(())
    }

    #[inline]
    fn stamp(&self, scratch: &mut Vec<u8>, local: &Local) {
        if let Some(stamp) = &self.stamp {
            stamp.apply(scratch, 1, local);
        }
    }

    /// Appends a written event to its stream.
    #[inline(always)]
    pub(crate) fn append(&self, target: To<'_>, event: &[u8], local: &Local) -> Outcome {
        let name = match target {
            To::Stream(stream) => return self.append_to(stream, event, local),
            To::Name(name) => name,
        };
        let recent = &mut local.recent.borrow_mut()[scratch::slot(self.id, name)];
        match recent {
            Some(stream) if *stream.name == *name && stream.collector == self.id => {
                self.append_to(stream, event, local)
            }
            _ => self.append_to(recent.insert(self.stream(name)?), event, local),
        }
    }

    #[inline(always)]
    fn append_to(&self, stream: &Arc<Stream>, event: &[u8], local: &Local) -> Outcome {
        match stream.append(event, &local.shard, self.limits, &self.budget) {
            Appended::Accepted { tell: false } => Ok(()),
            Appended::Accepted { tell: true } => {
                self.tell(stream);
                Ok(())
            }
            Appended::Full { tell } => {
                if tell {
                    self.tell(stream);
                }
                Err(CollectError::Full.into())
            }
            Appended::Stopped => Err(CollectError::Stopped.into()),
        }
    }

    /// Tells the batcher of a batch that was opened or became full.
    #[cold]
    fn tell(&self, stream: &Arc<Stream>) {
        let mut state = self.state();
        state.batcher.look_at(stream, (self.now)());
        let wakers = state.rouse();
        drop(state);
        wakers.wake();
    }

    /// The stream of that name.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, CollectError> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(name) {
            return Ok(Arc::clone(stream));
        }
        drop(streams);
        if !is_name(name) {
            return Err(CollectError::Name { name: name.to_owned() });
        }
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(name) {
            return Ok(Arc::clone(stream));
        }
        let stream = self.state().batcher.add_stream(self.id, name);
        streams.insert(Arc::clone(&stream.name), Arc::clone(&stream));
        Ok(stream)
    }

    // The senders.

    /// Says what a sender has to do. With [`Step::Wait`] and [`Step::Idle`] it sleeps until then,
    /// or until it is woken.
    pub(crate) fn poll(&self, sender: usize, waker: &Waker) -> Step {
        let mut state = self.state();
        state.sleepers[sender] = None;
        let mut step = state.batcher.poll((self.now)());
        if let Step::Wait(due) = step {
            let watches = |other: &Sleeper| other.until.is_some_and(|until| until <= due);
            if state.sleepers.iter().flatten().any(watches) {
                // One that watches the clock is enough.
                step = Step::Idle;
            }
        }
        let until = match step {
            Step::Wait(until) => Some(until),
            Step::Idle => None,
            Step::Send(_) | Step::Lost(_) | Step::Finished => {
                let wakers = state.rouse();
                drop(state);
                wakers.wake();
                return step;
            }
        };
        let waiters = state.waiters_for_room();
        state.sleepers[sender] = Some(Sleeper { waker: waker.clone(), until });
        drop(state);
        waiters.into_values().for_each(Waker::wake);
        step
    }

    /// Tells the batcher what an attempt sends, compressed.
    pub(crate) fn compressed(&self, job: Job, bytes: &Bytes) {
        let id = job.id;
        // Of the text, this was the last but one.
        drop(job);
        self.update(|batcher, _| batcher.compressed(id, bytes));
    }

    /// Tells the batcher what came of an attempt.
    pub(crate) fn handle_result(&self, id: u64, result: Result<Response, TransportError>) {
        let seen = match &result {
            Ok(response) => response.status.to_string(),
            Err(error) => with_sources(error),
        };
        let change = self.update(|batcher, now| batcher.handle_result(id, result, now));
        guarded(|| match change {
            Some(Change::Down) => {
                tracing::warn!(
                    answer = seen,
                    "events cannot be delivered; they are kept and retried"
                );
            }
            Some(Change::Up) => tracing::info!("events are delivered again"),
            None => tracing::trace!(answer = seen, "a batch was sent"),
        });
    }

    /// Whether handing over a loss takes the user's time.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_on_lost(&self) -> bool {
        self.on_lost.is_some()
    }

    /// Hands a loss to the user, outside of every lock.
    pub(crate) fn hand_over(&self, loss: &Loss) {
        let Loss { reason, delivery, .. } = *loss;
        let Last { status, message, error } = &loss.last;
        guarded(|| {
            let status = status.map(|status| status.as_u16());
            let (message, error) = (message.as_deref(), error.as_ref().map(with_sources));
            for label in loss.body.labels() {
                let (stream, events) = (&*label.stream, label.count);
                tracing::warn!(
                    stream,
                    events,
                    %reason,
                    ?delivery,
                    status,
                    message,
                    error,
                    "events were lost"
                );
            }
        });
        if let Some(on_lost) = &self.on_lost {
            for (label, events) in loss.body.arrays() {
                let stream = Arc::clone(&label.stream);
                let mut lost = LostBatch::new(stream, events, label.count, reason, delivery);
                lost.status = *status;
                lost.message.clone_from(message);
                lost.error.clone_from(error);
                guarded(|| on_lost(&lost));
            }
        }
        self.update(|batcher, _| batcher.handed_over(loss));
    }

    // The ends.

    /// Changes the batcher, and wakes everybody whom that may concern.
    fn update<R>(&self, change: impl FnOnce(&mut Batcher, Instant) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state.batcher, (self.now)());
        let sleeper = state.rouse_sleeper();
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        Wakers { sleeper, waiters }.wake();
        result
    }

    pub(crate) fn flush(&self) -> Barrier {
        self.update(Batcher::flush)
    }

    pub(crate) fn is_settled(&self, barrier: Barrier) -> bool {
        self.state().batcher.is_settled(barrier)
    }

    pub(crate) fn stop(&self) {
        self.update(Batcher::stop);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state().batcher.is_finished()
    }

    /// Gives up what is still pending after a stop. What is lost by it is to be handed over.
    #[must_use]
    pub(crate) fn give_up(&self) -> Vec<Loss> {
        self.update(|batcher, _| batcher.give_up())
    }

    pub(crate) fn report(&self) -> Report {
        self.state().batcher.report()
    }

    /// What is held takes that much memory now, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.budget.used()
    }

    /// A place among those that are woken when something is settled or room is made.
    pub(crate) fn waiter(&self) -> Waiter<'_> {
        let mut state = self.state();
        state.next_waiter += 1;
        Waiter { shared: self, number: state.next_waiter }
    }
}

/// Somebody who waits. It is woken once; who wants to be woken again registers again, and looks
/// whether what it waits for is there only then.
pub(crate) struct Waiter<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Waiter<'_> {
    pub(crate) fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.shared.state().waiters.insert(self.number, waker);
        // Outside of the lock: a waker may be anybody's.
        drop(before);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let waker = self.shared.state().waiters.remove(&self.number);
        drop(waker);
    }
}

/// Runs what belongs to the user and may panic; a sender must survive it.
fn guarded(work: impl FnOnce()) {
    // The panic itself was reported by the panic hook.
    let _ = catch_unwind(AssertUnwindSafe(work));
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU64);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn work_wakes_the_sender_that_does_not_watch_the_clock() {
        let settings = Settings { batch_size: 2, ..Settings::default() };
        let shared = Shared::new(settings, None, Instant::now);
        let wakes: [Arc<Wakes>; 2] = Default::default();
        let poll = |sender: usize| shared.poll(sender, &Waker::from(Arc::clone(&wakes[sender])));
        let counts = || wakes.each_ref().map(|wakes| wakes.0.load(Ordering::Relaxed));
        let collect = || {
            let collected = Local::with(|local| shared.append(To::Name("mystream"), b",{}", local));
            collected.unwrap();
        };
        collect();
        assert!(matches!(poll(0), Step::Wait(_)));
        assert!(matches!(poll(1), Step::Idle));
        // The batch is full: the other one sends it.
        collect();
        assert_eq!(counts(), [0, 1]);
        assert!(matches!(poll(1), Step::Send(_)));
        // The next batch is opened: the first one watches the clock already.
        collect();
        assert_eq!(counts(), [0, 1]);
        // It is full while the second one is busy: there is nobody else.
        collect();
        assert_eq!(counts(), [1, 1]);
    }
}
