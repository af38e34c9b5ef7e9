//! From a file to PostgreSQL, by a program that is killed meanwhile.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use stride_core::subscribe::{Position, Reconnect, SubscriptionEvent};
use stride_local::Local;
use stride_tests::{Client, Over, watchdog_of};

use crate::child::KEY;
use crate::cluster::{Programs, Server};

/// What a child copies, and where to: variables of its environment.
const FILE: &str = "STRIDE_TESTS_MIGRATE_FILE";
const DATABASE: &str = "STRIDE_TESTS_MIGRATE_DATABASE";

const EVENTS: u64 = 60_000;
const STREAMS: [&str; 2] = ["s", "t"];

/// Processes whose results are of events that the file no longer has, too.
const PROCESSES: [(&str, &str); 4] = [
    ("views", "SELECT page, count(*) AS views FROM s GROUP BY page"),
    ("values_of", "SELECT page, count(DISTINCT n) AS d, sum(n) AS sum FROM s GROUP BY page"),
    ("all_of_t", "SELECT count(*) AS c, max(n) AS most, avg(n) > 5 AS many FROM t"),
    ("odd", "SELECT n, page, odd FROM t WHERE odd"),
];

/// Not a test, but what the other starts.
#[test]
fn a_child_migrates() {
    let Ok(file) = env::var(FILE) else { return };
    stride_local::migrate(Path::new(&file), &env::var(DATABASE).unwrap()).unwrap();
}

/// Copies in a process that is killed after a while, and returns whether it had ended before.
fn migrate(file: &Path, database: &str, kill_after: Duration) -> bool {
    let mut command = Command::new(env::current_exe().expect("a test is a program"));
    command.args(["--exact", "migrate::a_child_migrates"]).stdout(Stdio::null());
    let mut child = command.env(FILE, file).env(DATABASE, database).spawn().unwrap();
    // A moment that nothing depends on.
    thread::sleep(kill_after);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none_or(|status| status.success()));
    ended.is_some()
}

fn event(n: u64) -> Value {
    match n % 3 {
        0 => json!({"$id": n, "n": n, "page": format!("p{}", n % 10)}),
        1 => json!({"$id": format!("e{n}"), "n": n, "odd": true, "nul": "\0", "page": null}),
        _ => json!({"n": n, "nested": {"n": [n]}, "$timestamp": "2015-05-05T23:40:27.5Z"}),
    }
}

/// What clients see of a server, but for what depends on its database.
#[derive(Debug)]
struct Seen {
    streams: Vec<(String, u64, Vec<Value>)>,
    rows: Vec<Vec<String>>,
    results: Value,
    definitions: Vec<Value>,
}

fn seen(local: &Local, client: &Client) -> Seen {
    let get = |path: &str| -> Value {
        client.get(path).unwrap().error_for_status().unwrap().data().unwrap().unwrap()
    };
    let streams = STREAMS
        .map(|name| (name.to_owned(), local.count(name).unwrap(), local.events(name).unwrap()));
    let rows = PROCESSES.map(|(name, _)| {
        let query = json!({"query": format!("SELECT * FROM {name}")});
        let rows = client.post("/analyze", &query).unwrap().error_for_status().unwrap();
        let rows: Vec<Value> = rows.data().unwrap().unwrap();
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    });
    Seen {
        streams: streams.into(),
        rows: rows.into(),
        results: get("/analyze/many/results?least=100"),
        definitions: ["/collect/s", "/process", "/process/views", "/analyze", "/analyze/many"]
            .map(get)
            .into(),
    }
}

/// The rows that a subscription to a process begins with.
fn snapshot(client: &Client, process: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for event in client.subscribe_with_snapshot(&format!("/process/{process}")).unwrap() {
        match event.unwrap() {
            SubscriptionEvent::Data(change) => {
                let change: Value = change;
                rows.push(change["new"].to_string());
            }
            SubscriptionEvent::SnapshotDone => break,
            _ => {}
        }
    }
    rows.sort();
    rows
}

/// The next event behind a position.
fn next(client: &Client, stream: &str, position: &Position) -> Value {
    let path = format!("/collect/{stream}");
    let events = client.subscribe_after(&path, position.clone(), Reconnect::Never).unwrap();
    for event in events {
        if let SubscriptionEvent::Data(event) = event.unwrap() {
            return event;
        }
    }
    panic!("the subscription has ended");
}

#[test]
#[ignore = "copies a file, and is killed meanwhile"]
fn what_a_file_holds_is_copied_whole_however_often_the_copy_is_killed() {
    let test = "what_a_file_holds_is_copied_whole_however_often_the_copy_is_killed";
    let Some(programs) = Programs::find(test) else { return };
    watchdog_of(Duration::from_secs(240), move || {
        let database = Server::start(&programs);
        let url = database.url("postgres");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stride.db");
        let start = || Local::builder().secret_key(KEY);
        let local = start().data(&file).max_events(EVENTS as usize / 4).start().unwrap();
        let client = Over::ureq().client(&local.endpoint());
        for (name, query) in PROCESSES {
            let process = json!({"query": query, "action": "MATERIALIZE"});
            assert_eq!(client.post(&format!("/process/{name}"), &process).unwrap().status(), 201);
        }
        for first in (0..EVENTS).step_by(1000) {
            let events: Vec<Value> = (first..first + 1000).map(event).collect();
            // A stream that was deleted leaves its number unused.
            let name = if first == 0 { "gone" } else { STREAMS[first as usize / 1000 % 2] };
            let sent = client.post(&format!("/collect/{name}"), &events).unwrap();
            assert_eq!(sent.status(), 200);
        }
        client.delete("/collect/gone").unwrap().error_for_status().unwrap();

        let many = json!({"query": "SELECT page FROM views WHERE views > :least AND page IS NOT NULL ORDER BY page"});
        client.put("/analyze/many", &many).unwrap().error_for_status().unwrap();
        let before = seen(&local, &client);
        let mut reading =
            client.subscribe_after("/collect/t", Position::oldest(), Reconnect::Never).unwrap();
        let mut read = 0;
        while read < 5 {
            read +=
                u64::from(matches!(reading.next().unwrap().unwrap(), SubscriptionEvent::Data(_)));
        }
        let position = reading.position().unwrap();
        let expected = next(&client, "t", &position);
        drop(reading);
        local.stop();

        // At any moment of it. It comes further each time, but not if it were ended at once for ever.
        let (mut kills, mut longest, mut random) = (0, 50.0, Rng::new());
        while !migrate(&file, &url, Duration::from_millis(random.u64(20..longest as u64))) {
            kills += 1;
            longest *= 1.1;
        }
        println!("the copy was killed {kills} times");
        assert!(kills > 0);
        // It is done: once more does nothing.
        assert!(stride_local::migrate(&file, &url).unwrap().is_done);
        let local = start().database(&url, None).start().unwrap();
        let client = Over::ureq().client(&local.endpoint());
        let after = seen(&local, &client);
        for ((name, _), rows) in PROCESSES.iter().zip(&before.rows) {
            assert!(!rows.is_empty(), "{name}");
            assert_eq!(snapshot(&client, name), *rows, "{name}");
        }
        assert_eq!((&after.rows, &after.results), (&before.rows, &before.results));
        assert_eq!(after.definitions, before.definitions);
        assert!(after.streams == before.streams);
        assert_eq!(next(&client, "t", &position), expected);
        let again = client.post("/collect/t", &[event(EVENTS - 1), event(EVENTS - 3)]).unwrap();
        assert_eq!(again.status(), 200);
        let stored = local.count("t").unwrap() - before.streams[1].1;
        assert_eq!(stored, 1, "an id that is known is stored once");
    });
}
