//! Responses. Any status is a [`Response`], and its body is never thrown away.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::transport::{AsyncBody, Attempt, Body, Delivery, TransportError, TransportErrorKind};

/// The most of a server's message that an error shows, in characters: a paragraph, not a page.
const LONGEST_MESSAGE: usize = 1000;

/// The response to a request, whatever its status.
///
/// A `Response` that nobody looks at may be a failure that nobody sees, so the compiler warns when
/// one is dropped. [`error_for_status`](Self::error_for_status) gives a [`Success`], which may be.
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
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # fn post() -> Result<stride_core::Response, stride_core::Error> { Err(stride_core::ConfigError::EmptyKey.into()) }
/// # fn a1_a_response_that_is_dropped_warns() -> Result<(), stride_core::Error> {
/// post()?; // a 500 would go unnoticed
/// # Ok(())
/// # }
/// ```
///
/// ```
/// #![deny(unused_must_use)]
/// # fn post() -> Result<stride_core::Response, stride_core::Error> { Err(stride_core::ConfigError::EmptyKey.into()) }
/// # fn a1_a_success_may_be_dropped() -> Result<(), stride_core::Error> {
/// post()?.error_for_status()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "any status is a `Response`: call `error_for_status()?`, or look at `status()`"]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    attempt: Option<Box<Attempt>>,
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
        Self { status: head.status, headers: head.headers, body, attempt: None }
    }
}

impl Response {
    /// Reads the whole body of the response that a [`Transport`](crate::transport::Transport)
    /// received.
    ///
    /// # Errors
    ///
    /// The body breaks off or is longer than `max_body` bytes, or a success is encoded, for example
    /// compressed, although every request says `Accept-Encoding: identity`.
    pub fn read(response: http::Response<Body>, max_body: usize) -> Result<Self, TransportError> {
        let (head, body) = response.into_parts();
        let mut collected = CollectedBody::new(max_body);
        for chunk in body {
            collected.push(chunk?)?;
        }
        Self::whole(http::Response::from_parts(head, collected.finish()))
    }

    /// Reads the whole body of the response that an
    /// [`AsyncTransport`](crate::transport::AsyncTransport) received.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn read_async(
        response: http::Response<AsyncBody>,
        max_body: usize,
    ) -> Result<Self, TransportError> {
        let (head, mut body) = response.into_parts();
        let mut collected = CollectedBody::new(max_body);
        while let Some(chunk) = body.next().await {
            collected.push(chunk?)?;
        }
        Self::whole(http::Response::from_parts(head, collected.finish()))
    }

    fn whole(response: http::Response<Bytes>) -> Result<Self, TransportError> {
        if response.status().is_success() && !response.body().is_empty() {
            check_encoding(response.headers())?;
        }
        Ok(response.into())
    }

    /// The same response with the request that it belongs to, which its errors then name. The
    /// clients set it.
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.attempt = Some(Box::new(attempt));
        self
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

    /// The body as it was received.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The request that this is the response to, if it is known.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_deref()
    }

    /// The JSON value in the body; `None` when the body is empty.
    ///
    /// # Errors
    ///
    /// The body is not valid JSON, or not a `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, DataError> {
        if self.body.trim_ascii().is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice(&self.body) {
            Ok(data) => Ok(Some(data)),
            Err(error) => Err(DataError::new(error, self.attempt().cloned())),
        }
    }

    /// The response as a [`Success`] when its status is one (2xx).
    ///
    /// # Errors
    ///
    /// Any other status is an error that keeps status, headers and body.
    pub fn error_for_status(self) -> Result<Success, StatusError> {
        if self.status.is_success() { Ok(Success(self)) } else { Err(self.into()) }
    }
}

/// A response whose status is a success (2xx). It reads like the [`Response`] that it holds, and may
/// be dropped.
#[derive(Debug, Clone)]
pub struct Success(Response);

impl Deref for Success {
    type Target = Response;

    fn deref(&self) -> &Response {
        &self.0
    }
}

impl From<Success> for Response {
    fn from(success: Success) -> Self {
        success.0
    }
}

/// Refuses a body that is encoded although nobody asked for that.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), TransportError> {
    let encoding = |value: &http::HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        (!text.is_empty() && text != "identity").then_some(text)
    };
    match headers.get_all(CONTENT_ENCODING).iter().find_map(encoding) {
        None => Ok(()),
        Some(encoding) => {
            Err(TransportError::new(TransportErrorKind::Encoded, Delivery::MaybeSent)
                .with_message(format!("`Content-Encoding: {}`", Shown(&encoding))))
        }
    }
}

/// Text from a server, for a terminal or a log: control characters are escaped, and so are those
/// that change the direction of writing; the end of a long text is left out.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_hidden = |character: char| {
            character.is_control()
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        };
        for (index, character) in self.0.chars().enumerate() {
            if index == LONGEST_MESSAGE {
                return f.write_str("…");
            }
            if is_hidden(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// The body of a response, or a value of a subscription, is not valid JSON or not of the type that
/// was asked for. [`source`](std::error::Error::source) says what is wrong with it.
#[derive(Debug)]
pub struct DataError {
    attempt: Option<Box<Attempt>>,
    source: Box<dyn StdError + Send + Sync>,
}

impl DataError {
    /// What is wrong with the data of this request's response.
    pub(crate) fn new(
        source: impl Into<Box<dyn StdError + Send + Sync>>,
        attempt: Option<Attempt>,
    ) -> Self {
        Self { attempt: attempt.map(Box::new), source: source.into() }
    }

    /// The request whose response it is, if it is known.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_deref()
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(attempt) = &self.attempt {
            write!(f, "{attempt}: ")?;
        }
        f.write_str("the data is not what was asked for")
    }
}

impl StdError for DataError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

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

/// A response whose status is not a success, as an error.
///
/// Its text is the request, the status and the server's message, in which control characters are
/// escaped and whose end is left out after 1000 characters.
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

    /// What the server says, if its body is `{"message": "…"}`: as it was received, so escape it
    /// before you print it.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        serde_json::from_slice(&self.response.body).ok().map(|body: Message| body.message)
    }

    /// The whole response.
    pub fn response(&self) -> &Response {
        &self.response
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(attempt) = self.response.attempt() {
            write!(f, "{attempt}: ")?;
        }
        write!(f, "the server responded {}", self.status())?;
        match self.message() {
            Some(message) => write!(f, ": {}", Shown(&message)),
            None => Ok(()),
        }
    }
}

impl StdError for StatusError {}

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
        let response = response(200, "<html>");
        let error = response.data::<Value>().unwrap_err();
        assert_eq!(error.to_string(), "the data is not what was asked for");
        assert!(error.source().is_some());
        assert_eq!(response.body(), "<html>");
    }

    #[test]
    fn a_status_error_keeps_status_message_and_body() {
        let refused = response(404, r#"{"message": "no such stream"}"#);
        let error = refused.error_for_status().unwrap_err();
        assert_eq!(error.status(), 404);
        assert_eq!(error.message().as_deref(), Some("no such stream"));
        assert_eq!(error.response().body(), r#"{"message": "no such stream"}"#);
        assert_eq!(error.to_string(), "the server responded 404 Not Found: no such stream");
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

    #[test]
    fn n13_a_message_is_escaped_and_bounded_where_it_is_shown() {
        let shown = |message: &str| {
            let body = serde_json::json!({"message": message}).to_string();
            let mut refused = http::Response::new(Bytes::from(body));
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            let error = StatusError::from(Response::from(refused));
            assert_eq!(error.message().as_deref(), Some(message));
            error.to_string().split_once("Bad Request: ").unwrap().1.to_owned()
        };
        assert_eq!(shown("\u{1b}[31mred\r\nnext\u{9b}\0"), r"\u{1b}[31mred\r\nnext\u{9b}\u{0}");
        assert_eq!(shown("a\u{202e}b\u{feff}"), r"a\u{202e}b\u{feff}");
        assert_eq!(shown("“Grüße”, \\ 'x'"), "“Grüße”, \\ 'x'");
        assert_eq!(shown(&"é".repeat(5000)).chars().count(), LONGEST_MESSAGE + 1);
    }

    #[test]
    fn n4_an_encoded_success_is_an_error_that_says_so() {
        let read = |status: u16, encoding: &str, body: &'static str| {
            let mut encoded = http::Response::new(Body::from(body));
            *encoded.status_mut() = StatusCode::from_u16(status).unwrap();
            encoded.headers_mut().insert(CONTENT_ENCODING, encoding.parse().unwrap());
            Response::read(encoded, 100)
        };
        for encoding in ["gzip", "GZIP", "br", "deflate, gzip", "x\u{e9}"] {
            let error = read(200, encoding, "x").unwrap_err();
            assert_eq!(error.kind(), TransportErrorKind::Encoded);
            assert_eq!(error.delivery(), Delivery::MaybeSent);
            assert!(error.to_string().contains("`Content-Encoding: "), "{error}");
            // Without a body there is nothing that could be misread, and a refusal is one in any case.
            assert!(read(200, encoding, "").is_ok());
            assert_eq!(read(503, encoding, "x").unwrap().status(), 503);
        }
        for encoding in ["identity", "Identity", ""] {
            assert!(read(200, encoding, "x").is_ok());
        }
    }

    #[test]
    fn a7_errors_name_method_host_and_path() {
        let request = crate::Api::new("key").unwrap().get("/analyze/a/results?name=x").unwrap();
        let attempt = Attempt::of(&request);
        let name = "GET https://api.stride.io/v1/analyze/a/results: ";
        let refused = response(404, "").with_attempt(attempt.clone()).error_for_status();
        let mistyped = response(200, "[]").with_attempt(attempt.clone()).data::<u8>();
        let broken = TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent);
        for error in [
            crate::Error::from(refused.unwrap_err()),
            mistyped.unwrap_err().into(),
            broken.with_attempt(attempt.clone()).into(),
        ] {
            assert!(error.to_string().starts_with(name), "{error}");
            assert_eq!(error.attempt(), Some(&attempt));
        }
    }
}
