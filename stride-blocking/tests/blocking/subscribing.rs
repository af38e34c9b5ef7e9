//! What a subscriber is told.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use stride_blocking::{
    DisconnectCause, Error, FrameError, Reconnect, RequestError, Stride, SubscribeBuilder,
    SubscriptionEvent, TransportErrorKind,
};

use crate::server::{STREAM, Server, answer, chunk, closed_port, in_time};

fn subscribe(server: &Server) -> SubscribeBuilder {
    Stride::builder("key").endpoint(&server.base()).build().unwrap().subscribe("/collect/a")
}

/// Sends this after the head of a stream, and then no more.
fn streaming(text: &'static str) -> Server {
    Server::start(move |_, mut peer| {
        peer.request();
        peer.send(STREAM);
        peer.send(chunk(text));
        peer.request();
    })
}

#[test]
fn the_request_carries_the_sample() {
    let (sent, requests) = channel();
    let sent = Mutex::new(sent);
    let server = Server::start(move |_, mut peer| {
        let request = peer.request().unwrap();
        sent.lock().unwrap().send(request.head).unwrap();
        peer.send(STREAM);
        peer.request();
    });
    subscribe(&server).sample(100).events::<Value>().unwrap();
    let head = requests.recv().unwrap();
    assert!(head.starts_with("GET /v1/collect/a/subscribe?sample=100 HTTP/1.1\r\n"), "{head}");
    assert!(
        !head.contains("content-length") && head.contains("accept-encoding: identity"),
        "{head}"
    );
    subscribe(&server).data::<Value>().unwrap();
    let head = requests.recv().unwrap();
    assert!(head.starts_with("GET /v1/collect/a/subscribe HTTP/1.1\r\n"), "{head}");
}

#[test]
fn what_cannot_be_asked_for_is_not() {
    let server = Server::answering(STREAM);
    let error = subscribe(&server).sample(0).events::<Value>().unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::Sample)), "{error:?}");
    let error = subscribe(&server).idle_timeout(Duration::ZERO).data::<Value>().unwrap_err();
    assert_eq!(error.to_string(), "idle_timeout is zero");
    let stride = Stride::builder("key").endpoint(&server.base()).build().unwrap();
    let error = stride.subscribe("/collect/a/subscribe").data::<Value>().unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::Path(_))), "{error:?}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_first_connection_that_fails_is_an_error() {
    let base = format!("http://{}/v1", closed_port());
    let stride = Stride::builder("key").endpoint(&base).build().unwrap();
    let error = stride.subscribe("/collect/a").events::<Value>().unwrap_err();
    assert!(matches!(error, Error::Transport(_)), "{error:?}");
    let server = Server::answering(answer("401 Unauthorized", r#"{"message": "no such key"}"#));
    let Err(Error::Status(error)) = subscribe(&server).data::<Value>() else {
        panic!("a 401 is an error")
    };
    assert_eq!(error.message().as_deref(), Some("no such key"));
}

#[test]
fn a_first_connection_that_fails_is_tried_again_when_asked() {
    let server = Server::answering(answer("503 Service Unavailable", ""));
    let mut events = subscribe(&server).reconnect(Reconnect::Always).events::<Value>().unwrap();
    for _ in 0..2 {
        let event = events.next().unwrap().unwrap();
        let SubscriptionEvent::Disconnected { cause: DisconnectCause::Status(status), .. } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(status, 503);
    }
}

#[test]
fn a_lost_connection_is_made_again_and_a_refusal_is_the_end() {
    in_time(|| {
        let server = Server::start(|number, mut peer| {
            peer.request();
            match number {
                0 | 1 => peer.send(STREAM),
                _ => peer.send(answer("401 Unauthorized", r#"{"message": "revoked"}"#)),
            }
            peer.close();
        });
        let mut events = subscribe(&server).events::<Value>().unwrap();
        let mut next = || events.next().unwrap().unwrap();
        assert!(matches!(next(), SubscriptionEvent::Connected { gap: None }));
        let SubscriptionEvent::Disconnected { delay, .. } = next() else { panic!("it closed") };
        let SubscriptionEvent::Connected { gap: Some(gap) } = next() else {
            panic!("it was there again")
        };
        assert!(gap >= delay);
        assert!(matches!(next(), SubscriptionEvent::Disconnected { .. }));
        let Some(Err(Error::Status(error))) = events.next() else { panic!("a 401 is the end") };
        assert_eq!(error.message().as_deref(), Some("revoked"));
        assert!(events.next().is_none() && events.next().is_none());
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn silence_is_a_lost_connection() {
    in_time(|| {
        let server = streaming("\r\n");
        let idle = Duration::from_millis(100);
        let mut events = subscribe(&server).idle_timeout(idle).events::<Value>().unwrap();
        assert!(matches!(events.next(), Some(Ok(SubscriptionEvent::Connected { .. }))));
        let event = events.next().unwrap().unwrap();
        let SubscriptionEvent::Disconnected { cause: DisconnectCause::Transport(error), .. } =
            event
        else {
            panic!("{event:?}")
        };
        assert_eq!(error.kind(), TransportErrorKind::IdleTimeout);
    });
}

#[test]
fn one_connection_is_all_when_that_is_wanted() {
    in_time(|| {
        let server = Server::answering(format!("{STREAM}0\r\n\r\n"));
        let mut events = subscribe(&server).reconnect(Reconnect::Never).events::<Value>().unwrap();
        assert!(matches!(events.next(), Some(Ok(SubscriptionEvent::Connected { .. }))));
        assert!(events.next().is_none());
        assert_eq!(server.connections(), 1);
    });
}

#[derive(Debug, PartialEq, Deserialize)]
struct Count {
    count: u64,
}

#[test]
fn values_come_as_they_arrive() {
    in_time(|| {
        let (got, gets) = channel();
        let gets = Mutex::new(gets);
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(STREAM);
            // The second has no line break after it, and is split.
            for text in [["{\"count\": 1}", "\r\n"], ["{\"cou", "nt\": 2}"]] {
                peer.send(chunk(text[0]));
                peer.send(chunk(text[1]));
                gets.lock().unwrap().recv().unwrap();
            }
            peer.request();
        });
        let mut data = subscribe(&server).data::<Count>().unwrap();
        for count in 1..=2 {
            assert_eq!(data.next().unwrap().unwrap(), Count { count });
            got.send(()).unwrap();
        }
    });
}

#[test]
fn the_values_alone_skip_and_count_what_is_none() {
    in_time(|| {
        let server = streaming("{\"count\": 1}\r\n{\"count\": oops}\r\n\r\n{\"count\": 2}\r\n");
        let mut data = subscribe(&server).data::<Value>().unwrap();
        assert_eq!(data.next().unwrap().unwrap(), json!({"count": 1}));
        assert_eq!(data.next().unwrap().unwrap(), json!({"count": 2}));
        assert_eq!(data.malformed(), 1);
    });
}

#[test]
fn among_all_events_what_is_no_value_is_an_item() {
    in_time(|| {
        let server = streaming("{\"count\": oops}\r\n{\"other\": 1}\r\n{\"count\": 2}\r\n");
        let mut events = subscribe(&server).events::<Count>().unwrap();
        let mut next = || events.next().unwrap().unwrap();
        assert!(matches!(next(), SubscriptionEvent::Connected { .. }));
        assert!(matches!(next(), SubscriptionEvent::Malformed(FrameError::NotJson { .. })));
        assert!(matches!(next(), SubscriptionEvent::Malformed(FrameError::Mismatch(_))));
        assert!(matches!(next(), SubscriptionEvent::Data(Count { count: 2 })));
    });
}

#[test]
fn among_the_values_one_of_another_type_is_the_end() {
    in_time(|| {
        let server = streaming("{\"count\": 1}\r\n{\"other\": 2}\r\n{\"count\": 3}\r\n");
        let mut data = subscribe(&server).data::<Count>().unwrap();
        assert_eq!(data.next().unwrap().unwrap(), Count { count: 1 });
        let error = data.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{error:?}");
        assert!(data.next().is_none() && data.next().is_none());
    });
}
