//! Why a response was not received, or not completely.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Whether a byte of the request may have reached the server, which is what makes sending it again
/// safe or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Surely not.
    NotSent,
    /// It may have: the server may even have done what was asked.
    MaybeSent,
}

/// The stage at which a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// No connection could be opened.
    Connect,
    /// The host name could not be looked up.
    Resolve,
    /// TLS could not be agreed upon; most often the server's certificate is not trusted.
    Tls,
    /// The proxy did not open the way.
    Proxy,
    /// Opening the connection took longer than [`Limits::connect`].
    ConnectTimeout,
    /// The head of the answer took longer than [`Limits::head`].
    HeadTimeout,
    /// No chunk of the body came for [`Limits::idle`].
    IdleTimeout,
    /// The call took longer than [`Limits::total`].
    TotalTimeout,
    /// The connection broke.
    Io,
    /// What came is no HTTP.
    Protocol,
    /// The body is longer than [`Limits::max_body`].
    BodyTooLarge,
    /// The call was given up from this side.
    Cancelled,
    /// This transport cannot do what was asked, such as `https` without its feature `tls`.
    Unsupported,
}

impl fmt::Display for TransportErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not connect to the server",
            Self::Resolve => "could not look up the server's name",
            Self::Tls => "could not agree upon TLS with the server",
            Self::Proxy => "the proxy did not open the way",
            Self::ConnectTimeout => "connecting took too long",
            Self::HeadTimeout => "the server did not answer in time",
            Self::IdleTimeout => "the server sent nothing for too long",
            Self::TotalTimeout => "the request took too long",
            Self::Io => "the connection broke",
            Self::Protocol => "the server's answer is no HTTP",
            Self::BodyTooLarge => "the body of the answer is too large",
            Self::Cancelled => "the request was cancelled",
            Self::Unsupported => "this transport cannot send such a request",
        })
    }
}

/// Why no answer, or not all of it, was had.
#[derive(Debug, Clone)]
pub struct TransportError {
    kind: TransportErrorKind,
    delivery: Delivery,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: TransportErrorKind, delivery: Delivery) -> Self {
        Self { kind, delivery, source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The stage at which the call failed.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the request may have arrived.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether one of the [`Limits`] on time was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        use TransportErrorKind::{ConnectTimeout, HeadTimeout, IdleTimeout, TotalTimeout};
        matches!(self.kind, ConnectTimeout | HeadTimeout | IdleTimeout | TotalTimeout)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
