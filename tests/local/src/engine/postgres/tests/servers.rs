//! Several servers on one database, and what a query may do there.

use std::sync::Arc;
use std::time::Duration;

use postgres::{Client, NoTls};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Postgres;
use super::{database, is_there};
use crate::changes::Changes;
use crate::engine::contract::{events, received, skipped};
use crate::engine::{Author, Commit, Definition, Engine as _, EngineError};
use crate::events::Collector;
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::{Hub, Source};
use crate::subscribers::mailbox::Want;

/// A limit that must not be reached.
pub(super) const WAIT: Duration = Duration::from_secs(60);

pub(super) struct Server {
    pub(super) engine: Postgres,
    pub(super) subscribers: Arc<Hub>,
    pub(super) changes: Arc<Changes>,
}

impl Server {
    pub(super) fn start(url: &str, reader: Option<&str>) -> Self {
        Self::start_with(url, reader, &Limits::default())
    }

    pub(super) fn start_with(url: &str, reader: Option<&str>, limits: &Limits) -> Self {
        let (subscribers, changes) = (Arc::new(Hub::new(1 << 20)), Arc::new(Changes::default()));
        let announcer = Announcer {
            subscribers: Arc::clone(&subscribers),
            rates: Arc::default(),
            changes: Arc::clone(&changes),
        };
        let engine = Postgres::open(url, reader, limits, Arc::new(announcer)).unwrap();
        Self { engine, subscribers, changes }
    }

    pub(super) fn append(&self, json: &Value) -> Commit {
        let (author, may_write) = (Author::Trusted, &|_: &str| true);
        let collector = Collector { engine: &self.engine, author, limit: 8 << 20, may_write };
        collector.map(&json.to_string()).unwrap()
    }

    pub(super) fn query(&self, sql: &str) -> Value {
        let rows = self.engine.query(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        serde_json::from_slice(&rows.json).unwrap()
    }

    pub(super) fn process(&self, name: &str, query: &str) {
        let definition = Definition { query: query.to_owned(), ttl: None };
        self.engine.create_process(name, &definition).unwrap();
    }
}

const GROUPS: &str =
    "SELECT k, count(*) AS n, sum(x) AS sum, min(x) AS least, avg(x) AS mean FROM s GROUP BY k";

#[test]
fn servers_store_once_what_both_are_sent_and_each_tells_all_of_it() {
    if !is_there() {
        return skipped("servers_store_once_what_both_are_sent_and_each_tells_all_of_it");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let servers = [Server::start(&url, None), Server::start(&url, None)];
    let told = servers.each_ref().map(|server| {
        let hub = &server.subscribers;
        (
            hub.subscribe(Source::Stream, "s", Want::Changes),
            hub.subscribe(Source::Process, "p", Want::Changes),
        )
    });
    servers[0].process("p", GROUPS);
    // Each event is sent to both, in another order, and among others.
    let mut commits = Vec::new();
    for round in 0..20 {
        for (number, server) in servers.iter().enumerate() {
            let mut batch: Vec<Value> = (0..50)
                .map(|n| json!({"$id": format!("{round}-{n}"), "k": n % 7, "x": (n * 3 % 11) as f64 / 2.0}))
                .collect();
            if number == 1 {
                batch.reverse();
            }
            commits.push(server.append(&json!({"s": batch, "t": {"n": round}})));
        }
    }
    for commit in commits {
        commit.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(servers[1].engine.stream("s").unwrap().count, 1000);
    let rows = servers[1].query("SELECT * FROM p ORDER BY k");
    assert_eq!(rows, servers[0].query(&format!("{GROUPS} ORDER BY k")));
    assert_eq!(rows.as_array().unwrap().len(), 7);

    let stored = events(&servers[0].engine, "s");
    for (server, (stream, changes)) in servers.iter().zip(&told) {
        let (all, kept) =
            (std::cell::RefCell::new(Vec::new()), std::cell::RefCell::new(Vec::new()));
        let is_told = || {
            all.borrow_mut().extend(received(stream).unwrap_or_default());
            kept.borrow_mut().extend(received(changes).unwrap_or_default());
            let kept = kept.borrow();
            let n: u64 = kept
                .iter()
                .filter_map(|change: &Value| {
                    Some(change["new"]["n"].as_u64()? - change["old"]["n"].as_u64().unwrap_or(0))
                })
                .sum();
            all.borrow().len() == 1000 && n == 1000
        };
        assert!(server.changes.wait_until(WAIT, is_told), "{}", all.borrow().len());
        assert_eq!(all.into_inner(), stored);
    }
}

#[test]
fn what_jsonb_cannot_hold_breaks_no_query() {
    if !is_there() {
        return skipped("what_jsonb_cannot_hold_breaks_no_query");
    }
    let place = TempDir::new().unwrap();
    let server = Server::start(&database(place.path()), None);
    server.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k");
    let long = "x".repeat(10_000);
    let sent = json!({"s": [{"$id": "\u{0}", "k": "a\u{0}b"}, {"k": long}, {"k": long, "x": 1e300},
        {"k": "z", "a\u{0}": 1}]});
    server.append(&sent).blocking_recv().unwrap().unwrap();
    let text = r#"[{"k": "z", "x": 0e999999999}, {"k": "z", "x": 1e-99999}]"#;
    let may_write = &|_: &str| true;
    let author = Author::Trusted;
    let collector = Collector { engine: &server.engine, author, limit: 1 << 20, may_write };
    collector.one("s", text).unwrap().blocking_recv().unwrap().unwrap();
    server.append(&sent).blocking_recv().unwrap().unwrap();
    let rows = server.query("SELECT k, n FROM p ORDER BY n, length(k)");
    let expected = json!([{"k": "a\u{fffd}b", "n": 1}, {"k": "z", "n": 4}, {"k": long, "n": 4}]);
    assert_eq!(rows, expected);
    assert_eq!(events(&server.engine, "s")[0]["k"], "a\u{0}b");
    // A key that has other values than before.
    server
        .append(&json!({"s": [{"k": 5}, {"k": 5.0}, {"k": null}]}))
        .blocking_recv()
        .unwrap()
        .unwrap();
    let five = server.query("SELECT k, n FROM p WHERE n = 2 OR k IS NULL ORDER BY n");
    assert_eq!(five, json!([{"k": null, "n": 1}, {"k": 5, "n": 2}]));
}

#[test]
fn a_query_only_reads_what_names_stand_for() {
    if !is_there() {
        return skipped("a_query_only_reads_what_names_stand_for");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let mut admin = Client::connect(&url, NoTls).unwrap();
    let role = format!("stride_reader_{}", std::process::id());
    admin.batch_execute(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")).unwrap();
    let at = url.find('@').unwrap();
    let reader = format!("postgres://{role}{}", &url[at..]);
    let server = Server::start(&url, Some(&reader));
    server.append(&json!({"s": {"x": 1}})).blocking_recv().unwrap().unwrap();
    server.process("p", "SELECT count(*) AS n FROM s");
    assert_eq!(server.query("SELECT n FROM p"), json!([{"n": 1}]));
    for refused in [
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT set_config('role', 'postgres', false)",
        "SELECT pg_sleep(100)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM pg_catalog.pg_authid",
        "SELECT * FROM stride.events",
        "SELECT x INTO t FROM s",
        "SELECT x FROM s FOR UPDATE",
        "WITH gone AS (DELETE FROM s RETURNING 1) SELECT * FROM gone",
        "SELECT 'pg_authid'::regclass",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT stride.out(x) FROM s",
    ] {
        let result = server.engine.query(refused, &[]);
        assert!(matches!(result, Err(EngineError::Invalid(_))), "{refused}: {result:?}");
    }
    // A name is one of a stream, whatever the database has by it.
    assert_eq!(server.query("SELECT * FROM pg_authid"), json!([]));
    let mut login = Client::connect(&reader, NoTls).unwrap();
    assert!(login.batch_execute("DELETE FROM stride.events").is_err(), "the login may only read");
    drop((login, server));
    admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
}
