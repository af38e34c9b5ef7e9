//! How fast servers store events, as a share of what the same statements by hand reach.
#![expect(clippy::print_stdout, reason = "the figures")]

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{NoTls, Statement};
use serde_json::{Value, json};
use stride_tests::{Client, Over, watchdog_of};

use crate::child::Store;
use crate::cluster::{Programs, Server};
use crate::servers::Servers;

/// Events of a request, and of a transaction by hand.
const BATCH: u64 = 1000;
/// Batches of each client or connection in a round, and rounds.
const BATCHES: u64 = 20;
const ROUNDS: u64 = 5;
const PAGES: u64 = 100;

/// What the rows by hand are kept in: events with ids that are known once, one process, and a place that is counted.
const TABLES: &str = "
    CREATE TABLE hand_streams (number int PRIMARY KEY, next bigint NOT NULL);
    CREATE TABLE hand_events (
        stream int NOT NULL, place bigint NOT NULL, id text NOT NULL, at bigint NOT NULL, event text NOT NULL,
        PRIMARY KEY (stream, place), UNIQUE (stream, id)
    );
    CREATE TABLE hand_views (page text, views bigint NOT NULL, UNIQUE NULLS NOT DISTINCT (page));
    INSERT INTO hand_streams VALUES (1, 1)";

/// Takes the places; held until the commit, so that no reader meets a greater one before a smaller one.
const PLACES: &str =
    "UPDATE hand_streams SET next = next + $1 WHERE number = 1 RETURNING next - $1";

/// Stores what is new, adds it to the process, and returns what changed there.
const STORE: &str = "
    WITH incoming AS (
        SELECT id, event, $3 + row_number() OVER (ORDER BY id) AS place
        FROM unnest($1::text[], $2::text[]) AS incoming (id, event)
    ), added AS (
        INSERT INTO hand_events SELECT 1, place, id, 0, event FROM incoming ORDER BY id
        ON CONFLICT DO NOTHING RETURNING event
    )
    INSERT INTO hand_views
    SELECT event::json ->> 'page', count(*) FROM added GROUP BY 1 ORDER BY 1
    ON CONFLICT (page) DO UPDATE SET views = hand_views.views + excluded.views
    RETURNING page, views";

const PROCESS: &str = "SELECT page, count(*) AS views FROM s GROUP BY page";

/// An event, with numbers that no other has.
fn event(id: &str, n: u64) -> Value {
    json!({"$id": id, "$timestamp": "2026-11-27T10:00:00Z", "page": format!("/page/{}", n % PAGES), "n": n,
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"})
}

/// A connection that runs the statements by hand.
struct ByHand {
    client: postgres::Client,
    store: Statement,
    places: Statement,
}

impl ByHand {
    fn connect(url: &str) -> Self {
        let mut client = postgres::Client::connect(url, NoTls).unwrap();
        let store = client.prepare(STORE).unwrap();
        let places = client.prepare(PLACES).unwrap();
        Self { client, store, places }
    }

    fn store(&mut self, ids: &[String], events: &[String]) {
        let mut transaction = self.client.transaction().unwrap();
        let count = i64::try_from(ids.len()).unwrap();
        let first: i64 = transaction.query_one(&self.places, &[&count]).unwrap().get(0);
        transaction.query(&self.store, &[&ids, &events, &first]).unwrap();
        transaction.commit().unwrap();
    }
}

/// Events a second of so many who store at the same time.
fn rate<T: Send>(workers: &mut [T], store: impl Fn(&mut T, &str, u64) + Sync) -> f64 {
    let (count, store, began) = (workers.len(), &store, Instant::now());
    thread::scope(|scope| {
        for (number, worker) in workers.iter_mut().enumerate() {
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    store(worker, &format!("{number}-{batch}"), batch);
                }
            });
        }
    });
    (count as u64 * BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The share that so many servers reach, of as many connections.
fn share(database: &Server, count: usize, clients_of_each: usize) -> f64 {
    let servers = Servers::start(Store::Database(database.url("postgres")), count);
    let mut by_hand: Vec<_> =
        (0..count).map(|_| ByHand::connect(&database.url("postgres"))).collect();
    // Each client has one connection, and the proxy hands them out in turn.
    let mut clients: Vec<Client> =
        (0..count * clients_of_each).map(|_| Over::ureq().client(&servers.endpoint())).collect();
    let (mut of_hand, mut of_servers) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        of_hand.push(rate(&mut by_hand, |by_hand, name, batch| {
            let numbers = batch * BATCH..(batch + 1) * BATCH;
            let ids: Vec<_> =
                numbers.clone().map(|n| format!("{count}-{round}-{name}-{n}")).collect();
            let events: Vec<_> =
                ids.iter().zip(numbers).map(|(id, n)| event(id, n).to_string()).collect();
            by_hand.store(&ids, &events);
        }));
        of_servers.push(rate(&mut clients, |client, name, batch| {
            let numbers = batch * BATCH..(batch + 1) * BATCH;
            let events: Vec<_> =
                numbers.map(|n| event(&format!("{count}-{round}-{name}-{n}"), n)).collect();
            assert_eq!(client.post("/collect/s", &events).unwrap().status(), 200);
        }));
    }
    let (of_hand, of_servers) = (median(of_hand), median(of_servers));
    let mut line = String::new();
    write!(line, "{count} servers: {of_servers:.0} events/s, by hand {of_hand:.0}").unwrap();
    println!("{line}, a share of {:.2}", of_servers / of_hand);
    of_servers / of_hand
}

#[test]
#[ignore = "takes figures"]
fn servers_reach_their_share_of_the_same_statements_by_hand() {
    let test = "servers_reach_their_share_of_the_same_statements_by_hand";
    let Some(programs) = Programs::find(test) else { return };
    watchdog_of(Duration::from_secs(240), move || {
        let database = Server::start(&programs);
        database.sql(TABLES);
        let first = Servers::start(Store::Database(database.url("postgres")), 1);
        let process = json!({"query": PROCESS, "action": "MATERIALIZE"});
        let made = Over::ureq().client(&first.endpoint()).post("/process/views", &process).unwrap();
        assert_eq!(made.status(), 201);
        drop(first);
        let shares = [share(&database, 1, 2), share(&database, 3, 2)];
        assert!(shares.iter().all(|share| *share >= 0.6), "{shares:?}");
    });
}
