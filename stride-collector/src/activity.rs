//! What an observer is told.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use stride_core::transport::{Delivery, TransportError};

use crate::report::LossReason;

/// Something that a collector did or learned: what an [`observer`](crate::Builder::observer) is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Activity {
    /// A request got a success: its events are delivered.
    Sent {
        /// The stream; `None` if several shared the request.
        stream: Option<Arc<str>>,
        /// How many events there were.
        events: u64,
    },
    /// A request failed in a way that may pass: its events are sent again.
    Retried {
        /// The stream; `None` if several shared the request.
        stream: Option<Arc<str>>,
        /// How many events there were.
        events: u64,
        /// The status of the response, if there was one.
        status: Option<StatusCode>,
        /// Why there was none.
        error: Option<TransportError>,
    },
    /// The server refused a request of which it may take a part: its events are sent again in smaller
    /// requests.
    Narrowed {
        /// The stream; `None` if several shared the request.
        stream: Option<Arc<str>>,
        /// How many events there were.
        events: u64,
        /// The status of the response.
        status: StatusCode,
    },
    /// Events were lost. With the events themselves, this is told to
    /// [`on_lost`](crate::Builder::on_lost).
    Lost {
        /// The stream.
        stream: Arc<str>,
        /// How many events there were.
        events: u64,
        /// Why they were lost.
        reason: LossReason,
        /// Whether the server may have stored them anyway.
        delivery: Delivery,
    },
    /// The server as a whole is in another state than before.
    Server(ServerState),
}

/// How the server as a whole is doing, by what came of the last requests. In every state but
/// [`Healthy`](Self::Healthy) one request at a time probes it, and everything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ServerState {
    /// It takes events, as far as is known.
    #[default]
    Healthy,
    /// It asked for a pause with `Retry-After`.
    Throttled {
        /// When the pause ends.
        until: Instant,
    },
    /// It cannot be reached, or its last responses were all failures.
    Down,
    /// It does not accept the key (401).
    Paused,
}
