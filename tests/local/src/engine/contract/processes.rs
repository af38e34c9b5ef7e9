//! Processes: how they run, whom they tell, and how they depend on each other.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{Fixture, Subject, definition, is_conflict, is_invalid, is_missing, received};
use crate::engine::{Change, Definition, Engine as _, Mode, Ttl};
use crate::settings::Limits;

pub(in crate::engine) fn which_way_a_process_runs_follows_from_its_query<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"a": "a", "x": 1, "ok": true, "user": {"plan": "free"}}}));
    it.process("counted", "SELECT count(*) AS n FROM s").unwrap();
    for (why, query) in [
        (None, "SELECT count(*) FROM s"),
        (None, "SELECT a, count(*) FROM s GROUP BY a"),
        (None, "SELECT lower(a) AS low, sum(x) / count(x) AS mean FROM s WHERE x > 5 GROUP BY low"),
        (
            None,
            "SELECT date_trunc('minute', $timestamp) AS minute, count(*) FROM s GROUP BY minute",
        ),
        (
            None,
            "SELECT user ->> 'plan' AS plan, count(*) FILTER (WHERE ok) AS ok FROM s t GROUP BY 1",
        ),
        (None, "SELECT distinct_a FROM s GROUP BY distinct_a"),
        (None, "SELECT round(avg(x), 2) AS a, CASE WHEN max(x) > 5 THEN 'high' END AS h FROM s"),
        (None, "SELECT a FROM s"),
        (None, "SELECT a, x + 1 AS y FROM s WHERE x > 1 AND lower(a) LIKE 'b%'"),
        (None, "SELECT DISTINCT a, x FROM s WHERE x > 1"),
        (None, "SELECT count(DISTINCT a) FROM s"),
        (None, "SELECT a, count(DISTINCT $timestamp) FILTER (WHERE x > 0) FROM s GROUP BY a"),
        (None, "SELECT a, count(*) FROM s GROUP BY a HAVING count(*) > 1"),
        (None, "SELECT $timestamp AS at, count(*) FROM s GROUP BY at"),
        (Some("it joins"), "SELECT count(*) FROM s JOIN t ON s.a = t.a"),
        (Some("it has ORDER BY"), "SELECT a FROM s ORDER BY a"),
        (Some("it has LIMIT"), "SELECT a FROM s LIMIT 3"),
        (Some("it has a subquery"), "SELECT a FROM s WHERE a IN (SELECT a FROM t)"),
        (Some("it has WITH"), "WITH t AS (SELECT a FROM s) SELECT count(*) FROM t"),
        (Some("it reads another process"), "SELECT max(n) FROM counted"),
        (Some("it calls the window function sum()"), "SELECT sum(x) OVER (ORDER BY x) AS s FROM s"),
    ] {
        it.process("p", query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let stats = it.stats("p");
        let mode = if why.is_some() { Mode::Recomputed } else { Mode::Incremental };
        assert_eq!((stats.mode, stats.why.as_deref()), (mode, why), "{query}");
        it.engine.delete_process("p").unwrap();
    }
}

pub(in crate::engine) fn others_are_computed_anew_when_what_they_read_has_changed<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"a": 1}}));
    it.process("kinds", "SELECT count(*) AS n FROM (SELECT DISTINCT a FROM s) AS t").unwrap();
    it.wait_until("SELECT * FROM kinds", &json!([{"n": 1}]));
    it.process("more", "SELECT max(n) + 1 AS n FROM kinds").unwrap();
    it.wait_until("SELECT * FROM more", &json!([{"n": 2}]));
    let subscriber = it.subscribe("more");
    it.collect(&json!({"s": [{"a": 2}, {"a": 2}]}));
    it.wait_until("SELECT * FROM more", &json!([{"n": 3}]));
    let told = RefCell::new(Vec::new());
    it.until("it is told", || {
        told.borrow_mut().extend(received(&subscriber).unwrap());
        !told.borrow().is_empty()
    });
    assert_eq!(told.into_inner(), [json!({"old": {"n": 2}, "new": {"n": 3}})]);
    it.engine.delete_stream("s").unwrap();
    it.wait_until("SELECT * FROM more", &json!([{"n": 1}]));
}

pub(in crate::engine) fn changes_are_one_for_each_row_and_transaction<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    it.process("all", "SELECT count(*) FROM s").unwrap();
    let (groups, all) = (it.subscribe("p"), it.subscribe("all"));
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}, {"k": "a"}]}));
    it.collect(&json!({"s": [{"k": "b"}, {"k": null}]}));
    let (of_groups, of_all) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    it.until("all of it is told", || {
        of_groups.borrow_mut().extend(received(&groups).unwrap());
        of_all.borrow_mut().extend(received(&all).unwrap());
        of_groups.borrow().len() + of_all.borrow().len() >= 6
    });
    // Those of one transaction are in no order.
    let mut of_groups = of_groups.into_inner();
    of_groups[..2].sort_by_key(Value::to_string);
    of_groups[2..].sort_by_key(Value::to_string);
    assert_eq!(
        of_groups,
        [
            json!({"old": null, "new": {"k": "a", "n": 2}}),
            json!({"old": null, "new": {"k": "b", "n": 1}}),
            json!({"old": {"k": "b", "n": 1}, "new": {"k": "b", "n": 2}}),
            json!({"old": null, "new": {"k": null, "n": 1}}),
        ]
    );
    assert_eq!(
        of_all.into_inner(),
        [
            json!({"old": {"count": 0}, "new": {"count": 3}}),
            json!({"old": {"count": 3}, "new": {"count": 5}}),
        ]
    );
    it.engine.delete_process("p").unwrap();
    it.until("its subscriptions end with it", || received(&groups).is_none());
}

pub(in crate::engine) fn no_process_comes_in_the_place_of_a_stream_that_another_reads<
    S: Subject,
>() {
    let it = Fixture::<S>::new();
    it.process("q", "SELECT count(*) FROM later").unwrap();
    assert!(is_conflict(&it.process("later", "SELECT count(*) FROM s")));
    it.collect(&json!({"later": {}}));
    assert_eq!(it.query("SELECT * FROM q"), json!([{"count": 1}]));
}

pub(in crate::engine) fn a_query_can_be_changed_but_not_into_a_circle<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"x": 1}, {"x": 2}]}));
    it.process("a", "SELECT count(*) AS n FROM s").unwrap();
    it.process("b", "SELECT n FROM a").unwrap();
    for query in ["SELECT n FROM b", "SELECT n FROM a", "SELECT nope(n) FROM s"] {
        assert!(is_invalid(&it.change("a", query)), "{query}");
    }
    it.wait_until("SELECT * FROM a", &json!([{"n": 2}]));
    it.change("a", "SELECT sum(x) AS n FROM s").unwrap();
    it.wait_until("SELECT * FROM a", &json!([{"n": 3}]));
    it.collect(&json!({"s": {"x": 3}}));
    assert_eq!(it.query("SELECT * FROM a"), json!([{"n": 6}]));
    it.wait_until("SELECT * FROM b", &json!([{"n": 6}]));
    assert!(is_missing(&it.engine.change_process("c", &Change::default())));
}

pub(in crate::engine) fn the_columns_of_a_star_grow_with_the_stream<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"a": 1}}));
    it.process("p", "SELECT * FROM s").unwrap();
    it.collect(&json!({"s": {"b": 2}}));
    let grown = json!([{"a": null, "b": 2}, {"a": 1, "b": null}]);
    it.until("there is a column more", || {
        let rows = it.engine.query("SELECT a, b FROM p ORDER BY b", &[]);
        rows.is_ok_and(|rows| {
            let mut rows: Value = serde_json::from_slice(&rows.json).unwrap();
            // Where rows without a value stand is the engine's business.
            rows.as_array_mut().unwrap().sort_by_key(|row| row["a"].is_number());
            rows == grown
        })
    });
}

pub(in crate::engine) fn two_columns_of_one_name_are_told_apart<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT sum(a), sum(b) FROM s").unwrap();
    it.collect(&json!({"s": [{"a": 1, "b": 10}, {"a": 2, "b": 20}]}));
    it.wait_until("SELECT * FROM p", &json!([{"sum": 3, "sum_2": 30}]));
    assert_eq!(it.query("SELECT sum_2 FROM p"), json!([{"sum_2": 30}]));
}

pub(in crate::engine) fn a_process_that_makes_no_sense_any_more_harms_nobody<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"a": 1}}));
    it.process("p", "SELECT a, $timestamp AS minute FROM s").unwrap();
    let ttl = Some(Ttl { duration: "1 day".to_owned(), column: "minute".to_owned() });
    let definition = Definition { ttl, ..definition("SELECT * FROM p") };
    it.engine.create_process("q", &definition).unwrap();
    it.process("star", "SELECT * FROM s").unwrap();
    it.change("p", "SELECT a FROM s").unwrap();
    it.engine.delete_stream("s").unwrap();
    assert!(is_conflict(&it.try_collect(&json!({"p": {}}))));
    it.collect(&json!({"s": {"b": 1}}));
    it.until("there is a new column", || {
        let rows = it.engine.query("SELECT b FROM star", &[]);
        rows.is_ok_and(|rows| *rows.json == *br#"[{"b":1}]"#)
    });
    for process in ["q", "p", "star"] {
        it.engine.delete_process(process).unwrap();
    }
}

pub(in crate::engine) fn q5_a_result_that_has_become_old_says_so<S: Subject>() {
    let it = Fixture::<S>::with(Limits { query_rows: 3, ..Limits::default() });
    it.collect(&json!({"s": [{"a": 1}, {"a": 2}]}));
    it.process("p", "SELECT a FROM s ORDER BY a").unwrap();
    it.process("sum", "SELECT sum(a) AS sum FROM p").unwrap();
    let stale = |sql: &str| it.engine.query(sql, &[]).unwrap().stale;
    assert_eq!(stale("SELECT * FROM sum"), Vec::<String>::new());
    it.collect(&json!({"s": [{"a": 3}, {"a": 4}]}));
    it.until("it is old", || it.stats("p").stale);
    let since = it.stats("p").stale_since.unwrap();
    assert!(since <= crate::events::timestamp::now(), "{since}");
    assert!(it.stats("p").last_error.unwrap().contains("more than 3 rows"));
    assert_eq!(stale("SELECT * FROM p LIMIT 1"), ["p"]);
    assert_eq!(stale("SELECT * FROM sum"), ["p"], "what is made of old rows is old");
    assert_eq!(stale("SELECT count(*) FROM s"), Vec::<String>::new());
    it.until("it is counted", || it.engine.counters().stale_processes == 1);
    it.engine.delete_stream("s").unwrap();
    it.until("it is new again", || !it.stats("p").stale);
    assert_eq!(it.stats("p").stale_since, None);
    it.until("so is what is made of it", || stale("SELECT * FROM sum").is_empty());
}
