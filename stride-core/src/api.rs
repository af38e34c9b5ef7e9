//! Requests of the Stride API: checked against its paths, encoded, compressed and signed, but never
//! sent.

mod path;
mod request;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

pub use self::path::{PathError, is_name};
pub use self::request::RequestError;
use crate::config::{ConfigError, is_loopback};

/// The hosted service as its original clients knew it.
const DEFAULT_BASE: &str = "https://api.stride.io/v1";

/// `<client> (version: <x.y.z>)`, as the original clients name themselves.
const DEFAULT_USER_AGENT: &str = concat!("stride-rust (version: ", env!("CARGO_PKG_VERSION"), ")");

/// The headers that the protocol or the transport sets.
const RESERVED: [HeaderName; 13] = [
    ACCEPT,
    ACCEPT_ENCODING,
    AUTHORIZATION,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
];

/// The secret or open key of a project. Its `Debug` is `ApiKey(..)`, and no error or log shows it.
#[derive(Clone)]
pub struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl From<&str> for ApiKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

/// A base URL, and the key that signs requests to it.
///
/// Its methods build requests ([`get`](Self::get), [`post`](Self::post) and so on) and send none.
/// The paths are those of Stride's API without its version: `/collect`, `/process/NAME/stats`.
///
/// Each request carries the key as Basic authentication (marked sensitive, so that `Debug` does not
/// show it), `Accept: application/json`, `Accept-Encoding: identity`, `Content-Type:
/// application/json`, as the original clients send it even without a body, and `User-Agent`. Bodies
/// of `POST` under `/collect` are gzip-compressed; no other body is.
///
/// ```
/// use stride_core::Api;
///
/// let api = Api::new("helloworld")?.with_base("http://127.0.0.1:8080/v1")?;
/// let request = api.get("/collect")?;
/// assert_eq!(request.uri(), "http://127.0.0.1:8080/v1/collect");
/// assert_eq!(request.headers()["authorization"], "Basic aGVsbG93b3JsZDo=");
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Api {
    base: String,
    /// The same, parsed once and not for each request.
    uri: Uri,
    authorization: HeaderValue,
    user_agent: HeaderValue,
    /// The caller's own.
    headers: HeaderMap,
    plain_http: bool,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Api {
    /// The hosted service, `https://api.stride.io/v1`, for the holder of `api_key`.
    ///
    /// # Errors
    ///
    /// The key is empty, or holds a colon or a control character.
    pub fn new(api_key: impl Into<ApiKey>) -> Result<Self, ConfigError> {
        let ApiKey(key) = api_key.into();
        if key.is_empty() {
            return Err(ConfigError::EmptyKey);
        }
        if key.contains(':') {
            return Err(ConfigError::ColonInKey);
        }
        if key.contains(char::is_control) {
            return Err(ConfigError::ControlInKey);
        }
        let credentials = BASE64.encode(format!("{key}:"));
        let mut authorization = HeaderValue::try_from(format!("Basic {credentials}"))
            .map_err(|_| ConfigError::ControlInKey)?;
        authorization.set_sensitive(true);
        Ok(Self {
            base: DEFAULT_BASE.to_owned(),
            uri: Uri::from_static(DEFAULT_BASE),
            authorization,
            user_agent: HeaderValue::from_static(DEFAULT_USER_AGENT),
            headers: HeaderMap::new(),
            plain_http: false,
        })
    }

    /// Uses another base URL, its version included: `http://127.0.0.1:8080/v1`.
    ///
    /// # Errors
    ///
    /// Anything but an `http` or `https` URL with a host is refused, as are a port that is not 1 to
    /// 65535, and a user name, a password, a query or a fragment. Plain `http` is refused unless the
    /// host is this machine or [`allow_plain_http`](Self::allow_plain_http) was called before.
    pub fn with_base(mut self, base: &str) -> Result<Self, ConfigError> {
        let bad = |reason| ConfigError::Base { reason };
        let uri: Uri = base.parse().map_err(|_| bad("it is not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(bad("it does not start with https:// or http:// and a host"));
        };
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name or a password"));
        }
        let host = authority.host();
        // `Uri` reads a port that is out of range as none at all, which would be port 80 or 443.
        let port = authority.as_str().strip_prefix(host);
        if host.is_empty() || !port.is_some_and(is_port_or_nothing) {
            return Err(bad("its host is missing, or its port is not 1 to 65535"));
        }
        if uri.query().is_some() || base.contains('#') {
            return Err(bad("it holds a query or a fragment"));
        }
        // `Uri` would take it and send it as it is.
        if !base.is_ascii() {
            return Err(bad("it holds a character that has to be percent-encoded"));
        }
        match scheme {
            "https" => {}
            "http" if self.plain_http || is_loopback(host) => {}
            "http" => return Err(ConfigError::PlainHttp { host: host.to_owned() }),
            _ => return Err(bad("its scheme is neither https nor http")),
        }
        let path = uri.path().trim_end_matches('/');
        self.base = format!("{scheme}://{authority}{path}");
        self.uri = uri;
        Ok(self)
    }

    /// Permits plain `http` to hosts other than this machine, in a later
    /// [`with_base`](Self::with_base). Anyone who sees the traffic then sees the key.
    #[must_use]
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Names the program in the `User-Agent` header; `stride-rust (version: x.y.z)` by default.
    ///
    /// # Errors
    ///
    /// The text cannot stand in a header.
    pub fn with_user_agent(mut self, user_agent: &str) -> Result<Self, ConfigError> {
        self.user_agent = HeaderValue::try_from(user_agent).map_err(|_| ConfigError::UserAgent)?;
        Ok(self)
    }

    /// Adds a header to every request, in addition to any of the same name that was added before.
    ///
    /// # Errors
    ///
    /// The name or the value cannot stand in a header, or the header is one that the protocol sets
    /// itself, such as `Authorization` or `Content-Type`.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let bad = |reason| ConfigError::Setting { setting: "header", reason };
        let name = HeaderName::try_from(name).map_err(|_| bad("has an invalid name"))?;
        if RESERVED.contains(&name) {
            return Err(bad("is one that the client sets itself"));
        }
        let value = HeaderValue::try_from(value).map_err(|_| bad("has an invalid value"))?;
        self.headers.append(name, value);
        Ok(self)
    }

    /// The base URL, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether requests are sent over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

/// Whether what follows a host in a URL is nothing, or a colon and a port from 1 to 65535.
fn is_port_or_nothing(rest: &str) -> bool {
    rest.is_empty()
        || rest.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse().is_ok_and(|port: u16| port > 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Api {
        Api::new("k").unwrap()
    }

    fn refused(result: Result<Api, ConfigError>) -> ConfigError {
        result.unwrap_err()
    }

    #[test]
    fn a_bad_key_is_refused() {
        assert_eq!(refused(Api::new("")), ConfigError::EmptyKey);
        assert_eq!(refused(Api::new("a:b")), ConfigError::ColonInKey);
        assert_eq!(refused(Api::new("secret\n")), ConfigError::ControlInKey);
    }

    #[test]
    fn base_urls() {
        for (base, kept) in [
            ("https://api.example.com/v1", "https://api.example.com/v1"),
            ("https://api.example.com/v1/", "https://api.example.com/v1"),
            ("https://api.example.com", "https://api.example.com"),
            ("HTTPS://api.example.com:8443/a/b", "https://api.example.com:8443/a/b"),
            ("http://localhost:80/v1", "http://localhost:80/v1"),
            ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
            ("http://127.8.9.1", "http://127.8.9.1"),
        ] {
            assert_eq!(api().with_base(base).unwrap().base(), kept, "{base}");
        }
        for base in [
            "",
            "/v1",
            "api.example.com",
            "ftp://x/v1",
            "https://",
            "https://:1",
            "https://u@h/v1",
            "https://h:/v1",
            "https://u:p@h/v1",
            "https://h/v1?x",
            "https://h/v1#x",
            "https://a b/",
            "https://h/\u{e9}",
        ] {
            assert!(matches!(refused(api().with_base(base)), ConfigError::Base { .. }), "{base}");
        }
    }

    #[test]
    fn n1_a_port_that_is_not_1_to_65535_is_refused() {
        for scheme in ["http", "https"] {
            for host in ["localhost", "127.0.0.1", "[::1]"] {
                for port in [
                    ":80800",
                    ":65536",
                    ":99999999999999999999",
                    ":0",
                    ":000",
                    ":abc",
                    ":8080a",
                    ":-1",
                    ":+80",
                    ":",
                    ":80:80",
                    ": 80",
                    ":0x50",
                    ":٨٠",
                ] {
                    let base = format!("{scheme}://{host}{port}/v1");
                    let error = refused(api().with_base(&base));
                    assert!(matches!(error, ConfigError::Base { .. }), "{base}: {error}");
                }
                for port in [":1", ":65535", ":00080"] {
                    let base = format!("{scheme}://{host}{port}/v1");
                    assert_eq!(api().with_base(&base).unwrap().base(), base);
                }
            }
        }
    }

    #[test]
    fn plain_http_needs_leave_by_name() {
        let host = "stride.example.com".to_owned();
        let base = "http://stride.example.com/v1";
        assert_eq!(refused(api().with_base(base)), ConfigError::PlainHttp { host });
        assert_eq!(api().allow_plain_http().with_base(base).unwrap().base(), base);
    }

    #[test]
    fn a6_a_header_that_the_protocol_sets_is_refused() {
        for name in ["Authorization", "content-type", "Host", "user-agent", "content-length"] {
            assert!(api().with_header(name, "x").is_err(), "{name}");
        }
        for (name, value) in [("", "x"), ("a b", "x"), ("x-a", "1\r\nx-b: 2"), ("x-a", "\u{7f}")] {
            assert!(api().with_header(name, value).is_err(), "{name:?} {value:?}");
        }
    }
}
