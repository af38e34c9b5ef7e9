//! The settings, without any client crate.

use super::*;
use crate::cancel::CancelToken;
use crate::transport::Body;

/// A client whose own transport responds 204, and has the proxy's host as a header.
#[derive(Debug)]
struct Fake(Client<dyn Transport>);

const VARIABLES: [(&str, &str); 2] =
    [("STRIDE_API_KEY", "from_env"), ("HTTPS_PROXY", "http://proxy.example:3128")];

impl FromClient<dyn Transport> for Fake {
    const HTTPS: bool = true;

    fn variable(name: &str) -> Option<String> {
        let found = VARIABLES.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn transport(proxy: Option<Proxy>, _: &Trust) -> Result<Arc<dyn Transport>, ConfigError> {
        let proxy = proxy.map_or("none".to_owned(), |proxy| proxy.host().to_owned());
        Ok(Arc::new(
            move |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
                let response = http::Response::builder().status(204).header("x-proxy", &proxy);
                Ok(response.body(Body::default()).unwrap())
            },
        ))
    }

    fn from_client(client: Client<dyn Transport>) -> Self {
        Self(client)
    }
}

type Builder = StrideBuilder<Fake, dyn Transport>;

/// One whose own transport does not speak `https`.
#[derive(Debug)]
struct Plain;

impl FromClient<dyn Transport> for Plain {
    const HTTPS: bool = false;

    fn variable(_: &str) -> Option<String> {
        None
    }

    fn transport(proxy: Option<Proxy>, trust: &Trust) -> Result<Arc<dyn Transport>, ConfigError> {
        Fake::transport(proxy, trust)
    }

    fn from_client(_: Client<dyn Transport>) -> Self {
        Self
    }
}

#[test]
fn https_without_tls_is_refused_by_build_unless_the_transport_is_custom() {
    let builder = || StrideBuilder::<Plain, dyn Transport>::new("key");
    for builder in [builder(), builder().proxy("127.0.0.1:9"), builder().endpoint("https://h/v1")] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
    assert!(builder().endpoint("http://localhost/v1").build().is_ok());
    let custom = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::default())
    };
    assert!(builder().transport(custom).build().is_ok());
    assert!(StrideBuilder::<Plain, dyn Transport>::from_env().is_err());
}

fn proxy_of(builder: Builder) -> String {
    let client = builder.build().unwrap().0;
    let request = client.api().get("/collect").unwrap();
    let (call, exchange) = client.begin(request);
    let response = client.transport().send(call, CancelToken::never()).unwrap();
    let response = exchange.finish(Response::read(response, 100)).unwrap();
    assert_eq!(response.attempt().unwrap().path(), "/v1/collect");
    response.headers()["x-proxy"].to_str().unwrap().to_owned()
}

#[test]
fn the_environment_names_the_key_and_the_proxy() {
    let builder = Builder::from_env().unwrap();
    let request = builder.clone().build().unwrap().0.api().get("/collect").unwrap();
    // from_env:
    assert_eq!(request.headers()["authorization"], "Basic ZnJvbV9lbnY6");
    assert_eq!(proxy_of(builder.clone()), "proxy.example");
    assert_eq!(proxy_of(builder.clone().no_proxy()), "none");
    assert_eq!(proxy_of(builder.clone().proxy("other.example")), "other.example");
    assert_eq!(proxy_of(builder.endpoint("http://localhost/v1")), "none");
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_name() {
    let setting = |builder: Builder| match builder.build() {
        Err(ConfigError::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    let builder = || Builder::new("key");
    assert_eq!(setting(builder().timeout(Duration::ZERO)), "timeout");
    assert_eq!(setting(builder().connect_timeout(Duration::ZERO)), "connect_timeout");
    assert_eq!(setting(builder().proxy("socks5://x")), "proxy");
    assert_eq!(setting(builder().header("host", "x")), "header");
    assert_eq!(builder().user_agent("a\nb").build().unwrap_err(), ConfigError::UserAgent);
    assert_eq!(Builder::new("").build().unwrap_err(), ConfigError::EmptyKey);
    let client = builder().build().unwrap().0;
    assert!(client.with_timeout(Duration::ZERO).is_err());
    assert!(client.with_header("host", "x").is_err());
}

#[test]
fn plain_http_needs_leave_wherever_it_is_given() {
    let base = "http://stride.example.com/v1";
    let builder = || Builder::new("key").timeout(Duration::MAX).connect_timeout(Duration::MAX);
    let refused = builder().endpoint(base).build().unwrap_err();
    assert!(matches!(refused, ConfigError::PlainHttp { .. }), "{refused:?}");
    for builder in
        [builder().allow_plain_http().endpoint(base), builder().endpoint(base).allow_plain_http()]
    {
        assert_eq!(builder.build().unwrap().0.api().base(), base);
    }
}

#[test]
fn a6_a_client_with_another_timeout_or_header_leaves_the_first_alone() {
    let client = Builder::new("key").timeout(Duration::from_secs(7)).build().unwrap().0;
    let other = client.with_timeout(Duration::from_secs(2)).unwrap();
    let other = other.with_header("traceparent", "00-1-2-01").unwrap();
    let call =
        |client: &Client<dyn Transport>| client.begin(client.api().get("/collect").unwrap()).0;
    assert_eq!(call(&client).limits.total, Some(Duration::from_secs(7)));
    assert_eq!(call(&other).limits.total, Some(Duration::from_secs(2)));
    assert!(!call(&client).request.headers().contains_key("traceparent"));
    assert_eq!(call(&other).request.headers()["traceparent"], "00-1-2-01");
}

#[test]
fn nothing_secret_shows_in_debug() {
    let builder = Builder::new("s3cret").proxy("http://me:passw0rd@proxy.example");
    let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
    let refused = Builder::new("s3cret").proxy("socks5://me:passw0rd@proxy.example").build();
    let shown = format!("{shown} {refused:?} {}", refused.as_ref().unwrap_err());
    assert!(!shown.contains("s3cret") && !shown.contains("passw0rd"), "{shown}");
}

#[cfg(feature = "tls")]
#[test]
fn what_is_not_a_certificate_is_refused() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    for certificate in ["", "nonsense", pem, "-----BEGIN NOTHING-----"] {
        let mut trust = Trust::default();
        trust.add_root(certificate.as_bytes());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let error = trust.client_config(provider, None).unwrap_err();
        assert!(matches!(error, ConfigError::Setting { setting: "root_certificate", .. }));
    }
}
