//! TLS against servers whose certificates come from an authority that nobody else trusts.

use rustls::crypto::{CryptoProvider, ring};
use serde_json::{Value, json};
use stride_core::ConfigError;
use stride_core::subscribe::Reconnect;
use stride_core::transport::{Delivery, TransportErrorKind as Kind};
use stride_tests::wire::tls::Authority;
use stride_tests::wire::{Act, STREAM, Server, response};
use stride_tests::{Builder, Over, chain, failed, suite};

use crate::{MINUTE, SOON, assert_fault};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_trusted_server_is_spoken_to,
        a_server_that_is_not_trusted_is_refused_and_the_error_says_why,
        another_root_is_trusted_beside_those_of_the_platform,
        a_server_without_tls_is_refused,
        a_handshake_that_goes_nowhere_ends_at_the_limit_on_connecting,
        a_body_that_ends_with_its_connection_needs_a_goodbye,
        dropping_a_subscription_closes_its_connection,
        a_tunnel_leads_to_tls,
        a6_a_client_certificate_is_shown_to_a_server_that_asks,
        a_root_that_is_not_a_certificate_is_refused,
    ]
}

fn authority() -> Authority {
    // Whatever the program's default is, here one that can do nothing, it must not matter.
    let broken = CryptoProvider { cipher_suites: Vec::new(), ..ring::default_provider() };
    let _ = broken.install_default();
    Authority::new()
}

/// A server of `["a"]` that is called `localhost`.
fn listing(authority: &Authority) -> Server {
    let text = response("200 OK", "[\"a\"]");
    let exchange = move || vec![Act::Request, Act::text(&text)];
    Server::always_tls(&authority.identity("localhost"), exchange)
}

fn at(over: Over, server: &Server) -> Builder {
    over.builder().endpoint(&server.https_endpoint("localhost"))
}

fn a_trusted_server_is_spoken_to(over: Over) {
    let authority = authority();
    let server = listing(&authority);
    for root in [authority.pem().into_bytes(), authority.der()] {
        let client = at(over, &server).root_certificate(root).build().unwrap();
        for _ in 0..3 {
            let streams: Vec<String> = client.get("/collect").unwrap().data().unwrap().unwrap();
            assert_eq!(streams, ["a"]);
        }
    }
    assert_eq!(server.connections(), 2, "a connection is used again");
    assert_eq!(server.protocols(), [Some("http/1.1".to_owned()), Some("http/1.1".to_owned())]);
}

fn a_server_that_is_not_trusted_is_refused_and_the_error_says_why(over: Over) {
    let authority = authority();
    let good = authority.identity("localhost");
    let other = authority.identity("other.example");
    let expired = authority.expired_identity("localhost");
    for (identity, host, trusting, why) in [
        (&good, "localhost", false, "UnknownIssuer"),
        (&good, "127.0.0.1", true, "not valid for name"),
        (&other, "localhost", true, "not valid for name \"localhost\""),
        (&expired, "localhost", true, "expired"),
    ] {
        let server = Server::start_tls(identity, [vec![Act::Request]]);
        let mut builder = over.builder().endpoint(&server.https_endpoint(host));
        if trusting {
            builder = builder.root_certificate(authority.pem());
        }
        let error = failed(builder.build().unwrap().get("/collect"));
        assert_fault(&error, Kind::Tls, Delivery::NotSent);
        assert!(chain(&error).contains(why), "{}", chain(&error));
        assert!(server.protocols().is_empty() && server.requests().is_empty());
    }
}

fn another_root_is_trusted_beside_those_of_the_platform(over: Over) {
    let authority = authority();
    let server = listing(&authority);
    let builder = at(over, &server).root_certificate(authority.pem());
    // A machine without certificates says so.
    match builder.platform_verifier().build() {
        Ok(client) => assert_eq!(client.get("/collect").unwrap().status(), 200),
        Err(error) => assert!(error.to_string().starts_with("platform_verifier"), "{error}"),
    }
    match over.builder().platform_verifier().build() {
        Ok(_) => {}
        Err(error) => assert!(error.to_string().starts_with("platform_verifier"), "{error}"),
    }
}

fn a_server_without_tls_is_refused(over: Over) {
    let text = response("400 Bad Request", "");
    let server = Server::start([vec![Act::text(&text), Act::Closed]]);
    let error = failed(at(over, &server).build().unwrap().get("/collect"));
    assert_fault(&error, Kind::Tls, Delivery::NotSent);
    assert!(chain(&error).contains("message"), "{}", chain(&error));
}

fn a_handshake_that_goes_nowhere_ends_at_the_limit_on_connecting(over: Over) {
    let server = Server::start([vec![Act::Closed]]);
    let builder = at(over, &server).timeout(MINUTE).connect_timeout(SOON);
    let error = failed(builder.build().unwrap().get("/collect"));
    assert_fault(&error, Kind::ConnectTimeout, Delivery::NotSent);
}

/// Where only its connection ends a body, an end without TLS's goodbye may be an attacker's.
fn a_body_that_ends_with_its_connection_needs_a_goodbye(over: Over) {
    let authority = authority();
    for goodbye in [true, false] {
        let mut acts = vec![Act::Request, Act::text("HTTP/1.1 200 OK\r\n\r\n[\"a\"]")];
        if goodbye {
            acts.push(Act::Goodbye);
        }
        acts.push(Act::Close);
        let server = Server::start_tls(&authority.identity("localhost"), [acts]);
        let client = at(over, &server).root_certificate(authority.pem()).build().unwrap();
        let result = client.get("/collect");
        if goodbye {
            assert_eq!(result.unwrap().body(), "[\"a\"]");
        } else {
            assert_fault(&failed(result), Kind::Io, Delivery::MaybeSent);
        }
    }
}

fn dropping_a_subscription_closes_its_connection(over: Over) {
    let authority = authority();
    let exchange = vec![Act::Request, Act::text(STREAM), Act::Closed];
    let server = Server::start_tls(&authority.identity("localhost"), [exchange]);
    let client = at(over, &server).root_certificate(authority.pem()).build().unwrap();
    drop(client.subscribe("/collect/a", None, Reconnect::Never, MINUTE).unwrap());
    server.wait_until_closed(1);
}

fn a_tunnel_leads_to_tls(over: Over) {
    let authority = authority();
    let server = listing(&authority);
    let proxy = Server::proxy();
    let builder = || at(over, &server).proxy(&proxy.address().to_string());
    let client = builder().root_certificate(authority.pem()).build().unwrap();
    assert_eq!(client.get("/collect").unwrap().data::<Value>().unwrap(), Some(json!(["a"])));
    let asked = format!("CONNECT localhost:{}", server.address().port());
    assert_eq!(proxy.requests()[0].line(), asked);
    let error = failed(builder().build().unwrap().get("/collect"));
    assert_fault(&error, Kind::Tls, Delivery::NotSent);
}

fn a6_a_client_certificate_is_shown_to_a_server_that_asks(over: Over) {
    let (authority, clients) = (authority(), Authority::new());
    let exchange = || vec![Act::Request, Act::text(&response("200 OK", "[]"))];
    let server = Server::always_tls(&authority.asking_identity("localhost", &clients), exchange);
    let builder = || at(over, &server).root_certificate(authority.pem());
    let (certificate, key) = clients.client();
    let client = builder().client_certificate(&certificate, &key).build().unwrap();
    assert_eq!(client.get("/collect").unwrap().status(), 200);

    let (certificate, key) = authority.client();
    let strangers = [builder(), builder().client_certificate(&certificate, &key)];
    for builder in strangers {
        // The refusal comes after the client's part of the handshake, so the request may be out.
        let error = failed(builder.build().unwrap().get("/collect"));
        assert!(matches!(error.kind(), Kind::Tls | Kind::Io), "{}", chain(&error));
    }
    assert_eq!(server.requests().len(), 1);
}

fn a_root_that_is_not_a_certificate_is_refused(over: Over) {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    let nonsense = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for root in ["", "certificate", &key, cut, nonsense] {
        match over.builder().root_certificate(root).build() {
            Err(ConfigError::Setting { setting: "root_certificate", .. }) => {}
            other => panic!("{root}: {other:?}"),
        }
    }
}
