//! The driver of a subscription: its types, its polls, and its turns.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_core::Stream;
use serde_json::{Value, json};
use stride_async::{Data, Events, Stride};
use stride_core::mock::{LiveBody, Mock, Reply};
use stride_tests::wire::{Act, STREAM, Server};

use tokio::time::Instant;

use crate::{client, run, run_paused, with_mock};

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
    let stride = Stride::new("key").unwrap();
    is_send(&stride.subscribe("/collect/a").events::<Value>());
    is_send(&stride.post("/collect/a", &json!({})));
}

/// Nothing is done while nothing happens: no timer ticks.
#[test]
fn an_idle_subscription_is_not_polled() {
    run(async || {
        let server = Server::start([vec![Act::Request, Act::text(STREAM), Act::Closed]]);
        let mut events = client(&server).subscribe("/collect/a").events::<Value>().await.unwrap();
        assert!(events.next().await.is_some());
        let polls = AtomicUsize::new(0);
        let counted = poll_fn(|context| {
            polls.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut events).poll_next(context)
        });
        let mut counted = pin!(counted);
        // The first polls: hyper wakes whoever polls it once more.
        assert!(tokio::time::timeout(Duration::from_millis(20), counted.as_mut()).await.is_err());
        tokio::time::pause();
        let before = polls.load(Ordering::Relaxed);
        assert!(before <= 3, "{before}");
        assert!(tokio::time::timeout(Duration::from_secs(80), counted.as_mut()).await.is_err());
        // `timeout` polls once when it starts and once when it ends.
        assert!(polls.load(Ordering::Relaxed) <= before + 2);
        drop(events);
        server.wait_until_closed(1);
    });
}

#[test]
fn a_busy_stream_lets_other_tasks_run() {
    run(async || {
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
    });
}

#[test]
fn n8_a_refusal_that_falls_silent_ends_after_ten_seconds() {
    run_paused(async || {
        let mock = Mock::new();
        let silent = LiveBody::default();
        let refusal = Reply::status(401).body(r#"{"message": "revoked"}"#).live(&silent);
        mock.subscribe("/collect/a").reply(refusal);
        let start = Instant::now();
        let error = with_mock(&mock).subscribe("/collect/a").data::<Value>().await.unwrap_err();
        let stride_async::Error::Status(error) = error else { panic!("{error}") };
        assert_eq!(error.message().as_deref(), Some("revoked"));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert!(silent.is_closed());
    });
}
