//! Who may do what.

use std::collections::BTreeSet;
use std::fmt;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use crate::engine::Author;

/// What the bearer of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Secret,
    /// Write events, and nothing else.
    Open,
}

impl From<Access> for Author {
    fn from(access: Access) -> Self {
        match access {
            Access::Secret => Self::Trusted,
            Access::Open => Self::Anybody,
        }
    }
}

/// The keys of this server. They show nothing of themselves.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) secret: String,
    pub(crate) open: Option<String>,
    /// The streams that the open key may write to, if not to all.
    pub(crate) open_streams: Option<BTreeSet<String>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Whether the bearer of the open key may write to this stream.
    pub(crate) fn opens(&self, stream: &str) -> bool {
        self.open_streams.as_ref().is_none_or(|streams| streams.contains(stream))
    }

    /// Whose request this is: the key is the user name of HTTP Basic, with an empty password.
    pub(crate) fn access(&self, headers: &HeaderMap) -> Option<Access> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, credentials) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let credentials = STANDARD.decode(credentials.trim()).ok()?;
        let key = credentials.strip_suffix(b":")?;
        if same(key, self.secret.as_bytes()) {
            return Some(Access::Secret);
        }
        self.open.as_ref().filter(|open| same(key, open.as_bytes())).map(|_| Access::Open)
    }
}

/// Compares in a time that says only whether the lengths are equal, so that a key cannot be found
/// byte by byte with a stop-watch.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(authorization: &str) -> Option<Access> {
        let keys =
            Keys { secret: "helloworld".into(), open: Some("open".into()), open_streams: None };
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        keys.access(&headers)
    }

    fn basic(credentials: &str) -> Option<Access> {
        access(&format!("Basic {}", STANDARD.encode(credentials)))
    }

    #[test]
    fn the_key_is_the_user_name_and_the_password_is_empty() {
        assert_eq!(access("Basic aGVsbG93b3JsZDo="), Some(Access::Secret));
        assert_eq!(access("basic aGVsbG93b3JsZDo="), Some(Access::Secret));
        assert_eq!(basic("open:"), Some(Access::Open));
        for wrong in ["helloworld", "helloworld:x", "hello:", "", ":", "helloworlds:", "Open:"] {
            assert_eq!(basic(wrong), None, "{wrong}");
        }
        assert_eq!(access("Bearer helloworld"), None);
        assert_eq!(access("Basic ?"), None);
        assert_eq!(access("Basic"), None);
    }

    #[test]
    fn keys_show_nothing_of_themselves() {
        let keys =
            Keys { secret: "helloworld".into(), open: Some("open".into()), open_streams: None };
        assert_eq!(format!("{keys:?}"), "Keys { .. }");
    }
}
