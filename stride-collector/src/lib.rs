//! Collects events in the background and sends them to Stride in batches.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde_json::json;
//! use stride_collector::Collector;
//! use stride_core::cancel::CancelToken;
//! use stride_core::transport::{Body, Call, Target, TransportError};
//! use stride_core::Api;
//!
//! // A client, such as `&stride`, does as well; this one only pretends to send.
//! let transport = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
//!     Ok(http::Response::new(Body::default()))
//! };
//! let api = Api::new("secret_key")?;
//!
//! let collector = Collector::start(Target { api, transport: Arc::new(transport) })?;
//! collector.collect("mystream", &json!({"bojack": "horseman"}))?;
//!
//! let clicks = collector.stream("clicks")?; // for the hottest loops
//! for x in 0..1000 {
//!     clicks.collect(&json!({"x": x}))?;
//! }
//!
//! let report = collector.stop();
//! assert_eq!((report.accepted, report.delivered, report.lost()), (1001, 1001, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised about events
//!
//! * `collect` never waits for the network. When the memory budget is used up, it returns
//!   [`Full`](CollectError::Full) at once.
//! * Every accepted event ends exactly once: delivered, when a request that held it got a success, or
//!   lost, with a [reason](LossReason) and its bytes handed to [`on_lost`](Builder::on_lost).
//!   `accepted = delivered + lost + pending` in every report.
//! * Delivery is at least once. When a response is lost, the same bytes are sent again; with
//!   [`stamp`](Builder::stamp) every event has an `$id` by which Stride stores it once.
//! * What may pass (408, 425, 429, 5xx but 501 and 505, and what happens to a connection) is sent
//!   again, for up to [`retry_for`](Builder::retry_for). `Retry-After` is obeyed, and does not count for
//!   an event's age. A server that is down, or fails as a whole, is probed by one request at a time,
//!   after pauses that double from 100 ms to 10 s, each of random length.
//! * Streams do not wait for each other's trouble: each has its own retries and delays. Streams with few
//!   events share requests, and one that makes such a request fail is singled out.
//! * One event that the server rejects (400, 422) does not take its batch down: the batch is halved
//!   until the event is found, in at most 64 requests, and it alone is lost. 413 halves the batch. 401
//!   and 403 pause and are probed, so that a key can be rotated back.
//! * What cannot pass, such as a certificate that is refused, is lost at once, with its error.
//! * [`flush`](Collector::flush) and [`stop`](Collector::stop) return by their deadline, whatever
//!   the server does. Only time that is spent inside your own `on_lost` comes on top.
//! * Memory stays within the [budget](Builder::memory_budget): events, buffers and streams. When it runs
//!   out, open batches are sent; while the server is down, batches that wait are compressed.
//! * The order of events is kept within a batch; with [`ordered`](Builder::ordered) also between the
//!   batches of a stream.
//! * With a spool (feature `spool`), events survive an outage of the server on disk; and the end of the process,
//!   if every batch is written ahead.
//! * An idle collector does nothing: none of its threads wakes up.
//!
//! The [guides](guide) say more: what delivery means and what each failure costs, [which test proves which
//! promise](guide::promises), which settings matter, how to end a program (SIGTERM, a `static`, a fork),
//! what is in the log, and how events survive on disk.
//!
//! # Threads or tasks
//!
//! A [`Collector`] runs on its own threads, over a blocking transport; it does not depend on a
//! runtime, and asynchronous programs may use it, too. An `AsyncCollector` (feature `tokio`) runs as
//! tasks of a tokio runtime, over an asynchronous transport: the same names, with `flush` and `stop`
//! awaited. Both keep the same promises, by the same code.
//!
//! # Features
//!
//! * `tokio`: adds `AsyncCollector`.
//! * `spool`: a folder on disk for events that memory cannot hold, or that must survive a kill of the process.
//! * `serde`: [`Report`], [`LostBatch`], [`LossReason`] and [`Delivery`] implement `Serialize`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod activity;
pub mod batcher;
mod budget;
mod collector;
mod config;
mod error;
pub mod guide;
mod intake;
#[cfg(all(test, shuttle))]
mod interleavings;
mod report;
mod sender;
mod shared;
#[cfg(feature = "spool")]
pub mod spool;
mod sync;

pub use activity::{Activity, ServerState};
#[cfg(feature = "tokio")]
pub use collector::AsyncCollector;
pub use collector::Collector;
pub use config::Builder;
pub use error::{CollectAllError, CollectError, StartError};
pub use intake::{Intake, StreamHandle};
pub use report::{LossReason, LostBatch, Report, Stats};
pub use stride_core::gzip::GzipLevel;
#[cfg(feature = "tokio")]
pub use stride_core::transport::AsyncTarget;
pub use stride_core::transport::{Delivery, Target, TransportError};
pub use stride_core::{Bytes, ConfigError, http};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
