//! What was attempted, for errors and the log.

use std::fmt;

use http::{Method, Request, Uri};
use tracing::Span;
use tracing::field::Empty;

/// Which request an error or a response belongs to: its method, host and path.
///
/// It never holds the API key, which no URL of Stride carries, and does not show the query, which
/// may hold a program's data.
///
/// ```
/// use stride_core::Api;
/// use stride_core::transport::Attempt;
///
/// let request = Api::new("secret_key")?.get("/analyze/a/results?name=bojack")?;
/// let attempt = Attempt::of(&request);
/// assert_eq!(attempt.to_string(), "GET https://api.stride.io/v1/analyze/a/results");
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    method: Method,
    uri: Uri,
}

impl Attempt {
    /// The attempt to send this request.
    pub fn of<B>(request: &Request<B>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone() }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The host, without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The path, its version included: `/v1/collect/clicks`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// A span for the time that a call takes: target `stride::request`, level `DEBUG`, with `method`,
    /// `host` and `path`. [`Span::record`] fills in `status`, once there is one.
    #[must_use]
    pub fn span(&self) -> Span {
        tracing::debug_span!(
            target: "stride::request",
            "request",
            method = self.method.as_str(),
            host = self.host(),
            path = self.path(),
            status = Empty,
        )
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        if let (Some(scheme), Some(authority)) = (self.uri.scheme(), self.uri.authority()) {
            // A user name or password in a URL is nobody's to read.
            let address = authority.as_str().rsplit('@').next().unwrap_or_default();
            write!(f, "{scheme}://{address}")?;
        }
        f.write_str(self.uri.path())
    }
}
