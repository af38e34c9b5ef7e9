//! The program is killed while it is written to: every event that got a 200 is there afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use serde_json::{Value, json};

use crate::http::{Connection, Request};
use crate::program::{Running, program};

const KEY: &str = "k";
const WRITERS: u64 = 3;
/// Events in a request.
const BATCH: u64 = 10;

/// Starts the program on this file and waits until it can be connected to.
fn start(file: &Path) -> (Running, SocketAddr) {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--secret-key", KEY, "--log", "off", "--data"]);
    Running::start(command.arg(file).stderr(Stdio::inherit()))
}

fn ask(connection: &mut Connection, query: &str) -> Vec<Value> {
    let body = json!({ "query": query }).to_string();
    let response = connection.exchange(&Request::new("POST", "/v1/analyze").key(KEY).json(body));
    assert_eq!(response.status, 200, "{query}: {}", String::from_utf8_lossy(&response.body));
    serde_json::from_slice(&response.body).unwrap()
}

/// Writes batch after batch until the server is gone, and returns how many events got a 200.
fn write(addr: SocketAddr, round: u64, writer: u64, answered: &AtomicU64) -> u64 {
    let mut connection = Connection::to(addr).unwrap();
    let mut next = 0;
    loop {
        let events: Vec<Value> =
            (next..next + BATCH).map(|n| json!({"r": round, "w": writer, "n": n})).collect();
        let request =
            Request::new("POST", "/v1/collect/s").key(KEY).gzip(json!(events).to_string());
        match connection.try_exchange(&request.bytes()) {
            Ok(response) => response.assert_stored(),
            Err(_) => return next,
        }
        next += BATCH;
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn everything_answered_is_there(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stride.db");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut running, mut addr) = start(&file);
    let process = json!({"query": "SELECT r, count(*) AS events FROM s GROUP BY r",
                         "action": "MATERIALIZE"});
    let create = Request::new("POST", "/v1/process/rounds").key(KEY).json(process.to_string());
    assert_eq!(Connection::to(addr).unwrap().exchange(&create).status, 201);

    let mut before = Vec::new();
    for round in 0..rounds {
        let answered = AtomicU64::new(0);
        let enough = random.u64(1..100);
        let stored: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let answered = &answered;
                    scope.spawn(move || write(addr, round, writer, answered))
                })
                .collect();
            while answered.load(Ordering::SeqCst) < enough {
                assert!(!writers.iter().any(ScopedJoinHandle::is_finished), "a writer gave up");
                std::thread::yield_now();
            }
            // The destructor kills it with SIGKILL, in the middle of what the writers send.
            drop(running);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });

        (running, addr) = start(&file);
        let mut connection = Connection::to(addr).unwrap();
        for (writer, stored) in stored.into_iter().enumerate() {
            let found = ask(
                &mut connection,
                &format!(
                    "SELECT count(DISTINCT n) AS found FROM s \
                     WHERE r = {round} AND w = {writer} AND n < {stored}"
                ),
            );
            assert_eq!(found, [json!({ "found": stored })], "round {round}, writer {writer}");
        }
        let counted = "SELECT r, count(*) AS events FROM s GROUP BY r ORDER BY r";
        let now = ask(&mut connection, counted);
        assert_eq!(now[..before.len()], before[..], "earlier rounds stay as they were");
        // A process is neither ahead of its events nor behind them.
        assert_eq!(ask(&mut connection, "SELECT r, events FROM rounds ORDER BY r"), now);
        before = now;
    }
}

#[test]
fn everything_answered_with_200_survives_two_kills() {
    everything_answered_is_there(2);
}

#[test]
#[ignore = "kills and starts the program twenty times"]
fn everything_answered_with_200_survives_twenty_kills() {
    everything_answered_is_there(20);
}
