//! The body of a subscription: events as they come, and an empty line when there are none.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::position::Position;
use crate::engine::{EngineError, Page, PageLimit};
use crate::shared::Shared;
use crate::subscribers::hub::Subscriber;
use crate::subscribers::mailbox::{Mailbox, Next};
use crate::subscribers::records::DELIMITER;

/// The subscription breaks off on demand of a test.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on demand")
    }
}

impl std::error::Error for Cut {}

/// Lives as long as its connection takes what it sends, and is unsubscribed when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    subscriber: Subscriber,
    keep_alive: Duration,
    /// When a line is due. It is moved on lazily: a busy subscription never touches the timer.
    quiet_until: Instant,
    timer: Pin<Box<Sleep>>,
    /// Events that it begins with.
    first: Option<Bytes>,
    /// Events that are read from the storage.
    page: Option<JoinHandle<Result<Page, EngineError>>>,
    /// Bytes left before the cut, and whether what came before has had its chance to be flushed.
    cut: Option<(usize, bool)>,
}

impl Subscription {
    pub(crate) fn new(shared: &Arc<Shared>, subscriber: Subscriber, cut: Option<usize>) -> Self {
        let shared = Arc::clone(shared);
        let keep_alive = shared.limits.keep_alive.max(Duration::from_millis(1));
        let quiet_until = Instant::now() + keep_alive;
        let timer = Box::pin(sleep_until(quiet_until));
        let cut = cut.map(|at| (at, false));
        Self { shared, subscriber, keep_alive, quiet_until, timer, first: None, page: None, cut }
    }

    /// Begins with these events of its stream, and goes on with what comes after them.
    pub(crate) fn begin(&mut self, page: Page) {
        let is_empty = page.events.ends.is_empty();
        self.subscriber.mailbox.go_on(page.end, !is_empty);
        self.first = (!is_empty).then_some(page.events.text);
    }

    /// Where its events wait.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.subscriber.mailbox)
    }

    /// How much is read from the storage at once.
    pub(crate) fn most(&self) -> PageLimit {
        let bytes = self.shared.subscribers.room().min(MOST_BYTES);
        PageLimit { events: MOST_EVENTS, bytes }
    }

    /// What came of reading from the storage, if anything is read.
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Option<Poll<Next>> {
        let page = match Pin::new(self.page.as_mut()?).poll(cx) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(page) => page,
        };
        self.page = None;
        match page {
            Ok(Ok(Page { events, missing: 0, end })) => {
                let is_empty = events.ends.is_empty();
                self.subscriber.mailbox.go_on(end, !is_empty);
                (!is_empty).then_some(Poll::Ready(Next::Send(events.text)))
            }
            // A client that comes again is told how many it has missed.
            Ok(Ok(Page { missing, .. })) => {
                self.shared.subscribers.missed(&self.subscriber, missing);
                Some(Poll::Ready(Next::End))
            }
            // The stream was deleted, or the server ends.
            Ok(Err(_)) | Err(_) => Some(Poll::Ready(Next::End)),
        }
    }

    fn read(&self, at: Position) -> JoinHandle<Result<Page, EngineError>> {
        let (engine, most) = (Arc::clone(&self.shared.engine), self.most());
        let stream = self.subscriber.name.clone();
        spawn_blocking(move || engine.events_after(&stream, at, most))
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some((0, flushed)) = &mut self.cut {
            if *flushed {
                return Poll::Ready(Some(Err(Cut)));
            }
            // hyper throws away what it has not written when a body fails, and writes when one
            // has to be waited for.
            *flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut chunk) = ready!(self.poll_whole_chunk(cx)) else { return Poll::Ready(None) };
        if let Some((left, _)) = &mut self.cut {
            chunk.truncate(*left);
            *left -= chunk.len();
        }
        Poll::Ready(Some(Ok(chunk)))
    }

    fn poll_whole_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        loop {
            let now = Instant::now();
            let mut wake_at = self.quiet_until;
            let next = match self.poll_page(cx) {
                Some(next) => next,
                None => self.subscriber.mailbox.poll_next(cx, now.into_std()),
            };
            match next {
                Poll::Ready(Next::Send(run)) => {
                    self.quiet_until = now + self.keep_alive;
                    return Poll::Ready(Some(run));
                }
                Poll::Ready(Next::End) => return Poll::Ready(None),
                Poll::Ready(Next::Behind(at)) => {
                    self.page = Some(self.read(at));
                    continue;
                }
                Poll::Ready(Next::NotBefore(due)) => wake_at = wake_at.min(Instant::from_std(due)),
                Poll::Pending => {}
            }
            if now >= self.quiet_until {
                self.quiet_until = now + self.keep_alive;
                return Poll::Ready(Some(Bytes::from_static(DELIMITER)));
            }
            if self.timer.deadline() > wake_at || self.timer.is_elapsed() {
                self.timer.as_mut().reset(wake_at);
            }
            // Elapsed: a line or a sampled event is due, or the timer was set before the last
            // chunk and has to be set anew.
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}

/// How many events are read from the storage at once.
const MOST_EVENTS: usize = 10_000;

/// And how many bytes, unless less may wait for a subscriber.
const MOST_BYTES: usize = 1 << 20;

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscribers.unsubscribe(&self.subscriber);
        self.shared.changes.note();
    }
}
