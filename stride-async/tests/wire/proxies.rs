//! Proxies that are set by name. What the environment says is a pure function, tested in the core.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use stride_async::{Delivery, Stride, TransportErrorKind};

use crate::server::{Peer, Server};
use crate::{chain, transport_error, watchdog};

fn through(proxy: &str, base: &str) -> Stride {
    Stride::builder("secret_key").endpoint(base).proxy(proxy).build().unwrap()
}

/// A proxy for one connection; what it was asked.
pub(crate) fn proxy() -> Server<String> {
    Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        let head = peer.request().0;
        let target = head.split(' ').nth(1).unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        peer.write("HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n");
        let (mut up, mut down) = (peer.stream.try_clone().unwrap(), server.try_clone().unwrap());
        let upwards = thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut down);
            let _ = down.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut peer.stream);
        let _ = peer.stream.shutdown(std::net::Shutdown::Write);
        upwards.join().unwrap();
        head
    })
}

#[tokio::test]
async fn a_tunnel_is_asked_for_even_to_this_machine() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        let head = peer.request().0;
        peer.answer("200 OK", "[]");
        head
    });
    let address = server.address;
    let proxy = proxy();
    let stride =
        through(&format!("http://me:s%40fe@{}", proxy.address), &format!("http://{address}/v1"));
    assert_eq!(stride.get("/collect").await.unwrap().body(), "[]");
    drop(stride);
    let head = server.joined().await;
    assert!(head.starts_with("get /v1/collect http/1.1\r\n"), "{head}");
    assert!(!head.contains("proxy"), "{head}");
    let head = proxy.joined().await;
    assert!(head.starts_with(&format!("connect {address} http/1.1\r\n")), "{head}");
    // me:s@fe
    assert!(head.contains("proxy-authorization: basic bwu6c0bmzq==\r\n"), "{head}");
    assert!(!head.contains("\r\nauthorization"), "the key is not the proxy's: {head}");
}

#[tokio::test]
async fn a_proxy_that_refuses() {
    let _watchdog = watchdog();
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200",
        "SSH-2.0\r\n\r\n",
        "",
    ] {
        let server = Server::run(|listener| {
            let mut peer = Peer::accept(&listener);
            peer.request();
            peer.stream.write_all(answer.as_bytes()).unwrap();
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
            peer.stream.read_to_end(&mut Vec::new()).unwrap();
        });
        let stride = through(&server.address.to_string(), "https://stride.example.com/v1");
        let error = transport_error(stride.get("/collect").await.unwrap_err());
        // Without TLS it does not get as far as that.
        let kind = if cfg!(feature = "tls") {
            TransportErrorKind::Proxy
        } else {
            TransportErrorKind::Unsupported
        };
        assert_eq!(error.kind(), kind, "{}", chain(&error));
        assert_eq!(error.delivery(), Delivery::NotSent);
        if answer.contains("407") && cfg!(feature = "tls") {
            assert!(chain(&error).contains("407"), "{}", chain(&error));
        }
        if cfg!(not(feature = "tls")) {
            return;
        }
        server.joined().await;
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there() {
    let _watchdog = watchdog();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stride = through(&format!("http://me:hidden@{address}"), "http://127.0.0.1:9/v1");
    let error = transport_error(stride.get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Proxy);
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert!(!format!("{error:?} {stride:?}").contains("hidden"));
}

#[test]
fn a_proxy_that_is_no_good_is_refused() {
    let error = Stride::builder("secret_key").proxy("socks5://me:hidden@p").build().unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hidden"), "{error}");
    let builder = Stride::builder("secret_key").proxy("http://me:hidden@p");
    assert!(!format!("{builder:?}").contains("hidden"));
    assert!(!format!("{builder:?}").contains("secret"));
    assert!(!format!("{:?}", builder.build().unwrap()).contains("secret"));
}
