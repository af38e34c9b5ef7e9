//! Which proxy stands between a client and its server: decided from a URL and the environment's
//! variables, which are handed in. And how it is asked for a tunnel.

mod connect;
mod exceptions;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderValue, Uri};

pub use self::connect::{Connect, ConnectError, Tunnel};
use self::exceptions::Exceptions;
use crate::config::{ConfigError, is_loopback};

/// An HTTP proxy that opens tunnels (`CONNECT`). Its `Debug` does not show its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy by its URL, `http://user:password@host:port`. The scheme may be left out; user and
    /// password may be left out and are percent-decoded; the port is 80 when left out.
    ///
    /// # Errors
    ///
    /// Anything else, proxies that are spoken to by TLS or SOCKS among them, is refused. The error
    /// shows nothing of the URL.
    ///
    /// ```
    /// let proxy = stride_core::proxy::Proxy::parse("http://me:s%40fe@proxy.example.com:3128")?;
    /// assert_eq!((proxy.host(), proxy.port()), ("proxy.example.com", 3128));
    /// assert_eq!(proxy.credentials(), Some(("me", "s@fe")));
    /// # Ok::<(), stride_core::ConfigError>(())
    /// ```
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        Self::parse_setting(url, "proxy")
    }

    /// The proxy that the environment names for requests to `base`, if any.
    ///
    /// `variable` looks up a variable by its name. For `https` these are `https_proxy` and
    /// `HTTPS_PROXY`, for `http` they are `http_proxy` and `HTTP_PROXY`, then `all_proxy` and
    /// `ALL_PROXY`; the first one that is not empty counts. `HTTP_PROXY` is ignored where
    /// `REQUEST_METHOD` is set: in a CGI program it is the request's `Proxy` header, and thus under
    /// the control of whoever sends the request.
    ///
    /// No proxy stands before this machine itself, nor before what `no_proxy` or `NO_PROXY` lists,
    /// separated by commas or white space:
    ///
    /// | entry | covers |
    /// |---|---|
    /// | `*` | everything |
    /// | `example.com`, `.example.com`, `*.example.com` | that host and all below it |
    /// | `192.168.*`, `stride-*.example.com` | hosts that look like it; `*` is any text |
    /// | `10.1.2.3`, `fd00::1` | that address |
    /// | `10.0.0.0/8`, `fd00::/8` | the addresses of that network |
    ///
    /// All but a network may be followed by a colon and the only port that is meant; an IPv6 address
    /// then needs its brackets. Names are not looked up: networks and addresses cover hosts that are
    /// written as addresses.
    ///
    /// # Errors
    ///
    /// The variable that counts does not hold a URL that [`parse`](Self::parse) would take, or
    /// `no_proxy` has a malformed entry while a proxy is set.
    ///
    /// ```
    /// use stride_core::proxy::Proxy;
    ///
    /// let environment = |name: &str| match name {
    ///     "HTTPS_PROXY" => Some("http://proxy.example.com:3128".to_owned()),
    ///     "NO_PROXY" => Some("internal.example.com".to_owned()),
    ///     _ => None,
    /// };
    /// let proxy = |base| Proxy::from_environment(base, environment);
    /// assert!(proxy("https://api.stride.io/v1")?.is_some());
    /// assert!(proxy("https://stride.internal.example.com/v1")?.is_none());
    /// assert!(proxy("https://localhost:8443/v1")?.is_none());
    /// # Ok::<(), stride_core::ConfigError>(())
    /// ```
    pub fn from_environment(
        base: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let uri: Uri = base.parse().map_err(|_| ConfigError::Base { reason: "it is no URL" })?;
        let host = uri.host().unwrap_or_default();
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        if is_loopback(host) {
            return Ok(None);
        }
        let set = |name: &'static str| {
            let value = variable(name).filter(|value| !value.trim().is_empty())?;
            Some((name, value))
        };
        let names: &[&'static str] = match (https, variable("REQUEST_METHOD")) {
            (true, _) => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
            (false, None) => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
            (false, Some(_)) => &["http_proxy", "all_proxy", "ALL_PROXY"],
        };
        let Some((setting, url)) = names.iter().copied().find_map(set) else { return Ok(None) };
        if let Some((setting, list)) = ["no_proxy", "NO_PROXY"].into_iter().find_map(set) {
            let exceptions: Exceptions =
                list.parse().map_err(|reason| ConfigError::Setting { setting, reason })?;
            if exceptions.cover(host, port) {
                return Ok(None);
            }
        }
        Self::parse_setting(url.trim(), setting).map(Some)
    }

    fn parse_setting(url: &str, setting: &'static str) -> Result<Self, ConfigError> {
        let bad = |reason| ConfigError::Setting { setting, reason };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(bad(
                "names a proxy whose URL does not start with http://; no other kind is supported",
            ));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let no_url = || bad("is not the URL of a proxy, such as http://host:port");
        let uri: Uri = format!("http://{address}/").parse().map_err(|_| no_url())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(no_url)?;
        // What follows the host is a port or nothing: no path, no query.
        let port = match address.strip_prefix(host) {
            Some("") => 80,
            Some(rest) => {
                let digits = rest.strip_prefix(':').ok_or_else(no_url)?;
                digits.parse().map_err(|_| no_url())?
            }
            None => return Err(no_url()),
        };
        let credentials = match userinfo {
            None => None,
            Some(userinfo) => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                Some(percent_decode(user).zip(percent_decode(password)).ok_or_else(no_url)?)
            }
        };
        Ok(Self { host: host.to_owned(), port, credentials })
    }

    /// The proxy's host, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and password, if the proxy asks for them.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The value of `Proxy-Authorization`, if the proxy asks for one; marked sensitive.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials()?;
        let text = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    // A control character cannot stand in a header.
    String::from_utf8(decoded).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(base: &str, variables: &[(&str, &str)]) -> Option<String> {
        Proxy::from_environment(base, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
        .map(|proxy| proxy.host)
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        let all = [
            ("http_proxy", "a"),
            ("HTTP_PROXY", "b"),
            ("https_proxy", "c"),
            ("HTTPS_PROXY", "d"),
            ("all_proxy", "e"),
            ("ALL_PROXY", "f"),
        ];
        for (base, order) in [("http://x.example/v1", "abef"), ("https://x.example/v1", "cdef")] {
            let mut left = all.to_vec();
            for expected in order.chars() {
                assert_eq!(chosen(base, &left), Some(expected.to_string()), "{base} {left:?}");
                left.retain(|(_, value)| *value != expected.to_string());
            }
            assert_eq!(chosen(base, &left), None);
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        let variables = [("https_proxy", ""), ("HTTPS_PROXY", " "), ("ALL_PROXY", "f")];
        assert_eq!(chosen("https://x.example", &variables).as_deref(), Some("f"));
    }

    #[test]
    fn a_cgi_program_ignores_what_its_client_may_have_sent() {
        let variables = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil")];
        assert_eq!(chosen("http://x.example", &variables), None);
        let variables = [("REQUEST_METHOD", "GET"), ("http_proxy", "a"), ("HTTP_PROXY", "evil")];
        assert_eq!(chosen("http://x.example", &variables).as_deref(), Some("a"));
        let variables = [("REQUEST_METHOD", "GET"), ("HTTPS_PROXY", "d")];
        assert_eq!(chosen("https://x.example", &variables).as_deref(), Some("d"));
    }

    #[test]
    fn this_machine_is_reached_directly() {
        for base in
            ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:80", "http://a.localhost"]
        {
            // Not even an unusable variable is in its way.
            assert_eq!(chosen(base, &[("ALL_PROXY", "socks5://proxy")]), None, "{base}");
        }
    }

    #[test]
    fn what_no_proxy_lists_is_reached_directly() {
        for (list, base, listed) in [
            ("*", "https://a.example", true),
            ("a.example", "https://a.example", true),
            ("A.EXAMPLE", "https://a.Example", true),
            ("a.example", "https://b.a.example:8443", true),
            (".a.example", "https://b.a.example", true),
            (".a.example", "https://a.example", true),
            ("*.a.example", "https://b.a.example", true),
            ("a.example", "https://a.example.", true),
            ("a.example", "https://ba.example", false),
            ("a.example", "https://a.example.org", false),
            ("x.example, a.example", "https://a.example", true),
            ("x.example a.example", "https://a.example", true),
            ("a.example:443", "https://a.example", true),
            ("a.example:8443", "https://a.example", false),
            ("a.example:8443", "https://a.example:8443", true),
            ("a.example:80", "http://a.example", true),
            ("10.0.0.1", "https://10.0.0.1", true),
            ("10.0.0.1", "https://10.0.0.11", false),
            ("10.0.0.1:443", "https://10.0.0.1", true),
            ("fe80::1", "https://[fe80::1]:443", true),
            ("[fe80::1]", "https://[fe80::1]:443", true),
            ("[fe80::1]:443", "https://[fe80::1]:443", true),
            ("[fe80::1]:1", "https://[fe80::1]:443", false),
            (",, .", "https://a.example", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("192.168.*", "http://192.168.7.8:8080", true),
            ("192.168.*:80", "http://192.168.7.8:8080", false),
        ] {
            let proxy = chosen(base, &[("ALL_PROXY", "proxy"), ("NO_PROXY", list)]);
            assert_eq!(proxy.is_none(), listed, "{base} in {list:?}");
        }
    }

    #[test]
    fn n12_a_malformed_list_is_refused_where_there_is_a_proxy() {
        let environment = |proxy: Option<&'static str>, base: &str| {
            Proxy::from_environment(base, move |name| match name {
                "no_proxy" => Some("10.0.0.0/99".to_owned()),
                "ALL_PROXY" => proxy.map(str::to_owned),
                _ => None,
            })
        };
        let error = environment(Some("p.example"), "https://a.example").unwrap_err();
        assert!(matches!(error, ConfigError::Setting { setting: "no_proxy", .. }), "{error:?}");
        assert_eq!(environment(None, "https://a.example"), Ok(None));
        assert_eq!(environment(Some("p.example"), "https://localhost"), Ok(None));
    }

    #[test]
    fn urls() {
        for (url, host, port, credentials) in [
            ("http://p.example:3128", "p.example", 3128, None),
            ("HTTP://p.example:3128/", "p.example", 3128, None),
            ("p.example:3128", "p.example", 3128, None),
            ("p.example", "p.example", 80, None),
            ("http://[::1]:3128", "[::1]", 3128, None),
            ("http://me@p.example", "p.example", 80, Some(("me", ""))),
            ("me:b%3ac@p.example", "p.example", 80, Some(("me", "b:c"))),
            ("http://me:a@b@p.example", "p.example", 80, Some(("me", "a@b"))),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!((proxy.host(), proxy.port()), (host, port), "{url}");
            assert_eq!(proxy.credentials(), credentials, "{url}");
        }
        let header = Proxy::parse("http://me:safe@p").unwrap().authorization().unwrap();
        assert_eq!(header, "Basic bWU6c2FmZQ==");
        assert!(header.is_sensitive());
    }

    #[test]
    fn a_url_that_is_no_good_is_refused_without_its_secrets() {
        for url in [
            "",
            "http://",
            "https://me:secret@p.example",
            "socks5://me:secret@p.example:1080",
            "http://me:secret@",
            "http://me:secret@p.example:",
            "http://me:secret@p.example:99999",
            "http://me:secret@p.example:port",
            "http://me:secret@p.example/path",
            "http://me:secret@p.example?query",
            "http://me:secret%zz@p.example",
            "http://me:secret%0d%0a@p.example",
            "http://me:secret@p example",
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert!(matches!(error, ConfigError::Setting { setting: "proxy", .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        let proxy = Proxy::parse("http://me:secret@p.example").unwrap();
        assert!(!format!("{proxy:?}").contains("secret"));
        let error = Proxy::from_environment("https://x.example", |name| {
            (name == "HTTPS_PROXY").then(|| "socks5://p".to_owned())
        });
        assert!(matches!(error, Err(ConfigError::Setting { setting: "HTTPS_PROXY", .. })));
    }
}
