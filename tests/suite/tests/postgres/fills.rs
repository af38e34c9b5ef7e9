//! A process over many stored events is filled while its stream takes others, whatever becomes of the server that does it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stride_tests::{Client, Over, watchdog_of};

use crate::child::Store;
use crate::cluster::{Programs, Server, wait_until};
use crate::servers::Servers;

const STORED: u64 = 200_000;
const BATCH: u64 = 1000;

/// How far a process that is killed meanwhile has to have come.
const SOME: u64 = 20_000;

fn events(from: u64, count: u64) -> Value {
    let event = |n: u64| {
        json!({"page": format!("/page/{}", n % 100), "n": n,
            "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"})
    };
    (from..from + count).map(event).collect()
}

fn query(sql: &str) -> Value {
    json!({"query": sql, "action": "MATERIALIZE"})
}

fn rows(client: &Client, sql: &str) -> Value {
    let response = client.post("/analyze", &json!({"query": sql})).unwrap();
    response.error_for_status().unwrap().data().unwrap().unwrap()
}

fn stats(client: &Client) -> Value {
    client.get("/process/p/stats").unwrap().data().unwrap().unwrap()
}

/// Sends small batches for as long as `work` takes. Returns how long that was, and the longest of them.
fn longest_post(client: &Client, work: impl FnOnce()) -> [Duration; 2] {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(client.post("/collect/s", &events(0, 10)).unwrap().status(), 200);
                longest = longest.max(began.elapsed());
            }
            longest
        });
        let began = Instant::now();
        work();
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        [took, posting.join().unwrap()]
    })
}

#[test]
#[ignore = "two hundred thousand events, and figures"]
fn a_fill_keeps_nobody_waiting_and_outlives_its_server() {
    let test = "a_fill_keeps_nobody_waiting_and_outlives_its_server";
    let Some(programs) = Programs::find(test) else { return };
    watchdog_of(Duration::from_secs(240), move || {
        let database = Server::start(&programs);
        let mut servers = Servers::start(Store::Database(database.url("postgres")), 2);
        let endpoints = servers.endpoints();
        let [one, other] = [0, 1].map(|number: usize| Over::ureq().client(&endpoints[number]));
        for from in (0..STORED).step_by(usize::try_from(BATCH).unwrap()) {
            assert_eq!(other.post("/collect/s", &events(from, BATCH)).unwrap().status(), 200);
        }
        let counted = "SELECT page, count(*) AS n FROM s GROUP BY page";
        let plain = "SELECT page, n FROM s WHERE n % 100 = 0";
        let filled = [(true, counted), (false, plain), (false, counted)].map(|(is_new, sql)| {
            let [took, longest] = longest_post(&other, || {
                let status = match is_new {
                    true => one.post("/process/p", &query(sql)).unwrap().status(),
                    false => one.put("/process/p", &query(sql)).unwrap().status(),
                };
                assert!(status.is_success(), "{status}");
            });
            println!("filled in {took:.1?}, the longest POST of that time: {longest:.1?}: {sql}");
            (took, longest)
        });
        let in_order = |sql: &str| format!("{sql} ORDER BY page");
        let kept = in_order("SELECT page, n FROM p");
        assert_eq!(rows(&one, &kept), rows(&other, &in_order(counted)));
        assert!(filled.iter().all(|(took, longest)| *longest < *took / 2), "{filled:?}");

        // The server dies in the middle of a change, which the other goes on with.
        let changed = "SELECT page, max(n) AS n FROM s GROUP BY page";
        thread::scope(|scope| {
            let putting = scope.spawn(|| one.put("/process/p", &query(changed)));
            // Looked at again and again: an outcome of another process, under the watchdog.
            while stats(&other)["filling"]["given"].as_u64().is_none_or(|given| given < SOME) {
                assert!(!putting.is_finished(), "it is over already");
            }
            servers.toggle(0);
            assert!(putting.join().unwrap().is_err());
        });
        let given = stats(&other)["filling"]["given"].as_u64();
        assert!(given.is_some_and(|given| given < STORED), "{given:?}");
        wait_until("it is filled", || stats(&other)["filling"].is_null());
        assert_eq!(other.post("/collect/s", &events(STORED, BATCH)).unwrap().status(), 200);
        assert_eq!(rows(&other, &kept), rows(&other, &in_order(changed)));
    });
}
