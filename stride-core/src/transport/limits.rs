//! How long a call may take.

use std::time::Duration;

/// Kept connections are closed after this long without a request: a server or a load balancer that
/// does it first could break a request that is on its way.
pub const KEPT_FOR: Duration = Duration::from_secs(15);

/// The most of a body that is read at once, in bytes: what the kernel has ready for a busy stream.
pub const LARGEST_CHUNK: usize = 64 << 10;

/// Longer limits are as good as none, and would overflow the clock.
pub const LONGEST_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a call may take, stage by stage, and how much of a body is read.
///
/// | limit | requests | subscriptions | what it bounds | error |
/// |---|---|---|---|---|
/// | [`connect`](Self::connect) | 10 s | 10 s | opening a connection: looking up the host, TCP, the proxy's whole dialogue and TLS together | `ConnectTimeout` |
/// | [`head`](Self::head) | 30 s | 90 s | from the request's last byte to the last byte of the response's head, any number of informational (1xx) responses included | `HeadTimeout` |
/// | [`total`](Self::total) | 30 s | none | the whole call, from connecting to the last byte of the body, however the server spreads its bytes | `TotalTimeout` |
/// | [`idle`](Self::idle) | none | 90 s | the time between two chunks of the body | `IdleTimeout` |
/// | a refusal's body | | 10 s, 64 KiB | reading the body of a response that ends a subscription; kept by [`Subscription`](crate::subscribe::Subscription) | the refusal, with what was read |
/// | [`max_body`](Self::max_body) | 64 MiB | none | the length of the body; kept by [`Response::read`](crate::Response::read) | `BodyTooLarge` |
///
/// A transport keeps the first four. The asynchronous client also holds a transport that keeps none
/// to `head`, `total` and `idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Until a connection is open: looking up the host, TCP, proxy and TLS together. 10 s.
    pub connect: Duration,
    /// From the request's last byte to the end of the response's head. 30 s; 90 s for a
    /// subscription, because some proxies hold the head back until the first byte of the body.
    pub head: Duration,
    /// The whole call, its body included. 30 s, as in pystride; none for a subscription.
    pub total: Option<Duration>,
    /// Between two chunks of the body, while the transport is being asked for one. None for a
    /// request, which has `total`; 90 s for a subscription, which is several keep-alives long.
    pub idle: Option<Duration>,
    /// The longest body that is read, in bytes: 64 MiB. A subscription's is unlimited.
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

    /// The same limits with `total` and `head` at this time.
    #[must_use]
    pub fn with_total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self.head = total;
        self
    }
}
