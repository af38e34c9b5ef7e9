//! Subscriptions to streams.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, WATCHDOG, get, post, request, subscribe};

#[test]
fn the_head_comes_at_once_and_says_what_follows() {
    let local = Local::start().unwrap();
    // Returns with the head: nothing has been written to this stream, and nothing ever is.
    let subscription = subscribe(&local, "silent");
    assert_eq!(subscription.headers["content-type"], "application/json");
    assert_eq!(subscription.headers["transfer-encoding"], "chunked");
    assert_eq!((local.subscribers("silent"), local.subscriptions()), (1, 1));
    assert!(local.streams().unwrap().is_empty(), "to subscribe is not to write");
}

#[test]
fn events_come_as_they_are_stored_each_with_crlf() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", r#"{"n": "before"}"#).assert_stored();
    let mut subscription = subscribe(&local, "s");
    post(&local, "/v1/collect/t", r#"{"n": "elsewhere"}"#).assert_stored();
    post(&local, "/v1/collect/s", "{\n  \"n\": 0\n}").assert_stored();
    let line = subscription.line().unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), local.events("s").unwrap()[1]);
    post(&local, "/v1/collect", r#"{"s": [{"n": 1}, {"n": 2}]}"#).assert_stored();
    assert_eq!(subscription.event().unwrap()["n"], 1);
    assert_eq!(subscription.event().unwrap()["n"], 2);
}

#[test]
fn an_event_that_is_known_is_not_sent_again() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    post(&local, "/v1/collect/s", r#"[{"$id": 1}, {"$id": 2}]"#).assert_stored();
    post(&local, "/v1/collect/s", r#"[{"$id": 2}, {"$id": 3}, {"$id": 1}]"#).assert_stored();
    let ids: Vec<Value> = (0..3).map(|_| subscription.event().unwrap()["$id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn every_subscriber_gets_every_event_in_the_order_of_storage() {
    let local = Local::builder().threads(2).start().unwrap();
    let mut subscriptions: Vec<_> = (0..5).map(|_| subscribe(&local, "s")).collect();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let local = &local;
            scope.spawn(move || {
                let mut connection = Connection::open(local);
                for _ in 0..50 {
                    let events: Vec<_> = (0..20).map(|n| json!({"w": writer, "n": n})).collect();
                    let request = request(local, "POST", "/v1/collect/s");
                    connection.exchange(&request.gzip(json!(events).to_string())).assert_stored();
                }
            });
        }
    });
    let stored = local.events("s").unwrap();
    assert_eq!(stored.len(), 2000);
    for subscription in &mut subscriptions {
        for event in &stored {
            assert_eq!(subscription.event().as_ref(), Some(event));
        }
    }
    assert_eq!(local.lost("s"), 0);
}

#[test]
fn a_quiet_subscription_gets_keep_alive_lines() {
    let local = Local::builder().keep_alive(Duration::from_millis(20)).start().unwrap();
    let start = Instant::now();
    let mut subscription = subscribe(&local, "s");
    for _ in 0..3 {
        assert_eq!(subscription.chunk().unwrap().unwrap(), b"\r\n");
    }
    assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
    post(&local, "/v1/collect/s", r#"{"n": 1}"#).assert_stored();
    assert_eq!(subscription.event().unwrap()["n"], 1);
    assert_eq!(subscription.line().unwrap().unwrap(), "");
}

#[test]
fn a_busy_subscription_gets_none() {
    let local = Local::builder().keep_alive(Duration::from_secs(3600)).start().unwrap();
    let mut subscription = subscribe(&local, "s");
    for n in 0..20 {
        post(&local, "/v1/collect/s", &json!({ "n": n }).to_string()).assert_stored();
        assert!(!subscription.line().unwrap().unwrap().is_empty());
    }
}

#[test]
fn a_subscriber_that_leaves_is_forgotten() {
    let local = Local::start().unwrap();
    let first = subscribe(&local, "s");
    let second = subscribe(&local, "s");
    assert_eq!(local.subscribers("s"), 2);
    drop(first);
    assert!(local.wait_until(WATCHDOG, |local| local.subscribers("s") == 1));
    drop(second);
    assert!(local.wait_until(WATCHDOG, |local| local.subscriptions() == 0));
    assert!(local.wait_until(WATCHDOG, |local| local.open_connections() == 0));
}

#[test]
fn a_subscription_outlives_its_stream() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    post(&local, "/v1/collect/s", r#"{"n": 1}"#).assert_stored();
    request(&local, "DELETE", "/v1/collect/s").send(&local).assert_stored();
    post(&local, "/v1/collect/s", r#"{"n": 2}"#).assert_stored();
    assert_eq!(subscription.event().unwrap()["n"], 1);
    assert_eq!(subscription.event().unwrap()["n"], 2);
    assert_eq!(local.count("s").unwrap(), 1);
}

#[test]
fn a_bad_sample_is_400() {
    let local = Local::start().unwrap();
    for sample in ["0", "", "-1", "1.5", "many", "%2B5", "4294967296"] {
        let response = get(&local, &format!("/v1/collect/s/subscribe?sample={sample}"));
        assert_eq!(response.status, 400, "{sample}");
        assert!(response.message().contains("sample"));
    }
    assert_eq!(local.subscriptions(), 0);
}

#[test]
fn a_sampled_subscriber_gets_no_more_than_it_asked_for() {
    let local = Local::start().unwrap();
    let mut sampled = subscribe(&local, "s?sample=20");
    let mut whole = subscribe(&local, "s");
    let events: Vec<Value> = (0..1000).map(|n| json!({ "n": n })).collect();
    let start = Instant::now();
    post(&local, "/v1/collect/s", &json!(events).to_string()).assert_stored();
    let numbers: Vec<u64> =
        (0..20).map(|_| sampled.event().unwrap()["n"].as_u64().unwrap()).collect();
    // Twenty shares of a second, of which the first is free.
    assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
    let spread: Vec<u64> = (0..20).map(|n| n * 50).collect();
    assert_eq!(numbers, spread, "of a burst the sample is even");
    for n in 0..1000 {
        assert_eq!(whole.event().unwrap()["n"], n);
    }
    assert_eq!(local.lost("s"), 0, "what sampling leaves out is not lost");
}

#[test]
fn a_sample_that_is_never_reached_changes_nothing() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s?sample=100000");
    let events: Vec<Value> = (0..500).map(|n| json!({ "n": n })).collect();
    post(&local, "/v1/collect/s", &json!(events).to_string()).assert_stored();
    for n in 0..500 {
        assert_eq!(subscription.event().unwrap()["n"], n);
    }
}
