//! What only the asynchronous client has: runtimes, futures that are dropped, and limits by tokio's
//! clock, which these tests stop.

mod dropping;
mod limits;
mod runtimes;
mod subscriptions;

use stride_async::Stride;
use stride_core::mock::Mock;
use stride_tests::watchdog;
use stride_tests::wire::Server;
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test on a runtime of one thread.
fn run(test: impl AsyncFnOnce() + Send + 'static) {
    watchdog(|| current_thread().block_on(test()));
}

/// The same, with a clock that stands still and jumps to the next timer when nothing else is to be
/// done.
fn run_paused(test: impl AsyncFnOnce() + Send + 'static) {
    watchdog(|| {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(test());
    });
}

fn client(server: &Server) -> Stride {
    Stride::builder("key").endpoint(&server.endpoint()).build().unwrap()
}

fn with_mock(mock: &Mock) -> Stride {
    Stride::builder("key").transport(mock.transport()).build().unwrap()
}
