//! What goes wrong on the wire, and whether the request may have arrived.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;

use serde_json::json;
use stride_async::{Delivery, TransportErrorKind};

use crate::server::{Peer, Server, expect_nobody};
use crate::{chain, client, transport_error, watchdog};

#[tokio::test]
async fn refused() {
    let _watchdog = watchdog();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for host in [address.to_string(), format!("localhost:{}", address.port())] {
        let stride = client(&format!("http://{host}/v1"));
        let error = transport_error(stride.get("/collect").await.unwrap_err());
        assert_eq!(error.kind(), TransportErrorKind::Connect, "{error:?}");
        assert_eq!(error.delivery(), Delivery::NotSent);
        assert!(chain(&error).contains("refused"), "{}", chain(&error));
    }
}

/// What a server does with a request that it has read, and how that is told.
async fn fault(script: impl FnOnce(Peer) + Send + 'static, kind: TransportErrorKind) {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        script(peer);
        expect_nobody(&listener);
    });
    let result = client(&server.base()).post("/collect/a", &json!({})).await;
    let error = transport_error(result.unwrap_err());
    assert_eq!(error.kind(), kind, "{}", chain(&error));
    assert_eq!(error.delivery(), Delivery::MaybeSent);
    assert!(!format!("{error:?}").contains("secret"));
    server.joined().await;
}

#[tokio::test]
async fn closed_without_an_answer() {
    fault(drop, TransportErrorKind::Io).await;
}

#[tokio::test]
async fn reset_without_an_answer() {
    fault(Peer::reset, TransportErrorKind::Io).await;
}

#[tokio::test]
async fn closed_within_the_head() {
    fault(|mut peer| peer.write("HTTP/1.1 200 OK\r\nconte"), TransportErrorKind::Io).await;
}

#[tokio::test]
async fn a_body_that_is_cut_off() {
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nab");
        fault(move |mut peer| peer.write(&answer), TransportErrorKind::Io).await;
    }
}

#[tokio::test]
async fn a_body_that_is_reset() {
    for head in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nab");
        let script = move |mut peer: Peer| {
            peer.write(&answer);
            peer.reset();
        };
        fault(script, TransportErrorKind::Io).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        fault(move |mut peer| peer.write(answer), TransportErrorKind::Protocol).await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let _watchdog = watchdog();
    for reset in [false, true] {
        let (closed, was_closed) = mpsc::channel();
        let server = Server::run(move |listener| {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.answer("200 OK", "");
            if reset {
                peer.reset();
            } else {
                drop(peer);
            }
            closed.send(()).unwrap();
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.answer("201 Created", "");
        });
        let stride = client(&server.base());
        let response = stride.post("/collect/a", &json!({})).await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::task::spawn_blocking(move || was_closed.recv().unwrap()).await.unwrap();
        let response = stride.post("/collect/a", &json!({})).await.unwrap();
        assert_eq!(response.status(), 201);
        server.joined().await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_on_the_request_is_an_error_and_nothing_is_sent_again() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        peer.answer("200 OK", "");
        peer.request();
        drop(peer);
        listener
    });
    let stride = client(&server.base());
    assert_eq!(stride.post("/collect/a", &json!({})).await.unwrap().status(), 200);
    let error = transport_error(stride.post("/collect/a", &json!({})).await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Io);
    assert_eq!(error.delivery(), Delivery::MaybeSent);
    expect_nobody(&server.joined().await);
}

/// The server does not even take the whole request.
#[tokio::test]
async fn a_request_that_is_reset_half_way_may_have_arrived() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.stream.read_exact(&mut [0; 1000]).unwrap();
        peer.reset();
    });
    let big = "x".repeat(8 << 20);
    let result = client(&server.base()).put("/process/a", &big).await;
    let error = transport_error(result.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Io);
    assert_eq!(error.delivery(), Delivery::MaybeSent);
    server.joined().await;
}

#[tokio::test]
async fn dropping_a_request_closes_its_connection() {
    let _watchdog = watchdog();
    let (arrived, has_arrived) = tokio::sync::oneshot::channel();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        arrived.send(()).unwrap();
        peer.expect_close();
    });
    let stride = client(&server.base());
    tokio::select! {
        answer = stride.get("/collect") => panic!("{answer:?}"),
        arrived = has_arrived => arrived.unwrap(),
    }
    // The runtime need not run for it.
    server.join();
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn https_needs_the_feature() {
    let error = client("https://127.0.0.1:9/v1").get("/collect").await.unwrap_err();
    let error = transport_error(error);
    assert_eq!(error.kind(), TransportErrorKind::Unsupported);
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(chain(&error).contains("`tls`"), "{}", chain(&error));
}
