//! The collector over real sockets against a Stride that misbehaves. A second tally is kept here, from
//! outside: what `collect` accepted, what the server stored, what was reported lost.

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
use stride_tests::{suite, watchdog};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// A Stride, a collector that sends to it, and what can be counted from outside.
struct Tally {
    local: Local,
    collector: Collector,
    accepted: u64,
    lost: Arc<Mutex<Vec<(u64, Delivery)>>>,
}

impl Tally {
    fn start(setup: impl FnOnce(Builder) -> Builder) -> Self {
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
        let events = self.local.events("mystream").unwrap();
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
                "event {id} is stored, though it was not sent"
            );
        }
        assert!(stored.len() as u64 >= report.delivered);
        (stored, lost)
    }
}

/// What troubles the server meanwhile, and how the collector is set.
#[derive(Default)]
struct Trouble {
    fault: Option<Fault>,
    /// How often; for ever if it is not said.
    times: Option<u32>,
    /// How long, once all events are collected; without end if it is not said.
    lasting: Option<Duration>,
    request_timeout: Option<Duration>,
}

impl Trouble {
    fn of(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }
}

suite! {
    {
        a_healthy_server: Trouble::default(),
        a_server_that_resets_before_reading:
            Trouble { times: Some(5), ..Trouble::of(Fault::ResetBeforeRead) },
        a_server_that_resets_after_storing:
            Trouble { times: Some(5), ..Trouble::of(Fault::ResetAfterStore) },
        a_server_that_responds_503_every_third_time:
            Trouble::of(Fault::Status { every: 3, status: 503, retry_after: None }),
        a_slow_server: Trouble::of(Fault::Delay(Duration::from_millis(50))),
        a_server_that_stalls_for_a_while: Trouble {
            times: Some(4),
            request_timeout: Some(Duration::from_millis(500)),
            ..Trouble::of(Fault::Stall)
        },
        a_server_that_comes_up_3_s_late:
            Trouble { lasting: Some(Duration::from_secs(3)), ..Trouble::of(Fault::Refuse) },
    }
    [
        everything_is_stored_once,
    ]
}

fn everything_is_stored_once(trouble: Trouble) {
    let Trouble { fault, times, lasting, request_timeout } = trouble;
    let mut tally = Tally::start(|builder| match request_timeout {
        Some(limit) => builder.request_timeout(limit),
        None => builder,
    });
    match (fault, times) {
        (None, _) => {}
        (Some(fault), None) => tally.local.fault(fault),
        (Some(fault), Some(times)) => tally.local.fault_times(fault, times),
    }
    tally.collect(100_000);
    if let Some(outage) = lasting {
        // What is tested is an outage of this length, so it has to pass.
        thread::sleep(outage);
        tally.local.clear_faults();
    }
    let report = tally.collector.stop_within(MINUTE);
    let (stored, lost) = tally.close(report);
    assert_eq!((stored.len(), lost.len()), (100_000, 0), "{report}");
}

#[test]
fn a_server_that_stalls_for_ever_loses_everything_by_the_deadline() {
    watchdog(|| {
        let mut tally = Tally::start(|builder| builder.request_timeout(MINUTE));
        tally.local.fault(Fault::Stall);
        tally.collect(100_000);
        let report = tally.collector.stop_within(Duration::from_secs(1));
        let (stored, lost) = tally.close(report);
        assert_eq!((stored.len(), lost.len()), (0, 100_000));
        assert!(lost.iter().any(|(_, delivery)| *delivery == Delivery::NotSent));
    });
}

#[test]
fn a_dead_server_loses_everything_and_nothing_was_sent() {
    watchdog(|| {
        let mut tally = Tally::start(|builder| builder.request_timeout(MINUTE));
        tally.local.fault(Fault::Refuse);
        tally.collect(100_000);
        let report = tally.collector.stop_within(Duration::from_secs(1));
        let (_, lost) = tally.close(report);
        assert_eq!(lost.len(), 100_000);
        assert!(lost.iter().all(|(_, delivery)| *delivery == Delivery::NotSent));
    });
}

#[test]
fn ten_thousand_streams_arrive_in_few_requests() {
    watchdog(|| {
        let tally = Tally::start(|builder| builder);
        for stream in 0..10_000 {
            let event = json!({"x": stream});
            tally.collector.collect(&format!("stream_{stream}"), &event).unwrap();
        }
        let report = tally.collector.stop_within(MINUTE);
        assert_eq!((report.accepted, report.delivered), (10_000, 10_000));
        assert_eq!(tally.local.streams().unwrap().len(), 10_000);
        assert!(tally.local.requests() < 200, "{} requests", tally.local.requests());
    });
}

#[test]
fn pystride_3_a_refused_bundle_does_not_affect_its_streams() {
    watchdog(|| {
        // A second sender could send the first stream before the others are sealed.
        let tally = Tally::start(|builder| builder.concurrency(1));
        // The bundle is refused once, whole; its streams are then sent one by one.
        tally.local.fault_times(Fault::Status { every: 1, status: 400, retry_after: None }, 1);
        for stream in ["a", "b", "c"] {
            tally.collector.collect(stream, &json!({"x": 1})).unwrap();
        }
        let report = tally.collector.stop_within(MINUTE);
        assert_eq!((report.delivered, report.lost()), (3, 0));
        assert_eq!(tally.local.streams().unwrap(), ["a", "b", "c"]);
    });
}
