//! A runtime that lacks a driver: an error that says what is missing, from every entry (N14).
//!
//! tokio's panic is caught, but the program's panic hook has printed it by then.

use std::error::Error as _;
use std::net::TcpListener;

use serde_json::{Value, json};
use stride_async::{
    Delivery, Error, Reconnect, Stride, SubscriptionEvent, TransportError, TransportErrorKind,
};
use stride_core::mock::Mock;
use tokio::runtime::{Builder, Runtime};

/// A runtime of either kind that lacks something, and what the error has to name.
fn runtimes() -> Vec<(Runtime, &'static str)> {
    let kinds: [fn() -> Builder; 2] = [Builder::new_current_thread, || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1);
        builder
    }];
    let mut runtimes = Vec::new();
    for kind in kinds {
        runtimes.push((kind().build().unwrap(), "no IO driver"));
        runtimes.push((kind().enable_time().build().unwrap(), "no IO driver"));
        runtimes.push((kind().enable_io().build().unwrap(), "no time driver"));
    }
    runtimes
}

fn transport_error(error: Error) -> TransportError {
    match error {
        Error::Transport(error) => error,
        other => panic!("{other:?}"),
    }
}

fn check(result: Result<impl std::fmt::Debug, Error>, missing: &str) {
    let error = transport_error(result.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Unsupported, "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent, "{error:?}");
    let source = error.source().unwrap().to_string();
    assert!(source.contains(missing) && source.contains("enable_all"), "{source}");
}

/// A client of a listener that accepts connections and nothing more.
fn client(listener: &TcpListener) -> Stride {
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    Stride::builder("key").endpoint(&base).build().unwrap()
}

#[test]
fn n14_verbs_and_subscriptions_say_what_is_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let build = |scheme: &str| Stride::builder("key").endpoint(&format!("{scheme}://{address}/v1"));
    let clients = [
        build("http").build().unwrap(),
        build("http").proxy(&format!("http://{address}")).build().unwrap(),
        #[cfg(feature = "tls")]
        build("https").build().unwrap(),
    ];
    for (runtime, missing) in runtimes() {
        for stride in &clients {
            runtime.block_on(async {
                check(stride.get("/collect").await, missing);
                check(stride.post("/collect/a", &json!({})).await, missing);
                check(stride.put("/process/a", &json!({})).await, missing);
                check(stride.delete("/process/a").await, missing);
                let subscribe = stride.subscribe("/collect/a").reconnect(Reconnect::Never);
                check(subscribe.events::<Value>().await, missing);
                check(stride.subscribe("/collect/a").data::<Value>().await, missing);
            });
            let moved = stride.clone();
            let task = runtime.spawn(async move { moved.get("/collect").await });
            check(runtime.block_on(task).unwrap(), missing);
        }
    }
}

#[test]
fn n14_a_kept_connection_does_not_hide_what_the_next_runtime_lacks() {
    use std::io::{Read as _, Write as _};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stride = client(&listener);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..2 {
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").unwrap();
        }
        listener
    });
    let good = Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(good.block_on(stride.get("/collect")).unwrap().status(), 200);
    for (runtime, missing) in runtimes() {
        check(runtime.block_on(stride.get("/collect")), missing);
    }
    // And it is still there for its runtime.
    assert_eq!(good.block_on(stride.get("/collect")).unwrap().status(), 200);
    drop(server.join().unwrap());
}

/// A transport of the user's may need no driver, but waiting between two connections does.
#[test]
fn n14_waiting_for_the_next_connection_says_what_is_missing() {
    for enable_io in [false, true] {
        let mut builder = Builder::new_current_thread();
        let runtime = if enable_io { builder.enable_io() } else { &mut builder }.build().unwrap();
        let mock = Mock::new();
        mock.subscribe("/collect/a").reply(200);
        let stride = Stride::builder("key").transport(mock.transport()).build().unwrap();
        runtime.block_on(async {
            let mut events = stride.subscribe("/collect/a").events::<Value>().await.unwrap();
            let connected = events.next().await.unwrap().unwrap();
            assert!(matches!(connected, SubscriptionEvent::Connected { .. }));
            let lost = events.next().await.unwrap().unwrap();
            assert!(matches!(lost, SubscriptionEvent::Disconnected { .. }));
            check(events.next().await.unwrap().map(drop), "no time driver");
            assert!(events.next().await.is_none());
        });
    }
}
