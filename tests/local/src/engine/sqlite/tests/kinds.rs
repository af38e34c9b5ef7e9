//! What only a file has of the kinds of queries that keep up: a version before them, and a kill.

use serde_json::json;

use super::{Engine, Fixture, at};
use crate::engine::Change;
use crate::engine::contract::kinds::{KINDS, batch, sorted};

fn collect(engine: &Fixture, random: &mut fastrand::Rng) {
    engine.collect("s", &batch(random)["s"].to_string());
}

#[test]
fn processes_of_an_earlier_version_are_filled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = at(&path);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5 {
        collect(&engine, &mut random);
    }
    for (number, query) in KINDS.iter().enumerate() {
        engine.process(&format!("p{number}"), query);
    }
    drop(engine);
    let connection = rusqlite::Connection::open(&path).unwrap();
    for number in 1..=KINDS.len() {
        // As what is run again is kept.
        let old = format!(
            "DROP TABLE process_{number}; CREATE TABLE process_{number} (c0);
            DROP TABLE IF EXISTS process_{number}_d0; DROP TABLE IF EXISTS process_{number}_d1"
        );
        connection.execute_batch(&old).unwrap();
    }
    connection.execute_batch("DROP TABLE distincts").unwrap();
    drop(connection);
    let engine = at(&path);
    for (number, query) in KINDS.iter().enumerate() {
        let kept = format!("SELECT count(*) AS n FROM p{number}");
        let asked = engine.query(&format!("SELECT count(*) AS n FROM ({query})"));
        engine.wait_until(|| engine.query(&kept) == asked);
    }
    collect(&engine, &mut random);
    assert_eq!(sorted(&engine.query("SELECT * FROM p3")), sorted(&engine.query(KINDS[3])));
}

#[test]
fn a_kill_while_a_query_is_replaced_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = at(&path);
    engine.collect("s", r#"[{"a": 1}, {"a": 2}]"#);
    let (old, new) = ("SELECT count(*) AS n FROM s", "SELECT count(DISTINCT a) AS n FROM s");
    engine.process("p", old);
    engine.process("q", new);
    drop(engine);
    // As a kill leaves it: the new one has another name until it is whole.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let number: i64 = connection
        .query_row(
            "UPDATE processes SET name = char(1) || 'p' WHERE name = 'q' RETURNING number",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let place = "SELECT min(place) FROM events";
    connection.execute(&format!("INSERT INTO fills SELECT ?, ({place})"), [number]).unwrap();
    drop(connection);
    let engine = at(&path);
    engine.collect("s", r#"{"a": 2}"#);
    assert_eq!(engine.engine.processes().unwrap(), ["p"]);
    assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 3}]));
    engine.engine.change_process("p", &Change { query: Some(new.to_owned()), ttl: None }).unwrap();
    assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 2}]));
    drop(engine);
    let connection = rusqlite::Connection::open(&path).unwrap();
    for table in [format!("process_{number}"), format!("process_{number}_d0")] {
        assert!(!connection.table_exists(None, &*table).unwrap(), "{table}");
    }
}
