//! What is sent when: every decision of a collector, as a machine without threads, clock or IO.
//!
//! Its driver polls it, does what it says, and reports what came of it:
//!
//! ```text
//!              poll                     the driver then
//!   ┌────────► Send(job) ─────────────► compresses and sends it: compressed, then handle_result
//!   │          Lost(loss) ────────────► hands it to the user:    handed_over
//!   └───────── Wait(until), Idle ─────► sleeps until then, or until it is woken
//!              Finished ──────────────► ends
//! ```
//!
//! Locks are taken in one order: whoever drives the batcher holds its lock first; the streams'
//! locks come after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use stride_core::retry::{Backoff, Jitter, is_transient, least_delay};
use stride_core::transport::{Delivery, TransportError};

use crate::body::Body;
use crate::report::{LossReason, Report};
use crate::request::Response;
use crate::stream::{BatchLimits, Budget, Events, Stream};

/// Older events are lost rather than sent: by then they would only delay newer ones.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(120);

/// The delays between the requests that probe a failing server.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What a batcher goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) flush_interval: Duration,
    pub(crate) limits: BatchLimits,
    /// Seeds the jitter.
    pub(crate) seed: u64,
}

/// What the driver has to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this; given out once per attempt.
    Send(Job),
    /// Hand this to the user.
    Lost(Loss),
    /// Nothing to do before that time.
    Wait(Instant),
    /// Nothing to do until something happens.
    Idle,
    /// Nothing to do ever again.
    Finished,
}

/// One attempt to deliver a batch.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) body: Body,
}

/// A batch that was given up.
#[derive(Debug)]
pub(crate) struct Loss {
    sequence: u64,
    pub(crate) body: Body,
    pub(crate) reason: LossReason,
    pub(crate) delivery: Delivery,
    pub(crate) last: Last,
}

/// What came of the last attempt to send a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) status: Option<StatusCode>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) error: Option<TransportError>,
}

/// What an answer says about the server, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It began to fail.
    Down,
    /// It works again.
    Up,
}

/// A position in the order in which batches were closed: flushing waits for what is before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Barrier(u64);

/// An open batch that the batcher knows of.
#[derive(Debug)]
struct Opened {
    stream: Arc<Stream>,
    shard: usize,
    opening: u64,
    due: Instant,
}

#[derive(Debug)]
struct Batch {
    id: u64,
    /// Where it stands before or after a barrier. The parts of a batch that was split keep it.
    sequence: u64,
    body: Body,
    closed: Instant,
    delivery: Delivery,
    last: Last,
    /// The outage during which it was sent, to count two requests that fail together once.
    outage: u64,
}

pub(crate) struct Batcher {
    policy: Policy,
    budget: Arc<Budget>,
    streams: Vec<Arc<Stream>>,
    opened: VecDeque<Opened>,
    queue: VecDeque<Batch>,
    /// When the first batch in the queue may be too old; it is looked through only then.
    next_expiry: Instant,
    in_flight: Vec<Batch>,
    losses: VecDeque<Loss>,
    handing_over: Vec<u64>,
    /// All but what is in the open batches.
    books: Report,
    next_id: u64,
    stopping: bool,
    backoff: Backoff,
    /// Whether the last answer was a failure: then one request at a time probes the server.
    failing: bool,
    outage: u64,
    /// When the next probe may go out.
    not_before: Instant,
    /// What the server asked for; unlike the backoff it holds even after a success.
    retry_after: Instant,
    /// Whether closing batches has freed memory since [`made_room`](Self::made_room) was asked.
    made_room: bool,
    now: Instant,
}

impl Batcher {
    pub(crate) fn new(policy: Policy, budget: Arc<Budget>, now: Instant) -> Self {
        Self {
            policy,
            budget,
            streams: Vec::new(),
            opened: VecDeque::new(),
            queue: VecDeque::new(),
            next_expiry: now,
            in_flight: Vec::new(),
            losses: VecDeque::new(),
            handing_over: Vec::new(),
            books: Report::default(),
            next_id: 0,
            stopping: false,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, Jitter::Full, policy.seed),
            failing: false,
            outage: 0,
            not_before: now,
            retry_after: now,
            made_room: false,
            now,
        }
    }

    /// Makes a stream whose events this batcher collects.
    pub(crate) fn add_stream(&mut self, collector: u64, name: &str) -> Arc<Stream> {
        let stream = Arc::new(Stream::new(collector, self.streams.len(), name));
        if self.stopping {
            stream.take_all(&mut Vec::new(), &mut Vec::new(), true);
        }
        self.streams.push(Arc::clone(&stream));
        stream
    }

    /// A batch of the stream was opened or became full.
    pub(crate) fn look_at(&mut self, stream: &Arc<Stream>, now: Instant) {
        self.now = now;
        let mut full = Vec::new();
        let opened = stream.take_full(&mut full);
        for events in full {
            self.close([(Arc::clone(stream), events)]);
        }
        for (shard, opening) in opened.into_iter().enumerate() {
            if let Some(opening) = opening {
                let (stream, due) = (Arc::clone(stream), now + self.policy.flush_interval);
                self.opened.push_back(Opened { stream, shard, opening, due });
            }
        }
    }

    /// Says what to do next.
    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        self.now = now;
        self.close_due();
        self.expire();
        if let Some(loss) = self.losses.pop_front() {
            self.handing_over.push(loss.sequence);
            return Step::Lost(loss);
        }
        if self.sends_at().is_some_and(|at| at <= now)
            && let Some(mut batch) = self.queue.pop_front()
        {
            batch.outage = self.outage;
            let job = Job { id: batch.id, body: batch.body.clone() };
            self.in_flight.push(batch);
            return Step::Send(job);
        }
        if self.is_finished() {
            return Step::Finished;
        }
        let due = self.due();
        if due.is_none() && self.in_flight.is_empty() {
            self.budget.drop_spares();
        }
        due.map_or(Step::Idle, Step::Wait)
    }

    /// When polling gives something to do, as far as is known now.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.losses.is_empty() || self.is_finished() {
            return Some(self.now);
        }
        let expiry = (!self.queue.is_empty()).then_some(self.next_expiry);
        let linger = self.opened.front().map(|opened| opened.due);
        [self.sends_at(), expiry, linger].into_iter().flatten().min()
    }

    /// Whether polling gives something to do at once.
    pub(crate) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= self.now)
    }

    /// When the next request may go out; `None` while there is none, or while another is probing.
    fn sends_at(&self) -> Option<Instant> {
        if self.queue.is_empty() || (self.failing && !self.in_flight.is_empty()) {
            return None;
        }
        Some(self.not_before.max(self.retry_after))
    }

    /// The bytes that a batch is sent as; they take the place of its text.
    pub(crate) fn compressed(&mut self, id: u64, bytes: &Bytes) {
        if let Some(batch) = self.in_flight.iter_mut().find(|batch| batch.id == id) {
            batch.body.set_gzipped(bytes.clone(), &self.budget);
        }
    }

    /// What came of an attempt. The answer to a batch that was given up meanwhile changes nothing.
    pub(crate) fn handle_result(
        &mut self,
        id: u64,
        result: Result<Response, TransportError>,
        now: Instant,
    ) -> Option<Change> {
        self.now = now;
        let index = self.in_flight.iter().position(|batch| batch.id == id)?;
        let mut batch = self.in_flight.swap_remove(index);
        let Response { status, headers, message } = match result {
            Ok(response) => response,
            Err(error) => {
                if error.delivery() == Delivery::MaybeSent {
                    batch.delivery = Delivery::MaybeSent;
                }
                batch.last.error = Some(error);
                return self.retry(batch, Duration::ZERO);
            }
        };
        batch.delivery = Delivery::MaybeSent;
        batch.last = Last { status: Some(status), message, error: None };
        if is_transient(status) {
            return self.retry(batch, least_delay(status, &headers));
        }
        if status.is_success() {
            self.books.pending -= batch.body.count();
            self.books.delivered += batch.body.count();
            self.budget.exchange(batch.body.cost(), 0);
        } else if batch.body.labels().len() > 1 {
            self.split(&batch);
        } else {
            self.lose(batch, LossReason::of_status(status));
        }
        self.recover()
    }

    /// The user was given a loss.
    pub(crate) fn handed_over(&mut self, loss: &Loss) {
        self.budget.exchange(loss.body.cost(), 0);
        if let Some(index) = self.handing_over.iter().position(|it| *it == loss.sequence) {
            self.handing_over.swap_remove(index);
        }
    }

    /// Closes every open batch, without touching the backoff.
    pub(crate) fn flush(&mut self, now: Instant) -> Barrier {
        self.now = now;
        self.close_all(false);
        Barrier(self.next_id)
    }

    /// Whether all that was accepted before the barrier is delivered, or lost and handed over.
    pub(crate) fn is_settled(&self, barrier: Barrier) -> bool {
        let batches = self.queue.iter().chain(&self.in_flight).map(|batch| batch.sequence);
        let losses = self.losses.iter().map(|loss| loss.sequence);
        let handing_over = self.handing_over.iter().copied();
        batches.chain(losses).chain(handing_over).all(|sequence| sequence >= barrier.0)
    }

    /// Accepts no event any more. What was accepted is still sent.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.now = now;
        if !self.stopping {
            self.stopping = true;
            self.close_all(true);
        }
    }

    /// Gives up what is still pending after [`stop`](Self::stop). Whoever does is to hand over all
    /// that is lost by it, and what nobody has taken yet: no sender may be left that would.
    pub(crate) fn give_up(&mut self) -> Vec<Loss> {
        for mut batch in std::mem::take(&mut self.in_flight) {
            batch.delivery = Delivery::MaybeSent;
            self.lose(batch, LossReason::Stopped);
        }
        for batch in std::mem::take(&mut self.queue) {
            self.lose(batch, LossReason::Stopped);
        }
        let losses = Vec::from(std::mem::take(&mut self.losses));
        self.handing_over.extend(losses.iter().map(|loss| loss.sequence));
        losses
    }

    /// Whether memory was freed by closing batches, which somebody may wait for, since this was asked
    /// the last time.
    pub(crate) fn made_room(&mut self) -> bool {
        std::mem::take(&mut self.made_room)
    }

    /// Whether the batcher was stopped and has nothing left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.is_settled(Barrier(u64::MAX))
    }

    /// The books at this moment.
    pub(crate) fn report(&self) -> Report {
        let open: u64 = self.streams.iter().map(|stream| stream.count()).sum();
        let mut report = self.books;
        report.accepted += open;
        report.pending += open;
        report
    }

    /// Closes the open batches when the first of them is due. All of them, so that streams that
    /// trickle share few requests however their events are spread over the interval.
    fn close_due(&mut self) {
        let is_stale = |it: &Opened| !it.stream.is_open(it.shard, it.opening);
        while self.opened.front().is_some_and(is_stale) {
            self.opened.pop_front();
        }
        if self.opened.front().is_some_and(|front| front.due <= self.now) {
            let opened = std::mem::take(&mut self.opened).into_iter();
            let open = opened.filter_map(|it| {
                let events = it.stream.take_open(it.shard, it.opening)?;
                Some((it.stream, events))
            });
            let open = open.collect();
            self.bundle(open);
        }
    }

    fn close_all(&mut self, stop: bool) {
        self.opened.clear();
        let mut bundled = Vec::new();
        for stream in self.streams.clone() {
            let (mut full, mut open) = (Vec::new(), Vec::new());
            stream.take_all(&mut full, &mut open, stop);
            for events in full {
                self.close([(Arc::clone(&stream), events)]);
            }
            bundled.extend(open.into_iter().map(|events| (Arc::clone(&stream), events)));
        }
        self.bundle(bundled);
    }

    /// Closes batches of as many streams as fit in one.
    fn bundle(&mut self, mut parts: Vec<(Arc<Stream>, Events)>) {
        parts.sort_by_key(|(stream, _)| stream.number);
        let limits = self.policy.limits;
        let mut bundle: Vec<(Arc<Stream>, Events)> = Vec::new();
        let (mut count, mut size) = (0, 0);
        for (stream, mut events) in parts {
            let more = stream.name.len() + events.bytes.len() + r#","":[]"#.len();
            if !bundle.is_empty()
                && (count + events.count > limits.events || size + more > limits.bytes)
            {
                self.close(std::mem::take(&mut bundle));
                (count, size) = (0, 0);
            }
            (count, size) = (count + events.count, size + more);
            match bundle.last_mut() {
                // Threads that collided left it in several shards.
                Some((last, held)) if last.number == stream.number => {
                    let before = held.cost() + events.cost();
                    held.bytes.append(&mut events.bytes);
                    held.count += events.count;
                    self.budget.exchange(before, held.cost());
                }
                _ => bundle.push((stream, events)),
            }
        }
        if !bundle.is_empty() {
            self.close(bundle);
        }
    }

    /// Makes a batch of these and puts it into the queue.
    fn close(&mut self, parts: impl IntoIterator<Item = (Arc<Stream>, Events)>) {
        let mut made_room = false;
        let parts = parts.into_iter().map(|(stream, mut events)| {
            if events.bytes.capacity() > events.bytes.len() / 4 * 5 {
                let before = events.cost();
                events.bytes.shrink_to_fit();
                self.budget.exchange(before, events.cost());
                made_room = true;
            }
            (Arc::clone(&stream.name), events)
        });
        let body = Body::new(parts);
        self.made_room |= made_room;
        self.books.accepted += body.count();
        self.books.pending += body.count();
        let id = self.new_id();
        let batch = Batch {
            id,
            sequence: id,
            body,
            closed: self.now,
            delivery: Delivery::NotSent,
            last: Last::default(),
            outage: 0,
        };
        self.enqueue(batch);
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn enqueue(&mut self, batch: Batch) {
        let expiry = batch.closed + MAX_AGE;
        let others = (!self.queue.is_empty()).then_some(self.next_expiry);
        self.next_expiry = others.map_or(expiry, |others| others.min(expiry));
        self.queue.push_back(batch);
    }

    fn expire(&mut self) {
        if self.queue.is_empty() || self.now < self.next_expiry {
            return;
        }
        for batch in std::mem::take(&mut self.queue) {
            if self.now >= batch.closed + MAX_AGE {
                self.lose(batch, LossReason::Expired);
            } else {
                self.enqueue(batch);
            }
        }
    }

    /// Keeps a batch for another attempt: behind the others, so that one that the server chokes on
    /// does not hold them up.
    fn retry(&mut self, batch: Batch, least: Duration) -> Option<Change> {
        if batch.outage == self.outage {
            self.outage += 1;
            self.not_before = self.now + self.backoff.next_delay();
        }
        self.retry_after = self.retry_after.max(self.now + least);
        let began = !std::mem::replace(&mut self.failing, true);
        if self.now >= batch.closed + MAX_AGE {
            self.lose(batch, LossReason::Expired);
        } else {
            self.enqueue(batch);
        }
        began.then_some(Change::Down)
    }

    /// The server answered as one that works.
    fn recover(&mut self) -> Option<Change> {
        self.backoff.reset();
        self.not_before = self.now;
        std::mem::take(&mut self.failing).then_some(Change::Up)
    }

    /// Sends the streams of a refused bundle one by one: one of them may be at fault.
    fn split(&mut self, bundle: &Batch) {
        self.budget.exchange(bundle.body.cost(), 0);
        for body in bundle.body.split() {
            self.budget.exchange(0, body.cost());
            let id = self.new_id();
            self.enqueue(Batch { id, body, last: bundle.last.clone(), ..*bundle });
        }
    }

    fn lose(&mut self, batch: Batch, reason: LossReason) {
        let Batch { sequence, body, delivery, last, .. } = batch;
        self.books.pending -= body.count();
        self.books.add_lost(reason, delivery, body.count());
        self.losses.push_back(Loss { sequence, body, reason, delivery, last });
    }
}

#[cfg(test)]
mod tests;
