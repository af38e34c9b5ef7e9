//! Subscriptions to streams that go on where they were.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{
    Connection, Request, Response, Subscription, WATCHDOG, get, post, request, subscribe,
};

/// Stores events with the next numbers.
fn store(local: &Local, stream: &str, numbers: std::ops::Range<u64>) {
    let events: Vec<Value> = numbers.map(|n| json!({"$id": format!("e{n}"), "n": n})).collect();
    let path = format!("/v1/collect/{stream}");
    request(local, "POST", &path).gzip(json!(events).to_string()).send(local).assert_stored();
}

fn assert_next(subscription: &mut Subscription, numbers: std::ops::Range<u64>) {
    for n in numbers {
        assert_eq!(subscription.event().expect("it goes on")["n"], n);
    }
}

fn position(subscription: &Subscription) -> &str {
    &subscription.headers["stride-position"]
}

fn missed(subscription: &Subscription) -> Option<&str> {
    subscription.headers.get("stride-missed").map(String::as_str)
}

fn ask(local: &Local, stream: &str, query: &str) -> Response {
    get(local, &format!("/v1/collect/{stream}/subscribe?{query}"))
}

#[test]
fn a_subscription_goes_on_behind_what_was_read_of_the_one_before() {
    let local = Local::start().unwrap();
    store(&local, "s", 0..3);
    let mut first = subscribe(&local, "s");
    store(&local, "s", 3..8);
    assert_next(&mut first, 3..5);
    let query = format!("s?after={}&skip=2", position(&first));
    drop(first);
    store(&local, "s", 8..10);
    let mut second = subscribe(&local, &query);
    assert_eq!(missed(&second), None);
    assert_next(&mut second, 5..10);
    store(&local, "s", 10..12);
    assert_next(&mut second, 10..12);
    // The position is the one before its first event.
    let mut third = subscribe(&local, &format!("s?after={}&skip=6", position(&second)));
    assert_next(&mut third, 11..12);
    assert_eq!(local.lost("s"), 0);
}

#[test]
fn a_subscription_may_begin_behind_an_event_or_with_the_oldest() {
    let local = Local::start().unwrap();
    let mut early = subscribe(&local, "s?after=");
    store(&local, "s", 0..5);
    assert_next(&mut early, 0..5);
    assert_next(&mut subscribe(&local, "s?after="), 0..5);
    assert_next(&mut subscribe(&local, "s?after=e1"), 2..5);
    assert_next(&mut subscribe(&local, "s?after=e1&skip=2"), 4..5);
    post(&local, "/v1/collect/t", r#"[{"$id": 7, "n": 0}, {"n": 1}]"#).assert_stored();
    assert_next(&mut subscribe(&local, "t?after=7"), 1..2);
}

#[test]
fn a_stream_that_is_not_there_yet_has_a_position() {
    let local = Local::start().unwrap();
    let early = subscribe(&local, "s");
    store(&local, "other", 0..3);
    store(&local, "s", 0..5);
    assert_next(&mut subscribe(&local, &format!("s?after={}&skip=2", position(&early))), 2..5);
}

#[test]
fn what_cannot_be_is_400() {
    let local = Local::start().unwrap();
    store(&local, "s", 0..3);
    for query in ["after=e1&sample=5", "sample=5&after=", "after=e1&skip=", "after=e1&skip=-1"] {
        assert_eq!(ask(&local, "s", query).status, 400, "{query}");
    }
    assert_eq!(local.subscriptions(), 0);
}

#[test]
fn what_nobody_can_go_on_from_is_410_and_never_an_empty_200() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::builder().data(folder.path().join("a.db")).start().unwrap();
    let other = Local::start().unwrap();
    for local in [&local, &other] {
        store(local, "s", 0..3);
        store(local, "t", 0..9);
    }
    let at = position(&subscribe(&local, "s")).to_owned();
    let refused = |stream, query: &str| {
        let response = ask(&local, stream, query);
        assert_eq!(response.status, 410, "{query}");
        assert!(response.message().len() > 20, "{}", response.message());
    };
    // A consumer that is ahead of the server.
    refused("s", &format!("after={at}&skip=1"));
    refused("s", &format!("after={at}&skip=18446744073709551615"));
    // Offset and epoch of different streams, and of different servers.
    refused("t", &format!("after={at}"));
    refused("s", &format!("after={}", position(&subscribe(&local, "t"))));
    refused("s", &format!("after={}", position(&subscribe(&other, "s"))));
    refused("s", "after=e3");
    refused("s", "after=1-1-1");
    request(&local, "DELETE", "/v1/collect/s").send(&local).assert_stored();
    refused("s", &format!("after={at}"));
    store(&local, "s", 0..3);
    refused("s", &format!("after={at}"));
    let is_alone = |local: &Local| local.subscriptions() == 0;
    assert!(local.wait_until(WATCHDOG, is_alone), "who is refused is not subscribed");
}

#[test]
fn what_is_gone_by_retention_is_counted() {
    let local = Local::builder().max_events(10).start().unwrap();
    let at = position(&subscribe(&local, "s")).to_owned();
    store(&local, "s", 0..20);
    let left = local.events("s").unwrap()[0]["n"].as_u64().unwrap();
    assert!(left > 2);
    let mut late = subscribe(&local, &format!("s?after={at}&skip=2"));
    assert_eq!(missed(&late), Some((left - 2).to_string().as_str()));
    assert_next(&mut late, left..20);
    let mut again = subscribe(&local, &format!("s?after={}&skip=1", position(&late)));
    assert_eq!(missed(&again), None);
    assert_next(&mut again, left + 1..20);
}

#[test]
fn a_position_outlives_the_server_but_not_a_backup_that_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let start = |file: &Path| Local::builder().data(file).start().unwrap();
    let local = start(&path("a.db"));
    store(&local, "s", 0..5);
    let at = position(&subscribe(&local, "s?after=")).to_owned();
    let backup = Command::new(env!("CARGO_BIN_EXE_stride-local"))
        .args(["backup", "--data"])
        .args([path("a.db"), path("b.db")])
        .output()
        .unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    local.stop();

    let local = start(&path("a.db"));
    assert_next(&mut subscribe(&local, &format!("s?after={at}&skip=3")), 3..5);
    local.stop();
    let local = start(&path("b.db"));
    assert_next(&mut subscribe(&local, "s?after="), 0..5);
    assert_eq!(ask(&local, "s", &format!("after={at}&skip=3")).status, 410);
}

/// Events of about a kilobyte.
fn store_long(connection: &mut Connection, local: &Local, numbers: std::ops::Range<u64>) {
    let text = "x".repeat(1000);
    let events: Vec<Value> = numbers.map(|n| json!({"n": n, "text": text})).collect();
    let request = request(local, "POST", "/v1/collect/s").gzip(json!(events).to_string());
    connection.exchange(&request).assert_stored();
}

#[test]
fn a_slow_subscriber_misses_nothing_and_holds_up_nobody() {
    // Far more than waits in its sockets and for it.
    const BATCHES: u64 = 40;
    let local = Local::builder().subscriber_buffer(1 << 20).start().unwrap();
    let mut slow = subscribe(&local, "s");
    let mut quick = subscribe(&local, "s");
    let mut connection = Connection::open(&local);
    for batch in 0..BATCHES {
        store_long(&mut connection, &local, batch * 500..(batch + 1) * 500);
        assert_next(&mut quick, batch * 500..(batch + 1) * 500);
    }
    assert_next(&mut slow, 0..BATCHES * 250);
    // It has caught up by half when there is more.
    store_long(&mut connection, &local, BATCHES * 500..BATCHES * 500 + 500);
    assert_next(&mut slow, BATCHES * 250..BATCHES * 500 + 500);
    assert_next(&mut quick, BATCHES * 500..BATCHES * 500 + 500);
    store_long(&mut connection, &local, 0..1);
    assert_next(&mut slow, 0..1);
    assert_eq!(local.lost("s"), 0);
}

#[test]
fn the_end_waits_for_a_slow_subscriber_that_has_to_catch_up() {
    const EVENTS: u64 = 20_000;
    let local = Local::builder().subscriber_buffer(1 << 20).start().unwrap();
    let mut slow = subscribe(&local, "s");
    let mut connection = Connection::open(&local);
    for first in (0..EVENTS).step_by(500) {
        store_long(&mut connection, &local, first..first + 500);
    }
    let end = std::thread::spawn(move || local.stop_within(WATCHDOG));
    assert_next(&mut slow, 0..EVENTS);
    assert_eq!(slow.event(), None);
    end.join().unwrap();
}

#[test]
fn a_batch_that_is_larger_than_what_may_wait_comes_whole() {
    let local = Local::builder().subscriber_buffer(100_000).start().unwrap();
    let mut subscription = subscribe(&local, "s");
    store_long(&mut Connection::open(&local), &local, 0..500);
    assert_next(&mut subscription, 0..500);
}

#[test]
fn a_subscriber_that_retention_overtakes_is_ended_and_told_how_much_is_gone() {
    let builder = Local::builder().subscriber_buffer(1 << 20).max_events(1000);
    let local = builder.start().unwrap();
    let mut slow = subscribe(&local, "s");
    let mut connection = Connection::open(&local);
    for batch in 0..40 {
        store_long(&mut connection, &local, batch * 500..(batch + 1) * 500);
    }
    let mut received = 0;
    while let Some(event) = slow.event() {
        assert_eq!(event["n"], received);
        received += 1;
    }
    let query = format!("s?after={}&skip={received}", position(&slow));
    let mut again = subscribe(&local, &query);
    let missed: u64 = missed(&again).expect("some are gone").parse().unwrap();
    assert_next(&mut again, received + missed..20_000);
    assert_eq!(local.lost("s"), missed);
}

#[test]
fn who_comes_while_others_write_misses_nothing_and_gets_nothing_twice() {
    const EVENTS: u64 = 3000;
    let local = Local::builder().threads(2).subscriber_buffer(2000).start().unwrap();
    let beginning = position(&subscribe(&local, "s")).to_owned();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let local = &local;
            scope.spawn(move || {
                let mut connection = Connection::open(local);
                for n in 0..EVENTS / 2 {
                    let event = json!({"w": writer, "n": n}).to_string();
                    let request = request(local, "POST", "/v1/collect/s").json(event);
                    connection.exchange(&request).assert_stored();
                }
            });
        }
        let (mut at, mut count) = (beginning, 0);
        let mut next = HashMap::from([(0, 0), (1, 0)]);
        let mut random = fastrand::Rng::with_seed(3);
        while next.values().sum::<u64>() < EVENTS {
            let mut subscription = subscribe(&local, &format!("s?after={at}&skip={count}"));
            (at, count) = (position(&subscription).to_owned(), 0);
            for _ in 0..random.u64(1..100).min(EVENTS - next.values().sum::<u64>()) {
                let event = subscription.event().unwrap();
                let next = next.get_mut(&event["w"].as_u64().unwrap()).unwrap();
                assert_eq!(event["n"], *next);
                *next += 1;
                count += 1;
            }
        }
    });
}

#[test]
fn what_the_original_clients_ask_for_looks_as_it_always_did() {
    let local = Local::start().unwrap();
    store(&local, "s", 0..3);
    let whole = subscribe(&local, "s");
    let mut names: Vec<_> = whole.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    let before = ["cache-control", "content-type", "date", "stride-position", "transfer-encoding"];
    assert_eq!(names, before);
    let sampled = subscribe(&local, "s?sample=5");
    assert!(!sampled.headers.contains_key("stride-position"), "a sample leaves events out");
    let mut raw = whole;
    post(&local, "/v1/collect/s", r#"{"$id": "x", "$timestamp": "2015-05-05T23:40:27Z", "n": 3}"#)
        .assert_stored();
    let chunk = String::from_utf8(raw.chunk().unwrap().unwrap()).unwrap();
    let stored = local.events("s").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&chunk).unwrap(), stored[3]);
    assert!(chunk.ends_with("}\r\n") && !chunk[..chunk.len() - 2].contains("\r\n"), "{chunk}");

    let process = json!({"query": "SELECT count(*) FROM s", "action": "MATERIALIZE"}).to_string();
    assert_eq!(post(&local, "/v1/process/p", &process).status, 201);
    let mut connection = Connection::open(&local);
    let request = Request::new("GET", "/v1/process/p/subscribe").key(local.secret_key());
    connection.write(&request.bytes()).unwrap();
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    assert!(!headers.contains_key("stride-position"), "changes are not events");
}
