//! What is sent when: every decision of a collector, as a machine without threads, clock or IO. For
//! drivers of one's own; it comes without a promise of stability.
//!
//! The example
//! [`by_hand_collector`](https://github.com/stride-rs/stride/blob/main/tests/suite/examples/by_hand_collector.rs)
//! is a whole collector on smol, in two hundred lines.
//!
//! Each stream is a *lane*: first in, first out, with its own retries and delays. The driver tells
//! what happened to the lanes, polls, does what the machine says, and tells what came of it:
//!
//! ```text
//!              poll                      the driver then
//!   ┌────────► Send(request) ──────────► sends it:            handle_gzipped_request, handle_result
//!   │          Compress(waiting) ──────► compresses it:       handle_gzipped
//!   │          Split(split) ───────────► splits it:           handle_split
//!   │          Lost(loss) ─────────────► reports it:          handle_reported
//!   │          Seal(seal) ─────────────► seals open batches:  Sealed…, SealsDone
//!   │          Retire(lanes) ──────────► gives them back:     Retired…
//!   └───────── Wait(until), Idle ──────► sleeps until then, or until it is woken
//!              Finished ───────────────► ends
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use stride_collector::batcher::{Batcher, Events, Input, LaneId, Policy, Response, Step};
//!
//! let now = Instant::now();
//! let mut batcher = Batcher::new(Policy::default(), now);
//! let events = Events { text: br#",{"x":1},{"x":2}"#.to_vec(), count: 2 };
//! let (lane, stream) = (LaneId(0), Arc::from("clicks"));
//! batcher.handle(Input::Sealed { lane, stream, events, opened: false }, now);
//!
//! let Step::Send(request) = batcher.poll(0, now) else { panic!() };
//! assert_eq!(request.body().path(), "/collect/clicks");
//! let response = Response { status: http::StatusCode::OK, headers: Default::default(), message: None };
//! batcher.handle_result(request.id(), Ok(response), now);
//! assert_eq!(batcher.totals().delivered, 2);
//! ```

mod ages;
mod batch;
mod inputs;
mod lane;
mod narrow;
mod next;
mod outcome;
mod retry;
mod schedule;
mod spooled;
mod step;
mod wakeups;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use stride_core::transport::Delivery;

use self::ages::Ages;
use self::batch::Batch;
pub use self::batch::{BATCH_COST, Body, Events, Response};
use self::lane::Lane;
use self::retry::Health;
use self::spooled::{Leaves, Spooled};
pub use self::spooled::{Leaving, Replay, SpoolMode, SpoolOrder, Store, Stored};
pub use self::step::{
    Input, LaneId, Loss, Parts, RecordId, Request, Retire, Seal, Split, Step, Waiting,
};
use self::wakeups::Wakeups;
use crate::activity::ServerState;
pub use crate::budget::Budget;
use crate::report::{LossReason, Report, Stats};

/// How many lanes one [`Step::Seal`] or [`Step::Retire`] names at most, and how many batches expire in
/// one poll: some 50 us of work.
const SLICE: usize = 256;

/// Shorter texts are not worth compressing while they wait.
const COMPRESSED_FROM: usize = 2 << 10;

/// What a batcher goes by; see the [`Builder`](crate::Builder) for what each setting means.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The longest time that a batch stays open.
    pub flush_interval: Duration,
    /// The most events in one request, unless a single batch has more.
    pub batch_size: usize,
    /// The longest text of one request, unless a single batch is longer.
    pub batch_bytes: usize,
    /// How many senders poll.
    pub senders: usize,
    /// How long a batch is tried.
    pub retry_for: Duration,
    /// Whether each lane has one batch in flight at most, so that its events arrive in order.
    pub ordered: bool,
    /// Which batches go to disk, if there is one.
    pub spool: Option<SpoolMode>,
    /// Makes the delays differ between collectors.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(250),
            batch_size: 1000,
            batch_bytes: 1 << 20,
            senders: 2,
            retry_for: Duration::from_secs(120),
            ordered: false,
            spool: None,
            seed: 0,
        }
    }
}

/// A request under way.
#[derive(Debug)]
struct InFlight {
    parts: Vec<(LaneId, Box<Batch>)>,
    /// The outage during which it was sent.
    outage: u64,
    /// Whether it was sent for a lane in trouble, or to probe the server.
    is_trial: bool,
}

/// Lanes that a driver was asked to seal.
#[derive(Debug)]
struct Sealing {
    first: u64,
    lanes: Vec<LaneId>,
}

/// The machine; see the [module](self).
#[derive(Debug)]
pub struct Batcher {
    policy: Policy,
    lanes: Vec<Option<Box<Lane>>>,
    /// How many sealed batches ever came for each number of a lane, modulo 2³², whoever had it.
    sealed: Vec<u32>,
    lane_count: usize,
    /// The lanes with open batches, in the order in which they were opened.
    opened: BTreeMap<u64, (LaneId, Instant)>,
    next_opened: u64,
    /// Those up to here are to be sealed at once.
    seal_through: u64,
    sealing: BTreeMap<u64, Sealing>,
    next_ticket: u64,
    ready: BTreeMap<u64, LaneId>,
    next_turn: u64,
    delayed: BTreeSet<(Instant, LaneId)>,
    /// Whether the last request was for a lane in trouble; with one sender they take turns.
    was_trial: bool,
    /// Whether batches were sealed since then.
    has_sealed: bool,
    expiries: BTreeSet<(Instant, LaneId)>,
    splits: VecDeque<LaneId>,
    uncompressed: VecDeque<LaneId>,
    in_flight: HashMap<u64, InFlight>,
    trials: usize,
    losses: VecDeque<Loss>,
    reporting: usize,
    has_reported: bool,
    retires: VecDeque<LaneId>,
    next_id: u64,
    health: Health,
    wakeups: Wakeups,
    /// Of what was sealed.
    totals: Report,
    ages: Ages,
    requests: u64,
    retries: u64,
    json_bytes: u64,
    sent_bytes: u64,
    /// As it was told last.
    server: ServerState,
    freed: usize,
    grown: usize,
    /// What the batches in memory take, in bytes.
    held: usize,
    spooled: Option<Box<Spooled>>,
    /// How many flushes were asked for whose batches are all known.
    epoch: u64,
    /// Those whose batches are not: each with the last lane that it has to wait for.
    flushes: VecDeque<u64>,
    /// How many batches and losses of each epoch are not settled.
    unsettled: BTreeMap<u64, u64>,
    stopping: bool,
    given_up: bool,
    now: Instant,
}

impl Batcher {
    /// A batcher that holds nothing.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            lanes: Vec::new(),
            sealed: Vec::new(),
            lane_count: 0,
            opened: BTreeMap::new(),
            next_opened: 1,
            seal_through: 0,
            sealing: BTreeMap::new(),
            next_ticket: 0,
            ready: BTreeMap::new(),
            next_turn: 0,
            delayed: BTreeSet::new(),
            was_trial: false,
            has_sealed: false,
            expiries: BTreeSet::new(),
            splits: VecDeque::new(),
            uncompressed: VecDeque::new(),
            in_flight: HashMap::new(),
            trials: 0,
            losses: VecDeque::new(),
            reporting: 0,
            has_reported: false,
            retires: VecDeque::new(),
            next_id: 0,
            health: Health::new(policy.seed, now),
            wakeups: Wakeups::new(policy.senders),
            totals: Report::default(),
            ages: Ages::new(now),
            requests: 0,
            retries: 0,
            json_bytes: 0,
            sent_bytes: 0,
            server: ServerState::Healthy,
            freed: 0,
            grown: 0,
            held: 0,
            spooled: policy.spool.map(|mode| Box::new(Spooled::new(mode))),
            epoch: 0,
            flushes: VecDeque::new(),
            unsettled: BTreeMap::new(),
            stopping: false,
            given_up: false,
            now,
        }
    }

    /// What a sender has to do next. With [`Step::Wait`] and [`Step::Idle`] it sleeps until then, or
    /// until [`wake`](Self::wake) names it. Who is no sender gives a number that none has.
    pub fn poll(&mut self, sender: usize, now: Instant) -> Step {
        self.now = now;
        self.wakeups.awake(sender);
        if self.given_up && sender < self.policy.senders {
            // Whoever gave up does the rest, and knows when it is done.
            return Step::Finished;
        }
        let step = self.next_step();
        self.resolve_flushes();
        match step {
            Step::Wait(until) if self.wakeups.is_watched(until) => {
                // One that watches the clock is enough.
                self.wakeups.asleep(sender, None);
                Step::Idle
            }
            Step::Wait(until) => {
                self.wakeups.asleep(sender, Some(until));
                step
            }
            Step::Idle => {
                self.wakeups.asleep(sender, None);
                step
            }
            step => step,
        }
    }

    fn next_step(&mut self) -> Step {
        if self.given_up {
            return self.next_step_at_end();
        }
        self.expire();
        if let Some(seal) = self.next_seal() {
            return Step::Seal(seal);
        }
        // With one sender, every other step is left to requests.
        let waits = self.policy.senders == 1 && std::mem::take(&mut self.has_reported);
        if self.reporting == 0
            && (!waits || self.sends_at().is_none_or(|at| at > self.now))
            && let Some(loss) = self.losses.pop_front()
        {
            self.has_reported = true;
            self.reporting += 1;
            return Step::Lost(loss);
        }
        if self.retires.len() >= SLICE
            && let Some(retire) = self.next_retire()
        {
            return retire;
        }
        if let Some(split) = self.next_split() {
            return Step::Split(split);
        }
        if let Some(step) = self.next_for_disk() {
            return step;
        }
        if let Some(request) = self.next_request() {
            return Step::Send(request);
        }
        if let Some(retire) = self.next_retire() {
            return retire;
        }
        if let Some(waiting) = self.next_compress() {
            return Step::Compress(waiting);
        }
        if self.is_finished() {
            return Step::Finished;
        }
        self.due().map_or(Step::Idle, Step::Wait)
    }

    /// Gives everything up, in slices; whoever polls helps.
    fn next_step_at_end(&mut self) -> Step {
        if let Some(seal) = self.next_seal() {
            return Step::Seal(seal);
        }
        if let Some(loss) = self.losses.pop_front() {
            self.reporting += 1;
            return Step::Lost(loss);
        }
        if let Some(step) = self.next_for_disk() {
            return step;
        }
        while let Some(&(_, id)) = self.expiries.first() {
            self.lane(id).is_splitting = false;
            if self.leave(id) == Leaves::Yes {
                if let Some(step) = self.next_for_disk() {
                    return step;
                }
                continue;
            }
            if let Some(batch) = self.lane(id).pop_front() {
                self.lose(id, *batch, LossReason::Stopped);
                if let Some(loss) = self.losses.pop_front() {
                    self.reporting += 1;
                    return Step::Lost(loss);
                }
            }
            self.forget_expiry(id);
            self.ask_to_retire(id);
        }
        if let Some(retire) = self.next_retire() {
            return retire;
        }
        if self.is_finished() { Step::Finished } else { Step::Idle }
    }

    /// Which sender to wake, now that something has changed. One is enough: it polls, and so wakes
    /// the next.
    #[must_use]
    pub fn wake(&self) -> Option<usize> {
        let due = self.due()?;
        if self.wakeups.is_watched(due) {
            return None;
        }
        if due <= self.now { self.wakeups.for_work() } else { self.wakeups.for_clock() }
    }

    /// Which sender to wake when a batch is opened next: `None` if one wakes in time, which seals
    /// those that were opened meanwhile, too.
    #[must_use]
    pub fn wake_when_opened(&self) -> Option<usize> {
        let watched = self.opened.first_key_value().map(|(_, (_, due))| *due);
        if watched.is_some_and(|due| self.wakeups.is_watched(due)) {
            return None;
        }
        self.wakeups.for_clock()
    }

    /// Which sender to wake when anything else comes.
    #[must_use]
    pub fn wake_when_sealed(&self) -> Option<usize> {
        self.wakeups.for_work()
    }

    /// How many flushes are settled: all that came before them is delivered, or lost and reported.
    #[must_use]
    pub fn settled_flushes(&self) -> u64 {
        self.unsettled.keys().next().map_or(self.epoch, |oldest| self.epoch.min(*oldest))
    }

    /// Whether nothing is held, not even an open batch that was told of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lane_count == 0
    }

    /// Whether the batcher was stopped and nothing is left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stopping
            && self.lane_count == 0
            && self.losses.is_empty()
            && self.reporting == 0
            && self.sealing.is_empty()
    }

    /// Gives up what is pending. The senders are finished; whoever polls as no sender is told what is
    /// left to do, until that is [`Step::Idle`] or [`Step::Finished`].
    pub fn give_up(&mut self, now: Instant) {
        self.now = now;
        if std::mem::replace(&mut self.given_up, true) {
            return;
        }
        // Whoever was asked may never do it; to seal twice is no harm.
        for (_, Sealing { lanes, .. }) in std::mem::take(&mut self.sealing) {
            for id in lanes {
                if self.lanes.get(id.0 as usize).is_some_and(|lane| {
                    lane.as_ref().is_some_and(|lane| lane.open > 0 && lane.opened == 0)
                }) {
                    let number = self.next_opened;
                    self.next_opened += 1;
                    self.lane(id).opened = number;
                    self.opened.insert(number, (id, now));
                }
            }
        }
        self.seal_through = u64::MAX;
        self.splits.clear();
        for (_, InFlight { parts, .. }) in std::mem::take(&mut self.in_flight) {
            for (id, mut batch) in parts {
                batch.delivery = Delivery::MaybeSent;
                self.lane(id).in_flight -= 1;
                self.give_up_in_flight(id, *batch);
                self.ask_to_retire(id);
            }
        }
        self.trials = 0;
        // Every lane that holds a batch is among those that expire.
    }

    /// Whether [`give_up`](Self::give_up) was called.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// What became of the events that were sealed so far.
    pub fn totals(&self) -> Report {
        self.totals
    }

    /// The figures that operators look at: of what was taken in so far, and without the memory, which
    /// the driver counts.
    pub fn stats(&self, now: Instant) -> Stats {
        let open =
            self.opened.first_key_value().map(|(_, (_, due))| *due - self.policy.flush_interval);
        let oldest = open.into_iter().chain(self.ages.oldest()).min();
        Stats {
            report: self.totals,
            requests: self.requests,
            retries: self.retries,
            json_bytes: self.json_bytes,
            sent_bytes: self.sent_bytes,
            in_flight: self.in_flight.len(),
            oldest: oldest.map(|oldest| now.saturating_duration_since(oldest)),
            memory: 0,
            streams: self.lane_count,
            server: self.health.state(now),
            #[cfg(feature = "spool")]
            spool: Default::default(),
        }
    }

    /// How the server as a whole was doing when the last result came.
    #[must_use]
    pub fn server(&self) -> ServerState {
        self.server
    }

    /// How much memory was given back since this was asked, and how much more is taken, in bytes.
    pub fn take_freed(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.freed), std::mem::take(&mut self.grown))
    }

    // Time.

    /// When polling gives something to do, as far as is known now.
    fn due(&self) -> Option<Instant> {
        let at_once = !self.splits.is_empty()
            || !self.retires.is_empty()
            || (self.reporting == 0 || self.given_up) && !self.losses.is_empty()
            || self.is_finished()
            || self.given_up && !self.expiries.is_empty()
            || self.opened.keys().next().is_some_and(|first| *first <= self.seal_through);
        if at_once {
            return Some(self.now);
        }
        if self.given_up {
            return None;
        }
        let sends_at = self.sends_at();
        if !self.uncompressed.is_empty() && sends_at.is_none_or(|at| at > self.now) {
            return Some(self.now);
        }
        let linger = self.opened.first_key_value().map(|(_, (_, due))| *due);
        let expiry = self.expiries.first().map(|(expiry, _)| *expiry);
        let disk = self.spooled.as_ref().and_then(|spooled| spooled.due(self.now));
        [sends_at, linger, expiry, disk].into_iter().flatten().min()
    }

    fn sends_at(&self) -> Option<Instant> {
        let trial = self.delayed.first().map(|(due, _)| *due).filter(|_| self.may_try());
        if self.health.probing {
            if !self.in_flight.is_empty() {
                return None;
            }
            let ready = (!self.ready.is_empty()).then_some(self.now);
            return [ready, trial]
                .into_iter()
                .flatten()
                .min()
                .map(|at| at.max(self.health.probes_at()));
        }
        if self.ready.is_empty() { trial } else { Some(self.now) }
    }

    // Bookkeeping.

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Something that was held is not.
    fn free(&mut self, cost: usize) {
        self.freed += cost;
        self.held -= cost;
        if let Some(spooled) = &mut self.spooled {
            spooled.freed(cost);
        }
    }

    fn exchange(&mut self, before: usize, after: usize) {
        self.held = self.held + after - before;
        self.freed += before.saturating_sub(after);
        self.grown += after.saturating_sub(before);
    }

    fn settled(&mut self, epoch: u64) {
        if let Some(count) = self.unsettled.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.unsettled.remove(&epoch);
            }
        }
    }
}
