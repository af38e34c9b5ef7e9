//! Answers. Any status is a [`Response`], and its body is never thrown away.

use std::fmt;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::transport::{AsyncBody, Body, Delivery, TransportError, TransportErrorKind};

/// The answer to a request, whatever its status.
///
/// ```
/// use stride_core::Response;
///
/// let http = http::Response::new(bytes::Bytes::from(r#"["clicks", "app_events"]"#));
/// let response = Response::from(http);
/// assert_eq!(response.status(), 200);
/// let streams: Option<Vec<String>> = response.data()?;
/// assert_eq!(streams.unwrap(), ["clicks", "app_events"]);
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body)
            .finish()
    }
}

impl From<http::Response<Bytes>> for Response {
    fn from(response: http::Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body }
    }
}

impl Response {
    /// Reads the whole body of what a [`Transport`](crate::transport::Transport) answered.
    ///
    /// # Errors
    ///
    /// The body breaks off, or is longer than `max_body` bytes.
    pub fn read(response: http::Response<Body>, max_body: usize) -> Result<Self, TransportError> {
        let (head, body) = response.into_parts();
        let mut collected = CollectedBody::new(max_body);
        for chunk in body {
            collected.push(chunk?)?;
        }
        Ok(http::Response::from_parts(head, collected.finish()).into())
    }

    /// Reads the whole body of what an [`AsyncTransport`](crate::transport::AsyncTransport) answered.
    ///
    /// # Errors
    ///
    /// The body breaks off, or is longer than `max_body` bytes.
    pub async fn read_async(
        response: http::Response<AsyncBody>,
        max_body: usize,
    ) -> Result<Self, TransportError> {
        let (head, mut body) = response.into_parts();
        let mut collected = CollectedBody::new(max_body);
        while let Some(chunk) = body.next().await {
            collected.push(chunk?)?;
        }
        Ok(http::Response::from_parts(head, collected.finish()).into())
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body as it came.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The JSON value in the body; `None` when the body is empty.
    ///
    /// # Errors
    ///
    /// The body is not JSON, or not a `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        if self.body.trim_ascii().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&self.body).map_err(DataError::from)?))
    }

    /// The answer itself when its status is a success (2xx).
    ///
    /// # Errors
    ///
    /// Any other status is an error that keeps status, headers and body.
    pub fn error_for_status(self) -> Result<Self, Error> {
        if self.status.is_success() { Ok(self) } else { Err(StatusError::from(self).into()) }
    }
}

/// The body of an answer is not JSON, or not of the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the body of the answer is not what was asked for")]
pub struct DataError(#[from] serde_json::Error);

/// The chunks of a body so far: one chunk alone is kept without a copy.
struct CollectedBody {
    first: Bytes,
    rest: BytesMut,
    room: usize,
}

impl CollectedBody {
    fn new(max_body: usize) -> Self {
        Self { first: Bytes::new(), rest: BytesMut::new(), room: max_body }
    }

    fn push(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        let Some(room) = self.room.checked_sub(chunk.len()) else {
            return Err(TransportError::new(TransportErrorKind::BodyTooLarge, Delivery::MaybeSent));
        };
        self.room = room;
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&chunk);
        }
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

/// An answer whose status is no success, as an error. Its text is the status and the server's
/// message.
#[derive(Debug, Clone)]
pub struct StatusError {
    // Boxed, so that every `Result` of this crate stays small.
    response: Box<Response>,
}

impl From<Response> for StatusError {
    fn from(response: Response) -> Self {
        Self { response: Box::new(response) }
    }
}

impl StatusError {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status
    }

    /// What the server says, if its body is `{"message": "…"}`.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        serde_json::from_slice(&self.response.body).ok().map(|body: Message| body.message)
    }

    /// The whole answer.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status())?;
        match self.message() {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StatusError {}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn response(status: u16, body: &'static str) -> Response {
        let mut response = http::Response::new(Bytes::from_static(body.as_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.into()
    }

    #[test]
    fn an_empty_body_is_none() {
        for body in ["", "\r\n", "  "] {
            assert!(response(200, body).data::<Value>().unwrap().is_none());
        }
        assert_eq!(response(200, "null").data::<Value>().unwrap(), Some(Value::Null));
    }

    #[test]
    fn a_body_that_is_not_what_was_asked_for_is_an_error_and_is_kept() {
        let answer = response(200, "<html>");
        let error = answer.data::<Value>().unwrap_err();
        assert_eq!(error.to_string(), "the body of the answer is not what was asked for");
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(answer.body(), "<html>");
    }

    #[test]
    fn a_status_error_keeps_status_message_and_body() {
        let Err(Error::Status(error)) =
            response(404, r#"{"message": "no such stream"}"#).error_for_status()
        else {
            panic!("a 404 is an error")
        };
        assert_eq!(error.status(), 404);
        assert_eq!(error.message().as_deref(), Some("no such stream"));
        assert_eq!(error.response().body(), r#"{"message": "no such stream"}"#);
        assert_eq!(error.to_string(), "the server answered 404 Not Found: no such stream");
        assert!(response(302, "").error_for_status().is_err());
        assert!(response(201, "").error_for_status().is_ok());
    }

    #[test]
    fn a_body_over_the_limit_is_an_error() {
        let body = |chunks: &[&'static str]| {
            let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from(*chunk))).collect();
            http::Response::new(Body::new(chunks.into_iter()))
        };
        assert_eq!(Response::read(body(&["ab", "cd", "e"]), 5).unwrap().body(), "abcde");
        let error = Response::read(body(&["ab", "cd", "ef"]), 5).unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::BodyTooLarge);
    }
}
