//! One client in more than one runtime, and in none.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use stride_async::{
    Delivery, DisconnectCause, Error, Stride, SubscriptionEvent, TransportErrorKind,
};
use stride_core::mock::{Fault, Mock};
use stride_tests::wire::{Act, STREAM, Server, response};
use stride_tests::{chain, failed, watchdog};
use tokio::runtime::{Builder, Runtime};

use crate::{client, current_thread, with_mock};

fn multi_thread(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

const KINDS: [fn() -> Runtime; 3] = [current_thread, || multi_thread(1), || multi_thread(4)];

async fn post(stride: Stride) -> Result<u16, Error> {
    Ok(stride.post("/collect/a", &json!({})).await?.status().as_u16())
}

fn exchange() -> Vec<Act> {
    vec![Act::Request, Act::text(&response("200 OK", "[]"))]
}

#[test]
fn every_kind_of_runtime_will_do() {
    watchdog(|| {
        for kind in KINDS {
            let runtime = kind();
            let server = Server::always(exchange);
            let stride = client(&server);
            for _ in 0..3 {
                assert_eq!(runtime.block_on(post(stride.clone())).unwrap(), 200);
            }
            // In tasks, whose thread may be another.
            for _ in 0..2 {
                let task = runtime.spawn(post(stride.clone()));
                assert_eq!(runtime.block_on(task).unwrap().unwrap(), 200);
            }
            assert_eq!(server.connections(), 1);
        }
    });
}

#[test]
fn a_runtime_closes_its_connections_and_the_next_one_opens_new_ones() {
    watchdog(|| {
        for first in KINDS {
            for second in KINDS {
                let last = || [exchange(), vec![Act::Closed]].into_iter().flatten().collect();
                let server = Server::start([exchange(), last(), exchange(), last()]);
                let stride = client(&server);
                for (count, kind) in [(1, first), (2, second)] {
                    let runtime = kind();
                    for _ in 0..2 {
                        assert_eq!(runtime.block_on(post(stride.clone())).unwrap(), 200);
                    }
                    drop(runtime);
                    server.wait_until_closed(count);
                    assert_eq!(server.connections(), count);
                }
            }
        }
    });
}

/// A connection of a runtime that nobody drives would hang.
#[test]
fn runtimes_do_not_share_connections() {
    watchdog(|| {
        let server = Server::always(exchange);
        let stride = client(&server);
        let (first, second) = (current_thread(), current_thread());
        for _ in 0..2 {
            assert_eq!(first.block_on(post(stride.clone())).unwrap(), 200);
            assert_eq!(second.block_on(post(stride.clone())).unwrap(), 200);
        }
        assert_eq!(server.connections(), 2);
    });
}

/// The end of the runtime while a request is under way: an error, or no more polls, but no hang.
#[test]
fn a_runtime_that_ends_takes_its_requests_with_it() {
    watchdog(|| {
        let server = Server::start([vec![Act::Request, Act::Closed], exchange()]);
        let stride = client(&server);
        let first = multi_thread(2);
        let task = first.spawn(post(stride.clone()));
        server.wait_for_requests(1);
        first.shutdown_background();
        server.wait_until_closed(1);
        let second = current_thread();
        assert!(second.block_on(task).unwrap_err().is_cancelled());
        assert_eq!(second.block_on(post(stride)).unwrap(), 200);
    });
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn without_a_runtime_is_an_error_that_says_so() {
    let stride = Stride::builder("key").endpoint("http://127.0.0.1:9/v1").build().unwrap();
    let Poll::Ready(result) = poll_once(post(stride.clone())) else { panic!("it waits") };
    let error = failed(result);
    assert_eq!(error.kind(), TransportErrorKind::Unsupported);
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(chain(&error).contains("tokio runtime"), "{}", chain(&error));

    let subscribe = stride.subscribe("/collect/a").data::<Value>();
    let Poll::Ready(result) = poll_once(subscribe) else { panic!("it waits") };
    assert_eq!(failed(result).kind(), TransportErrorKind::Unsupported);
}

/// Another transport may need no runtime, but waiting between two connections does.
#[test]
fn waiting_without_a_runtime_is_an_error_that_says_so() {
    let mock = Mock::new();
    mock.subscribe("/collect/a").reply(200);
    mock.get("/collect").reply(Fault::Refused);
    let stride = with_mock(&mock);
    let Poll::Ready(result) = poll_once(stride.get("/collect")) else { panic!("it waits") };
    assert_eq!(failed(result).kind(), TransportErrorKind::Connect);

    let subscribe = stride.subscribe("/collect/a").events::<Value>();
    let Poll::Ready(Ok(mut events)) = poll_once(subscribe) else { panic!("it waits") };
    let mut next = || match poll_once(events.next()) {
        Poll::Ready(next) => next,
        Poll::Pending => panic!("it waits"),
    };
    assert!(matches!(next(), Some(Ok(SubscriptionEvent::Connected { gap: None, .. }))));
    assert!(matches!(next(), Some(Ok(SubscriptionEvent::Disconnected { .. }))));
    let error = failed(next().expect("it does not end before its error"));
    assert_eq!(error.kind(), TransportErrorKind::Unsupported);
    assert!(next().is_none());
}

/// The kind of failure with which a subscription leaves a runtime it was taken out of.
fn moved(drop_the_first: bool) -> TransportErrorKind {
    watchdog(move || {
        let stream = || vec![Act::Request, Act::text(STREAM), Act::Closed];
        let server = Server::start([stream(), stream()]);
        let (first, second) = (current_thread(), current_thread());
        let stride = client(&server);
        let subscribe = stride.subscribe("/collect/a").idle_timeout(Duration::from_millis(200));
        let mut events = first.block_on(subscribe.events::<Value>()).unwrap();
        let first = (!drop_the_first).then_some(first);
        let kind = second.block_on(async {
            let Some(Ok(SubscriptionEvent::Connected { gap: None, .. })) = events.next().await
            else {
                panic!("not connected")
            };
            let cause = match events.next().await {
                Some(Ok(SubscriptionEvent::Disconnected { cause, .. })) => cause,
                other => panic!("{other:?}"),
            };
            let Some(Ok(SubscriptionEvent::Connected { gap: Some(_), .. })) = events.next().await
            else {
                panic!("not connected again")
            };
            match cause {
                DisconnectCause::Transport(error) => error.kind(),
                other => panic!("{other:?}"),
            }
        });
        drop(first);
        kind
    })
}

#[test]
fn a_subscription_survives_its_runtime() {
    assert_eq!(moved(true), TransportErrorKind::Io);
}

#[test]
fn a_subscription_does_not_hang_when_its_runtime_stands_still() {
    assert_eq!(moved(false), TransportErrorKind::IdleTimeout);
}
