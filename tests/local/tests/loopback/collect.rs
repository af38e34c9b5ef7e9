//! Storing events, and looking at what is stored.

use std::collections::HashSet;

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, get, post, request};

#[test]
fn one_event_is_stored_with_an_id_and_a_timestamp() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/mystream", r#"{"bojack": "horseman"}"#).assert_stored();
    let events = local.events("mystream").unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["bojack"], "horseman");
    assert_eq!(events[0]["$id"].as_str().unwrap().len(), 32);
    let timestamp = events[0]["$timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
}

#[test]
fn an_array_is_stored_in_order() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", r#"[{"n": 0}, {"n": 1}, {"n": 2}]"#).assert_stored();
    post(&local, "/v1/collect/s", r#"{"n": 3}"#).assert_stored();
    let numbers: Vec<_> =
        local.events("s").unwrap().iter().map(|event| event["n"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    let ids: HashSet<String> =
        local.events("s").unwrap().iter().map(|event| event["$id"].to_string()).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_map_of_streams_takes_arrays_and_single_events() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect", r#"{"b": [{"n": 0}, {"n": 1}], "a": {"n": 2}, "none": []}"#)
        .assert_stored();
    assert_eq!(local.streams().unwrap(), ["a", "b"]);
    assert_eq!(
        (local.count("a").unwrap(), local.count("b").unwrap(), local.count("none").unwrap()),
        (1, 2, 0)
    );
    post(&local, "/v1/collect", "{}").assert_stored();
}

#[test]
fn gzip_and_plain_bodies_are_the_same() {
    let local = Local::start().unwrap();
    let events = r#"[{"$id": 1}, {"$id": 2}]"#;
    request(&local, "POST", "/v1/collect/s").gzip(events).send(&local).assert_stored();
    request(&local, "POST", "/v1/collect")
        .gzip(r#"{"s": {"$id": 3}}"#)
        .header("Content-Encoding", "GZIP")
        .header("Content-Type", "Application/JSON; charset=utf-8")
        .send(&local)
        .assert_stored();
    request(&local, "POST", "/v1/collect/s")
        .json(r#"{"$id": 4}"#)
        .header("Content-Encoding", "identity")
        .send(&local)
        .assert_stored();
    assert_eq!(local.count("s").unwrap(), 4);
}

#[test]
fn a_large_body_is_taken_in_pieces_and_in_chunks() {
    let local = Local::start().unwrap();
    let events: Vec<Value> = (0..20_000).map(|n| json!({"n": n, "text": "x".repeat(30)})).collect();
    let events = Value::from(events).to_string();
    assert!(events.len() > 800_000);
    post(&local, "/v1/collect/s", &events).assert_stored();
    assert_eq!(local.count("s").unwrap(), 20_000);

    let mut connection = Connection::open(&local);
    let head = request(&local, "POST", "/v1/collect/t")
        .header("Content-Type", "application/json")
        .header("Transfer-Encoding", "chunked");
    connection.write(&head.bytes()).unwrap();
    for piece in events.as_bytes().chunks(10_000) {
        connection.write(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        connection.write(piece).unwrap();
        connection.write(b"\r\n").unwrap();
    }
    connection.write(b"0\r\n\r\n").unwrap();
    connection.read_response().unwrap().assert_stored();
    assert_eq!(local.count("t").unwrap(), 20_000);
    assert_eq!(local.events("t").unwrap()[19_999]["n"], 19_999);
}

#[test]
fn a_request_is_stored_whole_or_not_at_all() {
    let local = Local::start().unwrap();
    let bad = [
        ("/v1/collect/s", r#"[{"n": 0}, {"n": 1}, 2]"#),
        ("/v1/collect/s", r#"[{"n": 0}, {"n": 1}"#),
        ("/v1/collect", r#"{"s": [{"n": 0}], "t": [{"n": 0}, null]}"#),
        ("/v1/collect", r#"{"s": [{"n": 0}], "no-name": [{"n": 0}]}"#),
    ];
    for (path, body) in bad {
        assert_eq!(post(&local, path, body).status, 400, "{body}");
    }
    assert!(local.streams().unwrap().is_empty());
}

#[test]
fn given_ids_and_timestamps_are_kept() {
    let local = Local::start().unwrap();
    let event = json!({"$id": "a", "$timestamp": "2015-05-05T23:40:27Z", "x": {"$id": 7}});
    post(&local, "/v1/collect/s", &event.to_string()).assert_stored();
    assert_eq!(local.events("s").unwrap(), [event]);
}

#[test]
fn an_event_whose_id_the_stream_has_seen_is_stored_once() {
    let local = Local::start().unwrap();
    let batch = r#"[{"$id": "a"}, {"$id": "b"}, {"$id": "a"}, {"$id": "\u0061"}, {"n": 1}]"#;
    post(&local, "/v1/collect/s", batch).assert_stored();
    assert_eq!(local.count("s").unwrap(), 3);
    post(&local, "/v1/collect/s", batch).assert_stored();
    assert_eq!(local.count("s").unwrap(), 4, "the event without an id is a new one each time");
    post(&local, "/v1/collect/t", r#"{"$id": "a"}"#).assert_stored();
    assert_eq!(local.count("t").unwrap(), 1, "ids belong to their stream");
    // The string and the number are two ids.
    post(&local, "/v1/collect/t", r#"[{"$id": "5"}, {"$id": 5}, {"$id": 5}]"#).assert_stored();
    assert_eq!(local.count("t").unwrap(), 3);
}

#[test]
fn an_id_that_the_server_gave_counts_as_seen() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", "[{}, {}]").assert_stored();
    let events = Value::from(local.events("s").unwrap()).to_string();
    post(&local, "/v1/collect/s", &events).assert_stored();
    assert_eq!(local.count("s").unwrap(), 2);
}

#[test]
fn past_the_bound_the_oldest_events_and_their_ids_go() {
    let local = Local::builder().max_events(3).start().unwrap();
    post(&local, "/v1/collect/s", r#"[{"$id": 1}, {"$id": 2}]"#).assert_stored();
    post(&local, "/v1/collect/s", r#"[{"$id": 3}, {"$id": 4}]"#).assert_stored();
    let ids = |local: &Local| -> Vec<Value> {
        local.events("s").unwrap().iter().map(|event| event["$id"].clone()).collect()
    };
    assert_eq!(ids(&local), [2, 3, 4]);
    assert_eq!(local.count("s").unwrap(), 4, "the count is of all that was ever stored");
    post(&local, "/v1/collect/s", r#"[{"$id": 1}, {"$id": 4}]"#).assert_stored();
    assert_eq!(ids(&local), [3, 4, 1]);
    assert_eq!(local.count("s").unwrap(), 5);
}

#[test]
fn the_bound_in_bytes_holds_too() {
    let local = Local::builder().max_event_bytes(10_000).start().unwrap();
    for n in 0..20 {
        let event = json!({"n": n, "text": "x".repeat(900)});
        post(&local, "/v1/collect/s", &event.to_string()).assert_stored();
    }
    assert_eq!(local.count("s").unwrap(), 20);
    let events = local.events("s").unwrap();
    assert!((8..=10).contains(&events.len()), "{}", events.len());
    assert_eq!(events.last().unwrap()["n"], 19);
}

#[test]
fn streams_are_listed_shown_and_deleted() {
    let local = Local::start().unwrap();
    assert_eq!(get(&local, "/v1/collect").json(), json!([]));
    post(&local, "/v1/collect", r#"{"web_logs": {}, "app_events": {}, "clicks": [{}, {}]}"#)
        .assert_stored();
    let list = get(&local, "/v1/collect");
    assert_eq!(list.headers["content-type"], "application/json");
    assert_eq!(list.json(), json!(["app_events", "clicks", "web_logs"]));

    let shown = get(&local, "/v1/collect/clicks").json();
    assert_eq!((&shown["name"], &shown["count"]), (&json!("clicks"), &json!(2)));
    assert_eq!(shown["first_seen"], shown["last_seen"]);
    post(&local, "/v1/collect/clicks", "{}").assert_stored();
    let later = get(&local, "/v1/collect/clicks").json();
    assert_eq!((&later["count"], &later["first_seen"]), (&json!(3), &shown["first_seen"]));
    assert!(later["last_seen"].as_str() >= shown["last_seen"].as_str());

    let delete = request(&local, "DELETE", "/v1/collect/clicks");
    delete.send(&local).assert_stored();
    assert_eq!(get(&local, "/v1/collect/clicks").status, 404);
    assert_eq!(delete.send(&local).status, 404);
    assert_eq!(get(&local, "/v1/collect").json(), json!(["app_events", "web_logs"]));
}

#[test]
fn a_connection_is_kept_over_requests_and_errors() {
    let local = Local::start().unwrap();
    let mut connection = Connection::open(&local);
    for _ in 0..3 {
        let good = request(&local, "POST", "/v1/collect/s").json("{}");
        connection.exchange(&good).assert_stored();
        let bad = request(&local, "POST", "/v1/collect/s").json("[5]");
        assert_eq!(connection.exchange(&bad).status, 400);
        // Refused before its body was looked at.
        let unread = request(&local, "POST", "/v1/collect/s").json("{}").key("wrong");
        assert_eq!(connection.exchange(&unread).status, 401);
        assert_eq!(connection.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    }
    assert_eq!((local.count("s").unwrap(), local.connections(), local.requests()), (3, 1, 12));
}
