//! What goes, and what stays when it does; how much the open key may add.

use serde_json::{Value, json};

use super::{Fixture, PAGE, Subject, WAIT, is_invalid, received};
use crate::engine::position::Position;
use crate::engine::{Author, Change, Definition, Engine as _, EngineError, Start, Ttl};
use crate::settings::Limits;
use crate::subscribers::hub::Source;
use crate::subscribers::mailbox::Want;

fn numbered(numbers: std::ops::Range<u64>) -> Value {
    json!({"s": numbers.map(|n| json!({"n": n})).collect::<Vec<_>>()})
}

pub(in crate::engine) fn events_past_the_bound_go_but_not_what_was_made_of_them<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_events: 5, ..Limits::default() });
    it.collect(&numbered(100..101));
    it.process("ever", "SELECT count(*) AS n FROM s").unwrap();
    it.process("now", "SELECT count(*) AS n FROM (SELECT DISTINCT n FROM s) AS t").unwrap();
    it.process("known", "SELECT n % 2 AS odd, count(*) AS n FROM s GROUP BY odd").unwrap();
    for from in [0, 4] {
        it.collect(&numbered(from..from + 8));
    }
    assert_eq!(it.query("SELECT min(n) AS min, count(*) AS n FROM s"), json!([{"min": 7, "n": 5}]));
    assert_eq!(it.query("SELECT n FROM ever"), json!([{"n": 17}]));
    assert_eq!(it.query("SELECT n FROM known ORDER BY n DESC"), json!([{"n": 9}, {"n": 8}]));
    it.wait_until("SELECT n FROM now", &json!([{"n": 5}]));
    assert_eq!(it.engine.stream("s").unwrap().count, 17);
    // What is left is counted anew.
    let it = it.reopen();
    it.collect(&numbered(20..22));
    assert_eq!(
        it.query("SELECT min(n) AS min, max(n) AS max FROM s"),
        json!([{"min": 9, "max": 21}])
    );
    assert_eq!(it.query("SELECT n FROM ever"), json!([{"n": 19}]));
}

pub(in crate::engine) fn what_was_counted_stays_when_a_key_has_values_of_another_type<
    S: Subject,
>() {
    let it = Fixture::<S>::with(Limits { max_events: 2, ..Limits::default() });
    it.collect(&json!({"s": {"k": 1, "x": 1}}));
    it.process(
        "groups",
        "SELECT k, count(*) AS n, sum(x) AS sum, max(x) AS most FROM s GROUP BY k",
    )
    .unwrap();
    it.process("later", "SELECT y, count(*) AS n FROM s GROUP BY y").unwrap();
    it.process("known", "SELECT count(DISTINCT k) AS n, count(*) AS events FROM s").unwrap();
    for n in 0..6 {
        it.collect(&json!({"s": {"k": 1 + n % 2, "x": n}}));
    }
    // No event had a text as its k before, nor a y.
    it.collect(&json!({"s": [{"k": "a", "y": 7}, {"k": 2.0, "y": 7, "x": 0.5}, {"k": "1"}]}));
    let groups = json!([
        {"k": "1", "n": 1, "sum": null, "most": null},
        {"k": "a", "n": 1, "sum": null, "most": null},
        {"k": 1, "n": 4, "sum": 7, "most": 4},
        {"k": 2, "n": 4, "sum": 9.5, "most": 5},
    ]);
    let rows = |sql: &str| {
        let mut rows: Vec<Value> = it.query(sql).as_array().unwrap().clone();
        rows.sort_by_cached_key(|row| (row["n"].as_u64(), row["k"].to_string()));
        Value::from(rows)
    };
    assert_eq!(rows("SELECT * FROM groups"), groups);
    assert_eq!(rows("SELECT * FROM later"), json!([{"y": 7, "n": 2}, {"y": null, "n": 8}]));
    assert_eq!(rows("SELECT * FROM known"), json!([{"n": 4, "events": 10}]));
    for process in ["groups", "later", "known"] {
        let stats = it.engine.process_stats(process).unwrap();
        assert_eq!((stats.skipped, stats.stale, stats.last_error), (0, false, None), "{process}");
    }
}

pub(in crate::engine) fn events_past_the_size_go<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_event_bytes: 10_000, ..Limits::default() });
    let text = "x".repeat(1000);
    let count = || it.events("s").len();
    for n in 0..30 {
        it.collect(&json!({"s": {"n": n, "text": text}}));
    }
    // Each has its `$id` and `$timestamp` besides.
    assert_eq!(count(), 9);
    it.collect(&json!({"s": (0..30).map(|n| json!({"n": n, "text": text})).collect::<Vec<_>>()}));
    assert_eq!(count(), 9);
    it.collect(&json!({"s": [{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]}));
    assert_eq!(count(), 8 + 10);
    it.collect(&json!({"s": {"text": "x".repeat(10_000)}}));
    assert_eq!(count(), 0, "it is more than a stream keeps");
    it.collect(&json!({"s": {"n": 1}}));
    assert_eq!((count(), it.engine.stream("s").unwrap().count), (1, 72));
}

pub(in crate::engine) fn an_id_is_known_for_as_long_as_its_event<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_events: 3, ..Limits::default() });
    let with_id = |id: u64| json!({"s": {"$id": id}});
    let count = || it.engine.stream("s").unwrap().count;
    (0..4).for_each(|id| it.collect(&with_id(id)));
    // Those that came last are known, and the first is new again.
    [3, 2, 1].iter().for_each(|id| it.collect(&with_id(*id)));
    assert_eq!(count(), 4);
    it.collect(&with_id(0));
    assert_eq!(count(), 5);
    // So is one that was given.
    it.collect(&json!({"s": {"n": 1}}));
    let given = it.events("s").pop().unwrap();
    it.collect(&json!({"s": given}));
    assert_eq!(count(), 6);
    it.collect(&json!({"s": [{}, {}, {}]}));
    it.collect(&json!({"s": given}));
    assert_eq!(count(), 10);
}

pub(in crate::engine) fn a_reader_is_told_how_many_events_went_before_it_came<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_events: 3, ..Limits::default() });
    let page = |position: Position| {
        let page = it.engine.events_after("s", position, PAGE).unwrap();
        (page.missing, page.events.ends.len(), page.end)
    };
    let start = it.position("s", Start::Oldest);
    it.collect(&json!({"s": [{}, {}]}));
    let oldest = it.position("s", Start::Oldest);
    assert_eq!(page(oldest), (0, 2, oldest.skip(2)));
    it.collect(&json!({"s": [{}, {}, {}]}));
    let newest = oldest.skip(5);
    assert_eq!(it.position("s", Start::Oldest), oldest.skip(2));
    assert_eq!(page(start), (2, 3, newest));
    assert_eq!(page(oldest.skip(1)), (1, 3, newest));
    assert_eq!(page(oldest.skip(2)), (0, 3, newest));
    // Of events that are all gone, too, places are not given again.
    it.collect(&json!({"s": [{}, {}, {}, {}, {}]}));
    assert_eq!(page(newest), (2, 3, oldest.skip(10)));
    assert_eq!(page(oldest.skip(10)), (0, 0, oldest.skip(10)));
}

pub(in crate::engine) fn a_time_to_live_is_kept<S: Subject>() {
    let it = Fixture::<S>::new();
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    it.process("p", query).unwrap();
    let ttl = |column: &str| Some(Ttl { duration: "1 day".to_owned(), column: column.to_owned() });
    it.engine.change_process("p", &Change { query: None, ttl: ttl("k") }).unwrap();
    assert_eq!(it.engine.process("p").unwrap().ttl, ttl("k"));
    let definition = Definition { query: query.to_owned(), ttl: ttl("n") };
    it.engine.create_process("q", &definition).unwrap();
    let it = it.reopen();
    assert_eq!(it.engine.process("q").unwrap(), definition);
    assert_eq!(it.engine.overview().unwrap().processes[0].1.ttl, ttl("k"));
    // It is about a column that there is, in a new query, too.
    assert!(is_invalid(&it.engine.change_process("q", &Change { query: None, ttl: ttl("x") })));
    let query = Some("SELECT count(*) AS m FROM s".to_owned());
    assert!(is_invalid(&it.engine.change_process("q", &Change { query, ttl: None })));
    assert_eq!(it.engine.process("q").unwrap(), definition);
    for (duration, column) in [("0 s", "k"), ("1 month", "k"), ("a while", "k"), ("1 s", "x")] {
        let ttl = Some(Ttl { duration: duration.to_owned(), column: column.to_owned() });
        let bad = Definition { ttl, ..definition.clone() };
        assert!(is_invalid(&it.engine.create_process("bad", &bad)), "{duration} {column}");
    }
    assert_eq!(it.engine.processes().unwrap(), ["p", "q"]);
}

pub(in crate::engine) fn rows_go_when_their_time_is_over<S: Subject>() {
    let it = Fixture::<S>::new();
    let event = |day: &str| json!({"$timestamp": "2999-01-02T03:04:05Z", "day": day});
    it.collect(&json!({"s": event("2999-01-02")}));
    let ttl = Some(Ttl { duration: "1 day".to_owned(), column: "minute".to_owned() });
    let query = "SELECT date_trunc('minute', \"$timestamp\") AS minute, count(*) AS n FROM s GROUP BY minute";
    it.process("p", query).unwrap();
    // One that is added to, one that is run again, and one of texts, of which some are no times.
    it.process("r", &format!("{query} ORDER BY n LIMIT 10")).unwrap();
    it.process("t", "SELECT day AS minute, count(*) AS n FROM s GROUP BY day").unwrap();
    let subscribers =
        ["p", "r"].map(|p| it.subscribers.subscribe(Source::Process, p, Want::Changes));
    let old = json!({"$timestamp": "2015-05-05T23:40:27Z", "day": "2015-05-05"});
    let [word, day, no_day] = ["today", "2999-01-01 10:00", "2015-99-99"].map(event);
    it.collect(&json!({"s": [old, word, day, no_day]}));
    it.wait_until("SELECT n FROM p ORDER BY n", &json!([{"n": 1}, {"n": 4}]));
    it.wait_until("SELECT n FROM r ORDER BY n", &json!([{"n": 1}, {"n": 4}]));
    it.wait_until("SELECT count(*) AS n FROM t", &json!([{"n": 5}]));
    for process in ["p", "r", "t"] {
        let change = Change { query: None, ttl: ttl.clone() };
        it.engine.change_process(process, &change).unwrap();
    }
    it.wait_until("SELECT n FROM p", &json!([{"n": 4}]));
    it.wait_until("SELECT n FROM r", &json!([{"n": 4}]));
    it.wait_until("SELECT count(*) AS n FROM t", &json!([{"n": 4}]));
    // What is run again does not bring it back.
    it.collect(&json!({"s": {"$timestamp": "2999-01-01T00:00:00Z"}}));
    it.wait_until("SELECT count(*) AS n FROM r", &json!([{"n": 2}]));
    let gone = json!({"old": {"minute": "2015-05-05T23:40:00.000000Z", "n": 1}, "new": null});
    for subscriber in subscribers {
        let told = std::cell::RefCell::new(Vec::new());
        let all = || {
            told.borrow_mut().extend(received(&subscriber).unwrap_or_default());
            told.borrow().len() == 4
        };
        assert!(it.changes.wait_until(WAIT, all), "{told:?}");
        let told = told.into_inner();
        assert_eq!(told.iter().filter(|change| **change == gone).count(), 1, "{told:?}");
    }
}

/// Sends as the open key does.
fn send<S: Subject>(it: &Fixture<S>, events: &Value) -> Result<(), EngineError> {
    it.append_as(Author::Anybody, events).blocking_recv().unwrap()
}

fn is_full(result: &Result<(), EngineError>) -> bool {
    matches!(result, Err(EngineError::Full(_)))
}

pub(in crate::engine) fn the_open_key_makes_so_many_streams<S: Subject>() {
    let it = Fixture::<S>::new();
    let streams = |numbers: std::ops::Range<u64>| {
        Value::Object(numbers.map(|n| (format!("s{n:04}"), json!({}))).collect())
    };
    send(&it, &streams(0..500)).unwrap();
    it.collect(&json!({"trusted": {}}));
    let refused = send(&it, &streams(400..1001));
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(it.engine.streams().unwrap().len(), 501, "all of a request or nothing");
    send(&it, &streams(400..1000)).unwrap();
    assert!(is_full(&send(&it, &json!({"more": {}}))));
    // Those that are there can still be written to, and others can be made by those who may.
    send(&it, &json!({"s0000": {}, "trusted": {}})).unwrap();
    it.collect(&json!({"more": {}}));
    it.engine.delete_stream("s0000").unwrap();
    let it = it.reopen();
    send(&it, &json!({"another": {}})).unwrap();
    assert!(is_full(&send(&it, &json!({"once_more": {}}))));
}

pub(in crate::engine) fn the_open_key_fills_the_storage_up_to_its_limit<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_open_bytes: 8 << 20, ..Limits::default() });
    let text = "x".repeat(250_000);
    let event = |n: usize| json!({"s": {"text": text, "n": n}});
    let stored = (0..100).take_while(|n| send(&it, &event(*n)).is_ok()).count();
    assert!((10..50).contains(&stored), "{stored}");
    let refused = send(&it, &json!({"t": {}})).unwrap_err();
    assert!(refused.to_string().contains("past 8 MiB"), "{refused}");
    it.collect(&event(100));
    assert_eq!(it.engine.stream("s").unwrap().count, stored as u64 + 1);
    // What is deleted makes room.
    it.engine.delete_stream("s").unwrap();
    let is_taken = || {
        it.changes.note();
        send(&it, &event(101)).is_ok()
    };
    assert!(it.changes.wait_until(WAIT, is_taken));
}

pub(in crate::engine) fn what_is_added_is_counted_whoever_listens<S: Subject>() {
    let it = Fixture::<S>::new();
    let subscriber = it.subscribers.subscribe(Source::Stream, "s", Want::Changes);
    it.collect(&json!({"s": [{"$id": 1}, {"$id": 1}, {}], "t": [{}, {}, {}]}));
    it.collect(&json!({"s": [{"$id": 1}], "t": {}}));
    let counted = |stream: &str| it.rates.of_all().get(stream).map_or(0, |rates| rates.sum);
    // A second counts once it is over.
    let both = || {
        it.changes.note();
        (counted("s"), counted("t")) == (2, 4)
    };
    assert!(it.changes.wait_until(WAIT, both), "{:?}", it.rates.of_all());
    assert_eq!(received(&subscriber).unwrap().len(), 2);
}
