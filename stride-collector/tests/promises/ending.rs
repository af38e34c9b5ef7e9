//! Totals, losses, and the ends.

use super::*;

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
