//! The verbs, and how connections are kept.

use std::io::Read as _;

use serde_json::{Value, json};
use stride_async::TransportErrorKind;

use crate::server::{Peer, Server};
use crate::{client, transport_error, watchdog};

#[tokio::test]
async fn a_request_is_written_as_servers_expect_it() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        let post = peer.request();
        peer.answer("201 Created", r#"{"a": 1}"#);
        let get = peer.request().0;
        peer.answer("200 OK", "");
        let delete = peer.request().0;
        peer.answer("200 OK", "");
        (post, get, delete)
    });
    let host = format!("host: {}\r\n", server.address);
    let stride = client(&server.base());
    let response = stride.post("/process/a", &json!({"query": "q"})).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.data::<Value>().unwrap(), Some(json!({"a": 1})));
    assert_eq!(stride.get("/collect").await.unwrap().data::<Value>().unwrap(), None);
    assert!(stride.delete("/collect/a").await.unwrap().body().is_empty());

    let ((post, body), get, delete) = server.joined().await;
    assert!(post.starts_with("post /v1/process/a http/1.1\r\n"), "{post}");
    assert!(post.contains(&host), "{post}");
    assert!(post.contains("authorization: basic c2vjcmv0x2tleto=\r\n"), "{post}");
    assert_eq!(body, br#"{"query":"q"}"#);
    assert!(get.starts_with("get /v1/collect http/1.1\r\n"), "{get}");
    for head in [get, delete] {
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_whatever_the_answer() {
    let _watchdog = watchdog();
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 18\r\n\r\n{\"message\": \"no!\"}",
        "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        "HTTP/1.1 503 Oh\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nchecksum: 7\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ];
    let server = Server::run(move |listener| {
        let mut peer = Peer::accept(&listener);
        for answer in answers {
            peer.request();
            peer.write(answer);
        }
        peer.request();
        peer.answer("200 OK", "");
        crate::server::expect_nobody(&listener);
    });
    let stride = client(&server.base());
    let bodies = ["{}", "{\"message\": \"no!\"}", "abc", "ab", "", "", "", ""];
    let statuses = [200, 429, 500, 503, 204, 304, 307, 200];
    for (status, body) in statuses.into_iter().zip(bodies) {
        let response = stride.post("/collect/a", &json!({})).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.body(), body);
        if status == 429 {
            let error = response.error_for_status().unwrap_err();
            assert_eq!(error.message().as_deref(), Some("no!"));
        }
    }
    let last = stride.get("/collect").await.unwrap();
    assert_eq!(last.status(), 200);
    server.joined().await;
}

#[tokio::test]
async fn a_body_may_end_with_its_connection() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        for version in ["1.0", "1.1"] {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.write(&format!("HTTP/{version} 200 OK\r\n\r\n[1]"));
        }
        let mut peer = Peer::accept(&listener);
        peer.request();
        peer.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n[1]");
        // It closes as it was told to, though we do not.
        peer.expect_close();
    });
    let stride = client(&server.base());
    for _ in 0..3 {
        assert_eq!(stride.get("/collect").await.unwrap().body(), "[1]");
    }
    server.joined().await;
}

#[tokio::test]
async fn n4_a_response_that_is_encoded_is_an_error() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        let head = peer.request().0;
        peer.write("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope");
        head
    });
    let stride_async::Error::Transport(error) =
        client(&server.base()).get("/collect").await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(error.kind(), TransportErrorKind::Encoded);
    assert!(server.joined().await.contains("accept-encoding: identity"));
}

/// The server has heard enough, answers, and closes, with most of the request unread: its system
/// resets the connection then.
#[tokio::test]
async fn an_early_answer_to_a_big_post_is_read() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.stream.read_exact(&mut [0; 1000]).unwrap();
        peer.answer("413 Payload Too Large", r#"{"message": "too large"}"#);
    });
    let big = "x".repeat(8 << 20);
    let response = client(&server.base()).put("/process/a", &big).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.body(), r#"{"message": "too large"}"#);
    server.joined().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_an_error() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        peer.answer("200 OK", "12345678");
        peer.expect_close();
    });
    let stride = stride_async::Stride::builder("key").endpoint(&server.base()).max_body(7);
    let error = transport_error(stride.build().unwrap().get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::BodyTooLarge);
    server.joined().await;
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::accept(&listener)).collect();
        for _ in 0..2 {
            for peer in &mut peers {
                peer.request();
            }
            for peer in &mut peers {
                peer.answer("200 OK", "");
            }
        }
    });
    let stride = client(&server.base());
    for _ in 0..2 {
        let answers =
            tokio::join!(stride.get("/collect"), stride.get("/process"), stride.get("/analyze"));
        for answer in [answers.0, answers.1, answers.2] {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
    server.joined().await;
}
