//! The collector over real sockets against a Stride that misbehaves. The books are kept a second
//! time here, from outside: what `collect` accepted, what the server stored, what was reported lost.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stride_blocking::Stride;
use stride_collector::{Builder, Collector, Report};
use stride_core::Event;
use stride_core::transport::Delivery;
use stride_local::{Fault, Local};
use stride_tests::watchdog;

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// A Stride, a collector that sends to it, and the books kept from outside.
struct Books {
    local: Local,
    collector: Collector,
    accepted: u64,
    lost: Arc<Mutex<Vec<(u64, Delivery)>>>,
}

impl Books {
    fn open(setup: impl FnOnce(Builder) -> Builder) -> Self {
        let local = Local::start().unwrap();
        let stride =
            Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build().unwrap();
        let lost: Arc<Mutex<Vec<(u64, Delivery)>>> = Arc::default();
        let report = Arc::clone(&lost);
        let builder = setup(Collector::builder()).on_lost(move |lost| {
            let events: Vec<Value> = serde_json::from_slice(&lost.events).unwrap();
            assert_eq!(events.len(), lost.count);
            let ids = events.iter().map(|event| event["$id"].as_str().unwrap().parse().unwrap());
            report.lock().unwrap().extend(ids.map(|id: u64| (id, lost.delivery)));
        });
        let collector = builder.start(&stride).unwrap();
        Self { local, collector, accepted: 0, lost }
    }

    fn collect(&mut self, count: u64) {
        for _ in 0..count {
            let event = Event::new(json!({"bojack": "horseman"})).id(self.accepted.to_string());
            self.collector.collect("mystream", &event).unwrap();
            self.accepted += 1;
        }
    }

    fn stored(&self) -> HashSet<u64> {
        let events = self.local.events("mystream");
        let ids: HashSet<u64> =
            events.iter().map(|event| event["$id"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(ids.len(), events.len(), "every id is stored once");
        ids
    }

    /// Compares a last report with what can be seen from outside.
    fn close(self, report: Report) -> (HashSet<u64>, Vec<(u64, Delivery)>) {
        // `stop` keeps its deadline; on a slow machine the last losses are handed over after it.
        while (self.lost.lock().unwrap().len() as u64) < report.lost() {
            thread::yield_now();
        }
        let stored = self.stored();
        let lost = self.lost.lock().unwrap().clone();
        assert_eq!(report.accepted, self.accepted);
        assert_eq!(report.pending, 0);
        assert_eq!(report.accepted, report.delivered + report.lost());
        assert_eq!(lost.len() as u64, report.lost(), "what is lost is handed over");
        let lost_ids: HashSet<u64> = lost.iter().map(|(id, _)| *id).collect();
        assert_eq!(lost_ids.len(), lost.len(), "and once");
        for id in 0..self.accepted {
            assert!(stored.contains(&id) || lost_ids.contains(&id), "event {id} is nowhere");
        }
        for (id, delivery) in &lost {
            assert!(
                *delivery == Delivery::MaybeSent || !stored.contains(id),
                "event {id} is stored, though surely not sent"
            );
        }
        assert!(stored.len() as u64 >= report.delivered);
        (stored, lost)
    }

    /// Waits until everything is settled and expects that everything is stored.
    fn all_stored(self) {
        let accepted = self.accepted;
        let report = self.collector.stop_within(MINUTE);
        let (stored, lost) = self.close(report);
        assert_eq!((stored.len() as u64, lost.len()), (accepted, 0), "{report}");
    }
}

#[test]
fn a_healthy_server_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_server_that_resets_before_reading_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.local.fault_times(Fault::ResetBeforeRead, 5);
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_server_that_resets_after_storing_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.local.fault_times(Fault::ResetAfterStore, 5);
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_server_that_answers_503_every_third_time_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.local.fault(Fault::Status { every: 3, status: 503, retry_after: None });
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_slow_server_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.local.fault(Fault::Delay(Duration::from_millis(50)));
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_server_that_stalls_for_a_while_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder.request_timeout(Duration::from_millis(500)));
        books.local.fault_times(Fault::Stall, 4);
        books.collect(100_000);
        books.all_stored();
    });
}

#[test]
fn a_server_that_comes_up_3_s_late_stores_everything_once() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder);
        books.local.fault(Fault::Refuse);
        books.collect(100_000);
        // What is tested is an outage of this length, so it has to pass.
        thread::sleep(Duration::from_secs(3));
        books.local.clear_faults();
        books.all_stored();
    });
}

#[test]
fn a_server_that_stalls_for_ever_costs_what_it_holds_and_no_more_than_the_deadline() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder.request_timeout(MINUTE));
        books.local.fault(Fault::Stall);
        books.collect(100_000);
        let report = books.collector.stop_within(Duration::from_secs(1));
        let (stored, lost) = books.close(report);
        assert_eq!((stored.len(), lost.len()), (0, 100_000));
        assert!(lost.iter().any(|(_, delivery)| *delivery == Delivery::NotSent));
    });
}

#[test]
fn a_dead_server_costs_everything_and_says_so() {
    watchdog(|| {
        let mut books = Books::open(|builder| builder.request_timeout(MINUTE));
        books.local.fault(Fault::Refuse);
        books.collect(100_000);
        let report = books.collector.stop_within(Duration::from_secs(1));
        let (_, lost) = books.close(report);
        assert_eq!(lost.len(), 100_000);
        assert!(lost.iter().all(|(_, delivery)| *delivery == Delivery::NotSent));
    });
}

#[test]
fn ten_thousand_streams_arrive_in_few_requests() {
    watchdog(|| {
        let books = Books::open(|builder| builder);
        for stream in 0..10_000 {
            let event = json!({"x": stream});
            books.collector.collect(&format!("stream_{stream}"), &event).unwrap();
        }
        let report = books.collector.stop_within(MINUTE);
        assert_eq!((report.accepted, report.delivered), (10_000, 10_000));
        assert_eq!(books.local.streams().len(), 10_000);
        assert!(books.local.requests() < 200, "{} requests", books.local.requests());
    });
}

#[test]
fn pystride_3_one_refused_stream_costs_the_others_nothing() {
    watchdog(|| {
        let books = Books::open(|builder| builder);
        // The bundle is refused once, whole; its streams are then sent one by one.
        books.local.fault_times(Fault::Status { every: 1, status: 400, retry_after: None }, 1);
        for stream in ["a", "b", "c"] {
            books.collector.collect(stream, &json!({"x": 1})).unwrap();
        }
        let report = books.collector.stop_within(MINUTE);
        assert_eq!((report.delivered, report.lost()), (3, 0));
        assert_eq!(books.local.streams(), ["a", "b", "c"]);
    });
}
