//! What may be wrong with a setting, and rules about settings that several places share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// What is wrong with a key, a base URL or another setting. The key itself is never part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
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
    #[error("the base URL cannot be used: {reason}")]
    Base {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key would travel in the clear.
    #[error(
        "plain http to {host} would show the API key to the network: use https, or allow plain http"
    )]
    PlainHttp {
        /// The host of the base URL.
        host: String,
    },
    /// The user agent holds a character that a header cannot.
    #[error("the user agent holds a character that cannot stand in a header")]
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

/// Whether a URL's host is this machine: `localhost`, a name below it, or a loopback address.
///
/// Plain `http` to such a host is always allowed, and transports reach it without a proxy from the
/// environment.
///
/// ```
/// assert!(stride_core::config::is_loopback("localhost"));
/// assert!(stride_core::config::is_loopback("[::1]"));
/// assert!(!stride_core::config::is_loopback("127.0.0.1.example.com"));
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

/// Where a host is, if that is known without asking the network: an IP address, or this machine, whose
/// name is never looked up because such a host may be sent the key by plain `http`. `None` for any
/// other name.
///
/// ```
/// use stride_core::config::known_addresses;
///
/// assert_eq!(known_addresses("[::1]", 80).unwrap(), ["[::1]:80".parse()?]);
/// assert_eq!(known_addresses("localhost", 80).unwrap().len(), 2);
/// assert_eq!(known_addresses("api.stride.io", 443), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn known_addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    let this_machine =
        || vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    is_loopback(host).then(this_machine)
}

/// Nothing can be done within zero: a program that wants no limit sets a long one.
pub(crate) fn not_zero(setting: &'static str, limit: Duration) -> Result<(), ConfigError> {
    if limit.is_zero() {
        return Err(ConfigError::Setting { setting, reason: "is zero" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
