//! A Stride that does what a test tells it, without a network and without a runtime.
//!
//! Feature `mock`, for the `[dev-dependencies]` of a program:
//! `stride-core = { version = "0.1", features = ["mock"] }`. Hand [`Mock::transport`] to the builder
//! of either client, or to a collector in a [`Target`](crate::transport::Target).
//!
//! # A request and its reply
//!
//! ```
//! use serde_json::json;
//! use stride_core::cancel::CancelToken;
//! use stride_core::mock::{Fault, Mock, Reply};
//! use stride_core::transport::{Call, Limits, Transport};
//!
//! let mock = Mock::new();
//! mock.get("/collect").reply(Reply::json(&["clicks", "app_events"]));
//! mock.get("/analyze/visits/results?page=home").reply(Reply::json(&json!([{"visits": 3}])));
//! mock.post("/process/views").reply(Reply::status(409).with_json(&json!({"message": "exists"})));
//! mock.delete("/process/views").reply(503); // the first time,
//! mock.delete("/process/views").reply(Fault::ResetAfterRequest); // the second,
//! mock.delete("/process/views").always(200); // and from then on
//! # let api = stride_core::Api::new("key")?;
//! # let delete = || api.delete("/process/views");
//! # let post = api.post("/process/views", &json!({}))?;
//! # let query = api.get_query("/analyze/visits/results", [("page", "home")])?;
//! # for request in [api.get("/collect")?, query, post, delete()?, delete()?, delete()?] {
//! #     let _ = mock.transport().send(Call::new(request, Limits::for_request()), CancelToken::never());
//! # }
//! # Ok::<(), stride_core::Error>(())
//! ```
//!
//! A request that nothing was scripted for fails with an error whose text says what to script, and
//! fails the test when the mock is dropped. So does a reply that was never asked for.
//! [`Mock::requests`] has every request, decoded.
//!
//! # Events
//!
//! [`Mock::accept_events`] accepts whatever is posted under `/collect`, one event or many, to one
//! stream or to several, and [`Mock::collected`] returns the events of a stream in the order in which
//! they were accepted, however a collector has batched them. Replies that are scripted come first, so
//! a failure before the success is one more line:
//!
//! ```
//! # use serde_json::json;
//! # use stride_core::mock::Mock;
//! # use stride_core::cancel::CancelToken;
//! # use stride_core::transport::{Call, Limits, Transport};
//! let mock = Mock::new();
//! mock.accept_events();
//! mock.post("/collect/clicks").reply(503);
//!
//! # let api = stride_core::Api::new("key")?;
//! # let send = |path: &str, json: serde_json::Value| -> Result<(), stride_core::Error> {
//! #     let call = Call::new(api.post(path, &json)?, Limits::for_request());
//! #     mock.transport().send(call, CancelToken::never())?;
//! #     Ok(())
//! # };
//! # send("/collect/clicks", json!({"x": 1}))?;
//! // ... what a client sends:
//! send("/collect/clicks", json!([{"x": 1}, {"x": 2}]))?;
//! send("/collect", json!({"clicks": [{"x": 3}], "visits": [{"page": "/"}]}))?;
//!
//! assert_eq!(mock.collected("clicks"), [json!({"x": 1}), json!({"x": 2}), json!({"x": 3})]);
//! assert_eq!(mock.collected("visits"), [json!({"page": "/"})]);
//! # Ok::<(), stride_core::Error>(())
//! ```
//!
//! # Subscriptions
//!
//! [`Expected::live`] returns a [`LiveBody`] that the test writes to while the program reads.
//!
//! # Time
//!
//! [`Fault::Timeout`] fails at once, as if a limit had been reached. [`Fault::Hang`] never responds.
//! An asynchronous caller then waits by its own clock, so a test under tokio's paused clock takes no
//! real time. A blocking caller waits up to its limit, or until it is cancelled.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the mock plays the server, so it waits and times out like one: the fence's only gate"
)]

mod live;
mod reply;
mod request;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Method, Request};
use serde::Serialize;
use serde_json::Value;

pub use self::live::LiveBody;
pub use self::reply::{Fault, Reply};
pub use self::request::MockRequest;
use crate::cancel::CancelToken;
use crate::transport::{
    AsyncBody, AsyncTransport, Body, BoxFuture, Call, Delivery, Transport, TransportError,
    TransportErrorKind,
};

/// Plays the server in a test, for blocking and asynchronous programs alike. The
/// [module's page](self) is a guide.
///
/// A path is scripted without the version: `/collect/clicks`. With a query (`/analyze/a/results?x=1`)
/// it matches requests with the same parameters in any order; without one, it matches any query.
///
/// # Panics
///
/// Dropping it panics, and so fails the test, if something was requested that was not scripted, or
/// scripted and never requested.
#[derive(Debug, Default)]
pub struct Mock {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    scripts: Vec<Script>,
    accepts_events: bool,
    requests: Vec<MockRequest>,
    collected: HashMap<String, Vec<Value>>,
    unexpected: Vec<String>,
}

#[derive(Debug)]
struct Script {
    matches: Pattern,
    replies: VecDeque<Reply>,
    /// Given when the replies are used up.
    always: Option<Reply>,
}

/// What a request has to look like.
#[derive(Debug, Clone, PartialEq)]
struct Pattern {
    method: Method,
    path: String,
    /// Sorted; `None` for any.
    query: Option<Vec<(String, String)>>,
    json: Option<Value>,
}

impl Pattern {
    fn fits(&self, request: &MockRequest) -> bool {
        self.method == *request.method()
            && self.path == request.path()
            && self.query.as_ref().is_none_or(|query| *query == request.parameters())
            && self.json.as_ref().is_none_or(|json| Some(json) == request.json())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (index, (name, value)) in self.query.iter().flatten().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { '?' } else { '&' })?;
        }
        match &self.json {
            Some(json) => write!(f, " with {json}"),
            None => Ok(()),
        }
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
        self.expect(Method::GET, path)
    }

    /// Scripts a `POST` to this path.
    pub fn post(&self, path: &str) -> Expected<'_> {
        self.expect(Method::POST, path)
    }

    /// Scripts a `PUT` to this path.
    pub fn put(&self, path: &str) -> Expected<'_> {
        self.expect(Method::PUT, path)
    }

    /// Scripts a `DELETE` of this path.
    pub fn delete(&self, path: &str) -> Expected<'_> {
        self.expect(Method::DELETE, path)
    }

    /// Scripts a subscription to this path, given without `/subscribe`.
    pub fn subscribe(&self, path: &str) -> Expected<'_> {
        self.expect(Method::GET, &format!("{path}/subscribe"))
    }

    fn expect(&self, method: Method, path: &str) -> Expected<'_> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(request::parameters(query))),
            None => (path, None),
        };
        let pattern = Pattern { method, path: path.to_owned(), query, json: None };
        Expected { mock: self, pattern }
    }

    /// Responds 200 to every `POST` under `/collect` that has no scripted reply (left).
    pub fn accept_events(&self) {
        lock(&self.shared).accepts_events = true;
    }

    /// The events of a stream in the order in which they were accepted: those of every `POST` under
    /// `/collect` that got a success (2xx).
    #[must_use]
    pub fn collected(&self, stream: &str) -> Vec<Value> {
        lock(&self.shared).collected.get(stream).cloned().unwrap_or_default()
    }

    /// Every request so far, in the order of arrival.
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
        let unexpected = state.unexpected.join(", ");
        let left: Vec<String> = state
            .scripts
            .iter()
            .filter(|script| !script.replies.is_empty())
            .map(|script| format!("{} ({} replies left)", script.matches, script.replies.len()))
            .collect();
        drop(state);
        assert!(unexpected.is_empty(), "requested, but not scripted: {unexpected}");
        assert!(left.is_empty(), "scripted, but never requested: {}", left.join(", "));
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is going to be made; say what the reply is.
#[must_use = "a script without a reply scripts nothing"]
#[derive(Debug)]
pub struct Expected<'a> {
    mock: &'a Mock,
    pattern: Pattern,
}

impl Expected<'_> {
    /// Only such a request with this JSON in its body, as of a certain SQL query.
    ///
    /// # Panics
    ///
    /// The value cannot be written as JSON.
    pub fn with_json<T: Serialize + ?Sized>(mut self, json: &T) -> Self {
        let json = serde_json::to_value(json).expect("the value can be written as JSON");
        self.pattern.json = Some(json);
        self
    }

    /// Replies to the next such request, after the replies that were scripted before. A status alone
    /// is a reply, too: `reply(200)`.
    pub fn reply(self, reply: impl Into<Reply>) {
        let reply = reply.into();
        self.script(|script| script.replies.push_back(reply));
    }

    /// Replies to every such request for which no other reply is left. It may never be made.
    pub fn always(self, reply: impl Into<Reply>) {
        let reply = reply.into();
        self.script(|script| script.always = Some(reply));
    }

    /// Replies to the next such request with 200 and a body that the test writes as it goes.
    #[must_use = "a body that nobody ends stays open"]
    pub fn live(self) -> LiveBody {
        let live = LiveBody::new();
        self.reply(Reply::status(200).live(&live));
        live
    }

    fn script(self, change: impl FnOnce(&mut Script)) {
        let mut state = lock(&self.mock.shared);
        let known = state.scripts.iter_mut().find(|script| script.matches == self.pattern);
        match known {
            Some(script) => change(script),
            None => {
                let replies = VecDeque::new();
                let mut script = Script { matches: self.pattern, replies, always: None };
                change(&mut script);
                state.scripts.push(script);
            }
        }
    }
}

impl State {
    /// The reply to a request, if there is one.
    fn reply(&mut self, request: &MockRequest) -> Option<Reply> {
        let fits = |script: &&mut Script| script.matches.fits(request);
        let next = self.scripts.iter_mut().filter(fits).find_map(|it| it.replies.pop_front());
        let always = || self.scripts.iter().filter(|it| it.matches.fits(request));
        let reply = next.or_else(|| always().find_map(|it| it.always.clone()));
        let is_collect = *request.method() == Method::POST
            && (request.path() == "/collect" || request.path().starts_with("/collect/"));
        let reply = reply.or_else(|| (self.accepts_events && is_collect).then(|| 200.into()))?;
        if is_collect && reply.is_success() {
            for (stream, events) in request.events() {
                self.collected.entry(stream).or_default().extend(events);
            }
        }
        Some(reply)
    }

    /// What to tell the author of a test about a request without a reply.
    fn advice(&self, request: &MockRequest) -> String {
        let expected: Vec<String> = self
            .scripts
            .iter()
            .filter(|script| !script.replies.is_empty() || script.always.is_some())
            .map(|script| script.matches.to_string())
            .collect();
        let expected = if expected.is_empty() { "nothing".to_owned() } else { expected.join(", ") };
        let call = match (request.method(), request.path().strip_suffix("/subscribe")) {
            (&Method::GET, Some(path)) => format!("subscribe({path:?})"),
            (method, _) => {
                format!("{}({:?})", method.as_str().to_ascii_lowercase(), request.path())
            }
        };
        let method_and_path = request.line();
        format!(
            "the mock has no reply to {method_and_path}; it expects {expected}: \
             script it with `mock.{call}.reply(200)`"
        )
    }
}

/// The transport of a [`Mock`]. Clones belong to the same mock.
#[derive(Debug, Clone)]
pub struct MockTransport {
    shared: Arc<Mutex<State>>,
}

impl MockTransport {
    fn reply(&self, request: &Request<Bytes>) -> Result<Reply, TransportError> {
        let request = MockRequest::new(request);
        let mut state = lock(&self.shared);
        let reply = state.reply(&request);
        let reply = reply.ok_or_else(|| {
            let advice = state.advice(&request);
            state.unexpected.push(request.line());
            TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent)
                .with_message(advice)
        });
        state.requests.push(request);
        reply
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
        let reply = self.reply(&call.request)?;
        if reply.hangs() {
            return Err(live::hang(&call.limits, &cancel));
        }
        let (head, live) = reply.start()?;
        Ok(head.map(|()| Body::new(live.blocking_reader(&call.limits, &cancel))))
    }
}

impl AsyncTransport for MockTransport {
    fn send(&self, call: Call) -> BoxFuture<Result<http::Response<AsyncBody>, TransportError>> {
        let reply = self.reply(&call.request);
        Box::pin(async move {
            let reply = reply?;
            if reply.hangs() {
                return std::future::pending().await;
            }
            let (head, live) = reply.start()?;
            Ok(head.map(|()| AsyncBody::new(live.reader())))
        })
    }
}
