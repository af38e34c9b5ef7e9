//! A blocking client of the Stride analytics API.
//!
//! Stride *collects* schemaless JSON events into streams, *processes* them with continuous SQL
//! queries, *analyzes* the results, and lets programs *subscribe* to streams of events and changes.
//! This crate sends requests and waits for their responses on the calling thread. It needs no runtime.
//! To send many events in the background, hand a [`Stride`] to `stride-collector`.
//!
//! ```no_run
//! use serde_json::json;
//! use stride_blocking::Stride;
//!
//! let stride = Stride::new("secret_key")?;
//! let response = stride.post("/collect/mystream", &json!({"bojack": "horseman"}))?;
//! assert_eq!(response.status(), 200);
//! # Ok::<(), stride_blocking::Error>(())
//! ```
//!
//! Any status is a [`Response`], which has the status and the JSON value that the server returned, if
//! it did. [`error_for_status`](Response::error_for_status) turns a non-success response into an error
//! that still holds it; the compiler warns where neither is looked at. One [`Error`] serves a whole
//! program; its text names the method, host and path of the request.
//!
//! # The verbs
//!
//! ```no_run
//! use serde_json::json;
//! # let stride = stride_blocking::Stride::new("secret_key")?;
//!
//! let streams: Option<Vec<String>> = stride.get("/collect")?.data()?;
//! // Some(["clicks", "app_events", "web_logs"])
//!
//! let process = json!({
//!     "query": "SELECT count(*) FROM app_events",
//!     "action": {"type": "MATERIALIZE"},
//! });
//! let response = stride.post("/process/myproc", &process)?;
//! assert_eq!(response.status(), 201);
//!
//! stride.post("/collect/app_events", &json!({"x": 42}))?.error_for_status()?;
//!
//! stride.put("/analyze/myanalyze", &json!({"query": "SELECT * FROM myproc"}))?.error_for_status()?;
//!
//! stride.delete("/process/myproc")?.error_for_status()?;
//! # Ok::<(), stride_blocking::Error>(())
//! ```
//!
//! [`with_timeout`](Stride::with_timeout) and [`with_header`](Stride::with_header) make a client for
//! calls that need another limit or a further header; it shares the connections of the first.
//!
//! # Subscribing
//!
//! A subscription is an iterator that ends when it is [stopped](StopHandle) or refused. A connection
//! that is lost is made again; [`events`](SubscribeBuilder::events) reports that, too, while
//! [`data`](SubscribeBuilder::data) yields the values alone.
//!
//! ```no_run
//! use serde_json::Value;
//! # let stride = stride_blocking::Stride::new("secret_key")?;
//!
//! // At most 100 events per second.
//! for event in stride.subscribe("/collect/app_events").sample(100).data::<Value>()? {
//!     println!("{}", event?);
//! }
//! # Ok::<(), stride_blocking::Error>(())
//! ```
//!
//! # Timeouts
//!
//! | | default | set by |
//! |---|---|---|
//! | opening a connection: name, TCP, proxy, TLS | 10 s | [`connect_timeout`](StrideBuilder::connect_timeout) |
//! | a request in total | 30 s | [`timeout`](StrideBuilder::timeout), [`with_timeout`](Stride::with_timeout) |
//! | a subscription's head | 90 s | [`head_timeout`](SubscribeBuilder::head_timeout) |
//! | silence on a subscription | 90 s | [`idle_timeout`](SubscribeBuilder::idle_timeout) |
//!
//! [`Limits`] has the whole table: what each of them bounds, and the error that it ends with.
//!
//! # Middleware
//!
//! A closure is a [`Transport`], and `stride.target().transport` is this crate's own, so headers, trace
//! context and metrics are a closure around it:
//!
//! ```
//! use std::time::Instant;
//! use stride_blocking::{Body, Call, CancelToken, Stride, TransportError, http};
//!
//! let local = "http://127.0.0.1:8080/v1";
//! let inner = Stride::builder("secret_key").endpoint(local).build()?.target().transport;
//! let timed = move |mut call: Call, cancel: CancelToken| -> Result<http::Response<Body>, TransportError> {
//!     call.request.headers_mut().insert("x-tenant", http::HeaderValue::from_static("a"));
//!     let (path, started) = (call.request.uri().path().to_owned(), Instant::now());
//!     let response = inner.send(call, cancel);
//!     println!("{path} took {:?}", started.elapsed());
//!     response
//! };
//! let stride = Stride::builder("secret_key").endpoint(local).transport(timed).build()?;
//! # Ok::<(), stride_blocking::Error>(())
//! ```
//!
//! # Testing
//!
//! With its feature `mock`, `stride-core` plays the server, without a network; its module `mock` is a
//! guide:
//!
//! ```
//! use serde_json::json;
//! use stride_blocking::{Error, Stride};
//! use stride_core::mock::Mock;
//!
//! fn signed_up(stride: &Stride, user: &str) -> Result<(), Error> {
//!     stride.post("/collect/sign_ups", &json!({"user": user}))?.error_for_status()?;
//!     Ok(())
//! }
//!
//! let mock = Mock::new();
//! mock.accept_events();
//! let stride = Stride::builder("key").transport(mock.transport()).build()?;
//! signed_up(&stride, "bojack")?;
//! assert_eq!(mock.collected("sign_ups"), [json!({"user": "bojack"})]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Observability
//!
//! Requests are spans and subscriptions are events of `tracing`, with the targets `stride::request` and
//! `stride::subscription`: the page of [`stride_core`] lists them. The key is in none of them, nor in
//! the log of a library below.
//!
//! # Features
//!
//! * `tls` (default): `https`, by rustls with the web's certificate authorities. It needs a C compiler.
//!   Without it, building a client for an `https` endpoint is an error.
//! * `platform-verifier`: adds `StrideBuilder::platform_verifier`, to trust what the operating system
//!   trusts instead.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod subscription;
mod transport;

pub use client::{Stride, StrideBuilder};
pub use stride_core::api::{PathError, RequestError};
pub use stride_core::cancel::{CancelRegistration, CancelToken};
pub use stride_core::frame::FrameError;
pub use stride_core::proxy::Proxy;
pub use stride_core::response::{DataError, StatusError, Success};
pub use stride_core::subscribe::{
    DisconnectCause, Position, Reconnect, Resumed, SubscriptionEvent,
};
pub use stride_core::transport::{
    Attempt, Body, Call, Delivery, Limits, Target, Transport, TransportError, TransportErrorKind,
};
pub use stride_core::{Api, ApiKey, Bytes, ConfigError, Error, Event, Response, http};
pub use subscription::{Data, Events, StopHandle, SubscribeBuilder};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
