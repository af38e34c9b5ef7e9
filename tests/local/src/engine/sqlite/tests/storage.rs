//! What lasts, what goes, and what happens when the disk does not play along.

use rusqlite::Connection;
use serde_json::json;
use tempfile::tempdir;

use super::{Author, Definition, Engine, EngineError, Ttl, at, limits, start, start_with};
use crate::engine::contract::events;
use crate::engine::{PageLimit, Start};
use crate::settings::Limits;

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data.db");
    let engine = at(&path);
    engine.collect("s", r#"[{"a": 1}, {"a": true, "$id": "x"}]"#);
    engine.process("sums", "SELECT a, count(*) AS n FROM s GROUP BY a");
    engine.process("tops", "SELECT max(n) AS top FROM sums");
    let ttl = Some(Ttl { duration: "1 day".to_owned(), column: "a".to_owned() });
    let definition =
        Definition { query: "SELECT a, count(*) AS n FROM s GROUP BY a".to_owned(), ttl };
    engine.engine.create_process("kept", &definition).unwrap();
    engine.engine.save_query("q", "SELECT * FROM sums").unwrap();
    let before = events(&engine.engine, "s");
    let summary = engine.engine.stream("s").unwrap();
    drop(engine);

    let engine = at(&path);
    assert_eq!(engine.engine.streams().unwrap(), ["s"]);
    assert_eq!(events(&engine.engine, "s"), before);
    let again = engine.engine.stream("s").unwrap();
    assert_eq!((again.count, again.first_seen), (summary.count, summary.first_seen));
    // Ids are known still: that which the client gave, and that which the engine gave.
    engine.collect("s", &json!(before).to_string());
    assert_eq!(engine.engine.stream("s").unwrap().count, 2);
    engine.collect("s", r#"{"a": 1}"#);
    assert_eq!(engine.engine.processes().unwrap(), ["kept", "sums", "tops"]);
    assert_eq!(engine.query("SELECT * FROM sums"), json!([{"a": 1, "n": 3}]));
    engine.wait_until(|| engine.query("SELECT * FROM tops") == json!([{"top": 3}]));
    assert_eq!(engine.engine.process("kept").unwrap(), definition);
    assert_eq!(engine.engine.saved_query("q").unwrap(), "SELECT * FROM sums");
}

#[test]
fn two_servers_never_share_a_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data.db");
    let engine = at(&path);
    let announcer = crate::subscribers::Announcer {
        rates: std::sync::Arc::default(),
        subscribers: engine.subscribers.clone(),
        changes: engine.changes.clone(),
    };
    assert!(super::Sqlite::open(Some(&path), &limits(), std::sync::Arc::new(announcer)).is_err());
}

#[test]
fn distinct_values_stay_known_when_their_events_go() {
    let engine = start_with(&Limits { max_events: 5, ..limits() });
    engine.process("known", "SELECT count(DISTINCT n) AS n FROM s");
    for from in [0, 4] {
        let events: Vec<String> = (from..from + 8).map(|n| format!("{{\"n\": {n}}}")).collect();
        engine.collect("s", &format!("[{}]", events.join(",")));
    }
    assert_eq!(engine.query("SELECT * FROM known"), json!([{"n": 12}]));
}

#[test]
fn a_copy_that_is_put_back_gives_other_positions() {
    let folder = tempdir().unwrap();
    let [path, copy] = ["data.db", "copy.db"].map(|name| folder.path().join(name));
    let engine = at(&path);
    engine.collect("s", "[{}, {}]");
    crate::backup(&path, &copy).unwrap();
    let most = PageLimit { events: 100, bytes: 1 << 20 };
    let newest = engine.engine.position("s", Start::Newest).unwrap();
    let mut seen = vec![newest];
    for _ in 0..2 {
        // What came after the copy was made has the same places.
        engine.collect("s", "{}");
        let again = folder.path().join(format!("{}.db", seen.len()));
        std::fs::copy(&copy, &again).unwrap();
        let restored = at(&again);
        for position in &seen {
            let page = restored.engine.events_after("s", *position, most);
            assert!(matches!(page, Err(EngineError::Gone(_))), "{page:?}");
        }
        let position = restored.engine.position("s", Start::Newest).unwrap();
        drop(restored);
        let restored = at(&again);
        restored.engine.events_after("s", position, most).unwrap();
        seen.push(position);
    }
    assert_eq!(engine.engine.events_after("s", newest, most).unwrap().events.ends.len(), 2);
}

#[test]
fn a_locked_file_is_unavailable_for_as_long_as_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data.db");
    let engine = at(&path);
    engine.collect("s", "{}");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = engine.try_collect("s", "{}");
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
    assert!(matches!(engine.engine.health(), Err(EngineError::Unavailable(_))));
    assert_eq!(engine.query("SELECT count(*) FROM s"), json!([{"count": 1}]));
    other.execute_batch("ROLLBACK").unwrap();
    engine.collect("s", "{}");
    engine.engine.health().unwrap();
    assert_eq!(engine.query("SELECT count(*) FROM s"), json!([{"count": 2}]));
    assert!(engine.engine.counters().storage_errors >= 2);
}

#[test]
fn o2_a_full_disk_is_unavailable_and_loses_nothing() {
    let engine = start();
    engine.process("p", "SELECT count(*) AS n FROM s");
    engine.collect("s", "{}");
    engine.engine.limit_pages(Some(1)).unwrap();
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(1 << 20));
    let refused = engine.try_collect("s", &large);
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
    let unchanged = [json!([{"n": 1}]), json!([{"n": 1}])];
    let full = engine.engine.health();
    assert!(matches!(full, Err(EngineError::Unavailable(_))), "{full:?}");
    let seen = || [engine.query("SELECT count(*) AS n FROM s"), engine.query("SELECT * FROM p")];
    assert_eq!(seen(), unchanged);
    engine.engine.limit_pages(None).unwrap();
    engine.engine.health().unwrap();
    engine.collect("s", &large);
    assert_eq!(seen(), [json!([{"n": 2}]), json!([{"n": 2}])]);
}

#[test]
fn a_deleted_stream_is_gone_and_can_begin_anew() {
    let engine = start();
    engine.collect("s", r#"[{"a": 1, "$id": 1}, {"a": 2}]"#);
    engine.process("p", "SELECT count(*) AS n FROM s");
    engine.engine.delete_stream("s").unwrap();
    assert!(matches!(engine.engine.delete_stream("s"), Err(EngineError::NotFound(_))));
    assert!(matches!(engine.engine.stream("s"), Err(EngineError::NotFound(_))));
    assert_eq!(engine.query("SELECT * FROM s"), json!([]));
    engine.collect("s", r#"{"b": 1, "$id": 1}"#);
    assert_eq!(engine.engine.stream("s").unwrap().count, 1);
    assert!(engine.query("SELECT * FROM s")[0].get("a").is_none());
    // What was made of the events stays, as it does when they grow old.
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 3}]));
}

#[test]
fn a_request_that_is_refused_leaves_nothing_of_itself() {
    let engine = start();
    engine.process("p", "SELECT 1 AS one");
    let body = r#"{"a": [{}, {}], "p": {}, "b": {}}"#;
    let refused = engine.collector(Author::Trusted).map(body).unwrap();
    assert!(matches!(refused.blocking_recv().unwrap(), Err(EngineError::Conflict(_))));
    assert!(engine.engine.streams().unwrap().is_empty());
    engine.collect("a", "{}");
}

#[test]
fn after_the_end_everything_is_unavailable() {
    let engine = start();
    engine.collect("s", "{}");
    engine.engine.close();
    engine.engine.close();
    assert!(matches!(engine.try_collect("s", "{}"), Err(EngineError::Unavailable(_))));
    assert!(matches!(engine.engine.delete_stream("s"), Err(EngineError::Unavailable(_))));
}
