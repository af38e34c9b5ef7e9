//! One client in more than one runtime, and in none.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use stride_async::{
    Delivery, DisconnectCause, Error, Stride, SubscriptionEvent, TransportErrorKind,
};
use stride_core::mock::{Fault, Mock};
use tokio::runtime::{Builder, Runtime};

use crate::server::{Peer, Server};
use crate::{chain, client, transport_error, watchdog};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

async fn post(stride: Stride) -> Result<u16, Error> {
    Ok(stride.post("/collect/a", &json!({})).await?.status().as_u16())
}

/// Answers every request with 200: `connections` of them, each with this many requests.
fn server(connections: usize, requests: usize) -> Server {
    Server::run(move |listener| {
        for _ in 0..connections {
            let mut peer = Peer::accept(&listener);
            for _ in 0..requests {
                peer.request();
                peer.answer("200 OK", "[]");
            }
            peer.expect_close();
        }
    })
}

#[test]
fn every_kind_of_runtime_will_do() {
    let _watchdog = watchdog();
    for runtime in [current_thread(), multi_thread(1), multi_thread(4)] {
        let server = server(1, 5);
        let stride = client(&server.base());
        for _ in 0..3 {
            assert_eq!(runtime.block_on(post(stride.clone())).unwrap(), 200);
        }
        // In tasks, whose thread may be another.
        for _ in 0..2 {
            let task = runtime.spawn(post(stride.clone()));
            assert_eq!(runtime.block_on(task).unwrap().unwrap(), 200);
        }
        drop(stride);
        server.join();
    }
}

#[test]
fn a_runtime_closes_its_connections_and_the_next_one_opens_new_ones() {
    let _watchdog = watchdog();
    let kinds: [fn() -> Runtime; 3] = [current_thread, || multi_thread(1), || multi_thread(4)];
    for first in kinds {
        for second in kinds {
            let server = server(2, 2);
            let stride = client(&server.base());
            for kind in [first, second] {
                let runtime = kind();
                for _ in 0..2 {
                    assert_eq!(runtime.block_on(post(stride.clone())).unwrap(), 200);
                }
                // The server waits for the first connection's end before it accepts another.
                drop(runtime);
            }
            server.join();
            drop(stride);
        }
    }
}

/// A connection of a runtime that nobody drives would hang.
#[test]
fn runtimes_do_not_share_connections() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peers = [(); 2].map(|()| {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.answer("200 OK", "");
            peer
        });
        for peer in &mut peers {
            peer.request();
            peer.answer("200 OK", "");
        }
    });
    let stride = client(&server.base());
    let (first, second) = (current_thread(), current_thread());
    for _ in 0..2 {
        assert_eq!(first.block_on(post(stride.clone())).unwrap(), 200);
        assert_eq!(second.block_on(post(stride.clone())).unwrap(), 200);
    }
    server.join();
}

/// The end of the runtime while a request is under way: an error, or no more polls, but no hang.
#[test]
fn a_runtime_that_ends_takes_its_requests_with_it() {
    let _watchdog = watchdog();
    let (arrived, has_arrived) = std::sync::mpsc::channel();
    let server = Server::run(move |listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        arrived.send(()).unwrap();
        peer.expect_close();
        let mut peer = Peer::accept(&listener);
        peer.request();
        peer.answer("200 OK", "");
    });
    let stride = client(&server.base());
    let first = multi_thread(2);
    let task = first.spawn(post(stride.clone()));
    has_arrived.recv().unwrap();
    first.shutdown_background();
    let second = current_thread();
    assert!(second.block_on(task).unwrap_err().is_cancelled());
    assert_eq!(second.block_on(post(stride)).unwrap(), 200);
    server.join();
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn no_runtime_is_an_error_that_says_so() {
    let _watchdog = watchdog();
    let stride = client("http://127.0.0.1:9/v1");
    let Poll::Ready(Err(error)) = poll_once(post(stride.clone())) else { panic!("it waits") };
    let error = transport_error(error);
    assert_eq!(error.kind(), TransportErrorKind::Unsupported);
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(chain(&error).contains("tokio runtime"), "{}", chain(&error));

    let subscribe = stride.subscribe("/collect/a").data::<Value>();
    let Poll::Ready(Err(error)) = poll_once(subscribe) else { panic!("it waits") };
    assert_eq!(transport_error(error).kind(), TransportErrorKind::Unsupported);
}

/// A transport of one's own may need no runtime, but waiting between two connections does.
#[test]
fn waiting_without_a_runtime_is_an_error_that_says_so() {
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(200);
    mock.get("/collect").reply(Fault::Refused);
    let stride = Stride::builder("key").transport(mock.transport()).build().unwrap();
    let Poll::Ready(Err(error)) = poll_once(stride.get("/collect")) else { panic!("it waits") };
    assert_eq!(transport_error(error).kind(), TransportErrorKind::Connect);

    let subscribe = stride.subscribe("/collect/a").events::<Value>();
    let Poll::Ready(Ok(mut events)) = poll_once(subscribe) else { panic!("it waits") };
    let mut next = || match poll_once(events.next()) {
        Poll::Ready(next) => next,
        Poll::Pending => panic!("it waits"),
    };
    assert!(matches!(next(), Some(Ok(SubscriptionEvent::Connected { gap: None }))));
    assert!(matches!(next(), Some(Ok(SubscriptionEvent::Disconnected { .. }))));
    let Some(Err(error)) = next() else { panic!("it goes on") };
    assert_eq!(transport_error(error).kind(), TransportErrorKind::Unsupported);
    assert!(next().is_none());
}

/// The kind of failure with which a subscription leaves a runtime it was taken out of.
fn moved(drop_the_first: bool) -> TransportErrorKind {
    let _watchdog = watchdog();
    let (moved, has_moved) = std::sync::mpsc::channel();
    let server = Server::run(move |listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        let mut again = Peer::accept(&listener);
        again.open_stream();
        has_moved.recv().unwrap();
    });
    let (first, second) = (current_thread(), current_thread());
    let stride = client(&server.base());
    let subscribe = stride.subscribe("/collect/a").idle_timeout(Duration::from_millis(200));
    let mut events = first.block_on(subscribe.events::<Value>()).unwrap();
    let mut first = Some(first);
    if drop_the_first {
        first = None;
    }
    let kind = second.block_on(async {
        let Some(Ok(SubscriptionEvent::Connected { gap: None })) = events.next().await else {
            panic!("not connected")
        };
        let Some(Ok(SubscriptionEvent::Disconnected { cause, .. })) = events.next().await else {
            panic!("not disconnected")
        };
        let Some(Ok(SubscriptionEvent::Connected { gap: Some(_) })) = events.next().await else {
            panic!("not connected again")
        };
        match cause {
            DisconnectCause::Transport(error) => error.kind(),
            other => panic!("{other:?}"),
        }
    });
    drop(first);
    moved.send(()).unwrap();
    server.join();
    kind
}

#[test]
fn a_subscription_survives_its_runtime() {
    assert_eq!(moved(true), TransportErrorKind::Io);
}

#[test]
fn a_subscription_does_not_hang_when_its_runtime_stands_still() {
    assert_eq!(moved(false), TransportErrorKind::IdleTimeout);
}
