//! What a process is to be is checked when it is made, and what it lacks later is said.

use serde_json::json;

use super::{Engine, EngineError, start};
use crate::engine::Mode;

fn refused(result: Result<(), EngineError>, names: &str) {
    match result {
        Err(EngineError::Invalid(why)) => assert!(why.contains(names), "{names}: {why}"),
        other => panic!("{names}: {other:?}"),
    }
}

#[test]
fn q2_a_constant_to_group_by_is_a_key_like_any_other() {
    let engine = start();
    for (name, query) in [
        ("zero", "SELECT 0 AS shard, page, count(*) AS n FROM s GROUP BY 1, 2"),
        ("named", "SELECT 7 AS shard, page, count(*) AS n FROM s GROUP BY shard, page"),
        ("negative", "SELECT -1 AS shard, page, count(*) AS n FROM s GROUP BY 1, 2"),
        ("text", "SELECT 'x' AS shard, page, count(*) AS n FROM s GROUP BY 1, 2"),
        ("null_key", "SELECT NULL AS shard, page, count(*) AS n FROM s GROUP BY 1, 2"),
        ("truth", "SELECT true AS shard, page, count(*) AS n FROM s GROUP BY 1, 2"),
        ("alone", "SELECT 2 AS shard, count(*) AS n FROM s GROUP BY 1"),
    ] {
        engine.process(name, query);
        assert_eq!(engine.stats(name).mode, Mode::Incremental, "{query}");
        assert_eq!(engine.query(&format!("SELECT * FROM {name}")), json!([]), "{query}");
    }
    engine.collect("s", r#"[{"page": "/"}, {"page": "/about"}, {"page": "/"}]"#);
    engine.collect("s", r#"{"page": "/"}"#);
    for name in ["zero", "named", "negative", "text", "null_key", "truth", "alone"] {
        let query = engine.engine.process(name).unwrap().query;
        let kept = engine.query(&format!("SELECT * FROM {name} ORDER BY n"));
        assert_eq!(kept, engine.query(&format!("{query} ORDER BY n")), "{query}");
        assert_eq!(engine.stats(name).skipped, 0, "{query}");
    }
}

#[test]
fn q3_what_can_only_fail_is_refused_when_it_is_made() {
    let engine = start();
    for (query, names) in [
        (
            "SELECT date_trunc('quarter', \"$timestamp\") AS q, count(*) FROM s GROUP BY 1",
            "quarter",
        ),
        // No made-up event is of this page, so that the call itself has to be looked at.
        (
            "SELECT date_trunc('fortnight', at) AS f, count(*) FROM s WHERE page = '/' GROUP BY 1",
            "fortnight",
        ),
        ("SELECT count(*) FROM s WHERE json_extract(o, 'a.b') = 1", "path"),
        ("SELECT count(*) FROM s WHERE page LIKE 'a' ESCAPE 'no'", "ESCAPE"),
        ("SELECT json('{') AS j, count(*) FROM s GROUP BY 1", "malformed"),
        ("SELECT sum(abs(-9223372036854775808 + 0 * length(page))) FROM s", "overflow"),
        ("SELECT DISTINCT date_trunc('quarter', \"$timestamp\") AS q FROM s", "quarter"),
    ] {
        refused(engine.try_process("p", query), names);
    }
    refused(engine.engine.save_query("a", "SELECT date_trunc('quarter', at) FROM s"), "quarter");
    // What may go well at some events, or at none that are made up, is not refused.
    engine.process("some", "SELECT date_trunc('day', at) AS d, sum(abs(x)) FROM s GROUP BY 1");
    engine
        .process("patched", "SELECT json_patch(o, '{\"b\": 2}') AS o, count(*) FROM s GROUP BY 1");
    engine.process("unit", "SELECT date_trunc(unit, at) AS d, count(*) FROM s GROUP BY 1");
    engine.process("path", "SELECT json_extract(o, path) AS v FROM s");
    // Much of it is made of little, and none of it by SQLite's own limits.
    let large = "SELECT printf('%.*c', 100000000, 'x') AS t, count(*) FROM s GROUP BY 1";
    refused(engine.try_process("large", large), "too big");
    engine.process("of", "SELECT count(*) AS n, max(d) AS d FROM some WHERE d > '2015-01-01'");
}

#[test]
fn q5_an_event_that_a_recomputed_query_fails_at_is_left_out_and_counted() {
    let engine = start();
    // The first is there when the process is made.
    engine.collect("s", r#"[{"tags": ["a", "b"]}, {"tags": "oops"}]"#);
    engine
        .process("tags", "SELECT value AS tag, count(*) AS n FROM s, json_each(s.tags) GROUP BY 1");
    let rows = || engine.query("SELECT * FROM tags ORDER BY tag");
    assert_eq!(rows(), json!([{"tag": "a", "n": 1}, {"tag": "b", "n": 1}]));
    assert_eq!(engine.stats("tags").skipped, 1);
    engine.collect("s", r#"[{"tags": ["b"]}, {"tags": "no"}, {"tags": []}, {"tags": "{"}]"#);
    engine.collect("s", r#"{"tags": ["b", "c"]}"#);
    let all = json!([{"tag": "a", "n": 1}, {"tag": "b", "n": 3}, {"tag": "c", "n": 1}]);
    engine.wait_until(|| rows() == all);
    let stats = engine.stats("tags");
    assert_eq!((stats.skipped, stats.stale), (3, false), "{:?}", stats.last_error);
    assert!(stats.last_error.unwrap().contains("malformed JSON"));
    assert_eq!(engine.engine.counters().skipped_events, 3);
    assert_eq!(engine.engine.counters().stale_processes, 0);
}

#[test]
fn q5_the_event_that_fails_is_found_in_the_stream_that_it_is_of() {
    let engine = start();
    let users: Vec<String> = (0..300).map(|n| format!(r#"{{"user": {n}}}"#)).collect();
    engine.collect("users", &format!("[{}]", users.join(",")));
    engine.collect(
        "carts",
        r#"[{"of": 1, "items": "[1,2]"}, {"of": 2, "items": "[1"}, {"of": 3, "items": "[]"}]"#,
    );
    engine.process(
        "items",
        "SELECT user, json_array_length(items) AS n FROM users JOIN carts ON carts.of = users.user",
    );
    let rows = engine.query("SELECT * FROM items ORDER BY user");
    assert_eq!(rows, json!([{"user": 1, "n": 2}, {"user": 3, "n": 0}]));
    assert_eq!(engine.stats("items").skipped, 1);
}
