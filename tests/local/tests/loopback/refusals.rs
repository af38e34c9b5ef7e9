//! Bad input: each kind gets its status and a message, and changes nothing.

use std::time::Duration;

use stride_local::Local;

use crate::http::{Connection, get, gzip, post, request};

#[test]
fn bad_events_are_400() {
    let local = Local::start().unwrap();
    for (body, why) in [
        ("", "empty"),
        ("nope", "bad JSON"),
        ("{\"a\": 1", "bad JSON"),
        ("{\"a\": 1} {}", "bad JSON"),
        ("5", "expected an event"),
        ("null", "expected an event"),
        ("[[]]", "event 0 of the array"),
        ("[{}, \"x\"]", "event 1 of the array"),
        (r#"{"$id": null}"#, "$id"),
        (r#"{"$id": ""}"#, "$id is empty"),
        (r#"{"$timestamp": "noon"}"#, "$timestamp"),
        (r#"{"a": "\ud800"}"#, "bad JSON"),
        (r#"{"a": 1e999}"#, "bad JSON"),
    ] {
        let response = post(&local, "/v1/collect/s", body);
        assert_eq!(response.status, 400, "{body}");
        assert!(response.message().contains(why), "{body}: {}", response.message());
    }
    let not_utf8 = request(&local, "POST", "/v1/collect/s").json(b"{\"a\": \"\xff\"}");
    assert_eq!(not_utf8.send(&local).status, 400);
    assert_eq!(local.count("s").unwrap(), 0);
}

#[test]
fn bad_maps_are_400() {
    let local = Local::start().unwrap();
    for (body, why) in [
        ("[{}]", "an object of streams"),
        ("5", "an object of streams"),
        (r#"{"s": 5}"#, "stream \"s\""),
        (r#"{"s": [5]}"#, "event 0"),
        (r#"{"": {}}"#, "a name is"),
        (r#"{"1a": {}}"#, "a name is"),
        (r#"{"s": {}"#, "bad JSON"),
    ] {
        let response = post(&local, "/v1/collect", body);
        assert_eq!(response.status, 400, "{body}");
        assert!(response.message().contains(why), "{body}: {}", response.message());
    }
    assert!(local.streams().unwrap().is_empty());
}

#[test]
fn bad_names_are_400() {
    let local = Local::start().unwrap();
    for name in ["1a", "_a", "a-b", "a.b", "%61", "..", "a%2Fb"] {
        let response = post(&local, &format!("/v1/collect/{name}"), "{}");
        assert_eq!(response.status, 400, "{name}");
        assert!(response.message().contains("cannot be a name"));
        assert_eq!(get(&local, &format!("/v1/collect/{name}/subscribe")).status, 400);
    }
}

#[test]
fn bad_gzip_is_400() {
    let local = Local::start().unwrap();
    let good = gzip(b"{}");
    let mut flipped = good.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    let trailing = [&good[..], b"garbage"].concat();
    for body in [&b"{}"[..], &good[..good.len() - 5], &good[..4], &flipped, &trailing] {
        let request =
            request(&local, "POST", "/v1/collect/s").header("Content-Encoding", "gzip").json(body);
        let response = request.send(&local);
        assert_eq!(response.status, 400, "{body:?}");
        assert!(response.message().starts_with("bad gzip"), "{}", response.message());
    }
    assert_eq!(local.count("s").unwrap(), 0);
}

#[test]
fn unknown_paths_and_streams_are_404() {
    let local = Local::start().unwrap();
    for path in ["/", "/v1", "/collect", "/v2/collect", "/v1/collect/", "/v1/collect/a/b", "/v1/x"]
    {
        assert_eq!(get(&local, path).status, 404, "{path}");
    }
    let response = get(&local, "/v1/collect/nobody");
    assert_eq!(response.status, 404);
    assert!(response.message().contains("nobody"));
}

#[test]
fn a_wrong_method_is_405_and_says_which_are_right() {
    let local = Local::start().unwrap();
    for (method, path, allow) in [
        ("PUT", "/v1/collect", "GET, POST"),
        ("DELETE", "/v1/collect", "GET, POST"),
        ("PUT", "/v1/collect/s", "DELETE, GET, POST"),
        ("POST", "/v1/collect/s/subscribe", "GET"),
        ("POST", "/v1/process", "GET"),
        ("PATCH", "/v1/process/p", "DELETE, GET, POST, PUT"),
        ("POST", "/v1/process/p/stats", "GET"),
        ("DELETE", "/v1/analyze", "GET, POST"),
        ("PUT", "/v1/analyze/a/results", "GET, POST"),
    ] {
        let response = request(&local, method, path).send(&local);
        assert_eq!((response.status, &*response.headers["allow"]), (405, allow), "{method} {path}");
        assert!(response.message().contains(allow));
    }
}

#[test]
fn another_type_or_encoding_is_415() {
    let local = Local::start().unwrap();
    let post = || request(&local, "POST", "/v1/collect/s").json("{}");
    for content_type in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""]
    {
        let response = post().header("Content-Type", content_type).send(&local);
        assert_eq!(response.status, 415, "{content_type}");
        assert!(response.message().contains("application/json"));
    }
    for encoding in ["deflate", "br", "gzip, gzip", ""] {
        let response = post().header("Content-Encoding", encoding).send(&local);
        assert_eq!((response.status, &*response.headers["accept-encoding"]), (415, "gzip"));
    }
    assert_eq!(local.count("s").unwrap(), 0);
}

#[test]
fn a_body_over_the_limit_is_413() {
    let local = Local::builder().max_body(1000).start().unwrap();
    let event = |size: usize| format!(r#"{{"a": "{}"}}"#, "x".repeat(size - 9));
    post(&local, "/v1/collect/s", &event(1000)).assert_stored();
    let response = post(&local, "/v1/collect/s", &event(1001));
    assert_eq!(response.status, 413);
    assert!(response.message().contains("1000"), "{}", response.message());

    // Without an announced length the limit is met on the way.
    let mut connection = Connection::open(&local);
    let head = request(&local, "POST", "/v1/collect/s").json("").without("Content-Length");
    connection.write(&head.header("Transfer-Encoding", "chunked").bytes()).unwrap();
    connection.write(format!("7d0\r\n{}\r\n", "x".repeat(2000)).as_bytes()).unwrap();
    assert_eq!(connection.read_response().unwrap().status, 413);
    assert_eq!(local.count("s").unwrap(), 1);
}

#[test]
fn an_event_that_no_query_could_read_is_413() {
    let local = Local::start().unwrap();
    let event = |size: usize| format!(r#"{{"a": "{}"}}"#, "x".repeat(size - 9));
    let most = 2 << 20;
    post(&local, "/v1/collect/s", &event(most)).assert_stored();
    for (path, body) in [
        ("/v1/collect/s", event(most + 1)),
        ("/v1/collect", format!(r#"{{"s": [{{}}, {}]}}"#, event(most + 1))),
    ] {
        let response = post(&local, path, &body);
        assert_eq!(response.status, 413);
        assert!(response.message().contains("2097152"), "{}", response.message());
    }
    let query = r#"{"query": "SELECT length(a) AS a FROM s"}"#;
    let rows = post(&local, "/v1/analyze", query).json();
    assert_eq!(rows, serde_json::json!([{"a": most - 9}]));
}

#[test]
fn a_gzip_bomb_is_413_and_is_not_inflated() {
    let local = Local::builder().max_inflated(1 << 20).start().unwrap();
    // 200 MiB of spaces, in 200 KiB.
    let spaces = gzip(&vec![b' '; 1 << 20]).repeat(200);
    let bomb = request(&local, "POST", "/v1/collect/s")
        .header("Content-Encoding", "gzip")
        .json([&gzip(b"{}")[..], &spaces].concat());
    let response = bomb.send(&local);
    assert_eq!(response.status, 413);
    assert!(response.message().contains("inflates"));

    // What is small until it is stamped counts as what it becomes.
    let events = format!("[{}{{}}]", "{},".repeat(100_000));
    let response = request(&local, "POST", "/v1/collect/s").gzip(events).send(&local);
    assert_eq!(response.status, 413);
    assert_eq!(local.count("s").unwrap(), 0);
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let local = Local::start().unwrap();
    // More than any socket buffers, so that the client blocks in writing unless somebody reads.
    let body = vec![b' '; 15 << 20];
    let too_large = request(&local, "POST", "/v1/collect/s")
        .json(&body)
        .header("Content-Length", &(100 << 20).to_string());
    for (request, status) in [
        (request(&local, "POST", "/v1/collect/s").json(&body).key("wrong"), 401),
        (request(&local, "POST", "/v1/collect/s").body(&body).header("Content-Type", "a/b"), 415),
        (request(&local, "PUT", "/v1/collect/s").json(&body), 405),
        (too_large, 413),
    ] {
        let mut connection = Connection::open(&local);
        let response = connection.try_exchange(&request.bytes()).unwrap();
        assert_eq!((response.status, &*response.headers["connection"]), (status, "close"));
        drop(response.message());
        assert!(connection.is_closed());
    }
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let local = Local::start().unwrap();
    let ask = |key: &str| {
        let request =
            request(&local, "POST", "/v1/collect/s").json("").header("Content-Length", "2000000");
        let mut connection = Connection::open(&local);
        connection.write(&request.key(key).header("Expect", "100-continue").bytes()).unwrap();
        connection.read_head().unwrap().0
    };
    assert_eq!(ask("wrong"), 401);
    assert_eq!(ask(local.secret_key()), 100);
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let local = Local::builder().body_time(Duration::from_millis(50)).start().unwrap();
    let mut connection = Connection::open(&local);
    let request = request(&local, "POST", "/v1/collect/s").json("").header("Content-Length", "10");
    let response = connection.try_exchange(&request.bytes()).unwrap();
    assert_eq!(response.status, 408);
}

#[test]
fn p4_what_a_client_sends_in_vain_is_told_in_one_clear_message() {
    let local = Local::start().unwrap();
    let deflated = request(&local, "POST", "/v1/collect/s").json("{}");
    let refused = deflated.header("Content-Encoding", "deflate").send(&local);
    assert_eq!((refused.status, &*refused.headers["accept-encoding"]), (415, "gzip"));
    assert!(refused.message().contains("gzip"));

    let webhook = r#"{"query": "SELECT count(*) FROM s",
        "action": {"type": "WEBHOOK", "url": "http://localhost/hook"}}"#;
    let refused = post(&local, "/v1/process/p", webhook);
    assert_eq!(refused.status, 400);
    let message = refused.message();
    assert!(message.contains("WEBHOOK") && message.contains("MATERIALIZE"), "{message}");
    assert!(!message.contains("unknown field") && !message.contains("line"), "{message}");
    let more = r#"{"query": "SELECT count(*) FROM s", "action": {"type": "MATERIALIZE", "at": 1}}"#;
    assert!(post(&local, "/v1/process/p", more).message().contains("\"at\""));
    assert!(local.processes().unwrap().is_empty());
}
