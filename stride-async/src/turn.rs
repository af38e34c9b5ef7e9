//! Lets the other tasks of a thread have their turn.

use std::task::{Context, Poll, ready};

use tokio::task::coop;

/// The work that takes one unit of tokio's cooperative budget, in bytes that were decoded. A task has
/// 128 units until it yields, so it decodes 64 KiB, which takes less than a millisecond. Much more it
/// should not be: a task that something else wakes meanwhile comes back at once, and a runtime looks
/// at its timers and sockets only after 61 tasks.
const UNIT: usize = 512;

/// What a chunk or an item counts at least, in bytes: taking one costs something, however small it
/// is.
const LEAST: usize = UNIT / 2;

/// The work that a task has done and not yet paid for.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    bytes: usize,
}

impl Turn {
    /// Notes a chunk or an item of so many bytes.
    pub(crate) fn did(&mut self, bytes: usize) {
        self.bytes += bytes.max(LEAST);
    }

    /// Ready when there may be more work, at once if it is this task's turn still.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.bytes >= UNIT {
            ready!(coop::poll_proceed(context)).made_progress();
            self.bytes -= UNIT;
        }
        Poll::Ready(())
    }
}
