//! Proxies that are set by name. What the environment says is a pure function, tested in the core.

use stride_core::transport::{Delivery, TransportErrorKind as Kind};
use stride_tests::wire::{Act, RefusingPort, Server, response};
use stride_tests::{Over, chain, failed, suite};

use crate::assert_fault;

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_proxy_is_asked_for_one_tunnel_per_connection_and_sees_the_credentials,
        a_proxy_is_left_aside_when_that_is_wanted,
        a_proxy_that_refuses_was_not_sent_the_request,
        a_proxy_that_is_not_there_was_not_sent_the_request,
    ]
}

fn a_proxy_is_asked_for_one_tunnel_per_connection_and_sees_the_credentials(over: Over) {
    let server = Server::responding(response("200 OK", "{}"));
    let proxy = Server::proxy();
    let url = format!("http://me:s%40fe@{}", proxy.address());
    let client = over.builder().endpoint(&server.endpoint()).proxy(&url).build().unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/collect").unwrap().body(), "{}");
    }
    assert_eq!((server.connections(), proxy.connections()), (1, 1));
    let requests = proxy.requests();
    let [asked] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(asked.line(), format!("CONNECT {}", server.address()));
    // me:s@fe
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6c0BmZQ=="));
    assert_eq!(asked.header("authorization"), None, "the key is not for the proxy");
    for request in server.requests() {
        assert_eq!(request.line(), "GET /v1/collect");
        assert!(!request.head.to_lowercase().contains("proxy"), "{}", request.head);
    }
}

fn a_proxy_is_left_aside_when_that_is_wanted(over: Over) {
    let server = Server::responding(response("200 OK", "{}"));
    let proxy = Server::proxy();
    let builder = over.builder().endpoint(&server.endpoint());
    let client = builder.proxy(&proxy.address().to_string()).no_proxy().build().unwrap();
    assert_eq!(client.get("/collect").unwrap().body(), "{}");
    assert_eq!(proxy.connections(), 0);
}

fn a_proxy_that_refuses_was_not_sent_the_request(over: Over) {
    let server = Server::responding(response("200 OK", "{}"));
    type End = fn() -> Act;
    let ends: [(&str, End); 5] = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", || Act::Closed),
        ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", || {
            Act::HalfClose
        }),
        ("HTTP/1.1 200", || Act::HalfClose),
        ("SSH-2.0\r\n\r\n", || Act::HalfClose),
        ("", || Act::Close),
    ];
    for (text, end) in ends {
        let exchange = move || vec![Act::Request, Act::text(text), end(), Act::Closed];
        let proxy = Server::always(exchange);
        for endpoint in [server.endpoint(), server.https_endpoint("localhost")] {
            let proxy = proxy.address().to_string();
            let client = over.builder().endpoint(&endpoint).proxy(&proxy).build().unwrap();
            let error = failed(client.get("/collect"));
            assert_fault(&error, Kind::Proxy, Delivery::NotSent);
            if text.contains("407") {
                assert!(chain(&error).contains("407"), "{}", chain(&error));
            }
        }
    }
    assert_eq!(server.connections(), 0);
}

fn a_proxy_that_is_not_there_was_not_sent_the_request(over: Over) {
    let port = RefusingPort::new();
    let proxy = format!("http://me:hidden@{}", port.address());
    let client = over.builder().endpoint("http://127.0.0.1:9/v1").proxy(&proxy).build().unwrap();
    let error = failed(client.get("/collect"));
    assert_fault(&error, Kind::Proxy, Delivery::NotSent);
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert!(!format!("{error:?} {client:?}").contains("hidden"));
}
