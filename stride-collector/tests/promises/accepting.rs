//! What `collect` accepts, and what it refuses.

use super::*;

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
