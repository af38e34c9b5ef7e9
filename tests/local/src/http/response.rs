//! What goes back: nothing, JSON, events without end, or a refusal with a message.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

use super::subscription::{Cut, Subscription};
use crate::engine::position::Position;
use crate::engine::{EngineError, Rows};

/// The body of a response.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Known in whole, and taken by the connection once.
    Whole(Bytes),
    Events(Box<Subscription>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Events(events) => {
                events.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

pub(crate) type Response = http::Response<ResponseBody>;

/// 200 with an empty body.
pub(crate) fn done() -> Response {
    Response::new(ResponseBody::Whole(Bytes::new()))
}

/// 201 with an empty body.
pub(crate) fn created() -> Response {
    let mut response = done();
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// Names the processes whose rows are old that a result comes from.
const STALE: HeaderName = HeaderName::from_static("stride-stale");

/// How many processes that header names at most.
const MOST_STALE: usize = 20;

/// 200 with the rows of a result.
pub(crate) fn rows(Rows { json, mut stale }: Rows) -> Response {
    let mut response = with_json(StatusCode::OK, json);
    stale.truncate(MOST_STALE);
    // The name of a process can stand in a header.
    if !stale.is_empty()
        && let Ok(names) = HeaderValue::try_from(stale.join(", "))
    {
        response.headers_mut().insert(STALE, names);
    }
    response
}

/// 200 with what Prometheus reads.
pub(crate) fn metrics(page: String) -> Response {
    let mut response = Response::new(ResponseBody::Whole(page.into()));
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// 200 with a file that is part of the program.
pub(crate) fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(ResponseBody::Whole(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// 200 with `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    // Only a map whose keys are no strings cannot be JSON, and nothing here has one.
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_json(StatusCode::OK, body.into())
}

/// 200 with events as they come.
pub(crate) fn events(subscription: Subscription) -> Response {
    let mut response = Response::new(ResponseBody::Events(Box::new(subscription)));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    not_stored(response)
}

/// The same response, but no cache may keep it.
pub(crate) fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Names the place in a stream before the first event of a subscription.
const POSITION: HeaderName = HeaderName::from_static("stride-position");

/// How many of the events that a subscription asked for are gone.
const MISSED: HeaderName = HeaderName::from_static("stride-missed");

/// The same, of a subscription that a client can go on with.
pub(crate) fn events_after(at: Position, missing: u64, subscription: Subscription) -> Response {
    let mut response = events(subscription);
    // The text of a position can stand in a header.
    if let Ok(at) = HeaderValue::try_from(at.to_string()) {
        response.headers_mut().insert(POSITION, at);
    }
    if missing > 0 {
        response.headers_mut().insert(MISSED, missing.into());
    }
    response
}

/// How many rows of a process a subscription begins with.
const SNAPSHOT: HeaderName = HeaderName::from_static("stride-snapshot");

/// The same, beginning with so many rows of a process.
pub(crate) fn snapshot(rows: u64, subscription: Subscription) -> Response {
    let mut response = events(subscription);
    response.headers_mut().insert(SNAPSHOT, rows.into());
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn with_json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(ResponseBody::Whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// `status` with a message, for the client's log.
pub(crate) fn message(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "message": message });
    with_json(status, body.to_string().into())
}

/// The last bytes of a connection on which no request was read.
pub(crate) fn last_words(status: StatusCode, message: &str) -> Vec<u8> {
    let body = serde_json::json!({ "message": message }).to_string();
    let reason = status.canonical_reason().unwrap_or_default();
    let retry_after = match status {
        StatusCode::SERVICE_UNAVAILABLE => "retry-after: 1\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         {retry_after}connection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len(),
    )
    .into_bytes()
}

/// Why a request is not carried out. The message says what to do about it where that is not plain.
#[derive(Debug)]
pub(crate) enum Refusal {
    BadRequest(String),
    Unauthorized,
    Forbidden,
    /// The secret key, in a web page of another origin.
    Foreign,
    /// The open key, for a stream that it is not for.
    NotOpen(String),
    Unknown(String),
    WrongMethod {
        allow: &'static str,
    },
    Clash(String),
    SlowBody,
    TooLarge(String),
    WrongType,
    WrongEncoding,
    /// For now: it may go well later.
    Unavailable(String),
    /// What was to be gone on from is no more.
    Gone(String),
    /// There is no room for what is new.
    Full(String),
    Broken,
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotFound(why) => Self::Unknown(why),
            EngineError::Conflict(why) => Self::Clash(why),
            EngineError::Invalid(why) => Self::BadRequest(why),
            EngineError::Unavailable(why) | EngineError::Damaged(why) => Self::Unavailable(why),
            EngineError::Gone(why) => Self::Gone(why),
            EngineError::Full(why) => Self::Full(why),
            EngineError::Broken(why) => {
                tracing::error!(why, "the engine failed");
                Self::Broken
            }
        }
    }
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Foreign | Self::NotOpen(_) => StatusCode::FORBIDDEN,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Clash(_) => StatusCode::CONFLICT,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WrongType | Self::WrongEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Gone(_) => StatusCode::GONE,
            Self::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn response(&self) -> Response {
        let mut response = message(self.status(), &self.to_string());
        let header = match self {
            Self::Unauthorized => {
                Some((header::WWW_AUTHENTICATE, r#"Basic realm="stride", charset="UTF-8""#))
            }
            Self::WrongMethod { allow } => Some((header::ALLOW, *allow)),
            Self::WrongEncoding => Some((header::ACCEPT_ENCODING, "gzip")),
            Self::Unavailable(_) => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why)
            | Self::Unknown(why)
            | Self::Clash(why)
            | Self::TooLarge(why)
            | Self::NotOpen(why)
            | Self::Gone(why)
            | Self::Full(why)
            | Self::Unavailable(why) => f.write_str(why),
            Self::Unauthorized => f.write_str(
                "no key or a wrong one: send it as the user name of HTTP Basic, with no password",
            ),
            Self::Forbidden => f.write_str("an open key may only POST to /collect"),
            Self::Foreign => f.write_str(
                "the secret key does not belong in a web page: use an open key, and POST to /collect",
            ),
            Self::WrongMethod { allow } => write!(f, "wrong method; this path takes {allow}"),
            Self::SlowBody => f.write_str("the body of the request did not come in time"),
            Self::WrongType => f.write_str("send JSON with Content-Type: application/json"),
            Self::WrongEncoding => f.write_str("of the content encodings only gzip is known"),
            Self::Broken => f.write_str("the server failed at this request; its log says how"),
        }
    }
}
