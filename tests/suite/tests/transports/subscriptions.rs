//! When a subscription's bytes arrive, and when its connection is closed. All else about subscriptions
//! is in the suite that has the mock, too.

use serde_json::{Value, json};
use stride_core::Error;
use stride_core::subscribe::{DisconnectCause, Reconnect, SubscriptionEvent};
use stride_core::transport::TransportErrorKind as Kind;
use stride_tests::wire::{Act, RefusingPort, STREAM, Server, chunk};
use stride_tests::{Events, Over, suite};

use crate::{MINUTE, SOON, connect};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_first_connection_that_is_refused_is_an_error,
        a_value_is_delivered_at_its_last_byte,
        a_value_of_another_type_closes_the_connection,
        dropping_a_subscription_closes_its_connection,
        a_silent_connection_is_closed_and_made_again,
    ]
}

/// The head of a stream with this in it, and then nothing until the client is gone.
fn streaming(text: &str) -> Vec<Act> {
    vec![Act::Request, Act::text(&format!("{STREAM}{}", chunk(text))), Act::Closed]
}

fn a_first_connection_that_is_refused_is_an_error(over: Over) {
    let port = RefusingPort::new();
    let client = over.client(&port.endpoint());
    for reconnect in [Reconnect::AfterFirstConnect, Reconnect::Never] {
        let Err(Error::Transport(error)) = client.subscribe("/collect/a", None, reconnect, MINUTE)
        else {
            panic!("nobody listens")
        };
        assert_eq!(error.kind(), Kind::Connect);
    }
}

fn a_value_is_delivered_at_its_last_byte(over: Over) {
    let mut acts = vec![Act::Request, Act::text(STREAM)];
    let mut gates = Vec::new();
    // Nothing follows a closing brace before the value was seen. The second is split.
    for pieces in [&["{\"x\": 1}"][..], &["\r\n{\"", "x\": 2}"], &["{\"x\": 3}"]] {
        let (open, gate) = Act::gate();
        gates.push(open);
        acts.extend(pieces.iter().map(|piece| Act::text(&chunk(piece))));
        acts.push(gate);
    }
    acts.push(Act::Closed);
    let server = Server::start([acts]);
    let client = connect(over, &server);
    let mut data = client.data::<Value>("/collect/a", Reconnect::AfterFirstConnect).unwrap();
    for (x, open) in (1..).zip(gates) {
        assert_eq!(data.next().unwrap().unwrap(), json!({"x": x}));
        drop(open);
    }
}

fn a_value_of_another_type_closes_the_connection(over: Over) {
    let server = Server::start([streaming("1\r\n{}\r\n3\r\n")]);
    let client = connect(over, &server);
    let mut data = client.data::<u64>("/collect/a", Reconnect::AfterFirstConnect).unwrap();
    assert_eq!(data.next().unwrap().unwrap(), 1);
    assert!(matches!(data.next(), Some(Err(Error::Data(_)))));
    // Although the iterator is still there.
    server.wait_until_closed(1);
    assert!(data.next().is_none());
}

fn dropping_a_subscription_closes_its_connection(over: Over) {
    let server = Server::start([streaming("\r\n"), streaming("{}\r\n")]);
    let client = connect(over, &server);
    let subscribe = || client.data::<Value>("/collect/a", Reconnect::AfterFirstConnect).unwrap();
    drop(subscribe());
    server.wait_until_closed(1);
    let mut data = subscribe();
    assert_eq!(data.next().unwrap().unwrap(), json!({}));
    drop(data);
    server.wait_until_closed(2);
}

fn a_silent_connection_is_closed_and_made_again(over: Over) {
    let server = Server::start([streaming("\r\n"), streaming("\r\n")]);
    let client = connect(over, &server);
    let reconnect = Reconnect::AfterFirstConnect;
    let mut events: Events<'_> = client.subscribe("/collect/a", None, reconnect, SOON).unwrap();
    let mut next = || events.next().unwrap().unwrap();
    assert!(matches!(next(), SubscriptionEvent::Connected { gap: None, .. }));
    let SubscriptionEvent::Disconnected { cause: DisconnectCause::Transport(error), .. } = next()
    else {
        panic!("silence is a loss")
    };
    assert_eq!(error.kind(), Kind::IdleTimeout);
    server.wait_until_closed(1);
    assert!(matches!(next(), SubscriptionEvent::Connected { gap: Some(_), .. }));
    drop(events);
    server.wait_until_closed(2);
}
