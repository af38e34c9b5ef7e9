//! How what was accepted arrives.

use super::*;

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
