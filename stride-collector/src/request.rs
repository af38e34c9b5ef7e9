//! The requests that senders make, whichever way they wait.

use std::time::Duration;

use bytes::Bytes;
use stride_core::Api;
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind};

/// The longest answer that is read to its end, to keep its connection. Nothing in it is used.
const MAX_ANSWER: usize = 64 << 10;

/// The limits of a request that may take this long as a whole.
pub(crate) fn limits(request_timeout: Duration) -> Limits {
    let mut limits = Limits::for_request().with_total(request_timeout);
    limits.connect = limits.connect.min(request_timeout);
    limits.max_body = MAX_ANSWER;
    limits
}

/// What sends a compressed batch.
pub(crate) fn call(
    api: &Api,
    path: &str,
    gzipped: Bytes,
    limits: Limits,
) -> Result<Call, TransportError> {
    let request = api.collect(path, gzipped).map_err(|error| {
        TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent).with_source(error)
    })?;
    Ok(Call::new(request, limits))
}

/// What came of a request whose transport panicked.
pub(crate) fn panicked() -> TransportError {
    TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent)
        .with_source("the transport panicked")
}

/// The body of an answer, which is read only so that its connection can be used again.
pub(crate) struct Unused {
    room: usize,
}

impl Default for Unused {
    fn default() -> Self {
        Self { room: MAX_ANSWER }
    }
}

impl Unused {
    /// Whether more of it is worth reading.
    pub(crate) fn goes_on(&mut self, chunk: Result<Bytes, TransportError>) -> bool {
        let left = chunk.ok().and_then(|chunk| self.room.checked_sub(chunk.len()));
        self.room = left.unwrap_or(0);
        left.is_some()
    }
}
