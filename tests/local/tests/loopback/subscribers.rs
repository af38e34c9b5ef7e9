//! Many subscribers, one of whom does not read.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Connection, Request, subscribe_at};
use crate::program::{Running, program};

const KEY: &str = "k";
const SUBSCRIBERS: usize = 20;
/// Events in a request, and requests in a second: 2000 events a second.
const BATCH: u64 = 20;
const RATE: u32 = 100;

/// Writes events, at a rate if one is given, while nineteen subscribers read and one does not. Looks at
/// the memory after a third of them and after all.
fn nobody_misses_one(events: u64, rate: Option<u32>) -> Held {
    let mut command = program();
    command
        .args(["--listen", "127.0.0.1:0", "--secret-key", KEY, "--log", "warn"])
        .args(["--max-events", "1000", "--subscriber-buffer-mib", "4"])
        .stderr(Stdio::inherit());
    let (running, addr) = Running::start(&mut command);
    let stalled = subscribe_at(addr, KEY, "/v1/collect/s/subscribe");
    let mut early = 0;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..SUBSCRIBERS)
            .map(|_| {
                let mut subscription = subscribe_at(addr, KEY, "/v1/collect/s/subscribe");
                scope.spawn(move || {
                    for n in 0..events {
                        assert_eq!(subscription.event().unwrap()["n"], n);
                    }
                })
            })
            .collect();
        let mut connection = Connection::to(addr).unwrap();
        let start = Instant::now();
        let text = "x".repeat(1000);
        for batch in 0..events / BATCH {
            if let Some(rate) = rate {
                let due = start + Duration::from_secs(1) / rate * u32::try_from(batch).unwrap();
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let first = batch * BATCH;
            let events_of_batch: Vec<Value> =
                (first..first + BATCH).map(|n| json!({"n": n, "text": text})).collect();
            let request = Request::new("POST", "/v1/collect/s").key(KEY);
            connection.exchange(&request.gzip(json!(events_of_batch).to_string())).assert_stored();
            if batch == events / BATCH / 3 {
                early = resident(&running);
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let late = resident(&running);
    // Only the stalled one is still there, and only it may have missed something.
    let metrics = Connection::to(addr).unwrap().exchange(&Request::new("GET", "/metrics"));
    let metrics = String::from_utf8(metrics.body).unwrap();
    let figure = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).trim().parse().unwrap()
    };
    assert_eq!(figure("stride_local_events_stored_total"), events);
    drop(stalled);
    Held { early, late, lost: figure("stride_local_subscriber_events_lost_total") }
}

/// How much memory the program held, in bytes, and how many events it dropped.
struct Held {
    early: u64,
    late: u64,
    lost: u64,
}

/// What the program holds of memory, in bytes; 0 where that is not known.
fn resident(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
}

#[test]
fn a_stalled_subscriber_costs_the_others_nothing() {
    assert_eq!(nobody_misses_one(2000, None).lost, 0, "so few can wait for it");
}

#[test]
#[ignore = "2000 events a second for ten seconds"]
fn a_stalled_subscriber_costs_the_others_nothing_and_no_memory_for_ten_seconds() {
    let Held { early, late, lost } = nobody_misses_one(20_000, Some(RATE));
    // 20 MB are sent, of which 4 MiB may wait for the stalled one, and some more in its sockets. What
    // it misses is only known when it reads on.
    assert_eq!(lost, 0);
    assert!(late < early + (8 << 20), "{early} bytes after a third, {late} at the end");
}
