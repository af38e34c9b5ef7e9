//! What is appended, asked, made and told.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Fixture, Subject, WAIT, is_conflict, is_invalid, is_missing, received};
use crate::engine::{Change, Engine as _, EngineError, Start, Wanted};
use crate::events::ids::EventId;
use crate::subscribers::hub::Source;
use crate::subscribers::mailbox::Want;

pub(in crate::engine) fn what_is_appended_is_there_in_order<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"b": [{"n": 1}, {"n": 2}], "a": {"n": 9}}));
    it.collect(&json!({"b": {"n": 3}}));
    assert_eq!(it.engine.streams().unwrap(), ["a", "b"]);
    let events = it.events("b");
    let numbers: Vec<&Value> = events.iter().map(|event| &event["n"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(events.iter().all(|event| event["$id"].is_string() && event["$timestamp"].is_string()));
    let summary = it.engine.stream("b").unwrap();
    assert_eq!(summary.count, 3);
    assert!(summary.first_seen <= summary.last_seen);
    assert_eq!(it.query("SELECT n FROM b ORDER BY n DESC"), json!([{"n": 3}, {"n": 2}, {"n": 1}]));
    assert_eq!(it.query("SELECT n FROM nobody"), json!([]));
    it.engine.delete_stream("b").unwrap();
    assert_eq!(it.engine.streams().unwrap(), ["a"]);
    assert_eq!(it.query("SELECT count(*) AS n FROM b"), json!([{"n": 0}]));
    it.engine.health().unwrap();
    assert_eq!(it.engine.counters().events, 4);
}

pub(in crate::engine) fn a_request_is_stored_in_whole_or_not_at_all<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    let refused = it.try_collect(&json!({"other": {"n": 1}, "p": {"n": 1}, "s": {"n": 1}}));
    assert!(is_conflict(&refused));
    assert_eq!(it.engine.streams().unwrap(), Vec::<String>::new());
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 0}]));
    it.collect(&json!({"s": {"n": 1}}));
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 1}]));
}

pub(in crate::engine) fn an_event_whose_id_is_known_is_stored_once<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    let events = json!({"s": [{"$id": "a"}, {"$id": 5}, {"$id": "a"}, {"$id": "5"}]});
    it.collect(&events);
    it.collect(&events);
    let it = it.reopen();
    it.collect(&events);
    assert_eq!(it.engine.stream("s").unwrap().count, 3);
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 3}]));
    // Another stream has ids of its own.
    it.collect(&json!({"t": {"$id": "a"}}));
    assert_eq!(it.engine.stream("t").unwrap().count, 1);
}

pub(in crate::engine) fn ids_of_any_length_are_told_apart<S: Subject>() {
    let it = Fixture::<S>::new();
    let ids: Vec<String> = [1, 32, 254, 255, 256, 257, 2704, 10_000]
        .iter()
        .flat_map(|length| ["a", "b"].map(|last| "x".repeat(length - 1) + last))
        .collect();
    let all: Vec<Value> = ids.iter().map(|id| json!({"$id": id})).collect();
    (0..2).for_each(|_| it.collect(&json!({"s": all})));
    assert_eq!(it.engine.stream("s").unwrap().count, ids.len() as u64);
    for (place, id) in (1..).zip(&ids) {
        let id = EventId::Text(id.as_str().into());
        assert_eq!(it.position("s", Start::After(&id)).place, place);
    }
}

pub(in crate::engine) fn streams_and_processes_share_their_names<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {}}));
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    assert!(is_conflict(&it.process("s", "SELECT count(*) AS n FROM t")));
    assert!(is_conflict(&it.process("p", "SELECT count(*) AS n FROM t")));
    assert!(is_conflict(&it.try_collect(&json!({"p": {}}))));
}

pub(in crate::engine) fn what_is_not_there_is_said_to_be_missing<S: Subject>() {
    let it = Fixture::<S>::new();
    assert!(is_missing(&it.engine.stream("x")));
    assert!(is_missing(&it.engine.delete_stream("x")));
    assert!(is_missing(&it.engine.process("x")));
    assert!(is_missing(&it.engine.process_stats("x")));
    assert!(is_missing(&it.engine.change_process("x", &Change::default())));
    assert!(is_missing(&it.engine.delete_process("x")));
    assert!(is_missing(&it.engine.saved_query("x")));
    assert!(is_missing(&it.engine.delete_query("x")));
    assert_eq!(it.events("x"), Vec::<Value>::new());
    assert_eq!(it.engine.processes().unwrap(), Vec::<String>::new());
}

pub(in crate::engine) fn a_process_has_what_was_stored_before_and_after_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"k": "a", "x": 1}, {"k": "b", "x": 2}]}));
    let groups = "SELECT k, count(*) AS n, sum(x) AS sum FROM s GROUP BY k";
    it.process("groups", groups).unwrap();
    it.process("kinds", "SELECT count(DISTINCT k) AS n FROM s").unwrap();
    it.process("of", "SELECT max(n) AS most FROM groups").unwrap();
    it.collect(&json!({"s": [{"k": "a", "x": 3}, {"k": "c", "x": 0.5}]}));
    let rows = json!([{"k": "a", "n": 2, "sum": 4}, {"k": "b", "n": 1, "sum": 2}, {"k": "c", "n": 1, "sum": 0.5}]);
    it.wait_until("SELECT * FROM groups ORDER BY k", &rows);
    assert_eq!(it.query(&format!("{groups} ORDER BY k")), rows);
    it.wait_until("SELECT n FROM kinds", &json!([{"n": 3}]));
    it.wait_until("SELECT most FROM of", &json!([{"most": 2}]));
    assert_eq!(it.engine.processes().unwrap(), ["groups", "kinds", "of"]);
    let stats = it.engine.process_stats("groups").unwrap();
    assert_eq!((stats.rows, stats.skipped, stats.stale), (3, 0, false), "{:?}", stats.last_error);

    let query = Some("SELECT k, min(x) AS n FROM s GROUP BY k".to_owned());
    it.engine.change_process("groups", &Change { query, ttl: None }).unwrap();
    let least = json!([{"k": "a", "n": 1}, {"k": "b", "n": 2}, {"k": "c", "n": 0.5}]);
    it.wait_until("SELECT * FROM groups ORDER BY k", &least);
}

pub(in crate::engine) fn a_process_is_filled_while_its_stream_takes_events<S: Subject>() {
    let it = Fixture::<S>::new();
    let events = |n: usize| json!({"s": (0..n).map(|n| json!({"k": n % 9})).collect::<Vec<_>>()});
    it.collect(&events(2500));
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                it.collect(&events(10));
            }
        });
        it.process("p", "SELECT k FROM s").unwrap();
        // It is whole by then, and so is what another query makes of it.
        assert_eq!(it.engine.process_stats("p").unwrap().filling, None);
        let changed =
            it.engine.change_process("p", &Change { query: Some(query.to_owned()), ttl: None });
        assert_eq!(it.engine.process_stats("p").unwrap().filling, None);
        it.process("q", "SELECT count(*) AS n FROM s").unwrap();
        it.engine.delete_process("q").unwrap();
        done.store(true, Ordering::Relaxed);
        adding.join().unwrap();
        changed.unwrap();
    });
    assert_eq!(it.engine.processes().unwrap(), ["p"]);
    let rows = it.query(&format!("{query} ORDER BY k"));
    assert_eq!(it.query("SELECT * FROM p ORDER BY k"), rows);
    it.collect(&events(1));
    let count = it.query("SELECT count(*) AS n FROM s");
    assert_eq!(it.query("SELECT sum(n) AS n FROM p"), count);
}

pub(in crate::engine) fn a_listener_is_told_what_was_committed<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    let stream = it.subscribers.subscribe(Source::Stream, "s", Want::Changes);
    let changes = it.subscribers.subscribe(Source::Process, "p", Want::Changes);
    it.collect(&json!({"s": [{"k": "a"}, {"k": "a"}]}));
    it.collect(&json!({"s": {"k": "a"}}));
    let (events, rows) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let all = || {
        events.borrow_mut().extend(received(&stream).unwrap_or_default());
        rows.borrow_mut().extend(received(&changes).unwrap_or_default());
        (events.borrow().len(), rows.borrow().len()) == (3, 2)
    };
    assert!(it.changes.wait_until(WAIT, all), "{events:?}, {rows:?}");
    assert!(events.borrow().iter().all(|event| event["k"] == "a"));
    assert_eq!(
        rows.into_inner(),
        [
            json!({"old": null, "new": {"k": "a", "n": 2}}),
            json!({"old": {"k": "a", "n": 2}, "new": {"k": "a", "n": 3}}),
        ]
    );
    it.engine.delete_process("p").unwrap();
    assert!(it.changes.wait_until(WAIT, || received(&changes).is_none()), "its subscription ends");
}

pub(in crate::engine) fn a_snapshot_stands_between_the_changes_before_and_after_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}, {"k": "a"}]}));
    it.wait_until("SELECT count(*) AS n FROM p", &json!([{"n": 2}]));
    let subscriber = it.subscribers.subscribe(Source::Process, "p", Want::Snapshot);
    let take = |most| {
        let mailbox = Arc::clone(&subscriber.mailbox);
        it.engine.snapshot("p", most, Box::new(move |rows| mailbox.begin(rows)))
    };
    assert!(is_invalid(&take(10)), "the rows take more than that");
    take(1000).unwrap();
    it.collect(&json!({"s": {"k": "b"}}));
    let changes = RefCell::new(Vec::new());
    let all = || {
        changes.borrow_mut().extend(received(&subscriber).unwrap_or_default());
        changes.borrow().len() == 3
    };
    assert!(it.changes.wait_until(WAIT, all), "{changes:?}");
    let mut changes = changes.into_inner();
    let last = changes.pop();
    changes.sort_by_key(ToString::to_string);
    let rows = [("a", 2), ("b", 1)].map(|(k, n)| json!({"old": null, "new": {"k": k, "n": n}}));
    assert_eq!(changes, rows);
    let expected = json!({"old": {"k": "b", "n": 1}, "new": {"k": "b", "n": 2}});
    assert_eq!(last, Some(expected));
    let nothing = it.engine.snapshot("nothing", 1000, Box::new(|_| panic!("there is none")));
    assert!(matches!(nothing, Err(EngineError::NotFound(_))));
}

pub(in crate::engine) fn a_process_that_others_read_stays<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("a", "SELECT count(*) AS n FROM s").unwrap();
    it.process("b", "SELECT max(n) AS n FROM a").unwrap();
    let refused = it.engine.delete_process("a");
    assert!(is_conflict(&refused) && refused.unwrap_err().to_string().contains("\"b\""));
    let query = Some("SELECT max(n) AS n FROM b".to_owned());
    let change = Change { query, ttl: None };
    assert!(is_invalid(&it.engine.change_process("a", &change)), "it would read itself");
    it.engine.delete_process("b").unwrap();
    it.engine.delete_process("a").unwrap();
    assert!(is_missing(&it.engine.delete_process("a")));
    assert_eq!(it.query("SELECT * FROM a"), json!([]));
    assert_eq!(it.engine.processes().unwrap(), Vec::<String>::new());
}

pub(in crate::engine) fn a_query_that_makes_no_sense_changes_nothing<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"x": 1}}));
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    for query in [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "DELETE FROM s",
        "SELECT no_such_function(x) FROM s",
        "SELECT count(*) AS n FROM p, q WHERE",
    ] {
        assert!(is_invalid(&it.engine.query(query, &[])), "{query}");
        assert!(is_invalid(&it.process("bad", query)), "{query}");
        assert!(is_invalid(&it.engine.save_query("bad", query)), "{query}");
        let change = Change { query: Some(query.to_owned()), ttl: None };
        assert!(is_invalid(&it.engine.change_process("p", &change)), "{query}");
    }
    it.collect(&json!({"s": {"x": 1}}));
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 2}]));
    assert_eq!(it.engine.saved_queries().unwrap(), Vec::<String>::new());
}

pub(in crate::engine) fn queries_are_saved_under_their_names<S: Subject>() {
    let it = Fixture::<S>::new();
    it.engine.save_query("b", "SELECT x FROM s").unwrap();
    it.engine.save_query("a", "SELECT x FROM s WHERE x > :least").unwrap();
    it.engine.save_query("b", "SELECT x + 1 AS x FROM s").unwrap();
    assert_eq!(it.engine.saved_queries().unwrap(), ["a", "b"]);
    assert_eq!(it.engine.saved_query("b").unwrap(), "SELECT x + 1 AS x FROM s");
    it.engine.delete_query("b").unwrap();
    assert_eq!(it.engine.saved_queries().unwrap(), ["a"]);
}

pub(in crate::engine) fn parameters_keep_their_type<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"k": "1", "x": 1}, {"k": "2", "x": 2.5}]}));
    let ask = |sql: &str, value: Value| {
        let rows = it.engine.query(sql, &[("v".to_owned(), value)]).unwrap();
        serde_json::from_slice::<Value>(&rows.json).unwrap()
    };
    assert_eq!(ask("SELECT x FROM s WHERE k = :v", json!("1")), json!([{"x": 1}]));
    assert_eq!(ask("SELECT k FROM s WHERE x > :v", json!(2)), json!([{"k": "2"}]));
    assert_eq!(ask("SELECT k FROM s WHERE x = :v", json!(2.5)), json!([{"k": "2"}]));
    assert!(is_invalid(&it.engine.query("SELECT k FROM s WHERE x = :v", &[])));
}

pub(in crate::engine) fn a_query_that_nobody_wants_ends<S: Subject>() {
    let it = Fixture::<S>::new();
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";
    let wanted = Wanted::default();
    std::thread::scope(|scope| {
        let query = scope.spawn(|| it.engine.query_while(endless, &[], &wanted));
        while it.engine.counters().running_queries == 0 && !query.is_finished() {
            std::thread::yield_now();
        }
        wanted.give_up();
        assert_eq!(query.join().unwrap().unwrap_err(), EngineError::unwanted());
    });
    let early = it.engine.query_while(endless, &[], &wanted);
    assert_eq!(early.unwrap_err(), EngineError::unwanted());
    assert_eq!(it.query("SELECT 1 AS x"), json!([{"x": 1}]), "the next one is not affected");
}

pub(in crate::engine) fn an_overview_tells_of_everything<S: Subject>() {
    let it = Fixture::<S>::new();
    let empty = it.engine.overview().unwrap();
    assert!(empty.streams.is_empty() && empty.processes.is_empty(), "{empty:?}");
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}], "r": {}}));
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    it.process("p", query).unwrap();
    let all = it.engine.overview().unwrap();
    let counts: Vec<_> = all.streams.iter().map(|(name, it)| (name.as_str(), it.count)).collect();
    assert_eq!(counts, [("r", 1), ("s", 2)]);
    assert_eq!(all.streams[1].1.last_seen, it.engine.stream("s").unwrap().last_seen);
    let [(name, definition, stats)] = &all.processes[..] else { panic!("{all:?}") };
    assert_eq!((name.as_str(), definition.query.as_str(), stats.rows), ("p", query, 2));
    assert!(all.kept && all.bytes > 0, "{all:?}");
}

pub(in crate::engine) fn all_of_it_survives_the_end<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    it.process("q", "SELECT count(DISTINCT k) AS n FROM s").unwrap();
    it.engine.save_query("a", "SELECT x FROM s").unwrap();
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}]}));
    let it = it.reopen();
    assert_eq!(it.engine.stream("s").unwrap().count, 2);
    assert_eq!(it.engine.processes().unwrap(), ["p", "q"]);
    assert_eq!(it.engine.saved_queries().unwrap(), ["a"]);
    it.collect(&json!({"s": {"k": "a"}}));
    it.wait_until("SELECT n FROM p ORDER BY k", &json!([{"n": 2}, {"n": 1}]));
    it.wait_until("SELECT n FROM q", &json!([{"n": 2}]));
}

pub(in crate::engine) fn after_the_end_nothing_is_taken<S: Subject>() {
    let it = Fixture::<S>::new();
    let last = it.append(&json!({"s": {}}));
    it.engine.close();
    assert_eq!(last.blocking_recv().unwrap(), Ok(()), "what was appended before is committed");
    let late = it.append(&json!({"s": {}})).blocking_recv().unwrap();
    assert!(matches!(late, Err(EngineError::Unavailable(_))), "{late:?}");
    assert!(matches!(it.engine.streams(), Err(EngineError::Unavailable(_))));
    let it = it.reopen();
    assert_eq!(it.engine.stream("s").unwrap().count, 1);
}
