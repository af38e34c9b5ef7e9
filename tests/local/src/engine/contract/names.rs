//! What the names in a query mean.

use serde_json::json;

use super::{Engine as _, Fixture, Subject};

const JOINED: &str =
    "SELECT name, count(DISTINCT url) AS n FROM users JOIN clicks ON uid = user GROUP BY name";

pub(in crate::engine) fn q5_the_names_of_a_process_mean_what_they_did_when_it_was_made<
    S: Subject,
>() {
    let it = Fixture::<S>::new();
    it.send("users", r#"{"uid": 1, "name": "a"}"#);
    it.send("clicks", r#"{"user": 1, "url": "x"}"#);
    it.process("p", JOINED).unwrap();
    // A key of the other stream, too: in a query that is new, the name could mean either.
    it.send("clicks", r#"{"user": 1, "url": "y", "name": "b", "uid": 7}"#);
    it.wait_until("SELECT * FROM p", &json!([{"name": "a", "n": 2}]));
    assert!(it.try_query(JOINED).unwrap_err().to_string().contains("ambiguous"));
    assert!(!it.engine.process_stats("p").unwrap().stale);
    let it = it.reopen();
    it.send("clicks", r#"{"user": 1, "url": "z", "name": "c"}"#);
    it.wait_until("SELECT * FROM p", &json!([{"name": "a", "n": 3}]));
}

pub(in crate::engine) fn q5_a_process_that_is_made_before_its_events_learns_what_its_names_mean<
    S: Subject,
>() {
    let it = Fixture::<S>::new();
    it.process("p", JOINED).unwrap();
    it.process("q", "SELECT A AS one, a AS two, n FROM later WHERE a > 1 ORDER BY n").unwrap();
    assert_eq!(it.query("SELECT * FROM p"), json!([]));
    it.send("users", r#"{"uid": 1, "name": "a"}"#);
    it.send("clicks", r#"{"user": 1, "url": "x"}"#);
    it.wait_until("SELECT * FROM p", &json!([{"name": "a", "n": 1}]));
    it.send("clicks", r#"{"user": 1, "url": "y", "name": "b"}"#);
    it.wait_until("SELECT * FROM p", &json!([{"name": "a", "n": 2}]));
    assert!(!it.engine.process_stats("p").unwrap().stale);
    // Names that differ only in case are two.
    it.send("later", r#"[{"a": 2, "A": 3, "n": 1}, {"A": 4, "n": 2}]"#);
    it.wait_until("SELECT * FROM q", &json!([{"one": 3, "two": 2, "n": 1}]));
}

pub(in crate::engine) fn streams_may_have_the_names_of_the_databases_own_tables<S: Subject>() {
    let it = Fixture::<S>::new();
    for name in ["sqlite_schema", "sqlite_sequence", "events", "homes", "Events"] {
        it.send(name, &format!(r#"[{{"n": "{name}"}}, {{"n": "more"}}]"#));
        assert_eq!(it.query(&format!("SELECT n FROM {name} LIMIT 1")), json!([{ "n": name }]));
        let process = format!("SELECT count(*) AS n FROM {name} WHERE n = '{name}'");
        it.process("p", &process).unwrap();
        assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 1}]));
        it.engine.delete_process("p").unwrap();
    }
}
