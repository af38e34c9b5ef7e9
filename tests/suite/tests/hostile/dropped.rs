//! An asynchronous call that is dropped closes its socket at once, at any stage, though nobody drives
//! its runtime from then on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender};
use std::task::Poll;

use serde_json::{Value, json};
use stride_async::{Stride, StrideBuilder};
use stride_tests::watchdog;
use stride_tests::wire::{Act, STREAM, Server};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Polls until the server has come to its signal.
fn poll_until(runtime: &Runtime, future: impl Future, is_reached: &Receiver<()>) {
    runtime.block_on(async {
        let mut future = pin!(future);
        poll_fn(|context| {
            if is_reached.try_recv().is_ok() {
                return Poll::Ready(());
            }
            assert!(future.as_mut().poll(context).is_pending(), "it does not wait");
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    });
}

/// A server that says when it has come behind these acts, and then waits for the client to close.
fn server(acts: impl IntoIterator<Item = Act>) -> (Server, Receiver<()>, Sender<()>) {
    let (reached, is_reached) = Act::signal();
    let (go_on, gate) = Act::gate();
    let acts = acts.into_iter().chain([reached, gate, Act::Closed]).collect();
    (Server::start([acts]), is_reached, go_on)
}

/// Drops a verb's future when the server has come so far.
fn drop_at(acts: impl IntoIterator<Item = Act>, build: impl FnOnce(&Server) -> StrideBuilder) {
    drop_put_at(acts, build, 10);
}

fn drop_put_at(
    acts: impl IntoIterator<Item = Act>,
    build: impl FnOnce(&Server) -> StrideBuilder,
    length: usize,
) {
    let (server, is_reached, go_on) = server(acts);
    let (runtime, stride) = (runtime(), build(&server).build().unwrap());
    let process = json!({"query": "x".repeat(length)});
    poll_until(&runtime, stride.put("/process/a", &process), &is_reached);
    drop(go_on);
    server.wait_until_closed(1);
    drop((runtime, stride));
}

fn plain(server: &Server) -> StrideBuilder {
    Stride::builder("key").endpoint(&server.endpoint())
}

#[test]
fn during_the_dialogue_with_a_proxy() {
    watchdog(|| {
        for response in ["", "HTTP/1.1 200", "HTTP/1.1 100 Continue\r\n\r\n"] {
            drop_at([Act::Request, Act::text(response)], |server| {
                let base = Stride::builder("key").endpoint("http://127.0.0.1:1/v1");
                base.proxy(&server.address().to_string())
            });
        }
    });
}

#[test]
fn during_the_handshake_of_tls() {
    watchdog(|| {
        drop_at([Act::Read(1)], |server| {
            Stride::builder("key").endpoint(&server.https_endpoint("127.0.0.1"))
        });
    });
}

#[test]
fn while_the_request_is_on_its_way() {
    // Larger than the sockets hold.
    watchdog(|| drop_put_at([Act::RequestHead], plain, 20_000_000));
}

#[test]
fn while_the_head_is_awaited() {
    watchdog(|| {
        for part in ["", "HTTP/1.1 200 OK\r\ncon", "HTTP/1.1 102 Processing\r\n\r\n"] {
            drop_at([Act::Request, Act::text(part)], plain);
        }
    });
}

#[test]
fn while_the_body_is_awaited() {
    watchdog(|| {
        for body in ["", "7\r\n{", "7\r\n{\"a\":1}\r\n0\r\n"] {
            drop_at([Act::Request, Act::text(STREAM), Act::text(body)], plain);
        }
    });
}

#[test]
fn while_a_subscription_connects() {
    watchdog(|| {
        let (server, is_reached, go_on) = server([Act::Request]);
        let (runtime, stride) = (runtime(), plain(&server).build().unwrap());
        poll_until(&runtime, stride.subscribe("/collect/a").events::<Value>(), &is_reached);
        drop(go_on);
        server.wait_until_closed(1);
    });
}

#[test]
fn while_a_subscription_has_events_to_give() {
    watchdog(|| {
        for body in ["", "9\r\n{\"a\":1}[]\r\n"] {
            let (server, is_reached, go_on) =
                server([Act::Request, Act::text(STREAM), Act::text(body)]);
            let (runtime, stride) = (runtime(), plain(&server).build().unwrap());
            let mut events =
                runtime.block_on(stride.subscribe("/collect/a").data::<Value>()).unwrap();
            is_reached.recv().unwrap();
            if !body.is_empty() {
                assert_eq!(runtime.block_on(events.next()).unwrap().unwrap(), json!({"a": 1}));
            }
            drop(events);
            drop(go_on);
            server.wait_until_closed(1);
        }
    });
}
