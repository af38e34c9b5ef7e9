//! How fast servers store events, as a share of what the same statements by hand reach.
#![expect(clippy::print_stdout, reason = "the figures")]

use std::thread;
use std::time::{Duration, Instant};

use postgres::{NoTls, Statement};
use serde_json::json;
use serde_json::value::RawValue;
use stride_tests::{Client, Over, watchdog_of};

use crate::child::Store;
use crate::cluster::{Programs, Server};
use crate::servers::Servers;

/// Events of a request, and of a transaction by hand.
const BATCH: u64 = 1000;
/// Batches of each client or connection in a round, and rounds, of which the first does not count.
const BATCHES: u64 = 10;
const ROUNDS: u64 = 8;
const PAGES: u64 = 100;

/// What is to be reached, and far below it, where something is wrong and not just the machine busy.
const MARK: f64 = 0.6;
const FLOOR: f64 = 0.5;

/// What the rows by hand are kept in: events with ids that are known once, one process, whose rows keep what they were
/// before, and a place that is counted.
const TABLES: &str = "
    CREATE TABLE hand_streams (number int PRIMARY KEY, next bigint NOT NULL);
    CREATE TABLE hand_events (
        stream int NOT NULL, place bigint NOT NULL, id text NOT NULL, at bigint NOT NULL, event text NOT NULL,
        PRIMARY KEY (stream, place), UNIQUE (stream, id)
    );
    CREATE TABLE hand_views (page text, views bigint NOT NULL, before bigint, UNIQUE NULLS NOT DISTINCT (page));
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
    INSERT INTO hand_views AS kept
    SELECT event::json ->> 'page', count(*) FROM added GROUP BY 1 ORDER BY 1
    ON CONFLICT (page) DO UPDATE SET views = kept.views + excluded.views, before = kept.views
    RETURNING json_build_object('old', json_build_object('page', page, 'views', before),
        'new', json_build_object('page', page, 'views', views))::text";

const PROCESS: &str = "SELECT page, count(*) AS views FROM s GROUP BY page";

/// Ids and events of a batch, whose numbers no other has. Both sides get them ready, and so pay nothing for them.
type Ready = (Vec<String>, Vec<String>);

fn ready(name: &str) -> Ready {
    let event = |n: u64| {
        let id = format!("{name}-{n}");
        let event = json!({"$id": id, "$timestamp": "2026-11-27T10:00:00Z", "page": format!("/page/{}", n % PAGES),
            "n": n, "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"});
        (id, event.to_string())
    };
    (0..BATCH).map(event).unzip()
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

    fn store(&mut self, (ids, events): &Ready) {
        let mut transaction = self.client.transaction().unwrap();
        let count = i64::try_from(ids.len()).unwrap();
        let first: i64 = transaction.query_one(&self.places, &[&count]).unwrap().get(0);
        transaction.query(&self.store, &[ids, events, &first]).unwrap();
        transaction.commit().unwrap();
    }
}

/// A client of one of the servers.
fn send(client: &mut Client, (_, events): &Ready) {
    let events: Vec<&RawValue> =
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(client.post("/collect/s", &events).unwrap().status(), 200);
}

/// Events a second of so many who store at the same time.
fn rate<T: Send>(workers: &mut [T], name: &str, store: impl Fn(&mut T, &Ready) + Sync) -> f64 {
    let batches: Vec<Vec<Ready>> = (0..workers.len())
        .map(|number| {
            (0..BATCHES).map(|batch| ready(&format!("{name}-{number}-{batch}"))).collect()
        })
        .collect();
    let (count, store, began) = (workers.len(), &store, Instant::now());
    thread::scope(|scope| {
        for (worker, batches) in workers.iter_mut().zip(&batches) {
            scope.spawn(move || batches.iter().for_each(|batch| store(worker, batch)));
        }
    });
    (count as u64 * BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The share that so many servers reach with two clients each, of what as many connections reach by hand.
fn share(database: &Server, count: usize) -> f64 {
    let url = database.url("postgres");
    let servers = Servers::start(Store::Database(url.clone()), count);
    let mut by_hand: Vec<_> = (0..2 * count).map(|_| ByHand::connect(&url)).collect();
    // Not by the proxy, which takes its share of the processors.
    let endpoints = servers.endpoints();
    let mut clients: Vec<Client> =
        endpoints.iter().cycle().take(2 * count).map(|it| Over::ureq().client(it)).collect();
    let (mut of_hand, mut of_servers, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("{count}-{round}");
        let hand = |by_hand: &mut [ByHand]| rate(by_hand, &name, ByHand::store);
        let server = |clients: &mut [Client]| rate(clients, &name, send);
        // What the machine does besides is not always on the same side.
        let (by_hand, servers) = if round % 2 == 0 {
            let by_hand = hand(&mut by_hand);
            (by_hand, server(&mut clients))
        } else {
            let servers = server(&mut clients);
            (hand(&mut by_hand), servers)
        };
        if round > 0 {
            of_hand.push(by_hand);
            of_servers.push(servers);
            shares.push(servers / by_hand);
        }
    }
    let (of_servers, of_hand) = (median(of_servers), median(of_hand));
    let share = median(shares);
    println!("{count} servers: {of_servers:.0} events/s, by hand {of_hand:.0}: {share:.2}");
    share
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
        let shares = [share(&database, 1), share(&database, 3)];
        println!("to be reached: {MARK}");
        assert!(shares.iter().all(|share| *share >= FLOOR), "far below {MARK}: {shares:?}");
    });
}
