//! SQL that means harm: a clear error each time, and everything goes on.

use std::time::Duration;

use serde_json::json;

use super::{Engine, EngineError, Settings, settings, start, start_with};
use crate::engine::read::QueryLimits;

/// Each of these is an error of whoever sent it.
const BAD: [&str; 36] = [
    "",
    ";",
    "nonsense",
    "SELECT",
    "SELECT 1; DROP TABLE events",
    "DROP TABLE events",
    "DELETE FROM s",
    "INSERT INTO s VALUES (1)",
    "INSERT INTO events SELECT * FROM events",
    "UPDATE s SET a = 1",
    "REPLACE INTO s VALUES (1)",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t (a)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END",
    "ALTER TABLE events ADD COLUMN x",
    "ATTACH DATABASE 'other.db' AS other",
    "DETACH DATABASE main",
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = DELETE",
    "VACUUM INTO 'copy.db'",
    "REINDEX",
    "BEGIN",
    "COMMIT",
    "EXPLAIN SELECT 1",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "SELECT * FROM main.events",
    "SELECT * FROM temp.sqlite_schema",
    "SELECT * FROM pragma_database_list()",
    "SELECT * FROM pragma_table_info('events')",
    "SELECT 1 WHERE 1 IN events",
    "SELECT load_extension('evil.so')",
    "SELECT readfile('/etc/passwd')",
    "SELECT no_such_function(1)",
    "SELECT * FROM s NATURAL JOIN t",
    "SELECT x'FF' AS blob",
];

#[test]
fn what_is_no_query_is_refused_and_changes_nothing() {
    let engine = start();
    engine.collect("s", r#"{"a": 1}"#);
    engine.collect("events", r#"{"a": 2}"#);
    for sql in BAD {
        let refused = engine.try_query(sql);
        assert!(matches!(refused, Err(EngineError::Invalid(_))), "{sql}: {refused:?}");
        let refused = engine.try_process("p", sql);
        // A process keeps what it cannot show.
        if sql != "SELECT x'FF' AS blob" {
            assert!(matches!(refused, Err(EngineError::Invalid(_))), "{sql}: {refused:?}");
        }
    }
    assert_eq!(engine.query("SELECT a FROM s"), json!([{"a": 1}]));
    assert_eq!(engine.query("SELECT a FROM events"), json!([{"a": 2}]));
    engine.collect("s", r#"{"a": 3}"#);
}

#[test]
fn what_takes_too_much_is_stopped() {
    // As large as those of the server's threads: what is parsed is deep before it is refused.
    let thread = std::thread::Builder::new().stack_size(128 * 1024 * 1024);
    thread.spawn(greedy).unwrap().join().unwrap();
}

fn greedy() {
    let limits = QueryLimits { time: Duration::from_millis(300), rows: 1000, bytes: 100_000 };
    let engine = start_with(&Settings { limits, ..settings() });
    let events: Vec<String> = (0..2000).map(|n| format!("{{\"n\": {n}}}")).collect();
    engine.collect("s", &format!("[{}]", events.join(",")));
    let endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)";
    for (sql, why) in [
        (format!("{endless} SELECT max(n) FROM r"), "ms"),
        (format!("{endless} SELECT n FROM r"), "rows"),
        ("SELECT count(*) FROM s a, s b, s c, s d".to_owned(), "ms"),
        ("SELECT * FROM s".to_owned(), "rows"),
        ("SELECT zeroblob(1000000000) AS z".to_owned(), "too big"),
        ("SELECT printf('%1000000000d', 1) AS p".to_owned(), "too big"),
        (
            "SELECT length(replace(hex(zeroblob(2000000)), '0', '00000000')) AS n".to_owned(),
            "too big",
        ),
        ("SELECT group_concat(printf('%10000d', n)) AS g FROM s".to_owned(), "too big"),
        ("SELECT printf('%1000000d', n) AS p FROM s LIMIT 10".to_owned(), "larger"),
        (format!("SELECT {} AS x", vec!["1"; 3000].join("+")), "depth"),
        (format!("SELECT {}", vec!["1"; 3000].join(", ")), "columns"),
        (vec!["SELECT 1"; 600].join(" UNION ALL "), "compound"),
    ] {
        let error = engine.try_query(&sql).unwrap_err();
        let shown = &sql[..sql.len().min(80)];
        assert!(matches!(&error, EngineError::Invalid(is) if is.contains(why)), "{shown}: {error}");
        let process = engine.try_process("p", &sql).unwrap_err();
        let _ = engine.engine.delete_process("p");
        assert!(matches!(&process, EngineError::Invalid(_)), "{shown}: {process}");
    }
    assert_eq!(engine.query("SELECT count(*) FROM s"), json!([{"count": 2000}]));
}

#[test]
fn what_no_limit_can_interrupt_is_short() {
    let engine = start();
    for sql in [
        "SELECT instr(printf('%.*c', 1000000, 'a'), printf('%.*c', 500000, 'a') || 'b') AS x",
        "SELECT trim(printf('%.*c', 1000000, 'a'), printf('%.*c', 20000, 'b') || 'a') AS x",
        "SELECT replace('a', printf('%.*c', 20000, 'b'), 'c') AS x",
    ] {
        assert_eq!(engine.query(sql), json!([{"x": null}]), "{sql}");
    }
    assert_eq!(engine.query("SELECT instr('abc', 'c') AS x"), json!([{"x": 3}]));
    assert_eq!(engine.query("SELECT trim('abca', 'a') AS x"), json!([{"x": "bc"}]));
    let columns: Vec<String> = (0..400).map(|n| format!("a || '{n}' AS c{n}")).collect();
    let sql = format!(
        "WITH t AS (SELECT printf('%.*c', 3900000, 'a') AS a) SELECT {} FROM t",
        columns.join(", ")
    );
    assert!(matches!(engine.try_query(&sql), Err(EngineError::Invalid(_))));
}

#[test]
fn events_that_a_process_fails_at_harm_nobody_else() {
    let engine = start();
    engine.process("p", "SELECT count(*) AS n, sum(abs(x)) AS s FROM s");
    engine.process("q", "SELECT count(*) AS n FROM s");
    // There is no absolute value of the least integer.
    engine.collect("s", r#"[{"x": 1}, {"x": -9223372036854775808}, {"x": 2}, {"x": -3}]"#);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 3, "s": 6}]));
    assert_eq!(engine.query("SELECT * FROM q"), json!([{"n": 4}]));
    let stats = engine.stats("p");
    assert_eq!((stats.events, stats.skipped), (4, 1));
    assert!(stats.last_error.unwrap().contains("overflow"));
}
