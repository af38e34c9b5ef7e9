//! What a collector with a spool promises: over a transport that stores what it is sent, and fails when it
//! is told to.

mod found;
mod taken_away;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::spool::{Spool, WhenFull};
use stride_collector::{Activity, Builder, Collector, Delivery, LossReason, Report, Target};
use stride_core::cancel::CancelToken;
use stride_core::gzip::gunzip;
use stride_core::transport::{Body, Call, TransportError, TransportErrorKind};
use stride_core::{Api, http};

/// A server that stores each `$id` once.
#[derive(Clone, Default)]
struct Server {
    down: Arc<AtomicBool>,
    /// How often each event was stored, by its number.
    stored: Arc<Mutex<BTreeMap<u64, Vec<String>>>>,
}

impl Server {
    fn target(&self) -> Target {
        let server = self.clone();
        let transport = move |call: Call, _: CancelToken| server.take(&call);
        Target { api: Api::new("secret").unwrap(), transport: Arc::new(transport) }
    }

    fn take(&self, call: &Call) -> Result<http::Response<Body>, TransportError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent));
        }
        let text = gunzip(call.request.body()).unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let arrays = match &json {
            Value::Object(streams) => streams.values().collect(),
            array => vec![array],
        };
        let mut stored = self.stored.lock().unwrap();
        for event in arrays.into_iter().flat_map(|array| array.as_array().unwrap()) {
            let id = event["$id"].as_str().unwrap_or_default().to_owned();
            stored.entry(event["n"].as_u64().unwrap()).or_default().push(id);
        }
        Ok(http::Response::new(Body::default()))
    }

    fn numbers(&self) -> Vec<u64> {
        self.stored.lock().unwrap().keys().copied().collect()
    }
}

fn spool(dir: &Path, is_write_ahead: bool) -> Spool {
    if is_write_ahead { Spool::write_ahead(dir) } else { Spool::overflow(dir) }
}

fn builder(spool: Spool) -> Builder {
    Collector::builder().spool(spool).flush_interval(Duration::from_millis(5))
}

/// Starts a collector; what is sent on the channel is a report after each delivery.
fn start(builder: Builder, server: &Server) -> (Collector, mpsc::Receiver<Activity>) {
    let (sender, receiver) = mpsc::channel();
    let builder = builder.observer(move |activity| drop(sender.send(activity.clone())));
    (builder.start(server.target()).unwrap(), receiver)
}

fn wait_for(
    collector: &Collector,
    activities: &mpsc::Receiver<Activity>,
    is_so: impl Fn(&Report) -> bool,
) {
    while !is_so(&collector.stats()) {
        let limit = Duration::from_secs(30);
        activities.recv_timeout(limit).unwrap_or_else(|_| panic!("{}", collector.stats()));
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for slot in std::fs::read_dir(dir).unwrap().flatten() {
        for file in std::fs::read_dir(slot.path()).unwrap().flatten() {
            files.push(file.file_name().into_string().unwrap());
        }
    }
    files.retain(|file| file != "lock");
    files
}

/// Text of which compression takes a half, in pieces of 16 digits.
fn noise(seed: u64) -> impl FnMut(usize) -> String {
    let mut state = seed;
    move |pieces| {
        let mut text = String::new();
        for _ in 0..pieces {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("{:016x}", state ^ state >> 29));
        }
        text
    }
}

#[test]
fn what_a_stop_leaves_on_disk_is_sent_by_the_next_collector() {
    for is_write_ahead in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::default();
        server.down.store(true, Ordering::SeqCst);
        let (collector, _activities) = start(builder(spool(dir.path(), is_write_ahead)), &server);
        for n in 0..3000 {
            collector.collect(&format!("s{}", n % 7), &json!({"n": n})).unwrap();
        }
        let report = collector.stop_within(Duration::from_millis(50));
        assert_eq!((report.accepted, report.lost(), report.pending), (3000, 0, 3000), "{report}");
        assert_eq!(report.spooled, 3000, "{report}");

        server.down.store(false, Ordering::SeqCst);
        let (collector, activities) = start(builder(spool(dir.path(), is_write_ahead)), &server);
        wait_for(&collector, &activities, |report| report.delivered == 3000);
        let report = collector.stop();
        assert_eq!((report.recovered, report.accepted, report.pending), (3000, 0, 0), "{report}");
        assert_eq!(server.numbers(), (0..3000).collect::<Vec<_>>());
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    }
}

#[test]
fn in_good_times_overflow_touches_no_file_and_write_ahead_leaves_none() {
    for is_write_ahead in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::default();
        let (collector, _activities) = start(builder(spool(dir.path(), is_write_ahead)), &server);
        for n in 0..1000 {
            collector.collect("clicks", &json!({"n": n})).unwrap();
        }
        let report = collector.flush();
        assert_eq!((report.delivered, report.spooled), (1000, 0), "{report}");
        assert_eq!(!files(dir.path()).is_empty(), is_write_ahead);
        let report = collector.stop();
        assert_eq!((report.delivered, report.pending, report.lost()), (1000, 0, 0), "{report}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn overflow_takes_many_times_the_memory_and_gives_it_all_back() {
    for is_write_ahead in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::default();
        server.down.store(true, Ordering::SeqCst);
        let builder =
            builder(spool(dir.path(), is_write_ahead)).memory_budget(1 << 20).max_event(1 << 10);
        let (collector, activities) = start(builder, &server);
        let mut noise = noise(1);
        for n in 0..40_000_u64 {
            let event = json!({"n": n, "noise": noise(20)});
            let result = collector.collect_timeout("clicks", &event, Duration::from_secs(5));
            assert!(result.is_ok(), "{n} {is_write_ahead} {:?}", collector.stats());
            assert!(collector.memory() <= 1 << 21);
        }
        let report: Report = *collector.stats();
        assert_eq!((report.lost(), report.pending), (0, 40_000), "{report}");
        assert!(report.spooled > 20_000, "{report}");
        server.down.store(false, Ordering::SeqCst);
        wait_for(&collector, &activities, |report| report.delivered == 40_000);
        assert_eq!(server.numbers().len(), 40_000);
        let report = collector.stop();
        assert_eq!((report.pending, report.spooled, report.lost()), (0, 0, 0), "{report}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
#[ignore = "fills a spool of 64 MiB: it takes long unless it is optimised"]
fn a_full_spool_drops_its_oldest_events_and_reports_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    server.down.store(true, Ordering::SeqCst);
    let lost: Arc<Mutex<Vec<u64>>> = Arc::default();
    let losses = Arc::clone(&lost);
    let builder = builder(Spool::overflow(dir.path()).max_bytes(64 << 20))
        .memory_budget(4 << 20)
        .on_lost(move |batch| {
            assert_eq!(batch.reason, LossReason::SpoolFull);
            let events: Vec<Value> = serde_json::from_slice(&batch.events).unwrap();
            losses.lock().unwrap().extend(events.iter().map(|event| event["n"].as_u64().unwrap()));
        });
    let (collector, activities) = start(builder, &server);
    let mut noise = noise(1);
    let count = 40_000;
    for n in 0..count {
        let event = json!({"n": n, "noise": noise(256)});
        collector.collect_timeout("clicks", &event, Duration::from_secs(60)).unwrap();
    }
    server.down.store(false, Ordering::SeqCst);
    wait_for(&collector, &activities, |report| report.pending == 0);
    let report = collector.stop();
    let lost = lost.lock().unwrap();
    assert!(!lost.is_empty() && lost.len() as u64 == report.lost(), "{report}");
    assert_eq!(report.delivered + report.lost(), count, "{report}");
    let mut all = server.numbers();
    all.extend(lost.iter());
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>());
}

#[test]
#[ignore = "fills a spool of 64 MiB: it takes long unless it is optimised"]
fn a_spool_that_refuses_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    server.down.store(true, Ordering::SeqCst);
    let spool = Spool::overflow(dir.path()).max_bytes(64 << 20).when_full(WhenFull::Refuse);
    let (collector, activities) = start(builder(spool).memory_budget(4 << 20), &server);
    let mut accepted = 0_u64;
    let mut noise = noise(7);
    loop {
        let event = json!({"n": accepted, "noise": noise(256)});
        if collector.collect_timeout("clicks", &event, Duration::from_millis(500)).is_err() {
            break;
        }
        accepted += 1;
    }
    assert!(accepted > 16_000, "{accepted}");
    server.down.store(false, Ordering::SeqCst);
    wait_for(&collector, &activities, |report| report.delivered == accepted);
    let report = collector.stop();
    assert_eq!((report.pending, report.lost()), (0, 0), "{report}");
}

#[test]
fn a_spool_that_cannot_be_used_is_an_error_of_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    let start = |spool: Spool, ordered: bool| {
        let builder = builder(spool).ordered(ordered);
        builder.start(server.target()).err().map(|error| error.to_string())
    };
    let spool = || Spool::overflow(dir.path());
    for (spool, ordered, part) in [
        (spool().max_bytes((64 << 20) - 1), false, "64 MiB"),
        (spool().max_age(Duration::from_secs(59)), false, "a minute"),
        (spool(), true, "ordered"),
    ] {
        let error = start(spool, ordered).expect("an error");
        assert!(error.contains("spool") && error.contains(part), "{error}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = start(Spool::overflow(&file), false).expect("an error");
    assert_eq!(error, "the folder of the spool cannot be used");
    assert_eq!(start(spool().max_bytes(64 << 20), false), None);
}
