use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::TransportErrorKind;

use super::*;
use crate::stream::Appended;

const INTERVAL: Duration = Duration::from_millis(250);
const LIMITS: BatchLimits = BatchLimits { events: 10, bytes: 256 };
const SENDERS: usize = 2;

/// A batcher, its streams, and a clock that is moved by hand.
struct World {
    batcher: Batcher,
    budget: Arc<Budget>,
    streams: BTreeMap<&'static str, Arc<Stream>>,
    gzip: Gzip,
    start: Instant,
    now: Instant,
    events: usize,
}

impl World {
    fn new() -> Self {
        Self::with_budget(1 << 20)
    }

    fn with_budget(bytes: usize) -> Self {
        let start = Instant::now();
        let budget = Arc::new(Budget::new(bytes));
        let policy = Policy { flush_interval: INTERVAL, limits: LIMITS, seed: 7 };
        Self {
            batcher: Batcher::new(policy, Arc::clone(&budget), start),
            budget,
            streams: BTreeMap::new(),
            gzip: Gzip::new(GzipLevel::FASTEST),
            start,
            now: start,
            events: 0,
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    /// Collects an event, `{"n":NUMBER}`, from a thread that prefers that shard.
    fn push_to(&mut self, stream: &'static str, shard: usize) -> Option<usize> {
        let batcher = &mut self.batcher;
        let stream = self.streams.entry(stream).or_insert_with(|| batcher.add_stream(0, stream));
        let event = format!(",{{\"n\":{}}}", self.events);
        let appended = stream.append(event.as_bytes(), &Cell::new(shard), LIMITS, &self.budget);
        let (accepted, tell) = match appended {
            Appended::Accepted { tell } => (true, tell),
            Appended::Full { tell } => (false, tell),
            Appended::Stopped => (false, false),
        };
        if tell {
            batcher.look_at(stream, self.now);
        }
        self.events += usize::from(accepted);
        accepted.then(|| self.events - 1)
    }

    fn push(&mut self, stream: &'static str, events: usize) {
        for _ in 0..events {
            assert!(self.push_to(stream, 0).is_some());
        }
    }

    fn poll(&mut self) -> Step {
        self.batcher.poll(self.now)
    }

    fn sends(&mut self) -> Job {
        match self.poll() {
            Step::Send(job) => job,
            step => panic!("{step:?} at {:?}", self.now - self.start),
        }
    }

    fn loses(&mut self) -> Loss {
        match self.poll() {
            Step::Lost(loss) => {
                self.batcher.handed_over(&loss);
                loss
            }
            step => panic!("{step:?}"),
        }
    }

    /// Milliseconds until the batcher wants to be polled again.
    fn waits(&mut self) -> u128 {
        match self.poll() {
            Step::Wait(until) => (until - self.now).as_millis(),
            step => panic!("{step:?}"),
        }
    }

    fn is_idle(&mut self) -> bool {
        matches!(self.poll(), Step::Idle)
    }

    fn answer(&mut self, job: &Job, status: u16) -> Option<Change> {
        self.answer_with(job, status, "")
    }

    fn answer_with(&mut self, job: &Job, status: u16, retry_after: &str) -> Option<Change> {
        let mut headers = http::HeaderMap::new();
        if !retry_after.is_empty() {
            headers.insert("retry-after", retry_after.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let response = Response { status, headers, message: None };
        self.batcher.handle_result(job.id, Ok(response), self.now)
    }

    fn fail(&mut self, job: &Job, delivery: Delivery) -> Option<Change> {
        let error = TransportError::new(TransportErrorKind::Io, delivery);
        self.batcher.handle_result(job.id, Err(error), self.now)
    }

    fn compress(&mut self, job: &Job) {
        let bytes = job.body.gzip(&mut self.gzip);
        self.batcher.compressed(job.id, &bytes);
    }
}

/// The numbers of a body's events, and their streams.
fn numbers(body: &Body) -> Vec<(String, usize)> {
    let array = |array: &Bytes| {
        let events: Vec<serde_json::Value> = serde_json::from_slice(array).unwrap();
        events.into_iter().map(|event| event["n"].as_u64().unwrap() as usize).collect::<Vec<_>>()
    };
    body.arrays()
        .flat_map(|(label, events)| {
            let numbers = array(&events);
            assert_eq!(numbers.len(), label.count);
            numbers.into_iter().map(|number| (label.stream.to_string(), number))
        })
        .collect()
}

#[test]
fn linger_counts_from_the_first_event_however_many_follow() {
    let mut world = World::new();
    assert!(world.is_idle());
    for _ in 0..5 {
        world.push("a", 1);
        assert!(world.waits() <= 250);
        world.pass(50);
    }
    let job = world.sends();
    assert_eq!((job.body.count(), job.body.path().as_str()), (5, "/collect/a"));
    assert!(world.is_idle());
    world.answer(&job, 200);
    assert!(world.is_idle());
}

#[test]
fn closing_a_batch_whose_buffer_is_too_large_makes_room_and_says_so() {
    let mut world = World::new();
    world.push("a", 3);
    let used = world.budget.used();
    assert!(!world.batcher.made_room());
    world.pass(250);
    let _ = world.sends();
    assert!(world.budget.used() < used);
    assert!(world.batcher.made_room());
    assert!(!world.batcher.made_room(), "it is said once");
}

#[test]
fn a_full_batch_is_sent_at_once() {
    let mut world = World::new();
    world.push("a", 11);
    let job = world.sends();
    assert_eq!((job.body.count(), job.body.path().as_str()), (10, "/collect/a"));
    assert_eq!(world.waits(), 250);
}

#[test]
fn a_batch_is_closed_before_it_gets_too_long() {
    let mut world = World::new();
    let stream = world.batcher.add_stream(0, "a");
    let event = format!(",{{\"text\":\"{}\"}}", "x".repeat(100));
    for count in 1..=3 {
        let limit = LIMITS.bytes;
        let appended = stream.append(event.as_bytes(), &Cell::new(0), LIMITS, &world.budget);
        // Two of them and the brackets are just within the limit.
        assert!(event.len() * 2 < limit && event.len() * 3 > limit);
        assert_eq!(appended, Appended::Accepted { tell: count != 2 });
        world.batcher.look_at(&stream, world.now);
    }
    assert_eq!(world.sends().body.count(), 2);
    world.pass(250);
    assert_eq!(world.sends().body.count(), 1);
}

#[test]
fn many_streams_share_few_requests() {
    let mut world = World::new();
    for index in 0..25 {
        let name: &'static str = format!("stream_{index}").leak();
        world.push(name, 1);
        world.pass(9);
    }
    world.pass(250 - 25 * 9);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let job = world.sends();
        assert_eq!(job.body.path(), "/collect");
        assert!(job.body.count() as usize <= LIMITS.events);
        streams.extend(numbers(&job.body));
        world.answer(&job, 200);
    }
    assert!(world.is_idle());
    assert_eq!(streams.len(), 25);
    assert_eq!(world.budget.used(), 0, "idle streams hold no memory");
}

#[test]
fn pystride_3_a_refused_bundle_is_sent_again_stream_by_stream() {
    for status in [400, 401, 403, 404, 413, 422, 301, 501] {
        for compress in [false, true] {
            let mut world = World::new();
            for stream in ["a", "b", "c"] {
                world.push(stream, 2);
            }
            world.pass(250);
            let bundle = world.sends();
            if compress {
                world.compress(&bundle);
            }
            world.answer(&bundle, status);
            let [a, b] = [world.sends(), world.sends()];
            assert_eq!(numbers(&a.body), [("a".to_owned(), 0), ("a".to_owned(), 1)]);
            world.answer(&a, 200);
            world.answer(&b, status);
            let loss = world.loses();
            assert_eq!(numbers(&loss.body), numbers(&b.body));
            assert_eq!(loss.delivery, Delivery::MaybeSent);
            assert_eq!(loss.last.status.unwrap(), status);
            let c = world.sends();
            world.answer(&c, 200);
            let report = world.batcher.report();
            assert_eq!((report.accepted, report.delivered, report.lost()), (6, 4, 2));
            drop(bundle);
            assert_eq!(world.budget.used(), 0);
        }
    }
}

#[test]
fn each_answer_that_no_repetition_changes_has_its_reason() {
    for (status, reason) in [
        (400, LossReason::Rejected),
        (422, LossReason::Rejected),
        (413, LossReason::TooLarge),
        (401, LossReason::Unauthorized),
        (403, LossReason::Unauthorized),
        (404, LossReason::Refused),
        (302, LossReason::Refused),
        (505, LossReason::Refused),
    ] {
        let mut world = World::new();
        world.push("a", 10);
        let job = world.sends();
        assert_eq!(world.answer(&job, status), None);
        let loss = world.loses();
        assert_eq!((loss.reason, loss.delivery), (reason, Delivery::MaybeSent), "{status}");
        assert_eq!(world.batcher.report().lost_by(reason, Delivery::MaybeSent), 10);
    }
}

#[test]
fn pystride_2_what_fails_for_now_is_sent_again_with_the_same_bytes() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let mut world = World::new();
        world.push("a", 10);
        let job = world.sends();
        world.compress(&job);
        let bytes = job.body.gzip(&mut world.gzip);
        assert_eq!(world.answer(&job, status), Some(Change::Down));
        world.pass(5_000);
        let again = world.sends();
        assert_eq!(again.body.gzip(&mut world.gzip), bytes);
        assert_eq!(world.answer(&again, 200), Some(Change::Up));
        assert_eq!(world.batcher.report().delivered, 10);
    }
}

#[test]
fn a_server_that_is_down_is_probed_by_one_request_after_growing_pauses() {
    let mut world = World::new();
    world.push("a", 100);
    let [first, second] = [world.sends(), world.sends()];
    assert_eq!(world.fail(&first, Delivery::NotSent), Some(Change::Down));
    // Failing together counts once.
    let wait = world.batcher.not_before;
    assert_eq!(world.fail(&second, Delivery::NotSent), None);
    assert_eq!(world.batcher.not_before, wait);
    let mut longest = Duration::from_millis(100);
    let mut pauses = Vec::new();
    for _ in 0..20 {
        let pause = world.batcher.not_before - world.now;
        assert!(pause <= longest, "{pause:?} of {longest:?}");
        pauses.push(pause);
        world.now += pause;
        let probe = world.sends();
        assert!(!matches!(world.poll(), Step::Send(_)), "a second probe");
        world.fail(&probe, Delivery::NotSent);
        longest = (longest * 2).min(LONGEST_DELAY);
    }
    assert!(pauses.iter().max().unwrap() > &Duration::from_secs(5));
    world.now = world.batcher.not_before;
    let probe = world.sends();
    assert_eq!(world.answer(&probe, 200), Some(Change::Up));
    let _two = [world.sends(), world.sends()];
    let again = world.batcher.backoff.next_delay();
    assert!(again <= FIRST_DELAY, "a success resets the backoff");
}

#[test]
fn clients_that_failed_together_do_not_come_back_together() {
    let pauses = (0..100).map(|seed| {
        let mut world = World::new();
        world.batcher = Batcher::new(
            Policy { seed, ..world.batcher.policy },
            Arc::clone(&world.budget),
            world.start,
        );
        world.push("a", 10);
        let job = world.sends();
        world.fail(&job, Delivery::NotSent);
        world.batcher.not_before - world.now
    });
    let distinct: std::collections::BTreeSet<_> = pauses.collect();
    assert!(distinct.len() > 90);
    assert!(distinct.first().unwrap() < &(FIRST_DELAY / 5));
    assert!(distinct.last().unwrap() > &(FIRST_DELAY / 5 * 4));
}

#[test]
fn retry_after_is_a_floor_even_after_a_success() {
    let mut world = World::new();
    world.push("a", 30);
    let [first, second] = [world.sends(), world.sends()];
    world.answer_with(&first, 503, "60");
    world.answer(&second, 200);
    assert_eq!(world.waits(), 60_000);
    world.pass(60_000);
    world.sends();
}

#[test]
fn a_429_that_says_nothing_waits_five_seconds() {
    let mut world = World::new();
    world.push("a", 10);
    let job = world.sends();
    world.answer(&job, 429);
    assert_eq!(world.waits(), 5_000);
}

#[test]
fn a_batch_is_lost_after_two_minutes_with_the_history_of_its_attempts() {
    for (delivery, answered) in [(Delivery::NotSent, false), (Delivery::MaybeSent, true)] {
        let mut world = World::new();
        world.push("a", 20);
        let job = world.sends();
        if answered {
            world.answer_with(&job, 503, "300");
        } else {
            world.fail(&job, delivery);
            // A stalled probe does not keep the others.
            world.pass(10_000);
            let _stalled = world.sends();
            world.pass(110_000);
            let loss = world.loses();
            assert_eq!((loss.reason, loss.delivery), (LossReason::Expired, delivery));
            continue;
        }
        world.pass(119_999);
        assert_eq!(world.waits(), 1);
        world.pass(1);
        let [one, other] = [world.loses(), world.loses()];
        let deliveries = [one.delivery, other.delivery];
        assert!(deliveries.contains(&Delivery::NotSent), "the second was never tried");
        assert!(deliveries.contains(&delivery));
        assert_eq!(one.reason, LossReason::Expired);
        assert_eq!(world.budget.used(), 0);
    }
}

#[test]
fn an_attempt_that_may_have_arrived_is_never_forgotten() {
    let mut world = World::new();
    world.push("a", 10);
    for delivery in [Delivery::MaybeSent, Delivery::NotSent] {
        let job = world.sends();
        world.fail(&job, delivery);
        world.pass(10_000);
    }
    world.batcher.stop(world.now);
    assert_eq!(world.batcher.give_up()[0].delivery, Delivery::MaybeSent);
}

#[test]
fn a_flush_waits_for_what_is_in_flight_or_retried_and_not_for_later_events() {
    let mut world = World::new();
    world.push("a", 10);
    let in_flight = world.sends();
    world.push("a", 3);
    let barrier = world.batcher.flush(world.now);
    let hurried = world.sends();
    assert_eq!(hurried.body.count(), 3);
    world.push("a", 10);
    world.answer(&hurried, 200);
    let later = world.sends();
    assert!(!world.batcher.is_settled(barrier));
    world.answer(&in_flight, 503);
    assert!(!world.batcher.is_settled(barrier));
    world.fail(&later, Delivery::NotSent);
    world.pass(200);
    // The later batch failed after it, and stands behind it.
    let retried = world.sends();
    assert_eq!(numbers(&retried.body), numbers(&in_flight.body));
    world.answer(&retried, 200);
    assert!(world.batcher.is_settled(barrier));
    assert_eq!(world.batcher.report().pending, 10);
}

#[test]
fn a_flush_during_a_backoff_does_not_hammer_the_server() {
    let mut world = World::new();
    world.push("a", 10);
    let job = world.sends();
    world.answer_with(&job, 503, "30");
    for _ in 0..10 {
        world.push("a", 1);
        world.batcher.flush(world.now);
        assert_eq!(world.waits(), 30_000);
    }
}

#[test]
fn a_flush_waits_until_losses_are_handed_over() {
    let mut world = World::new();
    world.push("a", 10);
    let barrier = world.batcher.flush(world.now);
    let job = world.sends();
    world.answer(&job, 400);
    assert!(!world.batcher.is_settled(barrier));
    let Step::Lost(loss) = world.poll() else { panic!() };
    assert!(!world.batcher.is_settled(barrier));
    world.batcher.handed_over(&loss);
    assert!(world.batcher.is_settled(barrier));
}

#[test]
fn giving_up_loses_what_is_pending_and_late_answers_change_nothing() {
    let mut world = World::new();
    world.push("a", 25);
    let job = world.sends();
    world.compress(&job);
    world.batcher.stop(world.now);
    assert_eq!(world.push_to("a", 0), None);
    assert_eq!(world.push_to("new", 0), None);
    let losses = world.batcher.give_up();
    let mut lost = [0, 0];
    for loss in &losses {
        assert_eq!(loss.reason, LossReason::Stopped);
        lost[loss.delivery as usize] += loss.body.count();
    }
    assert_eq!((losses.len(), lost), (3, [15, 10]));
    assert!(world.is_idle(), "no sender gets what whoever gave up is to hand over");
    assert_eq!(world.answer(&job, 200), None);
    for loss in losses {
        assert!(!world.batcher.is_finished());
        world.batcher.handed_over(&loss);
    }
    assert!(matches!(world.poll(), Step::Finished));
    let report = world.batcher.report();
    assert_eq!((report.accepted, report.delivered, report.pending), (25, 0, 0));
    drop(job);
    assert_eq!(world.budget.used(), 0);
}

#[test]
fn the_budget_bounds_what_is_held() {
    let mut world = World::with_budget(16 << 10);
    let mut accepted = 0;
    while world.push_to(["a", "b", "c"][accepted % 3], accepted % 4).is_some() {
        accepted += 1;
        assert!(world.budget.used() <= 16 << 10);
    }
    assert!(accepted > 200, "{accepted}");
    let job = world.sends();
    world.compress(&job);
    world.answer(&job, 200);
    drop(job);
    assert!(world.push_to("a", 0).is_some(), "room was made");
}

#[derive(Debug, Clone)]
enum Operation {
    Push { stream: usize, shard: usize, events: usize },
    Pass(u64),
    Answer { which: usize, status: u16, retry_after: &'static str },
    Fail { which: usize, delivery: Delivery },
    Flush,
    Stop,
    GiveUp,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let delivery = prop_oneof![Just(Delivery::NotSent), Just(Delivery::MaybeSent)];
    let status = prop_oneof![
        6 => Just(200_u16),
        3 => Just(503),
        4 => prop_oneof![Just(201), Just(400), Just(401), Just(404), Just(413), Just(429)],
    ];
    let retry_after = prop_oneof![3 => Just(""), 1 => Just("2"), 1 => Just("130")];
    let operation = prop_oneof![
        8 => (0..4_usize, 0..4_usize, 1..15_usize)
            .prop_map(|(stream, shard, events)| Operation::Push { stream, shard, events }),
        5 => prop_oneof![4 => 0..300_u64, 2 => 0..12_000_u64, 1 => 0..130_000_u64]
            .prop_map(Operation::Pass),
        8 => (0..SENDERS, status, retry_after).prop_map(|(which, status, retry_after)| {
            Operation::Answer { which, status, retry_after }
        }),
        3 => (0..SENDERS, delivery)
            .prop_map(|(which, delivery)| Operation::Fail { which, delivery }),
        1 => Just(Operation::Flush),
    ];
    let end = prop_oneof![Just(vec![]), Just(vec![Operation::Stop])];
    let give_up = prop_oneof![Just(vec![]), Just(vec![Operation::GiveUp])];
    let some = |most| prop::collection::vec(operation.clone(), 0..most);
    (some(40), end, some(15), give_up)
        .prop_map(|(before, end, after, give_up)| [before, end, after, give_up].concat())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Pending,
    Delivered,
    Lost,
}

/// What a naive reader of the promises knows of an event.
#[derive(Debug)]
struct Known {
    stream: &'static str,
    accepted: Instant,
    /// When the batcher was asked first after its interval: by then its batch is closed.
    closed: Option<Instant>,
    sent: bool,
    delivery: Delivery,
    fate: Fate,
}

/// The promises, kept in the most naive way: event by event.
#[derive(Default)]
struct Model {
    events: Vec<Known>,
    in_flight: Vec<Job>,
    failing: bool,
    floor: Option<Instant>,
    barriers: Vec<(Barrier, usize)>,
    stopped: bool,
}

impl Model {
    fn count(&self, fate: Fate) -> u64 {
        self.events.iter().filter(|event| event.fate == fate).count() as u64
    }

    fn each(&mut self, body: &Body, mut change: impl FnMut(&mut Known)) {
        for (stream, number) in numbers(body) {
            let event = &mut self.events[number];
            assert_eq!(event.stream, stream);
            assert_eq!(event.fate, Fate::Pending, "an event ends once");
            change(event);
        }
    }

    fn lose(&mut self, loss: &Loss, now: Instant) {
        let expired = loss.reason == LossReason::Expired;
        self.each(&loss.body, |event| {
            assert_eq!(event.delivery, loss.delivery);
            assert!(!expired || now >= event.accepted + MAX_AGE);
            event.fate = Fate::Lost;
        });
    }

    /// Lets the senders do what there is to do, and checks each step.
    fn drive(&mut self, world: &mut World) {
        let now = world.now;
        if self.in_flight.len() < SENDERS {
            for event in &mut self.events {
                if event.closed.is_none() && event.accepted + INTERVAL <= now {
                    event.closed = Some(now);
                }
            }
        }
        loop {
            if self.in_flight.len() == SENDERS {
                break;
            }
            match world.poll() {
                Step::Send(job) => {
                    assert!(!self.failing || self.in_flight.is_empty(), "one probe at a time");
                    assert!(self.floor.is_none_or(|floor| floor <= now), "Retry-After");
                    let others = self.in_flight.iter().flat_map(|job| numbers(&job.body));
                    let others: Vec<_> = others.collect();
                    assert!(numbers(&job.body).iter().all(|event| !others.contains(event)));
                    let mut streams: Vec<_> =
                        job.body.labels().iter().map(|label| &label.stream).collect();
                    streams.dedup();
                    assert_eq!(streams.len(), job.body.labels().len());
                    assert!(job.body.count() as usize <= LIMITS.events);
                    self.each(&job.body, |event| {
                        assert!(event.closed.is_none_or(|closed| now < closed + MAX_AGE));
                        event.sent = true;
                    });
                    if job.id % 2 == 0 {
                        world.compress(&job);
                    }
                    self.in_flight.push(job);
                }
                Step::Lost(loss) => {
                    self.lose(&loss, now);
                    world.batcher.handed_over(&loss);
                }
                Step::Finished => {
                    assert!(self.stopped && self.count(Fate::Pending) == 0);
                    break;
                }
                step @ (Step::Wait(_) | Step::Idle) => {
                    let until = match step {
                        Step::Wait(until) => Some(until),
                        _ => None,
                    };
                    assert!(until.is_none_or(|until| until > now), "nothing to wait for");
                    self.check_waiting(until, now);
                    break;
                }
            }
        }
        let report = world.batcher.report();
        assert_eq!(report.accepted, self.events.len() as u64);
        assert_eq!(report.delivered, self.count(Fate::Delivered));
        if self.in_flight.len() < SENDERS {
            // Otherwise a loss may not be handed over yet.
            assert_eq!(report.lost(), self.count(Fate::Lost));
            assert_eq!(report.pending, self.count(Fate::Pending));
        }
        assert_eq!(report.accepted, report.delivered + report.lost() + report.pending);
        for (barrier, before) in &self.barriers {
            let pending = self.events[..*before].iter().any(|event| event.fate == Fate::Pending);
            assert_eq!(world.batcher.is_settled(*barrier), !pending);
        }
    }

    /// A sender is free, and there is nothing to do for it: is that right?
    fn check_waiting(&self, until: Option<Instant>, now: Instant) {
        let in_flight: Vec<usize> = self
            .in_flight
            .iter()
            .flat_map(|job| numbers(&job.body))
            .map(|(_, number)| number)
            .collect();
        for (number, event) in self.events.iter().enumerate() {
            if event.fate != Fate::Pending || in_flight.contains(&number) {
                continue;
            }
            let latest = if event.sent || self.failing || self.floor.is_some_and(|it| it > now) {
                event.closed.unwrap_or(now + INTERVAL) + MAX_AGE
            } else {
                // No failure holds it back: only its linger does.
                event.accepted + INTERVAL
            };
            assert!(until.is_some_and(|until| until <= latest), "{event:?} is forgotten");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_event_ends_as_a_naive_model_says(operations in operations()) {
        let mut world = World::new();
        let mut model = Model::default();
        for operation in operations {
            match operation {
                Operation::Push { stream, shard, events } => {
                    let stream = ["a", "b", "c", "long_name"][stream];
                    for _ in 0..events {
                        match world.push_to(stream, shard) {
                            Some(number) => {
                                prop_assert_eq!(number, model.events.len());
                                model.events.push(Known {
                                    stream,
                                    accepted: world.now,
                                    closed: None,
                                    sent: false,
                                    delivery: Delivery::NotSent,
                                    fate: Fate::Pending,
                                });
                            }
                            None => prop_assert!(model.stopped),
                        }
                    }
                }
                Operation::Pass(milliseconds) => world.pass(milliseconds),
                Operation::Answer { which, status, retry_after } => {
                    if which >= model.in_flight.len() {
                        continue;
                    }
                    let job = model.in_flight.swap_remove(which);
                    world.answer_with(&job, status, retry_after);
                    model.each(&job.body, |event| event.delivery = Delivery::MaybeSent);
                    model.failing = matches!(status, 429 | 503);
                    if model.failing {
                        let asked = retry_after.parse().unwrap_or(if status == 429 { 5 } else { 0 });
                        let floor = world.now + Duration::from_secs(asked);
                        model.floor = model.floor.max(Some(floor));
                    } else if status < 300 {
                        model.each(&job.body, |event| event.fate = Fate::Delivered);
                    }
                }
                Operation::Fail { which, delivery } => {
                    if which >= model.in_flight.len() {
                        continue;
                    }
                    let job = model.in_flight.swap_remove(which);
                    world.fail(&job, delivery);
                    model.failing = true;
                    if delivery == Delivery::MaybeSent {
                        model.each(&job.body, |event| event.delivery = delivery);
                    }
                }
                Operation::Flush => {
                    model.barriers.push((world.batcher.flush(world.now), model.events.len()));
                }
                Operation::Stop => {
                    world.batcher.stop(world.now);
                    model.stopped = true;
                }
                Operation::GiveUp => {
                    world.batcher.stop(world.now);
                    model.stopped = true;
                    for job in std::mem::take(&mut model.in_flight) {
                        model.each(&job.body, |event| event.delivery = Delivery::MaybeSent);
                    }
                    for loss in world.batcher.give_up() {
                        model.lose(&loss, world.now);
                        world.batcher.handed_over(&loss);
                    }
                }
            }
            model.drive(&mut world);
        }
        // The server works again, and everything ends.
        world.batcher.stop(world.now);
        model.stopped = true;
        for _ in 0..10_000 {
            if model.count(Fate::Pending) == 0 {
                break;
            }
            model.drive(&mut world);
            match model.in_flight.pop() {
                Some(job) => {
                    world.answer(&job, 200);
                    model.failing = false;
                    model.each(&job.body, |event| event.fate = Fate::Delivered);
                }
                None => world.pass(1000),
            }
        }
        model.drive(&mut world);
        prop_assert!(matches!(world.poll(), Step::Finished));
        prop_assert_eq!(model.count(Fate::Pending), 0);
        drop(model);
        prop_assert_eq!(world.budget.used(), 0);
    }
}
