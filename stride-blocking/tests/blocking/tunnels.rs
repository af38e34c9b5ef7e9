//! Proxies.

use std::io::copy;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use stride_blocking::Stride;

use crate::server::{Server, answer, in_time};

/// A proxy that opens every tunnel it is asked for, and the heads of what it was asked.
pub(crate) fn tunnel() -> (Server, Receiver<String>) {
    let (sent, requests) = channel();
    let sent = Mutex::new(sent);
    let proxy = Server::start(move |_, mut peer| {
        let Some(request) = peer.request() else { return };
        let target = request.head.split(' ').nth(1).unwrap().to_owned();
        sent.lock().unwrap().send(request.head).unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        peer.send("HTTP/1.1 200 Connection established\r\n\r\n");
        let (mut up, mut down) = (peer.stream.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || copy(&mut down, &mut up));
        let _ = copy(&mut peer.stream, &mut server);
    });
    (proxy, requests)
}

#[test]
fn a_proxy_is_asked_for_one_tunnel_per_connection_and_sees_the_credentials() {
    in_time(|| {
        let server = Server::answering(answer("200 OK", "{}"));
        let (proxy, requests) = tunnel();
        let url = format!("http://me:s%40fe@{}", proxy.address);
        let stride = Stride::builder("key").endpoint(&server.base()).proxy(&url).build().unwrap();
        for _ in 0..3 {
            assert_eq!(stride.get("/collect").unwrap().body(), "{}");
        }
        let head = requests.recv().unwrap();
        assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.address)), "{head}");
        assert!(
            head.contains("Proxy-Authorization: Basic bWU6c0BmZQ==\r\n")
                || head.ends_with("Proxy-Authorization: Basic bWU6c0BmZQ=="),
            "{head}"
        );
        assert!(!head.to_ascii_lowercase().contains("\r\nauthorization"), "{head}");
        assert_eq!((server.connections(), proxy.connections()), (1, 1));
    });
}

#[test]
fn a_proxy_is_left_aside_when_that_is_wanted() {
    let server = Server::answering(answer("200 OK", "{}"));
    let (proxy, _requests) = tunnel();
    let stride = Stride::builder("key")
        .endpoint(&server.base())
        .proxy(&proxy.address.to_string())
        .no_proxy()
        .build()
        .unwrap();
    assert_eq!(stride.get("/collect").unwrap().body(), "{}");
    assert_eq!(proxy.connections(), 0);
}
