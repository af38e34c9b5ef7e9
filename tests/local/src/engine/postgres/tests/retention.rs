//! What goes, and how much the open key may add, where the suite of all engines cannot see it.

use std::time::Instant;

use postgres::{Client, NoTls};
use serde_json::json;
use tempfile::TempDir;

use super::servers::{Server, WAIT};
use super::{database, is_there};
use crate::engine::contract::{events, received, skipped};
use crate::engine::postgres::sweep;
use crate::engine::{Engine as _, EngineError, PageLimit, Start};
use crate::events::timestamp;
use crate::settings::Limits;
use crate::subscribers::hub::Source;
use crate::subscribers::mailbox::Want;

const DAY: i64 = 24 * 60 * 60 * 1_000_000;

fn now() -> i64 {
    timestamp::micros(time::OffsetDateTime::now_utc())
}

/// Does what one slice of a sweep does.
fn trim_at(server: &Server, now: i64) -> Result<bool, EngineError> {
    let inner = &server.engine.inner;
    inner.wait_for(|inner| &inner.writers, move |inner| sweep::trim(inner, now))
}

/// Whether what is noted of each stream is what its events say.
fn check_sums(client: &mut Client) {
    let wrong = "SELECT name FROM stride.streams CROSS JOIN LATERAL (
            SELECT coalesce(min(place), next) AS first, coalesce(sum(octet_length(event)), 0) AS bytes,
                coalesce(sum(octet_length(event) + coalesce(octet_length(doc), 0)
                    + 2 * coalesce(octet_length(id), 0) + 150), 0) AS room
            FROM stride.events WHERE stream = number) AS are
        WHERE (streams.first, streams.bytes, streams.room) IS DISTINCT FROM (are.first, are.bytes, are.room)";
    let wrong = client.query(wrong, &[]).unwrap();
    assert!(wrong.is_empty(), "{:?}", wrong[0].get::<_, String>(0));
}

#[test]
fn what_is_too_old_or_deleted_goes_bit_by_bit() {
    if !is_there() {
        return skipped("what_is_too_old_or_deleted_goes_bit_by_bit");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    let mut client = Client::connect(&url, NoTls).unwrap();
    server.process("ever", "SELECT count(*) AS n FROM s");
    server.process("now", "SELECT count(*) AS n FROM (SELECT DISTINCT n FROM s) AS t");
    let batch = |n: usize| json!({"s": vec![json!({"n": n, "a": "\u{0}"}); 11_000]});
    for n in 0..2 {
        server.append(&batch(n)).blocking_recv().unwrap().unwrap();
    }
    server.append(&json!({"t": [{"$id": "a"}], "u": {}})).blocking_recv().unwrap().unwrap();
    let oldest = server.engine.position("s", Start::Oldest).unwrap();
    check_sums(&mut client);
    // Those of `u` and half of `s` were stored longer ago.
    let age = "UPDATE stride.events SET at = at - interval '10 days'
        FROM stride.streams WHERE stream = number AND (name = 'u' OR name = 's' AND place <= 11000)";
    client.batch_execute(age).unwrap();
    assert_eq!(trim_at(&server, now() + 19 * DAY), Ok(false));
    let first = || server.engine.position("s", Start::Oldest).unwrap().place;
    assert_eq!(first(), 0);
    let mut slices = 0;
    while trim_at(&server, now() + 21 * DAY).unwrap() {
        slices += 1;
        check_sums(&mut client);
        assert_eq!(first(), [10_000, 11_000][slices - 1], "no more at once");
    }
    assert_eq!((slices, server.engine.stream("s").unwrap().count), (2, 22_000));
    let page = PageLimit { events: 1, bytes: 1 };
    let page = server.engine.events_after("s", oldest.skip(5), page).unwrap();
    assert_eq!((page.missing, page.end), (10_995, oldest.skip(11_001)));
    assert!(events(&server.engine, "u").is_empty());
    assert_eq!(server.query("SELECT n FROM ever"), json!([{"n": 22_000}]));
    let is_less = || server.query("SELECT n FROM now") == json!([{"n": 1}]);
    assert!(server.changes.wait_until(WAIT, is_less));
    // An empty stream goes on where it was, and an id that went is new.
    server.append(&json!({"u": {"n": 1}})).blocking_recv().unwrap().unwrap();
    assert_eq!(server.engine.stream("u").unwrap().count, 2);

    server.engine.delete_stream("s").unwrap();
    server.append(&json!({"s": {}})).blocking_recv().unwrap().unwrap();
    let kept = |client: &mut Client| {
        let count = "SELECT count(*) FROM stride.events";
        client.query_one(count, &[]).unwrap().get::<_, i64>(0)
    };
    // The server does so, too.
    while trim_at(&server, now()).unwrap() {}
    let is_gone = || {
        server.changes.note();
        let mut client = Client::connect(&url, NoTls).unwrap();
        kept(&mut client) == 3
    };
    assert!(server.changes.wait_until(WAIT, is_gone), "{}", kept(&mut client));
    assert_eq!(server.query("SELECT count(*) AS n FROM s"), json!([{"n": 1}]));
    check_sums(&mut client);
}

#[test]
fn bounds_that_became_narrower_are_kept_without_new_events() {
    if !is_there() {
        return skipped("bounds_that_became_narrower_are_kept_without_new_events");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    let all = vec![json!({"text": "x".repeat(50)}); 15_000];
    server.append(&json!({"s": all, "t": all})).blocking_recv().unwrap().unwrap();
    drop(server);
    let limits = Limits { max_events: 1000, max_event_bytes: 50_000, ..Limits::default() };
    let server = Server::start_with(&url, None, &limits);
    let count = |stream: &str| {
        server.query(&format!("SELECT count(*) AS n FROM {stream}"))[0]["n"].as_u64().unwrap()
    };
    let is_less = || (1..1000).contains(&count("s")) && (1..1000).contains(&count("t"));
    assert!(server.changes.wait_until(WAIT, is_less), "{} {}", count("s"), count("t"));
    check_sums(&mut Client::connect(&url, NoTls).unwrap());
}

#[test]
fn a_subscriber_whom_retention_overtakes_goes_on_behind_it() {
    if !is_there() {
        return skipped("a_subscriber_whom_retention_overtakes_goes_on_behind_it");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let limits = Limits { max_events: 10, ..Limits::default() };
    let server = Server::start_with(&url, None, &limits);
    let subscriber = server.subscribers.subscribe(Source::Stream, "s", Want::Changes);
    // Most of these are gone before any follower can read them.
    for from in 0..20 {
        let batch: Vec<_> = (from * 30..from * 30 + 30).map(|n| json!({"n": n})).collect();
        server.append(&json!({"s": batch})).blocking_recv().unwrap().unwrap();
    }
    let last = std::cell::Cell::new(0);
    let is_told = || {
        for event in received(&subscriber).unwrap_or_default() {
            let n = event["n"].as_u64().unwrap();
            assert!(n >= last.get(), "{n}");
            last.set(n);
        }
        last.get() == 599
    };
    assert!(server.changes.wait_until(WAIT, is_told), "{}", last.get());
}

#[test]
fn another_server_sweeps_once_one_is_gone() {
    if !is_there() {
        return skipped("another_server_sweeps_once_one_is_gone");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let servers = [Server::start(&url, None), Server::start(&url, None)];
    let mut client = Client::connect(&url, NoTls).unwrap();
    let mut sweeping = || {
        let pids = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND objid::bigint = 4294967295";
        client.query(pids, &[]).unwrap().iter().map(|row| row.get(0)).collect::<Vec<i32>>()
    };
    let mut wait_for_other = |known: &[i32]| {
        let end = Instant::now() + WAIT;
        loop {
            let now = sweeping();
            assert!(now.len() <= 1, "{now:?}");
            if !now.is_empty() && now != known {
                return now;
            }
            assert!(Instant::now() < end, "nobody sweeps");
            std::thread::yield_now();
        }
    };
    let first = wait_for_other(&[]);
    // Its connection is lost, and then one of the servers ends.
    let mut admin = Client::connect(&url, NoTls).unwrap();
    admin.execute("SELECT pg_terminate_backend($1)", &[&first[0]]).unwrap();
    wait_for_other(&first);
    let [one, other] = servers;
    drop(one);
    other.process("p", "SELECT \"$timestamp\" AS at, count(*) AS n FROM s GROUP BY at");
    let ttl = crate::engine::Ttl { duration: "1 day".to_owned(), column: "at".to_owned() };
    let change = crate::engine::Change { query: None, ttl: Some(ttl) };
    other.engine.change_process("p", &change).unwrap();
    let event = json!({"s": {"$timestamp": "2015-05-05T00:00:00Z"}});
    other.append(&event).blocking_recv().unwrap().unwrap();
    let is_gone = || other.query("SELECT n FROM p") == json!([]);
    assert!(other.changes.wait_until(WAIT, is_gone));
}

#[test]
fn there_are_so_many_streams_at_most() {
    if !is_there() {
        return skipped("there_are_so_many_streams_at_most");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    let mut client = Client::connect(&url, NoTls).unwrap();
    let streams = "INSERT INTO stride.streams SELECT -n, 'x' || n, 1, 0, '', '' FROM generate_series(1, 99999) AS n";
    client.batch_execute(streams).unwrap();
    let full = server.append(&json!({"a": {}, "b": {}})).blocking_recv().unwrap();
    assert!(matches!(full, Err(EngineError::Full(_))), "{full:?}");
    server.append(&json!({"a": {}})).blocking_recv().unwrap().unwrap();
    let full = server.append(&json!({"b": {}})).blocking_recv().unwrap();
    assert!(matches!(full, Err(EngineError::Full(_))), "{full:?}");
    server.append(&json!({"a": {}})).blocking_recv().unwrap().unwrap();
}

#[test]
fn a_server_whose_database_cannot_be_written_to_is_not_healthy() {
    if !is_there() {
        return skipped("a_server_whose_database_cannot_be_written_to_is_not_healthy");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    let mut client = Client::connect(&url, NoTls).unwrap();
    server.engine.health().unwrap();
    // What a full disk says.
    let full = "CREATE FUNCTION stride.full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON stride.probe EXECUTE FUNCTION stride.full_disk()";
    client.batch_execute(full).unwrap();
    let health = server.engine.health();
    assert!(matches!(health, Err(EngineError::Unavailable(_))), "{health:?}");
    client.batch_execute("DROP TRIGGER full_disk ON stride.probe").unwrap();
    server.engine.health().unwrap();
    let left: i64 = client.query_one("SELECT count(*) FROM stride.probe", &[]).unwrap().get(0);
    assert_eq!(left, 0);
    // What a standby says.
    let database: String = client.query_one("SELECT current_database()", &[]).unwrap().get(0);
    let standby = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    client.batch_execute(&standby).unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.execute(others, &[]).unwrap();
    let is_ill = || {
        server.changes.note();
        match server.engine.health() {
            Err(EngineError::Unavailable(why)) => why.contains("does not allow writes"),
            _ => false,
        }
    };
    assert!(server.changes.wait_until(WAIT, is_ill), "{:?}", server.engine.health());
}

#[test]
fn an_overview_tells_of_many_streams_and_processes() {
    if !is_there() {
        return skipped("an_overview_tells_of_many_streams_and_processes");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    let mut client = Client::connect(&url, NoTls).unwrap();
    let streams = "INSERT INTO stride.streams SELECT -n, 'x' || n, n, 0, '', '' FROM generate_series(1, 10000) AS n";
    client.batch_execute(streams).unwrap();
    for n in 0..20 {
        server.process(&format!("p{n:02}"), &format!("SELECT count(*) + {n} AS n FROM s"));
    }
    let overview = server.engine.overview().unwrap();
    assert_eq!((overview.streams.len(), overview.processes.len()), (10_000, 20));
    assert!(overview.processes.iter().all(|(.., stats)| stats.rows == 1));
}
