//! TLS against servers whose certificates come from an authority of our own.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use stride_blocking::{Delivery, Error, Response, Stride, TransportError, TransportErrorKind};

use crate::server::{MINUTE, Peer, STREAM, Server, answer, in_time};
use crate::tunnels::tunnel;

static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
});

/// Serves over TLS, with a certificate for `name` that may have expired.
fn server(
    name: &str,
    expired: bool,
    handle: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> Server {
    // Whatever the program's default is, here one that can do nothing, it must not matter.
    let broken = CryptoProvider { cipher_suites: Vec::new(), ..ring::default_provider() };
    let _ = broken.install_default();

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let certificate = params.signed_by(&key, &*AUTHORITY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    Server::start(move |_, peer: Peer| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        handle(StreamOwned::new(connection, peer.stream));
    })
}

/// Reads to the end of a head; the requests here have no body.
fn request(stream: &mut impl Read) -> bool {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while !received.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(length) => received.extend_from_slice(&chunk[..length]),
        }
    }
    true
}

fn answering(name: &str, expired: bool) -> Server {
    server(name, expired, |mut stream| {
        while request(&mut stream) {
            let _ = stream.write_all(answer("200 OK", "[\"a\"]").as_bytes());
        }
    })
}

fn client(server: &Server, trusting: bool) -> stride_blocking::StrideBuilder {
    let base = format!("https://localhost:{}/v1", server.address.port());
    let builder = Stride::builder("key").endpoint(&base);
    if trusting { builder.root_certificate(AUTHORITY.pem()) } else { builder }
}

fn failed(result: Result<Response, Error>) -> TransportError {
    match result {
        Err(Error::Transport(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trusted_server_is_spoken_to() {
    in_time(|| {
        let server = answering("localhost", false);
        let der = Stride::builder("key")
            .endpoint(&format!("https://localhost:{}/v1", server.address.port()))
            .root_certificate(AUTHORITY.der());
        for builder in [client(&server, true), der] {
            let stride = builder.build().unwrap();
            for _ in 0..3 {
                let streams: Vec<String> = stride.get("/collect").unwrap().data().unwrap().unwrap();
                assert_eq!(streams, ["a"]);
            }
        }
        assert_eq!(server.connections(), 2, "a connection is used again");
    });
}

#[test]
fn one_that_is_not_trusted_is_refused_and_the_error_says_why() {
    in_time(|| {
        for (server, trusting, why) in [
            (answering("localhost", false), false, "UnknownIssuer"),
            (answering("other.example", false), true, "not valid for name \"localhost\""),
            (answering("localhost", true), true, "expired"),
        ] {
            let error = failed(client(&server, trusting).build().unwrap().get("/collect"));
            assert_eq!(
                (error.kind(), error.delivery()),
                (TransportErrorKind::Tls, Delivery::NotSent)
            );
            let source = error.source().unwrap().to_string();
            assert!(source.contains(why), "{source}");
        }
    });
}

#[test]
#[cfg(feature = "platform-verifier")]
fn a_further_root_is_trusted_beside_those_of_the_platform() {
    in_time(|| {
        let server = answering("localhost", false);
        match client(&server, true).platform_verifier().build() {
            Ok(stride) => assert_eq!(stride.get("/collect").unwrap().status(), 200),
            Err(error) => assert!(error.to_string().starts_with("platform_verifier"), "{error}"),
        }
    });
}

#[test]
fn a_server_without_tls_is_refused() {
    in_time(|| {
        let plain = Server::start(|_, mut peer| {
            peer.send("HTTP/1.1 400 Bad Request\r\n\r\n");
            peer.request();
        });
        let error = failed(client(&plain, true).build().unwrap().get("/collect"));
        assert_eq!((error.kind(), error.delivery()), (TransportErrorKind::Tls, Delivery::NotSent));
    });
}

#[test]
fn a_handshake_that_goes_nowhere_ends_at_the_limit_on_connecting() {
    in_time(|| {
        let silent = Server::start(|_, mut peer| {
            peer.request();
        });
        let builder = client(&silent, true).timeout(MINUTE);
        let limit = std::time::Duration::from_millis(200);
        let error = failed(builder.connect_timeout(limit).build().unwrap().get("/collect"));
        assert_eq!(
            (error.kind(), error.delivery()),
            (TransportErrorKind::ConnectTimeout, Delivery::NotSent)
        );
    });
}

#[test]
fn a_body_that_ends_with_its_connection_needs_a_farewell() {
    in_time(|| {
        for farewell in [true, false] {
            let server = server("localhost", false, move |mut stream| {
                request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[\"a\"]").unwrap();
                if farewell {
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                }
            });
            let result = client(&server, true).build().unwrap().get("/collect");
            if farewell {
                assert_eq!(result.unwrap().body(), "[\"a\"]");
            } else {
                let error = failed(result);
                assert_eq!(
                    (error.kind(), error.delivery()),
                    (TransportErrorKind::Io, Delivery::MaybeSent)
                );
            }
        }
    });
}

#[test]
fn a_subscription_is_stopped_within_tls() {
    in_time(|| {
        let server = server("localhost", false, |mut stream| {
            request(&mut stream);
            stream.write_all(STREAM.as_bytes()).unwrap();
            request(&mut stream);
        });
        let stride = client(&server, true).build().unwrap();
        let data = stride.subscribe("/collect/a").idle_timeout(MINUTE).data::<Value>().unwrap();
        let stop = data.stop_handle();
        let drained = std::thread::spawn(move || data.count());
        stop.stop();
        assert_eq!(drained.join().unwrap(), 0);
    });
}

#[test]
fn a_tunnel_leads_to_tls() {
    in_time(|| {
        let (proxy, requests) = tunnel();
        let proxy = proxy.address.to_string();
        let trusted = answering("localhost", false);
        let stride = client(&trusted, true).proxy(&proxy).build().unwrap();
        assert_eq!(stride.get("/collect").unwrap().data::<Value>().unwrap(), Some(json!(["a"])));
        let target = format!("CONNECT localhost:{} HTTP/1.1\r\n", trusted.address.port());
        assert!(requests.recv().unwrap().starts_with(&target));
        let unknown = client(&trusted, false).proxy(&proxy).build().unwrap();
        let error = failed(unknown.get("/collect"));
        assert_eq!((error.kind(), error.delivery()), (TransportErrorKind::Tls, Delivery::NotSent));
    });
}
