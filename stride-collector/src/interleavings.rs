//! Interleavings of callers and senders, tried one by one instead of left to luck.
//!
//! shuttle runs each program below many times on one thread, and chooses at every lock and atomic who
//! goes on. What nobody wakes is a deadlock, which it finds. Time is virtual: a sender that would sleep
//! until later moves the clock there. Every atomic counts as sequentially consistent: weaker orders are
//! not tried.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test -p stride-collector --lib interleavings --target-dir target/shuttle
//! ```

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use shuttle::future::block_on;
use shuttle::thread;
use stride_core::gzip::{Gzip, GzipLevel, gunzip};

use crate::batcher::{LaneId, Response, Step};
use crate::collector::Collector;
use crate::config::Settings;
use crate::error::CollectError;
use crate::intake::stream::{Appended, BatchLimits, Held, Stream};
use crate::report::Report;
use crate::sender::threads::Parker;
use crate::shared::{Callbacks, Shared};

/// How many interleavings of each program are tried.
const TRIES: usize = 1000;

// All threads of one run are one thread of the operating system, and share this.
std::thread_local! {
    static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn now() -> Instant {
    CLOCK.get().unwrap_or_else(|| {
        let now = Instant::now();
        CLOCK.set(Some(now));
        now
    })
}

/// A collector, its senders, and what the server stored.
struct World {
    collector: Collector,
    shared: Arc<Shared>,
    stored: Arc<std::sync::Mutex<Vec<Value>>>,
    senders: Vec<thread::JoinHandle<()>>,
}

impl World {
    fn new(settings: Settings, status: fn(usize) -> StatusCode) -> Self {
        CLOCK.set(None);
        let shared = Arc::new(Shared::new(settings, Callbacks::default(), now));
        let stored = Arc::<std::sync::Mutex<Vec<Value>>>::default();
        let senders = (0..settings.concurrency).map(|number| {
            let (shared, stored) = (Arc::clone(&shared), Arc::clone(&stored));
            thread::spawn(move || send(number, &shared, &stored, status))
        });
        let senders = senders.collect();
        Self { collector: Collector::new(Arc::clone(&shared)), shared, stored, senders }
    }

    /// Checks what is true once nobody is left.
    fn end(self, accepted: u64) -> Report {
        let Self { collector, shared, stored, senders } = self;
        drop(collector);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let report = shared.report();
        assert_eq!(report.accepted, accepted, "{report}");
        assert_eq!(report.pending, 0, "{report}");
        assert_eq!(report.delivered + report.lost(), accepted, "{report}");
        assert_eq!(shared.memory(), 0);
        let mut ids: Vec<String> = stored.lock().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(ids.len() as u64, report.delivered);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len() as u64, report.delivered, "an event was sent twice");
        report
    }

    fn has_stored(&self, event: &Value) -> bool {
        self.stored.lock().unwrap().contains(event)
    }
}

fn send(
    number: usize,
    shared: &Shared,
    stored: &std::sync::Mutex<Vec<Value>>,
    status: fn(usize) -> StatusCode,
) {
    let mut gzip = Gzip::new(GzipLevel::FASTEST);
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut requests = 0;
    loop {
        match shared.poll(number, &waker) {
            Step::Send(request) => {
                let bytes = request.body().gzip(&mut gzip);
                shared.handle_gzipped_request(request.id(), &bytes);
                thread::yield_now();
                let status = status(requests);
                requests += 1;
                if status.is_success() {
                    let body = serde_json::from_slice(&gunzip(&bytes).unwrap()).unwrap();
                    let events = match body {
                        Value::Array(events) => events,
                        Value::Object(streams) => {
                            let events = streams.into_iter().map(|(_, events)| events);
                            events.flat_map(|events| events.as_array().unwrap().clone()).collect()
                        }
                        other => panic!("{other}"),
                    };
                    stored.lock().unwrap().extend(events);
                }
                let response = Response { status, headers: HeaderMap::new(), message: None };
                shared.handle_result(request.id(), Ok(response));
            }
            Step::Compress(waiting) => shared.handle_gzipped(&waiting, waiting.run(&mut gzip)),
            Step::Store(leaving) => shared.handle_leaving(&leaving, leaving.run(&mut gzip)),
            Step::Split(split) => shared.handle_split(split.run()),
            Step::Lost(loss) => shared.report_loss(&loss),
            Step::Seal(seal) => shared.seal(&seal),
            Step::Retire(lanes) => shared.retire(&lanes),
            Step::Wait(until) => {
                // In small steps: what this wait is for may have changed meanwhile.
                CLOCK.set(Some(until.clamp(now(), now() + Duration::from_millis(100))));
                thread::yield_now();
            }
            Step::Idle => parker.park(None),
            Step::Finished => return,
        }
    }
}

/// Tries a program with threads that take turns at random, and with few switches in bad places.
fn check(program: impl Fn() + Copy + Send + Sync + 'static) {
    shuttle::check_random(program, TRIES);
    shuttle::check_pct(program, TRIES, 3);
}

fn ok(_: usize) -> StatusCode {
    StatusCode::OK
}

/// Batches of two events, and two senders.
fn small() -> Settings {
    Settings { batch_size: 2, ..Settings::default() }
}

#[test]
fn a_flush_covers_what_was_accepted_before_it() {
    let program = || {
        let world = World::new(small(), ok);
        let stored = Arc::clone(&world.stored);
        let callers = (0..2).map(|caller| {
            let (collector, stored) = (world.collector.clone(), Arc::clone(&stored));
            thread::spawn(move || {
                let events = (0..3).map(|index| json!({"caller": caller, "index": index}));
                let events: Vec<Value> = events.collect();
                collector.collect_all("mystream", &events).unwrap();
                assert_eq!(collector.flush().lost(), 0);
                let stored = stored.lock().unwrap();
                assert!(events.iter().all(|event| stored.contains(event)), "{stored:?}");
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(world.end(6).delivered, 6);
    };
    check(program);
}

#[test]
fn totals_balance_at_every_moment() {
    let program = || {
        let world = World::new(small(), ok);
        let callers = ["a", "b"].map(|stream| {
            let collector = world.collector.clone();
            thread::spawn(move || {
                for index in 0..3 {
                    collector.collect(stream, &json!({"stream": stream, "index": index})).unwrap();
                }
            })
        });
        let mut before = 0;
        for _ in 0..4 {
            let report = world.collector.stats();
            let ended = report.delivered + report.lost() + report.pending;
            assert_eq!(report.accepted, ended, "{report}");
            assert!((before..=6).contains(&report.accepted), "{report} after {before}");
            before = report.accepted;
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert!(world.collector.stats().accepted == 6);
        assert_eq!(world.end(6).delivered, 6);
    };
    check(program);
}

#[test]
fn what_is_accepted_beside_a_stop_is_sent() {
    let program = || {
        let world = World::new(small(), ok);
        let callers = (0..2).map(|caller| {
            let collector = world.collector.clone();
            thread::spawn(move || {
                let collect = |index: &u64| {
                    collector.collect("mystream", &json!({"caller": caller, "index": index}))
                };
                let accepted = (0..4).take_while(|index| match collect(index) {
                    Ok(()) => true,
                    Err(CollectError::Stopped) => false,
                    Err(error) => panic!("{error}"),
                });
                accepted.count() as u64
            })
        });
        let callers: Vec<_> = callers.collect();
        let report = world.collector.stop();
        assert_eq!((report.pending, report.lost()), (0, 0), "{report}");
        let accepted = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert_eq!(world.end(accepted).delivered, accepted);
    };
    check(program);
}

#[test]
fn a_stop_that_gives_up_loses_nothing_unseen() {
    let program = || {
        let fails = |_| StatusCode::SERVICE_UNAVAILABLE;
        let world = World::new(small(), fails);
        let collector = world.collector.clone();
        let caller = thread::spawn(move || {
            let events = (0..4).map(|index| json!({"index": index}));
            events.filter(|event| collector.collect("mystream", event).is_ok()).count() as u64
        });
        let report = world.collector.stop_within(Duration::ZERO);
        assert_eq!(report.pending, 0, "{report}");
        let accepted = caller.join().unwrap();
        assert_eq!(world.end(accepted).lost(), accepted);
    };
    check(program);
}

#[test]
fn waiters_for_room_are_all_served() {
    let program = || {
        let event = json!({"text": "x".repeat(600)});
        // Room for one such event and its stream.
        let settings = Settings { memory_budget: 1300, max_event: 700, concurrency: 1, ..small() };
        let world = World::new(settings, ok);
        let event = |caller: u32| {
            let mut event = event.clone();
            event["caller"] = caller.into();
            event
        };
        world.collector.collect("mystream", &event(0)).unwrap();
        // One who waits in front of the others, and gives up.
        let impatient = event(1);
        let mut impatient = Box::pin(world.collector.collect_wait("mystream", &impatient));
        let polled = impatient.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let accepted = if polled.is_ready() { 5 } else { 4 };
        let callers = (2..5).map(|caller| {
            let (collector, event) = (world.collector.clone(), event(caller));
            thread::spawn(move || block_on(collector.collect_wait("mystream", &event)).unwrap())
        });
        let callers: Vec<_> = callers.collect();
        thread::yield_now();
        drop(impatient);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(world.end(accepted).delivered, accepted);
    };
    check(program);
}

#[test]
fn a_stream_that_is_given_back_is_found_again() {
    let program = || {
        let world = World::new(Settings { concurrency: 1, ..small() }, ok);
        let handle = world.collector.stream("mystream").unwrap();
        let by_name = world.collector.clone();
        let by_name = thread::spawn(move || {
            for index in 0..2 {
                by_name.collect("mystream", &json!({"by_name": index})).unwrap();
                assert_eq!(by_name.flush().lost(), 0);
            }
        });
        for index in 0..2 {
            handle.collect(&json!({"by_handle": index})).unwrap();
            assert_eq!(world.collector.flush().lost(), 0);
            assert!(world.has_stored(&json!({"by_handle": index})));
        }
        drop(handle);
        by_name.join().unwrap();
        assert_eq!(world.end(4).delivered, 4);
    };
    check(program);
}

#[test]
fn a_stream_that_was_given_back_takes_no_event() {
    let program = || {
        let limits = BatchLimits { events: 10, bytes: 1000, ordered: false };
        let held = Arc::new(Held::new(limits, 10_000));
        let stream = Arc::new(Stream::new(0, LaneId(0), "mystream", false, 0));
        let callers = (0..3).map(|_| {
            let (held, stream) = (Arc::clone(&held), Arc::clone(&stream));
            thread::spawn(move || {
                let appended = stream.append(b",{}", &Cell::new(0), &held, &mut 0);
                matches!(appended, Appended::Accepted)
            })
        });
        let callers: Vec<_> = callers.collect();
        let given_back = stream.retire(None, &held);
        let accepted = callers.into_iter().map(|it| it.join().unwrap());
        let accepted = accepted.filter(|accepted| *accepted).count();
        assert_eq!(accepted, if given_back { 0 } else { 3 });
    };
    check(program);
}

#[test]
fn the_last_handle_may_be_dropped_anywhere() {
    let program = || {
        let world = World::new(small(), |number| match number {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        });
        let callers = (0..2).map(|caller| {
            let stream = world.collector.stream("mystream").unwrap();
            thread::spawn(move || stream.collect(&json!({"caller": caller})).unwrap())
        });
        let callers: Vec<_> = callers.collect();
        let World { collector, shared, stored, senders } = world;
        drop(collector);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let report = shared.report();
        assert_eq!(report.delivered, 2, "{report:?}");
        assert_eq!(stored.lock().unwrap().len(), 2);
        assert_eq!(shared.memory(), 0);
    };
    check(program);
}
