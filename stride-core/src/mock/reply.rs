//! What a mock answers, and how it fails.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::live::{LiveBody, Reader};
use crate::transport::{Delivery, Limits, TransportError, TransportErrorKind};

/// How a call fails before there is an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No connection: nothing was sent.
    Refused,
    /// The connection breaks before a byte of the request is sent.
    ResetBeforeRequest,
    /// The connection breaks when the request was sent.
    ResetAfterRequest,
    /// No answer, until the call is cancelled or its limit on the head is over (in real time).
    Hang,
}

/// An answer to a request: a status, headers and a body, or a fault.
///
/// ```
/// use stride_core::mock::{Reply, Fault, Mock};
///
/// let mock = Mock::new();
/// mock.get("/collect").reply(Reply::json(&["clicks", "app_events"]));
/// mock.get("/collect").reply(Reply::status(503).header("retry-after", "7"));
/// mock.get("/collect").reply(Fault::ResetAfterRequest);
/// # for _ in 0..3 {
/// #     use stride_core::transport::Transport;
/// #     let request = stride_core::Api::new("key")?.get("/collect")?;
/// #     let call = stride_core::transport::Call::new(request, stride_core::transport::Limits::for_request());
/// #     let _ = Transport::send(&mock.transport(), call, stride_core::cancel::CancelToken::never());
/// # }
/// # Ok::<(), stride_core::Error>(())
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
    /// When it is no HTTP status.
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
    /// When the value cannot be written as JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(json: &T) -> Self {
        Self::status(200).body(serde_json::to_vec(json).expect("the value can be written as JSON"))
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
    /// When it is no HTTP header.
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

    /// The wait that has no end, if that is the answer.
    pub(super) fn hang(&self, limits: &Limits) -> Option<Reader> {
        let (limit, kind) = match limits.total {
            Some(total) if total < limits.head => (total, TransportErrorKind::TotalTimeout),
            _ => (limits.head, TransportErrorKind::HeadTimeout),
        };
        let hangs = self.fault == Some(Fault::Hang);
        hangs.then(|| Reader::new(LiveBody::new(), Some(limit), kind))
    }

    /// The head and the body.
    pub(super) fn reply(
        self,
        limits: &Limits,
    ) -> Result<(http::Response<()>, Reader), TransportError> {
        use TransportErrorKind::{Connect, IdleTimeout, Io, TotalTimeout};
        match self.fault {
            None | Some(Fault::Hang) => {}
            Some(Fault::Refused) => return Err(TransportError::new(Connect, Delivery::NotSent)),
            Some(Fault::ResetBeforeRequest) => {
                return Err(TransportError::new(Io, Delivery::NotSent));
            }
            Some(Fault::ResetAfterRequest) => {
                return Err(TransportError::new(Io, Delivery::MaybeSent));
            }
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
        let (limit, kind) = match limits.idle {
            Some(idle) => (Some(idle), IdleTimeout),
            None => (limits.total, TotalTimeout),
        };
        Ok((head, Reader::new(live, limit, kind)))
    }
}
