//! Each fault says what it is, and whether the request may have arrived.

use serde_json::json;
use stride_core::transport::{Delivery, TransportErrorKind as Kind};
use stride_tests::wire::{Act, RefusingPort, Server};
use stride_tests::{Over, chain, failed, suite};

use crate::{assert_fault, call, connect};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_refused_connection_was_not_sent_the_request,
        a_break_after_the_request_may_follow_a_request_that_arrived,
        a_break_before_the_request_is_read_is_an_error,
        a_body_that_is_reset_is_an_error,
        a_request_that_is_reset_half_way_may_have_arrived,
        a_request_that_cannot_be_sent_was_not,
    ]
}

fn a_refused_connection_was_not_sent_the_request(over: Over) {
    let port = RefusingPort::new();
    let localhost = format!("http://localhost:{}/v1", port.address().port());
    for endpoint in [port.endpoint(), localhost] {
        let error = failed(over.client(&endpoint).get("/collect"));
        assert_fault(&error, Kind::Connect, Delivery::NotSent);
        assert!(chain(&error).contains("refused"), "{}", chain(&error));
    }
}

/// The ways in which a server ends a connection before it should.
const BREAKS: [fn() -> Act; 2] = [|| Act::Close, || Act::Reset];

fn a_break_after_the_request_may_follow_a_request_that_arrived(over: Over) {
    for end in BREAKS {
        let text = ["HTTP/1.1 200 OK\r\nconte", "nt-length: 10\r\n\r\n", "[1,2"];
        for stage in 0..=text.len() {
            let mut acts = vec![Act::Request];
            acts.extend(text[..stage].iter().map(|text| Act::text(text)));
            acts.push(end());
            let server = Server::start([acts]);
            let error = failed(connect(over, &server).post("/collect/a", &json!({"x": 1})));
            assert_fault(&error, Kind::Io, Delivery::MaybeSent);
            assert_eq!(server.connections(), 1, "it is not sent again");
        }
    }
}

fn a_break_before_the_request_is_read_is_an_error(over: Over) {
    for end in BREAKS {
        let server = Server::start([vec![end()]]);
        let error = failed(connect(over, &server).post("/collect/a", &json!({"x": 1})));
        // Whether a byte was written before the end was seen differs from run to run.
        assert_eq!(error.kind(), Kind::Io, "{}", chain(&error));
    }
}

fn a_body_that_is_reset_is_an_error(over: Over) {
    for head in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n", ""] {
        let text = Act::text(&format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nab"));
        let server = Server::start([vec![Act::Request, text, Act::Reset]]);
        let error = failed(connect(over, &server).post("/collect/a", &json!({})));
        assert_fault(&error, Kind::Io, Delivery::MaybeSent);
    }
}

fn a_request_that_is_reset_half_way_may_have_arrived(over: Over) {
    let server = Server::start([vec![Act::Read(1000), Act::Reset]]);
    let error = failed(connect(over, &server).put("/process/a", &"x".repeat(8 << 20)));
    assert_fault(&error, Kind::Io, Delivery::MaybeSent);
}

fn a_request_that_cannot_be_sent_was_not(over: Over) {
    let client = over.client("http://127.0.0.1/v1");
    for uri in ["ftp://127.0.0.1/v1", "/v1/collect"] {
        let mut call = call(&client, |_| {});
        *call.request.uri_mut() = uri.parse().unwrap();
        assert_fault(&client.send(call).unwrap_err(), Kind::Unsupported, Delivery::NotSent);
    }
}
