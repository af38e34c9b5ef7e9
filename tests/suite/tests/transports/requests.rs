//! What goes over the wire.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};
use stride_tests::wire::{Act, Request, Server, response};
use stride_tests::{Client, Over, suite};

use crate::{MINUTE, OK, connect, send};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        requests_are_written_as_servers_expect_them,
        requests_at_once_have_a_connection_each,
        localhost_is_this_machine_by_either_address,
    ]
}

/// The lines of a head, sorted but for the first.
fn lines(request: &Request) -> Vec<String> {
    let mut lines: Vec<String> = request.head.lines().map(str::to_owned).collect();
    lines[1..].sort();
    lines
}

fn requests_are_written_as_servers_expect_them(over: Over) {
    let server = Server::responding(response("201 Created", r#"{"a": 1}"#));
    let client = connect(over, &server);
    let json = json!({"query": "SELECT 1"});
    assert_eq!(client.get("/analyze/a/results?x=1").unwrap().status(), 201);
    assert_eq!(client.delete("/collect/a").unwrap().body(), r#"{"a": 1}"#);
    let response = client.put("/process/a", &json).unwrap();
    assert_eq!(response.data::<Value>().unwrap(), Some(json!({"a": 1})));
    assert_eq!(client.post("/collect/a", &json).unwrap().status(), 201);

    let head = |first: &str, more: &[&str]| {
        let mut lines = vec![
            format!("host: {}", server.address()),
            "authorization: Basic aGVsbG93b3JsZDo=".to_owned(),
            "accept: application/json".to_owned(),
            "accept-encoding: identity".to_owned(),
            "content-type: application/json".to_owned(),
            concat!("user-agent: stride-rust (version: ", env!("CARGO_PKG_VERSION"), ")")
                .to_owned(),
        ];
        lines.extend(more.iter().map(|line| (*line).to_owned()));
        lines.sort();
        lines.insert(0, format!("{first} HTTP/1.1"));
        lines
    };
    let requests = server.requests();
    let [get, delete, put, post] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(lines(get), head("GET /v1/analyze/a/results?x=1", &[]));
    assert_eq!(lines(delete), head("DELETE /v1/collect/a", &[]));
    assert_eq!(lines(put), head("PUT /v1/process/a", &["content-length: 20"]));
    assert_eq!(put.body, br#"{"query":"SELECT 1"}"#);
    let length = format!("content-length: {}", post.body.len());
    let content = ["content-encoding: gzip", &length];
    assert_eq!(lines(post), head("POST /v1/collect/a", &content));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&post.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, json.to_string());
    assert_eq!(server.connections(), 1);
}

fn requests_at_once_have_a_connection_each(over: Over) {
    let (gates, exchanges): (Vec<_>, Vec<_>) = (0..6)
        .map(|_| {
            let (open, gate) = Act::gate();
            (open, vec![Act::Request, gate, Act::text(OK)])
        })
        .unzip();
    let server = Server::start(exchanges);
    let client = connect(over, &server);
    let paths = ["/collect", "/process", "/analyze"];
    let mut gates = gates.into_iter();
    for round in 1..=2 {
        // No response comes before all of the requests have.
        let gates: Vec<_> = gates.by_ref().take(3).collect();
        let respond = || {
            server.wait_for_requests(round * 3);
            drop(gates);
        };
        match &client {
            Client::Blocking(stride) => thread::scope(|scope| {
                let requests = paths.map(|path| scope.spawn(move || stride.get(path)));
                respond();
                for request in requests {
                    assert_eq!(request.join().unwrap().unwrap().status(), 200);
                }
            }),
            Client::Async(stride, runtime) => thread::scope(|scope| {
                let [a, b, c] = paths.map(|path| stride.get(path));
                scope.spawn(respond);
                let (a, b, c) = runtime.block_on(async { tokio::join!(a, b, c) });
                for response in [a, b, c] {
                    assert_eq!(response.unwrap().status(), 200);
                }
            }),
        }
        assert_eq!(server.connections(), 3);
    }
}

fn localhost_is_this_machine_by_either_address(over: Over) {
    let four = Server::responding(OK);
    let client = over.client(&format!("http://localhost:{}/v1", four.address().port()));
    assert_eq!(client.get("/collect").unwrap().status(), 200);
    // Not every machine has IPv6.
    let Ok(six) = TcpListener::bind("[::1]:0") else { return };
    let client = over.client(&format!("http://localhost:{}/v1", six.local_addr().unwrap().port()));
    let requests = thread::spawn(move || send(&client, |limits| limits.connect = MINUTE));
    drop(six.accept().unwrap());
    assert!(requests.join().unwrap().is_err());
}
