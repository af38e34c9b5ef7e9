//! How long a call may take.

use std::time::Duration;

/// How long a transport waits for each stage of a call. A limit that is reached is a
/// [`TransportErrorKind`] of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Until a connection is open: looking up the host and shaking hands included. 10 s.
    pub connect: Duration,
    /// From the request's last byte to the answer's head. 30 s; 90 s for a stream, because some
    /// proxies hold the head back until the first byte of the body.
    pub head: Duration,
    /// The whole call, its body included. 30 s, as pystride; a stream has no such limit.
    pub total: Option<Duration>,
    /// Between two chunks of the body, while the transport is being asked for one. 90 s for a
    /// stream: several keep-alives long. A request has no such limit, it has `total`.
    pub idle: Option<Duration>,
    /// The longest body, in bytes, that the caller reads: 64 MiB. A stream's has no bound.
    pub max_body: usize,
}

impl Limits {
    /// The limits of a request.
    #[must_use]
    pub const fn for_request() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            total: Some(Duration::from_secs(30)),
            idle: None,
            max_body: 64 << 20,
        }
    }

    /// The limits of a subscription.
    #[must_use]
    pub const fn for_stream() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(90),
            total: None,
            idle: Some(Duration::from_secs(90)),
            max_body: usize::MAX,
        }
    }

    /// The same limits with another `total`; `head` is never longer than it.
    #[must_use]
    pub fn with_total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self.head = total;
        self
    }
}
