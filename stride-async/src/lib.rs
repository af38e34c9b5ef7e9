//! An asynchronous client of the Stride analytics API, on tokio.
//!
//! Stride *collects* schemaless JSON events into streams, *processes* them with continuous SQL
//! queries, *analyzes* the results, and lets programs *subscribe* to streams of events and changes.
//! To send many events in the background, hand a [`Stride`] to `stride-collector`.
//!
//! ```no_run
//! use serde_json::json;
//! use stride_async::Stride;
//!
//! # async fn example() -> Result<(), stride_async::Error> {
//! let stride = Stride::new("secret_key")?;
//! let response = stride.post("/collect/mystream", &json!({"bojack": "horseman"})).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
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
//! # async fn example() -> Result<(), stride_async::Error> {
//! # let stride = stride_async::Stride::new("secret_key")?;
//!
//! let streams: Option<Vec<String>> = stride.get("/collect").await?.data()?;
//! // Some(["clicks", "app_events", "web_logs"])
//!
//! let process = json!({
//!     "query": "SELECT count(*) FROM app_events",
//!     "action": {"type": "MATERIALIZE"},
//! });
//! let response = stride.post("/process/myproc", &process).await?;
//! assert_eq!(response.status(), 201);
//!
//! stride.post("/collect/app_events", &json!({"x": 42})).await?.error_for_status()?;
//!
//! let analyze = json!({"query": "SELECT * FROM myproc"});
//! stride.put("/analyze/myanalyze", &analyze).await?.error_for_status()?;
//!
//! stride.delete("/process/myproc").await?.error_for_status()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`with_timeout`](Stride::with_timeout) and [`with_header`](Stride::with_header) make a client for
//! calls that need another limit or a further header; it shares the connections of the first.
//!
//! # Subscribing
//!
//! A subscription is a [`Stream`](futures_core::Stream), and has a `next()` that needs no other crate.
//! It ends when it is dropped or refused. A connection that is lost is made again;
//! [`events`](SubscribeBuilder::events) reports that, too, while [`data`](SubscribeBuilder::data) yields
//! the values alone.
//!
//! ```no_run
//! use serde_json::Value;
//! # async fn example() -> Result<(), stride_async::Error> {
//! # let stride = stride_async::Stride::new("secret_key")?;
//!
//! // At most 100 events per second.
//! let mut data = stride.subscribe("/collect/app_events").sample(100).data::<Value>().await?;
//! while let Some(event) = data.next().await {
//!     println!("{}", event?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is read from the socket while nobody waits for an event, so a slow program slows the server
//! down and fills no memory. A busy subscription lets the other tasks of its thread run, by tokio's
//! cooperative budget.
//!
//! # Cancel safety
//!
//! * [`Events::next`] and [`Data::next`] are cancel safe: they can be a branch of `tokio::select!` in a
//!   loop, and no event is lost when another branch wins.
//! * Dropping [`Events`] or [`Data`] closes the connection at once, whatever the runtime is doing. So
//!   does dropping the future of [`SubscribeBuilder::events`] or [`SubscribeBuilder::data`], which ends
//!   the subscription; the next one starts anew.
//! * Dropping the future of a verb closes its connection. The request may have arrived or not, so
//!   `post` and `put` are not cancel safe in the sense that trying again is harmless.
//!
//! # Runtimes
//!
//! tokio's current-thread and multi-thread runtimes will do; time and IO have to be enabled
//! (`enable_all`). A [`Stride`] can be made anywhere, also outside of a runtime, and be used in several
//! at the same time or one after the other: connections are kept for the runtime that opened them, and
//! closed when it ends. A subscription that outlives its runtime connects again in the one that polls it
//! next. Polled outside of a runtime, or in one where time or IO is not enabled, everything fails with
//! [`TransportErrorKind::Unsupported`] and says what is missing. (tokio panics where a driver is missing:
//! the panic is caught, unless the program is built to abort, but its message is printed.)
//!
//! There are no tasks behind a client, but for one that closes connections that were not used for
//! 15 s, while there are any.
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
//! A closure is an [`AsyncTransport`], and `stride.target().transport` is this crate's own, so headers,
//! trace context and metrics are a closure around it:
//!
//! ```
//! use std::time::Instant;
//! use stride_async::{Call, Stride, http};
//!
//! let local = "http://127.0.0.1:8080/v1";
//! let inner = Stride::builder("secret_key").endpoint(local).build()?.target().transport;
//! let timed = move |mut call: Call| {
//!     call.request.headers_mut().insert("x-tenant", http::HeaderValue::from_static("a"));
//!     let (path, started) = (call.request.uri().path().to_owned(), Instant::now());
//!     let response = inner.send(call);
//!     async move {
//!         let response = response.await;
//!         println!("{path} took {:?}", started.elapsed());
//!         response
//!     }
//! };
//! let stride = Stride::builder("secret_key").endpoint(local).transport(timed).build()?;
//! # Ok::<(), stride_async::Error>(())
//! ```
//!
//! # Testing
//!
//! With its feature `mock`, `stride-core` plays the server, without a network; its module `mock` is a
//! guide:
//!
//! ```
//! use serde_json::json;
//! use stride_async::{Error, Stride};
//! use stride_core::mock::Mock;
//!
//! async fn signed_up(stride: &Stride, user: &str) -> Result<(), Error> {
//!     stride.post("/collect/sign_ups", &json!({"user": user})).await?.error_for_status()?;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let mock = Mock::new();
//! mock.accept_events();
//! let stride = Stride::builder("key").transport(mock.transport()).build()?;
//! signed_up(&stride, "bojack").await?;
//! assert_eq!(mock.collected("sign_ups"), [json!({"user": "bojack"})]);
//! # Ok(())
//! # }
//! ```
//!
//! Time-outs run by tokio's clock, those of a mock that hangs included: under `start_paused` such a test
//! takes no real time.
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

mod alarm;
mod client;
mod subscription;
mod transport;
mod turn;

pub use client::{ResponseFuture, Stride, StrideBuilder};
pub use stride_core::api::{PathError, RequestError};
pub use stride_core::frame::FrameError;
pub use stride_core::proxy::Proxy;
pub use stride_core::response::{DataError, StatusError, Success};
pub use stride_core::subscribe::{DisconnectCause, Reconnect, SubscriptionEvent};
pub use stride_core::transport::{
    AsyncBody, AsyncTarget, AsyncTransport, Attempt, BoxFuture, Call, Delivery, Limits,
    TransportError, TransportErrorKind,
};
pub use stride_core::{Api, ApiKey, Bytes, ConfigError, Error, Event, Response, http};
pub use subscription::{Data, Events, SubscribeBuilder};
