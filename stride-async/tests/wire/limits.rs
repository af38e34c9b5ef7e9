//! Limits: by the real clock where bytes come meanwhile, by tokio's paused one where nothing does.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use stride_async::{AsyncBody, Call, Delivery, Limits, Stride, TransportError, TransportErrorKind};

use crate::server::{Peer, Server};
use crate::{client, transport_error, watchdog};

const MOMENT: Duration = Duration::from_millis(20);

/// A listener whose backlog is full: connections to it are never answered.
fn full_listener() -> (Socket, SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = |_| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        filler
    };
    let fillers = (0..4).map(fill).collect();
    (listener, address.as_socket().unwrap(), fillers)
}

async fn send(stride: &Stride, limits: Limits) -> Result<AsyncBody, TransportError> {
    let request = stride.api().get("/collect").unwrap();
    let answer = stride.target().transport.send(Call::new(request, limits)).await?;
    Ok(answer.into_body())
}

async fn read(mut body: AsyncBody) -> Result<usize, TransportError> {
    let mut read = 0;
    while let Some(chunk) = body.next().await {
        read += chunk?.len();
    }
    Ok(read)
}

#[tokio::test(start_paused = true)]
async fn connecting() {
    let _watchdog = watchdog();
    let (_listener, address, _fillers) = full_listener();
    let started = tokio::time::Instant::now();
    let error =
        transport_error(client(&format!("http://{address}/v1")).get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::ConnectTimeout);
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert_eq!(started.elapsed().as_secs(), 10);

    let hasty = Stride::builder("key").endpoint(&format!("http://{address}/v1"));
    let hasty = hasty.timeout(Duration::from_secs(3)).build().unwrap();
    let error = transport_error(hasty.get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::TotalTimeout);
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn a_head_that_does_not_come() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        for _ in 0..2 {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.expect_close();
        }
    });
    let stride = client(&server.base());
    let mut limits = Limits::for_request();
    limits.head = MOMENT;
    let error = send(&stride, limits).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::HeadTimeout);
    assert_eq!(error.delivery(), Delivery::MaybeSent);

    let error = send(&stride, Limits::for_request().with_total(MOMENT)).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::TotalTimeout);
    assert_eq!(error.delivery(), Delivery::MaybeSent);
    server.joined().await;
}

/// The limit on the head begins with the last byte of the request, however slowly that is taken.
#[tokio::test]
async fn a_slow_upload_is_no_missing_head() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        socket2::SockRef::from(&peer.stream).set_recv_buffer_size(64 << 10).unwrap();
        // A megabyte and a pause, again and again: 30 pauses are longer than the limit.
        let mut taken = 0;
        while taken < 30 << 20 {
            let mut piece = vec![0; 1 << 20];
            std::io::Read::read_exact(&mut peer.stream, &mut piece).unwrap();
            taken += piece.len();
            std::thread::sleep(MOMENT);
        }
        // What is left of the body is not of interest.
        peer.answer("200 OK", "");
    });
    let stride = client(&server.base());
    let request = stride.api().put("/process/a", &"x".repeat(31 << 20)).unwrap();
    let mut limits = Limits::for_request();
    limits.head = MOMENT * 15;
    let answer = stride.target().transport.send(Call::new(request, limits)).await;
    assert_eq!(answer.unwrap().status(), 200);
    server.joined().await;
}

#[tokio::test]
async fn the_total_includes_the_body() {
    let _watchdog = watchdog();
    // One stalls, one drips, one pours: each for ever.
    for (piece, pause) in
        [("", MOMENT), ("x", MOMENT / 10), (&*"x".repeat(1 << 16), Duration::ZERO)]
    {
        let piece = piece.to_owned();
        let server = Server::run(move |listener| {
            let mut peer = Peer::accept(&listener);
            peer.open_stream();
            while !piece.is_empty() && peer.stream.write_all(piece.as_bytes()).is_ok() {
                std::thread::sleep(pause);
            }
            if piece.is_empty() {
                peer.expect_close();
            }
        });
        let limits = Limits::for_request().with_total(MOMENT * 5);
        let body = send(&client(&server.base()), limits).await.unwrap();
        let error = read(body).await.unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::TotalTimeout);
        assert_eq!(error.delivery(), Delivery::MaybeSent);
        server.joined().await;
    }
}

#[tokio::test]
async fn a_steady_stream_outlives_every_limit() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        for _ in 0..40 {
            peer.write("\r\n");
            std::thread::sleep(MOMENT);
        }
    });
    let stride = client(&server.base());
    let mut limits = Limits::for_stream();
    (limits.connect, limits.head) = (MOMENT * 10, MOMENT * 10);
    limits.idle = Some(MOMENT * 10);
    assert_eq!(read(send(&stride, limits).await.unwrap()).await.unwrap(), 80);
    server.joined().await;
}

#[tokio::test]
async fn silence_meets_the_idle_limit() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.write("\r\n");
        peer.expect_close();
    });
    let mut body = send(&client(&server.base()), Limits::for_stream()).await.unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "\r\n");
    tokio::time::pause();
    let waited = tokio::time::Instant::now();
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::IdleTimeout);
    assert_eq!(waited.elapsed().as_secs(), 90);
    assert!(body.next().await.is_none());
    // It was closed before the body is dropped.
    server.join();
}

/// Time that is not spent waiting does not count as silence.
#[tokio::test]
async fn a_slow_reader_is_no_silent_server() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        for _ in 0..5 {
            peer.write("\r\n");
            peer.stream.flush().unwrap();
        }
        peer.expect_close();
    });
    let mut body = send(&client(&server.base()), Limits::for_stream()).await.unwrap();
    let mut read = 0;
    while read < 10 {
        read += body.next().await.unwrap().unwrap().len();
        // Only here: a clock that is stopped jumps to the limit while the server is about to write.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(600)).await;
        tokio::time::resume();
    }
    drop(body);
    server.join();
}

#[tokio::test]
async fn a_slow_reader_holds_the_server_up() {
    let _watchdog = watchdog();
    const ALL: usize = 64 << 20;
    let (blocked, is_blocked) = tokio::sync::oneshot::channel();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.open_stream();
        peer.stream.set_write_timeout(Some(MOMENT * 10)).unwrap();
        let piece = vec![b' '; 1 << 16];
        let mut written = 0;
        let mut blocked = Some(blocked);
        while written < ALL {
            match peer.stream.write(&piece) {
                Ok(length) => written += length,
                Err(_) => {
                    if let Some(blocked) = blocked.take() {
                        blocked.send(written).unwrap();
                    }
                }
            }
        }
        written
    });
    let mut body = send(&client(&server.base()), Limits::for_stream()).await.unwrap();
    let first = body.next().await.unwrap().unwrap().len();
    // The runtime runs; nobody reads.
    let written = is_blocked.await.unwrap();
    assert!(written < ALL / 2, "{written}");
    let rest = read(body).await.unwrap();
    assert_eq!(first + rest, server.joined().await);
}

#[tokio::test]
async fn kept_connections_are_closed_after_a_while() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.request();
        peer.answer("200 OK", "");
        peer.expect_close();
    });
    let stride = client(&server.base());
    assert_eq!(stride.post("/collect/a", &json!({})).await.unwrap().status(), 200);
    tokio::time::pause();
    let kept = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(kept.elapsed() < Duration::from_secs(17));
    server.join();
}

#[test]
fn a_limit_of_zero_is_refused() {
    let builder = || Stride::builder("secret_key");
    assert!(builder().timeout(Duration::ZERO).build().is_err());
    assert!(builder().connect_timeout(Duration::ZERO).build().is_err());
    assert!(builder().timeout(Duration::MAX).connect_timeout(Duration::MAX).build().is_ok());
}
