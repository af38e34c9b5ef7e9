//! Each kind of query that keeps up with every event: it has the rows that its query gives, and what subscribers are
//! told adds up to them.

use std::cell::RefCell;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::{Server, WAIT};
use super::{database, is_there};
use crate::engine::contract::{received, skipped};
use crate::engine::{Change, Definition, Engine as _, EngineError, Mode};
use crate::settings::Limits;
use crate::subscribers::hub::{Source, Subscriber};
use crate::subscribers::mailbox::Want;

const KINDS: [&str; 9] = [
    "SELECT a, n FROM s WHERE n IS NOT NULL",
    "SELECT DISTINCT a, n % 3 AS m FROM s",
    "SELECT count(DISTINCT a) AS d, count(DISTINCT n) FILTER (WHERE n > 2) AS f FROM s",
    "SELECT a, count(DISTINCT n) AS d, count(DISTINCT $timestamp) AS t, sum(n) AS sum FROM s GROUP BY a",
    "SELECT a, count(*) AS c FROM s GROUP BY a HAVING count(*) > 2 AND count(DISTINCT n) < 6",
    "SELECT $timestamp AS at, count(*) AS n FROM s GROUP BY 1",
    "SELECT count(*) AS c FROM s HAVING count(*) % 2 = 1",
    "SELECT a, avg(n) AS mean, min(n) AS least, max($timestamp) AS last FROM s WHERE n > 0 GROUP BY a",
    // Names that the statements use themselves.
    "SELECT n AS hash, count(*) AS a0, count(DISTINCT a) AS place, max(n) AS r, min(n) AS k0 FROM s GROUP BY n",
];

/// Rows put together from what a subscriber was told.
pub(super) struct Folded {
    subscriber: Subscriber,
    pub(super) rows: RefCell<Vec<String>>,
}

impl Folded {
    pub(super) fn new(server: &Server, process: &str) -> Self {
        let subscriber = server.subscribers.subscribe(Source::Process, process, Want::Changes);
        Self { subscriber, rows: RefCell::default() }
    }

    fn fold(&self) -> Vec<String> {
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

    /// Waits until what was told adds up to the rows of a query.
    pub(super) fn adds_up_to(&self, server: &Server, query: &str) {
        let expected = rows(server, query);
        let is_told = || self.fold() == expected;
        assert!(
            server.changes.wait_until(WAIT, is_told),
            "{query}: {:?}, {expected:?}",
            self.fold()
        );
    }
}

/// A row, with one form of the object that the events have in two.
fn text(row: &Value) -> String {
    row.to_string().replace(r#""o":1.0"#, r#""o":1"#)
}

pub(super) fn rows(server: &Server, sql: &str) -> Vec<String> {
    let mut rows: Vec<String> = server.query(sql).as_array().unwrap().iter().map(text).collect();
    rows.sort();
    rows
}

fn batch(random: &mut fastrand::Rng) -> Value {
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

pub(super) fn collect(server: &Server, json: &Value) {
    server.append(json).blocking_recv().unwrap().unwrap();
}

#[test]
fn processes_of_every_kind_are_their_queries_whichever_server_takes_the_events() {
    if !is_there() {
        return skipped(
            "processes_of_every_kind_are_their_queries_whichever_server_takes_the_events",
        );
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let limits = Limits::default();
    let servers = [(); 2].map(|()| Server::start_with(&url, None, &limits));
    let mut random = fastrand::Rng::with_seed(19);
    collect(&servers[0], &json!({"s": {"a": 1, "n": 1, "$timestamp": "2015-05-05T23:40:00Z"}}));
    let mut all = Vec::new();
    for (number, query) in KINDS.iter().enumerate() {
        let name = format!("p{number}");
        let told = servers.each_ref().map(|server| Folded::new(server, &name));
        servers[number % 2].process(&name, query);
        let stats = servers[0].engine.process_stats(&name).unwrap();
        assert_eq!((stats.mode, stats.why), (Mode::Incremental, None), "{query}");
        if number == 2 {
            // Of no events at all, it has a row already.
            for told in &told {
                told.rows.replace(vec![r#"{"d":0,"f":0}"#.to_owned()]);
            }
        }
        for (server, told) in servers.iter().zip(&told) {
            told.adds_up_to(server, &format!("SELECT * FROM {name}"));
        }
        all.push((name, *query, told));
    }
    for _ in 0..10 {
        let mut commits = Vec::new();
        for round in 0..6 {
            commits.push(servers[round % 2].append(&batch(&mut random)));
        }
        for commit in commits {
            commit.blocking_recv().unwrap().unwrap();
        }
        for (name, query, told) in &all {
            let kept = format!("SELECT * FROM {name}");
            assert_eq!(rows(&servers[1], &kept), rows(&servers[0], query), "{query}");
            for (server, told) in servers.iter().zip(told) {
                told.adds_up_to(server, &kept);
            }
            let stats = servers[0].engine.process_stats(name).unwrap();
            assert_eq!((stats.skipped, stats.stale, stats.last_error), (0, false, None), "{query}");
        }
    }
    // Plain rows go with their events; what was counted stays.
    let counted = rows(&servers[0], "SELECT * FROM p2");
    servers[0].engine.delete_stream("s").unwrap();
    assert_eq!(rows(&servers[1], "SELECT * FROM p0"), Vec::<String>::new());
    all[0].2[1].adds_up_to(&servers[1], "SELECT * FROM p0");
    assert_eq!(rows(&servers[1], "SELECT * FROM p2"), counted);
}

#[test]
fn another_query_tells_the_difference_and_the_same_one_nothing() {
    if !is_there() {
        return skipped("another_query_tells_the_difference_and_the_same_one_nothing");
    }
    let place = TempDir::new().unwrap();
    let server = Server::start_with(&database(place.path()), None, &Limits::default());
    collect(&server, &json!({"s": [{"a": 1}, {"a": 2}, {"a": 2}, {"a": 3}]}));
    let told = Folded::new(&server, "p");
    server.process("p", "SELECT a FROM s WHERE a < 3");
    told.adds_up_to(&server, "SELECT * FROM p");
    let put = |query: &str| {
        let change = Change { query: Some(query.to_owned()), ttl: None };
        server.engine.change_process("p", &change)
    };
    put("SELECT a FROM s WHERE a < 3").unwrap();
    for query in [
        "SELECT a FROM s WHERE a > 1",
        "SELECT DISTINCT a FROM s",
        "SELECT a FROM s ORDER BY a LIMIT 2",
        "SELECT a, count(*) AS n FROM s GROUP BY a",
    ] {
        put(query).unwrap();
        assert_eq!(rows(&server, "SELECT * FROM p"), rows(&server, query), "{query}");
        told.adds_up_to(&server, query);
    }
    assert!(put("SELECT nope(a) FROM s").is_err());
    collect(&server, &json!({"s": {"a": 1}}));
    told.adds_up_to(&server, "SELECT * FROM p");
    put("SELECT a FROM s ORDER BY a LIMIT 2").unwrap();
    let stats = server.engine.process_stats("p").unwrap();
    assert_eq!((stats.mode, stats.why.as_deref()), (Mode::Recomputed, Some("it has ORDER BY")));
}

#[test]
fn distinct_values_are_bounded_and_what_is_kept_stays_exact() {
    if !is_there() {
        return skipped("distinct_values_are_bounded_and_what_is_kept_stays_exact");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start_with(&url, None, &Limits { max_distinct: 3, ..Limits::default() });
    server.process("p", "SELECT count(DISTINCT a) AS d, count(*) AS n FROM s");
    server.process("of", "SELECT max(d) AS d FROM p");
    let kept = |server: &Server| {
        serde_json::from_slice::<Value>(&server.engine.query("SELECT * FROM p", &[]).unwrap().json)
            .unwrap()
    };
    collect(&server, &json!({"s": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}]}));
    assert_eq!(kept(&server), json!([{"d": 3, "n": 4}]));
    collect(&server, &json!({"s": {"a": 4}}));
    collect(&server, &json!({"s": {"a": 1}}));
    assert_eq!(kept(&server), json!([{"d": 3, "n": 4}]));
    let stats = server.engine.process_stats("p").unwrap();
    assert!(stats.stale && stats.stale_since.is_some(), "{stats:?}");
    assert!(stats.last_error.unwrap().contains("more than 3 distinct values"));
    let read = server.engine.query("SELECT d FROM of", &[]).unwrap();
    assert_eq!(read.stale, ["p"], "what it reads has an old result");
    let definition =
        Definition { query: "SELECT count(DISTINCT a) AS d FROM s".to_owned(), ttl: None };
    let refused = server.engine.create_process("q", &definition);
    assert!(
        matches!(&refused, Err(EngineError::Invalid(why)) if why.contains("3 distinct values"))
    );
    let is_counted = || {
        let counters = server.engine.counters();
        (counters.incremental_processes, counters.recomputed_processes, counters.stale_processes)
            == (1, 1, 1)
    };
    let deadline = Instant::now() + WAIT;
    while !is_counted() {
        assert!(Instant::now() < deadline, "{:?}", server.engine.counters());
        std::thread::yield_now();
    }
    drop(server);
    // With more room it goes on where it stopped.
    let server = Server::start_with(&url, None, &Limits::default());
    let goes_on = || kept(&server) == json!([{"d": 4, "n": 6}]);
    assert!(server.changes.wait_until(WAIT, goes_on), "{}", kept(&server));
    assert!(!server.engine.process_stats("p").unwrap().stale);
}
