//! Accepting events.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{CollectAllError, CollectError};
use crate::report::Report;
use crate::scratch::{Local, Outcome};
use crate::shared::{Shared, To};
use crate::stream::Stream;
use crate::thread;

/// What a `Collector` and an `AsyncCollector` have in common: accepting events, and saying what became
/// of them. Both dereference to it.
pub struct Intake {
    owner: Arc<Owner>,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Intake {
    pub(crate) fn new(shared: Arc<Shared>, at_end: fn(&Shared)) -> Self {
        Self { owner: Arc::new(Owner { shared, at_end }) }
    }

    /// Another handle to the same collector.
    pub(crate) fn share(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Accepts an event for a stream, or returns at once with the reason why not. An event is
    /// anything that serialises as a JSON object.
    ///
    /// # Errors
    ///
    /// Any [`CollectError`]; [`Full`](CollectError::Full) may pass with time.
    #[inline]
    pub fn collect<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
    ) -> Result<(), CollectError> {
        self.owner.collect(To::Name(stream), event)
    }

    /// Accepts several events, one after the other.
    ///
    /// # Errors
    ///
    /// The first event that is not accepted; those before it were.
    pub fn collect_all<T: Serialize>(
        &self,
        stream: &str,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        self.owner.collect_all(To::Name(stream), events)
    }

    /// Accepts an event that is JSON already, and sends it unchanged.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, stream: &str, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(To::Name(stream), event)
    }

    /// Accepts an event, and waits for room up to `timeout` while the collector is full. It blocks
    /// the thread: in a task, use [`collect_wait`](Self::collect_wait).
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); [`Full`](CollectError::Full) when there was no room in time.
    pub fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        self.owner.collect_timeout(To::Name(stream), event, timeout)
    }

    /// Accepts an event, and waits for room while the collector is full: for asynchronous programs,
    /// on any runtime. The event is serialised before the first wait, and held outside of the memory
    /// budget meanwhile.
    ///
    /// Cancel safe: when the future is dropped before it is done, the event was not accepted.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect), but never [`Full`](CollectError::Full).
    pub async fn collect_wait<T: Serialize + ?Sized>(
        &self,
        stream: &str,
        event: &T,
    ) -> Result<(), CollectError> {
        self.owner.collect_wait(To::Name(stream), event).await
    }

    /// One stream of this collector: its name is checked and looked up once, for the hottest loops.
    ///
    /// # Errors
    ///
    /// [`CollectError::Name`].
    pub fn stream(&self, name: &str) -> Result<StreamHandle, CollectError> {
        StreamHandle::new(&self.owner, name)
    }

    /// What became of the events so far.
    pub fn stats(&self) -> Report {
        self.owner.shared.report()
    }

    /// How much of the memory budget is used now, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.owner.shared.memory()
    }
}

/// One stream of a collector, for the hottest loops: it does not look up a name for each event.
///
/// Cheap to clone. The collector runs as long as there is a handle to it or to one of its streams.
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

    /// As [`Intake::collect`].
    ///
    /// # Errors
    ///
    /// Any [`CollectError`] but one about the name.
    #[inline]
    pub fn collect<T: Serialize + ?Sized>(&self, event: &T) -> Result<(), CollectError> {
        self.owner.collect(To::Stream(&self.stream), event)
    }

    /// As [`Intake::collect_all`].
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

    /// As [`Intake::collect_json`].
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_json(&self, event: &RawValue) -> Result<(), CollectError> {
        self.owner.collect_json(To::Stream(&self.stream), event)
    }

    /// As [`Intake::collect_timeout`].
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); [`Full`](CollectError::Full) when there was no room in time.
    pub fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        self.owner.collect_timeout(To::Stream(&self.stream), event, timeout)
    }

    /// As [`Intake::collect_wait`].
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect), but never [`Full`](CollectError::Full).
    pub async fn collect_wait<T: Serialize + ?Sized>(&self, event: &T) -> Result<(), CollectError> {
        self.owner.collect_wait(To::Stream(&self.stream), event).await
    }
}

/// What all handles share, and the senders do not: so the drop of the last handle is noticed.
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    /// Stops the collector when the last handle is dropped.
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
