//! Each fault says what it is, and whether the request may have arrived.

use std::sync::mpsc::channel;

use serde_json::json;
use stride_blocking::TransportErrorKind::{Cancelled, Connect, Io, Protocol, Proxy, Unsupported};
use stride_blocking::{Delivery, Error, Response, Stride, TransportErrorKind};
use stride_core::cancel::CancelToken;
use stride_core::transport::{Call, Limits};

use crate::server::{STREAM, Server, answer, closed_port, in_time};

fn client(base: &str) -> Stride {
    Stride::builder("key").endpoint(base).build().unwrap()
}

#[track_caller]
fn assert_fault(result: Result<Response, Error>, kind: TransportErrorKind, delivery: Delivery) {
    match result {
        Err(Error::Transport(error)) => {
            assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// What becomes of a request after which the server sends this and closes the connection.
fn answered(bytes: &'static str) -> Result<Response, Error> {
    in_time(move || {
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(bytes);
            peer.close();
        });
        client(&server.base()).post("/collect/a", &json!({}))
    })
}

#[test]
fn a_refused_connection_surely_sent_nothing() {
    let base = format!("http://{}/v1", closed_port());
    assert_fault(client(&base).get("/collect"), Connect, Delivery::NotSent);
}

#[test]
fn an_answer_that_is_none_or_broken_off_may_follow_a_request_that_arrived() {
    assert_fault(answered(""), Io, Delivery::MaybeSent);
    assert_fault(answered("HTTP/1.1 200 OK\r\ncontent-le"), Io, Delivery::MaybeSent);
    assert_fault(answered("220 smtp.example.com ESMTP\r\n\r\n"), Protocol, Delivery::MaybeSent);
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}";
    assert_fault(answered(short), Io, Delivery::MaybeSent);
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert_fault(answered(cut), Io, Delivery::MaybeSent);
}

#[test]
fn a_body_may_end_with_its_connection_but_not_with_a_crash() {
    let whole = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[\"a\"]";
    let streams: Vec<String> = answered(whole).unwrap().data().unwrap().unwrap();
    assert_eq!(streams, ["a"]);
    let crashed = in_time(move || {
        let (seen, sees) = channel::<()>();
        let sees = std::sync::Mutex::new(sees);
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(whole);
            // A reset throws away what was not read yet, so the client reads first.
            sees.lock().unwrap().recv().unwrap();
            peer.reset();
        });
        let target = client(&server.base()).target();
        let request = target.api.get("/collect").unwrap();
        let call = Call::new(request, Limits::for_request());
        let mut body = target.transport.send(call, CancelToken::never()).unwrap().into_body();
        assert_eq!(body.next().unwrap().unwrap(), "[\"a\"]");
        seen.send(()).unwrap();
        body.next().unwrap().unwrap_err()
    });
    assert_eq!((crashed.kind(), crashed.delivery()), (Io, Delivery::MaybeSent));
}

#[test]
fn a_reset_after_the_request_may_follow_a_request_that_arrived() {
    let result = in_time(|| {
        let server = Server::start(|_, mut peer| {
            peer.request();
            peer.reset();
        });
        client(&server.base()).get("/collect")
    });
    assert_fault(result, Io, Delivery::MaybeSent);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_not_used() {
    in_time(|| {
        let (closed, closes) = channel();
        let server = Server::start(move |_, mut peer| {
            peer.request();
            peer.send(answer("200 OK", "{}"));
            peer.close();
            closed.send(()).unwrap();
        });
        let stride = client(&server.base());
        for _ in 0..3 {
            assert_eq!(stride.get("/collect").unwrap().status(), 200);
            closes.recv().unwrap();
        }
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn a_kept_connection_that_breaks_on_the_request_is_an_error_and_nothing_is_sent_again() {
    in_time(|| {
        let (asked, asks) = channel();
        let server = Server::start(move |_, mut peer| {
            peer.request();
            asked.send(()).unwrap();
            peer.send(answer("200 OK", "{}"));
            peer.request();
            asked.send(()).unwrap();
            peer.close();
        });
        let stride = client(&server.base());
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        assert_fault(stride.post("/collect/a", &json!({})), Io, Delivery::MaybeSent);
        assert_eq!((asks.try_iter().count(), server.connections()), (2, 1));
    });
}

#[test]
fn a_proxy_that_is_not_there_or_refuses_was_not_sent_the_request() {
    in_time(|| {
        let server = Server::answering(answer("200 OK", "{}"));
        let refusing = Server::answering("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        let closing = Server::start(|_, mut peer| {
            peer.request();
            peer.close();
        });
        for proxy in [closed_port(), refusing.address, closing.address] {
            let proxy = proxy.to_string();
            let stride =
                Stride::builder("key").endpoint(&server.base()).proxy(&proxy).build().unwrap();
            assert_fault(stride.get("/collect"), Proxy, Delivery::NotSent);
        }
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn a_cancelled_call_says_so() {
    in_time(|| {
        // The body of the second could end where the connection does, but not like this.
        for head in [STREAM, "HTTP/1.1 200 OK\r\n\r\n"] {
            let server = Server::start(move |_, mut peer| {
                peer.request();
                peer.send(head);
                peer.request();
            });
            let target = client(&server.base()).target();
            let request = target.api.get("/collect").unwrap();
            let call = Call::new(request, Limits::for_stream());
            let cancel = CancelToken::new();
            let mut body = target.transport.send(call.clone(), cancel.clone()).unwrap().into_body();
            cancel.cancel();
            let error = body.next().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Cancelled, Delivery::MaybeSent));
            assert!(body.next().is_none());
            let error = target.transport.send(call, cancel).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Cancelled, Delivery::NotSent));
        }
    });
}

#[test]
fn what_a_proxy_was_sent_is_no_part_of_a_cancelled_request() {
    in_time(|| {
        let (asked, asks) = channel();
        let asked = std::sync::Mutex::new(asked);
        let pondering = Server::start(move |_, mut peer| {
            peer.request();
            asked.lock().unwrap().send(()).unwrap();
            peer.request();
        });
        let proxy = pondering.address.to_string();
        let stride =
            Stride::builder("key").endpoint("http://127.0.0.1/v1").proxy(&proxy).build().unwrap();
        let target = stride.target();
        let request = target.api.get("/collect").unwrap();
        let (call, cancel) = (Call::new(request, Limits::for_stream()), CancelToken::new());
        let cancelled = cancel.clone();
        let sends = std::thread::spawn(move || target.transport.send(call, cancelled));
        asks.recv().unwrap();
        cancel.cancel();
        let error = sends.join().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Cancelled, Delivery::NotSent));
    });
}

#[test]
fn a_request_that_cannot_be_sent_was_not() {
    let target = client("http://127.0.0.1/v1").target();
    for uri in ["ftp://127.0.0.1/v1", "/v1/collect"] {
        let mut request = target.api.get("/collect").unwrap();
        *request.uri_mut() = uri.parse().unwrap();
        let call = Call::new(request, Limits::for_request());
        let error = target.transport.send(call, CancelToken::never()).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Unsupported, Delivery::NotSent));
    }
}

#[test]
#[cfg(not(feature = "tls"))]
fn without_its_feature_https_is_an_error_that_names_it() {
    let Err(Error::Transport(error)) = client("https://127.0.0.1/v1").get("/collect") else {
        panic!("there is no TLS")
    };
    assert_eq!((error.kind(), error.delivery()), (Unsupported, Delivery::NotSent));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("feature `tls`"), "{source}");
}
