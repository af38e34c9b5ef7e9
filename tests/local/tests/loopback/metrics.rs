//! What an operator needs: health, figures, and limits that hold.

use std::collections::HashMap;
use std::time::Duration;

use stride_local::{Fault, Local};

use crate::http::{Connection, WATCHDOG, get, post, request, subscribe};

const SOON: Duration = Duration::from_millis(50);

/// Every figure of `/metrics` by its series, without the common prefix.
fn metrics(local: &Local) -> HashMap<String, f64> {
    let response = request(local, "GET", "/metrics").without("Authorization").send(local);
    assert_eq!(response.status, 200);
    assert!(response.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    let page = String::from_utf8(response.body).unwrap();
    let mut figures = HashMap::new();
    let mut described = "";
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            described = head.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| name.strip_suffix(part));
            assert!([Some(name), whole].contains(&Some(described)), "{line} is not described");
            let series = series.strip_prefix("stride_local_").unwrap();
            figures.insert(series.to_owned(), value.parse().unwrap());
        }
    }
    figures
}

#[test]
fn health_and_metrics_need_no_key_and_meet_no_fault() {
    let local = Local::start().unwrap();
    local.fault(Fault::Status { every: 1, status: 503, retry_after: None });
    let health = request(&local, "GET", "/healthz").without("Authorization").send(&local);
    assert_eq!((health.status, health.json()), (200, serde_json::json!({"status": "ok"})));
    assert!(metrics(&local)["requests_total"] >= 2.0);
    for path in ["/healthz", "/metrics"] {
        let response = request(&local, "POST", path).json("{}").send(&local);
        assert_eq!((response.status, &*response.headers["allow"]), (405, "GET, HEAD"));
    }
    assert_eq!(get(&local, "/v1/healthz").status, 503, "the fault is for the API");
}

#[test]
fn metrics_count_what_happens() {
    let local = Local::builder().secret_key("hush").open_key("hushed").start().unwrap();
    let _subscription = subscribe(&local, "quiet_stream");
    post(&local, "/v1/collect/loud_stream", r#"[{"secret": 1}, {}, {}]"#).assert_stored();
    assert_eq!(get(&local, "/v1/nowhere").status, 404);
    assert_eq!(get(&local, "/v1/collect/nobody").status, 404);
    let figures = metrics(&local);
    for (series, value) in [
        ("requests_total", 5.0),
        ("responses_total{status=\"2xx\"}", 2.0),
        ("responses_total{status=\"4xx\"}", 2.0),
        ("responses_total{status=\"5xx\"}", 0.0),
        ("connections_total", 5.0),
        ("connections_turned_away_total", 0.0),
        ("events_stored_total", 3.0),
        ("subscribers", 1.0),
        ("subscriber_events_lost_total", 0.0),
        ("storage_errors_total", 0.0),
        // Of the five requests, one was for the figures.
        ("request_seconds_count", 4.0),
        ("request_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("process_events_skipped_total", 0.0),
        ("processes_stale", 0.0),
    ] {
        assert_eq!(figures[series], value, "{series}");
    }
    let page = String::from_utf8(get(&local, "/metrics").body).unwrap();
    for secret in ["hush", "quiet_stream", "loud_stream", "secret"] {
        assert!(!page.contains(secret), "{secret}");
    }
}

#[test]
fn a_locked_file_is_503_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stride.db");
    let local = Local::builder().data(&file).start().unwrap();
    post(&local, "/v1/collect/s", "{}").assert_stored();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let response = post(&local, "/v1/collect/s", "{}");
    assert_eq!((response.status, &*response.headers["retry-after"]), (503, "1"));
    assert!(response.message().contains("locked"), "{}", response.message());
    let health = get(&local, "/healthz");
    assert_eq!(health.status, 503);
    assert!(health.message().contains("locked"), "{}", health.message());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(get(&local, "/healthz").status, 200);
    post(&local, "/v1/collect/s", "{}").assert_stored();
    assert_eq!(local.count("s").unwrap(), 2, "what was answered with 503 is not stored");
    assert!(metrics(&local)["storage_errors_total"] >= 1.0);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let local = Local::builder().max_connections(2).start().unwrap();
    let mut first = Connection::open(&local);
    let mut second = Connection::open(&local);
    let list = request(&local, "GET", "/v1/collect");
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.exchange(&list).status, 200);
    }
    // It need not ask anything to be told, and may have asked already.
    let mut third = Connection::open(&local);
    let response = third.exchange(&request(&local, "POST", "/v1/collect/s").json("{}"));
    assert_eq!((response.status, &*response.headers["connection"]), (503, "close"));
    assert!(response.message().contains("too many connections"));
    assert_eq!(response.headers["retry-after"], "1", "P4: a client is to come again");
    assert!(third.is_closed());
    assert_eq!(local.count("s").unwrap(), 0);

    drop(first);
    assert!(local.wait_until(WATCHDOG, |local| local.open_connections() == 1));
    post(&local, "/v1/collect/s", "{}").assert_stored();
    assert_eq!(second.exchange(&list).status, 200);
    assert_eq!(metrics(&local)["connections_turned_away_total"], 1.0);
}

#[test]
fn a_head_that_stops_half_way_is_408_and_silence_is_closed() {
    let local = Local::builder().head_time(SOON).keep_alive(2 * SOON).start().unwrap();
    let mut slow = Connection::open(&local);
    slow.write(b"GET /v1/collect HTTP/1.1\r\nHost: loc").unwrap();
    let response = slow.read_response().unwrap();
    assert_eq!((response.status, &*response.headers["connection"]), (408, "close"));
    assert!(response.message().contains("head"));
    assert!(slow.is_closed());

    let mut silent = Connection::open(&local);
    assert!(silent.is_closed());
    let mut kept = Connection::open(&local);
    assert_eq!(kept.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    assert!(kept.is_closed(), "a kept connection is silent before its next head");
    // The limit is on heads: a subscription that is quiet for longer stays.
    let mut subscription = subscribe(&local, "s");
    for _ in 0..2 {
        assert_eq!(subscription.chunk().unwrap().unwrap(), b"\r\n");
    }
}

#[test]
fn a_request_that_takes_too_long_in_all_is_503() {
    let local = Local::builder().request_time(SOON).start().unwrap();
    let mut connection = Connection::open(&local);
    let request = request(&local, "POST", "/v1/collect/s").json("").header("Content-Length", "10");
    let response = connection.try_exchange(&request.bytes()).unwrap();
    assert_eq!((response.status, &*response.headers["connection"]), (503, "close"));
    assert!(response.message().contains("50ms"), "{}", response.message());
    post(&local, "/v1/collect/s", "{}").assert_stored();
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let local = Local::builder().write_time(SOON).start().unwrap();
    let subscription = subscribe(&local, "s");
    let event = format!("{{\"text\": \"{}\"}}", "x".repeat(1 << 20));
    // Until the sockets' own buffers are full, whatever their size.
    for _ in 0..200 {
        post(&local, "/v1/collect/s", &event).assert_stored();
        if local.subscribers("s") == 0 {
            break;
        }
    }
    assert!(local.wait_until(WATCHDOG, |local| local.subscribers("s") == 0));
    drop(subscription);
}

#[test]
fn many_large_bodies_at_once_are_all_taken_in_turn() {
    let local = Local::builder().threads(2).max_body(1 << 20).start().unwrap();
    let body = format!("[{{\"text\": \"{}\"}}]", "x".repeat((1 << 20) - 20));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| post(&local, "/v1/collect/s", &body).assert_stored());
        }
    });
    assert_eq!(local.count("s").unwrap(), 16);
}

#[test]
fn p4_a_probe_may_use_head() {
    let local = Local::start().unwrap();
    for path in ["/healthz", "/metrics"] {
        let mut connection = Connection::open(&local);
        connection.write(&request(&local, "HEAD", path).without("Authorization").bytes()).unwrap();
        let (status, headers) = connection.read_head().unwrap();
        assert_eq!(status, 200);
        assert!(headers["content-length"].parse::<usize>().unwrap() > 0);
        // No body follows: the connection is ready for the next request.
        assert_eq!(connection.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    }
}

#[test]
fn metrics_show_what_processes_lack() {
    let local = Local::builder().query_rows(3).start().unwrap();
    let process = |name: &str, query: &str| {
        let body = serde_json::json!({"query": query, "action": "MATERIALIZE"}).to_string();
        assert_eq!(post(&local, &format!("/v1/process/{name}"), &body).status, 201);
    };
    process("sums", "SELECT sum(abs(x)) AS s FROM s");
    process("lists", "SELECT value FROM s, json_each(s.tags)");
    process("wide", "SELECT x FROM s ORDER BY x");
    // There is no absolute value of the least integer, and no part of what is not JSON.
    let events = r#"[{"x": -9223372036854775808}, {"tags": "oops"}]"#;
    post(&local, "/v1/collect/s", events).assert_stored();
    let skipped = |local: &Local| metrics(local)["process_events_skipped_total"];
    assert!(local.wait_until(WATCHDOG, |local| skipped(local) == 2.0));
    let rows = |query: &str| {
        post(&local, "/v1/analyze", &serde_json::json!({ "query": query }).to_string())
    };
    assert!(!rows("SELECT * FROM lists").headers.contains_key("stride-stale"));
    assert_eq!(metrics(&local)["processes_stale"], 0.0);
    // More rows than a result may have.
    post(&local, "/v1/collect/s", r#"[{"x": 1}, {"x": 2}]"#).assert_stored();
    assert!(local.wait_until(WATCHDOG, |local| metrics(local)["processes_stale"] == 1.0));
    assert_eq!(rows("SELECT * FROM wide LIMIT 1").headers["stride-stale"], "wide");
    let stats = get(&local, "/v1/process/wide/stats").json();
    assert_eq!(stats["stale"], true);
    assert!(stats["stale_since"].as_str().unwrap().ends_with('Z'), "{stats}");
    let overview = get(&local, "/overview").json();
    let mut processes = overview["processes"].as_array().unwrap().iter();
    let wide = processes.find(|process| process["name"] == "wide").unwrap();
    for told in ["stale_since", "last_error"] {
        assert_eq!(wide[told], stats[told]);
    }
    assert!(stats["last_error"].as_str().unwrap().contains("rows"), "{stats}");
}
