//! Queries that end early.

use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls};
use tempfile::TempDir;

use super::super::{Postgres, READERS};
use super::servers::Server;
use super::{database, is_there, skipped, until};
use crate::engine::{Engine as _, EngineError, Wanted};
use crate::settings::Limits;

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";

#[test]
fn whoever_stops_waiting_is_told_at_once_and_the_database_ends_the_query() {
    if !is_there() {
        return skipped("whoever_stops_waiting_is_told_at_once_and_the_database_ends_the_query");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    // Nothing ends by itself.
    let limits = Limits { query_time: Duration::from_secs(3600), ..Limits::default() };
    let server = Server::start_with(&url, None, &limits);
    let mut admin = Client::connect(&url, NoTls).unwrap();
    let mut running = move || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND state = 'active' AND query LIKE '%RECURSIVE%' AND pid <> pg_backend_pid()";
        admin.query_one(count, &[]).unwrap().get(0)
    };
    let all: Vec<Wanted> = (0..=READERS).map(|_| Wanted::default()).collect();
    thread::scope(|scope| {
        let ask = |wanted| {
            let engine: &Postgres = &server.engine;
            scope.spawn(move || engine.query_while(ENDLESS, &[], wanted))
        };
        let running_queries: Vec<_> = all[..READERS].iter().map(ask).collect();
        until("all run", || running() == READERS as i64);
        // There is no turn for this one.
        let waits = ask(&all[READERS]);
        all[READERS].give_up();
        assert_eq!(waits.join().unwrap().unwrap_err(), EngineError::unwanted());
        assert_eq!(running(), READERS as i64, "the others go on");
        for wanted in &all {
            wanted.give_up();
        }
        for query in running_queries {
            assert_eq!(query.join().unwrap().unwrap_err(), EngineError::unwanted());
        }
        until("none runs", || running() == 0);
    });
    assert_eq!(server.query("SELECT 1 AS x"), serde_json::json!([{"x": 1}]));
}

#[test]
fn a_query_that_takes_too_long_says_how_long_it_may_take() {
    if !is_there() {
        return skipped("a_query_that_takes_too_long_says_how_long_it_may_take");
    }
    let place = TempDir::new().unwrap();
    let limits = Limits { query_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(&database(place.path()), None, &limits);
    let error = server.engine.query(ENDLESS, &[]).unwrap_err();
    let why = "the query takes more than 50 ms, which is the most that is allowed";
    assert_eq!(error, EngineError::Invalid(why.to_owned()));
}
