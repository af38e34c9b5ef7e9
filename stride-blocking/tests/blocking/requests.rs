//! What goes over the wire, and what becomes of what comes back.

use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};
use stride_blocking::{Error, Stride, Target, TransportError, TransportErrorKind};
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call};

use crate::server::{STREAM, Server, answer, chunk, in_time};

fn client(server: &Server) -> Stride {
    Stride::builder("helloworld").endpoint(&server.base()).build().unwrap()
}

#[test]
fn the_four_verbs() {
    let (sent, requests) = channel();
    let server = Server::start(move |_, mut peer| {
        while let Some(request) = peer.request() {
            sent.send(request).unwrap();
            peer.send(answer("200 OK", ""));
        }
    });
    let stride = client(&server);
    let value = json!({"query": "SELECT 1"});
    // The lines of a head, of which only the first has its place.
    let head = |first: &str, more: &[&str]| {
        let mut lines = vec![
            format!("host: {}", server.address),
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
    let received = || {
        let request = requests.recv().unwrap();
        let mut lines: Vec<String> = request.head.lines().map(str::to_owned).collect();
        lines[1..].sort();
        (lines, request.body)
    };

    assert!(stride.get("/analyze/a/results?x=1").unwrap().data::<Value>().unwrap().is_none());
    assert_eq!(received(), (head("GET /v1/analyze/a/results?x=1", &[]), Vec::new()));

    assert_eq!(stride.delete("/collect/a").unwrap().status(), 200);
    assert_eq!(received(), (head("DELETE /v1/collect/a", &[]), Vec::new()));

    assert_eq!(stride.put("/process/a", &value).unwrap().status(), 200);
    let content = ["content-length: 20"];
    assert_eq!(received(), (head("PUT /v1/process/a", &content), value.to_string().into_bytes()));

    assert_eq!(stride.post("/collect/a", &value).unwrap().status(), 200);
    let (lines, body) = received();
    let length = format!("content-length: {}", body.len());
    let content = ["content-encoding: gzip", &length];
    assert_eq!(lines, head("POST /v1/collect/a", &content));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, value.to_string());
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_answer_that_is_no_success_is_a_response_and_its_connection_is_used_again() {
    for status in ["429 Too Many Requests", "413 Payload Too Large", "500 Internal Server Error"] {
        let body = r#"{"message": "bad request"}"#;
        let chunked = format!(
            "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk(body)
        );
        for bytes in [answer(status, body), chunked] {
            let server = Server::answering(bytes);
            let stride = client(&server);
            for _ in 0..3 {
                let response = stride.post("/collect/a", &json!({})).unwrap();
                assert!(status.starts_with(response.status().as_str()));
                assert_eq!(response.body(), body);
                let error = response.error_for_status().unwrap_err();
                assert_eq!(error.message().as_deref(), Some("bad request"));
            }
            assert_eq!(server.connections(), 1);
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let target = Server::answering(answer("200 OK", ""));
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        for (location, body) in [(true, "moved"), (true, ""), (false, "moved")] {
            let location = location.then(|| format!("location: {}\r\n", target.base()));
            let server = Server::answering(format!(
                "HTTP/1.1 {status}\r\n{}content-length: {}\r\n\r\n{body}",
                location.unwrap_or_default(),
                body.len()
            ));
            let stride = client(&server);
            for _ in 0..2 {
                let response = stride.get("/collect").unwrap();
                assert!(response.status().is_redirection());
                assert_eq!(response.body(), body);
            }
            assert_eq!((server.connections(), target.connections()), (1, 0));
        }
    }
}

#[test]
fn bodies_of_every_size_come_whole() {
    for size in [0, 1, 2, 65_535, 65_536, 65_537, 1_000_000] {
        let body = "x".repeat(size);
        let chunked: String = [body.as_str()]
            .iter()
            .filter(|body| !body.is_empty())
            .map(|body| chunk(body))
            .chain([String::from("0\r\n\r\n")])
            .collect();
        for bytes in [answer("200 OK", &body), format!("{STREAM}{chunked}")] {
            let server = Server::answering(bytes);
            let stride = client(&server);
            for _ in 0..2 {
                assert!(stride.get("/collect").unwrap().body() == body.as_bytes(), "{size}");
            }
            assert_eq!(server.connections(), 1, "{size}");
        }
    }
}

#[test]
fn a_body_over_the_limit_is_an_error() {
    let server = Server::answering(answer("200 OK", "12345"));
    let builder = || Stride::builder("key").endpoint(&server.base());
    assert_eq!(builder().max_body(5).build().unwrap().get("/collect").unwrap().body(), "12345");
    let Err(Error::Transport(error)) = builder().max_body(4).build().unwrap().get("/collect")
    else {
        panic!("5 are more than 4")
    };
    assert_eq!(error.kind(), TransportErrorKind::BodyTooLarge);
}

#[test]
fn localhost_is_this_machine_by_either_address() {
    let four = Server::answering(answer("200 OK", ""));
    let base = format!("http://localhost:{}/v1", four.address.port());
    let stride = Stride::builder("key").endpoint(&base).build().unwrap();
    assert_eq!(stride.get("/collect").unwrap().status(), 200);
    // Not every machine has IPv6.
    let Ok(six) = std::net::TcpListener::bind("[::1]:0") else { return };
    let base = format!("http://localhost:{}/v1", six.local_addr().unwrap().port());
    let stride = Stride::builder("key").endpoint(&base).build().unwrap();
    in_time(move || {
        let asks = std::thread::spawn(move || stride.get("/collect"));
        drop(six.accept().unwrap());
        assert!(asks.join().unwrap().is_err());
    });
}

#[test]
fn another_transport_is_handed_the_requests_and_the_limits() {
    let echo = |call: Call, cancel: CancelToken| -> Result<http::Response<Body>, TransportError> {
        assert!(cancel.is_never());
        assert_eq!(call.limits.connect, Duration::from_secs(1));
        assert_eq!(call.limits.total, Some(Duration::from_secs(2)));
        assert_eq!(call.limits.head, Duration::from_secs(2));
        Ok(http::Response::new(format!("{:?}", call.request.uri().path()).into()))
    };
    let stride = Stride::builder("key")
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(2))
        .transport(echo)
        .build()
        .unwrap();
    let path: Option<String> = stride.clone().get("/collect").unwrap().data().unwrap();
    assert_eq!(path.as_deref(), Some("/v1/collect"));
    let target = Target::from(&stride);
    assert_eq!(target.api.base(), stride.api().base());
}

#[test]
fn a_client_is_shared_between_threads() {
    let server = Server::answering(answer("200 OK", ""));
    let stride = client(&server);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(stride.get("/collect").unwrap().status(), 200);
                }
            });
        }
    });
    assert!(server.connections() <= 8, "{}", server.connections());
}
