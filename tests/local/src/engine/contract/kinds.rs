//! Each kind of query that keeps up with every event: it has the rows that its query gives, and what subscribers are
//! told adds up to them.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{Fixture, Subject, WAIT, received};
use crate::engine::{Engine as _, EngineError, Mode, Ttl};
use crate::settings::Limits;
use crate::subscribers::hub::Subscriber;

pub(in crate::engine) const KINDS: [&str; 9] = [
    "SELECT a, n FROM s WHERE n IS NOT NULL",
    "SELECT DISTINCT a, n % 3 AS m FROM s",
    "SELECT count(DISTINCT a) AS d, count(DISTINCT n) FILTER (WHERE n > 2) AS f FROM s",
    "SELECT a, count(DISTINCT n) AS d, count(DISTINCT $timestamp) AS t, sum(n) AS sum FROM s GROUP BY a",
    "SELECT a, count(*) AS c FROM s GROUP BY a HAVING c > 2 AND count(DISTINCT s.n) < 6",
    "SELECT $timestamp AS at, count(*) AS n FROM s GROUP BY 1",
    "SELECT count(*) AS c FROM s HAVING count(*) % 2 = 1",
    "SELECT a, avg(n) AS mean, min(n) AS least, max($timestamp) AS last FROM s WHERE n > 0 GROUP BY a",
    // Names that the statements of an engine use themselves.
    "SELECT n AS hash, count(*) AS a0, count(DISTINCT a) AS place, max(n) AS r, min(n) AS k0 FROM s GROUP BY n",
];

/// Rows put together from what a subscriber was told.
pub(in crate::engine) struct Folded {
    subscriber: Subscriber,
    pub(in crate::engine) rows: RefCell<Vec<String>>,
}

impl Folded {
    /// From these rows on.
    pub(in crate::engine) fn new(subscriber: Subscriber, rows: Vec<String>) -> Self {
        Self { subscriber, rows: RefCell::new(rows) }
    }

    pub(in crate::engine) fn fold(&self) -> Vec<String> {
        let mut rows = self.rows.borrow_mut();
        for change in received(&self.subscriber).unwrap() {
            if !change["old"].is_null() {
                let old = text(&change["old"]);
                let place = rows.iter().position(|row| *row == old);
                rows.remove(place.unwrap_or_else(|| panic!("there was no {old}: {change}")));
            }
            if !change["new"].is_null() {
                rows.push(text(&change["new"]));
            }
        }
        rows.sort();
        rows.clone()
    }
}

/// A row, with one form of the object that the events have in two.
fn text(row: &Value) -> String {
    row.to_string().replace(r#""o":1.0"#, r#""o":1"#)
}

/// Rows in an order.
pub(in crate::engine) fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(text).collect();
    rows.sort();
    rows
}

pub(in crate::engine) fn batch(random: &mut fastrand::Rng) -> Value {
    let events = (0..random.usize(1..9)).map(|_| {
        let values = [
            json!(1),
            json!(1.0),
            json!("b"),
            json!(null),
            json!({"o": 1}),
            json!({"o": 1.0}),
            json!([true]),
            json!(true),
        ];
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
            event["$id"] = json!(random.u8(..60));
        }
        event
    });
    json!({"s": events.collect::<Vec<_>>()})
}

impl<S: Subject> Fixture<S> {
    fn rows(&self, sql: &str) -> Vec<String> {
        sorted(&self.query(sql))
    }

    /// What is told of a process from now on.
    fn fold(&self, process: &str) -> Folded {
        let subscriber = self.subscribe(process);
        Folded::new(subscriber, self.rows(&format!("SELECT * FROM {process}")))
    }

    /// Waits until what was told adds up to the rows of a query.
    fn adds_up(&self, folded: &Folded, query: &str) {
        let expected = self.rows(query);
        let is_told = self.changes.wait_until(WAIT, || folded.fold() == expected);
        assert!(is_told, "{query}: {:?}, {expected:?}", folded.fold());
    }
}

pub(in crate::engine) fn changes_add_up_to_the_rows_at_every_commit<S: Subject>() {
    // So few events are kept that plain rows go again.
    let it = Fixture::<S>::with(Limits { max_events: 40, ..Limits::default() });
    let mut random = fastrand::Rng::with_seed(19);
    it.collect(&batch(&mut random));
    let mut folded = Vec::new();
    for (number, query) in KINDS.iter().enumerate() {
        let name = format!("p{number}");
        it.process(&name, query).unwrap();
        it.until(query, || it.rows(&format!("SELECT * FROM {name}")) == it.rows(query));
        let stats = it.stats(&name);
        assert_eq!((stats.mode, stats.why), (Mode::Incremental, None), "{query}");
        folded.push(it.fold(&name));
    }
    for _ in 0..30 {
        it.collect(&batch(&mut random));
        for (number, folded) in folded.iter().enumerate() {
            it.adds_up(folded, &format!("SELECT * FROM p{number}"));
        }
        assert_eq!(it.rows("SELECT * FROM p0"), it.rows(KINDS[0]));
    }
    for number in 0..KINDS.len() {
        let stats = it.stats(&format!("p{number}"));
        assert_eq!((stats.skipped, stats.stale, stats.last_error), (0, false, None));
    }
    // Plain rows go with their events; what was counted stays.
    let counted = it.rows("SELECT * FROM p2");
    it.engine.delete_stream("s").unwrap();
    it.until("no rows", || folded[0].fold().is_empty());
    assert_eq!(it.rows("SELECT * FROM p0"), Vec::<String>::new());
    assert_eq!(it.rows("SELECT * FROM p2"), counted);
}

pub(in crate::engine) fn another_query_tells_the_difference_and_the_same_one_nothing<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"a": 1}, {"a": 2}, {"a": 2}, {"a": 3}]}));
    it.process("p", "SELECT a FROM s WHERE a < 3").unwrap();
    it.wait_until("SELECT count(*) AS n FROM p", &json!([{"n": 3}]));
    let folded = it.fold("p");
    it.change("p", "SELECT a FROM s WHERE a < 3").unwrap();
    // What comes of it would be told before the snapshot is.
    it.engine.snapshot("p", 1 << 20, Box::new(|_| {})).unwrap();
    assert_eq!(received(&folded.subscriber).unwrap(), Vec::<Value>::new());
    for query in [
        "SELECT a FROM s WHERE a > 1",
        "SELECT DISTINCT a FROM s",
        "SELECT a FROM s ORDER BY a LIMIT 2",
        "SELECT a, count(*) AS n FROM s GROUP BY a",
    ] {
        it.change("p", query).unwrap();
        it.until(query, || it.rows("SELECT * FROM p") == it.rows(query));
        it.adds_up(&folded, query);
    }
    assert!(it.change("p", "SELECT nope(a) FROM s").is_err());
    it.collect(&json!({"s": {"a": 1}}));
    it.adds_up(&folded, "SELECT * FROM p");
    assert_eq!(it.engine.processes().unwrap(), ["p"]);
    // One of two equal rows goes.
    for query in ["SELECT a FROM s", "SELECT DISTINCT a FROM s"] {
        it.change("p", query).unwrap();
        it.until(query, || it.rows("SELECT * FROM p") == it.rows(query));
        it.adds_up(&folded, query);
    }
}

pub(in crate::engine) fn distinct_values_are_bounded_and_what_is_kept_stays_exact<S: Subject>() {
    let it = Fixture::<S>::with(Limits { max_distinct: 3, ..Limits::default() });
    it.process("p", "SELECT count(DISTINCT a) AS d, count(*) AS n FROM s").unwrap();
    it.process("of", "SELECT max(d) AS d FROM p").unwrap();
    let kept = |it: &Fixture<S>| -> Value {
        serde_json::from_slice(&it.engine.query("SELECT * FROM p", &[]).unwrap().json).unwrap()
    };
    it.collect(&json!({"s": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}]}));
    assert_eq!(kept(&it), json!([{"d": 3, "n": 4}]));
    it.collect(&json!({"s": {"a": 4}}));
    it.collect(&json!({"s": {"a": 1}}));
    assert_eq!(kept(&it), json!([{"d": 3, "n": 4}]));
    let stats = it.stats("p");
    assert!(stats.stale && stats.stale_since.is_some(), "{stats:?}");
    assert!(stats.last_error.unwrap().contains("more than 3 distinct values"));
    let read = it.engine.query("SELECT d FROM of", &[]).unwrap();
    assert_eq!(read.stale, ["p"], "what it reads has an old result");
    let refused = it.process("q", "SELECT count(DISTINCT a) AS d FROM s");
    assert!(
        matches!(&refused, Err(EngineError::Invalid(why)) if why.contains("3 distinct values"))
    );
    it.until("it is counted", || {
        let counters = it.engine.counters();
        (counters.incremental_processes, counters.recomputed_processes, counters.stale_processes)
            == (1, 1, 1)
    });
    let it = it.reopen();
    it.until("it is still stale", || it.stats("p").stale);
    assert_eq!(kept(&it), json!([{"d": 3, "n": 4}]));
    // With more room it goes on where it stopped.
    let it = it.reopen_with(Limits::default());
    it.until("it goes on", || kept(&it) == json!([{"d": 4, "n": 6}]));
    assert!(!it.stats("p").stale);
}

pub(in crate::engine) fn groups_that_are_too_old_take_their_values_with_them<S: Subject>() {
    let it = Fixture::<S>::new();
    let query =
        "SELECT date_trunc('day', $timestamp) AS day, count(DISTINCT a) AS d FROM s GROUP BY 1";
    it.process("p", query).unwrap();
    let of_old = |a: u32| json!({"$timestamp": "2015-05-05T00:00:00Z", "a": a});
    it.collect(&json!({"s": [of_old(1), of_old(2)]}));
    assert_eq!(it.query("SELECT d FROM p"), json!([{"d": 2}]));
    let ttl = Ttl { duration: "1 day".to_owned(), column: "day".to_owned() };
    let change = crate::engine::Change { query: None, ttl: Some(ttl) };
    it.engine.change_process("p", &change).unwrap();
    it.wait_until("SELECT d FROM p", &json!([]));
    let subscriber = it.subscribe("p");
    it.collect(&json!({"s": of_old(1)}));
    let told = RefCell::new(Vec::new());
    it.until("it is told", || {
        told.borrow_mut().extend(received(&subscriber).unwrap());
        !told.borrow().is_empty()
    });
    assert_eq!(told.borrow()[0]["new"]["d"], json!(1));
}
