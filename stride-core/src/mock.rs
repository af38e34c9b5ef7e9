//! A Stride that does what a test tells it, without a network and without a runtime.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the mock plays the server, so it waits and times out like one: the fence's only gate"
)]

mod live;
mod reply;

use std::collections::VecDeque;
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, Method, Request};
use serde_json::Value;

pub use self::live::LiveBody;
use self::live::Reader;
pub use self::reply::{Fault, Reply};
use crate::cancel::CancelToken;
use crate::transport::{
    AsyncBody, AsyncTransport, Body, BoxFuture, Call, Delivery, Transport, TransportError,
    TransportErrorKind,
};

/// Plays the server in a test, for blocking and asynchronous programs alike.
///
/// Script what is going to be asked, hand [`transport`](Self::transport) to the client, and look at
/// what was asked in [`requests`](Self::requests). A request that nothing was scripted for fails
/// with a text that says what was expected; it never reaches a network. Dropping the mock fails the
/// test when something was asked that was not scripted, or scripted and never asked for.
///
/// A path is scripted without the version: `/collect/clicks`.
///
/// ```
/// use serde_json::json;
/// use stride_core::cancel::CancelToken;
/// use stride_core::transport::{Call, Limits, Transport};
/// use stride_core::Api;
/// use stride_core::mock::Mock;
///
/// let mock = Mock::new();
/// mock.post("/collect/clicks").reply(200);
///
/// let request = Api::new("key")?.post("/collect/clicks", &json!({"x": 3}))?;
/// let call = Call::new(request, Limits::for_request());
/// assert_eq!(mock.transport().send(call, CancelToken::never())?.status(), 200);
///
/// assert_eq!(mock.requests()[0].json(), Some(&json!({"x": 3})));
/// assert_eq!(mock.requests()[0].api_key(), Some("key"));
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Mock {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    scripts: Vec<Script>,
    requests: Vec<MockRequest>,
    unexpected: Vec<String>,
}

#[derive(Debug)]
struct Script {
    method: Method,
    path: String,
    replies: VecDeque<Reply>,
    /// Given when the answers are used up.
    always: Option<Reply>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Mock {
    /// A server that nothing is scripted for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What to give to a client or a collector as its transport.
    #[must_use]
    pub fn transport(&self) -> MockTransport {
        MockTransport { shared: Arc::clone(&self.shared) }
    }

    /// Scripts a `GET` of this path.
    pub fn get(&self, path: &str) -> Expected<'_> {
        self.expect(Method::GET, path.to_owned())
    }

    /// Scripts a `POST` to this path.
    pub fn post(&self, path: &str) -> Expected<'_> {
        self.expect(Method::POST, path.to_owned())
    }

    /// Scripts a `PUT` to this path.
    pub fn put(&self, path: &str) -> Expected<'_> {
        self.expect(Method::PUT, path.to_owned())
    }

    /// Scripts a `DELETE` of this path.
    pub fn delete(&self, path: &str) -> Expected<'_> {
        self.expect(Method::DELETE, path.to_owned())
    }

    /// Scripts a subscription to this path, given without `/subscribe`.
    pub fn subscribe(&self, path: &str) -> Expected<'_> {
        self.expect(Method::GET, format!("{path}/subscribe"))
    }

    fn expect(&self, method: Method, path: String) -> Expected<'_> {
        Expected { mock: self, method, path }
    }

    /// Every request so far, in the order in which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<MockRequest> {
        lock(&self.shared).requests.clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let state = lock(&self.shared);
        let asked = state.unexpected.join(", ");
        let left: Vec<String> = state
            .scripts
            .iter()
            .filter(|script| !script.replies.is_empty())
            .map(|script| format!("{script} ({} answers left)", script.replies.len()))
            .collect();
        drop(state);
        assert!(asked.is_empty(), "asked, but not scripted: {asked}");
        assert!(left.is_empty(), "scripted, but never asked for: {}", left.join(", "));
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is going to be made; say how it is answered.
#[must_use = "a script without an answer scripts nothing"]
#[derive(Debug)]
pub struct Expected<'a> {
    mock: &'a Mock,
    method: Method,
    path: String,
}

impl Expected<'_> {
    /// Answers the next such request, after those that were scripted before. A status alone is an
    /// answer, too: `answer(200)`.
    pub fn reply(self, reply: impl Into<Reply>) {
        let reply = reply.into();
        self.script(|script| script.replies.push_back(reply));
    }

    /// Answers every such request that has no answer of its own. It may never be made.
    pub fn always(self, answer: impl Into<Reply>) {
        let answer = answer.into();
        self.script(|script| script.always = Some(answer));
    }

    /// Answers the next such request with 200 and a body that the test writes as it goes.
    #[must_use = "a body that nobody ends is open for ever"]
    pub fn live(self) -> LiveBody {
        let live = LiveBody::new();
        self.reply(Reply::status(200).live(&live));
        live
    }

    fn script(self, change: impl FnOnce(&mut Script)) {
        let mut state = lock(&self.mock.shared);
        let known = state
            .scripts
            .iter_mut()
            .find(|script| script.method == self.method && script.path == self.path);
        match known {
            Some(script) => change(script),
            None => {
                let Self { method, path, .. } = self;
                let mut script = Script { method, path, replies: VecDeque::new(), always: None };
                change(&mut script);
                state.scripts.push(script);
            }
        }
    }
}

/// A request as the mock received it: decoded.
#[derive(Clone)]
pub struct MockRequest {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    json: Option<Value>,
    api_key: Option<String>,
}

/// Without the key: a failing test prints this.
impl fmt::Debug for MockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

impl MockRequest {
    fn new(request: &Request<Bytes>) -> Self {
        let headers = request.headers().clone();
        let json = decode(&headers, request.body());
        let api_key = headers.get(AUTHORIZATION).and_then(|value| {
            let credentials = value.to_str().ok()?.strip_prefix("Basic ")?;
            let credentials = String::from_utf8(BASE64.decode(credentials).ok()?).ok()?;
            Some(credentials.split_once(':')?.0.to_owned())
        });
        Self {
            method: request.method().clone(),
            path: without_version(request.uri().path()).to_owned(),
            query: request.uri().query().map(str::to_owned),
            headers,
            json,
            api_key,
        }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path without the version and the query: `/collect/clicks`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, if there is one: `sample=100`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The JSON in the body, decompressed; `None` when there is no body, or it is no JSON.
    #[must_use]
    pub fn json(&self) -> Option<&Value> {
        self.json.as_ref()
    }

    /// The user of the Basic authentication, which is the API key.
    #[must_use]
    pub fn api_key(&self) -> Option<&str> {
        self.api_key.as_deref()
    }
}

/// The path below the version of the base URL, so that scripts need not know the base URL.
fn without_version(path: &str) -> &str {
    let is_version =
        |part: &str| part.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
    let mut start = 0;
    for part in path.split_inclusive('/') {
        start += part.len();
        if is_version(part.trim_end_matches('/')) {
            return &path[start - usize::from(part.ends_with('/'))..];
        }
    }
    path
}

fn decode(headers: &HeaderMap, body: &Bytes) -> Option<Value> {
    let gzipped = headers.get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    if !gzipped {
        return serde_json::from_slice(body).ok();
    }
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The transport of a [`Mock`]. Clones belong to the same mock.
#[derive(Debug, Clone)]
pub struct MockTransport {
    shared: Arc<Mutex<State>>,
}

impl MockTransport {
    fn answer(&self, request: &Request<Bytes>) -> Result<Reply, TransportError> {
        let received = MockRequest::new(request);
        let mut state = lock(&self.shared);
        let script = state
            .scripts
            .iter_mut()
            .filter(|script| script.method == received.method && script.path == received.path)
            .find_map(|script| script.replies.pop_front().or_else(|| script.always.clone()));
        if script.is_none() {
            let asked = format!("{} {}", received.method, received.path);
            let expected: Vec<String> = state
                .scripts
                .iter()
                .filter(|script| !script.replies.is_empty() || script.always.is_some())
                .map(Script::to_string)
                .collect();
            let expected =
                if expected.is_empty() { "nothing".to_owned() } else { expected.join(", ") };
            let call = match (&received.method, received.path.strip_suffix("/subscribe")) {
                (&Method::GET, Some(path)) => format!("subscribe({path:?})"),
                (method, _) => {
                    format!("{}({:?})", method.as_str().to_ascii_lowercase(), received.path)
                }
            };
            let text = format!(
                "the mock has no reply to {asked}; it expects {expected}: \
                 script it with `mock.{call}.reply(200)`"
            );
            state.unexpected.push(asked);
            state.requests.push(received);
            return Err(TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent)
                .with_source(text));
        }
        state.requests.push(received);
        Ok(script.unwrap_or_else(|| Reply::status(200)))
    }
}

impl Transport for MockTransport {
    fn send(
        &self,
        call: Call,
        cancel: CancelToken,
    ) -> Result<http::Response<Body>, TransportError> {
        if cancel.is_cancelled() {
            return Err(TransportError::new(TransportErrorKind::Cancelled, Delivery::NotSent));
        }
        let answer = self.answer(&call.request)?;
        if let Some(mut hang) = answer.hang(&call.limits) {
            hang.cancelled_by(&cancel);
            return Err(hang.fails());
        }
        let (head, mut body) = answer.reply(&call.limits)?;
        body.cancelled_by(&cancel);
        Ok(head.map(|()| Body::new(body)))
    }
}

impl AsyncTransport for MockTransport {
    fn send(&self, call: Call) -> BoxFuture<Result<http::Response<AsyncBody>, TransportError>> {
        let answer = self.answer(&call.request);
        Box::pin(async move {
            let answer = answer?;
            if let Some(hang) = answer.hang(&call.limits) {
                return Err(Reader::fails_async(hang).await);
            }
            let (head, body) = answer.reply(&call.limits)?;
            Ok(head.map(|()| AsyncBody::new(body)))
        })
    }
}
