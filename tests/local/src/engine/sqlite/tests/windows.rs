//! Windows cost what is in them, and find all of it.

use serde_json::json;
use time::OffsetDateTime;

use super::{Fixture, at, limits, start, start_with};
use crate::engine::Mode;
use crate::events::timestamp;
use crate::settings::Limits;

/// A time so many seconds ago, as RFC 3339.
fn ago(seconds: i64) -> String {
    timestamp::rfc3339(OffsetDateTime::now_utc() - time::Duration::seconds(seconds))
}

/// Collects events that happened so many seconds ago.
fn collect(engine: &Fixture, stream: &str, ages: impl IntoIterator<Item = i64>) {
    let ages: Vec<i64> = ages.into_iter().collect();
    for ages in ages.chunks(5000) {
        let event = |age: &i64| format!(r#"{{"n":{age},"$timestamp":"{}"}}"#, ago(*age));
        let events: Vec<String> = ages.iter().map(event).collect();
        engine.collect(stream, &format!("[{}]", events.join(",")));
    }
}

/// The steps of one run of a window of five minutes with 1,000 events in it, and `before` older ones.
fn steps_of_a_window(before: usize) -> u64 {
    let engine = start();
    collect(&engine, "s", std::iter::repeat_n(3600, before).chain(std::iter::repeat_n(1, 1000)));
    engine.process(
        "w",
        "SELECT count(*) AS n, count(DISTINCT n) AS d FROM s WHERE $timestamp > now() - INTERVAL '5 minutes'",
    );
    assert_eq!(engine.query("SELECT * FROM w"), json!([{"n": 1000, "d": 1}]));
    let stats = engine.stats("w");
    assert_eq!(stats.mode, Mode::Recomputed);
    stats.steps / stats.runs
}

#[test]
fn q10_a_window_costs_what_is_in_it() {
    let (few, many) = (steps_of_a_window(5_000), steps_of_a_window(40_000));
    assert!(many <= 2 * few, "{few} and {many} steps");
}

#[test]
#[ignore = "a million events; .ci/run runs it in release"]
fn q10_a_window_over_a_million_events_costs_what_is_in_it() {
    let (few, many) = (steps_of_a_window(10_000), steps_of_a_window(999_000));
    assert!(many <= 3 * few, "{few} and {many} steps");
}

#[test]
fn q10_a_window_in_which_nothing_changes_is_not_run_again() {
    let engine = start();
    collect(&engine, "s", std::iter::repeat_n(1, 2000));
    for window in 0..40 {
        engine.process(
            &format!("w{window}"),
            &format!(
                "SELECT count(*) AS n, count(DISTINCT n) AS d FROM s
                WHERE $timestamp > now() - INTERVAL '{} s'",
                600 + window
            ),
        );
    }
    engine.process("other", "SELECT count(*) AS n FROM t ORDER BY 1");
    // All have had their turn when this one has had some.
    for run in 2..5 {
        engine.collect("t", "{}");
        engine.wait_until(|| engine.stats("other").runs >= run);
    }
    for window in 0..40 {
        let stats = engine.stats(&format!("w{window}"));
        // When it was made, and once more for what may have come meanwhile.
        assert!(stats.runs <= 2, "window {window}: {} runs", stats.runs);
    }
    engine.collect("s", "{}");
    engine.wait_until(|| engine.query("SELECT n FROM w39") == json!([{"n": 2001}]));
}

#[test]
fn q10_a_window_finds_what_is_in_it_however_late_it_came() {
    // So few are kept that the first blocks go.
    let engine = start_with(&Limits { max_events: 6000, ..limits() });
    let mut random = fastrand::Rng::with_seed(16);
    for _ in 0..8 {
        let ages: Vec<i64> = (0..1000)
            .map(|_| match random.u8(..) {
                0..2 => -3600,
                2..4 => random.i64(0..900),
                _ => random.i64(900..100_000),
            })
            // None leaves a window between two queries that are to give the same.
            .filter(|age| !(500..700).contains(age) && !(3400..3700).contains(age))
            .collect();
        collect(&engine, "s", ages);
        engine.collect("s", r#"[{"n": 0}, {"n": 0, "$timestamp": "2100-01-01T00:00:00+02:00"}]"#);
    }
    engine.collect("t", &json!([{"of": 1, "$timestamp": ago(5)}, {"of": 2}]).to_string());
    let least = (ago(600), ago(3000));
    for (window, plain) in [
        (
            "$timestamp > now() - INTERVAL '10 minutes'",
            "NOT ($timestamp <= now() - INTERVAL '10 minutes')",
        ),
        ("$timestamp >= '{0}'", "NOT ($timestamp < '{0}')"),
        ("'{1}' < s.$timestamp AND n % 2 = 0", "NOT ('{1}' >= s.$timestamp) AND n % 2 = 0"),
        ("$timestamp BETWEEN '{1}' AND '{0}'", "NOT ($timestamp NOT BETWEEN '{1}' AND '{0}')"),
        ("($timestamp > utc('{0}'))", "NOT ($timestamp <= utc('{0}'))"),
        ("utc($timestamp) > '{0}'", "NOT (utc($timestamp) <= '{0}')"),
        (
            "$timestamp > datetime('now', '-1 hour')",
            "NOT ($timestamp <= datetime('now', '-1 hour'))",
        ),
        ("$timestamp > '2099-01-01'", "NOT ($timestamp <= '2099-01-01')"),
        ("$timestamp > '2101-01-01'", "NOT ($timestamp <= '2101-01-01')"),
        (
            "$timestamp > '{0}' OR $timestamp > '{1}'",
            "NOT ($timestamp <= '{0}' AND $timestamp <= '{1}')",
        ),
        (
            "$timestamp > '{0}' AND $timestamp > '{1}'",
            "NOT ($timestamp <= '{0}' OR $timestamp <= '{1}')",
        ),
        (
            "$timestamp > '{0}' AND n IN (SELECT of FROM t WHERE $timestamp > now() - INTERVAL '1 h')",
            "NOT ($timestamp <= '{0}') AND n IN (SELECT of FROM t)",
        ),
    ] {
        let fill = |condition: &str| condition.replace("{0}", &least.0).replace("{1}", &least.1);
        let ask = |condition: &str| {
            engine.query(&format!("SELECT n, $id FROM s WHERE {}", fill(condition)))
        };
        assert_eq!(ask(window), ask(plain), "{window}");
    }
    let joined = |condition: &str| {
        engine.query(&format!(
            "SELECT s.n, t.of FROM t LEFT JOIN s ON s.n = t.of WHERE {}",
            condition.replace("{0}", &least.0)
        ))
    };
    let plain = joined("NOT (s.$timestamp <= '{0}') AND NOT (t.$timestamp <= '{0}')");
    assert_eq!(joined("s.$timestamp > '{0}' AND t.$timestamp > '{0}'"), plain);
}

#[test]
fn q8_the_time_of_arrival_is_a_column() {
    let engine = start();
    collect(&engine, "s", [7200, 7200]);
    let fresh = "SELECT count(*) AS n FROM s WHERE arrival_timestamp > clock_timestamp() - INTERVAL '1 hour'";
    assert_eq!(engine.query(fresh), json!([{"n": 2}]));
    let old = "SELECT count(*) AS n FROM s WHERE arrival_timestamp < '2020-01-01'";
    assert_eq!(engine.query(old), json!([{"n": 0}]));
    let differ = "SELECT n FROM s WHERE arrival_timestamp > $timestamp AND n > 0 LIMIT 1";
    assert_eq!(engine.query(differ), json!([{"n": 7200}]));
    let star = engine.query("SELECT * FROM s LIMIT 1");
    assert!(star[0].get("arrival_timestamp").is_none(), "{star}");
    engine.process(
        "p",
        "SELECT minute(arrival_timestamp) > '2020-01-01' AS late, count(*) AS n FROM s GROUP BY 1",
    );
    assert_eq!(engine.query("SELECT n FROM p WHERE late"), json!([{"n": 2}]));
    // A key of that name is a key like any other.
    engine.collect("k", r#"{"arrival_timestamp": "noon"}"#);
    assert_eq!(engine.query("SELECT arrival_timestamp AS at FROM k"), json!([{"at": "noon"}]));
}

#[test]
fn q10_events_of_an_earlier_version_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = at(&path);
    collect(&engine, "s", [1, 2, 7200]);
    drop(engine);
    rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE blocks").unwrap();
    let engine = at(&path);
    let window = "SELECT count(*) AS n FROM s WHERE $timestamp > now() - INTERVAL '1 hour'";
    assert_eq!(engine.query(window), json!([{"n": 2}]));
    collect(&engine, "s", [3]);
    assert_eq!(engine.query(window), json!([{"n": 3}]));
}
