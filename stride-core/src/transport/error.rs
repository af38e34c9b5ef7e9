//! Why a response was not received, or not completely.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::attempt::Attempt;

/// Whether a byte of the request may have reached the server, which is what makes sending it again
/// safe or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Delivery {
    /// The request was definitely not sent.
    NotSent,
    /// It may have been: the server may even have done what was asked.
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
    /// The TLS handshake failed; most often the server's certificate is not trusted.
    Tls,
    /// The proxy could not be reached, or refused to open a tunnel.
    Proxy,
    /// Opening the connection took longer than [`Limits::connect`](super::Limits::connect).
    ConnectTimeout,
    /// The head of the response took longer than [`Limits::head`](super::Limits::head).
    HeadTimeout,
    /// No chunk of the body came for [`Limits::idle`](super::Limits::idle).
    IdleTimeout,
    /// The call took longer than [`Limits::total`](super::Limits::total).
    TotalTimeout,
    /// The connection broke.
    Io,
    /// What the server sent is not valid HTTP.
    Protocol,
    /// The body of the response is encoded, for example compressed, although that was not asked for.
    Encoded,
    /// The body is longer than [`Limits::max_body`](super::Limits::max_body).
    BodyTooLarge,
    /// The call was cancelled from this side.
    Cancelled,
    /// This transport cannot do what was asked, such as `https` without its feature `tls`.
    Unsupported,
}

impl fmt::Display for TransportErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not connect to the server",
            Self::Resolve => "could not look up the server's name",
            Self::Tls => "the TLS handshake with the server failed",
            Self::Proxy => "the proxy could not be reached or refused the tunnel",
            Self::ConnectTimeout => "connecting took too long",
            Self::HeadTimeout => "the server did not respond in time",
            Self::IdleTimeout => "the server sent nothing for too long",
            Self::TotalTimeout => "the request took too long",
            Self::Io => "the connection broke",
            Self::Protocol => "the server's response is not valid HTTP",
            Self::Encoded => "the body of the response is encoded, which was not asked for",
            Self::BodyTooLarge => "the body of the response is too large",
            Self::Cancelled => "the request was cancelled",
            Self::Unsupported => "this transport cannot send such a request",
        })
    }
}

/// Why a response was not received, or not completely.
///
/// Its text names the request where the error comes from a client, and what failed:
/// `POST http://localhost:8080/v1/collect/clicks: could not connect to the server`.
#[derive(Debug, Clone)]
pub struct TransportError {
    kind: TransportErrorKind,
    delivery: Delivery,
    // In one box, so that every `Result` of this crate stays small.
    details: Option<Box<Details>>,
}

#[derive(Debug, Clone, Default)]
struct Details {
    attempt: Option<Attempt>,
    message: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: TransportErrorKind, delivery: Delivery) -> Self {
        Self { kind, delivery, details: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.details.get_or_insert_default().source = Some(Arc::from(source.into()));
        self
    }

    /// The same error with more about what is wrong, as part of its text. For what another error says,
    /// see [`with_source`](Self::with_source).
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.details.get_or_insert_default().message = Some(message.into());
        self
    }

    /// The same error with the request that failed. The clients set it; a transport need not.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.details.get_or_insert_default().attempt = Some(attempt);
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

    /// The request that failed, if it is known.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.details.as_ref()?.attempt.as_ref()
    }

    /// Whether one of the limits on time ([`Limits`](super::Limits)) was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        use TransportErrorKind::{ConnectTimeout, HeadTimeout, IdleTimeout, TotalTimeout};
        matches!(self.kind, ConnectTimeout | HeadTimeout | IdleTimeout | TotalTimeout)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(attempt) = self.attempt() {
            write!(f, "{attempt}: ")?;
        }
        self.kind.fmt(f)?;
        match self.details.as_ref().and_then(|details| details.message.as_ref()) {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.details.as_ref()?.source.as_deref().map(|source| source as _)
    }
}
