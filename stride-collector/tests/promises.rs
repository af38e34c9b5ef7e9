//! What a collector promises, seen from outside, against transports that are closures.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stride_collector::{
    Builder, CollectError, Collector, ConfigError, Delivery, LossReason, StartError, Target,
};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::gzip::gunzip;
use stride_core::transport::{Body, Call, TransportError, TransportErrorKind};

/// Far longer than anything here takes, far shorter than any limit that would mask a hang.
const LONG: Duration = Duration::from_secs(20);

/// Runs a test that must not hang.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LONG) {
        panic!("the test hangs");
    }
    thread.join().unwrap();
}

/// A request as a server reads it.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// Its events, with their streams.
    fn events(&self) -> Vec<(String, Value)> {
        let json: Value = serde_json::from_slice(&self.body).unwrap();
        let of = |stream: &str, events: &Value| {
            let events = events.as_array().unwrap().clone();
            events.into_iter().map(|event| (stream.to_owned(), event)).collect::<Vec<_>>()
        };
        match self.path.strip_prefix("/v1/collect/") {
            Some(stream) => of(stream, &json),
            None => {
                let streams = json.as_object().unwrap();
                streams.iter().flat_map(|(stream, events)| of(stream, events)).collect()
            }
        }
    }
}

type Answer = Result<u16, TransportError>;

/// What arrived at a server, which answers as a closure says.
#[derive(Default)]
struct Server {
    requests: Mutex<Vec<Request>>,
    arrived: Condvar,
}

impl Server {
    /// A server, and the way to it. The closure is told how many requests came before.
    fn new(
        answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, Target) {
        let server = Arc::new(Self::default());
        let at_server = Arc::clone(&server);
        let transport = move |call: Call, _: CancelToken| {
            let body = gunzip(call.request.body()).unwrap();
            let request = Request { path: call.request.uri().path().to_owned(), body };
            let before = {
                let mut requests = at_server.requests.lock().unwrap();
                requests.push(request.clone());
                at_server.arrived.notify_all();
                requests.len() - 1
            };
            let status = answer(before, &request)?;
            let response = http::Response::builder().status(status);
            Ok(response.body(Body::from("{}")).unwrap())
        };
        (server, Target { api: Api::new("key").unwrap(), transport: Arc::new(transport) })
    }

    fn working() -> (Arc<Self>, Target) {
        Self::new(|_, _| Ok(200))
    }

    /// Waits until so many requests arrived.
    fn wait_for(&self, requests: usize) {
        let seen = self.requests.lock().unwrap();
        drop(self.arrived.wait_while(seen, |seen| seen.len() < requests).unwrap());
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<(String, Value)> {
        self.requests().iter().flat_map(Request::events).collect()
    }
}

/// A server that answers nothing until the other end is dropped or sends.
fn stalled() -> (Sender<()>, Arc<Server>, Target) {
    let (release, released) = channel();
    let released = Mutex::new(released);
    let (server, connection) = Server::new(move |_, _| {
        let _ = released.lock().unwrap().recv();
        Ok(200)
    });
    (release, server, connection)
}

fn refused() -> TransportError {
    TransportError::new(TransportErrorKind::Connect, Delivery::NotSent)
}

/// Batches that go out only when they are full or flushed.
fn patient() -> Builder {
    Collector::builder().flush_interval(Duration::from_secs(600))
}

#[derive(Debug, Clone, PartialEq)]
struct Loss {
    stream: String,
    events: Vec<Value>,
    reason: LossReason,
    delivery: Delivery,
}

/// Sends each loss to a channel.
fn losses(builder: Builder) -> (Builder, Receiver<Loss>) {
    let (sender, receiver) = channel();
    let builder = builder.on_lost(move |lost| {
        let events: Vec<Value> = serde_json::from_slice(&lost.events).unwrap();
        assert_eq!(events.len(), lost.count);
        let stream = lost.stream.to_string();
        let _ = sender.send(Loss { stream, events, reason: lost.reason, delivery: lost.delivery });
    });
    (builder, receiver)
}

#[test]
fn pystride_2_a_batch_that_fails_for_now_is_retried_and_a_flush_waits_for_it() {
    watched(|| {
        let (server, connection) = Server::new(|before, _| match before {
            0 => Ok(503),
            1 => Err(TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent)),
            2 => Err(refused()),
            _ => Ok(200),
        });
        let collector = Collector::builder().concurrency(1).start(connection).unwrap();
        collector.collect("a", &json!({"n": 1})).unwrap();
        let report = collector.flush();
        assert_eq!((report.delivered, report.lost(), report.pending), (1, 0, 0));
        let requests = server.requests();
        assert_eq!(requests.len(), 4);
        assert!(requests.iter().all(|request| request.body == b"[{\"n\":1}]"));
    });
}

#[test]
fn pystride_3_a_stream_that_is_refused_takes_no_other_down() {
    watched(|| {
        let (server, connection) = Server::new(|_, request| {
            Ok(if request.events().iter().any(|(stream, _)| stream == "bad") { 400 } else { 200 })
        });
        let (builder, losses) = losses(patient());
        // A second sender could send the first stream before the others are sealed.
        let collector = builder.concurrency(1).start(connection).unwrap();
        for stream in ["good", "bad", "fine"] {
            collector.collect(stream, &json!({"stream": stream})).unwrap();
        }
        let report = collector.flush();
        assert_eq!((report.delivered, report.lost(), report.pending), (2, 1, 0));
        assert_eq!(server.requests()[0].path, "/v1/collect");
        let loss = losses.try_recv().expect("a flush waits until losses are handed over");
        assert_eq!(loss.stream, "bad");
        assert_eq!(loss.events, [json!({"stream": "bad"})]);
        assert_eq!((loss.reason, loss.delivery), (LossReason::Rejected, Delivery::MaybeSent));
        assert!(losses.try_recv().is_err());
    });
}

/// Fails, panics, or collects in the middle of being serialised.
enum Odd<'a> {
    Fails,
    Panics,
    Collects(&'a Collector),
}

impl Serialize for Odd<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("begun", &true)?;
        match self {
            Self::Fails => return Err(S::Error::custom("no")),
            Self::Panics => panic!("in the middle of an event"),
            Self::Collects(collector) => {
                collector.collect("inner", &json!({"inner": 1})).unwrap();
                collector.collect("outer", &json!({"inner": 2})).unwrap();
            }
        }
        map.end()
    }
}

#[test]
fn pystride_4_what_cannot_be_collected_is_an_error_of_its_call_and_of_nothing_else() {
    watched(|| {
        let (server, connection) = Server::working();
        let collector = patient().max_event(100).start(connection).unwrap();
        let collect = |event: &Value| collector.collect("outer", event);
        collect(&json!({"n": 1})).unwrap();
        assert!(matches!(collect(&json!(7)), Err(CollectError::NotAnObject)));
        assert!(matches!(collect(&json!([{}])), Err(CollectError::NotAnObject)));
        let long = json!({"text": "x".repeat(1000)});
        assert!(matches!(collect(&long), Err(CollectError::TooLarge { limit: 100 })));
        for name in ["", "9a", "a-b", "a/b", "ä", "a b"] {
            let error = collector.collect(name, &json!({})).unwrap_err();
            assert!(matches!(&error, CollectError::Name { name: it } if it == name), "{error}");
            assert!(collector.stream(name).is_err());
        }
        let fails = collector.collect("outer", &Odd::Fails);
        assert!(matches!(fails, Err(CollectError::Json(_))));
        let panics = std::panic::AssertUnwindSafe(|| collector.collect("outer", &Odd::Panics));
        assert!(std::panic::catch_unwind(panics).is_err());
        collector.collect("outer", &Odd::Collects(&collector)).unwrap();
        collect(&json!({"n": 2})).unwrap();
        let report = collector.stop();
        assert_eq!((report.accepted, report.delivered), (5, 5));
        let events = [("inner", json!({"inner": 1})), ("outer", json!({"n": 1}))]
            .into_iter()
            .chain([("outer", json!({"inner": 2})), ("outer", json!({"begun": true}))])
            .chain([("outer", json!({"n": 2}))])
            .map(|(stream, event)| (stream.to_owned(), event));
        let mut stored = server.events();
        stored.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(stored, events.collect::<Vec<_>>());
    });
}

#[test]
fn pystride_5_collect_does_not_block_when_full_and_a_long_list_is_bounded_like_single_events() {
    watched(|| {
        let (release, _, connection) = stalled();
        let collector = Collector::builder()
            .memory_budget(1 << 20)
            .max_event(1 << 10)
            .batch_bytes(64 << 10)
            .start(connection)
            .unwrap();
        let events = (0..u64::MAX).map(|n| json!({"n": n, "text": "x".repeat(100)}));
        let error = collector.collect_all("a", events).unwrap_err();
        assert!(matches!(error.error, CollectError::Full), "{error:?}");
        let report = collector.stats();
        assert_eq!(report.accepted, error.accepted as u64);
        assert_eq!(report.pending, error.accepted as u64);
        // What is held is text of more than 100 bytes an event, but for what is in flight.
        assert!(error.accepted > 5_000 && error.accepted < 20_000, "{}", error.accepted);
        let full = collector.collect("b", &json!({"text": "x".repeat(1000)}));
        assert!(matches!(full, Err(CollectError::Full)));
        drop(release);
        let report = collector.stop();
        assert_eq!((report.delivered, report.lost()), (report.accepted, 0));
    });
}

#[test]
fn pystride_6_a_collect_that_races_with_stop_is_accounted_for_or_refused() {
    watched(|| {
        for _ in 0..50 {
            let (server, connection) = Server::working();
            let collector = Collector::builder().batch_size(7).start(connection).unwrap();
            let barrier = Arc::new(Barrier::new(5));
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (collector, barrier) = (collector.clone(), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        barrier.wait();
                        let mut accepted = 0;
                        // Some streams are new when the stop comes.
                        for n in 0_u64.. {
                            let stream = format!("s{}", n / 20 % 5 + thread);
                            match collector.collect(&stream, &json!({"t": thread, "n": n})) {
                                Ok(()) => accepted += 1,
                                Err(CollectError::Stopped) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        accepted
                    })
                })
                .collect();
            barrier.wait();
            server.wait_for(3);
            let report = collector.stop();
            let accepted: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(*collector.stats(), report, "nothing was accepted after the stop");
            assert_eq!((report.accepted, report.delivered), (accepted, accepted));
            let stored = server.events().into_iter();
            let distinct: HashSet<_> = stored.map(|(_, event)| event.to_string()).collect();
            assert_eq!(distinct.len() as u64, accepted);
        }
    });
}

#[test]
fn pystride_9_a_later_change_of_an_event_changes_nothing() {
    watched(|| {
        let (server, connection) = Server::working();
        let collector = patient().start(connection).unwrap();
        let mut event = json!({"n": 1});
        collector.collect("a", &event).unwrap();
        event["n"] = json!(2);
        drop(event);
        let _ = collector.stop();
        assert_eq!(server.events(), [("a".to_owned(), json!({"n": 1}))]);
    });
}

#[test]
fn gostride_10_failures_are_reported_and_a_slow_server_blocks_nobody() {
    watched(|| {
        let (release, server, connection) = stalled();
        let (builder, losses) = losses(patient().request_timeout(Duration::from_secs(60)));
        let collector = builder.start(connection).unwrap();
        collector.collect("a", &json!({"n": 1})).unwrap();
        let report = collector.flush_within(Duration::ZERO);
        assert_eq!((report.accepted, report.pending), (1, 1));
        server.wait_for(1);
        for n in 2..=2500 {
            collector.collect("a", &json!({"n": n})).unwrap();
        }
        let during = collector.clone();
        let stopping = std::thread::spawn(move || {
            while !matches!(during.collect("a", &json!({"late": 1})), Err(CollectError::Stopped)) {
                std::thread::yield_now();
            }
        });
        // Far below the request's minute.
        let report = collector.stop_within(Duration::from_millis(200));
        stopping.join().unwrap();
        assert_eq!((report.delivered, report.pending), (0, 0));
        assert_eq!(report.lost(), report.accepted);
        assert!(report.lost_by(LossReason::Stopped, Delivery::MaybeSent) >= 1001);
        assert!(report.lost_by(LossReason::Stopped, Delivery::NotSent) > 0);
        let lost: Vec<Value> = losses.try_iter().flat_map(|loss| loss.events).collect();
        assert_eq!(lost.len() as u64, report.accepted);
        // Late answers change nothing.
        drop(release);
        drop(losses);
        assert_eq!(*collector.stats(), report);
    });
}

#[test]
fn a_trickle_is_sent_within_the_interval_though_it_never_pauses() {
    watched(|| {
        let (server, connection) = Server::working();
        let interval = Duration::from_millis(30);
        let collector = Collector::builder().flush_interval(interval).start(connection).unwrap();
        let arrived = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                server.wait_for(2);
                arrived.store(true, Ordering::SeqCst);
            });
            while !arrived.load(Ordering::SeqCst) {
                collector.collect_timeout("a", &json!({}), LONG).unwrap();
                std::thread::yield_now();
            }
        });
    });
}

#[test]
fn a_flush_waits_for_what_is_in_flight_but_not_for_later_events() {
    watched(|| {
        let (release, server, connection) = stalled();
        let collector = patient().batch_size(1).concurrency(1).start(connection).unwrap();
        collector.collect("a", &json!({"n": 1})).unwrap();
        server.wait_for(1);
        let report = collector.flush_within(Duration::from_millis(1));
        assert_eq!(report.pending, 1, "it returns by its deadline");
        let flushing = {
            let collector = collector.clone();
            std::thread::spawn(move || collector.flush())
        };
        release.send(()).unwrap();
        assert_eq!(flushing.join().unwrap().delivered, 1);
        collector.collect("a", &json!({"n": 2})).unwrap();
        drop(release);
    });
}

#[test]
fn many_threads_flush_and_stop_at_once() {
    watched(|| {
        let (server, connection) = Server::new(|before, _| Ok([200, 503, 200][before % 3]));
        let collector = Collector::builder().batch_size(10).start(connection).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let collector = &collector;
                scope.spawn(move || {
                    for n in 0..20 {
                        collector.collect("a", &json!({"t": thread, "n": n})).unwrap();
                    }
                    let report = collector.flush();
                    assert!(report.delivered >= 20);
                });
            }
        });
        let stops: Vec<_> = (0..4)
            .map(|_| {
                let collector = collector.clone();
                std::thread::spawn(move || collector.stop())
            })
            .collect();
        for stop in stops {
            let report = stop.join().unwrap();
            assert_eq!((report.accepted, report.delivered), (160, 160));
        }
        assert!(server.requests().len() >= 16);
    });
}

#[test]
fn the_totals_balance_at_every_moment() {
    watched(|| {
        let answers = [Ok(200), Ok(503), Err(refused()), Ok(200), Ok(413), Ok(200)];
        let (_, connection) = Server::new(move |before, _| answers[before % 6].clone());
        let counted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&counted);
        let collector = Collector::builder()
            .batch_size(5)
            .memory_budget(64 << 10)
            .max_event(100)
            .on_lost(move |lost| {
                count.fetch_add(lost.count as u64, Ordering::SeqCst);
            })
            .start(connection)
            .unwrap();
        let done = AtomicBool::new(false);
        let accepted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut before = collector.stats();
                while !done.load(Ordering::SeqCst) {
                    let now = collector.stats();
                    assert_eq!(now.accepted, now.delivered + now.lost() + now.pending);
                    assert!(now.accepted >= before.accepted && now.delivered >= before.delivered);
                    before = now;
                }
            });
            scope.spawn(|| {
                std::thread::scope(|scope| {
                    for thread in 0..4 {
                        let (collector, accepted) = (&collector, &accepted);
                        scope.spawn(move || {
                            for n in 0..60 {
                                let stream = ["a", "b"][(thread + n) % 2];
                                let event = json!({"n": n});
                                collector.collect_timeout(stream, &event, LONG).unwrap();
                                accepted.fetch_add(1, Ordering::SeqCst);
                            }
                        });
                    }
                });
                done.store(true, Ordering::SeqCst);
            });
        });
        let report = collector.stop();
        assert_eq!(report.accepted, accepted.into_inner());
        assert_eq!(report.pending, 0);
        assert!(report.lost() > 0 && report.delivered > 0);
        assert_eq!(report.lost(), counted.load(Ordering::SeqCst));
        assert_eq!(collector.memory(), 0);
    });
}

#[test]
fn on_lost_may_panic_collect_and_flush() {
    watched(|| {
        let (server, connection) = Server::new(|_, request| {
            Ok(if request.path.ends_with("/dead_letters") { 200 } else { 422 })
        });
        let own = Arc::new(Mutex::new(None::<Collector>));
        let inside = Arc::clone(&own);
        let collector = patient()
            .batch_size(2)
            .on_lost(move |lost| {
                let collector = inside.lock().unwrap().clone().unwrap();
                let events = std::str::from_utf8(&lost.events).unwrap();
                for event in serde_json::from_str::<Vec<Box<RawValue>>>(events).unwrap() {
                    collector.collect_json("dead_letters", &event).unwrap();
                }
                let _ = collector.flush_within(Duration::from_millis(1));
                panic!("in the user's code");
            })
            .start(connection)
            .unwrap();
        *own.lock().unwrap() = Some(collector.clone());
        for n in 0..10 {
            collector.collect("a", &json!({"n": n})).unwrap();
        }
        let report = collector.flush();
        assert_eq!(report.lost(), 10);
        let _ = collector.flush();
        let report = collector.stop();
        assert_eq!((report.accepted, report.delivered, report.lost()), (20, 10, 10));
        // Ten batches of two, and more where a flush came between the two.
        assert!(server.requests().len() >= 10);
        own.lock().unwrap().take();
    });
}

#[test]
fn a_transport_that_panics_loses_nothing() {
    watched(|| {
        let (_, connection) = Server::new(|before, _| {
            assert!(before >= 2, "a bug in the transport");
            Ok(200)
        });
        let collector = Collector::start(connection).unwrap();
        collector.collect("a", &json!({})).unwrap();
        assert_eq!(collector.flush().delivered, 1);
    });
}

#[test]
fn stamped_events_keep_their_id_and_time_however_often_they_are_sent() {
    watched(|| {
        let (server, connection) = Server::new(|before, _| Ok([503, 503, 200][before.min(2)]));
        let collector = patient().concurrency(1).stamp(true).start(connection).unwrap();
        for n in 0..100 {
            collector.collect("a", &json!({"n": n})).unwrap();
        }
        let own = json!({"$id": "mine", "$timestamp": "2015-05-05T23:40:27Z"});
        collector.collect("a", &own).unwrap();
        let _ = collector.stop();
        let requests = server.requests();
        assert!(requests.iter().all(|request| request.body == requests[0].body));
        let events = requests[0].events();
        assert_eq!(events[100].1, own);
        let ids: HashSet<_> = events.iter().map(|(_, event)| event["$id"].to_string()).collect();
        assert_eq!(ids.len(), 101);
    });
}

#[test]
fn collect_timeout_waits_for_room() {
    watched(|| {
        let (release, server, connection) = stalled();
        let collector = Collector::builder()
            .memory_budget(8 << 10)
            .max_event(2 << 10)
            .batch_size(1)
            .concurrency(1)
            .start(connection)
            .unwrap();
        // Text that does not become shorter by compression keeps its room.
        let text: String =
            (0_u32..500).map(|n| char::from(b'a' + (n * n * 7919 % 83 % 26) as u8)).collect();
        let event = json!({"text": text});
        while collector.collect("a", &event).is_ok() {}
        server.wait_for(1);
        while collector.collect("a", &event).is_ok() {}
        let soon = Duration::from_millis(1);
        let full = collector.collect_timeout("a", &event, soon);
        assert!(matches!(full, Err(CollectError::Full)));
        let waiting = {
            let (collector, event) = (collector.clone(), event.clone());
            std::thread::spawn(move || collector.collect_timeout("a", &event, LONG))
        };
        release.send(()).unwrap();
        waiting.join().unwrap().unwrap();
        let waiting = {
            let collector = collector.clone();
            std::thread::spawn(move || {
                loop {
                    match collector.collect_timeout("a", &event, LONG) {
                        Ok(()) => {}
                        Err(error) => return error,
                    }
                }
            })
        };
        drop(release);
        let _ = collector.stop();
        assert!(matches!(waiting.join().unwrap(), CollectError::Stopped));
    });
}

/// Tells when the transport is dropped: then every sender has ended.
struct Ends(Sender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn dropping_the_last_handle_stops_and_the_senders_end() {
    watched(|| {
        let (sender, ended) = channel();
        let ends = Ends(sender);
        let (server, connection) = Server::new(move |_, _| {
            let _ = &ends;
            Ok(200)
        });
        let collector = patient().start(connection).unwrap();
        let stream = collector.clone().stream("a").unwrap();
        drop(collector);
        stream.clone().collect(&json!({"n": 1})).unwrap();
        drop(stream);
        assert_eq!(server.events().len(), 1);
        ended.recv_timeout(LONG).unwrap();
    });
}

#[test]
fn dropping_the_last_handle_does_not_wait_for_a_server_that_stalls() {
    watched(|| {
        let (release, server, connection) = stalled();
        let (builder, losses) = losses(patient().request_timeout(Duration::from_secs(60)));
        let collector = builder.start(connection).unwrap();
        collector.collect("a", &json!({"n": 1})).unwrap();
        let _ = collector.flush_within(Duration::ZERO);
        server.wait_for(1);
        let began = Instant::now();
        drop(collector);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(losses.try_recv().unwrap().delivery, Delivery::MaybeSent);
        drop(release);
    });
}

#[test]
fn ten_thousand_streams_are_bundled() {
    watched(|| {
        let (server, connection) = Server::working();
        let collector = patient().concurrency(1).start(connection).unwrap();
        for round in 0..2 {
            for stream in 0..10_000 {
                collector.collect(&format!("s{stream}"), &json!({"n": round})).unwrap();
            }
            let report = collector.flush();
            assert_eq!(report.delivered, report.accepted);
            assert_eq!(collector.memory(), 0, "an idle stream's memory is given back");
        }
        let requests = server.requests();
        assert_eq!(requests.len(), 20);
        assert!(requests.iter().all(|request| request.path == "/v1/collect"));
        assert_eq!(server.events().len(), 20_000);
    });
}

#[test]
fn two_collectors_do_not_mix_their_streams() {
    watched(|| {
        let (first, connection) = Server::working();
        let one = patient().start(connection).unwrap();
        let (second, connection) = Server::working();
        let other = patient().start(connection).unwrap();
        for _ in 0..10 {
            one.collect("a", &json!({"n": 1})).unwrap();
            other.collect("a", &json!({"n": 2})).unwrap();
        }
        let _ = (one.stop(), other.stop());
        for (server, n) in [(first, 1), (second, 2)] {
            assert_eq!(server.events(), vec![("a".to_owned(), json!({"n": n})); 10]);
        }
    });
}

#[test]
fn json_is_sent_as_it_stands_and_an_event_may_be_longer_than_a_batch() {
    watched(|| {
        let (server, connection) = Server::working();
        let collector = patient().batch_bytes(1 << 10).start(connection).unwrap();
        let stream = collector.stream("a").unwrap();
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        stream.collect_json(&raw("{ \"a\" : 1.50,\r\n \"b\":\"\\u0041\" }")).unwrap();
        assert!(matches!(stream.collect_json(&raw("[]")), Err(CollectError::NotAnObject)));
        stream.collect_all([json!({"n": 1}), json!({"text": "x".repeat(5000)})]).unwrap();
        stream.collect_timeout(&json!({"n": 2}), LONG).unwrap();
        let _ = collector.stop();
        let mut requests = server.requests();
        requests.sort_by_key(|request| request.body.len());
        assert_eq!(requests[0].body, b"[{\"n\":2}]");
        let first = b"[{ \"a\" : 1.50,\r\n \"b\":\"\\u0041\" },{\"n\":1}]";
        assert_eq!(requests[1].body, first);
        assert_eq!(requests[2].events().len(), 1);
    });
}

#[test]
fn collecting_works_while_its_thread_ends() {
    struct AtEnd(Mutex<Option<Collector>>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            if let Some(collector) = self.0.lock().unwrap().take() {
                collector.collect("a", &json!({"last": true})).unwrap();
            }
        }
    }
    thread_local! {
        static AT_END: AtEnd = const { AtEnd(Mutex::new(None)) };
    }
    watched(|| {
        let (server, connection) = Server::working();
        let collector = patient().start(connection).unwrap();
        for first in [true, false] {
            let collector = collector.clone();
            let thread = std::thread::spawn(move || {
                // Whichever thread-local is made first ends first.
                if first {
                    collector.collect("a", &json!({})).unwrap();
                }
                AT_END.with(|at_end| *at_end.0.lock().unwrap() = Some(collector.clone()));
                collector.collect("a", &json!({})).unwrap();
            });
            thread.join().unwrap();
        }
        let _ = collector.stop();
        assert_eq!(server.events().len(), 5);
    });
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let hour = Duration::from_secs(3600);
    let builders: [(&str, Builder); 15] = [
        ("flush_interval", Collector::builder().flush_interval(Duration::ZERO)),
        ("flush_interval", Collector::builder().flush_interval(hour * 2)),
        ("batch_size", Collector::builder().batch_size(0)),
        ("batch_size", Collector::builder().batch_size(usize::MAX)),
        ("batch_bytes", Collector::builder().batch_bytes(0)),
        ("batch_bytes", Collector::builder().batch_bytes(usize::MAX)),
        ("concurrency", Collector::builder().concurrency(0)),
        ("concurrency", Collector::builder().concurrency(100_000)),
        ("request_timeout", Collector::builder().request_timeout(Duration::ZERO)),
        ("request_timeout", Collector::builder().request_timeout(Duration::MAX)),
        ("max_event", Collector::builder().max_event(0)),
        ("max_event", Collector::builder().max_event(usize::MAX)),
        ("memory_budget", Collector::builder().memory_budget(0)),
        ("memory_budget", Collector::builder().memory_budget(1 << 20)),
        // There has to be room for the stamp of the longest event, too.
        ("memory_budget", Collector::builder().memory_budget((1 << 20) + 150).stamp(true)),
    ];
    for (name, builder) in builders {
        match builder.start(Server::working().1) {
            Err(StartError::Config(ConfigError::Setting { setting, .. })) => {
                assert_eq!(setting, name);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn debug_output_holds_no_event_and_no_key() {
    let (_, connection) = Server::working();
    let collector = Collector::start(connection).unwrap();
    collector.collect("a", &json!({"secret": "payload"})).unwrap();
    let text = format!("{collector:?} {:?} {:?}", collector.stream("a"), Collector::builder());
    assert!(!text.contains("payload") && !text.contains("key"), "{text}");
    assert_eq!(collector.stop().to_string(), "1 accepted, 1 delivered, 0 lost, 0 pending");
}
