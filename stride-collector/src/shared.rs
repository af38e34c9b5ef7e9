//! What callers and senders share: the intake, the batcher, and who waits for what.
//!
//! Nothing here knows which driver runs. A sender is woken, as is whoever waits for the end of a flush
//! or for room, through a [`Waker`]; threads make one of a condition variable. No waker is woken under
//! a lock: it may be anybody's.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::TransportError;

use crate::activity::{Activity, ServerState};
use crate::batcher::{
    Batcher, Input, Leaving, Loss, Parts, Policy, Response, Retire, Seal, Step, Waiting,
};
use crate::config::Settings;
use crate::intake::encode::Writing;
use crate::intake::stamp;
use crate::intake::stream::{BatchLimits, Held};
use crate::intake::table::Table;
use crate::report::{LostBatch, Report, Stats, with_sources};
#[cfg(feature = "spool")]
use crate::spool::Spooler;
use crate::sync::{Mutex, MutexGuard};

/// How many inputs are taken in under one lock.
const SLICE: usize = 1024;

/// A list that was once longer gives its memory back when it is empty.
const KEPT: usize = 4096;

/// The number of a driver that is no sender.
const NO_SENDER: usize = usize::MAX;

/// What a user does with something that happens.
type Callback<T> = Option<Arc<dyn Fn(&T) + Send + Sync>>;

/// What a user does with what happens.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) on_lost: Callback<LostBatch>,
    pub(crate) observer: Callback<Activity>,
}

pub(crate) struct Shared {
    /// Tells collectors apart in what threads remember.
    pub(crate) id: u64,
    pub(crate) writing: Writing,
    pub(crate) held: Held,
    pub(crate) table: Table,
    state: Mutex<State>,
    callbacks: Callbacks,
    #[cfg(feature = "spool")]
    spooler: Option<Spooler>,
    /// The time as the driver has it.
    now: fn() -> Instant,
}

struct State {
    batcher: Batcher,
    /// What was taken from the inbox, and is not taken in yet.
    backlog: VecDeque<Input>,
    /// How each sender is woken.
    senders: Vec<Option<Waker>>,
    /// Those who wait for a flush, by its number; for the end, the number is the last there is.
    waiters: BTreeMap<(u64, u64), Waker>,
    next_waiter: u64,
}

/// What a flush or a stop waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    Flushed(u64),
    Finished,
}

/// Those who must wake, once no lock is held.
#[must_use]
#[derive(Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings, callbacks: Callbacks, now: fn() -> Instant) -> Self {
        static COLLECTORS: AtomicU64 = AtomicU64::new(0);
        let id = COLLECTORS.fetch_add(1, Ordering::Relaxed);
        let policy = Policy {
            flush_interval: settings.flush_interval,
            batch_size: settings.batch_size,
            batch_bytes: settings.batch_bytes,
            senders: settings.concurrency,
            retry_for: settings.retry_for,
            ordered: settings.ordered,
            spool: settings.spool,
            seed: stamp::random(),
        };
        let state = State {
            batcher: Batcher::new(policy, now()),
            backlog: VecDeque::new(),
            senders: vec![None; settings.concurrency],
            waiters: BTreeMap::new(),
            next_waiter: 0,
        };
        let limits = BatchLimits {
            events: settings.batch_size,
            bytes: settings.batch_bytes,
            ordered: settings.ordered,
        };
        Self {
            id,
            writing: Writing::new(settings.max_event, settings.stamp),
            held: Held::new(limits, settings.memory_budget),
            table: Table::new(id),
            state: Mutex::new(state),
            callbacks,
            #[cfg(feature = "spool")]
            spooler: None,
            now,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The senders.

    /// Says what a sender has to do. With [`Step::Wait`] and [`Step::Idle`] it sleeps until then,
    /// or until it is woken.
    pub(crate) fn poll(&self, sender: usize, waker: &Waker) -> Step {
        loop {
            let mut state = self.state();
            self.take_in(&mut state);
            let step = state.batcher.poll(sender, (self.now)());
            let sleeps = matches!(step, Step::Wait(_) | Step::Idle);
            if sleeps {
                if matches!(step, Step::Idle) && state.batcher.is_empty() {
                    self.held.drop_spares();
                }
                if state.senders[sender].as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    state.senders[sender] = Some(waker.clone());
                }
                // What came meanwhile is seen here, or finds whom to wake.
                let is_empty = state.backlog.is_empty() && self.arm(&state);
                if !is_empty {
                    continue;
                }
            }
            self.changed(state).wake();
            return step;
        }
    }

    /// Takes in a slice of what the intake told.
    fn take_in(&self, state: &mut State) {
        if state.backlog.is_empty() {
            if state.backlog.capacity() > KEPT {
                state.backlog = VecDeque::new();
            }
            std::mem::swap(&mut state.backlog, &mut self.held.inbox.lock().inputs);
        }
        let now = (self.now)();
        for _ in 0..SLICE {
            let Some(input) = state.backlog.pop_front() else { break };
            #[cfg(feature = "spool")]
            if let (Input::Replayed { .. }, Some(spooler)) = (&input, &self.spooler) {
                spooler.underway.fetch_sub(1, Ordering::SeqCst);
            }
            state.batcher.handle(input, now);
        }
    }

    /// Tells the inbox whom to wake; `false` if there is something in it already.
    fn arm(&self, state: &State) -> bool {
        let waker = |sender: Option<usize>| state.senders.get(sender?)?.clone();
        let when_opened = waker(state.batcher.wake_when_opened());
        let when_sealed = waker(state.batcher.wake_when_sealed());
        let mut inbox = self.held.inbox.lock();
        let before = (
            std::mem::replace(&mut inbox.when_opened, when_opened),
            std::mem::replace(&mut inbox.when_sealed, when_sealed),
        );
        let is_empty = inbox.inputs.is_empty();
        drop(inbox);
        drop(before);
        is_empty
    }

    /// After the batcher has changed: gives back what became free, and says whom to wake.
    fn changed(&self, mut state: MutexGuard<'_, State>) -> Wakers {
        let (freed, grown) = state.batcher.take_freed();
        self.held.budget.adjust(freed, grown);
        #[cfg(feature = "spool")]
        if let Some(spooler) = &self.spooler {
            spooler.tell(&mut state.batcher);
        }
        let mut wakers = Vec::new();
        let sender = state.batcher.wake().and_then(|sender| state.senders.get(sender)?.clone());
        wakers.extend(sender);
        if !state.waiters.is_empty() {
            let rest = if state.batcher.is_finished() {
                BTreeMap::new()
            } else {
                let settled = state.batcher.settled_flushes();
                state.waiters.split_off(&(settled, 0))
            };
            wakers.extend(std::mem::replace(&mut state.waiters, rest).into_values());
        }
        drop(state);
        if freed > 0 {
            wakers.extend(self.held.budget.serve());
        }
        Wakers(wakers)
    }

    fn update<R>(&self, change: impl FnOnce(&mut Batcher, Instant) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state.batcher, (self.now)());
        self.changed(state).wake();
        result
    }

    /// What a request sends, compressed.
    pub(crate) fn handle_gzipped_request(&self, id: u64, bytes: &Bytes) {
        self.update(|batcher, _| batcher.handle_gzipped_request(id, bytes));
    }

    pub(crate) fn handle_gzipped(&self, waiting: &Waiting, bytes: Bytes) {
        self.update(|batcher, _| batcher.handle_gzipped(waiting, bytes));
    }

    /// A batch that leaves memory, compressed.
    pub(crate) fn handle_leaving(&self, leaving: &Leaving, bytes: Bytes) {
        self.update(|batcher, _| batcher.handle_leaving(leaving, bytes));
    }

    pub(crate) fn handle_split(&self, parts: Parts) {
        self.update(|batcher, now| batcher.handle_split(parts, now));
    }

    /// What came of an attempt.
    pub(crate) fn handle_result(&self, id: u64, result: Result<Response, TransportError>) {
        let (status, message, error) = match &result {
            Ok(response) => (Some(response.status.as_u16()), response.message.clone(), None),
            Err(error) => (None, None, Some(error.clone())),
        };
        let (before, activities) =
            self.update(|batcher, now| (batcher.server(), batcher.handle_result(id, result, now)));
        let change = activities.iter().find_map(|activity| match activity {
            Activity::Server(now) => Some(*now),
            _ => None,
        });
        guarded(|| {
            let (server_message, error) = (message.as_deref(), error.as_ref().map(with_sources));
            match change {
                Some(ServerState::Healthy) => {
                    tracing::info!(target: "stride::collector", "events are delivered again");
                }
                Some(_) if before == ServerState::Healthy => {
                    let text = "events cannot be delivered; they are kept and retried";
                    tracing::warn!(target: "stride::collector", status, server_message, error, "{text}");
                }
                _ => {
                    tracing::trace!(target: "stride::collector", status, server_message, error, "a request ended");
                }
            }
        });
        activities.iter().for_each(|activity| self.observe(activity));
    }

    /// Tells the user what happens, outside of every lock.
    fn observe(&self, activity: &Activity) {
        if let Some(observer) = &self.callbacks.observer {
            guarded(|| observer(activity));
        }
    }

    /// Seals open batches, as the batcher asked.
    pub(crate) fn seal(&self, seal: &Seal) {
        let mut wakers = Vec::new();
        for stream in self.table.streams(seal.lanes()) {
            wakers.extend(stream.seal(&self.held));
        }
        wakers.extend(self.held.inbox.push(Input::SealsDone(seal.ticket())));
        Wakers(wakers).wake();
    }

    /// Gives back streams that hold nothing, as the batcher asked.
    pub(crate) fn retire(&self, lanes: &[Retire]) {
        self.table.retire(lanes, &self.held);
        Wakers(self.held.budget.serve()).wake();
    }

    /// Whether reporting a loss takes the user's time.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_on_lost(&self) -> bool {
        self.callbacks.on_lost.is_some()
    }

    /// Reports a loss to the user, outside of every lock.
    pub(crate) fn report_loss(&self, loss: &Loss) {
        guarded(|| {
            tracing::warn!(
                target: "stride::collector",
                stream = &**loss.stream(),
                events = loss.count(),
                reason = %loss.reason(),
                delivery = ?loss.delivery(),
                status = loss.status().map(|status| status.as_u16()),
                server_message = loss.message().map(|message| &**message),
                error = loss.error().map(with_sources),
                "events were lost"
            );
        });
        self.observe(&Activity::Lost {
            stream: Arc::clone(loss.stream()),
            events: loss.count().into(),
            reason: loss.reason(),
            delivery: loss.delivery(),
        });
        if let Some(on_lost) = &self.callbacks.on_lost {
            let lost = loss.to_lost_batch();
            guarded(|| on_lost(&lost));
        }
        self.update(|batcher, _| batcher.handle_reported(loss));
    }

    // The ends.

    pub(crate) fn flush(&self) -> Goal {
        let (number, waker) = self.held.inbox.flush();
        Wakers(waker.into_iter().collect()).wake();
        let mut state = self.state();
        if state.batcher.is_finished() {
            // No sender is left that would.
            self.take_in(&mut state);
        }
        self.changed(state).wake();
        Goal::Flushed(number)
    }

    pub(crate) fn stop(&self) {
        let waker = self.held.inbox.close();
        let mut wakers = self.held.budget.wake_all();
        wakers.extend(waker);
        Wakers(wakers).wake();
    }

    pub(crate) fn is_reached(&self, goal: Goal) -> bool {
        let state = self.state();
        match goal {
            Goal::Flushed(number) => state.batcher.settled_flushes() > number,
            Goal::Finished => state.batcher.is_finished() && self.is_spool_finished(),
        }
    }

    /// Gives up what is still pending after a stop. It becomes lost by [`end`](Self::end).
    pub(crate) fn give_up(&self) {
        self.update(Batcher::give_up);
    }

    /// Does some of what is left to do after [`give_up`](Self::give_up); `false` if nothing is.
    pub(crate) fn end(&self) -> bool {
        let mut gzip = None;
        for _ in 0..SLICE {
            let mut state = self.state();
            while !state.backlog.is_empty() || !self.held.inbox.lock().inputs.is_empty() {
                self.take_in(&mut state);
                self.changed(state).wake();
                state = self.state();
            }
            let step = state.batcher.poll(NO_SENDER, (self.now)());
            self.changed(state).wake();
            match step {
                Step::Seal(seal) => self.seal(&seal),
                Step::Lost(loss) => self.report_loss(&loss),
                Step::Retire(lanes) => self.retire(&lanes),
                Step::Store(leaving) => {
                    let gzip = gzip.get_or_insert_with(|| Gzip::new(GzipLevel::FASTEST));
                    self.handle_leaving(&leaving, leaving.run(gzip));
                }
                // What is left is others' work, and they are at it.
                _ => return false,
            }
        }
        true
    }

    /// Whether the spool has written what it had to, or there is none.
    fn is_spool_finished(&self) -> bool {
        #[cfg(feature = "spool")]
        if let Some(spooler) = &self.spooler {
            return spooler.is_finished();
        }
        true
    }

    pub(crate) fn report(&self) -> Report {
        // Delivered and lost first: what is accepted later cannot be among them.
        let (mut report, sealed) = {
            let state = self.state();
            let inbox = self.held.inbox.lock();
            (state.batcher.totals(), inbox.sealed)
        };
        // Sealed, but not taken in yet.
        report.pending += sealed - report.accepted;
        let accepted = self.table.accepted();
        report.pending += accepted - sealed;
        report.accepted = accepted;
        report
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.state().batcher.stats((self.now)());
        stats.report = self.report();
        stats.memory = self.memory();
        #[cfg(feature = "spool")]
        if let Some(spooler) = &self.spooler {
            stats.spool = spooler.stats();
        }
        stats
    }

    /// What is held takes that much memory now, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.held.budget.used()
    }

    /// A place among those that are woken when a goal is reached.
    pub(crate) fn waiter(&self, goal: Goal) -> Waiter<'_> {
        let mut state = self.state();
        state.next_waiter += 1;
        let flush = match goal {
            Goal::Flushed(number) => number,
            Goal::Finished => u64::MAX,
        };
        Waiter { shared: self, key: (flush, state.next_waiter) }
    }
}

#[cfg(feature = "spool")]
mod spooling;
#[cfg(feature = "spool")]
pub(crate) use self::spooling::Room;

/// Somebody who waits. It is woken once; who wants to be woken again registers again, and looks
/// whether what it waits for is there only then.
pub(crate) struct Waiter<'a> {
    shared: &'a Shared,
    key: (u64, u64),
}

impl Waiter<'_> {
    pub(crate) fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.shared.state().waiters.insert(self.key, waker);
        // Outside of the lock: a waker may be anybody's.
        drop(before);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let waker = self.shared.state().waiters.remove(&self.key);
        drop(waker);
    }
}

/// Runs what belongs to the user and may panic; a sender must survive it.
fn guarded(work: impl FnOnce()) {
    // The panic itself was reported by the panic hook.
    let _ = catch_unwind(AssertUnwindSafe(work));
}
