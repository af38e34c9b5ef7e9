//! A body that a test writes while somebody reads it, by blocking or by polling.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;

use crate::cancel::{CancelRegistration, CancelToken};
use crate::transport::{Delivery, Limits, TransportError, TransportErrorKind};

type Chunk = Result<Bytes, TransportError>;

/// The body of a reply that a test writes as it goes. Clones write the same body.
#[derive(Clone, Default)]
pub struct LiveBody(Arc<Live>);

#[derive(Default)]
struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    ended: bool,
    /// The reader was dropped.
    closed: bool,
    cancelled: bool,
    waker: Option<Waker>,
}

impl fmt::Debug for LiveBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveBody").finish_non_exhaustive()
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl LiveBody {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Writes a chunk.
    pub fn write(&self, chunk: impl Into<Bytes>) {
        let chunk = chunk.into();
        self.0.change(|state| state.chunks.push_back(Ok(chunk)));
    }

    /// Ends the body.
    pub fn end(&self) {
        self.0.change(|state| state.ended = true);
    }

    /// Breaks the connection: what was written before is still read.
    pub fn reset(&self) {
        self.0.change(|state| {
            state.chunks.push_back(Err(error(TransportErrorKind::Io)));
            state.ended = true;
        });
    }

    /// Whether the client has dropped the body, which closes its connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// The reading end, for polling. Its caller's clock holds it to limits.
    pub(super) fn reader(self) -> Reader {
        Reader(self)
    }

    /// The reading end, for blocking.
    pub(super) fn blocking_reader(self, limits: &Limits, cancel: &CancelToken) -> BlockingReader {
        let (limit, timeout) = match limits.idle {
            Some(idle) => (Some(idle), TransportErrorKind::IdleTimeout),
            None => (limits.total, TransportErrorKind::TotalTimeout),
        };
        let live = Arc::clone(&self.0);
        let cancel = cancel.on_cancel(move || live.change(|state| state.cancelled = true));
        BlockingReader { reader: self.reader(), limit, timeout, _cancel: cancel }
    }
}

fn error(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, Delivery::MaybeSent)
}

/// Blocks until a limit is reached or the call is cancelled.
pub(super) fn hang(limits: &Limits, cancel: &CancelToken) -> TransportError {
    let (limit, kind) = match limits.total {
        Some(total) if total < limits.head => (total, TransportErrorKind::TotalTimeout),
        _ => (limits.head, TransportErrorKind::HeadTimeout),
    };
    let mut reader = LiveBody::new().blocking_reader(limits, cancel);
    (reader.limit, reader.timeout) = (Some(limit), kind);
    reader.next().and_then(Result::err).unwrap_or_else(|| error(kind))
}

/// The reading end of a [`LiveBody`].
pub(super) struct Reader(LiveBody);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.change(|state| state.closed = true);
    }
}

impl State {
    /// What there is without waiting.
    fn ready(&mut self) -> Option<Option<Chunk>> {
        if self.cancelled {
            // Once: an error is the last item.
            let first = !std::mem::replace(&mut self.ended, true);
            self.chunks.clear();
            return Some(first.then(|| Err(error(TransportErrorKind::Cancelled))));
        }
        match self.chunks.pop_front() {
            Some(chunk) => Some(Some(chunk)),
            None => self.ended.then_some(None),
        }
    }
}

impl Stream for Reader {
    type Item = Chunk;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        let mut state = self.0.0.lock();
        match state.ready() {
            Some(item) => Poll::Ready(item),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A [`Reader`] that waits in real time.
pub(super) struct BlockingReader {
    reader: Reader,
    /// How long to wait for a chunk, and what the error is called when none comes.
    limit: Option<Duration>,
    timeout: TransportErrorKind,
    _cancel: CancelRegistration,
}

impl Iterator for BlockingReader {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        let live = &self.reader.0.0;
        let mut state = live.lock();
        loop {
            if let Some(item) = state.ready() {
                return item;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                state.ended = true;
                return Some(Err(error(self.timeout)));
            }
            let waited = live.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
