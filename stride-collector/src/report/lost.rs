//! Events that were lost, and why.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use stride_core::transport::{Delivery, TransportError};

/// Why events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LossReason {
    /// They could not be delivered in time, pauses included.
    Expired,
    /// The server refused them with a 400 or 422.
    Rejected,
    /// The server refused them with a 413: they are too large for it.
    TooLarge,
    /// The server refused them with a 401 or 403: the key may not write here.
    Unauthorized,
    /// The server refused them with another status that would not change on a retry.
    Refused,
    /// No attempt could have succeeded: the transport cannot send such a request, or the server's
    /// certificate is not trusted.
    Undeliverable,
    /// The collector was stopped before they could be delivered.
    Stopped,
    /// They could not be read from the disk on which they were spooled.
    Damaged,
    /// The spool was full, and dropped its oldest events.
    SpoolFull,
}

impl LossReason {
    /// Every reason, in the order in which reports are written.
    pub const ALL: [Self; 9] = [
        Self::Expired,
        Self::Rejected,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Refused,
        Self::Undeliverable,
        Self::Stopped,
        Self::Damaged,
        Self::SpoolFull,
    ];

    /// What a status that is neither a success nor transient means for a batch.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 422 => Self::Rejected,
            413 => Self::TooLarge,
            401 | 403 => Self::Unauthorized,
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::TooLarge => "too large",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Undeliverable => "undeliverable",
            Self::Stopped => "stopped",
            Self::Damaged => "damaged",
            Self::SpoolFull => "spool full",
        })
    }
}

/// Events of one stream that were lost together: what [`on_lost`](crate::Builder::on_lost) gets.
///
/// With the feature `serde` it serialises: the events as a string that holds the JSON array, so that
/// they keep every digit in any format, and the error as a string with its sources.
///
/// ```
/// use stride_collector::{Delivery, LossReason, LostBatch};
///
/// // As a test makes one, to see what the program does with it.
/// let lost = LostBatch::new("clicks", r#"[{"x":3}]"#, 1, LossReason::Rejected, Delivery::MaybeSent)
///     .with_status(http::StatusCode::BAD_REQUEST)
///     .with_message("x is not a coordinate");
/// assert_eq!(lost.message.as_deref(), Some("x is not a coordinate"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct LostBatch {
    /// The stream they were meant for.
    pub stream: Arc<str>,
    /// The events as a JSON array, byte for byte as they were or would have been sent.
    pub events: Bytes,
    /// How many there are.
    pub count: usize,
    /// Why they were lost.
    pub reason: LossReason,
    /// Whether the server may have stored them anyway: so after any attempt that it may have read.
    pub delivery: Delivery,
    /// The status of the server's last response to them, if there was one.
    pub status: Option<StatusCode>,
    /// The `message` in the body of that response, if there was one; cut off after 1 KiB.
    pub message: Option<Arc<str>>,
    /// Why the last attempt got no response, if it did not.
    pub error: Option<TransportError>,
}

impl LostBatch {
    /// A lost batch without a response or an error. The events are a JSON array of `count` objects.
    #[must_use]
    pub fn new(
        stream: impl Into<Arc<str>>,
        events: impl Into<Bytes>,
        count: usize,
        reason: LossReason,
        delivery: Delivery,
    ) -> Self {
        Self {
            stream: stream.into(),
            events: events.into(),
            count,
            reason,
            delivery,
            status: None,
            message: None,
            error: None,
        }
    }

    /// The same with the status of the server's last response.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The same with the server's message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Arc<str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// The same with the error of the last attempt.
    #[must_use]
    pub fn with_error(mut self, error: TransportError) -> Self {
        self.error = Some(error);
        self
    }
}

/// Without the events themselves: they do not belong into a log.
impl fmt::Debug for LostBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostBatch")
            .field("stream", &self.stream)
            .field("count", &self.count)
            .field("reason", &self.reason)
            .field("delivery", &self.delivery)
            .field("status", &self.status)
            .field("message", &self.message)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// An error and its sources in one line.
pub(crate) fn with_sources(error: &TransportError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(feature = "serde")]
impl serde::Serialize for LostBatch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut lost = serializer.serialize_struct("LostBatch", 8)?;
        lost.serialize_field("stream", &*self.stream)?;
        lost.serialize_field("events", &String::from_utf8_lossy(&self.events))?;
        lost.serialize_field("count", &self.count)?;
        lost.serialize_field("reason", &self.reason)?;
        lost.serialize_field("delivery", &self.delivery)?;
        lost.serialize_field("status", &self.status.map(|status| status.as_u16()))?;
        lost.serialize_field("message", &self.message.as_deref())?;
        lost.serialize_field("error", &self.error.as_ref().map(with_sources))?;
        lost.end()
    }
}

#[cfg(test)]
mod tests {
    use stride_core::transport::TransportErrorKind;

    use super::*;

    fn lost() -> LostBatch {
        let error = TransportError::new(TransportErrorKind::Tls, Delivery::NotSent)
            .with_source("the certificate has expired");
        LostBatch::new("clicks", r#"[{"x":1.10}]"#, 1, LossReason::Expired, Delivery::NotSent)
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .with_message("back soon")
            .with_error(error)
    }

    #[test]
    fn debug_output_holds_everything_but_the_events() {
        let text = format!("{:?}", lost());
        for part in
            ["clicks", "Expired", "NotSent", "503", "back soon", "the certificate has expired"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("1.10"), "{text}");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a5_a_lost_batch_serialises() {
        assert_eq!(
            serde_json::to_value(lost()).unwrap(),
            serde_json::json!({
                "stream": "clicks",
                "events": r#"[{"x":1.10}]"#,
                "count": 1,
                "reason": "expired",
                "delivery": "not_sent",
                "status": 503,
                "message": "back soon",
                "error": format!("{}: the certificate has expired", TransportErrorKind::Tls),
            })
        );
    }
}
