//! Settings that cannot be used are errors of `build`, each by its name.

use std::time::Duration;

use stride_blocking::{ConfigError, Stride, StrideBuilder};

#[track_caller]
fn refused(builder: StrideBuilder) -> ConfigError {
    match builder.build() {
        Err(error) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_setting(builder: StrideBuilder, expected: &str) {
    match refused(builder) {
        ConfigError::Setting { setting, .. } => assert_eq!(setting, expected),
        other => panic!("{other:?}"),
    }
}

fn builder() -> StrideBuilder {
    Stride::builder("key")
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_name() {
    assert_eq!(refused(Stride::builder("")), ConfigError::EmptyKey);
    assert_eq!(refused(builder().user_agent("a\nb")), ConfigError::UserAgent);
    assert!(matches!(refused(builder().endpoint("nowhere")), ConfigError::Base { .. }));
    assert_setting(builder().timeout(Duration::ZERO), "timeout");
    assert_setting(builder().connect_timeout(Duration::ZERO), "connect_timeout");
    assert_setting(builder().proxy("socks5://127.0.0.1:1080"), "proxy");
}

#[test]
fn plain_http_to_another_machine_needs_leave_wherever_it_is_given() {
    let base = "http://stride.example.com/v1";
    assert!(matches!(refused(builder().endpoint(base)), ConfigError::PlainHttp { .. }));
    for builder in
        [builder().allow_plain_http().endpoint(base), builder().endpoint(base).allow_plain_http()]
    {
        assert_eq!(builder.no_proxy().build().unwrap().api().base(), base);
    }
}

#[test]
#[cfg(feature = "tls")]
fn a_root_that_is_no_certificate_is_refused() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    let nonsense = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for root in ["", "certificate", &key, cut, nonsense] {
        assert_setting(builder().root_certificate(root), "root_certificate");
    }
}

#[test]
#[cfg(feature = "platform-verifier")]
fn the_platform_may_be_asked_whom_to_trust() {
    // A machine without certificates of its own says so.
    match builder().no_proxy().platform_verifier().build() {
        Ok(_) => {}
        Err(error) => assert!(error.to_string().starts_with("platform_verifier"), "{error}"),
    }
}
