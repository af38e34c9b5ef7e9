//! The requests that senders make, on threads or as tasks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use stride_core::Api;
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind};

use crate::batcher::Response;

/// The longest body of a response that is read to its end, which keeps its connection usable.
const MAX_BODY: usize = 64 << 10;

/// The longest message that is kept of a refusal.
const MAX_MESSAGE: usize = 1 << 10;

/// The limits of a request that may take this long as a whole.
pub(crate) fn limits(request_timeout: Duration) -> Limits {
    let mut limits = Limits::for_request().with_total(request_timeout);
    limits.connect = limits.connect.min(request_timeout);
    limits.max_body = MAX_BODY;
    limits
}

/// What sends a compressed batch.
pub(super) fn call(
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

/// The error of a request whose transport panicked.
pub(super) fn panicked() -> TransportError {
    TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent)
        .with_source("the transport panicked")
}

/// Reads the body of a response: to use its connection again, and for its message.
pub(super) struct Reading {
    head: Parts,
    /// Nothing of a success.
    body: Vec<u8>,
    room: usize,
}

impl Reading {
    pub(super) fn new(head: Parts) -> Self {
        Self { head, body: Vec::new(), room: MAX_BODY }
    }

    /// Takes a chunk, and says whether to read on.
    pub(super) fn takes(&mut self, chunk: Result<Bytes, TransportError>) -> bool {
        // A body that breaks off takes nothing from its status.
        let Ok(chunk) = chunk else { return false };
        let Some(room) = self.room.checked_sub(chunk.len()) else { return false };
        self.room = room;
        if !self.head.status.is_success() {
            self.body.extend_from_slice(&chunk);
        }
        true
    }

    pub(super) fn finish(self) -> Response {
        let Parts { status, headers, .. } = self.head;
        Response { status, headers, message: message(&self.body) }
    }
}

/// The `message` of a refusal's body, cut off where it is too long.
fn message(body: &[u8]) -> Option<Arc<str>> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let mut message = serde_json::from_slice::<Refusal>(body).ok()?.message;
    let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|&end| message.is_char_boundary(end));
    message.truncate(end.unwrap_or(0));
    Some(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, chunks: &[&'static str]) -> Response {
        let head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        let mut reading = Reading::new(head);
        for chunk in chunks {
            assert!(reading.takes(Ok(Bytes::from_static(chunk.as_bytes()))));
        }
        reading.finish()
    }

    #[test]
    fn a_refusal_keeps_its_message() {
        let refusal = read(409, &[r#"{"message": "#, r#""no room"}"#]);
        assert_eq!((refusal.status.as_u16(), refusal.message.as_deref()), (409, Some("no room")));
        assert_eq!(read(409, &["<html>"]).message, None);
        assert_eq!(read(200, &[r#"{"message": "fine"}"#]).message, None);
        let long = format!(r#"{{"message":"{}"}}"#, "ä".repeat(MAX_MESSAGE));
        assert_eq!(message(long.as_bytes()).unwrap().len(), MAX_MESSAGE);
    }

    #[test]
    fn a_body_is_read_up_to_a_limit() {
        let head = http::Response::builder().status(400).body(()).unwrap().into_parts().0;
        let mut reading = Reading::new(head);
        let chunk = || Ok(Bytes::from(vec![b' '; MAX_BODY / 2 + 1]));
        assert!(reading.takes(chunk()));
        assert!(!reading.takes(chunk()));
        assert_eq!(reading.finish().message, None);
    }
}
