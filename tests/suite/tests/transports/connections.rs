//! Which connections are used again, and which are not.

use serde_json::json;
use stride_core::transport::{Delivery, TransportErrorKind as Kind};
use stride_tests::wire::{Act, Server, chunk, response};
use stride_tests::{Over, failed, suite};

use crate::{OK, assert_fault, connect};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_connection_is_used_again_whatever_the_response,
        a_connection_is_used_again_after_a_refusal,
        a_connection_is_closed_when_the_server_says_so,
        a_connection_that_was_closed_meanwhile_is_replaced,
        a_connection_that_breaks_on_the_request_is_an_error_and_nothing_is_sent_again,
    ]
}

fn a_connection_is_used_again_whatever_the_response(over: Over) {
    let responses = [
        (200, "{}", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        (429, "no!", "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 3\r\n\r\nno!"),
        (
            500,
            "abc",
            "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            503,
            "ab",
            "HTTP/1.1 503 Oh\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nab\r\n0\r\nchecksum: 7\r\n\r\n",
        ),
        (204, "", "HTTP/1.1 204 No Content\r\n\r\n"),
        (304, "", "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"),
        (307, "", "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
        (301, "to", "HTTP/1.1 301 Moved\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nto"),
        (302, "to", "HTTP/1.1 302 Found\r\ncontent-length: 2\r\n\r\nto"),
        (
            200,
            "",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (200, "[]", OK),
    ];
    let exchange = |(_, _, text): &(_, _, &str)| vec![Act::Request, Act::text(text)];
    let server = Server::start(responses.iter().map(exchange));
    let client = connect(over, &server);
    for (status, body, text) in responses {
        let response = client.post("/collect/a", &json!({})).unwrap();
        assert_eq!((response.status().as_u16(), &response.body()[..]), (status, body.as_bytes()));
        assert_eq!(server.connections(), 1, "before {text}");
    }
}

fn a_connection_is_used_again_after_a_refusal(over: Over) {
    for status in ["429 Too Many Requests", "413 Payload Too Large", "500 Internal Server Error"] {
        let body = r#"{"message": "bad request"}"#;
        let chunked = format!(
            "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk(body)
        );
        for text in [response(status, body), chunked] {
            let server = Server::responding(text);
            let client = connect(over, &server);
            for _ in 0..3 {
                let response = client.post("/collect/a", &json!({})).unwrap();
                assert!(status.starts_with(response.status().as_str()));
                assert_eq!(response.body(), body);
                let error = response.error_for_status().unwrap_err();
                assert_eq!(error.message().as_deref(), Some("bad request"));
            }
            assert_eq!(server.connections(), 1);
        }
    }
}

fn a_connection_is_closed_when_the_server_says_so(over: Over) {
    let text = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n[1]";
    let server = Server::start([
        vec![Act::Request, Act::text(text), Act::Closed],
        vec![Act::Request, Act::text(OK)],
    ]);
    let client = connect(over, &server);
    assert_eq!(client.get("/collect").unwrap().body(), "[1]");
    assert_eq!(client.get("/collect").unwrap().body(), "[]");
    server.wait_until_closed(1);
    assert_eq!(server.connections(), 2);
}

fn a_connection_that_was_closed_meanwhile_is_replaced(over: Over) {
    for end in [|| Act::Close, || Act::Reset] {
        let exchange = |_| vec![Act::Request, Act::text(OK), end()];
        let server = Server::start((0..3).map(exchange));
        let client = connect(over, &server);
        for count in 1..=3 {
            assert_eq!(client.post("/collect/a", &json!({})).unwrap().status(), 200);
            server.wait_until_played(count);
        }
        assert_eq!((server.connections(), server.requests().len()), (3, 3));
    }
}

fn a_connection_that_breaks_on_the_request_is_an_error_and_nothing_is_sent_again(over: Over) {
    let server = Server::start([
        vec![Act::Request, Act::text(OK)],
        vec![Act::Request, Act::Close],
        vec![Act::Request, Act::text(OK)],
    ]);
    let client = connect(over, &server);
    assert_eq!(client.get("/collect").unwrap().status(), 200);
    let error = failed(client.post("/collect/a", &json!({"x": 1})));
    assert_fault(&error, Kind::Io, Delivery::MaybeSent);
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
    assert_eq!(client.get("/collect").unwrap().status(), 200);
}
