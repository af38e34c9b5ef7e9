//! Each kind of query that keeps up with every event: what subscribers are told adds up to its rows at every commit.

use serde_json::{Value, json};

use super::{Engine, EngineError, Fixture, at, limits, open, received, start, start_with};
use crate::engine::{Change, Mode};
use crate::settings::Limits;
use crate::subscribers::hub::Subscriber;

const KINDS: [&str; 7] = [
    "SELECT a, n FROM s WHERE n IS NOT NULL",
    "SELECT DISTINCT a, n % 3 AS m FROM s",
    "SELECT count(DISTINCT a) AS d, count(DISTINCT n) FILTER (WHERE n > 2) AS f FROM s",
    "SELECT a, count(DISTINCT n) AS d, count(DISTINCT $timestamp) AS t, sum(n) AS sum FROM s GROUP BY a",
    "SELECT a, count(*) AS n FROM s GROUP BY a HAVING n > 2 AND count(DISTINCT s.n) < 6",
    "SELECT $timestamp AS at, count(*) AS n FROM s GROUP BY 1",
    "SELECT count(*) AS c FROM s HAVING count(*) % 2 = 1",
];

/// Rows put together from what a subscriber was told.
struct Folded {
    subscriber: Subscriber,
    rows: Vec<String>,
}

impl Folded {
    fn new(engine: &Fixture, process: &str) -> Self {
        let subscriber = engine.subscribe(process, None);
        Self { subscriber, rows: rows(engine, &format!("SELECT * FROM {process}")) }
    }

    fn fold(&mut self) -> Vec<String> {
        for change in received(&self.subscriber).unwrap() {
            if !change["old"].is_null() {
                let old = change["old"].to_string();
                let place = self.rows.iter().position(|row| *row == old);
                self.rows.remove(place.unwrap_or_else(|| panic!("there was no {old}")));
            }
            if !change["new"].is_null() {
                self.rows.push(change["new"].to_string());
            }
        }
        self.rows.sort();
        self.rows.clone()
    }
}

fn rows(engine: &Fixture, sql: &str) -> Vec<String> {
    let mut rows: Vec<String> =
        engine.query(sql).as_array().unwrap().iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

fn batch(random: &mut fastrand::Rng) -> String {
    let events: Vec<Value> = (0..random.usize(1..9))
        .map(|_| {
            let values =
                [json!(1), json!(1.0), json!("b"), json!(null), json!({"o": 1}), json!(true)];
            let mut event = json!({"a": values[random.usize(..values.len())]});
            if random.u8(..4) > 0 {
                event["n"] = json!(random.u8(..7));
            }
            let minute = random.u8(40..43);
            event["$timestamp"] = match random.bool() {
                true => json!(format!("2015-05-05T23:{minute}:00Z")),
                false => json!(format!("2015-05-06T01:{minute}:00.000+02:00")),
            };
            if random.bool() {
                event["$id"] = json!(random.u8(..40));
            }
            event
        })
        .collect();
    json!(events).to_string()
}

#[test]
fn changes_add_up_to_the_rows_at_every_commit() {
    // So few events are kept that plain rows go again.
    let engine = start_with(&Limits { max_events: 40, ..limits() });
    let mut random = fastrand::Rng::with_seed(19);
    engine.collect("s", &batch(&mut random));
    let mut folded = Vec::new();
    for (number, query) in KINDS.iter().enumerate() {
        let name = format!("p{number}");
        engine.process(&name, query);
        assert_eq!(engine.stats(&name).mode, Mode::Incremental, "{query}");
        folded.push(Folded::new(&engine, &name));
    }
    for _ in 0..40 {
        engine.collect("s", &batch(&mut random));
        for (number, folded) in folded.iter_mut().enumerate() {
            let kept = rows(&engine, &format!("SELECT * FROM p{number}"));
            assert_eq!(folded.fold(), kept, "{}", KINDS[number]);
        }
        assert_eq!(rows(&engine, "SELECT * FROM p0"), rows(&engine, KINDS[0]));
    }
    engine.engine.delete_stream("s").unwrap();
    assert_eq!(folded[0].fold(), Vec::<String>::new());
    assert_eq!(rows(&engine, "SELECT * FROM p0"), Vec::<String>::new());
    assert_ne!(folded[2].fold(), Vec::<String>::new());
}

#[test]
fn another_query_tells_the_difference_and_the_same_one_nothing() {
    let engine = start();
    engine.collect("s", r#"[{"a": 1}, {"a": 2}, {"a": 2}, {"a": 3}]"#);
    engine.process("p", "SELECT a FROM s WHERE a < 3");
    let put = |query: &str| {
        let change = Change { query: Some(query.to_owned()), ttl: None };
        engine.engine.change_process("p", &change)
    };
    let mut folded = Folded::new(&engine, "p");
    put("SELECT a FROM s WHERE a < 3").unwrap();
    assert_eq!(received(&folded.subscriber).unwrap(), Vec::<Value>::new());
    for query in [
        "SELECT a FROM s WHERE a > 1",
        "SELECT DISTINCT a FROM s",
        "SELECT a FROM s ORDER BY a LIMIT 2",
        "SELECT a, count(*) AS n FROM s GROUP BY a",
    ] {
        put(query).unwrap();
        assert_eq!(folded.fold(), rows(&engine, query), "{query}");
        assert_eq!(folded.fold(), rows(&engine, "SELECT * FROM p"), "{query}");
    }
    assert!(put("SELECT nope(a) FROM s").is_err());
    engine.collect("s", r#"{"a": 1}"#);
    assert_eq!(folded.fold(), rows(&engine, "SELECT * FROM p"));
    assert_eq!(engine.engine.processes().unwrap(), ["p"]);
    put("SELECT a FROM s").unwrap();
    put("SELECT DISTINCT a FROM s").unwrap();
    let told = received(&folded.subscriber).unwrap();
    assert_eq!(told.last(), Some(&json!({"old": {"a": 2}, "new": null})), "one of two equal rows");
}

#[test]
fn distinct_values_are_bounded_and_what_is_kept_stays_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let narrow = Limits { max_distinct: 3, ..limits() };
    let engine = open(Some(&path), &narrow);
    engine.process("p", "SELECT count(DISTINCT a) AS d, count(*) AS n FROM s");
    let kept = |engine: &Fixture| engine.query("SELECT * FROM p");
    engine.collect("s", r#"[{"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}]"#);
    assert_eq!(kept(&engine), json!([{"d": 3, "n": 4}]));
    engine.collect("s", r#"[{"a": 4}]"#);
    engine.collect("s", r#"[{"a": 1}]"#);
    assert_eq!(kept(&engine), json!([{"d": 3, "n": 4}]));
    let stats = engine.stats("p");
    assert!(stats.stale && stats.last_error.unwrap().contains("more than 3 distinct values"));
    let refused = engine.try_process("q", "SELECT count(DISTINCT a) AS d FROM s");
    assert!(
        matches!(&refused, Err(EngineError::Invalid(why)) if why.contains("3 distinct values"))
    );
    drop(engine);
    let engine = open(Some(&path), &narrow);
    engine.wait_until(|| engine.stats("p").stale);
    assert_eq!(kept(&engine), json!([{"d": 3, "n": 4}]));
    drop(engine);
    // With more room it goes on where it stopped.
    let engine = at(&path);
    engine.wait_until(|| kept(&engine) == json!([{"d": 4, "n": 6}]));
    assert!(!engine.stats("p").stale);
}

#[test]
fn processes_of_an_earlier_version_are_filled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let engine = at(&path);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5 {
        engine.collect("s", &batch(&mut random));
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
    engine.collect("s", &batch(&mut random));
    assert_eq!(rows(&engine, "SELECT * FROM p3"), rows(&engine, KINDS[3]));
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

#[test]
fn groups_that_are_too_old_take_their_values_with_them() {
    let engine = start();
    engine.process(
        "p",
        "SELECT date_trunc('day', at) AS day, count(DISTINCT a) AS d FROM s GROUP BY day",
    );
    engine.collect("s", r#"[{"at": "2015-05-05", "a": 1}, {"at": "2015-05-05", "a": 2}]"#);
    assert_eq!(engine.query("SELECT d FROM p"), json!([{"d": 2}]));
    let ttl = crate::engine::Ttl { duration: "1 day".to_owned(), column: "day".to_owned() };
    engine.engine.change_process("p", &Change { query: None, ttl: Some(ttl) }).unwrap();
    engine.wait_until(|| engine.query("SELECT d FROM p") == json!([]));
    let subscriber = engine.subscribe("p", None);
    engine.collect("s", r#"{"at": "2015-05-05", "a": 1}"#);
    let told = &received(&subscriber).unwrap()[0];
    assert_eq!(told["new"]["d"], json!(1));
}
