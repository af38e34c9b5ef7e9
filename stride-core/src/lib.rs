//! Stride without the IO: builds the requests of the Stride analytics API, parses its answers and
//! stream frames, and decides when to connect and when to try again.
//!
//! Stride *collects* schemaless JSON events into streams, *processes* them with continuous SQL
//! queries, *analyzes* the results, and lets programs *subscribe* to streams of events and changes.
//!
//! Most programs want one of the crates that drive this one: `stride-blocking` or `stride-async`,
//! and `stride-collector` to send many events in the background. Use this crate alone to put Stride
//! onto a runtime of your own, to write a [`Transport`], or to test without a network.
//!
//! | in scope | out of scope |
//! |---|---|
//! | requests: paths, encoding, compression, authentication ([`Api`]) | sockets, TLS, proxies |
//! | answers and their errors ([`Response`]) | threads, tasks, timers |
//! | finding JSON values in a stream of bytes ([`FrameDecoder`]) | the clock: time is an argument |
//! | reconnecting, back-off, `Retry-After` ([`Subscription`], [`Backoff`]) | chance: seeds are arguments |
//! | the traits between all that and a network ([`Transport`], [`AsyncTransport`]) | |
//!
//! # A request and its answer
//!
//! ```
//! use stride_core::{Api, Response};
//!
//! let endpoint = Api::new("secret_key")?;
//! let request = endpoint.get("/collect")?;
//! assert_eq!(request.uri(), "https://api.stride.io/v1/collect");
//!
//! // Whatever sends it gives back an `http::Response`.
//! let answer = http::Response::new(bytes::Bytes::from(r#"["clicks"]"#));
//! let streams: Option<Vec<String>> = Response::from(answer).error_for_status()?.data()?;
//! assert_eq!(streams.unwrap(), ["clicks"]);
//! # Ok::<(), stride_core::Error>(())
//! ```
//!
//! # A subscription
//!
//! [`Subscription`] is a state machine. Its driver polls it, does what it says, and reports what
//! came of it:
//!
//! ```text
//!              poll                          the driver then
//!   ┌────────► Connect(call) ──────────────► sends it:  handle_head, or handle_end
//!   │          Read ───────────────────────► takes a chunk:  handle_bytes, or handle_end
//!   │          Item(event) ────────────────► hands it to the user
//!   │          Close ──────────────────────► drops the connection
//!   └───────── Wait { until } ─────────────► waits
//!              Closed(result) ─────────────► is done
//! ```

pub mod api;
pub mod cancel;
pub mod client;
pub mod config;
mod error;
mod event;
pub mod frame;
pub mod gzip;
#[cfg(feature = "mock")]
pub mod mock;
pub mod proxy;
pub mod response;
pub mod retry;
pub mod subscribe;
pub mod transport;

pub use api::{Api, ApiKey};
pub use bytes::Bytes;
pub use config::ConfigError;
pub use error::Error;
pub use event::Event;
pub use http;
pub use response::Response;
