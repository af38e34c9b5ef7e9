//! What the names in a query mean.

use serde_json::json;

use super::{at, start};

const JOINED: &str =
    "SELECT name, count(DISTINCT url) AS n FROM users JOIN clicks ON uid = user GROUP BY name";

#[test]
fn q5_the_names_of_a_process_mean_what_they_did_when_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = at(&path);
    engine.collect("users", r#"{"uid": 1, "name": "a"}"#);
    engine.collect("clicks", r#"{"user": 1, "url": "x"}"#);
    engine.process("p", JOINED);
    // A key of the other stream, too: in a query that is new, the name could mean either.
    engine.collect("clicks", r#"{"user": 1, "url": "y", "name": "b", "uid": 7}"#);
    engine.wait_until(|| engine.query("SELECT * FROM p") == json!([{"name": "a", "n": 2}]));
    assert!(engine.try_query(JOINED).unwrap_err().to_string().contains("ambiguous"));
    assert!(!engine.stats("p").stale);
    drop(engine);
    let engine = at(&path);
    engine.collect("clicks", r#"{"user": 1, "url": "z", "name": "c"}"#);
    engine.wait_until(|| engine.query("SELECT * FROM p") == json!([{"name": "a", "n": 3}]));
}

#[test]
fn q5_a_process_that_is_made_before_its_events_learns_what_its_names_mean() {
    let engine = start();
    engine.process("p", JOINED);
    engine.process("q", "SELECT A AS one, a AS two, n FROM later WHERE a > 1 ORDER BY n");
    assert_eq!(engine.query("SELECT * FROM p"), json!([]));
    engine.collect("users", r#"{"uid": 1, "name": "a"}"#);
    engine.collect("clicks", r#"{"user": 1, "url": "x"}"#);
    engine.wait_until(|| engine.query("SELECT * FROM p") == json!([{"name": "a", "n": 1}]));
    engine.collect("clicks", r#"{"user": 1, "url": "y", "name": "b"}"#);
    engine.wait_until(|| engine.query("SELECT * FROM p") == json!([{"name": "a", "n": 2}]));
    assert!(!engine.stats("p").stale);
    // Names that differ only in case are two.
    engine.collect("later", r#"[{"a": 2, "A": 3, "n": 1}, {"A": 4, "n": 2}]"#);
    engine.wait_until(|| engine.query("SELECT * FROM q") == json!([{"one": 3, "two": 2, "n": 1}]));
}

#[test]
fn streams_may_have_the_names_of_the_databases_own_tables() {
    let engine = start();
    for name in ["sqlite_schema", "sqlite_sequence", "events", "homes", "Events"] {
        engine.collect(name, &format!(r#"[{{"n": "{name}"}}, {{"n": "more"}}]"#));
        assert_eq!(engine.query(&format!("SELECT n FROM {name} LIMIT 1")), json!([{ "n": name }]));
        let process = format!("SELECT count(*) AS n FROM {name} WHERE n = '{name}'");
        engine.process("p", &process);
        assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 1}]));
        super::Engine::delete_process(&engine.engine, "p").unwrap();
    }
}
