//! A blocking client of the Stride analytics API.
//!
//! Stride *collects* schemaless JSON events into streams, *processes* them with continuous SQL
//! queries, *analyzes* the results, and lets programs *subscribe* to streams of events and changes.
//! This crate sends requests and waits for their answers on the calling thread; it needs no runtime
//! and starts no threads of its own, except to look up a host by name. To send many events in the
//! background, hand a [`Stride`] to `stride-collector`.
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
//! Every status is a [`Response`], which has the status and the JSON value that the server returned,
//! if it did. `?` after [`error_for_status`](Response::error_for_status) turns one that is no success
//! into an [`Error`], which keeps it.
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
//! # Subscribing
//!
//! A subscription is an iterator that ends when it is [stopped](StopHandle) or refused. A connection
//! that is lost is made again by itself; [`events`](SubscribeBuilder::events) tells of that, too, while
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
//! # What waits how long
//!
//! | | default | set by |
//! |---|---|---|
//! | opening a connection: name, TCP, proxy, TLS | 10 s | [`StrideBuilder::connect_timeout`] |
//! | a request in total | 30 s | [`StrideBuilder::timeout`] |
//! | a subscription's head | 90 s | |
//! | silence on a subscription | 90 s | [`SubscribeBuilder::idle_timeout`] |
//!
//! # Testing
//!
//! With its feature `mock`, `stride-core` plays the server, without a network:
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
//! mock.post("/collect/sign_ups").reply(200);
//! let stride = Stride::builder("key").transport(mock.transport()).build()?;
//! signed_up(&stride, "bojack")?;
//! assert_eq!(mock.requests()[0].json(), Some(&json!({"user": "bojack"})));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Features
//!
//! * `tls` (default): `https`, by rustls with the web's certificate authorities. Without it a
//!   request to `https` is an error. It needs a C compiler.
//! * `platform-verifier`: adds `StrideBuilder::platform_verifier`, to trust what the operating
//!   system trusts.

mod client;
mod subscription;
mod transport;

pub use client::{Stride, StrideBuilder};
pub use stride_core::api::{PathError, RequestError};
pub use stride_core::cancel::{CancelRegistration, CancelToken};
pub use stride_core::frame::FrameError;
pub use stride_core::proxy::Proxy;
pub use stride_core::response::{DataError, StatusError, Success};
pub use stride_core::subscribe::{DisconnectCause, Reconnect, SubscriptionEvent};
pub use stride_core::transport::{
    Attempt, Body, Call, Delivery, Limits, Target, Transport, TransportError, TransportErrorKind,
};
pub use stride_core::{Api, ApiKey, Bytes, ConfigError, Error, Event, Response, http};
pub use subscription::{Data, Events, StopHandle, SubscribeBuilder};
