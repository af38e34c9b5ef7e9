//! Responses that come early (N5), and bodies whose chunks break (N11).

use std::time::Duration;

use serde_json::json;
use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind as Kind};
use stride_core::{Error, Response};
use stride_tests::wire::tls::Authority;
use stride_tests::wire::{Act, STREAM, Server, chunk, response};
use stride_tests::{Client, Over, suite};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        n5_a_response_to_the_head_is_returned_when_the_server_closes,
        n5_a_response_to_the_head_is_returned_when_the_server_reads_no_more,
        n5_a_response_to_the_head_is_returned_over_tls,
        n5_a_server_that_breaks_off_without_a_response_is_an_error,
        n5_a_connection_with_a_request_cut_off_is_not_used_again,
        n11_events_before_a_broken_chunk_are_delivered,
        n11_a_body_before_a_broken_chunk_is_an_error,
        n11_a_body_without_its_last_line_is_not_whole,
        n11_extensions_and_trailers_of_any_length_are_passed_over,
        n11_an_old_response_in_chunks_is_not_http,
    ]
}

/// A request that is larger than what the sockets hold: it is not sent before the response comes.
fn put_large(client: &Client) -> Result<Response, TransportError> {
    let mut request = client.api().put("/process/p", &json!({})).unwrap();
    *request.body_mut() = vec![b' '; 20_000_000].into();
    client.send(Call::new(request, Limits::for_request().with_total(MINUTE)))
}

const TOO_LARGE: &str = r#"{"message":"too large"}"#;

fn too_large() -> Act {
    Act::text(&response("413 Payload Too Large", TOO_LARGE))
}

fn assert_too_large(client: &Client) {
    let response = put_large(client).unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.body(), TOO_LARGE);
}

fn n5_a_response_to_the_head_is_returned_when_the_server_closes(over: Over) {
    // What comes of it is a race between the response, the close and what is being sent.
    for _ in 0..10 {
        // Data that was not read makes a reset of a close, on most systems.
        let server = Server::start([vec![Act::RequestHead, too_large(), Act::Close]]);
        assert_too_large(&over.client(&server.endpoint()));
    }
}

fn n5_a_response_to_the_head_is_returned_when_the_server_reads_no_more(over: Over) {
    let (_stays, gate) = Act::gate();
    let server = Server::start([vec![Act::RequestHead, too_large(), gate]]);
    assert_too_large(&over.client(&server.endpoint()));
}

fn n5_a_response_to_the_head_is_returned_over_tls(over: Over) {
    let authority = Authority::new();
    let identity = authority.identity("localhost");
    let (_stays, gate) = Act::gate();
    for end in [gate, Act::Closed] {
        let server = Server::start_tls(&identity, [vec![Act::RequestHead, too_large(), end]]);
        let builder = over.builder().endpoint(&server.https_endpoint("localhost"));
        let client = builder.root_certificate(authority.pem()).build().unwrap();
        assert_too_large(&client);
    }
}

fn n5_a_server_that_breaks_off_without_a_response_is_an_error(over: Over) {
    for end in [Act::Close, Act::Reset] {
        let server = Server::start([vec![Act::RequestHead, end]]);
        let error = put_large(&over.client(&server.endpoint())).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
    }
}

fn n5_a_connection_with_a_request_cut_off_is_not_used_again(over: Over) {
    let (_stays, gate) = Act::gate();
    let server = Server::start([
        vec![Act::RequestHead, too_large(), gate],
        vec![Act::Request, Act::text(&response("200 OK", "[]"))],
    ]);
    let client = over.client(&server.endpoint());
    assert_too_large(&client);
    assert_eq!(client.get("/collect").unwrap().body(), "[]");
    assert_eq!(server.connections(), 2);
}

fn n11_events_before_a_broken_chunk_are_delivered(over: Over) {
    let events: String = (0..50).map(|i| chunk(&format!("{{\"i\":{i}}}\r\n"))).collect();
    // Along with the head, and after it.
    for pieces in [vec![format!("{STREAM}{events}zz\r\n")], vec![STREAM.into(), events + "zz\r\n"]]
    {
        let acts = [Act::Request].into_iter().chain(pieces.iter().map(|piece| Act::text(piece)));
        let server = Server::start([acts.chain([Act::Closed]).collect()]);
        let client = over.client(&server.endpoint());
        let events = client.subscribe("/collect/a", None, Reconnect::Never, MINUTE).unwrap();
        let mut numbers = Vec::new();
        let mut last = None;
        for event in events {
            match event {
                Ok(SubscriptionEvent::Data(event)) => numbers.push(event["i"].as_u64().unwrap()),
                Ok(_) => {}
                Err(error) => last = Some(error),
            }
        }
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        let Some(Error::Transport(error)) = last else { panic!("{last:?}") };
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::MaybeSent));
    }
}

/// What comes of this text as a response, after which the server closes.
fn body(over: Over, text: &str) -> Result<String, TransportError> {
    let server = Server::start([vec![Act::Request, Act::text(text), Act::Close]]);
    let client = over.client(&server.endpoint());
    let limits = Limits::for_request().with_total(MINUTE);
    let response = client.send(Call::new(client.api().get("/collect").unwrap(), limits))?;
    Ok(String::from_utf8(response.body().to_vec()).unwrap())
}

fn n11_a_body_before_a_broken_chunk_is_an_error(over: Over) {
    for broken in ["zz\r\n", "3\r\n[1]\r\n-1\r\n", "3\r\n[1]0\r\n\r\n", "3\n[1]", "\r\n\r\n"] {
        let error = body(over, &format!("{STREAM}{broken}")).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::MaybeSent));
    }
}

fn n11_a_body_without_its_last_line_is_not_whole(over: Over) {
    for cut in ["", "3", "3\r\n[1]", "3\r\n[1]\r\n", "3\r\n[1]\r\n0", "3\r\n[1]\r\n0\r\n"] {
        for more in ["", "x: y\r\n", "\r"] {
            if more.is_empty() || cut.ends_with("0\r\n") {
                let error = body(over, &format!("{STREAM}{cut}{more}")).unwrap_err();
                let ended = (error.kind(), error.delivery());
                assert_eq!(ended, (Kind::Io, Delivery::MaybeSent), "{cut:?} {more:?}");
            }
        }
    }
}

fn n11_extensions_and_trailers_of_any_length_are_passed_over(over: Over) {
    let long = "b".repeat(2000);
    for text in [
        format!("3;a={long};c=\"d\"\r\n[1]\r\n0;e\r\n\r\n"),
        format!("3 ;a\r\n[1]\r\n0\r\nx: {long}\r\ny: z\r\n\r\n"),
        "0000003\r\n[1]\r\n000\r\n\r\n".to_owned(),
    ] {
        assert_eq!(body(over, &format!("{STREAM}{text}")).unwrap(), "[1]");
    }
}

fn n11_an_old_response_in_chunks_is_not_http(over: Over) {
    let text = format!("{}3\r\n[1]\r\n0\r\n\r\n", STREAM.replace("1.1", "1.0"));
    let error = body(over, &text).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::MaybeSent));
}
