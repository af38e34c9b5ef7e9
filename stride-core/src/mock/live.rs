//! A body that a test writes while somebody reads it, by blocking or by polling.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;

use crate::cancel::CancelRegistration;
use crate::cancel::CancelToken;
use crate::transport::{Delivery, TransportError, TransportErrorKind};

type Chunk = Result<Bytes, TransportError>;

/// The body of an answer that a test writes as it goes. Clones write the same body.
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
        let error = TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent);
        self.0.change(|state| {
            state.chunks.push_back(Err(error));
            state.ended = true;
        });
    }

    /// Whether the client has dropped the body, which closes its connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

/// The reading end of a [`LiveBody`].
pub(super) struct Reader {
    live: LiveBody,
    /// How long to wait for a chunk, and what the error is called when none comes.
    limit: Option<Duration>,
    timeout: TransportErrorKind,
    /// Until when, while somebody is waiting.
    deadline: Option<Instant>,
    timer: Option<Timer>,
    _cancel: Option<CancelRegistration>,
}

impl Reader {
    pub(super) fn new(
        live: LiveBody,
        limit: Option<Duration>,
        timeout: TransportErrorKind,
    ) -> Self {
        Self { live, limit, timeout, deadline: None, timer: None, _cancel: None }
    }

    pub(super) fn cancelled_by(&mut self, cancel: &CancelToken) {
        let live = Arc::clone(&self.live.0);
        self._cancel = Some(cancel.on_cancel(move || live.change(|state| state.cancelled = true)));
    }

    /// Waits for something that never comes.
    pub(super) fn fails(mut self) -> TransportError {
        self.next().and_then(Result::err).unwrap_or_else(|| self.error(self.timeout))
    }

    /// Waits for something that never comes.
    pub(super) async fn fails_async(mut self) -> TransportError {
        let chunk = poll_fn(|context| Pin::new(&mut self).poll_next(context)).await;
        chunk.and_then(Result::err).unwrap_or_else(|| self.error(self.timeout))
    }

    fn error(&self, kind: TransportErrorKind) -> TransportError {
        TransportError::new(kind, Delivery::MaybeSent)
    }

    /// What there is without waiting.
    fn ready(&self, state: &mut State) -> Option<Option<Chunk>> {
        if state.cancelled {
            // Once: an error is the last item.
            let first = !std::mem::replace(&mut state.ended, true);
            state.chunks.clear();
            return Some(first.then(|| Err(self.error(TransportErrorKind::Cancelled))));
        }
        if let Some(chunk) = state.chunks.pop_front() {
            return Some(Some(chunk));
        }
        if state.ended {
            return Some(None);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            state.ended = true;
            return Some(Some(Err(self.error(self.timeout))));
        }
        None
    }

    /// The clock runs only while somebody waits for a chunk.
    fn start_clock(&mut self) {
        if self.deadline.is_none() {
            self.deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        }
    }

    fn stop_clock(&mut self) {
        self.deadline = None;
        self.timer = None;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.live.0.change(|state| state.closed = true);
    }
}

impl Iterator for Reader {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        self.start_clock();
        let live = Arc::clone(&self.live.0);
        let mut state = live.lock();
        let item = loop {
            if let Some(item) = self.ready(&mut state) {
                break item;
            }
            let left = self.deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let (locked, _) =
                live.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = locked;
        };
        drop(state);
        self.stop_clock();
        item
    }
}

impl Stream for Reader {
    type Item = Chunk;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        let reader = self.get_mut();
        reader.start_clock();
        let live = Arc::clone(&reader.live.0);
        let mut state = live.lock();
        let Some(item) = reader.ready(&mut state) else {
            state.waker = Some(context.waker().clone());
            drop(state);
            if let (None, Some(deadline)) = (&reader.timer, reader.deadline) {
                reader.timer = Some(Timer::start(&live, deadline));
            }
            return Poll::Pending;
        };
        drop(state);
        reader.stop_clock();
        Poll::Ready(item)
    }
}

/// Wakes the reader at a time, without a runtime: a thread that waits, and ends when dropped.
struct Timer {
    running: Arc<()>,
    thread: Thread,
}

impl Timer {
    fn start(live: &Arc<Live>, deadline: Instant) -> Self {
        let running = Arc::new(());
        let (watched, live) = (Arc::downgrade(&running), Arc::downgrade(live));
        let thread = thread::spawn(move || {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let live: Option<Arc<Live>> = Weak::upgrade(&live);
                match live {
                    Some(_) if watched.strong_count() == 0 => return,
                    Some(live) if left.is_zero() => return live.change(|_| {}),
                    Some(_) => {}
                    None => return,
                }
                thread::park_timeout(left);
            }
        });
        Self { running, thread: thread.thread().clone() }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.running = Arc::new(());
        self.thread.unpark();
    }
}
