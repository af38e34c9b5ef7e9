//! A subscription stops soon, whatever it is waiting for: every limit is a minute here, and the
//! watchdog bites long before.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use stride_blocking::{Events, Reconnect, StopHandle, Stride, SubscribeBuilder, SubscriptionEvent};

use crate::server::{MINUTE, STREAM, Server, answer, chunk, in_time};

fn subscribe(server: &Server) -> SubscribeBuilder {
    let builder = Stride::builder("key").endpoint(&server.base());
    let stride = builder.timeout(MINUTE).connect_timeout(MINUTE).build().unwrap();
    stride.subscribe("/collect/a").idle_timeout(MINUTE)
}

/// Takes everything on another thread; says so before each wait.
fn drain(events: Events<Value>, waits: Sender<()>) -> (StopHandle, thread::JoinHandle<usize>) {
    let stop = events.stop_handle();
    let drained = thread::spawn(move || {
        let mut events = events;
        let mut count = 0;
        loop {
            // Nobody may listen any more.
            let _ = waits.send(());
            match events.next() {
                Some(event) => count += usize::from(event.is_ok()),
                None => break,
            }
        }
        assert!(events.next().is_none());
        count
    });
    (stop, drained)
}

#[test]
fn during_a_read() {
    in_time(|| {
        let close_delimited = "HTTP/1.1 200 OK\r\n\r\n";
        for head in [STREAM, close_delimited] {
            let server = Server::start(move |_, mut peer| {
                peer.request();
                peer.send(head);
                peer.request();
            });
            // Before the read, and after more and less of it.
            for pause in 0..10 {
                let (wait, waits) = channel();
                let (stop, drained) = drain(subscribe(&server).events().unwrap(), wait);
                waits.recv().unwrap();
                waits.recv().unwrap();
                thread::sleep(Duration::from_millis(pause * 3));
                stop.stop();
                assert_eq!(drained.join().unwrap(), 1, "connected, and nothing of a loss");
            }
        }
    });
}

#[test]
fn while_waiting_for_the_head() {
    in_time(|| {
        let (asked, asks) = channel();
        let server = Server::start(move |number, mut peer| {
            peer.request();
            if number == 0 {
                peer.send(STREAM);
                return peer.close();
            }
            asked.send(()).unwrap();
            peer.request();
        });
        let (stop, drained) = drain(subscribe(&server).events().unwrap(), channel().0);
        asks.recv().unwrap();
        stop.stop();
        assert_eq!(drained.join().unwrap(), 2, "connected and disconnected");
    });
}

#[test]
fn during_the_delay_before_the_next_attempt() {
    in_time(|| {
        let busy =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 300\r\ncontent-length: 0\r\n\r\n";
        let server = Server::answering(busy);
        let subscribe = subscribe(&server).reconnect(Reconnect::Always);
        let mut events = subscribe.events::<Value>().unwrap();
        let Some(Ok(SubscriptionEvent::Disconnected { delay, .. })) = events.next() else {
            panic!("it was refused")
        };
        assert_eq!(delay, Duration::from_secs(300));
        let (wait, waits) = channel();
        let (stop, drained) = drain(events, wait);
        waits.recv().unwrap();
        stop.stop();
        assert_eq!(drained.join().unwrap(), 0);
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn before_what_is_there_is_taken() {
    let server = Server::start(|_, mut peer| {
        peer.request();
        peer.send(STREAM);
        peer.request();
    });
    let mut events = subscribe(&server).events::<Value>().unwrap();
    let stop = events.stop_handle();
    stop.clone().stop();
    stop.stop();
    assert!(events.next().is_none());
    let mut data = subscribe(&server).data::<Value>().unwrap();
    data.stop_handle().stop();
    assert!(data.next().is_none());
}

#[test]
fn stopping_and_dropping_close_the_socket() {
    in_time(|| {
        let (closed, closes) = channel();
        let closed = Mutex::new(closed);
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(STREAM);
            peer.send(chunk("\r\n"));
            assert!(peer.request().is_none());
            closed.lock().unwrap().send(()).unwrap();
        });
        drop(subscribe(&server).data::<Value>().unwrap());
        closes.recv().unwrap();
        let mut events = subscribe(&server).events::<Value>().unwrap();
        events.stop_handle().stop();
        assert!(events.next().is_none());
        closes.recv().unwrap();
        drop(events);
    });
}

#[test]
fn a_stop_ends_that_subscription_and_nothing_else() {
    in_time(|| {
        let server = Server::start(|_, mut peer| {
            while let Some(request) = peer.request() {
                if request.head.contains("subscribe") {
                    peer.send(STREAM);
                } else {
                    peer.send(answer("200 OK", ""));
                }
            }
        });
        let stride = Stride::builder("key").endpoint(&server.base()).build().unwrap();
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        let stopped = stride.subscribe("/collect/a").events::<Value>().unwrap();
        let mut other = stride.subscribe("/collect/a").events::<Value>().unwrap();
        stopped.stop_handle().stop();
        assert!(matches!(other.next(), Some(Ok(SubscriptionEvent::Connected { gap: None }))));
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        assert_eq!(server.connections(), 3, "the requests share one");
    });
}
