//! How a mock replies, and how it fails.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::live::LiveBody;
use crate::transport::{Delivery, TransportError, TransportErrorKind};

/// How a call fails before there is a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No connection: nothing was sent.
    Refused,
    /// The connection breaks before a byte of the request is sent.
    ResetBeforeRequest,
    /// The connection breaks after the request was sent.
    ResetAfterRequest,
    /// The limit on the head is reached, without any waiting.
    Timeout,
    /// There is never a response. An asynchronous caller waits by its own clock; a blocking one waits
    /// in real time until its limit or until it is cancelled.
    Hang,
}

/// A reply to a request: a status, headers and a body, or a fault.
///
/// ```
/// use stride_core::mock::{Fault, Reply};
///
/// Reply::json(&["clicks", "app_events"]); // 200
/// Reply::status(503).header("retry-after", "7");
/// Reply::status(422).with_json(&serde_json::json!({"message": "not a time"}));
/// Reply::from(404); // wherever a reply is asked for, a status or a fault will do
/// Reply::from(Fault::ResetAfterRequest);
/// ```
#[derive(Debug, Clone)]
pub struct Reply {
    fault: Option<Fault>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    chunk: usize,
    cut: bool,
    live: Option<LiveBody>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::status(200) }
    }
}

impl Reply {
    /// This status, without a body.
    ///
    /// # Panics
    ///
    /// It is not a valid HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            fault: None,
            status: StatusCode::from_u16(status).expect("a status is 100 to 999"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            chunk: usize::MAX,
            cut: false,
            live: None,
        }
    }

    /// 200 with this value as its body.
    ///
    /// # Panics
    ///
    /// The value cannot be written as JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(json: &T) -> Self {
        Self::status(200).with_json(json)
    }

    /// The same with this value as its body.
    ///
    /// # Panics
    ///
    /// The value cannot be written as JSON.
    #[must_use]
    pub fn with_json<T: Serialize + ?Sized>(self, json: &T) -> Self {
        self.body(serde_json::to_vec(json).expect("the value can be written as JSON"))
    }

    /// The same with these bytes as its body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with this header.
    ///
    /// # Panics
    ///
    /// It is not a valid HTTP header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::try_from(value).expect("the value can stand in a header");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// The same, its body in chunks of this many bytes.
    #[must_use]
    pub fn split(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// The same, its body cut at this byte by a broken connection.
    #[must_use]
    pub fn cut_at(mut self, byte: usize) -> Self {
        self.body.truncate(byte);
        self.cut = true;
        self
    }

    /// The same, with a body that goes on with what the test writes to `live`.
    #[must_use]
    pub fn live(mut self, live: &LiveBody) -> Self {
        self.live = Some(live.clone());
        self
    }

    pub(super) fn is_success(&self) -> bool {
        self.fault.is_none() && self.status.is_success()
    }

    pub(super) fn hangs(&self) -> bool {
        self.fault == Some(Fault::Hang)
    }

    /// The head and the body.
    pub(super) fn start(self) -> Result<(http::Response<()>, LiveBody), TransportError> {
        use TransportErrorKind::{Connect, HeadTimeout, Io};
        let fault = |kind, delivery| Err(TransportError::new(kind, delivery));
        match self.fault {
            None | Some(Fault::Hang) => {}
            Some(Fault::Refused) => return fault(Connect, Delivery::NotSent),
            Some(Fault::ResetBeforeRequest) => return fault(Io, Delivery::NotSent),
            Some(Fault::ResetAfterRequest) => return fault(Io, Delivery::MaybeSent),
            Some(Fault::Timeout) => return fault(HeadTimeout, Delivery::MaybeSent),
        }
        let mut head = http::Response::new(());
        *head.status_mut() = self.status;
        *head.headers_mut() = self.headers;
        let ends = self.live.is_none();
        let live = self.live.unwrap_or_default();
        let mut body = self.body;
        while !body.is_empty() {
            live.write(body.split_to(body.len().min(self.chunk)));
        }
        match (ends, self.cut) {
            (_, true) => live.reset(),
            (true, false) => live.end(),
            (false, false) => {}
        }
        Ok((head, live))
    }
}
