//! Subscriptions over real sockets, and over the mock where only their driver matters.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_core::Stream;
use serde_json::{Value, json};
use stride_async::{
    Data, DisconnectCause, Error, Events, Reconnect, RequestError, Stride, SubscriptionEvent,
    TransportErrorKind,
};
use stride_core::mock::{Fault, Mock, Reply};

use crate::server::{Peer, Server};
use crate::{client, transport_error, watchdog};

fn with_mock(mock: &Mock) -> Stride {
    Stride::builder("secret_key").transport(mock.transport()).build().unwrap()
}

#[test]
fn streams_can_be_sent_and_moved() {
    fn sent<T: Send + Unpin + Stream>() {}
    // A value that is neither pinned nor shared.
    struct Inner(std::marker::PhantomPinned);
    impl<'de> serde::Deserialize<'de> for Inner {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self(std::marker::PhantomPinned))
        }
    }
    sent::<Events<Inner>>();
    sent::<Data<Inner>>();
    fn is_send<T: Send>(_: &T) {}
    let stride = client("http://127.0.0.1:9/v1");
    is_send(&stride.subscribe("/collect/a").events::<Value>());
    is_send(&stride.post("/collect/a", &json!({})));
}

#[tokio::test]
async fn the_request() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        let head = peer.request().0;
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.expect_close();
        head
    });
    let stride = client(&server.base());
    let subscribe = || stride.subscribe("/collect/a");
    let error = subscribe().sample(0).events::<Value>().await.unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::Sample)), "{error:?}");
    let error = subscribe().idle_timeout(Duration::ZERO).events::<Value>().await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert!(stride.subscribe("/analyze/a").data::<Value>().await.is_err());

    let mut events = subscribe().sample(100).events::<Value>().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, SubscriptionEvent::Connected { gap: None }), "{first:?}");
    drop(events);
    let head = server.join();
    assert!(head.starts_with("get /v1/collect/a/subscribe?sample=100 http/1.1\r\n"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn dropping_a_subscription_that_waits_closes_it() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.expect_close();
    });
    let stride = client(&server.base());
    let mut data = stride.subscribe("/collect/a").data::<Value>().await.unwrap();
    // It waits, and is dropped while it does.
    let waited = tokio::time::timeout(Duration::from_millis(20), data.next()).await;
    assert!(waited.is_err());
    drop(data);
    // The runtime need not run for it.
    server.join();
}

#[tokio::test]
async fn dropping_a_subscription_that_connects_closes_it() {
    let _watchdog = watchdog();
    let (arrived, has_arrived) = tokio::sync::oneshot::channel();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        arrived.send(()).unwrap();
        peer.expect_close();
    });
    let stride = client(&server.base());
    tokio::select! {
        events = stride.subscribe("/collect/a").events::<Value>() => panic!("{events:?}"),
        arrived = has_arrived => arrived.unwrap(),
    }
    server.join();
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_body() {
    let _watchdog = watchdog();
    for status in ["403 Forbidden", "429 Too Many Requests", "503 Oh"] {
        let server = Server::run(move |listener| {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.answer(status, r#"{"message": "go away"}"#);
            peer.expect_close();
        });
        let stride = client(&server.base());
        match stride.subscribe("/collect/a").data::<Value>().await {
            Err(Error::Status(error)) => {
                assert!(status.starts_with(error.status().as_str()), "{error}");
                assert_eq!(error.message().as_deref(), Some("go away"));
            }
            other => panic!("{other:?}"),
        }
        server.join();
    }
}

#[tokio::test]
async fn a_silent_connection_is_made_again() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.expect_close();
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.expect_close();
    });
    let stride = client(&server.base());
    let idle = Duration::from_millis(100);
    let subscribe = stride.subscribe("/collect/a").idle_timeout(idle);
    let mut events = subscribe.events::<Value>().await.unwrap();
    let connected = events.next().await.unwrap().unwrap();
    assert!(matches!(connected, SubscriptionEvent::Connected { gap: None }));
    match events.next().await.unwrap().unwrap() {
        SubscriptionEvent::Disconnected { cause: DisconnectCause::Transport(error), delay } => {
            assert_eq!(error.kind(), TransportErrorKind::IdleTimeout);
            assert!(delay <= Duration::from_millis(500), "{delay:?}");
        }
        other => panic!("{other:?}"),
    }
    match events.next().await.unwrap().unwrap() {
        SubscriptionEvent::Connected { gap: Some(_) } => {}
        other => panic!("{other:?}"),
    }
    drop(events);
    server.join();
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_last_item() {
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(200);
    mock.subscribe("/collect/a").reply(503);
    mock.subscribe("/collect/a").reply(Fault::Refused);
    mock.subscribe("/collect/a").reply(Reply::status(403).body(r#"{"message": "revoked"}"#));
    let mut data = with_mock(&mock).subscribe("/collect/a").data::<Value>().await.unwrap();
    match data.next().await {
        Some(Err(Error::Status(error))) => assert_eq!(error.message().as_deref(), Some("revoked")),
        other => panic!("{other:?}"),
    }
    for _ in 0..3 {
        assert!(data.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_from_the_start_are_told() {
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(Fault::Refused);
    mock.subscribe("/collect/a").reply(200);
    let subscribe = with_mock(&mock).subscribe("/collect/a").reconnect(Reconnect::Always);
    let mut events = subscribe.events::<Value>().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, SubscriptionEvent::Disconnected { .. }), "{first:?}");
    let second = events.next().await.unwrap().unwrap();
    assert!(matches!(second, SubscriptionEvent::Connected { .. }), "{second:?}");
}

#[tokio::test]
async fn one_connection_is_all_that_never_allows() {
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(Reply::status(200).body("\r\n").cut_at(1));
    mock.subscribe("/collect/b").reply(Fault::Refused);
    let stride = with_mock(&mock);
    let subscribe = |path| stride.subscribe(path).reconnect(Reconnect::Never).data::<Value>();
    let mut data = subscribe("/collect/a").await.unwrap();
    let error = transport_error(data.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Io);
    assert!(data.next().await.is_none());
    let error = transport_error(subscribe("/collect/b").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Connect);
}

/// Nothing is done while nothing happens: no timer ticks.
#[tokio::test]
async fn an_idle_subscription_is_not_polled() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.expect_close();
    });
    let stride = client(&server.base());
    let mut events = stride.subscribe("/collect/a").events::<Value>().await.unwrap();
    assert!(events.next().await.is_some());
    let polls = AtomicUsize::new(0);
    let counted = poll_fn(|context| {
        polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut events).poll_next(context)
    });
    let mut counted = pin!(counted);
    // The first polls: hyper wakes who polls it once more.
    assert!(tokio::time::timeout(Duration::from_millis(20), counted.as_mut()).await.is_err());
    tokio::time::pause();
    let before = polls.load(Ordering::Relaxed);
    assert!(before <= 3, "{before}");
    assert!(tokio::time::timeout(Duration::from_secs(80), counted.as_mut()).await.is_err());
    // One by `timeout` itself, when it starts and when it ends.
    assert!(polls.load(Ordering::Relaxed) <= before + 2);
    drop(events);
    server.join();
}

#[tokio::test]
async fn values_over_the_wire() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.write("{\"x\": 1}\r\n\r\n{\"x\"");
        peer.write(": 2}\r\nno json\r\n{\"x\": 3}\r\n{\"x\": \"four\"}\r\n");
        peer.expect_close();
    });
    #[derive(Debug, serde::Deserialize)]
    struct AppEvent {
        x: u32,
    }
    let stride = client(&server.base());
    let mut data = stride.subscribe("/collect/a").data::<AppEvent>().await.unwrap();
    for x in 1..=3 {
        assert_eq!(data.next().await.unwrap().unwrap().x, x);
    }
    assert_eq!(data.malformed(), 1);
    assert!(matches!(data.next().await, Some(Err(Error::Data(_)))));
    // The connection is closed, though the stream is still there.
    server.join();
    assert!(data.next().await.is_none());
}

#[tokio::test]
async fn a_busy_stream_lets_other_tasks_run() {
    let body = "{\"x\": 1}\r\n".repeat(100_000);
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(Reply::status(200).body(body));
    let mut data = with_mock(&mock).subscribe("/collect/a").data::<Value>().await.unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&ran);
    tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
    let mut taken = 0;
    while !ran.load(Ordering::Relaxed) {
        data.next().await.unwrap().unwrap();
        taken += 1;
        assert!(taken <= 1000, "the other task has not run");
    }
}

#[tokio::test]
async fn waiting_for_an_event_is_cancel_safe() {
    let _watchdog = watchdog();
    let (go_on, goes_on) = mpsc::channel();
    let server = Server::run(move |listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        for x in 0..200 {
            // In two pieces, so that the wait is given up within a value, too.
            for piece in [format!("{{\"x\": {x}"), "}\r\n".to_owned()] {
                goes_on.recv().unwrap();
                peer.write(&piece);
            }
        }
        peer.expect_close();
    });
    let stride = client(&server.base());
    let mut data = stride.subscribe("/collect/a").data::<Value>().await.unwrap();
    for x in 0..200 {
        let value = loop {
            tokio::select! {
                biased;
                value = data.next() => break value,
                () = tokio::task::yield_now() => go_on.send(()).unwrap(),
            }
        };
        assert_eq!(value.unwrap().unwrap(), json!({"x": x}));
    }
    drop(data);
    server.join();
}
