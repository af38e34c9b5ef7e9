//! A batcher, its lanes, its senders and a server, in virtual time. The oracle keeps the fate of each
//! event in its own terms.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use stride_collector::batcher::{Batcher, Events, Input, LaneId, Loss, Policy, Step};
use stride_collector::{Delivery, LossReason};
use stride_core::gzip::{Gzip, GzipLevel, gunzip};

use crate::choice::Choices;
use crate::server::{Arrived, Outcome, Server};

/// What is known of an event that was accepted.
#[derive(Debug, Default)]
struct Fate {
    lane: usize,
    accepted: Duration,
    /// How often it was sent in a request that may have been stored though it was not said so.
    ambiguous: u32,
    tried: bool,
    ended: Option<(End, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    Lost(LossReason, Delivery),
}

#[derive(Debug, Default)]
struct Lane {
    open: Vec<u64>,
    sealed: u32,
    /// Whether a batcher that was told nothing knows of it.
    known: bool,
}

/// Something that happens later.
#[derive(Debug)]
enum Later {
    Result { sender: usize, id: u64, arrived: Arrived, outcome: Outcome },
    Reported { sender: usize, loss: Loss },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Awake,
    Asleep(Option<Instant>),
    Busy,
    Gone,
}

/// A flush that is waited for.
#[derive(Debug)]
struct Flush {
    number: u64,
    events: Vec<u64>,
}

/// One request, for the oracle and for scenarios.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When, since the start.
    pub at: Duration,
    /// The streams.
    pub streams: Vec<String>,
}

/// The world.
pub struct World {
    batcher: Batcher,
    policy: Policy,
    /// The server.
    pub server: Server,
    /// Where decisions come from.
    pub choices: Choices,
    lanes: Vec<Lane>,
    senders: Vec<Sender>,
    inbox: VecDeque<Input>,
    later: BTreeMap<(Instant, u64), Later>,
    next: u64,
    start: Instant,
    now: Instant,
    fates: Vec<Fate>,
    flushes: Vec<Flush>,
    flush_count: u64,
    /// What the events take: charged when sealed, given back by the batcher.
    memory: i64,
    stopped: bool,
    given_up: bool,
    gzip: Gzip,
    /// How long the user takes to look at a loss.
    pub reporting: Duration,
    /// One in so many requests is compressed.
    pub compresses: u32,
    /// Every request.
    pub sent: Vec<Sent>,
    /// What happened, a line each, if it is written down.
    pub log: Option<Vec<String>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.time()).finish_non_exhaustive()
    }
}

/// What a check found.
pub type Checked = Result<(), String>;

fn stream(lane: usize) -> String {
    format!("s{lane}")
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(policy: Policy, lanes: usize, choices: Choices) -> Self {
        let start = Instant::now();
        Self {
            batcher: Batcher::new(policy, start),
            policy,
            server: Server::new(),
            choices,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            senders: vec![Sender::Awake; policy.senders],
            inbox: VecDeque::new(),
            later: BTreeMap::new(),
            next: 0,
            start,
            now: start,
            fates: Vec::new(),
            flushes: Vec::new(),
            flush_count: 0,
            memory: 0,
            stopped: false,
            given_up: false,
            gzip: Gzip::new(GzipLevel::FASTEST),
            reporting: Duration::ZERO,
            compresses: 8,
            sent: Vec::new(),
            log: None,
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let time = self.time();
        if let Some(log) = &mut self.log {
            log.push(format!("{:10.3} {}", time.as_secs_f64(), line()));
        }
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.now - self.start
    }

    // The program.

    /// Collects an event; gives its number, or `None` after a stop.
    pub fn collect(&mut self, lane: usize) -> Option<u64> {
        if self.stopped && self.lanes[lane].open.is_empty() {
            return None;
        }
        let event = self.fates.len() as u64;
        self.fates.push(Fate { lane, accepted: self.time(), ..Fate::default() });
        self.lanes[lane].known = true;
        self.lanes[lane].open.push(event);
        let id = LaneId(u32::try_from(lane).unwrap_or_default());
        if self.lanes[lane].open.len() == 1 && self.policy.batch_size > 1 {
            let wake = self.batcher.wake_when_opened();
            self.tell(Input::Opened { lane: id, stream: stream(lane).into() }, wake);
        }
        if self.lanes[lane].open.len() >= self.policy.batch_size {
            self.seal(lane, self.policy.batch_size > 1);
        }
        Some(event)
    }

    fn seal(&mut self, lane: usize, opened: bool) {
        let events = std::mem::take(&mut self.lanes[lane].open);
        if events.is_empty() {
            return;
        }
        let text: String = events.iter().map(|event| format!(",{{\"n\":{event}}}")).collect();
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let events = Events { text: text.into_bytes(), count };
        self.memory += i64::try_from(events.cost()).unwrap_or(i64::MAX);
        self.lanes[lane].sealed = self.lanes[lane].sealed.wrapping_add(1);
        let id = LaneId(u32::try_from(lane).unwrap_or_default());
        let wake = self.batcher.wake_when_sealed();
        self.tell(Input::Sealed { lane: id, stream: stream(lane).into(), events, opened }, wake);
    }

    fn tell(&mut self, input: Input, wake: Option<usize>) {
        self.note(|| format!("{input:?} wakes {wake:?}"));
        self.inbox.push_back(input);
        self.wake(wake);
    }

    fn wake(&mut self, sender: Option<usize>) {
        if let Some(sender) = sender
            && matches!(self.senders[sender], Sender::Asleep(_))
        {
            self.senders[sender] = Sender::Awake;
        }
    }

    /// Asks for a flush.
    pub fn flush(&mut self) {
        let pending = |(event, fate): (u64, &Fate)| fate.ended.is_none().then_some(event);
        let events = (0..).zip(&self.fates).filter_map(pending).collect();
        self.flushes.push(Flush { number: self.flush_count, events });
        self.flush_count += 1;
        let wake = self.batcher.wake_when_sealed();
        self.tell(Input::Flush, wake);
        if self.batcher.is_finished() {
            // No sender is left that would.
            self.drain();
        }
    }

    /// Says that memory has run out.
    pub fn press(&mut self) {
        let wake = self.batcher.wake_when_sealed();
        self.tell(Input::Press, wake);
    }

    /// Stops.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            let wake = self.batcher.wake_when_sealed();
            self.tell(Input::Stop, wake);
        }
    }

    /// Reaches the deadline of a stop.
    ///
    /// # Errors
    ///
    /// Something is wrong.
    pub fn give_up(&mut self) -> Checked {
        self.stop();
        self.drain();
        self.batcher.give_up(self.now);
        self.given_up = true;
        for _ in 0..1_000_000 {
            match self.batcher.poll(usize::MAX, self.now) {
                Step::Idle | Step::Finished => break,
                step => self.act(usize::MAX, step)?,
            }
        }
        self.settle()?;
        if let Some(event) = self.fates.iter().position(|fate| fate.ended.is_none()) {
            return Err(format!("event {event} has not ended at the deadline of a stop"));
        }
        Ok(())
    }

    // Time.

    /// Lets that much time pass.
    ///
    /// # Errors
    ///
    /// Something is wrong.
    pub fn pass(&mut self, time: Duration) -> Checked {
        let until = self.now + time;
        for _ in 0..200_000 {
            self.settle()?;
            let asleep = |sender: &Sender| match sender {
                Sender::Asleep(until) => *until,
                _ => None,
            };
            let alarm = self.senders.iter().filter_map(asleep).min();
            let event = self.later.first_key_value().map(|((at, _), _)| *at);
            let next = [alarm, event].into_iter().flatten().min().filter(|next| *next <= until);
            let Some(next) = next else {
                self.now = until;
                return Ok(());
            };
            self.now = self.now.max(next);
            for sender in &mut self.senders {
                if matches!(sender, Sender::Asleep(Some(until)) if *until <= self.now) {
                    *sender = Sender::Awake;
                }
            }
            while let Some(entry) = self.later.first_entry()
                && entry.key().0 <= self.now
            {
                let later = entry.remove();
                self.happen(later)?;
            }
        }
        Err(format!("the senders spin at {:?}", self.time()))
    }

    fn happen(&mut self, later: Later) -> Checked {
        match later {
            Later::Result { sender, id, arrived, outcome } => {
                self.end_request(&arrived, &outcome)?;
                self.batcher.handle_result(id, outcome.result(), self.now);
                self.return_from(sender);
            }
            Later::Reported { sender, loss } => {
                self.batcher.handle_reported(&loss);
                self.return_from(sender);
            }
        }
        self.collect_freed();
        Ok(())
    }

    fn return_from(&mut self, sender: usize) {
        if let Some(state) = self.senders.get_mut(sender) {
            *state = Sender::Awake;
        }
        let wake = self.batcher.wake();
        self.wake(wake);
    }

    fn drain(&mut self) {
        while let Some(input) = self.inbox.pop_front() {
            self.batcher.handle(input, self.now);
        }
        self.collect_freed();
    }

    fn collect_freed(&mut self) {
        let (freed, grown) = self.batcher.take_freed();
        self.memory += i64::try_from(grown).unwrap_or(i64::MAX);
        self.memory -= i64::try_from(freed).unwrap_or(i64::MAX);
    }

    /// Lets every sender that is awake do what it has to, until all are asleep or busy.
    fn settle(&mut self) -> Checked {
        for _ in 0..100_000 {
            let awake = (0..self.senders.len()).find(|it| self.senders[*it] == Sender::Awake);
            let Some(sender) = awake else {
                return self.check();
            };
            self.drain();
            let step = self.batcher.poll(sender, self.now);
            match step {
                Step::Wait(until) => {
                    // A slice of what is due was done: it polls again at once.
                    if until <= self.now {
                        continue;
                    }
                    self.senders[sender] = Sender::Asleep(Some(until));
                }
                Step::Idle => self.senders[sender] = Sender::Asleep(None),
                Step::Finished => self.senders[sender] = Sender::Gone,
                step => self.act(sender, step)?,
            }
            if self.batcher.is_finished() {
                for sender in &mut self.senders {
                    if matches!(sender, Sender::Asleep(_)) {
                        *sender = Sender::Awake;
                    }
                }
            }
            self.collect_freed();
            let wake = self.batcher.wake();
            self.wake(wake);
        }
        Err(format!("the senders spin at {:?}", self.time()))
    }

    fn act(&mut self, sender: usize, step: Step) -> Checked {
        self.note(|| format!("sender {sender}: {step:?}").chars().take(200).collect());
        match step {
            Step::Send(request) => {
                // Not always: to compress takes most of a run's time.
                let text = if self.choices.pick(self.compresses) == 0 {
                    let bytes = request.body().gzip(&mut self.gzip);
                    self.batcher.handle_gzipped_request(request.id(), &bytes);
                    gunzip(&bytes).map_err(|error| error.to_string())?
                } else {
                    request.body().pieces().concat()
                };
                let arrived = parse(&request.body().path(), &text)?;
                self.begin_request(&arrived)?;
                let (outcome, time) = self.server.take(&arrived, &mut self.choices);
                let later = Later::Result { sender, id: request.id(), arrived, outcome };
                self.happens_in(time, later);
                self.busy(sender);
            }
            Step::Compress(waiting) => {
                let bytes = waiting.run(&mut self.gzip);
                self.batcher.handle_gzipped(&waiting, bytes);
            }
            Step::Split(split) => {
                let parts = split.run();
                self.batcher.handle_split(parts, self.now);
            }
            Step::Lost(loss) => {
                self.end_loss(&loss)?;
                if self.reporting.is_zero() || sender == usize::MAX {
                    self.batcher.handle_reported(&loss);
                } else {
                    self.happens_in(self.reporting, Later::Reported { sender, loss });
                    self.busy(sender);
                }
            }
            Step::Seal(seal) => {
                for lane in seal.lanes() {
                    self.seal(lane.0 as usize, true);
                }
                let wake = self.batcher.wake_when_sealed();
                self.tell(Input::SealsDone(seal.ticket()), wake);
                if sender == usize::MAX {
                    self.drain();
                }
            }
            Step::Retire(lanes) => {
                for retire in lanes {
                    let lane = &mut self.lanes[retire.lane.0 as usize];
                    if lane.open.is_empty() && lane.sealed == retire.sealed && lane.known {
                        *lane = Lane::default();
                        self.inbox.push_back(Input::Retired(retire.lane));
                    }
                }
                if sender == usize::MAX {
                    self.drain();
                }
            }
            Step::Wait(_) | Step::Idle | Step::Finished => {}
        }
        self.collect_freed();
        Ok(())
    }

    fn busy(&mut self, sender: usize) {
        if let Some(state) = self.senders.get_mut(sender) {
            *state = Sender::Busy;
        }
    }

    fn happens_in(&mut self, time: Duration, later: Later) {
        self.next += 1;
        self.later.insert((self.now + time, self.next), later);
    }

    // The oracle.

    fn begin_request(&mut self, arrived: &Arrived) -> Checked {
        let streams = arrived.iter().map(|(stream, _)| stream.clone()).collect();
        self.sent.push(Sent { at: self.time(), streams });
        for (name, events) in arrived {
            for event in events {
                let Some(fate) = self.fates.get_mut(usize::try_from(*event).unwrap_or(usize::MAX))
                else {
                    return Err(format!("event {event} was invented"));
                };
                if stream(fate.lane) != *name {
                    return Err(format!("event {event} was sent to {name}"));
                }
                if let Some((end, _)) = fate.ended {
                    return Err(format!("event {event} was sent after it had ended: {end:?}"));
                }
                fate.tried = true;
            }
            if !events.is_sorted() {
                return Err(format!("events out of order: {events:?}"));
            }
        }
        Ok(())
    }

    fn end_request(&mut self, arrived: &Arrived, outcome: &Outcome) -> Checked {
        self.note(|| format!("{outcome:?} to {arrived:?}"));
        let success = matches!(outcome, Outcome::Status(200..300, _));
        for event in arrived.iter().flat_map(|(_, events)| events) {
            if outcome.is_ambiguous() {
                self.fates[usize::try_from(*event).unwrap_or_default()].ambiguous += 1;
            }
            // A result that comes after a stop gave up changes nothing.
            if success && !self.given_up {
                self.end(*event, End::Delivered)?;
            }
        }
        Ok(())
    }

    fn end_loss(&mut self, loss: &Loss) -> Checked {
        let lost = loss.to_lost_batch();
        let events = numbers(&lost.events)?;
        if events.len() != lost.count {
            return Err(format!("{} events in a loss of {}", events.len(), lost.count));
        }
        for event in events {
            self.end(event, End::Lost(lost.reason, lost.delivery))?;
            let fate = &self.fates[usize::try_from(event).unwrap_or_default()];
            let age = self.time() - fate.accepted;
            let bad = self.server.bad.contains(&event);
            let siblings =
                |it: &&u64| self.fates[usize::try_from(**it).unwrap_or_default()].lane == fate.lane;
            let bad_in_lane = self.server.bad.iter().filter(siblings).count();
            let wrong = match lost.reason {
                // The first few faults are found within the requests that there are.
                LossReason::Rejected => !bad && bad_in_lane < 3,
                LossReason::Expired | LossReason::Unauthorized => {
                    age < self.policy.retry_for || (!fate.tried && self.sent.is_empty())
                }
                LossReason::TooLarge => self.server.most > 0,
                LossReason::Stopped => !self.given_up,
                _ => false,
            };
            if wrong {
                return Err(format!("event {event} was lost as {} after {age:?}", lost.reason));
            }
            if lost.delivery == Delivery::NotSent && self.server.stored.contains_key(&event) {
                return Err(format!("event {event} is stored and was lost as not sent"));
            }
        }
        Ok(())
    }

    fn end(&mut self, event: u64, end: End) -> Checked {
        let time = self.time();
        let Some(fate) = self.fates.get_mut(usize::try_from(event).unwrap_or(usize::MAX)) else {
            return Err(format!("event {event} was invented"));
        };
        if let Some((before, _)) = fate.ended.replace((end, time)) {
            return Err(format!("event {event} ended twice: {before:?}, {end:?}"));
        }
        Ok(())
    }

    /// What must hold at every moment.
    fn check(&mut self) -> Checked {
        for (event, times) in &self.server.stored {
            let fate = &self.fates[usize::try_from(*event).unwrap_or_default()];
            if *times > 1 + fate.ambiguous {
                return Err(format!("event {event} was stored {times} times without need"));
            }
        }
        if self.memory < 0 {
            return Err(format!("{} bytes more were given back than taken", -self.memory));
        }
        let settled = self.batcher.settled_flushes();
        let fates = &self.fates;
        let is_pending =
            |event: &u64| fates[usize::try_from(*event).unwrap_or_default()].ended.is_none();
        for flush in self.flushes.extract_if(.., |flush| flush.number < settled) {
            if let Some(event) = flush.events.iter().copied().find(is_pending) {
                return Err(format!("a flush ended before event {event}"));
            }
        }
        Ok(())
    }

    /// What must hold when everything has ended.
    ///
    /// # Errors
    ///
    /// Something does not.
    pub fn check_end(&mut self) -> Checked {
        self.check()?;
        if let Some((event, fate)) =
            (0..).zip(&self.fates).find(|(_, fate): &(u64, _)| fate.ended.is_none())
        {
            return Err(format!(
                "event {event} of s{}, accepted at {:?}, has not ended at {:?}",
                fate.lane,
                fate.accepted,
                self.time()
            ));
        }
        let totals = self.batcher.totals();
        let delivered =
            self.fates.iter().filter(|it| matches!(it.ended, Some((End::Delivered, _)))).count();
        let lost = self.fates.len() - delivered;
        let counted = (totals.accepted, totals.delivered, totals.lost(), totals.pending);
        let expected = (self.fates.len() as u64, delivered as u64, lost as u64, 0);
        if counted != expected {
            return Err(format!("counted {counted:?}, not {expected:?}"));
        }
        if self.memory != 0 {
            return Err(format!("{} bytes are left", self.memory));
        }
        if !self.flushes.is_empty() {
            return Err(format!("{} flushes have not ended", self.flushes.len()));
        }
        Ok(())
    }

    /// How long an event took to be delivered; `None` if it was not.
    #[must_use]
    pub fn delivery_time(&self, event: u64) -> Option<Duration> {
        let fate = self.fates.get(usize::try_from(event).ok()?)?;
        match fate.ended? {
            (End::Delivered, at) => Some(at - fate.accepted),
            (End::Lost(..), _) => None,
        }
    }

    /// How many events were lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.fates.iter().filter(|fate| matches!(fate.ended, Some((End::Lost(..), _)))).count()
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// How many events were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.fates.len()
    }

    /// What the batcher holds, in bytes, as it says.
    #[must_use]
    pub fn memory(&self) -> i64 {
        self.memory
    }
}

fn parse(path: &str, text: &[u8]) -> Result<Arrived, String> {
    match path.strip_prefix("/collect/") {
        Some(stream) => Ok(vec![(stream.to_owned(), numbers(text)?)]),
        None => {
            let json: serde_json::Value =
                serde_json::from_slice(text).map_err(|error| error.to_string())?;
            let streams = json.as_object().ok_or("a bundle is not an object")?;
            let of = |(stream, events): (&String, &serde_json::Value)| {
                Ok((stream.clone(), numbers(events.to_string().as_bytes())?))
            };
            streams.iter().map(of).collect()
        }
    }
}

fn numbers(array: &[u8]) -> Result<Vec<u64>, String> {
    let events: Vec<serde_json::Value> =
        serde_json::from_slice(array).map_err(|error| format!("a body is not JSON: {error}"))?;
    let number = |event: &serde_json::Value| event["n"].as_u64().ok_or("no number".to_owned());
    events.iter().map(number).collect()
}
