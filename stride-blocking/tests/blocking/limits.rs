//! Each limit ends what it is for, and nothing else.

use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use stride_blocking::{Delivery, Response, Stride, TransportError, TransportErrorKind};
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, Limits};

use crate::server::{MINUTE, STREAM, Server, answer, chunk, in_time};

fn minutes() -> Limits {
    let mut limits = Limits::for_stream();
    (limits.connect, limits.head, limits.idle) = (MINUTE, MINUTE, Some(MINUTE));
    limits
}

fn get(base: &str, limits: Limits) -> Result<http::Response<Body>, TransportError> {
    let target = Stride::builder("key").endpoint(base).build().unwrap().target();
    let request = target.api.get("/collect").unwrap();
    target.transport.send(Call::new(request, limits), CancelToken::never())
}

#[track_caller]
fn assert_error(error: &TransportError, kind: TransportErrorKind, delivery: Delivery) {
    assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{error:?}");
}

#[test]
fn a_steady_stream_outlives_every_limit_five_times_over() {
    const LIMIT: Duration = Duration::from_millis(500);
    let started = Instant::now();
    let server = Server::start(move |_, mut peer| {
        peer.request();
        peer.send(STREAM);
        while started.elapsed() < LIMIT * 6 {
            peer.send(chunk("\r\n"));
            thread::sleep(LIMIT / 25);
        }
        peer.send("0\r\n\r\n");
    });
    let mut limits = minutes();
    (limits.connect, limits.head, limits.idle) = (LIMIT, LIMIT, Some(LIMIT));
    let response = get(&server.base(), limits).unwrap();
    let read = Response::read(response, usize::MAX).unwrap();
    assert!(started.elapsed() > LIMIT * 5 && read.body().len() > 10);
}

#[test]
fn a_silent_stream_ends_at_the_idle_limit() {
    in_time(|| {
        let server = Server::start(|_, mut peer| {
            peer.request();
            peer.send(STREAM);
            peer.send(chunk("\r\n"));
            peer.request();
        });
        let mut limits = minutes();
        limits.idle = Some(Duration::from_millis(200));
        let mut body = get(&server.base(), limits).unwrap().into_body();
        assert_eq!(body.next().unwrap().unwrap(), "\r\n");
        let silent = Instant::now();
        let error = body.next().unwrap().unwrap_err();
        assert_error(&error, TransportErrorKind::IdleTimeout, Delivery::MaybeSent);
        assert!(silent.elapsed() >= Duration::from_millis(190));
        assert!(body.next().is_none(), "an error is the last item");
    });
}

#[test]
fn the_idle_limit_is_not_for_the_head() {
    in_time(|| {
        let server = Server::start(|_, mut peer| {
            peer.request();
            thread::sleep(Duration::from_millis(300));
            peer.send(answer("200 OK", "late"));
        });
        for total in [None, Some(MINUTE / 2)] {
            let mut limits = minutes();
            limits.idle = Some(Duration::from_millis(50));
            limits.total = total;
            let response = get(&server.base(), limits).unwrap();
            assert_eq!(Response::read(response, 10).unwrap().body(), "late");
        }
    });
}

#[test]
fn an_answer_that_does_not_come_ends_at_the_limit_on_the_head() {
    in_time(|| {
        let server = Server::start(|_, mut peer| while peer.request().is_some() {});
        let mut limits = minutes();
        limits.head = Duration::from_millis(100);
        let error = get(&server.base(), limits).unwrap_err();
        assert_error(&error, TransportErrorKind::HeadTimeout, Delivery::MaybeSent);
    });
}

#[test]
fn the_total_limit_covers_head_and_body() {
    in_time(|| {
        let silent = Server::start(|_, mut peer| while peer.request().is_some() {});
        let trickling = Server::start(|_, mut peer| {
            peer.request();
            peer.send(STREAM);
            while peer.stream.peer_addr().is_ok() {
                peer.send(chunk("\r\n"));
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut limits = minutes();
        limits.total = Some(Duration::from_millis(200));
        let error = get(&silent.base(), limits).unwrap_err();
        assert_error(&error, TransportErrorKind::TotalTimeout, Delivery::MaybeSent);
        let response = get(&trickling.base(), limits).unwrap();
        let error = Response::read(response, usize::MAX).unwrap_err();
        assert_error(&error, TransportErrorKind::TotalTimeout, Delivery::MaybeSent);
    });
}

#[test]
fn the_timeout_of_a_client_is_the_total_limit() {
    in_time(|| {
        let server = Server::start(|_, mut peer| while peer.request().is_some() {});
        let timeout = Duration::from_millis(100);
        let stride =
            Stride::builder("key").endpoint(&server.base()).timeout(timeout).build().unwrap();
        let Err(stride_blocking::Error::Transport(error)) = stride.get("/collect") else {
            panic!("there is no answer")
        };
        assert!(error.is_timeout(), "{error:?}");
    });
}

/// A listener that no longer takes connections. What is returned keeps it so.
fn full_backlog() -> (socket2::Socket, Vec<TcpStream>) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    (listener, waiting)
}

#[test]
fn a_connection_that_does_not_open_ends_at_the_limit_on_connecting() {
    in_time(|| {
        let (listener, _waiting) = full_backlog();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut limits = minutes();
        limits.connect = Duration::from_millis(100);
        let error = get(&format!("http://{address}/v1"), limits).unwrap_err();
        assert_error(&error, TransportErrorKind::ConnectTimeout, Delivery::NotSent);
        limits.connect = MINUTE;
        limits.total = Some(Duration::from_millis(100));
        let error = get(&format!("http://{address}/v1"), limits).unwrap_err();
        assert_error(&error, TransportErrorKind::TotalTimeout, Delivery::NotSent);
    });
}

#[test]
fn limits_that_are_as_good_as_none_are_no_trouble() {
    let server = Server::answering(answer("200 OK", "{}"));
    let mut limits = Limits::for_request().with_total(Duration::MAX);
    (limits.connect, limits.idle) = (Duration::MAX, Some(Duration::MAX));
    assert_eq!(get(&server.base(), limits).unwrap().status(), 200);
}

#[test]
fn a_chunk_is_handed_out_as_soon_as_it_is_there() {
    in_time(|| {
        let (got, gets) = channel();
        let gets = std::sync::Mutex::new(gets);
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(STREAM);
            for text in ["one", "two", "three"] {
                peer.send(chunk(text));
                assert_eq!(gets.lock().unwrap().recv().unwrap(), text);
            }
            peer.send("0\r\n\r\n");
        });
        for chunk in get(&server.base(), minutes()).unwrap().into_body() {
            got.send(String::from_utf8(chunk.unwrap().to_vec()).unwrap()).unwrap();
        }
    });
}
