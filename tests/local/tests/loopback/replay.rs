//! Requests of the three original clients, byte for byte: the order and the case of their headers, and their gzip.
//! pystride's were recorded; gostride's and stride.js's are as Go's and Node's HTTP clients write what they ask for.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, Response};

/// `[{"$timestamp": "2015-05-05 23:40:27.123456", "$id": "a", "x": 1}, {"x": 2}]` as Python's `gzip` packs it.
const STAMPED: &str = "1f8b08009257086b02ff8bae565229c9cc4d2d2e49cc2d50b2525032323034d53500210523632b13032b23733d\
    432363135333251d052595cc1490a24410bb02c832acd551a806b38c6a6301822737b04c000000";

/// `null`, which pystride sends with a `GET` of `/collect`.
const NULL: &str = "1f8b08009357086b02ffcb2bcdc901004ffccb2504000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Go's `gzip.Writer`, flushed before it is closed.
fn flushed(json: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(json.as_bytes()).unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

/// Sends a head, given line by line, and a body on a kept connection.
fn send(connection: &mut Connection, head: &[&str], body: &[u8]) -> Response {
    let mut request = head.join("\r\n").into_bytes();
    request.extend(b"\r\n\r\n");
    request.extend(body);
    connection.try_exchange(&request).unwrap()
}

fn assert_is(response: &Response, status: u16, body: &Value) {
    assert_eq!(response.status, status, "{response:?}");
    match body {
        Value::Null => assert!(response.body.is_empty(), "{response:?}"),
        body => assert_eq!(response.json(), *body),
    }
}

fn start() -> Local {
    Local::builder().secret_key("helloworld").start().unwrap()
}

#[test]
fn pystride() {
    let local = start();
    let mut connection = Connection::open(&local);
    let mut send = |line: &str, more: &[&str], body: &[u8]| {
        let length = format!("Content-Length: {}", body.len());
        let mut head = vec![
            line,
            "Host: 127.0.0.1:43805",
            "User-Agent: pystride (version: 0.1.1)",
            "Accept-Encoding: gzip, deflate",
            "Accept: application/json",
            "Connection: keep-alive",
            "Content-Type: application/json",
        ];
        head.extend(more);
        if !body.is_empty() {
            head.push(&length);
        }
        head.push("Authorization: Basic aGVsbG93b3JsZDo=");
        send(&mut connection, &head, body)
    };
    let gzip = ["Content-Encoding: gzip"];
    let stored = send("POST /v1/collect/mystream HTTP/1.1", &gzip, &bytes(STAMPED));
    assert_is(&stored, 200, &Value::Null);
    let events = local.events("mystream").unwrap();
    assert_eq!(events[0], json!({"$timestamp": "2015-05-05T23:40:27.123456Z", "$id": "a", "x": 1}));
    assert_eq!(events[1]["x"], 2);
    assert_is(&send("GET /v1/collect HTTP/1.1", &gzip, &bytes(NULL)), 200, &json!(["mystream"]));
    let process =
        br#"{"query": "SELECT count(*) FROM mystream", "action": {"type": "MATERIALIZE"}}"#;
    assert_eq!(process.len(), 77);
    assert_is(&send("POST /v1/process/myproc HTTP/1.1", &[], process), 201, &Value::Null);
    assert_is(&send("GET /v1/process HTTP/1.1", &[], b"null"), 200, &json!(["myproc"]));
    let analyze = br#"{"query": "SELECT * FROM myproc"}"#;
    assert_is(&send("PUT /v1/analyze/myanalyze HTTP/1.1", &[], analyze), 200, &Value::Null);
    let results = send("GET /v1/analyze/myanalyze/results HTTP/1.1", &[], b"null");
    assert_is(&results, 200, &json!([{"count": 2}]));
    assert_is(&send("DELETE /v1/process/myproc HTTP/1.1", &[], b"null"), 200, &Value::Null);
    let deleted = send("DELETE /v1/collect/mystream HTTP/1.1", &gzip, &bytes(NULL));
    assert_is(&deleted, 200, &Value::Null);
    assert_eq!(local.connections(), 1);
}

#[test]
fn gostride() {
    let local = start();
    let mut connection = Connection::open(&local);
    let mut send = |line: &str, encoding: Option<&str>, body: &[u8]| {
        let length = format!("Content-Length: {}", body.len());
        let mut head = vec![line, "Host: api.stride.com", "User-Agent: gostride (version: 0.1)"];
        if !body.is_empty() {
            head.push(&length);
        }
        head.extend(["Accept: application/json", "Authorization: Basic aGVsbG93b3JsZDo="]);
        head.extend(encoding);
        head.extend(["Content-Type: application/json", "Accept-Encoding: gzip"]);
        send(&mut connection, &head, body)
    };
    let gzip = Some("Content-Encoding: gzip");
    // Its collector sends every stream at once, and its events are stamped with nanoseconds and a zone.
    let events = r#"{"app_events":[{"$id":"7","$timestamp":"2015-05-05T23:40:27.123456789+02:00","x":1}],"clicks":[{"y":2}]}"#;
    assert_is(&send("POST /v1/collect HTTP/1.1", gzip, &flushed(events)), 200, &Value::Null);
    let timestamp = &local.events("app_events").unwrap()[0]["$timestamp"];
    assert_eq!(timestamp, "2015-05-05T23:40:27.123456789+02:00");
    assert_is(&send("GET /v1/collect HTTP/1.1", None, b""), 200, &json!(["app_events", "clicks"]));
    let process = br#"{"action":"MATERIALIZE","query":"SELECT sum(y) AS s FROM clicks"}"#;
    assert_is(&send("POST /v1/process/p HTTP/1.1", None, process), 201, &Value::Null);
    let analyze = br#"{"query":"SELECT s FROM p"}"#;
    assert_is(&send("POST /v1/analyze HTTP/1.1", None, analyze), 200, &json!([{"s": 2}]));
    assert_eq!(send("GET /v1/process/p/stats HTTP/1.1", None, b"").json()["rows"], 1);
    assert_is(&send("DELETE /v1/process/p HTTP/1.1", None, b""), 200, &Value::Null);
    assert_eq!(local.connections(), 1);
}

#[test]
fn stride_js() {
    let local = start();
    let send = |line: &str, body: &[u8]| {
        let length = format!("content-length: {}", body.len());
        let mut head = vec![
            line,
            "User-Agent: stride.js (version: 0.0.9)",
            "Accept: application/json",
            "Content-Type: application/json",
            "Authorization: Basic aGVsbG93b3JsZDo=",
            "host: api.stride.io",
        ];
        if !body.is_empty() {
            head.push(&length);
        }
        head.push("Connection: close");
        // It keeps no connection, and does not compress.
        send(&mut Connection::open(&local), &head, body)
    };
    let events =
        br#"[{"$timestamp":1430869227123,"$id":1,"x":1},{"$timestamp":1430869228000,"x":2}]"#;
    assert_is(&send("POST /v1/collect/clicks HTTP/1.1", events), 200, &Value::Null);
    assert_eq!(local.events("clicks").unwrap()[0]["$timestamp"], "2015-05-05T23:40:27.123000Z");
    assert_is(&send("GET /v1/collect HTTP/1.1", b""), 200, &json!(["clicks"]));
    let since =
        br#"{"query":"SELECT x FROM clicks WHERE \"$timestamp\" >= :start_date ORDER BY x"}"#;
    assert_is(&send("PUT /v1/analyze/since HTTP/1.1", since), 200, &Value::Null);
    let line = "GET /v1/analyze/since/results?start_date=2015-05-05T23:40:28 HTTP/1.1";
    assert_is(&send(line, b""), 200, &json!([{"x": 2}]));
    assert_eq!(send("POST /v1/collect/clicks HTTP/1.1", b"{\"x\":").status, 400);
    assert_is(&send("DELETE /v1/analyze/since HTTP/1.1", b""), 200, &Value::Null);
}
