//! What only the blocking client has: a stop from another thread, cancelled calls, and clients that
//! threads share.

mod cancelling;
mod sharing;
mod stopping;

use std::time::Duration;

use stride_blocking::{Stride, StrideBuilder};
use stride_tests::wire::Server;

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

fn builder(server: &Server) -> StrideBuilder {
    Stride::builder("key").endpoint(&server.endpoint()).timeout(MINUTE).connect_timeout(MINUTE)
}

fn client(server: &Server) -> Stride {
    builder(server).build().unwrap()
}
