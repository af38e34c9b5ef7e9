//! SQL that means harm: a clear error each time, and everything goes on.

use std::time::Duration;

use serde_json::json;

use super::{Engine, EngineError, limits, start, start_with};
use crate::settings::Limits;

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
    let limits = Limits {
        query_time: Duration::from_millis(300),
        query_rows: 1000,
        query_bytes: 100_000,
        ..limits()
    };
    let engine = start_with(&limits);
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

/// Runs a query that is to be stopped, and says how long that took.
fn stopped_after(engine: &super::Fixture, sql: &str) -> Duration {
    let start = std::time::Instant::now();
    let refused = engine.try_query(sql);
    assert!(matches!(refused, Err(EngineError::Invalid(_))), "{sql}: {refused:?}");
    start.elapsed()
}

#[test]
fn s7_the_time_of_a_query_holds_whatever_it_calls() {
    let limits = Limits {
        query_time: Duration::from_millis(200),
        query_rows: 1000,
        query_bytes: 100_000,
        ..limits()
    };
    let engine = start_with(&limits);
    let like = "SELECT sum(printf('%.*c', 3000000, 'a') LIKE '%a%a%a%a%a%b%' || n) AS x FROM n";
    for sql in [
        like,
        &like.replace("LIKE '%a%a%a%a%a%b%'", "GLOB '*a*a*a*a*a*b*'"),
        "SELECT sum(\"like\"('%a%a%a%a%a%b%' || n, printf('%.*c', 3000000, 'a'))) AS x FROM n",
        "SELECT sum(instr(printf('%.*c', 3000000, 'a'), printf('%.*c', 1500000, 'a') || 'b')) AS x FROM n",
        "SELECT sum(length(\"trim\"(printf('%.*c', 3000000, 'a'), printf('%.*c', 20000, 'b') || 'a'))) AS x FROM n",
        "SELECT sum(length(replace(printf('%.*c', 3000000, 'a'), printf('%.*c', 1500000, 'a') || 'b', 'c'))) AS x FROM n",
        "SELECT sum(length(json_patch(j, j))) AS x FROM (SELECT json_group_object('k' || n, n) AS j
         FROM (SELECT n FROM n LIMIT 50000)), n",
    ] {
        let numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n)";
        let took = stopped_after(&engine, &format!("{numbers} {sql}"));
        assert!(took < Duration::from_secs(2), "{sql}: {took:?}");
    }
}

#[test]
fn s7_functions_that_are_made_anew_are_as_sqlites() {
    let engine = start();
    let own = rusqlite::Connection::open_in_memory().unwrap();
    // As in PostgreSQL.
    own.pragma_update(None, "case_sensitive_like", true).unwrap();
    let texts = [
        "''", "'a'", "'ab'", "'Aé'", "'a%b_c'", "'  ab '", "'[x]'", "'x-y'", "NULL", "12", "1.5",
        "1e20",
    ];
    let patterns = [
        "'%'", "'A_'", "'_é'", "'a!%%'", "'a*'", "'[a-c]*'", "'[^a]*'", "'[]x]'", "'?'", "''",
        "' '", "'ba'", "'%b%'", "NULL", "1",
    ];
    for text in texts {
        for pattern in patterns {
            for call in [
                format!("{text} LIKE {pattern}"),
                format!("{text} NOT LIKE {pattern}"),
                format!("{text} GLOB {pattern}"),
                format!("instr({text}, {pattern})"),
                format!("replace({text}, {pattern}, 'é')"),
                format!("trim({text}, {pattern})"),
                format!("ltrim({text}, {pattern})"),
                format!("rtrim({text}, {pattern})"),
                format!("trim({text})"),
            ] {
                let sql = format!("SELECT json_array({call}) AS x");
                let expected: String = own.query_row(&sql, [], |row| row.get(0)).unwrap();
                let rows = engine.query(&sql);
                assert_eq!(rows, json!([{ "x": expected }]), "{call}");
            }
        }
    }
    for (target, patch) in [
        (r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"c":null,"e":[1]},"a":"x","f":null}"#),
        ("[1]", r#"{"a":{"b":null}}"#),
        ("{}", "5"),
    ] {
        let sql = format!("SELECT json_patch('{target}', '{patch}') AS x");
        let expected: String = own.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(engine.query(&sql), json!([{ "x": expected }]));
    }
    assert_eq!(engine.query("SELECT 'a%b' LIKE 'a!%_' ESCAPE '!' AS x"), json!([{"x": true}]));
    engine.collect("s", r#"{"o": {"a": 1}}"#);
    assert_eq!(
        engine.query(r#"SELECT json_array(json_patch(o, '{"b":2}')) AS x FROM s"#),
        json!([{"x": r#"[{"a":1,"b":2}]"#}])
    );
    assert!(engine.try_query("SELECT unhex('61', 'x') AS x").is_err(), "nobody has looked at it");
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

#[test]
fn s8_columns_times_parts_are_refused_at_once() {
    let thread = std::thread::Builder::new().stack_size(crate::sql::STACK);
    thread.spawn(wide).unwrap().join().unwrap();
}

fn wide() {
    let engine = start();
    let keys: Vec<String> = (0..998).map(|n| format!("\"key{n}\": {n}")).collect();
    engine.collect("s", &format!("{{{}}}", keys.join(",")));
    assert_eq!(engine.query("SELECT * FROM s")[0].as_object().unwrap().len(), 1000);
    let doubled: Vec<String> = (1..30)
        .map(|n| format!("c{n} AS (SELECT * FROM c{0} UNION ALL SELECT * FROM c{0})", n - 1))
        .collect();
    let renamed: Vec<String> =
        (0..800).map(|n| format!("c{n} AS (SELECT t{0} AS t{n} FROM c{0})", n + 1)).collect();
    for sql in [
        format!(
            "WITH {}, c800 AS (SELECT $timestamp AS t800 FROM s) SELECT t0 FROM c0",
            renamed.join(", ")
        ),
        vec!["SELECT * FROM s"; 400].join(" UNION ALL "),
        format!("SELECT 1 AS x FROM {}", vec!["(SELECT * FROM s)"; 60].join(", ")),
        format!("SELECT {} FROM s", vec!["s.*"; 60].join(", ")),
        format!("WITH c0 AS (SELECT key1 FROM s), {} SELECT count(*) FROM c29", doubled.join(", ")),
        format!(
            "SELECT * FROM (WITH c0 AS (SELECT key1 FROM s), {} SELECT count(*) AS n FROM c29)",
            doubled.join(", ")
        ),
    ] {
        let took = stopped_after(&engine, &sql);
        // A second, or several on a machine that others use; without the limits it would be minutes.
        assert!(took < Duration::from_secs(30), "{took:?}");
        let start = std::time::Instant::now();
        assert!(engine.try_process("p", &sql).is_err());
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
    // What people write is far below.
    engine.query(&["SELECT * FROM s"; 5].join(" UNION ALL "));
}

/// The first of these sizes, from the largest, of which a process is accepted.
fn largest(engine: &super::Fixture, name: &str, query: impl Fn(usize) -> String) {
    let sizes = [3000, 2000, 1000, 900, 500, 475, 400, 300, 200, 100, 48, 30, 10];
    let accepted = sizes.into_iter().find(|size| engine.try_process(name, &query(*size)).is_ok());
    assert!(accepted.is_some(), "{name}");
}

#[test]
fn s2_what_was_accepted_can_be_started_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let defined = path.clone();
    let thread = std::thread::Builder::new().stack_size(crate::sql::STACK);
    let define = move || {
        let engine = super::at(&defined);
        engine.collect("s", r#"{"a": 1}"#);
        largest(&engine, "unions", |n| vec!["SELECT a FROM s"; n].join(" UNION ALL "));
        largest(&engine, "sums", |n| format!("SELECT {} AS x FROM s", vec!["a"; n].join(" + ")));
        largest(&engine, "grouped", |n| {
            format!("SELECT count(*) AS n FROM s WHERE {}", vec!["a = 1"; n].join(" AND "))
        });
        largest(&engine, "nested", |n| {
            format!("SELECT {}a{} AS x FROM s", "(".repeat(n), ")".repeat(n))
        });
        largest(&engine, "parts", |n| {
            format!("SELECT a FROM {}s{}", "(SELECT a FROM ".repeat(n), ")".repeat(n))
        });
        largest(&engine, "calls", |n| {
            format!("SELECT {}a{} AS x FROM s", "abs(".repeat(n), ")".repeat(n))
        });
        largest(&engine, "keys", |n| {
            let keys: Vec<String> = (0..n).map(|k| format!("sum(k{k}) AS k{k}")).collect();
            format!("SELECT {} FROM s", keys.join(", "))
        });
    };
    thread.spawn(define).unwrap().join().unwrap();
    let again = move || {
        let engine = super::at(&path);
        assert_eq!(engine.engine.processes().unwrap().len(), 7);
        engine.collect("s", r#"{"a": 1}"#);
        assert_eq!(engine.query("SELECT n FROM grouped"), json!([{"n": 2}]));
        engine.wait_until(|| engine.query("SELECT count(*) AS n FROM nested") == json!([{"n": 2}]));
    };
    let small = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    small.spawn(again).unwrap().join().unwrap();
}

#[test]
fn a_text_made_of_bytes_is_no_failure() {
    let engine = start();
    engine.collect("s", r#"{"o": {"k": 1}}"#);
    engine.process("p", "SELECT CAST('a' || o AS TEXT) AS x, 'b' || x'FF' AS y FROM s");
    engine.process("q", "SELECT 'b' || x'FF' || o AS y, count(*) AS n FROM s GROUP BY 1");
    engine.collect("s", r#"{"o": {"k": 2}}"#);
    engine.wait_until(|| engine.query("SELECT count(*) AS n FROM p") == json!([{"n": 2}]));
    assert_eq!(engine.query("SELECT sum(n) AS n FROM q"), json!([{"n": 2}]));
}

#[test]
fn s8_a_process_has_no_more_columns_than_a_table() {
    let engine = start();
    let keys: Vec<String> = (0..998).map(|n| format!("\"key{n}\": {n}")).collect();
    for stream in ["s", "t"] {
        engine.collect(stream, &format!("{{{}}}", keys.join(",")));
    }
    let averages: Vec<String> =
        (0..600).map(|n| format!("avg(key{n}), min(key{n}), max(key{n})")).collect();
    for query in [
        "SELECT * FROM s JOIN t ON s.key1 = t.key1".to_owned(),
        format!("SELECT {} FROM s", averages.join(", ")),
    ] {
        let refused = engine.try_process("p", &query);
        assert!(matches!(refused, Err(EngineError::Invalid(_))), "{refused:?}");
    }
    // One that comes to it later keeps what it had, and says why.
    engine.collect("u", r#"{"key1": 1}"#);
    engine.process("grows", "SELECT * FROM s JOIN u ON s.key1 = u.key1");
    engine.collect("u", &format!("{{{}}}", keys.join(",")));
    engine.wait_until(|| engine.stats("grows").last_error.is_some());
    engine.query("SELECT count(*) AS n FROM grows");
}

#[test]
fn s2_the_longest_chains_are_neither_the_end_of_the_stack_nor_slow() {
    let engine = start();
    engine.collect("s", r#"{"a": 1}"#);
    for (link, words) in [
        (" + a", 2),
        (" IS NULL", 2),
        ("::timestamp", 3),
        (" AT TIME ZONE 'utc'", 4),
        (" BETWEEN a AND a", 4),
        (" UNION SELECT a", 3),
        (", s", 2),
    ] {
        let from = if link == ", s" { " FROM s" } else { "" };
        let sql = format!("SELECT a{from}{}", link.repeat(9_990 / words));
        // SQLite refuses most of them. What has too many words would not get that far.
        let refused = engine.try_query(&sql).err().map(|error| error.to_string());
        assert!(!refused.is_some_and(|why| why.ends_with(" words")), "{link}");
        assert!(engine.try_process("p", &sql).is_err(), "{link}");
    }
}
