//! A subscription stops soon, whatever it is waiting for: every limit is a minute here, and the
//! watchdog gives up before.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use stride_blocking::{Events, Reconnect, StopHandle, SubscribeBuilder, SubscriptionEvent};
use stride_tests::watchdog;
use stride_tests::wire::tls::Authority;
use stride_tests::wire::{Act, STREAM, Server, chunk, response};

use crate::{MINUTE, builder, client};

fn subscribe(server: &Server) -> SubscribeBuilder {
    client(server).subscribe("/collect/a").idle_timeout(MINUTE)
}

/// A stream in which nothing comes until the client is gone.
fn silent(head: &str) -> Vec<Act> {
    vec![Act::Request, Act::text(head), Act::Closed]
}

/// Takes everything on another thread; says so before each wait.
fn drain(events: Events<Value>, waits: Sender<()>) -> (StopHandle, thread::JoinHandle<usize>) {
    let stop = events.stop_handle();
    let drained = thread::spawn(move || {
        let mut events = events;
        let mut count = 0;
        loop {
            // A test that no longer listens has heard enough.
            let _ = waits.send(());
            match events.next() {
                Some(event) => {
                    event.expect("a stop is not an error");
                    count += 1;
                }
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
    watchdog(|| {
        let close_delimited = "HTTP/1.1 200 OK\r\n\r\n";
        for head in [STREAM, close_delimited] {
            let server = Server::always(move || silent(head));
            // At different moments, before the read and within it.
            for pause in 0..10 {
                let (wait, waits) = channel();
                let (stop, drained) = drain(subscribe(&server).events().unwrap(), wait);
                waits.recv().unwrap();
                waits.recv().unwrap();
                thread::sleep(Duration::from_millis(pause * 3));
                stop.stop();
                assert_eq!(drained.join().unwrap(), 1, "connected, and nothing of a loss");
            }
            server.wait_until_closed(10);
        }
    });
}

#[test]
fn gostride_14_while_waiting_for_the_head() {
    watchdog(|| {
        for end in [|| Act::Close, || Act::Reset] {
            let lost = vec![Act::Request, Act::text(STREAM), end()];
            let server = Server::start([lost, vec![Act::Request, Act::Closed]]);
            let (stop, drained) = drain(subscribe(&server).events().unwrap(), channel().0);
            server.wait_for_requests(2);
            stop.stop();
            assert_eq!(drained.join().unwrap(), 2, "connected and disconnected");
            server.wait_until_closed(1);
        }
    });
}

#[test]
fn during_the_delay_before_the_next_attempt() {
    watchdog(|| {
        let busy =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 300\r\ncontent-length: 0\r\n\r\n";
        let server = Server::responding(busy);
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
    watchdog(|| {
        let server = Server::always(|| silent(STREAM));
        let mut events = subscribe(&server).events::<Value>().unwrap();
        let stop = events.stop_handle();
        stop.clone().stop();
        stop.stop();
        assert!(events.next().is_none());
        let mut data = subscribe(&server).data::<Value>().unwrap();
        data.stop_handle().stop();
        assert!(data.next().is_none());
    });
}

#[test]
fn stopping_closes_the_socket_before_the_iterator_is_dropped() {
    watchdog(|| {
        let text = format!("{STREAM}{}", chunk("\r\n"));
        let server = Server::start([silent(&text)]);
        let mut events = subscribe(&server).events::<Value>().unwrap();
        events.stop_handle().stop();
        assert!(events.next().is_none());
        server.wait_until_closed(1);
        drop(events);
    });
}

#[test]
fn within_tls() {
    watchdog(|| {
        let authority = Authority::new();
        let server = Server::start_tls(&authority.identity("localhost"), [silent(STREAM)]);
        let stride = builder(&server)
            .endpoint(&server.https_endpoint("localhost"))
            .root_certificate(authority.pem())
            .build()
            .unwrap();
        let data = stride.subscribe("/collect/a").idle_timeout(MINUTE).data::<Value>().unwrap();
        let stop = data.stop_handle();
        let drained = thread::spawn(move || data.count());
        stop.stop();
        assert_eq!(drained.join().unwrap(), 0);
        server.wait_until_closed(1);
    });
}

#[test]
fn a_stop_ends_that_subscription_and_nothing_else() {
    watchdog(|| {
        let list = || vec![Act::Request, Act::text(&response("200 OK", ""))];
        let server = Server::start([list(), silent(STREAM), silent(STREAM), list()]);
        let stride = client(&server);
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        let stopped = stride.subscribe("/collect/a").events::<Value>().unwrap();
        let mut other = stride.subscribe("/collect/a").events::<Value>().unwrap();
        stopped.stop_handle().stop();
        assert!(matches!(other.next(), Some(Ok(SubscriptionEvent::Connected { gap: None, .. }))));
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        assert_eq!(server.connections(), 3, "the requests share one");
    });
}

/// In real time, because nothing but time ends a blocked read.
#[test]
fn n8_a_refusal_that_falls_silent_ends_though_the_idle_limit_is_far() {
    watchdog(|| {
        let head = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 100\r\n\r\n{\"message\": ";
        let server = Server::start([silent(head)]);
        let subscribe = client(&server).subscribe("/collect/a").idle_timeout(MINUTE);
        let error = subscribe.data::<Value>().unwrap_err();
        assert_eq!(error.status().map(|status| status.as_u16()), Some(401), "{error}");
        server.wait_until_closed(1);
    });
}
