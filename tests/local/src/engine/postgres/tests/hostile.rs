//! Queries that are meant to do harm, or cannot be run: whoever sends one is told why, and the server goes on.

use std::sync::Arc;
use std::time::Duration;

use postgres::{Client, NoTls};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Postgres;
use super::servers::Server;
use super::{database, is_there, skipped};
use crate::engine::{Definition, Engine as _, EngineError};
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::Hub;

/// What is no query, reads what is not a stream, or calls what does more than to compute.
const REFUSED: [&str; 48] = [
    "",
    ";",
    "SELEC 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP SCHEMA stride CASCADE",
    "DROP SCHEMA stride CASCADE",
    "DELETE FROM s",
    "INSERT INTO s VALUES (1)",
    "COPY s TO '/tmp/s'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/s'",
    "DO 'BEGIN PERFORM 1; END'",
    "SET ROLE postgres",
    "RESET ALL",
    "CALL f()",
    "BEGIN",
    "EXPLAIN ANALYZE SELECT 1",
    "LISTEN stride",
    "VACUUM",
    "SELECT 1 AS x INTO y",
    "SELECT a FROM s FOR UPDATE",
    "WITH d AS (DELETE FROM s RETURNING *) SELECT * FROM d",
    "TABLE pg_authid",
    "SELECT * FROM pg_catalog.pg_authid",
    "SELECT * FROM stride.events",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT pg_sleep(1000)",
    "SELECT pg_catalog.pg_sleep(1000)",
    "SELECT \"pg_sleep\"(1000)",
    "SELECT stride.num(1)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT current_setting('data_directory')",
    "SELECT pg_terminate_backend(1)",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SELECT repeat('x', 1000000000)",
    "SELECT lpad('x', 1000000000)",
    "SELECT 'pg_authid'::regclass",
    "SELECT CAST('x' AS oid)",
    "SELECT E'\\''",
    "SELECT $$x$$",
    "SELECT U&'\\0000'",
    "SELECT 1e200000 AS n",
    "SELECT 1e131071 * 10 AS n",
    "SELECT '{'::jsonb",
    "SELECT a FROM s ORDER BY 7",
];

/// What may look like more than it is.
fn harmless() -> Vec<(String, Value)> {
    let name = "n".repeat(10_000);
    vec![
        (format!("SELECT {name} FROM s"), json!([{ (name.clone()): null }])),
        (format!("SELECT * FROM {name}"), json!([])),
        (
            format!("WITH {name} AS (SELECT 1 AS {name}) SELECT {name} AS x FROM {name}"),
            json!([{"x": 1}]),
        ),
        (format!("SELECT length('{}') AS l", "x".repeat(90_000)), json!([{"l": 90_000}])),
        ("SELECT 'a\\'' -- ' AS x".to_owned(), json!(null)),
        ("SELECT 'a\\' AS x".to_owned(), json!([{"x": "a\\"}])),
        ("SELECT '$1 %s {} \\x41 &#39;' AS x".to_owned(), json!([{"x": "$1 %s {} \\x41 &#39;"}])),
        ("SELECT /* ' */ 1 AS x -- ; '".to_owned(), json!([{"x": 1}])),
        ("SELECT \"pg_sleep\" FROM s".to_owned(), json!([{"pg_sleep": null}])),
        (
            "SELECT 1 AS \"x\"\"; DROP SCHEMA stride\"".to_owned(),
            json!([{"x\"; DROP SCHEMA stride": 1}]),
        ),
        ("SELECT current_user FROM s".to_owned(), json!([{"current_user": null}])),
        ("SELECT '1e999'::real + 0 > 1 AS x".to_owned(), json!([{"x": true}])),
        (format!("SELECT '{}x'::int > 0 AS x", "9".repeat(90_000)), json!([{"x": true}])),
        ("SELECT exp(1e6) AS e, power(1e9, 1e9) AS p".to_owned(), json!([{"e": null, "p": null}])),
    ]
}

#[test]
fn whoever_sends_what_cannot_be_run_is_told_why() {
    if !is_there() {
        return skipped("whoever_sends_what_cannot_be_run_is_told_why");
    }
    let place = TempDir::new().unwrap();
    let limits = Limits { query_time: Duration::from_secs(60), ..Limits::default() };
    let server = Server::start_with(&database(place.path()), None, &limits);
    server.append(&json!({"s": {"a": 1}})).blocking_recv().unwrap().unwrap();
    let deep = |count: usize| format!("SELECT {}1{} AS x", "(".repeat(count), ")".repeat(count));
    let long = |count: usize| format!("SELECT 1{} AS x", " + 1".repeat(count));
    let nested =
        |count: usize| format!("SELECT {}1{} AS x", "(SELECT ".repeat(count), ")".repeat(count));
    let calls =
        |count: usize| format!("SELECT {}a{} AS x FROM s", "abs(".repeat(count), ")".repeat(count));
    let mut refused: Vec<String> = REFUSED.map(str::to_owned).to_vec();
    refused.extend([10_000, 1_000_000].map(deep));
    refused.extend([100_000].map(long));
    refused.extend([10_000].map(nested));
    refused.extend([10_000].map(calls));
    refused.push("SELECT 'a\0b' AS x".to_owned());
    refused.push(format!("SELECT {} AS x", "9".repeat(200_000)));
    let is_refused = |sql: &str| {
        let error = server.engine.query(sql, &[]).map(|rows| rows.json.len());
        let start: String = sql.chars().take(60).collect();
        assert!(
            matches!(&error, Err(EngineError::Invalid(why)) if !why.is_empty()),
            "{start}: {error:?}"
        );
        let definition = Definition { query: sql.to_owned(), ttl: None };
        let error = server.engine.create_process("p", &definition);
        assert!(matches!(error, Err(EngineError::Invalid(_))), "{start}: {error:?}");
    };
    refused.iter().for_each(|sql| is_refused(sql));
    // These are either run or refused, and do no harm.
    for sql in
        [deep(40), deep(300), long(900), long(9000), nested(40), nested(300), calls(40), calls(400)]
    {
        match server.engine.query(&sql, &[]) {
            Ok(rows) => assert!(rows.json.starts_with(b"[{"), "{:?}", rows.json),
            Err(error) => assert!(matches!(error, EngineError::Invalid(_)), "{error:?}"),
        }
    }
    for (sql, rows) in harmless() {
        if !rows.is_null() {
            assert_eq!(server.query(&sql), rows, "{}", sql.chars().take(60).collect::<String>());
        }
    }
    for value in ["a\0b", "'; DROP SCHEMA stride; --", "\\", "$1"] {
        let given = [("v".to_owned(), json!(value))];
        let rows = server.engine.query("SELECT :v AS v", &given);
        match rows {
            Ok(rows) => assert_eq!(
                serde_json::from_slice::<Value>(&rows.json).unwrap(),
                json!([{ "v": value }])
            ),
            Err(error) => assert!(
                value.contains('\0') && matches!(error, EngineError::Invalid(_)),
                "{error:?}"
            ),
        }
    }
    assert_eq!(server.query("SELECT a FROM s"), json!([{"a": 1}]));
}

#[test]
fn a_database_of_another_version_is_refused() {
    if !is_there() {
        return skipped("a_database_of_another_version_is_refused");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    drop(Server::start(&url, None));
    let mut admin = Client::connect(&url, NoTls).unwrap();
    admin.batch_execute("UPDATE stride.meta SET value = 1 WHERE key = 'version'").unwrap();
    let announcer = Announcer {
        subscribers: Arc::new(Hub::new(1 << 20)),
        rates: Arc::default(),
        changes: Arc::default(),
    };
    let refused = Postgres::open(&url, None, &Limits::default(), Arc::new(announcer));
    assert!(refused.unwrap_err().to_string().contains("the database is of version 1"));
}
