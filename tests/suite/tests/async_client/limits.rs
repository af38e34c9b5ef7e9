//! Limits by tokio's clock.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use stride_async::{AsyncBody, Call, Delivery, Limits, Stride, TransportError, TransportErrorKind};
use stride_tests::wire::{Act, Peer, STREAM, Server, chunk, response};
use tokio::time::Instant;

use crate::{client, run};
use stride_tests::failed;

async fn send(stride: &Stride, limits: Limits) -> Result<AsyncBody, TransportError> {
    let request = stride.api().get("/collect").unwrap();
    let response = stride.target().transport.send(Call::new(request, limits)).await?;
    Ok(response.into_body())
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_has_10_s_and_no_more_than_the_whole_request() {
    crate::run_paused(async || {
        let full = stride_tests::wire::FullBacklog::new();
        let builder = || Stride::builder("key").endpoint(&full.endpoint());
        let started = Instant::now();
        let error = failed(builder().build().unwrap().get("/collect").await);
        let fault = (error.kind(), error.delivery());
        assert_eq!(fault, (TransportErrorKind::ConnectTimeout, Delivery::NotSent));
        assert_eq!(started.elapsed().as_secs(), 10);

        let hasty = builder().timeout(Duration::from_secs(3)).build().unwrap();
        let started = Instant::now();
        let error = failed(hasty.get("/collect").await);
        let fault = (error.kind(), error.delivery());
        assert_eq!(fault, (TransportErrorKind::TotalTimeout, Delivery::NotSent));
        assert_eq!(started.elapsed().as_secs(), 3);
    });
}

#[test]
fn silence_is_an_error_after_90_s() {
    run(async || {
        let text = Act::text(&format!("{STREAM}{}", chunk("\r\n")));
        let server = Server::start([vec![Act::Request, text, Act::Closed]]);
        let mut body = send(&client(&server), Limits::for_stream()).await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "\r\n");
        tokio::time::pause();
        let waited = Instant::now();
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::IdleTimeout);
        assert_eq!(waited.elapsed().as_secs(), 90);
        assert!(body.next().await.is_none());
        server.wait_until_closed(1);
    });
}

/// Time that is not spent waiting does not count as silence.
#[test]
fn a_slow_reader_is_not_a_silent_server() {
    run(async || {
        let mut acts = vec![Act::Request, Act::text("HTTP/1.1 200 OK\r\n\r\n")];
        acts.extend((0..5).map(|_| Act::text("\r\n")));
        acts.push(Act::Closed);
        let server = Server::start([acts]);
        let mut body = send(&client(&server), Limits::for_stream()).await.unwrap();
        let mut read = 0;
        while read < 10 {
            read += body.next().await.unwrap().unwrap().len();
            // Only here: a clock that is stopped jumps to the limit while the server is about to
            // write.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(600)).await;
            tokio::time::resume();
        }
        drop(body);
        server.wait_until_closed(1);
    });
}

#[test]
fn a_slow_reader_holds_the_server_up() {
    run(async || {
        const ALL: usize = 64 << 20;
        let (blocked, is_blocked) = tokio::sync::oneshot::channel();
        let (told, total) = mpsc::channel();
        let pour = move |peer: &mut Peer| {
            // How long a write may take before it counts as held up.
            let held_up = Duration::from_millis(200);
            peer.socket().set_write_timeout(Some(held_up)).unwrap();
            let piece = vec![b' '; 1 << 16];
            let mut written = 0;
            let mut blocked = Some(blocked);
            while written < ALL {
                match peer.write(&piece) {
                    Ok(length) => written += length,
                    Err(_) => {
                        if let Some(blocked) = blocked.take() {
                            blocked.send(written).unwrap();
                        }
                    }
                }
            }
            told.send(written).unwrap();
        };
        let head = Act::text("HTTP/1.1 200 OK\r\n\r\n");
        let acts = vec![Act::Request, head, Act::With(Box::new(pour)), Act::Close];
        let server = Server::start([acts]);
        let mut body = send(&client(&server), Limits::for_stream()).await.unwrap();
        let mut read = body.next().await.unwrap().unwrap().len();
        // The runtime runs; nobody reads.
        let written = is_blocked.await.unwrap();
        assert!(written < ALL / 2, "{written}");
        while let Some(chunk) = body.next().await {
            read += chunk.unwrap().len();
        }
        assert_eq!(read, total.recv().unwrap());
    });
}

#[test]
fn kept_connections_are_closed_after_a_while() {
    run(async || {
        let text = Act::text(&response("200 OK", ""));
        let server = Server::start([vec![Act::Request, text, Act::Closed]]);
        let stride = client(&server);
        assert_eq!(stride.post("/collect/a", &json!({})).await.unwrap().status(), 200);
        tokio::time::pause();
        let kept = Instant::now();
        tokio::time::sleep(Duration::from_secs(16)).await;
        assert!(kept.elapsed() < Duration::from_secs(17));
        server.wait_until_closed(1);
    });
}
