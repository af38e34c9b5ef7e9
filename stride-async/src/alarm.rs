//! A timer that can be carried from one runtime to another.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use stride_core::transport::{Delivery, LONGEST_LIMIT, TransportError, TransportErrorKind};
use tokio::runtime::{Handle, Id};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

/// So long from now.
pub(crate) fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST_LIMIT)
}

/// The runtime that this is polled in.
pub(crate) fn current_runtime() -> Result<Id, Missing> {
    Handle::try_current().map(|handle| handle.id()).map_err(|_| Missing::Runtime)
}

/// What is not here, though sockets and timers need it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    Runtime,
    Io,
    Time,
}

impl Missing {
    pub(crate) fn with(self, delivery: Delivery) -> TransportError {
        TransportError::new(TransportErrorKind::Unsupported, delivery).with_source(self)
    }

    /// What tokio makes, unless it panics because this is missing: it cannot be asked beforehand.
    pub(crate) fn unless<T>(self, make: impl FnOnce() -> T) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(make)).map_err(|_| self)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runtime => "stride-async has to be polled in a tokio runtime",
            Self::Io => "the tokio runtime has no IO driver: build it with `enable_all`",
            Self::Time => "the tokio runtime has no time driver: build it with `enable_all`",
        })
    }
}

impl std::error::Error for Missing {}

/// Goes off at a time that may change.
///
/// tokio's own timer belongs to the runtime it was made in: it never goes off while nobody drives
/// that one, and panics when it has ended. This one moves with its caller.
#[derive(Default)]
pub(crate) struct Alarm(Option<(Id, Timer)>);

/// A timer of one runtime, if that has any.
type Timer = Result<Pin<Box<Sleep>>, Missing>;

impl Alarm {
    pub(crate) fn poll(
        &mut self,
        until: Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Missing>> {
        let here = match current_runtime() {
            Ok(here) => here,
            Err(none) => return Poll::Ready(Err(none)),
        };
        let (_, sleep) = match &mut self.0 {
            Some(known) if known.0 == here => known,
            other => other.insert((here, Missing::Time.unless(|| Box::pin(sleep_until(until))))),
        };
        let sleep = match sleep {
            Ok(sleep) => sleep,
            Err(none) => return Poll::Ready(Err(*none)),
        };
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        // A server that always has something to read uses up the task's budget, without which
        // tokio's timer never goes off.
        pin!(coop::unconstrained(sleep.as_mut())).poll(context).map(Ok)
    }

    /// Fails with this kind of time-out when it goes off.
    pub(crate) fn poll_limit(
        &mut self,
        (until, kind): Limit,
        delivery: Delivery,
        context: &mut Context<'_>,
    ) -> Poll<TransportError> {
        Poll::Ready(match ready!(self.poll(until, context)) {
            Ok(()) => TransportError::new(kind, delivery),
            Err(none) => none.with(delivery),
        })
    }
}

/// A time, and what it means to reach it.
pub(crate) type Limit = (Instant, TransportErrorKind);

/// The limit that is reached first.
pub(crate) fn earlier(total: Option<Instant>, stage: Limit) -> Limit {
    match total {
        Some(total) if total <= stage.0 => (total, TransportErrorKind::TotalTimeout),
        _ => stage,
    }
}

/// What a future comes to that sends nothing yet, or the limit if that is reached first.
pub(crate) async fn within<T>(
    limit: Limit,
    future: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let mut future = pin!(future);
    let mut alarm = Alarm::default();
    poll_fn(|context| {
        if let Err(none) = current_runtime() {
            return Poll::Ready(Err(none.with(Delivery::NotSent)));
        }
        let result = future.as_mut().poll(context);
        if let Poll::Ready(Err(_)) = result {
            return result;
        }
        // Polled in any case: what comes next must not find out that there is no timer.
        match alarm.poll(limit.0, context) {
            Poll::Ready(Err(none)) => Poll::Ready(Err(none.with(Delivery::NotSent))),
            Poll::Ready(Ok(())) if result.is_pending() => {
                Poll::Ready(Err(TransportError::new(limit.1, Delivery::NotSent)))
            }
            _ => result,
        }
    })
    .await
}
