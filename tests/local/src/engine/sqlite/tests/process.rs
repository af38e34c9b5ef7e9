//! Processes: what they keep, whom they tell, and how they depend on each other.

use std::time::Duration;

use serde_json::json;

use super::{Engine, received, start};
use crate::engine::Mode;

#[test]
fn a_process_starts_with_what_is_stored_and_goes_on() {
    let engine = start();
    engine.collect("app_events", r#"[{"x": 1}, {"x": 2}]"#);
    engine.process("myproc", "SELECT count(*) FROM app_events");
    assert_eq!(engine.query("SELECT * FROM myproc"), json!([{"count": 2}]));
    engine.collect("app_events", r#"{"x": 42}"#);
    assert_eq!(engine.query("SELECT * FROM myproc"), json!([{"count": 3}]));
    assert_eq!(engine.engine.processes().unwrap(), ["myproc"]);
    let stats = engine.stats("myproc");
    assert_eq!((stats.mode, stats.rows, stats.events), (Mode::Incremental, 1, 1));
}

#[test]
fn groups_are_kept_apart_whatever_their_keys() {
    let engine = start();
    engine.process(
        "p",
        "SELECT k, count(*) AS n, sum(x) AS sum, min(x) AS min, max(x) AS max, avg(x) AS avg FROM s GROUP BY k",
    );
    for _ in 0..2 {
        engine.collect(
            "s",
            r#"[{"k": null, "x": 1}, {"x": 3}, {"k": "a", "x": 2.5}, {"k": {"o": 1}}, {"k": {"o": 1}, "x": "t"},
                {"k": [], "x": 5}, {"k": "", "x": 5}]"#,
        );
    }
    let rows = engine.query("SELECT * FROM p ORDER BY n, k");
    assert_eq!(
        rows,
        json!([
            {"k": "", "n": 2, "sum": 10, "min": 5, "max": 5, "avg": 5.0},
            {"k": "a", "n": 2, "sum": 5.0, "min": 2.5, "max": 2.5, "avg": 2.5},
            {"k": [], "n": 2, "sum": 10, "min": 5, "max": 5, "avg": 5.0},
            {"k": null, "n": 4, "sum": 8, "min": 1, "max": 3, "avg": 2.0},
            {"k": {"o": 1}, "n": 4, "sum": 0.0, "min": "t", "max": "t", "avg": 0.0},
        ])
    );
}

#[test]
fn which_way_a_process_runs_follows_from_its_query() {
    let engine = start();
    engine.process("counted", "SELECT count(*) AS n FROM s");
    for (mode, query) in [
        (Mode::Incremental, "SELECT count(*) FROM s"),
        (Mode::Incremental, "SELECT a, count(*) FROM s GROUP BY a"),
        (
            Mode::Incremental,
            "SELECT lower(a) AS low, sum(x) / count(x) AS mean FROM s WHERE x > 5 GROUP BY low",
        ),
        (
            Mode::Incremental,
            "SELECT date_trunc('minute', $timestamp) AS minute, count(*) FROM s GROUP BY minute",
        ),
        (
            Mode::Incremental,
            "SELECT user ->> 'plan' AS plan, count(*) FILTER (WHERE ok) AS ok FROM s t GROUP BY 1",
        ),
        (Mode::Incremental, "SELECT distinct_a FROM s GROUP BY distinct_a"),
        (
            Mode::Incremental,
            "SELECT round(avg(x), 2) AS a, CASE WHEN max(x) > 5 THEN 'high' END AS h FROM s",
        ),
        (Mode::Incremental, "SELECT a FROM s"),
        (Mode::Incremental, "SELECT a, x + 1 AS y FROM s WHERE x > 1 AND lower(a) LIKE 'b%'"),
        (Mode::Incremental, "SELECT DISTINCT a, lower(x) AS x FROM s WHERE x > 1"),
        (Mode::Incremental, "SELECT count(DISTINCT a) FROM s"),
        (
            Mode::Incremental,
            "SELECT a, count(DISTINCT $timestamp) FILTER (WHERE x > 0) FROM s GROUP BY a",
        ),
        (Mode::Incremental, "SELECT a, count(*) FROM s GROUP BY a HAVING count(*) > 1"),
        (Mode::Incremental, "SELECT $timestamp AS at, count(*) FROM s GROUP BY at"),
        (Mode::Recomputed, "SELECT a, x, count(*) FROM s GROUP BY a"),
        (Mode::Recomputed, "SELECT sum(DISTINCT a) FROM s"),
        (Mode::Recomputed, "SELECT DISTINCT a, count(*) FROM s GROUP BY a"),
        (Mode::Recomputed, "SELECT a FROM s LIMIT 5"),
        (Mode::Recomputed, "SELECT count(*) FROM s JOIN t ON s.a = t.a"),
        (
            Mode::Incremental,
            "SELECT count(*) FROM s WHERE $timestamp > now() - INTERVAL '5 minutes'",
        ),
        (
            Mode::Recomputed,
            "SELECT count(DISTINCT a) FROM s WHERE $timestamp > now() - INTERVAL '5 minutes'",
        ),
        (Mode::Recomputed, "SELECT a FROM s WHERE $timestamp > now() - INTERVAL '5 minutes'"),
        (
            Mode::Recomputed,
            "SELECT count(*) FROM s WHERE $timestamp < now() - INTERVAL '5 minutes'",
        ),
        (Mode::Recomputed, "SELECT count(*) FROM s WHERE a IN (SELECT a FROM t)"),
        (Mode::Recomputed, "SELECT a, count(*) FROM s GROUP BY a ORDER BY 2 DESC LIMIT 10"),
        (Mode::Recomputed, "SELECT max(n) FROM counted"),
        (Mode::Recomputed, "SELECT group_concat(a) FROM s"),
        (Mode::Recomputed, "SELECT a, sum(x) OVER (ORDER BY x) FROM s"),
        (Mode::Recomputed, "WITH t AS (SELECT a FROM s) SELECT count(*) FROM t"),
        (Mode::Recomputed, "SELECT random() AS r, count(*) FROM s"),
    ] {
        engine.process("p", query);
        let stats = engine.stats("p");
        assert_eq!(stats.mode, mode, "{query}: {:?}", stats.why);
        assert_eq!(stats.why.is_some(), mode == Mode::Recomputed, "{query}");
        engine.engine.delete_process("p").unwrap();
    }
}

#[test]
fn why_a_query_is_run_again_is_said() {
    let engine = start();
    engine.process("counted", "SELECT count(*) AS n FROM s");
    for (why, query) in [
        ("it joins", "SELECT count(*) FROM s JOIN t ON s.a = t.a"),
        ("it has ORDER BY", "SELECT a FROM s ORDER BY a"),
        ("it has LIMIT", "SELECT a FROM s LIMIT 3"),
        ("it has a subquery", "SELECT a FROM s WHERE a IN (SELECT a FROM t)"),
        ("it has WITH", "WITH t AS (SELECT a FROM s) SELECT count(*) FROM t"),
        ("it reads another process", "SELECT max(n) FROM counted"),
        ("it calls group_concat()", "SELECT group_concat(a) FROM s"),
        ("it calls the window function sum()", "SELECT sum(x) OVER (ORDER BY x) AS s FROM s"),
        ("x is neither aggregated nor grouped by", "SELECT a, x, count(*) FROM s GROUP BY a"),
    ] {
        engine.process("p", query);
        assert_eq!(engine.stats("p").why.as_deref(), Some(why), "{query}");
        engine.engine.delete_process("p").unwrap();
    }
}

#[test]
fn runs_of_what_is_computed_anew_are_few_and_counted() {
    let engine = start();
    engine.collect("s", r#"{"a": 1}"#);
    engine.process("kinds", "SELECT count(*) AS n FROM (SELECT DISTINCT a FROM s)");
    engine.collect("s", r#"[{"a": 2}, {"a": 2}]"#);
    engine.wait_until(|| engine.query("SELECT * FROM kinds") == json!([{"n": 2}]));
    engine.wait_until(|| engine.stats("kinds").runs > 1);
    let stats = engine.stats("kinds");
    assert!((1..=3).contains(&stats.runs) && stats.events == 2, "{stats:?}");
}

#[test]
fn a_window_slides_though_no_event_comes() {
    let engine = start();
    engine.collect("s", r#"[{"n": 1}, {"n": 2}]"#);
    engine.process(
        "last",
        "SELECT count(*) AS n FROM s WHERE $timestamp > now() - INTERVAL '2 seconds'",
    );
    assert_eq!(engine.query("SELECT * FROM last"), json!([{"n": 2}]));
    engine.wait_until(|| engine.query("SELECT * FROM last") == json!([{"n": 0}]));
}

#[test]
fn changes_can_be_sampled() {
    let engine = start();
    engine.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k");
    let sampled = engine.subscribe("p", Some(1));
    let events: Vec<String> = (0..100).map(|k| format!("{{\"k\": {k}}}")).collect();
    engine.collect("s", &format!("[{}]", events.join(",")));
    assert_eq!(received(&sampled).unwrap().len(), 1);
}

#[test]
fn two_columns_of_one_name_are_told_apart() {
    let engine = start();
    engine.process("p", "SELECT sum(a), sum(b) FROM s");
    engine.collect("s", r#"[{"a": 1, "b": 10, "A": 5}, {"a": 2, "b": 20}]"#);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"sum": 3, "sum_2": 30}]));
    assert_eq!(engine.query("SELECT sum_2 FROM p"), json!([{"sum_2": 30}]));
    engine.process("keys", "SELECT A AS one, a AS two, count(*) AS n FROM s GROUP BY A, a");
    assert_eq!(
        engine.query("SELECT * FROM keys ORDER BY two"),
        json!([{"one": 5, "two": 1, "n": 1}, {"one": null, "two": 2, "n": 1}])
    );
}

#[test]
fn s6_a_process_over_many_events_holds_up_nobody() {
    let engine = start();
    let events: Vec<String> =
        (0..20_000).map(|n| format!(r#"{{"n":{n},"t":"{n:0>60}"}}"#)).collect();
    for _ in 0..2 {
        engine.collect("s", &format!("[{}]", events.join(",")));
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    // As slow for each event as a pattern can be.
    let query = "SELECT n % 7 AS g, count(*) AS n, sum(t LIKE '%0%0%0%0%9%9%9%1%8%') AS likes FROM s GROUP BY 1";
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut slowest, mut count) = (Duration::ZERO, 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let start = std::time::Instant::now();
                engine.collect("s", r#"{"n": 0, "t": "x"}"#);
                slowest = slowest.max(start.elapsed());
                count += 1;
            }
            (slowest, count)
        });
        engine.process("p", query);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let (slowest, count) = other.join().unwrap();
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        assert!(count > 3, "the others wrote {count} times meanwhile");
    });
    assert_eq!(engine.stats("p").skipped, 0);
    let sorted = |sql: &str| {
        let mut rows: Vec<String> =
            engine.query(sql).as_array().unwrap().iter().map(ToString::to_string).collect();
        rows.sort();
        rows
    };
    assert_eq!(sorted("SELECT * FROM p"), sorted(query), "nothing is counted twice or left out");
    engine.collect("s", r#"{"n": 1, "t": "x"}"#);
    assert_eq!(sorted("SELECT * FROM p"), sorted(query));
}

#[test]
fn s6_what_a_process_takes_for_an_event_has_a_limit() {
    let engine = start();
    // At each place of each text the pattern is compared to its end: some 10^10 steps an event.
    let pattern = format!("%{}b%", "a".repeat(20_000));
    engine.process("p", &format!("SELECT count(*) AS n, sum(t LIKE '{pattern}') AS likes FROM s"));
    engine.process("q", "SELECT count(*) AS n FROM s");
    let slow = format!(r#"{{"t": "{}"}}"#, "a".repeat(1_900_000));
    let start = std::time::Instant::now();
    engine.collect("s", &format!("[{slow},{slow},{slow}]"));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(engine.query("SELECT * FROM q"), json!([{"n": 3}]));
    let stats = engine.stats("p");
    let error = stats.last_error.unwrap();
    assert!(stats.skipped > 0 && error.contains("ms"), "{} skipped: {error}", stats.skipped);
    engine.collect("s", r#"{"t": "ab"}"#);
    assert_eq!(engine.query("SELECT n + 0 AS n FROM q"), json!([{"n": 4}]));
}

#[test]
fn s6_a_fill_that_is_cut_short_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = super::at(&path);
    let events: Vec<String> = (0..3000).map(|n| format!("{{\"n\": {n}}}")).collect();
    engine.collect("s", &format!("[{}]", events.join(",")));
    engine.process("p", "SELECT count(*) AS n, sum(n) AS sum FROM s");
    drop(engine);
    // As a kill after the first slice would leave it.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "UPDATE process_1 SET a0 = 1000, a1 = 499500;
            INSERT INTO fills SELECT 1, (number << 40) + 1001 FROM streams",
        )
        .unwrap();
    drop(connection);
    let engine = super::at(&path);
    engine.collect("s", r#"{"n": 0}"#);
    let whole = json!([{"n": 3001, "sum": 4_498_500}]);
    engine.wait_until(|| engine.query("SELECT n, sum FROM p") == whole);
}
