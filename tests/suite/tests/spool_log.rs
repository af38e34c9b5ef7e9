//! What a collector with a spool leaves in a log when its folder is removed. Alone in its program: its threads
//! log to the one subscriber that a program has.
#![cfg(unix)] // Elsewhere a folder with open files cannot be removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::spool::Spool;
use stride_collector::{Collector, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, Delivery, TransportError, TransportErrorKind};
use stride_tests::{Log, watchdog};

#[test]
fn the_log_tells_that_events_cannot_be_stored_on_disk() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().json().with_writer(move || writer.clone()).init();
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let transport = move |_: Call, _: CancelToken| {
        if down.load(Ordering::SeqCst) {
            return Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent));
        }
        Ok(http::Response::new(Body::default()))
    };
    let target =
        Target { api: Api::new("k3y_that_is_secret").unwrap(), transport: Arc::new(transport) };
    let report = watchdog(move || {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::write_ahead(dir.path());
        let collector = Collector::builder().spool(spool).start(target).unwrap();
        std::fs::remove_dir_all(dir.path()).unwrap();
        collector.collect("clicks", &json!({"bojack": "horseman"})).unwrap();
        let _ = collector.flush_within(Duration::ZERO);
        while !collector.stats().spool.failing {
            thread::yield_now();
        }
        is_down.store(false, Ordering::SeqCst);
        collector.stop()
    });
    assert_eq!((report.delivered, report.lost(), report.pending), (1, 0, 0), "{report}");

    let log = log.text();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |message: &str| {
        let mut found = lines.iter().filter(|line| line["fields"]["message"] == message);
        found.next().map(|line| (line["level"].clone(), line["target"].clone()))
    };
    for message in
        ["the spool's disk failed", "events cannot be stored on disk; they are kept in memory"]
    {
        let expected = (json!("WARN"), json!("stride::collector"));
        assert_eq!(told(message), Some(expected), "{message} in\n{log}");
    }
    assert!(!log.contains("horseman") && !log.contains("k3y_that_is_secret"), "{log}");
}
