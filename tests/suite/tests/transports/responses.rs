//! Every way to frame a response, and what becomes of it.

use serde_json::json;
use stride_core::transport::{Delivery, TransportError, TransportErrorKind as Kind};
use stride_tests::wire::{Act, STREAM, Server, chunk, response};
use stride_tests::{Over, failed, suite};

use crate::{OK, assert_fault, connect, send};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_head_that_trickles_is_a_head,
        a_body_that_trickles_is_a_body,
        informational_responses_are_passed_over,
        a_chunked_body_with_extensions_and_trailers,
        a_body_of_known_length,
        bodies_of_every_size_come_whole,
        a_body_that_ends_with_the_connection,
        a_response_of_http_1_0,
        a_body_may_end_with_its_connection_but_not_with_a_crash,
        a_truncated_body_is_an_error,
        a_truncated_chunked_body_is_an_error,
        what_is_not_http_is_an_error,
        a_body_over_the_limit_of_its_client_is_an_error,
        an_early_response_to_a_big_post_is_read,
    ]
}

/// The body of a response, of which the server sends this text and then closes.
fn body(over: Over, text: &str) -> Result<String, TransportError> {
    let server = Server::start([vec![Act::Request, Act::text(text), Act::Close]]);
    let response = send(&connect(over, &server), |_| {})?;
    Ok(String::from_utf8(response.body().to_vec()).unwrap())
}

fn a_head_that_trickles_is_a_head(over: Over) {
    let server = Server::start([vec![Act::Request, Act::Trickle(OK.into())]]);
    assert_eq!(send(&connect(over, &server), |_| {}).unwrap().body(), "[]");
}

fn a_body_that_trickles_is_a_body(over: Over) {
    let chunked = format!("{STREAM}{}{}0\r\n\r\n", chunk("[1,"), chunk("2]"));
    let server = Server::start([vec![Act::Request, Act::Trickle(chunked.into())]]);
    assert_eq!(send(&connect(over, &server), |_| {}).unwrap().body(), "[1,2]");
}

fn informational_responses_are_passed_over(over: Over) {
    let text = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}");
    assert_eq!(body(over, &text).unwrap(), "[]");
}

fn a_chunked_body_with_extensions_and_trailers(over: Over) {
    let text = format!("{STREAM}2;a=b\r\n[1\r\n1\r\n]\r\n0\r\nx-trailer: y\r\n\r\n");
    assert_eq!(body(over, &text).unwrap(), "[1]");
}

fn a_body_of_known_length(over: Over) {
    assert_eq!(body(over, OK).unwrap(), "[]");
}

fn bodies_of_every_size_come_whole(over: Over) {
    for size in [0, 1, 2, 65_535, 65_536, 65_537, 1_000_000] {
        let body = "x".repeat(size);
        let first = if size == 0 { String::new() } else { chunk(&body) };
        for text in [response("200 OK", &body), format!("{STREAM}{first}0\r\n\r\n")] {
            let server = Server::responding(text);
            let client = connect(over, &server);
            for _ in 0..2 {
                assert!(client.get("/collect").unwrap().body() == body.as_bytes(), "{size}");
            }
            assert_eq!(server.connections(), 1, "{size}");
        }
    }
}

fn a_body_that_ends_with_the_connection(over: Over) {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"] {
        assert_eq!(body(over, &format!("{head}[1,2]")).unwrap(), "[1,2]");
    }
}

fn a_response_of_http_1_0(over: Over) {
    assert_eq!(body(over, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n[]").unwrap(), "[]");
    assert_eq!(body(over, "HTTP/1.0 200 OK\r\n\r\n[1]").unwrap(), "[1]");
}

fn a_body_may_end_with_its_connection_but_not_with_a_crash(over: Over) {
    // A reset throws away what was not read yet, so the client reads first.
    let (read, gate) = Act::gate();
    let text = Act::text("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[1]");
    let server = Server::start([vec![Act::Request, text, gate, Act::Reset]]);
    let client = connect(over, &server);
    let mut body = client.open(crate::call(&client, |_| {})).unwrap();
    assert_eq!(body.next().unwrap().unwrap(), "[1]");
    drop(read);
    assert_fault(&body.next().unwrap().unwrap_err(), Kind::Io, Delivery::MaybeSent);
    assert!(body.next().is_none(), "an error is the last item");
}

fn a_truncated_body_is_an_error(over: Over) {
    let error = body(over, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,").unwrap_err();
    assert_fault(&error, Kind::Io, Delivery::MaybeSent);
}

fn a_truncated_chunked_body_is_an_error(over: Over) {
    // Behind the last chunk only trailers are missing, which some take and some do not.
    for cut in ["", "5", "5\r\n[1,", "3\r\n[1]", "3\r\n[1]\r\n", "5\r\nhello\r\n"] {
        let error = body(over, &format!("{STREAM}{cut}")).unwrap_err();
        assert_eq!(error.delivery(), Delivery::MaybeSent, "{cut:?}");
        assert!(matches!(error.kind(), Kind::Io | Kind::Protocol), "{cut:?}: {error:?}");
        if cut.starts_with("5\r\n") {
            assert_eq!(error.kind(), Kind::Io, "{cut:?}");
        }
    }
}

fn what_is_not_http_is_an_error(over: Over) {
    for text in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "220 smtp.example.com ESMTP\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        let error = body(over, text).expect_err(text);
        assert_fault(&error, Kind::Protocol, Delivery::MaybeSent);
    }
}

fn a_body_over_the_limit_of_its_client_is_an_error(over: Over) {
    let five = || vec![Act::Request, Act::text(&response("200 OK", "12345")), Act::Closed];
    for (limit, fits) in [(5, true), (4, false)] {
        let server = Server::always(five);
        let builder = over.builder().endpoint(&server.endpoint()).max_body(limit);
        let client = builder.build().unwrap();
        let result = client.get("/collect");
        if fits {
            assert_eq!(result.unwrap().body(), "12345");
        } else {
            assert_eq!(failed(result).kind(), Kind::BodyTooLarge);
            // A connection with a body that is not read is of no use any longer.
            server.wait_until_closed(1);
        }
    }
}

fn an_early_response_to_a_big_post_is_read(over: Over) {
    // The body is larger than the sockets hold, so the response comes while it is being written.
    let large: String = (0..4_000_000_u32)
        .map(|i| char::from(b'!' + (i.wrapping_mul(2_654_435_761) >> 26) as u8))
        .filter(|c| *c != '"' && *c != '\\')
        .collect();
    let too_large = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = Server::start([vec![Act::RequestHead, Act::text(too_large), Act::Closed]]);
    let client = connect(over, &server);
    let response = client.post("/process/p", &json!({"query": large})).unwrap();
    assert_eq!(response.status(), 413);
}
