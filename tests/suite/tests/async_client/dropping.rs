//! A future or a stream that is dropped closes its connection, though the runtime does not run
//! meanwhile: these tests block its only thread.

use std::pin::pin;
use std::task::{Context, Waker};

use serde_json::{Value, json};
use stride_tests::wire::{Act, STREAM, Server};

use crate::{client, run};

/// Polls a future until the server has read its request.
async fn until_it_is_read(server: &Server, future: impl Future) {
    let mut future = pin!(future);
    while server.requests().is_empty() {
        let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending(), "there is no response");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_request() {
    run(async || {
        let server = Server::start([vec![Act::Request, Act::Closed]]);
        let stride = client(&server);
        until_it_is_read(&server, stride.get("/collect")).await;
        server.wait_until_closed(1);
    });
}

#[test]
fn a_subscription_that_connects() {
    run(async || {
        let server = Server::start([vec![Act::Request, Act::Closed]]);
        let subscribe = client(&server).subscribe("/collect/a");
        until_it_is_read(&server, subscribe.events::<Value>()).await;
        server.wait_until_closed(1);
    });
}

#[test]
fn a_subscription_that_waits() {
    run(async || {
        let server = Server::start([vec![Act::Request, Act::text(STREAM), Act::Closed]]);
        let mut data = client(&server).subscribe("/collect/a").data::<Value>().await.unwrap();
        {
            let mut next = pin!(data.next());
            for _ in 0..3 {
                let poll = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(poll.is_pending(), "nothing comes");
                tokio::task::yield_now().await;
            }
        }
        drop(data);
        server.wait_until_closed(1);
    });
}

/// Giving up a wait for an event loses nothing.
#[test]
fn waiting_for_an_event_is_cancel_safe() {
    run(async || {
        let mut acts = vec![Act::Request, Act::text("HTTP/1.1 200 OK\r\n\r\n")];
        let mut gates = Vec::new();
        for x in 0..200 {
            // In two pieces, so that the wait is given up within a value, too.
            for piece in [format!("{{\"x\": {x}"), "}\r\n".to_owned()] {
                let (open, gate) = Act::gate();
                gates.push(open);
                acts.extend([gate, Act::text(&piece)]);
            }
        }
        acts.push(Act::Closed);
        let server = Server::start([acts]);
        let mut data = client(&server).subscribe("/collect/a").data::<Value>().await.unwrap();
        let mut gates = gates.into_iter();
        let mut given_up = 0;
        for x in 0..200 {
            let value = loop {
                tokio::select! {
                    biased;
                    value = data.next() => break value,
                    () = tokio::task::yield_now() => drop(gates.next()),
                }
                given_up += 1;
            };
            assert_eq!(value.unwrap().unwrap(), json!({"x": x}));
        }
        assert!(given_up >= 400, "{given_up}");
        drop(data);
        server.wait_until_closed(1);
    });
}
