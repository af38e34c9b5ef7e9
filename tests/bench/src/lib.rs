//! Stride for Rust, measured: against the limit, which is what the same work costs with nothing but
//! `serde_json`, deflate and a socket.
//!
//! ```sh
//! cargo bench -p stride-bench                             # the table
//! cargo bench -p stride-bench -- collect frames/raw       # the rows whose names begin so
//! cargo bench -p stride-bench -- --json FILE              # the table, to a file, too
//! cargo bench -p stride-bench -- --readme                 # the table of this package's README, and the chart
//! cargo run --release -p stride-bench --bin instructions  # the regression guard
//! cargo run --release -p stride-bench --features peers --bin peers -- --readme
//! ```
//!
//! Figures are ratios taken in one run, because machines are noisy. [`measure`] takes them, [`row`]
//! says of what, [`outline`] and [`bare`] are the limit.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

pub mod account;
pub mod bare;
pub mod chart;
pub mod child;
pub mod event;
pub mod guard;
pub mod measure;
pub mod outline;
#[cfg(feature = "peers")]
pub mod peer;
pub mod readme;
pub mod row;
pub mod sink;
pub mod table;
