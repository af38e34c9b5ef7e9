//! What the handles of a collector have in common: accepting events.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::scratch::{Local, Outcome};
use crate::shared::{Shared, To};
use crate::stream::Stream;
use crate::thread;

/// Why an event was not accepted. Nothing of it is held, and no other event is harmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A stream's name is a letter, then letters, digits and underscores, all of them ASCII.
    #[error("{name:?} is not a name: a letter, then letters, digits and underscores")]
    Name {
        /// The name as it was given.
        name: String,
    },
    /// An event is a JSON object.
    #[error("an event must be a JSON object")]
    NotAnObject,
    /// The event is longer than the collector's `max_event`.
    #[error("the event is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes of JSON.
        limit: usize,
    },
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// What is held takes all of the memory budget: the server is slower than the events, or away.
    #[error("the collector is full: its memory budget is used up")]
    Full,
    /// The collector was stopped.
    #[error("the collector was stopped")]
    Stopped,
}

/// Not all events were accepted: those before this one were, and those after it were not looked at.
#[derive(Debug, thiserror::Error)]
#[error("event {accepted} of several was not accepted")]
#[non_exhaustive]
pub struct CollectAllError {
    /// How many were accepted; also the index of the one that was not.
    pub accepted: usize,
    /// Why it was not.
    #[source]
    pub error: CollectError,
}

/// One stream of a collector, for the hottest loops: collecting through it looks up no name.
///
/// A cheap handle to clone; while one is left, the collector runs.
#[derive(Clone)]
pub struct StreamHandle {
    owner: Arc<Owner>,
    stream: Arc<Stream>,
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("name", &self.stream.name).finish_non_exhaustive()
    }
}

impl StreamHandle {
    pub(crate) fn new(owner: &Arc<Owner>, name: &str) -> Result<Self, CollectError> {
        let stream = owner.shared.stream(name)?;
        Ok(Self { owner: Arc::clone(owner), stream })
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.stream.name
    }

    /// As [`Collector::collect`](crate::Collector::collect).
    ///
    /// # Errors
    ///
    /// Any [`CollectError`] but one about the name.
    #[inline]
    pub fn collect<T: Serialize + ?Sized>(&self, event: &T) -> Result<(), CollectError> {
        self.owner.collect(To::Stream(&self.stream), event)
    }

    /// As [`Collector::collect_all`](crate::Collector::collect_all).
    ///
    /// # Errors
    ///
    /// The first event that is not accepted; those before it were.
    pub fn collect_all<T: Serialize>(
        &self,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        self.owner.collect_all(To::Stream(&self.stream), events)
    }

    /// As [`Collector::collect_json`](crate::Collector::collect_json).
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(To::Stream(&self.stream), event)
    }

    /// As [`Collector::collect_timeout`](crate::Collector::collect_timeout). It blocks the thread: in
    /// a task, [`collect_wait`](Self::collect_wait) is meant, all the more where the same thread would
    /// have to make room.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); [`Full`](CollectError::Full) when no room came in time.
    pub fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        self.owner.collect_timeout(To::Stream(&self.stream), event, timeout)
    }

    /// As [`Collector::collect_wait`](crate::Collector::collect_wait).
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect), but never [`Full`](CollectError::Full).
    pub async fn collect_wait<T: Serialize + ?Sized>(&self, event: &T) -> Result<(), CollectError> {
        self.owner.collect_wait(To::Stream(&self.stream), event).await
    }
}

/// What all handles share; the senders do not, so that the last handle's end is noticed.
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    /// How the collector is stopped when the last handle is dropped.
    pub(crate) at_end: fn(&Shared),
}

impl Owner {
    #[inline]
    pub(crate) fn collect<T: Serialize + ?Sized>(
        &self,
        target: To<'_>,
        event: &T,
    ) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.encode(event, scratch.bytes(), local)?;
            self.shared.append(target, scratch.bytes(), local)
        });
        outcome.map_err(|error| *error)
    }

    pub(crate) fn collect_all<T: Serialize>(
        &self,
        target: To<'_>,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        for (accepted, event) in events.into_iter().enumerate() {
            self.collect(target, &event).map_err(|error| CollectAllError { accepted, error })?;
        }
        Ok(())
    }

    pub(crate) fn collect_json(
        &self,
        target: To<'_>,
        event: &RawValue,
    ) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.copy(event, scratch.bytes(), local)?;
            self.shared.append(target, scratch.bytes(), local)
        });
        outcome.map_err(|error| *error)
    }

    pub(crate) fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        target: To<'_>,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        let outcome = Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.encode(event, scratch.bytes(), local)?;
            let mut append = || self.append_if_room(target, scratch.bytes(), local);
            if let Some(outcome) = append() {
                return outcome;
            }
            let until = Instant::now().checked_add(timeout);
            thread::wait(&self.shared, until, append).unwrap_or(Err(CollectError::Full.into()))
        });
        outcome.map_err(|error| *error)
    }

    pub(crate) async fn collect_wait<T: Serialize + ?Sized>(
        &self,
        target: To<'_>,
        event: &T,
    ) -> Result<(), CollectError> {
        let waiting = Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.encode(event, scratch.bytes(), local)?;
            match self.append_if_room(target, scratch.bytes(), local) {
                Some(outcome) => outcome.map(|()| None),
                // The thread's buffer is for the next event that is collected on it.
                None => Ok(Some(scratch.bytes().clone())),
            }
        });
        let Some(event) = waiting.map_err(|error| *error)? else { return Ok(()) };
        let waiter = self.shared.waiter();
        poll_fn(|context| {
            waiter.register(context.waker());
            match Local::with(|local| self.append_if_room(target, &event, local)) {
                Some(outcome) => Poll::Ready(outcome.map_err(|error| *error)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// `None` while the collector is full.
    fn append_if_room(&self, target: To<'_>, event: &[u8], local: &Local) -> Option<Outcome> {
        match self.shared.append(target, event, local) {
            Err(error) if matches!(*error, CollectError::Full) => None,
            outcome => Some(outcome),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        (self.at_end)(&self.shared);
    }
}
