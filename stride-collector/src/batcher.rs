//! What is sent when: every decision of a collector, as a machine without threads, clock or IO. For
//! drivers of one's own; it comes without a promise of stability.
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

mod batch;
mod lane;
mod narrow;
mod retry;
mod step;
mod wakeups;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use stride_core::retry::{is_transient, least_delay};
use stride_core::transport::{Delivery, TransportError};

pub(crate) use self::batch::Last;
pub use self::batch::{BATCH_COST, Body, Events, Response};
use self::batch::{Batch, Part, Share, Text};
use self::lane::{Lane, Place};
use self::narrow::Narrowing;
pub use self::retry::Change;
use self::retry::{Failure, Health, MOST_EXCUSED, Trouble, backoff, is_pause};
pub use self::step::{Input, LaneId, Loss, Parts, Request, Retire, Seal, Split, Step, Waiting};
use self::wakeups::Wakeups;
use crate::report::{LossReason, Report};

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
    freed: usize,
    grown: usize,
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
            freed: 0,
            grown: 0,
            epoch: 0,
            flushes: VecDeque::new(),
            unsettled: BTreeMap::new(),
            stopping: false,
            given_up: false,
            now,
        }
    }

    // What is told.

    /// Takes in what happened. Inputs have to come in the order in which they happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Opened { lane, stream } => self.handle_opened(lane, stream),
            Input::Sealed { lane, stream, events, opened } => {
                self.handle_sealed(lane, stream, events, opened);
            }
            Input::SealsDone(ticket) => {
                self.sealing.remove(&ticket);
            }
            Input::Retired(id) => {
                self.keep(id);
                if self.lanes.get_mut(id.0 as usize).and_then(Option::take).is_some() {
                    self.lane_count -= 1;
                }
            }
            Input::Press => self.seal_through = self.next_opened - 1,
            Input::Flush => {
                self.seal_through = self.next_opened - 1;
                self.flushes.push_back(self.seal_through);
            }
            Input::Stop => {
                self.stopping = true;
                self.seal_through = self.next_opened - 1;
            }
        }
        self.resolve_flushes();
    }

    fn handle_opened(&mut self, id: LaneId, stream: Arc<str>) {
        self.lane_or_new(id, stream);
        self.keep(id);
        let lane = self.lane(id);
        lane.open += 1;
        if lane.opened == 0 {
            let number = self.next_opened;
            self.lane(id).opened = number;
            self.next_opened += 1;
            let due = self.now + self.policy.flush_interval;
            self.opened.insert(number, (id, due));
            if self.stopping {
                self.seal_through = number;
            }
        }
    }

    fn handle_sealed(&mut self, id: LaneId, stream: Arc<str>, events: Events, opened: bool) {
        self.lane_or_new(id, stream);
        self.keep(id);
        let lane = self.lane(id);
        lane.sealed = lane.sealed.wrapping_add(1);
        lane.open = lane.open.saturating_sub(u32::from(opened));
        let number = if lane.open == 0 { std::mem::take(&mut lane.opened) } else { 0 };
        self.opened.remove(&number);
        self.totals.accepted += u64::from(events.count);
        self.totals.pending += u64::from(events.count);
        self.take_in(id, events);
    }

    fn take_in(&mut self, id: LaneId, mut events: Events) {
        let (now, epoch) = (self.now, self.epoch);
        let slack = events.text.capacity() - events.text.len();
        if slack > events.text.len() / 4 && events.text.len() < COMPRESSED_FROM {
            let before = events.cost();
            events.text.shrink_to_fit();
            self.freed += before - events.cost();
        }
        let (count, length, cost) = (events.count, events.text.len(), events.cost());
        let (most, longest) = (self.policy.batch_size, self.policy.batch_bytes);
        let merges = self.policy.retry_for / 10;
        let lane = self.lane(id);
        let merged = lane.back_mut().is_some_and(|back| {
            let Text::Growing(text) = &mut back.text else { return false };
            // A bracket takes the place of the first comma.
            let fits = (back.count + count) as usize <= most && text.len() + length < longest;
            if !fits || back.tried || now.saturating_duration_since(back.closed) > merges {
                return false;
            }
            text.extend_from_slice(&events.text);
            back.count += count;
            back.length = text.len();
            // The youngest counts: nothing expires early. It is merged with few that are older.
            back.closed = now;
            true
        });
        if merged {
            let Some(back) = lane.back_mut() else { return };
            let Text::Growing(text) = &back.text else { return };
            let after = text.capacity() + BATCH_COST;
            let before = std::mem::replace(&mut back.cost, after) + cost;
            let is_long = back.length >= COMPRESSED_FROM;
            self.exchange(before, after);
            if is_long {
                self.mark_uncompressed(id);
            }
            return;
        }
        let number = self.new_id();
        let excused = self.health.excused_before(now);
        let batch = Batch {
            id: number,
            order: number,
            epoch,
            text: Text::Growing(events.text),
            count,
            length,
            cost,
            closed: now,
            excused,
            delivery: Delivery::NotSent,
            tried: false,
            last: None,
            part: Part::default(),
        };
        *self.unsettled.entry(epoch).or_default() += 1;
        self.lane(id).push_back(Box::new(batch));
        if length >= COMPRESSED_FROM {
            self.mark_uncompressed(id);
        }
        self.schedule(id);
    }

    /// The bytes that a request sends. Those of a single stream are kept instead of the text, for the
    /// next attempt.
    pub fn handle_gzipped_request(&mut self, id: u64, bytes: &Bytes) {
        if let Some(InFlight { parts, .. }) = self.in_flight.get_mut(&id)
            && let [(_, batch)] = &mut parts[..]
            && !batch.is_gzipped()
        {
            let (before, after) = batch.set_gzipped(bytes.clone());
            self.exchange(before, after);
        }
    }

    /// What became of [`Step::Compress`].
    pub fn handle_gzipped(&mut self, waiting: &Waiting, bytes: Bytes) {
        let Some(lane) = self.lanes.get_mut(waiting.lane.0 as usize).and_then(Option::as_mut)
        else {
            return;
        };
        let batch = lane.at(waiting.position).filter(|batch| batch.id == waiting.id);
        if let Some(batch) = batch.filter(|batch| !batch.is_gzipped()) {
            let (before, after) = batch.set_gzipped(bytes);
            self.exchange(before, after);
        }
    }

    /// What became of [`Step::Split`].
    pub fn handle_split(&mut self, parts: Parts, now: Instant) {
        self.now = now;
        let id = parts.lane;
        if self.given_up || self.lanes.get(id.0 as usize).is_none_or(Option::is_none) {
            return;
        }
        let [left_id, right_id] = [self.new_id(), self.new_id()];
        let lane = self.lane(id);
        if !std::mem::take(&mut lane.is_splitting) {
            return;
        }
        let Some(batch) = lane.pop_front() else { return };
        let before = batch.cost;
        let guilty = batch.part.guilty;
        let at = batch.count / 2;
        let part = |number, text: Bytes, count, heir| {
            let known = Part { heir, guilty: false, too_long: false, member: batch.part.member };
            Box::new(Batch {
                id: number,
                length: text.len(),
                cost: text.len() + BATCH_COST,
                text: Text::Plain(text),
                count,
                last: batch.last.clone(),
                part: known,
                ..*batch
            })
        };
        // The right half is guilty if the whole is and the left half turns out not to be.
        let right = part(right_id, parts.right, batch.count - at, guilty);
        let left = part(left_id, parts.left, at, false);
        if !guilty && let Some(next) = lane.front_mut() {
            // What the whole would have said of it, its halves do not.
            next.part.heir = false;
        }
        let after = left.cost + right.cost;
        if let Some(narrowing) = lane.narrowing.as_mut().filter(|_| batch.part.member) {
            narrowing.members += 1;
        }
        lane.push_front(right);
        lane.push_front(left);
        *self.unsettled.entry(batch.epoch).or_default() += 1;
        self.exchange(before, after);
        self.schedule(id);
    }

    /// What came of a request; a result that comes after [`give_up`](Self::give_up) changes nothing.
    pub fn handle_result(
        &mut self,
        id: u64,
        result: Result<Response, TransportError>,
        now: Instant,
    ) -> Option<Change> {
        self.now = now;
        let InFlight { mut parts, outage, is_trial } = self.in_flight.remove(&id)?;
        self.trials -= usize::from(is_trial);
        for (lane, _) in &parts {
            self.lane(*lane).in_flight -= 1;
        }
        let (last, delivery) = match &result {
            Ok(Response { status, message, .. }) => {
                let (status, message) = (Some(*status), message.clone());
                (Last { status, message, error: None }, Delivery::MaybeSent)
            }
            Err(error) => {
                let (error, delivery) = (error.clone(), error.delivery());
                (Last { error: Some(error), ..Last::default() }, delivery)
            }
        };
        for (_, batch) in &mut parts {
            batch.tried = true;
            if delivery == Delivery::MaybeSent {
                batch.delivery = delivery;
            }
            if last.status.is_none_or(|status| !status.is_success()) {
                let before = batch.last.get_or_insert_default();
                // The last response stays known after an error.
                let status = last.status.or(before.status);
                let message = last.message.clone().or(before.message.take());
                **before = Last { status, message, error: last.error.clone() };
            }
        }
        match result {
            Ok(response) if response.status.is_success() => {
                let lanes: Vec<LaneId> = parts.iter().map(|(lane, _)| *lane).collect();
                parts.into_iter().for_each(|(lane, batch)| self.delivered(lane, &batch));
                self.worked(&lanes)
            }
            Ok(response) if is_transient(response.status) => {
                let pause = least_delay(response.status, &response.headers);
                self.failed(parts, Failure::Transient, pause, outage)
            }
            Ok(response) if is_pause(response.status) => {
                let failure = match response.status {
                    StatusCode::UNAUTHORIZED => Failure::Unauthorized,
                    _ => Failure::Forbidden,
                };
                self.failed(parts, failure, Duration::ZERO, outage)
            }
            Ok(response) => self.refused(parts, response.status),
            Err(error) => match Failure::of(&error) {
                Failure::Permanent => {
                    for (lane, batch) in parts {
                        self.lose(lane, *batch, LossReason::Undeliverable);
                        self.schedule(lane);
                    }
                    None
                }
                failure => self.failed(parts, failure, Duration::ZERO, outage),
            },
        }
    }

    fn delivered(&mut self, id: LaneId, batch: &Batch) {
        self.totals.pending -= u64::from(batch.count);
        self.totals.delivered += u64::from(batch.count);
        self.freed += batch.cost;
        self.settled(batch.epoch);
        let lane = self.lane(id);
        lane.last_epoch = batch.epoch;
        lane.trouble = None;
        lane.is_held_alone = false;
        lane.share = u32::MAX;
        lane.shared_failures = 0;
        if batch.part.member {
            self.member_settled(id, true);
        }
        self.schedule(id);
    }

    /// A part of a narrowed batch is settled; `innocent` if the server took it.
    fn member_settled(&mut self, id: LaneId, innocent: bool) {
        let lane = self.lane(id);
        let Some(narrowing) = &mut lane.narrowing else { return };
        narrowing.members = narrowing.members.saturating_sub(1);
        narrowing.left = narrowing.left.saturating_sub(1);
        if narrowing.members == 0 {
            lane.narrowing = None;
            lane.narrowing_limit = narrow::REQUESTS;
            return;
        }
        let used_up = narrowing.left == 0;
        if let Some(heir) = lane.front_mut().filter(|front| front.part.member && front.part.heir) {
            heir.part.heir = false;
            heir.part.guilty |= innocent;
        }
        if used_up {
            self.end_narrowing(id);
        }
    }

    /// Loses what is left of a batch that took too many requests.
    fn end_narrowing(&mut self, id: LaneId) {
        let lane = self.lane(id);
        lane.narrowing = None;
        lane.narrowing_limit = narrow::REQUESTS_AFTER;
        while self.lane(id).front().is_some_and(|front| front.part.member) {
            let Some(batch) = self.lane(id).pop_front() else { break };
            self.lose(id, *batch, LossReason::Rejected);
        }
    }

    /// A status that no later attempt changes, but for a smaller part.
    fn refused(&mut self, parts: Vec<(LaneId, Box<Batch>)>, status: StatusCode) -> Option<Change> {
        let ids: Vec<LaneId> = parts.iter().map(|(lane, _)| *lane).collect();
        for (id, mut batch) in parts {
            if ids.len() > 1 {
                self.halve(id, ids.len());
                self.put_back(id, batch);
                continue;
            }
            match status.as_u16() {
                400 | 422 => self.rejected(id, batch),
                413 if batch.count > 1 => {
                    let lane = self.lane(id);
                    lane.longest = lane.longest.min(batch.length / 2);
                    batch.part.too_long = true;
                    self.put_back(id, batch);
                }
                _ => {
                    let member = batch.part.member;
                    self.lose(id, *batch, LossReason::of_status(status));
                    if member {
                        self.member_settled(id, false);
                    }
                    self.schedule(id);
                }
            }
        }
        self.worked(&ids)
    }

    fn rejected(&mut self, id: LaneId, mut batch: Box<Batch>) {
        let lane = self.lane(id);
        if let Some(narrowing) = &mut lane.narrowing
            && batch.part.member
        {
            narrowing.left = narrowing.left.saturating_sub(1);
            // Whatever stands behind it was guilty only if this is not.
            if let Some(next) = lane.front_mut().filter(|front| front.part.member) {
                next.part.heir = false;
            }
        } else if batch.count > 1 && lane.narrowing.is_none() {
            let left = lane.narrowing_limit - 1;
            lane.narrowing = Some(Narrowing { left, members: 1 });
            batch.part.member = true;
        }
        batch.part.guilty = true;
        if batch.count > 1 {
            let used_up = lane.narrowing.as_ref().is_some_and(|narrowing| narrowing.left == 0);
            self.put_back(id, batch);
            if used_up {
                self.end_narrowing(id);
                self.schedule(id);
            }
            return;
        }
        let member = batch.part.member;
        self.lose(id, *batch, LossReason::Rejected);
        if member {
            // This request was counted above.
            if let Some(narrowing) = &mut self.lane(id).narrowing {
                narrowing.left += 1;
            }
            self.member_settled(id, false);
        }
        self.schedule(id);
    }

    /// A request failed that may succeed later.
    fn failed(
        &mut self,
        parts: Vec<(LaneId, Box<Batch>)>,
        failure: Failure,
        pause: Duration,
        outage: u64,
    ) -> Option<Change> {
        let now = self.now;
        let single = match &parts[..] {
            [(lane, _)] => Some(*lane),
            _ => None,
        };
        let was_probing = self.health.probing;
        let held_alone = single.filter(|id| self.lane(*id).is_held_alone && !pause.is_zero());
        let mut began = self.health.failed(failure, single, outage, now);
        if !pause.is_zero() && held_alone.is_none() {
            began |= self.health.hold(pause, single, now);
        }
        let is_servers = was_probing || self.health.probing || failure == Failure::Unreachable;
        let lanes = parts.len();
        for (id, batch) in parts {
            let forbidden = failure == Failure::Forbidden;
            if lanes > 1 {
                let lane = self.lane(id);
                if forbidden {
                    self.halve(id, lanes);
                } else if !is_servers {
                    lane.shared_failures += 1;
                    if lane.shared_failures >= 2 {
                        self.halve(id, lanes);
                    }
                }
            } else if forbidden || !is_servers || held_alone.is_some() {
                self.trouble(id, forbidden, pause);
            } else if let Some(trouble) = &mut self.lane(id).trouble {
                // The next probe is another lane's.
                trouble.not_before = trouble.not_before.max(now);
            }
            self.put_back(id, batch);
        }
        began.then_some(Change::Down)
    }

    /// From now on the lane shares requests with half as many.
    fn halve(&mut self, id: LaneId, lanes: usize) {
        let lane = self.lane(id);
        lane.share = u32::try_from(lanes / 2).unwrap_or(u32::MAX).max(1);
        lane.shared_failures = 0;
    }

    fn trouble(&mut self, id: LaneId, forbidden: bool, pause: Duration) {
        let (now, seed) = (self.now, self.policy.seed ^ u64::from(id.0).rotate_left(32));
        let lane = self.lane(id);
        let trouble = lane.trouble.get_or_insert_with(|| {
            Box::new(Trouble {
                backoff: backoff(seed),
                not_before: now,
                last_failure: now,
                forbidden,
                excused: Duration::ZERO,
                excused_until: now,
            })
        });
        trouble.last_failure = now;
        trouble.forbidden = forbidden;
        trouble.not_before = now + trouble.backoff.next_delay().max(pause);
        if !pause.is_zero() {
            trouble.excused += pause;
            trouble.excused_until = now;
        }
    }

    fn put_back(&mut self, id: LaneId, batch: Box<Batch>) {
        self.lane(id).put_back(batch);
        self.schedule(id);
    }

    /// The server gave a response as one that works.
    fn worked(&mut self, lanes: &[LaneId]) -> Option<Change> {
        let (recovered, held_by) = self.health.worked(|lane| lanes.contains(&lane));
        if let Some(lane) = held_by.and_then(|id| self.lanes.get_mut(id.0 as usize)?.as_mut()) {
            lane.is_held_alone = true;
        }
        recovered.then_some(Change::Up)
    }

    /// The user was told of a loss.
    pub fn handle_reported(&mut self, loss: &Loss) {
        self.freed += loss.cost;
        self.reporting -= 1;
        self.settled(loss.epoch);
    }

    // What is asked.

    /// What a sender has to do next. With [`Step::Wait`] and [`Step::Idle`] it sleeps until then, or
    /// until [`wake`](Self::wake) names it. Who is no sender gives a number that none has.
    pub fn poll(&mut self, sender: usize, now: Instant) -> Step {
        self.now = now;
        self.wakeups.awake(sender);
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
        while let Some(&(_, id)) = self.expiries.first() {
            if let Some(batch) = self.lane(id).pop_front() {
                self.lane(id).is_splitting = false;
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

    /// Whether the batcher was stopped and nothing is left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stopping
            && self.lane_count == 0
            && self.losses.is_empty()
            && self.reporting == 0
            && self.sealing.is_empty()
    }

    /// Gives up what is pending: from now on, [`poll`](Self::poll) makes losses of it.
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
                self.lane(id).in_flight = 0;
                self.lose(id, *batch, LossReason::Stopped);
                self.ask_to_retire(id);
            }
        }
        self.trials = 0;
        // Every lane that holds a batch is among those that expire.
    }

    /// What became of the events that were sealed so far.
    pub fn totals(&self) -> Report {
        self.totals
    }

    /// How much memory was given back since this was asked, and how much more is taken, in bytes.
    pub fn take_freed(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.freed), std::mem::take(&mut self.grown))
    }

    // Lanes and their places.

    fn lane_or_new(&mut self, id: LaneId, stream: Arc<str>) -> &mut Lane {
        let index = id.0 as usize;
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, || None);
        }
        let count = &mut self.lane_count;
        self.lanes[index].get_or_insert_with(|| {
            *count += 1;
            Box::new(Lane::new(stream))
        })
    }

    /// A lane that something is known of, and that so exists.
    fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lane_or_new(id, Arc::default())
    }

    /// Puts a lane to where it has to wait now.
    fn schedule(&mut self, id: LaneId) {
        if self.given_up {
            self.watch_expiry(id);
            return self.ask_to_retire(id);
        }
        let lane = self.lane(id);
        let longest = lane.longest;
        let is_whole = |batch: &Batch| {
            batch.count == 1
                || (!batch.part.guilty && !batch.part.too_long && batch.length <= longest)
        };
        let in_turn = lane.in_flight == 0;
        let place = match (lane.front(), &lane.trouble) {
            _ if lane.is_splitting => Place::None,
            (None, _) => Place::None,
            (Some(front), _) if !is_whole(front) => {
                if in_turn {
                    lane.is_splitting = true;
                    lane.join_narrowing();
                    self.splits.push_back(id);
                }
                Place::None
            }
            (Some(_), Some(trouble)) if in_turn => Place::Delayed(trouble.not_before),
            (Some(_), None) if in_turn || lane.narrowing.is_none() => match lane.place {
                Place::Ready(turn) => Place::Ready(turn),
                _ => Place::Ready(u64::MAX),
            },
            _ => Place::None,
        };
        self.put(id, place);
        self.watch_expiry(id);
        self.ask_to_retire(id);
    }

    fn put(&mut self, id: LaneId, place: Place) {
        let before = std::mem::replace(&mut self.lane(id).place, place);
        if before == place {
            return;
        }
        match before {
            Place::None => {}
            Place::Ready(turn) => {
                self.ready.remove(&turn);
            }
            Place::Delayed(until) => {
                self.delayed.remove(&(until, id));
            }
        }
        match place {
            Place::None => {}
            Place::Ready(_) => {
                let turn = self.next_turn;
                self.next_turn += 1;
                self.lane(id).place = Place::Ready(turn);
                self.ready.insert(turn, id);
            }
            Place::Delayed(until) => {
                self.delayed.insert((until, id));
            }
        }
    }

    fn mark_uncompressed(&mut self, id: LaneId) {
        let lane = self.lane(id);
        if !std::mem::replace(&mut lane.is_uncompressed, true) {
            self.uncompressed.push_back(id);
        }
    }

    fn ask_to_retire(&mut self, id: LaneId) {
        let lane = self.lane(id);
        if lane.is_empty() && lane.retire_asked.is_none() {
            // What a lane takes of the budget is given back before a flush ends.
            let epoch = lane.last_epoch;
            lane.retire_asked = Some(epoch);
            *self.unsettled.entry(epoch).or_default() += 1;
            self.retires.push_back(id);
        }
    }

    /// Something came for a lane: it is not given back, or it has been.
    fn keep(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(id.0 as usize).and_then(Option::as_mut);
        if let Some(epoch) = lane.and_then(|lane| lane.retire_asked.take()) {
            self.settled(epoch);
        }
    }

    // Age.

    /// When a lane's first batch is too old.
    fn expiry(&mut self, id: LaneId) -> Option<Instant> {
        let retry_for = self.policy.retry_for;
        let lane = self.lanes.get(id.0 as usize)?.as_deref()?;
        let front = lane.front()?;
        let mut excuse = self.health.excuse(front.excused);
        if let Some(trouble) = &lane.trouble
            && front.closed <= trouble.excused_until
        {
            excuse += trouble.excused;
        }
        Some(front.closed + retry_for + excuse.min(MOST_EXCUSED))
    }

    /// Sees to it that a lane's first batch is looked at when it is too old.
    fn watch_expiry(&mut self, id: LaneId) {
        if self.lane(id).expires.is_none()
            && let Some(expiry) = self.expiry(id)
        {
            self.lane(id).expires = Some(expiry);
            self.expiries.insert((expiry, id));
        }
    }

    fn forget_expiry(&mut self, id: LaneId) {
        if let Some(expiry) = self.lane(id).expires.take() {
            self.expiries.remove(&(expiry, id));
        }
    }

    /// Loses batches that are too old.
    fn expire(&mut self) {
        for _ in 0..SLICE {
            let Some(&(due, id)) = self.expiries.first() else { return };
            if due > self.now {
                return;
            }
            self.forget_expiry(id);
            let Some(expiry) = self.expiry(id) else {
                self.ask_to_retire(id);
                continue;
            };
            let now = self.now;
            let last_failure = self.health.last_failure;
            let lane = self.lane(id);
            let Some(front) = lane.front() else { continue };
            let failures =
                [last_failure, lane.trouble.as_ref().map(|trouble| trouble.last_failure)];
            // Nothing is lost untried; a probe that failed was a try of all that waited behind it.
            let tried =
                front.tried || failures.into_iter().flatten().any(|failed| failed > front.closed);
            if expiry > now || lane.is_splitting || !tried {
                let next = expiry.max(now + self.policy.retry_for / 64 + Duration::from_millis(1));
                let next = if expiry > now { expiry } else { next };
                self.lane(id).expires = Some(next);
                self.expiries.insert((next, id));
                continue;
            }
            let status = front.last.as_ref().and_then(|last| last.status);
            let forbidden = lane.trouble.as_ref().is_some_and(|trouble| trouble.forbidden);
            let paused = match status {
                Some(status) => is_pause(status),
                None => forbidden || self.health.unauthorized,
            };
            let reason = if paused { LossReason::Unauthorized } else { LossReason::Expired };
            if let Some(batch) = self.lane(id).pop_front() {
                let member = batch.part.member;
                self.lose(id, *batch, reason);
                if member {
                    self.member_settled(id, false);
                }
            }
            self.schedule(id);
        }
    }

    fn lose(&mut self, id: LaneId, batch: Batch, reason: LossReason) {
        let mut batch = batch;
        let (text, gzipped) = batch.share();
        let Batch { epoch, cost, count, delivery, last, .. } = batch;
        self.totals.pending -= u64::from(count);
        self.totals.add_lost(reason, delivery, count.into());
        let lane = self.lane(id);
        lane.last_epoch = epoch;
        let stream = Arc::clone(&lane.stream);
        let share = Share { stream, text, gzipped };
        self.losses.push_back(Loss { epoch, cost, share, count, reason, delivery, last });
    }

    // The steps.

    fn next_seal(&mut self) -> Option<Seal> {
        if self.opened.first_key_value().is_some_and(|(_, (_, due))| *due <= self.now) {
            // All of them, so that streams that trickle share few requests however their events are
            // spread over the interval.
            self.seal_through = self.next_opened - 1;
        }
        let first = *self.opened.first_key_value()?.0;
        let mut lanes = Vec::new();
        while lanes.len() < SLICE
            && let Some(entry) = self.opened.first_entry()
            && *entry.key() <= self.seal_through
        {
            let (id, _) = entry.remove();
            self.lane(id).opened = 0;
            lanes.push(id);
        }
        if lanes.is_empty() {
            return None;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.sealing.insert(ticket, Sealing { first, lanes: lanes.clone() });
        Some(Seal { ticket, lanes })
    }

    /// Ends the epochs of flushes whose batches are all known.
    fn resolve_flushes(&mut self) {
        while let Some(&through) = self.flushes.front() {
            let is_open = self.opened.first_key_value().is_some_and(|(first, _)| *first <= through);
            let is_sealing = self.sealing.values().next().is_some_and(|it| it.first <= through);
            if is_open || is_sealing {
                return;
            }
            self.flushes.pop_front();
            self.epoch += 1;
        }
    }

    fn next_retire(&mut self) -> Option<Step> {
        let mut retire = Vec::new();
        while retire.len() < SLICE
            && let Some(id) = self.retires.pop_front()
        {
            let lane = self.lanes.get(id.0 as usize).and_then(Option::as_ref);
            if let Some(lane) = lane.filter(|lane| lane.retire_asked.is_some() && lane.is_empty()) {
                let sealed = lane.sealed;
                self.forget_expiry(id);
                retire.push(Retire { lane: id, sealed });
            }
        }
        (!retire.is_empty()).then_some(Step::Retire(retire))
    }

    fn next_split(&mut self) -> Option<Split> {
        while let Some(id) = self.splits.pop_front() {
            let lane = self.lane(id);
            let stream = Arc::clone(&lane.stream);
            if let Some(front) = lane.front_mut() {
                let (text, gzipped) = front.share();
                let at = front.count / 2;
                return Some(Split { lane: id, share: Share { stream, text, gzipped }, at });
            }
        }
        None
    }

    fn next_compress(&mut self) -> Option<Waiting> {
        while let Some(&id) = self.uncompressed.front() {
            let Some(lane) = self.lanes[id.0 as usize].as_mut() else {
                self.uncompressed.pop_front();
                continue;
            };
            let mut position = lane.uncompressed_from.max(lane.base());
            let end = lane.base() + lane.len() as i64;
            for _ in 0..SLICE {
                let Some(batch) = lane.at(position).filter(|_| position < end) else { break };
                position += 1;
                if batch.is_gzipped() || batch.length < COMPRESSED_FROM {
                    continue;
                }
                let batch_id = batch.id;
                let (text, gzipped) = batch.share();
                lane.uncompressed_from = position;
                let stream = Arc::clone(&lane.stream);
                let body = Body { shares: vec![Share { stream, text, gzipped }] };
                return Some(Waiting { lane: id, position: position - 1, id: batch_id, body });
            }
            lane.uncompressed_from = position;
            if position >= end {
                lane.is_uncompressed = false;
                self.uncompressed.pop_front();
            }
        }
        None
    }

    /// How many requests for lanes in trouble may be under way at a time: a sender is left to the
    /// others.
    fn most_trials(&self) -> usize {
        self.policy.senders.saturating_sub(1).max(1)
    }

    /// The lane in trouble whose turn it is.
    fn next_trial(&self) -> Option<LaneId> {
        let &(due, id) = self.delayed.first()?;
        (due <= self.now && self.trials < self.most_trials()).then_some(id)
    }

    fn next_request(&mut self) -> Option<Request> {
        let ready = self.ready.first_key_value().map(|(_, id)| *id);
        if self.health.probing {
            if !self.in_flight.is_empty() || self.now < self.health.probes_at() {
                return None;
            }
            let trial = self.next_trial();
            let id = if self.was_trial { ready.or(trial) } else { trial.or(ready) }?;
            self.was_trial = trial == Some(id);
            // One lane alone, so that a lane in trouble does not make the server look down.
            return self.request(id, 1, true);
        }
        let trial = self.next_trial();
        // With one sender, every other request is left to the others.
        let id = match (trial, ready) {
            (Some(_), Some(ready)) if self.was_trial && self.policy.senders == 1 => ready,
            (Some(trial), _) => trial,
            (None, ready) => ready?,
        };
        self.was_trial = trial == Some(id);
        let most = usize::MAX;
        self.request(id, most, self.was_trial)
    }

    /// Makes a request of the lane's first batch, and of those of other lanes if they fit.
    fn request(&mut self, first: LaneId, most: usize, is_trial: bool) -> Option<Request> {
        let (size, bytes) = (self.policy.batch_size, self.policy.batch_bytes);
        let mut most = most;
        let (mut count, mut length) = (0, 0);
        let (mut parts, mut shares) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(id) = next {
            let lane = self.lane(id);
            if !parts.is_empty() && !lane.may_share() {
                break;
            }
            most = most.min(if lane.may_share() { lane.share as usize } else { 1 });
            let Some(front) = lane.front() else { break };
            count += front.count as usize;
            length += front.length + lane.stream.len() + r#","":[]"#.len();
            if !parts.is_empty() && (parts.len() >= most || count > size || length > bytes) {
                break;
            }
            let Some(mut batch) = lane.pop_front() else { break };
            lane.in_flight += 1;
            let (text, gzipped) = batch.share();
            shares.push(Share { stream: Arc::clone(&lane.stream), text, gzipped });
            parts.push((id, batch));
            // Its next batch has its turn after the others.
            self.put(id, Place::None);
            self.schedule(id);
            if parts.len() >= most {
                break;
            }
            next = self.ready.first_key_value().map(|(_, id)| *id);
            if next.is_some_and(|id| parts.iter().any(|(other, _)| *other == id)) {
                break;
            }
        }
        if parts.is_empty() {
            return None;
        }
        let id = self.new_id();
        self.trials += usize::from(is_trial);
        self.in_flight.insert(id, InFlight { parts, outage: self.health.outage(), is_trial });
        Some(Request { id, body: Body { shares } })
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
        [sends_at, linger, expiry].into_iter().flatten().min()
    }

    fn sends_at(&self) -> Option<Instant> {
        let trials_left = self.trials < self.most_trials();
        let trial = self.delayed.first().map(|(due, _)| *due).filter(|_| trials_left);
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

    fn exchange(&mut self, before: usize, after: usize) {
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
