//! TLS with an authority of our own.

use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use stride_async::{Delivery, Stride, StrideBuilder, TransportErrorKind};

use crate::proxies::proxy;
use crate::server::{Peer, Server};
use crate::{chain, transport_error, watchdog};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certified(authority: &Authority, name: &str, expired: bool) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn encrypted(
    peer: Peer,
    config: Arc<ServerConfig>,
) -> Peer<StreamOwned<ServerConnection, TcpStream>> {
    let connection = ServerConnection::new(config).unwrap();
    Peer { stream: StreamOwned::new(connection, peer.stream) }
}

fn at(server: &Server<impl Send + 'static>, host: &str) -> StrideBuilder {
    let port = server.address.port();
    Stride::builder("secret_key").endpoint(&format!("https://{host}:{port}/v1"))
}

#[tokio::test]
async fn a_root_certificate_is_trusted() {
    let _watchdog = watchdog();
    let authority = authority();
    for certificate in [authority.pem().into_bytes(), authority.der().to_vec()] {
        let config = certified(&authority, "localhost", false);
        let server = Server::run(|listener| {
            let mut peer = encrypted(Peer::accept(&listener), config);
            for _ in 0..2 {
                peer.request();
                peer.answer("200 OK", "[]");
            }
            peer.stream.conn.alpn_protocol().map(<[u8]>::to_vec)
        });
        let stride = at(&server, "localhost").root_certificate(certificate).build().unwrap();
        for _ in 0..2 {
            assert_eq!(stride.get("/collect").await.unwrap().body(), "[]");
        }
        assert_eq!(server.joined().await.as_deref(), Some(&b"http/1.1"[..]));
    }
}

async fn refused(builder: StrideBuilder, server: Server, because: &str) {
    let stride = builder.build().unwrap();
    let error = transport_error(stride.get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Tls, "{}", chain(&error));
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(chain(&error).contains(because), "{}", chain(&error));
    server.joined().await;
}

/// A server that does not get past the handshake.
fn refusing(config: Arc<ServerConfig>) -> Server {
    Server::run(move |listener| {
        let mut peer = encrypted(Peer::accept(&listener), config);
        let Peer { stream } = &mut peer;
        assert!(stream.conn.complete_io(&mut stream.sock).is_err());
    })
}

#[tokio::test]
async fn a_certificate_that_is_no_good_is_refused_and_the_cause_says_why() {
    let _watchdog = watchdog();
    let authority = authority();
    let trusted = |server: &Server, host| at(server, host).root_certificate(authority.pem());

    let server = refusing(certified(&authority, "localhost", false));
    refused(at(&server, "localhost"), server, "UnknownIssuer").await;
    let server = refusing(certified(&authority, "localhost", true));
    refused(trusted(&server, "localhost"), server, "expired").await;
    let server = refusing(certified(&authority, "stride.example.com", false));
    refused(trusted(&server, "localhost"), server, "not valid for name").await;
    let server = refusing(certified(&authority, "localhost", false));
    refused(trusted(&server, "127.0.0.1"), server, "not valid for name").await;
}

#[tokio::test]
async fn a_server_that_speaks_no_tls() {
    let _watchdog = watchdog();
    let server = Server::run(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        let _ = std::io::copy(&mut peer.stream, &mut std::io::sink());
    });
    refused(at(&server, "localhost"), server, "message").await;
}

#[tokio::test]
async fn through_a_proxy() {
    let _watchdog = watchdog();
    let authority = authority();
    let config = certified(&authority, "localhost", false);
    let server = Server::run(|listener| {
        let mut peer = encrypted(Peer::accept(&listener), config);
        peer.request();
        peer.answer("200 OK", "[]");
    });
    let proxy = proxy();
    let builder = at(&server, "localhost").root_certificate(authority.pem());
    let stride = builder.proxy(&proxy.address.to_string()).build().unwrap();
    assert_eq!(stride.get("/collect").await.unwrap().body(), "[]");
    drop(stride);
    server.joined().await;
    assert!(proxy.joined().await.starts_with("connect localhost:"));
}

#[tokio::test]
async fn dropping_a_subscription_closes_it() {
    let _watchdog = watchdog();
    let authority = authority();
    let config = certified(&authority, "localhost", false);
    let server = Server::run(|listener| {
        let mut peer = encrypted(Peer::accept(&listener), config);
        peer.open_stream();
        peer.expect_close();
    });
    let stride = at(&server, "localhost").root_certificate(authority.pem()).build().unwrap();
    let events = stride.subscribe("/collect/a").events::<Value>().await.unwrap();
    drop(events);
    server.join();
}

/// Where only its connection ends a body, an end without TLS's own goodbye may be an attacker's.
#[tokio::test]
async fn a_body_that_ends_without_a_goodbye_is_cut_off() {
    let _watchdog = watchdog();
    let authority = authority();
    let config = certified(&authority, "localhost", false);
    let server = Server::run(|listener| {
        let mut peer = encrypted(Peer::accept(&listener), config);
        peer.request();
        peer.write("HTTP/1.1 200 OK\r\n\r\n[1]");
    });
    let stride = at(&server, "localhost").root_certificate(authority.pem()).build().unwrap();
    let error = transport_error(stride.get("/collect").await.unwrap_err());
    assert_eq!(error.kind(), TransportErrorKind::Io, "{}", chain(&error));
    server.joined().await;
}

#[test]
fn a_root_certificate_that_is_none_is_refused() {
    for certificate in ["", "secret", "-----BEGIN CERTIFICATE-----\n"] {
        let error = Stride::builder("key").root_certificate(certificate).build().unwrap_err();
        assert!(error.to_string().contains("root_certificate"), "{error}");
    }
}
