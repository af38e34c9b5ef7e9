//! Requests as the three original clients send them, byte by byte, and the responses they need.

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, Response, gzip};

/// What each sends with every request; the key is `helloworld`.
const PYSTRIDE: &str = "Host: api.stride.io\r\n\
    User-Agent: pystride (version: 0.1.1)\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept: application/json\r\n\
    Connection: keep-alive\r\n\
    Content-Type: application/json\r\n\
    Authorization: Basic aGVsbG93b3JsZDo=\r\n";
const GOSTRIDE: &str = "Host: api.stride.io\r\n\
    User-Agent: gostride (version: 0.1.0)\r\n\
    Accept: application/json\r\n\
    Authorization: Basic aGVsbG93b3JsZDo=\r\n\
    Content-Type: application/json\r\n\
    Accept-Encoding: gzip\r\n";
const STRIDE_JS: &str = "user-agent: stride.js (version: 0.0.9)\r\n\
    content-type: application/json\r\n\
    accept: application/json\r\n\
    host: api.stride.io\r\n\
    authorization: Basic aGVsbG93b3JsZDo=\r\n\
    connection: keep-alive\r\n";

/// One original on one connection, which it keeps.
struct Original {
    headers: &'static str,
    connection: Connection,
}

impl Original {
    fn new(local: &Local, headers: &'static str) -> Self {
        Self { headers, connection: Connection::open(local) }
    }

    fn send(&mut self, line: &str, more: &str, body: &[u8]) -> Response {
        let mut bytes = format!("{line} HTTP/1.1\r\n{}{more}", self.headers).into_bytes();
        if !body.is_empty() {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        self.connection.try_exchange(&bytes).unwrap()
    }

    fn plain(&mut self, line: &str, json: &str) -> Response {
        self.send(line, "", json.as_bytes())
    }

    fn gzipped(&mut self, line: &str, json: &str) -> Response {
        self.send(line, "Content-Encoding: gzip\r\n", &gzip(json.as_bytes()))
    }

    /// The head of a subscription, after which its events come on the same connection.
    fn subscribe(mut self, path: &str) -> Connection {
        let head = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers);
        self.connection.write(head.as_bytes()).unwrap();
        let (status, headers) = self.connection.read_head().unwrap();
        assert_eq!((status, &*headers["content-type"]), (200, "application/json"));
        self.connection
    }
}

fn start() -> Local {
    Local::builder().secret_key("helloworld").start().unwrap()
}

fn assert_empty(response: &Response, status: u16) {
    assert_eq!((response.status, &response.body[..]), (status, &b""[..]), "{response:?}");
}

fn assert_json(response: &Response, json: &Value) {
    assert_eq!((response.status, &response.json()), (200, json));
}

/// The payload of the next chunk, which holds one event here.
fn event(connection: &mut Connection) -> Value {
    let size = connection.read_line().unwrap();
    let line = connection.read_line().unwrap();
    assert_eq!(usize::from_str_radix(&size, 16).unwrap(), line.len() + 2);
    assert_eq!(connection.read_line().unwrap(), "");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn pystride_gets_its_answers() {
    let local = start();
    let mut pystride = Original::new(&local, PYSTRIDE);
    assert_empty(&pystride.gzipped("POST /v1/collect/mystream", r#"{"bojack": "horseman"}"#), 200);
    // A compressed `null` comes with its GETs and DELETEs, too.
    assert_json(&pystride.gzipped("GET /v1/collect", "null"), &json!(["mystream"]));
    let process =
        r#"{"query": "SELECT count(*) FROM app_events", "action": {"type": "MATERIALIZE"}}"#;
    assert_empty(&pystride.plain("POST /v1/process/myproc", process), 201);
    let mut changes = Original::new(&local, PYSTRIDE).subscribe("/v1/process/myproc/subscribe");
    assert_empty(
        &pystride.gzipped("POST /v1/collect/app_events", r#"[{"x": 42}, {"x": 43}]"#),
        200,
    );
    assert_eq!(event(&mut changes)["new"], json!({"count": 2}));
    let analyze = r#"{"query": "SELECT * FROM myproc"}"#;
    assert_empty(&pystride.plain("PUT /v1/analyze/myanalyze", analyze), 200);
    let results = pystride.plain("GET /v1/analyze/myanalyze/results", "null");
    assert_json(&results, &json!([{"count": 2}]));
    assert_json(&pystride.plain("GET /v1/process", "null"), &json!(["myproc"]));
    let ttl = r#"{"ttl": {"duration": "1 day", "column": "minute"}}"#;
    let minutely = r#"{"query": "SELECT strftime('%Y-%m-%dT%H:%M:00Z', \"$timestamp\") AS minute, count(*) FROM app_events GROUP BY minute", "action": {"type": "MATERIALIZE"}}"#;
    assert_empty(&pystride.plain("POST /v1/process/minutely", minutely), 201);
    assert_empty(&pystride.plain("PUT /v1/process/minutely", ttl), 200);
    assert_eq!(
        pystride.plain("GET /v1/process/minutely", "null").json()["ttl"],
        json!({"duration": "1 day", "column": "minute"})
    );
    assert_empty(&pystride.plain("DELETE /v1/process/myproc", "null"), 200);
    assert_eq!(pystride.plain("GET /v1/process/myproc", "null").status, 404);
    let mut sampled =
        Original::new(&local, PYSTRIDE).subscribe("/v1/collect/app_events/subscribe?sample=100");
    assert_empty(&pystride.gzipped("POST /v1/collect/app_events", r#"[{"x": 44}]"#), 200);
    assert_eq!(event(&mut sampled)["x"], 44);
    assert_eq!(local.connections(), 3, "its connection was kept over all of this");
}

#[test]
fn p1_stamped_events_of_every_original_are_stored() {
    let local = start();
    let query = r#"{"query": "SELECT n, utc(\"$timestamp\") AS at FROM s ORDER BY n"}"#;
    for (n, headers, stamp) in [
        (0, PYSTRIDE, r#""2015-05-05 23:40:27.123456""#),
        (1, PYSTRIDE, r#""2015-05-05 23:40:27""#),
        (2, GOSTRIDE, r#""2015-05-05T23:40:27.123456789Z""#),
        (3, GOSTRIDE, r#""2015-05-06T01:40:27.123456789+02:00""#),
        (4, STRIDE_JS, "1430869227123"),
    ] {
        let event = format!(r#"[{{"n": {n}, "$timestamp": {stamp}}}]"#);
        assert_empty(&Original::new(&local, headers).gzipped("POST /v1/collect/s", &event), 200);
    }
    let at = |n: u32, micros| json!({"n": n, "at": format!("2015-05-05T23:40:27.{micros}Z")});
    let expected = json!([
        at(0, "123456"),
        at(1, "000000"),
        at(2, "123456"),
        at(3, "123456"),
        at(4, "123000"),
    ]);
    assert_json(&Original::new(&local, PYSTRIDE).plain("POST /v1/analyze", query), &expected);
    assert_eq!(local.events("s").unwrap()[0]["$timestamp"], "2015-05-05T23:40:27.123456Z");
}

/// The clients send `Content-Type` with what has no body, too, as pystride's own test server insists.
#[test]
fn p3_a_content_type_without_a_body_is_accepted() {
    let local = start();
    for headers in [PYSTRIDE, GOSTRIDE, STRIDE_JS] {
        let mut original = Original::new(&local, headers);
        assert_empty(&original.gzipped("POST /v1/collect/s", "{}"), 200);
        assert_json(&original.send("GET /v1/collect", "", b""), &json!(["s"]));
        assert_empty(&original.send("DELETE /v1/collect/s", "", b""), 200);
        original.subscribe("/v1/collect/s/subscribe");
    }
}

#[test]
fn gostride_gets_its_answers() {
    let local = start();
    let mut gostride = Original::new(&local, GOSTRIDE);
    // Its collector sends every stream in one request.
    let streams = r#"{"clicks": [{"x": 1}, {"x": 2}], "app_events": [{"y": 1}]}"#;
    assert_empty(&gostride.gzipped("POST /v1/collect", streams), 200);
    assert_json(&gostride.send("GET /v1/collect", "", b""), &json!(["app_events", "clicks"]));
    assert_eq!(gostride.send("GET /v1/collect/clicks", "", b"").json()["count"], 2);
    // The action as a string, and bodies in chunks, as Go sends what has no length.
    let process = r#"{"query": "SELECT sum(x) AS total FROM clicks", "action": "MATERIALIZE"}"#;
    let chunk = format!("{:x}\r\n{process}\r\n0\r\n\r\n", process.len());
    let chunked = format!(
        "POST /v1/process/clicked HTTP/1.1\r\n{GOSTRIDE}Transfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    assert_empty(&gostride.connection.try_exchange(chunked.as_bytes()).unwrap(), 201);
    assert_eq!(
        gostride.send("GET /v1/process/clicked", "", b"").json(),
        json!({
            "name": "clicked",
            "query": "SELECT sum(x) AS total FROM clicks",
            "action": {"type": "MATERIALIZE"},
        })
    );
    let stats = gostride.send("GET /v1/process/clicked/stats", "", b"").json();
    assert_eq!((&stats["mode"], &stats["rows"]), (&json!("incremental"), &json!(1)));
    let query = r#"{"query": "SELECT total FROM clicked"}"#;
    assert_json(&gostride.plain("POST /v1/analyze", query), &json!([{"total": 3}]));
    assert_empty(&gostride.plain("POST /v1/analyze/totals", query), 201);
    for body in ["", "null", "{}"] {
        let results = gostride.plain("POST /v1/analyze/totals/results", body);
        assert_json(&results, &json!([{"total": 3}]));
    }
    assert_empty(&gostride.send("DELETE /v1/analyze/totals", "", b""), 200);
    assert_empty(&gostride.send("DELETE /v1/collect/app_events", "", b""), 200);
    let mut events = Original::new(&local, GOSTRIDE).subscribe("/v1/collect/clicks/subscribe");
    assert_empty(&gostride.gzipped("POST /v1/collect/clicks", r#"{"x": 3}"#), 200);
    assert_eq!(event(&mut events)["x"], 3);
}

#[test]
fn stride_js_gets_its_answers() {
    let local = start();
    let mut stride_js = Original::new(&local, STRIDE_JS);
    let events = r#"[{"$timestamp": "2015-05-04T00:00:00Z", "x": 1},
                     {"$timestamp": "2015-05-05T23:40:27Z", "x": 2}]"#;
    assert_empty(&stride_js.gzipped("POST /v1/collect/clicks", events), 200);
    let since = r#"{"query": "SELECT x FROM clicks WHERE \"$timestamp\" >= :start_date"}"#;
    assert_empty(&stride_js.plain("POST /v1/analyze/since", since), 201);
    let results = stride_js.send("GET /v1/analyze/since/results?start_date=2015-05-05", "", b"");
    assert_json(&results, &json!([{"x": 2}]));
    let sent = stride_js
        .plain("POST /v1/analyze/since/results", r#"{"start_date": "2015-05-01", "other": 7}"#);
    assert_json(&sent, &json!([{"x": 1}, {"x": 2}]));
    // One that the query does not name changes nothing.
    assert_empty(
        &stride_js.plain("PUT /v1/analyze/all", r#"{"query": "SELECT x FROM clicks"}"#),
        200,
    );
    let results = stride_js.send("GET /v1/analyze/all/results?start_date=2016-01-01", "", b"");
    assert_json(&results, &json!([{"x": 1}, {"x": 2}]));
    assert_json(&stride_js.send("GET /v1/analyze", "", b""), &json!(["all", "since"]));
    let shown = json!({"name": "all", "query": "SELECT x FROM clicks"});
    assert_json(&stride_js.send("GET /v1/analyze/all", "", b""), &shown);
    let refused = stride_js.send("GET /v1/analyze/nobody/results", "", b"");
    assert_eq!(refused.status, 404);
    assert!(refused.message().contains("nobody"));
}
