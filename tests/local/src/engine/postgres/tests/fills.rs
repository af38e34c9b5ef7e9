//! Processes are given what is stored slice by slice, while their streams go on taking events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::{Client, NoTls};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::kinds::{Folded, collect, rows};
use super::servers::{Server, WAIT};
use super::{database, is_there, until};
use crate::engine::contract::skipped;
use crate::engine::{Change, Definition, Engine as _, EngineError, Filling};
use crate::settings::Limits;

const GROUPS: &str = "SELECT k, count(*) AS n, count(DISTINCT n) AS d FROM s GROUP BY k";

/// More events than three slices of a test have.
fn events() -> Value {
    json!({"s": (0..1700).map(|n| json!({"k": n % 7, "n": n})).collect::<Vec<_>>()})
}

fn put(server: &Server, process: &str, query: &str) -> Result<(), EngineError> {
    let change = Change { query: Some(query.to_owned()), ttl: None };
    server.engine.change_process(process, &change)
}

/// Holds slices back at their end, when they have come so far.
struct Held {
    client: Client,
}

impl Held {
    fn at(url: &str, filled: i64) -> Self {
        let mut client = Client::connect(url, NoTls).unwrap();
        let hold = format!(
            "CREATE FUNCTION stride.hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(21); RETURN NULL; END $$;
            CREATE TRIGGER hold AFTER UPDATE ON stride.processes FOR EACH ROW
                WHEN (new.filled = {filled}) EXECUTE FUNCTION stride.hold();
            SELECT pg_advisory_lock(21)"
        );
        client.batch_execute(&hold).unwrap();
        Self { client }
    }

    /// Waits until one is held, and returns by which connection.
    fn wait(&mut self) -> i32 {
        let held =
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 21
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let mut pid = 0;
        until("a slice is held", || match self.client.query_opt(held, &[]).unwrap() {
            Some(row) => {
                pid = row.get(0);
                true
            }
            None => false,
        });
        pid
    }

    fn filled(&mut self) -> i64 {
        let filled = "SELECT filled FROM stride.processes WHERE filled IS NOT NULL";
        self.client.query_one(filled, &[]).unwrap().get(0)
    }

    fn release(mut self) {
        let release = "DROP TRIGGER hold ON stride.processes";
        self.client.batch_execute("SELECT pg_advisory_unlock(21)").unwrap();
        self.client.batch_execute(release).unwrap();
        self.client.batch_execute("DROP FUNCTION stride.hold").unwrap();
    }
}

fn more(server: &Server, n: i64) {
    collect(server, &json!({"s": [{"k": 1, "n": n}, {"k": 2, "n": n}], "t": {"n": n}}));
}

#[test]
fn events_are_stored_while_a_new_process_is_filled() {
    if !is_there() {
        return skipped("events_are_stored_while_a_new_process_is_filled");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let servers = [Server::start(&url, None), Server::start(&url, None)];
    collect(&servers[0], &events());
    let told = servers.each_ref().map(|server| Folded::of(server, "p"));
    let mut held = Held::at(&url, 1001);
    thread::scope(|scope| {
        let made = scope.spawn(|| servers[0].process("p", GROUPS));
        held.wait();
        for (server, n) in servers.iter().zip(5000..) {
            more(server, n);
            let stats = server.engine.process_stats("p").unwrap();
            let of = 1700 + 2 * (n.unsigned_abs() - 4999);
            assert_eq!(stats.filling, Some(Filling { given: 500, of }));
        }
        // What it has so far can be read.
        assert_eq!(servers[1].query("SELECT sum(n) AS n FROM p"), json!([{"n": 500}]));
        let definition = Definition { query: GROUPS.to_owned(), ttl: None };
        let again = servers[1].engine.create_process("p", &definition);
        assert!(matches!(again, Err(EngineError::Conflict(_))), "{again:?}");
        until("they are counted", || servers[1].engine.counters().filling_processes == 1);
        assert!(!made.is_finished());
        held.release();
        made.join().unwrap();
    });
    for (server, told) in servers.iter().zip(&told) {
        more(server, 6000);
        assert_eq!(server.engine.process_stats("p").unwrap().filling, None);
        assert_eq!(rows(server, "SELECT * FROM p"), rows(server, GROUPS));
        told.adds_up_to(server, "SELECT * FROM p");
    }
    until("it is whole", || servers[1].engine.counters().filling_processes == 0);
}

#[test]
fn columns_get_another_type_while_somebody_reads_them() {
    if !is_there() {
        return skipped("columns_get_another_type_while_somebody_reads_them");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    collect(&server, &json!({"s": {"k": 1, "n": 1}}));
    server.process("p", GROUPS);
    let mut reading = Client::connect(&url, NoTls).unwrap();
    let table = "SELECT format('SELECT FROM stride.p_%s_%s', number, made) FROM stride.processes WHERE name = 'p'";
    let read: String = reading.query_one(table, &[]).unwrap().get(0);
    reading.batch_execute(&format!("BEGIN; {read}")).unwrap();
    // No event had a text as its k before.
    collect(&server, &json!({"s": {"k": "a", "n": 2}}));
    assert_eq!(rows(&server, "SELECT * FROM p"), rows(&server, GROUPS));
    reading.batch_execute(&format!("{read}; COMMIT")).unwrap();
    until("the old table is dropped", || reading.batch_execute(&read).is_err());
}

#[test]
fn the_old_rows_are_shown_until_a_successor_is_whole() {
    if !is_there() {
        return skipped("the_old_rows_are_shown_until_a_successor_is_whole");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let servers = [Server::start(&url, None), Server::start(&url, None)];
    collect(&servers[0], &events());
    let told = Folded::of(&servers[1], "p");
    servers[0].process("p", GROUPS);
    servers[0].process("of", "SELECT sum(n) AS n FROM p");
    let other = "SELECT k, n FROM s WHERE n % 2 = 0";
    let mut reading = Client::connect(&url, NoTls).unwrap();
    let table = "SELECT format('SELECT FROM stride.p_%s_%s', number, made) FROM stride.processes WHERE name = 'p'";
    let read: String = reading.query_one(table, &[]).unwrap().get(0);
    reading.batch_execute("BEGIN").unwrap();
    let mut held = Held::at(&url, 1001);
    thread::scope(|scope| {
        let changed = scope.spawn(|| put(&servers[0], "p", other));
        held.wait();
        more(&servers[1], 5000);
        assert_eq!(rows(&servers[1], "SELECT * FROM p"), rows(&servers[1], GROUPS), "it goes on");
        assert_eq!(servers[1].engine.processes().unwrap(), ["of", "p"]);
        assert_eq!(servers[1].engine.overview().unwrap().processes.len(), 2);
        let stats = servers[1].engine.process_stats("p").unwrap();
        assert_eq!(stats.filling, Some(Filling { given: 500, of: 1702 }));
        let again = put(&servers[1], "p", "SELECT k FROM s");
        assert!(matches!(&again, Err(EngineError::Conflict(why)) if why.contains("already")));
        let taken = servers[1].engine.delete_process("p");
        assert!(matches!(taken, Err(EngineError::Conflict(_))), "it is read");
        assert_eq!(servers[1].engine.process("p").unwrap().query, GROUPS);
        // A query that goes on for long keeps nobody waiting, and has its rows until its end.
        reading.batch_execute(&read).unwrap();
        held.release();
        changed.join().unwrap().unwrap();
    });
    more(&servers[1], 5002);
    reading.batch_execute(&read).unwrap();
    reading.batch_execute("COMMIT").unwrap();
    until("its table is dropped", || reading.batch_execute(&read).is_err());
    assert_eq!(servers[1].engine.process("p").unwrap().query, other);
    assert_eq!(rows(&servers[0], "SELECT * FROM p"), rows(&servers[0], other));
    told.adds_up_to(&servers[1], "SELECT * FROM p");

    // Deleted in the middle of another change, nothing of it is left.
    servers[0].engine.delete_process("of").unwrap();
    let stream = servers[0].engine.delete_process("s");
    assert!(matches!(stream, Err(EngineError::NotFound(_))), "{stream:?}");
    let mut held = Held::at(&url, 1001);
    thread::scope(|scope| {
        let changed = scope.spawn(|| put(&servers[0], "p", GROUPS));
        held.wait();
        let deleted = scope.spawn(|| servers[1].engine.delete_process("p"));
        until("it waits for the slice", || {
            let waiting = "SELECT 1 FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event = 'transactionid'";
            !held.client.query(waiting, &[]).unwrap().is_empty()
        });
        held.release();
        deleted.join().unwrap().unwrap();
        let changed = changed.join().unwrap();
        assert!(matches!(changed, Err(EngineError::NotFound(_))), "{changed:?}");
    });
    let mut client = Client::connect(&url, NoTls).unwrap();
    let left = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'p\\_%'
        AND relnamespace = 'stride'::regnamespace";
    until("nothing is left", || client.query(left, &[]).unwrap().is_empty());
}

#[test]
fn another_server_goes_on_with_what_one_that_died_was_filling() {
    if !is_there() {
        return skipped("another_server_goes_on_with_what_one_that_died_was_filling");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let mut admin = Client::connect(&url, NoTls).unwrap();
    let role = format!("stride_dying_{}", std::process::id());
    let make = format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} SUPERUSER LOGIN");
    admin.batch_execute(&make).unwrap();
    let at = url.find('@').unwrap();
    let other = Server::start(&url, None);
    let dying = Server::start(&format!("postgres://{role}{}", &url[at..]), None);
    collect(&other, &events());
    let told = Folded::of(&other, "p");
    // Of no events at all, it has a row already.
    told.rows.replace(vec![json!({"n": 0}).to_string()]);
    other.process("p", "SELECT count(*) AS n FROM s");
    for (name, is_new) in [("q", true), ("p", false)] {
        let mut held = Held::at(&url, 1001);
        thread::scope(|scope| {
            let made = scope.spawn(|| match is_new {
                true => {
                    let query = GROUPS.to_owned();
                    dying.engine.create_process(name, &Definition { query, ttl: None })
                }
                false => put(&dying, name, GROUPS),
            });
            held.wait();
            // First the one, so that none of them comes back.
            admin.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).unwrap();
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            );
            admin.batch_execute(&end).unwrap();
            let made = made.join().unwrap();
            assert!(matches!(made, Err(EngineError::Unavailable(_))), "{made:?}");
            // The other has gone on where that one was, and is held there, too.
            held.wait();
            assert_eq!(held.filled(), 501);
            more(&other, 5000);
            held.release();
        });
        let is_whole = || {
            other.changes.note();
            let process = other.engine.process(name).unwrap();
            process.query == GROUPS && other.engine.process_stats(name).unwrap().filling.is_none()
        };
        assert!(other.changes.wait_until(WAIT, is_whole));
        assert_eq!(rows(&other, &format!("SELECT * FROM {name}")), rows(&other, GROUPS));
        admin.batch_execute(&format!("ALTER ROLE {role} LOGIN")).unwrap();
        until("it can be reached again", || dying.engine.health().is_ok());
    }
    told.adds_up_to(&other, "SELECT * FROM p");
    drop((dying, other));
    admin
        .batch_execute(&format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP ROLE {role}"))
        .unwrap();
}

#[test]
fn a_process_whose_columns_have_to_be_others_is_made_anew_out_of_sight() {
    if !is_there() {
        return skipped("a_process_whose_columns_have_to_be_others_is_made_anew_out_of_sight");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let limits = Limits { max_events: 1600, ..Limits::default() };
    let server = Server::start_with(&url, None, &limits);
    collect(&server, &events());
    let told = Folded::of(&server, "p");
    server.process("p", GROUPS);
    told.adds_up_to(&server, "SELECT * FROM p");
    let before = rows(&server, "SELECT * FROM p");
    let mut held = Held::at(&url, 603);
    // As if the columns had types that cannot become others.
    let types = "UPDATE stride.processes SET types = array_fill('name'::text, ARRAY[cardinality(types)]), seen = ''";
    held.client.batch_execute(types).unwrap();
    more(&server, 5000);
    held.wait();
    more(&server, 5001);
    let stats = server.engine.process_stats("p").unwrap();
    assert!(stats.stale && stats.last_error.unwrap().contains("being made anew"));
    assert_eq!(stats.filling, Some(Filling { given: 0, of: 1600 }));
    assert_eq!(rows(&server, "SELECT * FROM p"), before, "the old rows are shown");
    held.release();
    let is_whole = || {
        server.changes.note();
        !server.engine.process_stats("p").unwrap().stale
    };
    assert!(server.changes.wait_until(WAIT, is_whole));
    let stats = server.engine.process_stats("p").unwrap();
    // Those that went before it was begun with.
    assert_eq!(stats.skipped, 102);
    assert!(stats.last_error.unwrap().contains("no longer holds"));
    told.adds_up_to(&server, "SELECT * FROM p");
    let n = server.query("SELECT sum(n) AS n FROM p")[0]["n"].as_u64().unwrap();
    assert!((1600..=1602).contains(&n), "{n}");
}

#[test]
fn a_process_is_made_anew_if_nothing_comes_of_another_query() {
    if !is_there() {
        return skipped("a_process_is_made_anew_if_nothing_comes_of_another_query");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let limits = Limits { max_distinct: 1000, ..Limits::default() };
    let server = Server::start_with(&url, None, &limits);
    collect(&server, &events());
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    server.process("p", query);
    let mut held = Held::at(&url, 1001);
    thread::scope(|scope| {
        // It may keep no more in its third slice.
        let changed = scope.spawn(|| put(&server, "p", GROUPS));
        held.wait();
        let types = "UPDATE stride.processes SET types = array_fill('name'::text, ARRAY[cardinality(types)]), seen = ''
            WHERE name = 'p'";
        held.client.batch_execute(types).unwrap();
        more(&server, 5000);
        assert!(server.engine.process_stats("p").unwrap().stale);
        held.release();
        let changed = changed.join().unwrap();
        assert!(matches!(changed, Err(EngineError::Invalid(_))), "{changed:?}");
    });
    let is_whole = || {
        server.changes.note();
        !server.engine.process_stats("p").unwrap().stale
    };
    assert!(server.changes.wait_until(WAIT, is_whole));
    assert_eq!(rows(&server, "SELECT * FROM p"), rows(&server, query));
    assert_eq!(server.engine.counters().storage_errors, 0);
}

#[test]
fn a_fill_begins_anew_when_columns_have_to_be_others() {
    if !is_there() {
        return skipped("a_fill_begins_anew_when_columns_have_to_be_others");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    collect(&server, &events());
    // As if the columns had types that cannot become others, once the second slice is over.
    let anew = "CREATE FUNCTION stride.anew() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.types = array_fill('name'::text, ARRAY[cardinality(new.types)]); new.seen = '1:0'; RETURN new; END $$;
        CREATE TRIGGER anew BEFORE UPDATE ON stride.processes FOR EACH ROW
            WHEN (new.filled = 1001 AND new.made = 1) EXECUTE FUNCTION stride.anew()";
    let mut client = Client::connect(&url, NoTls).unwrap();
    client.batch_execute(anew).unwrap();
    server.process("p", GROUPS);
    let made = "SELECT made FROM stride.processes WHERE name = 'p'";
    assert_eq!(client.query_one(made, &[]).unwrap().get::<_, i64>(0), 2);
    assert_eq!(rows(&server, "SELECT * FROM p"), rows(&server, GROUPS));
    // Whoever was shown the rows of before begins again.
    let noted = "SELECT count(*) FROM stride.changes WHERE changes = ''";
    assert_eq!(client.query_one(noted, &[]).unwrap().get::<_, i64>(0), 1);
    // Nobody saw those of a successor.
    server.process("q", "SELECT k FROM s WHERE n < 0 ORDER BY k");
    let told = Folded::of(&server, "q");
    put(&server, "q", GROUPS).unwrap();
    assert_eq!(rows(&server, "SELECT * FROM q"), rows(&server, GROUPS));
    told.adds_up_to(&server, "SELECT * FROM q");
}

#[test]
fn a_process_that_cannot_be_filled_leaves_nothing() {
    if !is_there() {
        return skipped("a_process_that_cannot_be_filled_leaves_nothing");
    }
    let place = TempDir::new().unwrap();
    let limits = Limits { max_distinct: 1000, ..Limits::default() };
    let server = Server::start_with(&database(place.path()), None, &limits);
    collect(&server, &events());
    // It may keep no more in its third slice.
    let many = "SELECT count(DISTINCT n) AS d FROM s";
    let definition = Definition { query: many.to_owned(), ttl: None };
    let refused = server.engine.create_process("p", &definition);
    assert!(matches!(&refused, Err(EngineError::Invalid(why)) if why.contains("1000 distinct")));
    assert_eq!(server.engine.processes().unwrap(), Vec::<String>::new());
    server.process("p", "SELECT count(*) AS n FROM s");
    let refused = put(&server, "p", many);
    assert!(matches!(&refused, Err(EngineError::Invalid(why)) if why.contains("1000 distinct")));
    more(&server, 5000);
    assert_eq!(server.query("SELECT * FROM p"), json!([{"n": 1702}]));
    assert_eq!(server.engine.process_stats("p").unwrap().filling, None);
    put(&server, "p", "SELECT max(n) AS n FROM s").unwrap();
    assert_eq!(server.query("SELECT * FROM p"), json!([{"n": 5000}]));
}

#[test]
fn a_stream_that_is_deleted_in_the_middle_of_a_fill_is_another_one() {
    if !is_there() {
        return skipped("a_stream_that_is_deleted_in_the_middle_of_a_fill_is_another_one");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start(&url, None);
    for is_back in [false, true] {
        collect(&server, &events());
        let mut held = Held::at(&url, 1001);
        let told = Folded::of(&server, "p");
        thread::scope(|scope| {
            let made = scope.spawn(|| server.process("p", "SELECT k, n FROM s"));
            held.wait();
            server.engine.delete_stream("s").unwrap();
            if is_back {
                more(&server, 5000);
            }
            held.release();
            made.join().unwrap();
        });
        more(&server, 5001);
        let expected = if is_back { 4 } else { 2 };
        assert_eq!(rows(&server, "SELECT * FROM p").len(), expected);
        told.adds_up_to(&server, "SELECT k, n FROM s");
        server.engine.delete_process("p").unwrap();
        server.engine.delete_stream("s").unwrap();
    }
}

/// Changes, new processes, deletions and events of two servers at once, with kinds of values that come while a process is
/// filled, and with events that go.
#[test]
fn whatever_happens_while_processes_are_filled_they_are_their_queries() {
    let name = "whatever_happens_while_processes_are_filled_they_are_their_queries";
    if !is_there() {
        return skipped(name);
    }
    const PLAIN: [&str; 3] = [
        "SELECT k, n FROM s",
        "SELECT n, k AS key FROM s WHERE n % 3 > 0",
        "SELECT n AS k FROM s WHERE k IS NOT NULL",
    ];
    const COUNTED: [&str; 4] = [
        GROUPS,
        "SELECT DISTINCT n % 50 AS m FROM s",
        "SELECT n % 5 AS m, min(n) AS least, max(n) AS most, avg(n) AS mean FROM s GROUP BY 1",
        "SELECT k, count(*) AS c FROM s GROUP BY k HAVING count(*) % 2 = 0",
    ];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for is_bounded in [false, true] {
        let mut queries = PLAIN.to_vec();
        let mut limits = Limits::default();
        // What was counted stays when its events go.
        match is_bounded {
            true => limits.max_events = 1500,
            false => queries.extend(COUNTED),
        }
        let place = TempDir::new().unwrap();
        let url = database(place.path());
        let servers = [(); 2].map(|()| Server::start_with(&url, None, &limits));
        let told = servers.each_ref().map(|server| Folded::of(server, "p"));
        servers[0].process("p", PLAIN[0]);
        collect(&servers[0], &events());
        for round in 0..3 {
            let done = AtomicBool::new(false);
            let mut query = queries[random.usize(..queries.len())];
            while query == servers[0].engine.process("p").unwrap().query {
                query = queries[random.usize(..queries.len())];
            }
            let created = queries[random.usize(..queries.len())];
            let texts = round == 1;
            thread::scope(|scope| {
                for (number, server) in servers.iter().enumerate() {
                    let (done, mut random) = (&done, random.fork());
                    scope.spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            let events: Vec<Value> = (0..random.usize(1..30))
                                .map(|_| {
                                    let k = random.u8(..9);
                                    let k = if texts { json!(k.to_string()) } else { json!(k) };
                                    json!({"k": k, "n": random.u16(..500)})
                                })
                                .collect();
                            let batch = match number {
                                0 => json!({"s": events, "t": {"n": 1}}),
                                _ => json!({"r": {"n": 1}, "s": events}),
                            };
                            collect(server, &batch);
                        }
                    });
                }
                let server = &servers[round % 2];
                let made = scope.spawn(move || server.process("q", created));
                let deleted = scope.spawn(|| {
                    let definition = Definition { query: created.to_owned(), ttl: None };
                    let gone = thread::scope(|scope| {
                        let made =
                            scope.spawn(|| servers[0].engine.create_process("r0", &definition));
                        while servers[1].engine.delete_process("r0").is_err() && !made.is_finished()
                        {
                        }
                        made.join().unwrap()
                    });
                    if gone.is_ok() {
                        drop(servers[1].engine.delete_process("r0"));
                    }
                });
                let changed = put(&servers[(round + 1) % 2], "p", query);
                let ends = [made.join().is_ok(), deleted.join().is_ok()];
                done.store(true, Ordering::Relaxed);
                assert_eq!((changed, ends), (Ok(()), [true; 2]), "seed {seed}: {query}, {created}");
            });
            for (server, told) in servers.iter().zip(&told) {
                for (name, query) in [("p", query), ("q", created)] {
                    let kept = rows(server, &format!("SELECT * FROM {name}"));
                    assert_eq!(kept, rows(server, query), "seed {seed}: {name} is {query}");
                }
                told.adds_up_to(server, "SELECT * FROM p");
            }
            assert_eq!(servers[0].engine.processes().unwrap(), ["p", "q"]);
            servers[0].engine.delete_process("q").unwrap();
        }
        drop((told, servers));
        let mut client = Client::connect(&url, NoTls).unwrap();
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(client.query_one(deadlocks, &[]).unwrap().get::<_, i64>(0), 0, "seed {seed}");
    }
}
