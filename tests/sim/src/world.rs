//! A batcher, its lanes, its senders and a server, in virtual time. The oracle keeps the fate of each
//! event in its own terms.

mod oracle;
mod spool;
mod waiters;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use stride_collector::batcher::{
    BATCH_COST, Batcher, Budget, Events, Input, LaneId, Loss, Policy, Step,
};
use stride_collector::{Delivery, LossReason, ServerState};
use stride_core::gzip::{Gzip, GzipLevel, gunzip};

pub use self::spool::Ending;
use self::spool::Spool;
use self::waiters::Waiter;
use crate::choice::Choices;
use crate::server::{Arrived, Outcome, Server};
use crate::subscriber::Subscriber;

/// What is known of an event that was accepted.
#[derive(Debug, Default)]
struct Fate {
    lane: usize,
    accepted: Duration,
    /// How often it was sent in a request that may have been stored though it was not said so.
    ambiguous: u32,
    tried: bool,
    ended: Option<(End, Duration)>,
    /// The collector was told that it is safe on disk, and that it is there only.
    safe: bool,
    evicted: bool,
    /// It was not safe when the process ended, or had ended before: it may come again, or not.
    gone: bool,
}

impl Fate {
    /// Whether a flush waits for it.
    fn is_pending(&self) -> bool {
        self.ended.is_none() && !self.evicted && !self.gone
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    Lost(LossReason, Delivery),
}

#[derive(Debug, Default)]
struct Lane {
    open: Vec<u64>,
    text: Vec<u8>,
    sealed: u32,
    /// Whether a batcher that was told nothing knows of it.
    known: bool,
}

/// Something that happens later.
#[derive(Debug)]
enum Later {
    Result {
        sender: usize,
        id: u64,
        arrived: Arrived,
        outcome: Outcome,
    },
    Reported {
        sender: usize,
        loss: Loss,
    },
    /// A sender comes to what it was asked to do.
    Done {
        sender: usize,
        step: Step,
    },
    Disk(std::io::Result<Vec<u8>>),
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
    /// What the events take, and the budget's limit.
    budget: Budget,
    limit: usize,
    /// Those who wait for room, in the order in which they came.
    waiters: Vec<Waiter>,
    /// A batch was opened since memory was last said to have run out.
    can_press: bool,
    /// How many lost events the user was told of.
    reported: u64,
    has_split: bool,
    /// An event was accepted that did not wait, though others did.
    overtakes: bool,
    /// The streams of the requests in flight, if their order is to be kept.
    in_flight: BTreeSet<String>,
    /// What an observer knows: how many events were delivered, and how the server does.
    observed: (u64, ServerState),
    /// Somebody who subscribes to the server.
    pub subscriber: Option<Subscriber>,
    stopped: bool,
    given_up: bool,
    gzip: Gzip,
    spool: Option<Spool>,
    /// How often the process ended, and was started again.
    restarts: u32,
    /// How long the user takes to look at a loss.
    pub reporting: Duration,
    /// How long a sender takes to come to lanes that it is to seal or give back: others are faster meanwhile.
    pub hesitation: Duration,
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

/// The budget of a world that never runs out of memory.
const UNLIMITED: usize = 1 << 40;

/// What a check found.
pub type Checked = Result<(), String>;

fn stream(lane: usize) -> String {
    format!("s{lane}")
}

/// An event as it is collected: the comma before it, and its number.
fn text(event: u64, padding: usize) -> String {
    match padding {
        0 => format!(",{{\"n\":{event}}}"),
        _ => format!(",{{\"n\":{event},\"p\":\"{}\"}}", "x".repeat(padding)),
    }
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
            budget: Budget::new(UNLIMITED),
            limit: UNLIMITED,
            waiters: Vec::new(),
            can_press: false,
            reported: 0,
            has_split: false,
            overtakes: false,
            in_flight: BTreeSet::new(),
            observed: (0, ServerState::Healthy),
            subscriber: None,
            stopped: false,
            given_up: false,
            gzip: Gzip::new(GzipLevel::FASTEST),
            spool: None,
            restarts: 0,
            reporting: Duration::ZERO,
            hesitation: Duration::ZERO,
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

    /// The same as the machines have it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    // The program.

    /// Limits what the events may take, in bytes. Before the first of them.
    pub fn limit_memory(&mut self, bytes: usize) {
        self.budget = Budget::new(bytes);
        self.limit = bytes;
    }

    /// Collects an event; gives its number, or `None` when memory has run out and after a stop.
    pub fn collect(&mut self, lane: usize) -> Option<u64> {
        self.collect_padded(lane, 0)
    }

    /// Collects an event that is longer by so many bytes.
    pub fn collect_padded(&mut self, lane: usize, padding: usize) -> Option<u64> {
        let event = self.append(lane, padding, &mut 0);
        self.overtakes |= event.is_some() && self.waiters.iter().any(|it| !it.is_woken());
        if event.is_none() {
            self.press_once();
        }
        event
    }

    /// Appends an event to its lane; `grant` is what of the budget was given to it before.
    fn append(&mut self, lane: usize, padding: usize, grant: &mut usize) -> Option<u64> {
        if self.stopped && self.lanes[lane].open.is_empty() {
            return None;
        }
        let event = self.fates.len() as u64;
        let text = text(event, padding);
        let opens = self.lanes[lane].open.is_empty();
        let cost = text.len() + if opens { BATCH_COST } else { 0 };
        if !self.budget.try_reserve(cost, grant) {
            return None;
        }
        self.fates.push(Fate { lane, accepted: self.time(), ..Fate::default() });
        let state = &mut self.lanes[lane];
        state.known = true;
        state.open.push(event);
        state.text.extend_from_slice(text.as_bytes());
        let id = LaneId(u32::try_from(lane).unwrap_or_default());
        if opens && self.policy.batch_size > 1 {
            self.can_press = true;
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
        // As long as it has to be, as what was charged for it.
        let text = std::mem::take(&mut self.lanes[lane].text).into_boxed_slice().into_vec();
        if events.is_empty() {
            return;
        }
        let charged = text.len() + BATCH_COST;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let events = Events { text, count };
        self.budget.adjust(charged, events.cost());
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
        let pending = |(event, fate): (u64, &Fate)| fate.is_pending().then_some(event);
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

    fn press_once(&mut self) {
        if std::mem::take(&mut self.can_press) {
            self.press();
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
            self.end_waiting();
        }
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
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
        self.hurry_spool()?;
        self.end_steps()?;
        self.settle()?;
        let left = |fate: &Fate| fate.ended.is_none() && !fate.safe && !fate.gone;
        if let Some(event) = self.fates.iter().position(left) {
            return Err(format!("event {event} has not ended at the deadline of a stop"));
        }
        Ok(())
    }

    /// What whoever gave up does, and the spool when it has stored something.
    fn end_steps(&mut self) -> Checked {
        for _ in 0..1_000_000 {
            match self.batcher.poll(usize::MAX, self.now) {
                Step::Idle | Step::Finished => {
                    self.collect_freed();
                    return self.run_spool();
                }
                step => self.act(usize::MAX, step)?,
            }
        }
        Err("the end does not end".to_owned())
    }

    // Time.

    /// Puts the clock on, as when the machine was asleep: what was due meanwhile happens late.
    ///
    /// # Errors
    ///
    /// Something is wrong.
    pub fn jump(&mut self, time: Duration) -> Checked {
        self.now += time;
        self.pass(Duration::ZERO)
    }

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
            let subscriber = self.subscriber.as_ref().and_then(Subscriber::due);
            let next = [alarm, event, subscriber, self.spool_alarm()]
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= until);
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
            if let Some(subscriber) = &mut self.subscriber {
                subscriber.advance(self.now, self.server.mode, &mut self.choices)?;
            }
        }
        Err(format!("the senders spin at {:?}", self.time()))
    }

    fn happen(&mut self, later: Later) -> Checked {
        match later {
            Later::Result { sender, id, arrived, outcome } => {
                self.end_request(&arrived, &outcome)?;
                let activities = self.batcher.handle_result(id, outcome.result(), self.now);
                self.check_activities(&arrived, &outcome, &activities)?;
                self.return_from(sender);
            }
            Later::Reported { sender, loss } => {
                self.report(&loss);
                self.return_from(sender);
            }
            Later::Done { sender, step } => {
                self.carry_out(sender, step)?;
                self.return_from(sender);
            }
            Later::Disk(result) => self.end_call(result)?,
        }
        self.collect_freed();
        self.serve()
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
            if let (Input::Replayed { .. }, Some(spool)) = (&input, &mut self.spool) {
                spool.underway -= 1;
            }
            self.batcher.handle(input, self.now);
        }
        self.collect_freed();
    }

    fn collect_freed(&mut self) {
        let (freed, grown) = self.batcher.take_freed();
        self.budget.adjust(freed, grown);
        self.order_spool();
    }

    /// Lets every sender that is awake do what it has to, until all are asleep or busy.
    fn settle(&mut self) -> Checked {
        for _ in 0..100_000 {
            let awake = (0..self.senders.len()).find(|it| self.senders[*it] == Sender::Awake);
            let Some(sender) = awake else {
                self.run_spool()?;
                self.serve()?;
                if self.senders.contains(&Sender::Awake) {
                    continue;
                }
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
            self.run_spool()?;
            let wake = self.batcher.wake();
            self.wake(wake);
        }
        Err(format!("the senders spin at {:?}", self.time()))
    }

    fn act(&mut self, sender: usize, step: Step) -> Checked {
        self.note(|| format!("sender {sender}: {step:?}").chars().take(200).collect());
        if matches!(step, Step::Seal(_) | Step::Retire(_))
            && !self.hesitation.is_zero()
            && sender != usize::MAX
            && self.choices.pick(2) == 1
        {
            self.happens_in(self.hesitation, Later::Done { sender, step });
            self.busy(sender);
            return Ok(());
        }
        self.carry_out(sender, step)
    }

    fn carry_out(&mut self, sender: usize, step: Step) -> Checked {
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
                self.mark_sent(request.records());
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
            Step::Store(leaving) => {
                let bytes = leaving.run(&mut self.gzip);
                self.batcher.handle_leaving(&leaving, bytes);
            }
            Step::Split(split) => {
                self.has_split = true;
                let parts = split.run();
                self.batcher.handle_split(parts, self.now);
            }
            Step::Lost(loss) => {
                self.end_loss(&loss)?;
                if self.reporting.is_zero() || sender == usize::MAX {
                    self.report(&loss);
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
                        *lane = Lane { sealed: lane.sealed, ..Lane::default() };
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

    fn report(&mut self, loss: &Loss) {
        self.reported += u64::from(loss.count());
        self.batcher.handle_reported(loss);
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
