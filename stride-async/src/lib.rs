//! Stride, the real-time analytics API, for programs on tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), stride_async::Error> {
//! let stride = stride_async::Stride::from_env()?;
//! let event = serde_json::json!({"bojack": "horseman"});
//! stride.post("/collect/mystream", &event).await?.error_for_status()?;
//!
//! let streams: Option<Vec<String>> = stride.get("/collect").await?.data()?;
//! # Ok(())
//! # }
//! ```
//!
//! The names are those of `stride-blocking`, awaited: `get`, `post`, `put`, `delete` and `subscribe`. To
//! send many events in the background, start an `AsyncCollector` of `stride-collector` from a [`Stride`].
//!
//! Every status is a [`Response`], which the compiler does not let pass unseen;
//! [`error_for_status`](Response::error_for_status) makes an error of a refusal. [`Error`] is the one
//! error of a whole program, and names the request.
//!
//! # Subscriptions
//!
//! A subscription is a [`Stream`](futures_core::Stream), and has a `next()` that needs no other crate.
//! It ends when it is dropped or refused. A connection that is lost is made again, which
//! [`events`](SubscribeBuilder::events) reports and [`data`](SubscribeBuilder::data) does not.
//!
//! ```no_run
//! # async fn example(stride: stride_async::Stride) -> Result<(), stride_async::Error> {
//! let mut data = stride.subscribe("/collect/app_events").sample(100).data::<serde_json::Value>().await?;
//! while let Some(event) = data.next().await {
//!     println!("at most 100 of these per second: {}", event?);
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
//! # Limits, middleware, traces
//!
//! Connecting takes at most 10 s, a request 30 s as a whole; a subscription waits 90 s for its head and
//! for the next byte. [`Limits`] is the table of what each limit bounds and how it is set.
//!
//! An [`AsyncTransport`] may be a closure, so a middleware is one that calls another transport, such as
//! this crate's:
//!
//! ```
//! use stride_async::{Call, Stride};
//!
//! let builder = Stride::builder("secret_key").endpoint("http://[::1]:8080/v1");
//! let network = builder.clone().build()?.target().transport;
//! let timed = move |call: Call| {
//!     let (uri, started) = (call.request.uri().clone(), std::time::Instant::now());
//!     let response = network.send(call);
//!     async move {
//!         let response = response.await;
//!         println!("{uri} took {:?}", started.elapsed());
//!         response
//!     }
//! };
//! let stride = builder.transport(timed).build()?;
//! # Ok::<(), stride_async::Error>(())
//! ```
//!
//! A request is a span of `tracing`; the page of [`stride_core`] lists all spans and events.
//!
//! # Tests
//!
//! The mock of `stride-core` (its feature `mock`) needs no network. A mock that hangs reaches time-outs by
//! tokio's clock, so with `start_paused` it takes no real time.
//!
//! ```
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), stride_async::Error> {
//! let mock = stride_core::mock::Mock::new();
//! mock.accept_events();
//! let stride = stride_async::Stride::builder("key").transport(mock.transport()).build()?;
//! stride.post("/collect/clicks", &json!({"x": 1})).await?.error_for_status()?; // what your program does
//! assert_eq!(mock.collected("clicks"), [json!({"x": 1})]);
//! # Ok(())
//! # }
//! ```
//!
//! # Cargo features
//!
//! * `tls`, on by default: `https` by rustls, for which a C compiler is needed. A client for an `https`
//!   endpoint cannot be built without it.
//! * `platform-verifier`: trust in what the operating system trusts, by a setting of that name.

#![cfg_attr(docsrs, feature(doc_cfg))]

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
pub use stride_core::subscribe::{
    DisconnectCause, Position, Reconnect, Resumed, SubscriptionEvent,
};
pub use stride_core::transport::{
    AsyncBody, AsyncTarget, AsyncTransport, Attempt, BoxFuture, Call, Delivery, Limits,
    TransportError, TransportErrorKind,
};
pub use stride_core::{Api, ApiKey, Bytes, ConfigError, Error, Event, Response, http};
pub use subscription::{Data, Events, SubscribeBuilder};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
