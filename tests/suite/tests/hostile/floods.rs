//! Servers that send without end and without a pause: every limit still ends what it is for.

use std::time::Duration;

use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind as Kind};
use stride_core::{Error, Response};
use stride_tests::wire::{Act, Server};
use stride_tests::{Over, suite};

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        interim_responses_end_at_the_limit_on_the_head,
        interim_responses_end_at_the_limit_on_the_call,
        tiny_chunks_end_at_the_limit_on_the_call,
        tiny_chunks_end_at_the_limit_on_the_body,
        a_body_of_any_length_ends_at_the_limit_on_the_body,
        events_do_not_keep_a_subscription_from_being_dropped,
    ]
}

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that is reached.
const SOON: Duration = Duration::from_millis(300);

/// A server that writes this, and then that for ever.
fn flood(head: &str, block: &str) -> Server {
    let (head, block) = (head.to_owned(), block.repeat((1 << 20) / block.len()));
    Server::start([vec![
        Act::Request,
        Act::text(&head),
        Act::Pour(block.into_bytes(), Duration::ZERO),
    ]])
}

fn send(
    over: Over,
    server: &Server,
    change: impl FnOnce(&mut Limits),
) -> Result<Response, TransportError> {
    let mut limits = Limits::for_request().with_total(MINUTE);
    change(&mut limits);
    let client = over.client(&server.endpoint());
    client.send(Call::new(client.api().get("/collect").unwrap(), limits))
}

fn ended(result: Result<Response, TransportError>) -> (Kind, Delivery) {
    let error = result.expect_err("it has no end");
    (error.kind(), error.delivery())
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn interim_responses_end_at_the_limit_on_the_head(over: Over) {
    let server = flood("", CONTINUE);
    let ended = ended(send(over, &server, |limits| limits.head = SOON));
    assert_eq!(ended, (Kind::HeadTimeout, Delivery::MaybeSent));
}

fn interim_responses_end_at_the_limit_on_the_call(over: Over) {
    let server = flood("", CONTINUE);
    let ended = ended(send(over, &server, |limits| limits.total = Some(SOON)));
    assert_eq!(ended, (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn tiny_chunks_end_at_the_limit_on_the_call(over: Over) {
    let server = flood(CHUNKED, "1\r\n \r\n");
    let ended = ended(send(over, &server, |limits| {
        limits.total = Some(SOON);
        limits.max_body = usize::MAX;
    }));
    assert_eq!(ended, (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn tiny_chunks_end_at_the_limit_on_the_body(over: Over) {
    let server = flood(CHUNKED, "1\r\n \r\n");
    let ended = ended(send(over, &server, |limits| limits.max_body = 10_000));
    assert_eq!(ended, (Kind::BodyTooLarge, Delivery::MaybeSent));
}

fn a_body_of_any_length_ends_at_the_limit_on_the_body(over: Over) {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n"]
    {
        let server = flood(head, " ");
        let ended = ended(send(over, &server, |limits| limits.max_body = 1_000_000));
        assert_eq!(ended, (Kind::BodyTooLarge, Delivery::MaybeSent));
    }
}

fn events_do_not_keep_a_subscription_from_being_dropped(over: Over) {
    let server = flood(CHUNKED, "7\r\n{\"a\":1}\r\n");
    let client = over.client(&server.endpoint());
    let events = client.subscribe("/collect/a", None, Reconnect::Never, MINUTE).unwrap();
    let is_value = |event: Result<_, Error>| matches!(event, Ok(SubscriptionEvent::Data(_)));
    assert_eq!(
        events.skip(1).take(1000).filter_map(|event| is_value(event).then_some(())).count(),
        1000
    );
    // The exchange ends when the client is gone.
    server.wait_until_played(1);
}
