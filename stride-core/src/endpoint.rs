//! Where requests go and who sends them.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderValue, Uri};

use crate::Error;

/// The hosted service as its original clients knew it.
const DEFAULT_BASE: &str = "https://api.stride.io/v1";

/// `<client> (version: <x.y.z>)`, as the original clients name themselves.
const DEFAULT_USER_AGENT: &str = concat!("stride-rust (version: ", env!("CARGO_PKG_VERSION"), ")");

/// The secret or open key of a project. It never shows itself: its `Debug` is `ApiKey(..)`.
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

/// What is wrong with a key, a base URL or another setting. The key itself is never part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The API key is empty.
    #[error("the API key is empty")]
    EmptyKey,
    /// A colon would end the user name of the Basic authentication.
    #[error("the API key holds a colon")]
    ColonInKey,
    /// A line break or another control character, most often read from a file along with the key.
    #[error("the API key holds a control character, such as a line break at its end")]
    ControlInKey,
    /// The base URL cannot be used.
    #[error("the base URL is no good: {reason}")]
    Base {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key would travel in the clear.
    #[error(
        "plain http to {host} would show the API key to the network: use https, or allow it by name"
    )]
    PlainHttp {
        /// The host of the base URL.
        host: String,
    },
    /// The user agent cannot stand in a header.
    #[error("the user agent holds a character that a header cannot")]
    UserAgent,
    /// Another setting cannot be used.
    #[error("{setting} {reason}")]
    Setting {
        /// The name of the setting, as its builder calls it.
        setting: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
}

/// A base URL and the key that signs requests to it.
///
/// Its methods build requests ([`get`](Self::get), [`post`](Self::post) and so on) and send none.
///
/// ```
/// use stride_core::Endpoint;
///
/// let endpoint = Endpoint::new("helloworld")?.with_base("http://127.0.0.1:8080/v1")?;
/// let request = endpoint.get("/collect")?;
/// assert_eq!(request.uri(), "http://127.0.0.1:8080/v1/collect");
/// assert_eq!(request.headers()["authorization"], "Basic aGVsbG93b3JsZDo=");
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Endpoint {
    base: String,
    /// The same, parsed once and not for each request.
    pub(crate) uri: Uri,
    pub(crate) authorization: HeaderValue,
    pub(crate) user_agent: HeaderValue,
    plain_http: bool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The hosted service, `https://api.stride.io/v1`, for the holder of `api_key`.
    ///
    /// # Errors
    ///
    /// A key that is empty, or holds a colon or a control character, is refused.
    pub fn new(api_key: impl Into<ApiKey>) -> Result<Self, Error> {
        let ApiKey(key) = api_key.into();
        if key.is_empty() {
            return Err(EndpointError::EmptyKey.into());
        }
        if key.contains(':') {
            return Err(EndpointError::ColonInKey.into());
        }
        if key.contains(char::is_control) {
            return Err(EndpointError::ControlInKey.into());
        }
        let credentials = BASE64.encode(format!("{key}:"));
        let mut authorization = HeaderValue::try_from(format!("Basic {credentials}"))
            .map_err(|_| EndpointError::ControlInKey)?;
        authorization.set_sensitive(true);
        Ok(Self {
            base: DEFAULT_BASE.to_owned(),
            uri: Uri::from_static(DEFAULT_BASE),
            authorization,
            user_agent: HeaderValue::from_static(DEFAULT_USER_AGENT),
            plain_http: false,
        })
    }

    /// Sends requests to another base URL, the version included: `http://127.0.0.1:8080/v1`.
    ///
    /// # Errors
    ///
    /// Anything but an `http` or `https` URL with a host is refused, as are a user name, a password,
    /// a query or a fragment in it. Plain `http` is refused unless the host is this machine or
    /// [`allow_plain_http`](Self::allow_plain_http) was called before.
    pub fn with_base(mut self, base: &str) -> Result<Self, Error> {
        let bad = |reason| Error::from(EndpointError::Base { reason });
        let uri: Uri = base.parse().map_err(|_| bad("it is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(bad("it does not start with https:// or http:// and a host"));
        };
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name or a password"));
        }
        if authority.host().is_empty() || authority.as_str().ends_with(':') {
            return Err(bad("its host or port is missing"));
        }
        if uri.query().is_some() || base.contains('#') {
            return Err(bad("it holds a query or a fragment"));
        }
        match scheme {
            "https" => {}
            "http" if self.plain_http || is_loopback(authority.host()) => {}
            "http" => {
                return Err(EndpointError::PlainHttp { host: authority.host().to_owned() }.into());
            }
            _ => return Err(bad("its scheme is neither https nor http")),
        }
        let path = uri.path().trim_end_matches('/');
        self.base = format!("{scheme}://{authority}{path}");
        self.uri = uri;
        Ok(self)
    }

    /// Permits plain `http` to hosts other than this machine, in a later
    /// [`with_base`](Self::with_base). Whoever sees the traffic then sees the key.
    #[must_use]
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Names the program in the `User-Agent` header; `stride-rust (version: x.y.z)` by default.
    ///
    /// # Errors
    ///
    /// A text that cannot stand in a header is refused.
    pub fn with_user_agent(mut self, user_agent: &str) -> Result<Self, Error> {
        self.user_agent =
            HeaderValue::try_from(user_agent).map_err(|_| EndpointError::UserAgent)?;
        Ok(self)
    }

    /// The base URL, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }
}

/// Whether a URL's host is this machine: `localhost`, a name below it, or a loopback address.
///
/// Such a host needs no leave for plain `http`, and transports reach it without a proxy.
///
/// ```
/// assert!(stride_core::is_loopback("localhost"));
/// assert!(stride_core::is_loopback("[::1]"));
/// assert!(!stride_core::is_loopback("127.0.0.1.example.com"));
/// ```
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let lower = host.to_ascii_lowercase();
    if lower == "localhost" || lower.ends_with(".localhost") {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("k").unwrap()
    }

    fn refused(result: Result<Endpoint, Error>) -> EndpointError {
        match result {
            Err(Error::Endpoint(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_key_is_refused() {
        assert_eq!(refused(Endpoint::new("")), EndpointError::EmptyKey);
        assert_eq!(refused(Endpoint::new("a:b")), EndpointError::ColonInKey);
        assert_eq!(refused(Endpoint::new("secret\n")), EndpointError::ControlInKey);
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
            assert_eq!(endpoint().with_base(base).unwrap().base(), kept, "{base}");
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
        ] {
            assert!(
                matches!(refused(endpoint().with_base(base)), EndpointError::Base { .. }),
                "{base}"
            );
        }
    }

    #[test]
    fn plain_http_needs_leave_by_name() {
        let host = "stride.example.com".to_owned();
        let base = "http://stride.example.com/v1";
        assert_eq!(refused(endpoint().with_base(base)), EndpointError::PlainHttp { host });
        assert_eq!(endpoint().allow_plain_http().with_base(base).unwrap().base(), base);
    }

    #[test]
    fn loopback() {
        for host in [
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "localhost.",
            "127.0.0.1",
            "[::1]",
            "::1",
            "127.1.2.3",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "example.com", "notlocalhost", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "0.0.0.0"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
