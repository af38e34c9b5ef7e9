//! What becomes of the errors of a real database.

use std::cell::Cell;
use std::sync::Barrier;
use std::thread;

use postgres::{Client, NoTls, Transaction};
use serde_json::json;
use tempfile::TempDir;

use super::super::connections::Connections;
use super::super::error::{Failure, query_error, standby};
use super::super::{READERS, WRITERS};
use super::servers::Server;
use super::{database, is_there, skipped, until};
use crate::engine::EngineError;
use crate::settings::Limits;

fn connections(place: &TempDir) -> Connections {
    Connections::new(&database(place.path()), "SET deadlock_timeout = '10ms'".to_owned()).unwrap()
}

fn run(sql: &str) -> impl FnMut(&mut Transaction<'_>) -> Result<(), Failure> {
    move |transaction| Ok(transaction.batch_execute(sql)?)
}

/// Does `first` in the first try of a transaction, and returns how often it was tried, and with what end.
fn tries(
    connections: &Connections,
    first: impl Fn(&mut Transaction<'_>) -> Result<(), Failure>,
) -> (u32, Result<(), EngineError>) {
    let tries = Cell::new(0);
    let end = connections.transaction(|transaction| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 { first(transaction) } else { Ok(()) }
    });
    (tries.get(), end)
}

#[test]
fn each_error_is_whose_it_is() {
    if !is_there() {
        return skipped("each_error_is_whose_it_is");
    }
    let place = TempDir::new().unwrap();
    let connections = connections(&place);
    connections.transaction(run("CREATE TABLE t (x int)")).unwrap();
    let error = |sql: &str| {
        let mut client = connections.connect().unwrap();
        client.batch_execute(sql).unwrap_err()
    };
    let wide = format!("SELECT {}", vec!["1"; 1665].join(", "));
    for of_the_query in ["SELEC", "SELECT y FROM t", "SELECT 1 / 0", "SELECT 'x'::int", &wide] {
        let error = query_error(error(of_the_query));
        assert!(matches!(error, EngineError::Invalid(_)), "{of_the_query}: {error:?}");
    }
    // A disk cannot be filled here, nor a file be damaged, but a database can be made to say so.
    let raised = |code: &str| {
        error(&format!("DO $$ BEGIN RAISE EXCEPTION 'oops' USING ERRCODE = '{code}'; END $$"))
    };
    let unavailable = EngineError::Unavailable("the database failed: oops".to_owned());
    for code in ["08006", "40001", "53100", "53200", "53300", "55006", "57P03", "58030"] {
        assert_eq!(EngineError::from(raised(code)), unavailable, "{code}");
        assert_eq!(query_error(raised(code)), unavailable, "{code}");
    }
    for code in ["XX001", "XX002"] {
        let damaged = EngineError::Damaged("the database failed: oops".to_owned());
        assert_eq!(query_error(raised(code)), damaged, "{code}");
    }
    for code in ["XX000", "23505"] {
        let broken = EngineError::Broken("the database failed: oops".to_owned());
        assert_eq!(query_error(raised(code)), broken, "{code}");
    }
    // A lock that somebody else holds.
    let mut holder = connections.connect().unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE t").unwrap();
    let locked = EngineError::from(error("SET lock_timeout = '1ms'; SELECT * FROM t"));
    assert!(matches!(locked, EngineError::Unavailable(_)), "{locked:?}");
}

#[test]
fn a_deadlock_is_tried_again() {
    if !is_there() {
        return skipped("a_deadlock_is_tried_again");
    }
    let place = TempDir::new().unwrap();
    let connections = connections(&place);
    let table = "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2)";
    connections.transaction(run(table)).unwrap();
    let both = Barrier::new(2);
    let tries = thread::scope(|scope| {
        let ends = [[1, 2], [2, 1]].map(|order| {
            let (connections, both) = (&connections, &both);
            scope.spawn(move || {
                let mut tries = 0;
                let end = connections.transaction(|transaction| {
                    tries += 1;
                    for (place, row) in order.iter().enumerate() {
                        if place == 1 && tries == 1 {
                            both.wait();
                        }
                        transaction.execute("UPDATE t SET x = x WHERE x = $1", &[row])?;
                    }
                    Ok(())
                });
                end.unwrap();
                tries
            })
        });
        ends.map(|end| end.join().unwrap()).iter().sum::<u32>()
    });
    assert!(tries > 2, "the database ended one of them, once or more");
}

#[test]
fn a_lost_connection_is_made_anew_unless_what_was_done_may_be_committed() {
    let name = "a_lost_connection_is_made_anew_unless_what_was_done_may_be_committed";
    if !is_there() {
        return skipped(name);
    }
    let place = TempDir::new().unwrap();
    let connections = connections(&place);
    let mut admin = Client::connect(&database(place.path()), NoTls).unwrap();
    // 57P01, in the middle of a transaction.
    let ended = |transaction: &mut Transaction<'_>| {
        transaction.query("SELECT pg_terminate_backend(pg_backend_pid())", &[])?;
        Ok(())
    };
    assert_eq!(tries(&connections, ended), (2, Ok(())));

    // While nobody used them.
    let kept: Vec<_> = (0..3).map(|_| connections.take().unwrap()).collect();
    kept.into_iter().for_each(|client| connections.put_back(client));
    let others = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ended: i64 = admin.query_one(others, &[]).unwrap().get(0);
    assert!(ended >= 3);
    let gone = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("they are gone", || admin.query_one(gone, &[]).unwrap().get::<_, i64>(0) == 0);
    assert_eq!(tries(&connections, |_| Ok(())).1, Ok(()));

    // Between the last statement and its commit.
    let (count, end) = {
        let mut tries = 0;
        let end = connections.transaction(|transaction| {
            tries += 1;
            let pid: i32 = transaction.query_one("SELECT pg_backend_pid()", &[])?.get(0);
            let end = "SELECT pg_terminate_backend($1)";
            assert!(admin.query_one(end, &[&pid]).unwrap().get::<_, bool>(0));
            Ok(())
        });
        (tries, end)
    };
    let Err(EngineError::Unavailable(why)) = end else { panic!("{end:?}") };
    assert!(why.contains("may be stored"), "{why}");
    assert_eq!(count, 1);

    // 25006, as a primary says that has become a standby.
    connections.put_back(connections.connect().unwrap());
    let demoted = |transaction: &mut Transaction<'_>| {
        transaction.batch_execute("SET TRANSACTION READ ONLY; CREATE TABLE u ()")?;
        Ok(())
    };
    assert_eq!(tries(&connections, demoted), (2, Ok(())));
    let always = connections.transaction(run("SET TRANSACTION READ ONLY; CREATE TABLE u ()"));
    assert_eq!(always, Err(standby()));
}

#[test]
fn whoever_gets_no_connection_is_told_why() {
    if !is_there() {
        return skipped("whoever_gets_no_connection_is_told_why");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let mut admin = Client::connect(&url, NoTls).unwrap();
    let role = format!("stride_few_{}", std::process::id());
    let make = format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN CONNECTION LIMIT 1");
    admin.batch_execute(&make).unwrap();
    let at = url.find('@').unwrap();
    let few = format!("postgres://{role}:sesame{}", &url[at..]);
    let connections = Connections::new(&few, String::new()).unwrap();
    let only = connections.take().unwrap();
    let told = connections.transaction(|_| Ok(()));
    let Err(EngineError::Unavailable(why)) = &told else { panic!("{told:?}") };
    assert!(why.contains("too many connections") && !why.contains("sesame"), "{why}");
    connections.put_back(only);
    assert_eq!(connections.transaction(|_| Ok(())), Ok(()), "there is one again");
    drop(connections);
    admin.batch_execute(&format!("DROP ROLE {role}")).unwrap();

    let nowhere = place.path().display().to_string().replace('/', "%2F");
    let nowhere = format!("postgres://u:sesame@{nowhere}/d");
    for (url, why) in [
        (nowhere, "the database cannot be reached: error connecting to server"),
        (format!("{url}_not"), "the database failed: database \"stride_test_"),
    ] {
        let error = Connections::new(&url, String::new()).unwrap().connect().err().unwrap();
        let EngineError::Unavailable(error) = &error else { panic!("{error:?}") };
        assert!(error.starts_with(why) && !error.contains("sesame"), "{error}");
    }
}

#[test]
fn a_server_has_a_bounded_number_of_connections() {
    if !is_there() {
        return skipped("a_server_has_a_bounded_number_of_connections");
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let server = Server::start_with(&url, None, &Limits::default());
    let mut admin = Client::connect(&url, NoTls).unwrap();
    let mut most = 0;
    let mut count = || {
        let count = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'stride-local'";
        most = most.max(admin.query_one(count, &[]).unwrap().get::<_, i64>(0));
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..3 * (WRITERS + READERS))
            .map(|n| {
                let server = &server;
                scope.spawn(move || {
                    let stored = server.append(&json!({"s": {"n": n}, format!("s{n}"): {"n": n}}));
                    server.query("SELECT count(*) AS n FROM s");
                    stored.blocking_recv().unwrap().unwrap();
                })
            })
            .collect();
        while asking.iter().any(|asking| !asking.is_finished()) {
            count();
        }
    });
    count();
    // One each that listens, follows, runs processes again, fills them, holds the lock of who deletes, and deletes.
    assert!(most <= (WRITERS + READERS + 6) as i64, "{most}");
    assert_eq!(
        server.query("SELECT count(*) AS n FROM s"),
        json!([{"n": 3 * (WRITERS + READERS)}])
    );
}
