//! What a program sees of a collector at work: the order of its events, its activities, its figures.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::{
    Activity, Collector, Delivery, LossReason, ServerState, Target, TransportError,
};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::gzip::gunzip;
use stride_core::transport::{Body, Call, TransportErrorKind};

/// A server that gives each request what a function makes of its body.
fn server(
    respond: impl Fn(&Value) -> Result<u16, TransportError> + Send + Sync + 'static,
) -> Target {
    let transport = move |call: Call, _: CancelToken| {
        let body = gunzip(call.request.body()).unwrap();
        let status = respond(&serde_json::from_slice(&body).unwrap())?;
        Ok(http::Response::builder().status(status).body(Body::from("")).unwrap())
    };
    Target { api: Api::new("key").unwrap(), transport: Arc::new(transport) }
}

/// Runs an ordered collector against a server with faults; says how often an event was stored behind a
/// later one of the same thread.
fn overtaken(ordered: bool) -> usize {
    const THREADS: u64 = 3;
    const EVENTS: u64 = 400;

    let stored: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let (at_server, requests) = (Arc::clone(&stored), AtomicU64::new(0));
    let target = server(move |body| {
        let events: Vec<(u64, u64)> = body
            .as_array()
            .unwrap()
            .iter()
            .map(|event| (event["thread"].as_u64().unwrap(), event["n"].as_u64().unwrap()))
            .collect();
        let store = || at_server.lock().unwrap().extend(&events);
        match requests.fetch_add(1, Ordering::Relaxed) {
            request if request % 13 == 5 => Ok(503),
            // Stored, and the response is lost.
            request if request % 13 == 8 => {
                store();
                Err(TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent))
            }
            _ if events.len() > 50 => Ok(413),
            _ if events.contains(&(1, 123)) => Ok(400),
            _ => {
                store();
                Ok(200)
            }
        }
    });
    let collector = Collector::builder()
        .ordered(ordered)
        .concurrency(4)
        .batch_size(60)
        .flush_interval(Duration::from_millis(1))
        .start(target)
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let stream = collector.stream("clicks").unwrap();
            scope.spawn(move || {
                for n in 0..EVENTS {
                    stream.collect(&json!({"thread": thread, "n": n})).unwrap();
                }
            });
        }
    });
    let report = collector.stop();
    assert_eq!((report.accepted, report.pending), (THREADS * EVENTS, 0));
    assert_eq!(
        report.lost_by(LossReason::Rejected, Delivery::MaybeSent),
        report.lost(),
        "{report}"
    );
    assert_eq!(report.lost(), 1, "{report}");

    let (mut seen, mut newest) = (HashSet::new(), HashMap::new());
    let mut overtaken = 0;
    for (thread, n) in stored.lock().unwrap().iter().copied() {
        // What is stored twice stands where it was stored first.
        if seen.insert((thread, n)) && newest.insert(thread, n).is_some_and(|before| before > n) {
            overtaken += 1;
        }
    }
    overtaken
}

#[test]
fn an_ordered_stream_arrives_in_order_over_retries_narrowing_and_from_many_threads() {
    assert_eq!(overtaken(true), 0);
    // Without it this server makes some overtake others; or the test would show nothing.
    assert!((0..20).any(|_| overtaken(false) > 0));
}

#[test]
fn an_observer_is_told_what_happens_may_collect_and_may_panic() {
    let requests = AtomicU64::new(0);
    let target = server(move |body| match requests.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(401),
        1 => Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent)),
        _ if body.as_array().unwrap().contains(&json!({"bad": true})) => Ok(422),
        _ => Ok(200),
    });
    let (tell, told) = channel();
    let handle: Arc<OnceLock<Collector>> = Arc::default();
    let (inside, collects) = (Arc::clone(&handle), AtomicBool::new(true));
    let collector = Collector::builder()
        .concurrency(1)
        .batch_size(2)
        .flush_interval(Duration::from_secs(600))
        .observer(move |activity| {
            tell.send(activity.clone()).unwrap();
            if collects.swap(false, Ordering::Relaxed) {
                inside.wait().collect("from_inside", &json!({"x": 1})).unwrap();
                panic!("a panic of the test");
            }
        })
        .start(target)
        .unwrap();
    handle.set(collector.clone()).unwrap();
    collector.collect("clicks", &json!({"bad": true})).unwrap();
    collector.collect("clicks", &json!({"bad": false})).unwrap();
    let next = || told.recv_timeout(Duration::from_secs(20)).unwrap();

    let Activity::Retried { stream, events: 2, status: Some(status), error: None } = next() else {
        panic!()
    };
    assert_eq!((stream.as_deref(), status.as_u16()), (Some("clicks"), 401));
    assert!(matches!(next(), Activity::Server(ServerState::Paused)));
    let Activity::Retried { events: 2, status: None, error: Some(error), .. } = next() else {
        panic!()
    };
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    assert!(matches!(next(), Activity::Server(ServerState::Down)));
    let Activity::Narrowed { events: 2, status, .. } = next() else { panic!() };
    assert_eq!(status.as_u16(), 422);
    assert!(matches!(next(), Activity::Server(ServerState::Healthy)));
    let Activity::Lost { stream, events: 1, reason: LossReason::Rejected, .. } = next() else {
        panic!()
    };
    assert_eq!(&*stream, "clicks");
    assert!(matches!(next(), Activity::Sent { events: 1, .. }));

    let report = collector.flush_within(Duration::from_secs(20));
    assert_eq!((report.accepted, report.delivered, report.lost()), (3, 2, 1));
    let Activity::Sent { stream, events: 1 } = next() else { panic!() };
    assert_eq!(stream.as_deref(), Some("from_inside"), "what the observer collected");
    let stats = collector.stats();
    assert_eq!((stats.requests, stats.retries), (6, 2));
}

#[test]
fn the_figures_tell_what_is_going_on() {
    let (release, released) = channel();
    let released = Mutex::new(released);
    let (arrive, arrived) = channel();
    let target = server(move |_| {
        arrive.send(()).unwrap();
        let _ = released.lock().unwrap().recv();
        Ok(200)
    });
    let collector =
        Collector::builder().flush_interval(Duration::from_millis(1)).start(target).unwrap();
    assert_eq!(collector.stats().oldest, None);
    collector.collect("clicks", &json!({"text": "a".repeat(1000)})).unwrap();
    arrived.recv_timeout(Duration::from_secs(20)).unwrap();
    let stats = collector.stats();
    assert_eq!((stats.requests, stats.in_flight, stats.streams, stats.pending), (1, 1, 1, 1));
    assert!(stats.oldest.is_some() && stats.memory > 0, "{stats:?}");
    assert_eq!(stats.json_bytes, 1012, "with the comma before it");
    assert!((20..200).contains(&stats.sent_bytes), "{stats:?}");
    release.send(()).unwrap();
    let report = collector.flush_within(Duration::from_secs(20));
    let stats = collector.stats();
    assert_eq!(*stats, report);
    assert_eq!((stats.in_flight, stats.streams, stats.oldest, stats.memory), (0, 0, None, 0));
    assert_eq!(stats.to_string(), report.to_string());
}
