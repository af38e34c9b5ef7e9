//! Stride without the IO: builds the requests of the Stride analytics API, parses its responses and
//! stream frames, and decides when to connect and when to try again.
//!
//! Stride *collects* schemaless JSON events into streams, *processes* them with continuous SQL
//! queries, *analyzes* the results, and lets programs *subscribe* to streams of events and changes.
//!
//! Most programs want one of the crates that drive this one: `stride-blocking` or `stride-async`,
//! and `stride-collector` to send many events in the background. Use this crate alone to run Stride on
//! another runtime, to write a [`Transport`](transport::Transport), or to test without a network
//! ([`mock`], with the feature of that name).
//!
//! | in scope | out of scope |
//! |---|---|
//! | requests: paths, encoding, compression, authentication ([`Api`]) | sockets, TLS, proxies |
//! | responses and their errors ([`Response`], [`Error`]) | threads, tasks, timers |
//! | finding JSON values in a stream of bytes ([`frame`]) | the clock: time is an argument |
//! | reconnecting, resuming, backoff, `Retry-After` ([`subscribe`], [`retry`]) | randomness: seeds are arguments |
//! | the settings of clients ([`client`]) | the environment |
//! | the traits between all that and a network ([`transport`]) | |
//!
//! # A request and its response
//!
//! ```
//! use stride_core::{Api, Response};
//!
//! let api = Api::new("secret_key")?;
//! let request = api.get("/collect")?;
//! assert_eq!(request.uri(), "https://api.stride.io/v1/collect");
//!
//! // Whatever sends it returns an `http::Response`.
//! let received = http::Response::new(bytes::Bytes::from(r#"["clicks"]"#));
//! let streams: Option<Vec<String>> = Response::from(received).error_for_status()?.data()?;
//! assert_eq!(streams.unwrap(), ["clicks"]);
//! # Ok::<(), stride_core::Error>(())
//! ```
//!
//! # A subscription
//!
//! [`Subscription`](subscribe::Subscription) is a state machine. Its driver polls it, does what it
//! says, and reports what came of it:
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
//!
//! # Observability
//!
//! What happens is told to [`tracing`], without payloads and without the key:
//!
//! | target | level | what | fields |
//! |---|---|---|---|
//! | `stride::request` | `DEBUG` | span of a client's request | `method`, `host`, `path`, `status` |
//! | `stride::request` | `DEBUG` | "response received" | `status` |
//! | `stride::request` | `DEBUG` | "request failed" | `error` with its sources, `delivery` |
//! | `stride::subscription` | `DEBUG` | "connected" | `path`, `gap`, `resumed` |
//! | `stride::subscription` | `WARN` | "the position is gone" | `path` |
//! | `stride::subscription` | `WARN` | "disconnected" | `path`, `cause`, `error` with its sources, `delay` |
//! | `stride::subscription` | `WARN` | "refused" | `error` with its sources |
//! | `stride::subscription` | `WARN` | "malformed frame" | `path`, `error` |
//! | `stride::subscription` | `DEBUG` | "ended" | `path`, `cause`, `error` with its sources |
//!
//! # Features
//!
//! * `mock`: a server that tests script, for both transport traits.
//! * `tls` and `platform-verifier`: the TLS settings of [`client`], for crates whose transport uses
//!   rustls. They choose the cryptography.

#![cfg_attr(docsrs, feature(doc_cfg))]

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

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
