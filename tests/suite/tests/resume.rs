//! A server and a consumer that are killed again and again: every event is consumed exactly once, over both
//! transports.

#[path = "../examples/consumer/journal.rs"]
mod journal;

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use stride_core::subscribe::{Position, Reconnect, Resumed, SubscriptionEvent};
use stride_local::Local;
use stride_tests::{Client, Over, Proxy, watchdog};

use self::journal::Journal;

/// What a child is to be, and what it works with: a variable of its environment each.
const ROLE: &str = "STRIDE_TESTS_ROLE";
const FILE: &str = "STRIDE_TESTS_FILE";
const ENDPOINT: &str = "STRIDE_TESTS_ENDPOINT";

/// The key of the clients of the test kit.
const KEY: &str = "helloworld";

/// This program as a child, which tells of what it does line by line. It is killed when dropped.
struct Child {
    process: process::Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Child {
    fn start(role: &str, file: &Path, endpoint: &str) -> Self {
        let mut command = Command::new(env::current_exe().expect("a test is a program"));
        command.args(["--exact", "a_child_does_what_its_parent_says"]);
        command.env(ROLE, role).env(FILE, file).env(ENDPOINT, endpoint);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let lines = process.stdout.take().expect("it is piped");
        Self { process, lines: BufReader::new(lines).lines() }
    }

    /// What it tells next, past what the test harness says.
    fn next(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the child is alive").expect("it is text");
            if let Some(told) = line.strip_prefix('@') {
                return told.to_owned();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn tell(what: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "@{what}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Not a test, but what the others start.
#[test]
fn a_child_does_what_its_parent_says() {
    let Ok(role) = env::var(ROLE) else { return };
    let (file, endpoint) = (env::var(FILE).unwrap(), env::var(ENDPOINT).unwrap());
    let file = Path::new(&file);
    match role.as_str() {
        "server" => serve(file),
        "ureq" => consume(&Over::ureq().client(&endpoint), file),
        "hyper" => consume(&Over::hyper().client(&endpoint), file),
        role => panic!("a child cannot be {role}"),
    }
}

fn serve(file: &Path) {
    let local = Local::builder().secret_key(KEY).data(file).start().unwrap();
    tell(local.addr());
    // Until the parent is gone, should it not kill this before.
    drop(io::stdin().read(&mut [0]));
}

fn consume(client: &Client, file: &Path) {
    let (mut journal, saved) = Journal::open(file).unwrap();
    let start = saved.map_or(Position::oldest(), |saved| saved.parse().unwrap());
    let mut events = client.subscribe_after("/collect/s", start, Reconnect::Always).unwrap();
    loop {
        match events.next().unwrap().unwrap() {
            SubscriptionEvent::Data(event) => {
                journal.add(&event, &events.position().unwrap().to_string()).unwrap();
                tell(&event["n"]);
            }
            SubscriptionEvent::Connected { resumed: Resumed::Fully, .. }
            | SubscriptionEvent::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Stores events until the server has said that they are stored. Those that it has already are not stored again.
fn store(client: &Client, numbers: Range<u64>) {
    let events: Vec<Value> =
        numbers.map(|n| json!({"$id": n, "n": n, "text": "x".repeat(n as usize % 100)})).collect();
    while client.post("/collect/s", &events).map_or(0, |response| response.status().as_u16()) != 200
    {
        thread::yield_now();
    }
}

/// Kills the server and the consumer in turn, at random moments.
fn survives(transport: &str, kills: u32) {
    let folder = tempfile::tempdir().unwrap();
    let (database, consumed) = (folder.path().join("stride.db"), folder.path().join("consumed"));
    let mut server = Child::start("server", &database, "");
    // The server is somewhere else after each kill; the proxy stays.
    let proxy = Proxy::start(server.next().parse().unwrap(), 0);
    proxy.calm();
    let mut consumer = Child::start(transport, &consumed, &proxy.endpoint());
    let (orders, to_store) = mpsc::channel::<Range<u64>>();
    let client = Over::ureq().client(&proxy.endpoint());
    let storing = thread::spawn(move || {
        for numbers in to_store {
            for first in numbers.clone().step_by(7) {
                store(&client, first..numbers.end.min(first + 7));
            }
        }
    });
    let mut random = fastrand::Rng::with_seed(kills.into());
    let (mut stored, mut seen) = (0, 0);
    let more = |stored: &mut u64, events| {
        orders.send(*stored..*stored + events).unwrap();
        *stored += events;
    };
    for kill in 0..kills {
        more(&mut stored, random.u64(20..200));
        let enough = random.u64(seen..stored);
        while seen < enough {
            seen = consumer.next().parse::<u64>().unwrap() + 1;
        }
        if kill % 2 == 0 {
            drop(server);
            server = Child::start("server", &database, "");
            proxy.redirect(server.next().parse().unwrap());
        } else {
            drop(consumer);
            consumer = Child::start(transport, &consumed, &proxy.endpoint());
        }
    }
    // One at least that nobody has seen.
    more(&mut stored, 1);
    while seen < stored {
        seen = consumer.next().parse::<u64>().unwrap() + 1;
    }
    drop(orders);
    storing.join().unwrap();
    drop(consumer);
    let events = journal::events(&consumed).unwrap();
    let numbers = events.iter().map(|event| event["n"].as_u64().unwrap());
    assert!(numbers.eq(0..stored), "some are missing or came twice");
}

#[test]
fn every_event_is_consumed_once_over_ten_kills_with_ureq() {
    watchdog(|| survives("ureq", 10));
}

#[test]
fn every_event_is_consumed_once_over_ten_kills_with_hyper() {
    watchdog(|| survives("hyper", 10));
}

#[test]
#[ignore = "kills and starts processes 250 times; .ci/run runs it in release"]
fn every_event_is_consumed_once_over_250_kills_with_ureq() {
    survives("ureq", 250);
}

#[test]
#[ignore = "kills and starts processes 250 times; .ci/run runs it in release"]
fn every_event_is_consumed_once_over_250_kills_with_hyper() {
    survives("hyper", 250);
}
