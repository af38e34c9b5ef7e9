//! Accepting events.

pub(crate) mod encode;
mod inbox;
pub(crate) mod stamp;
pub(crate) mod stream;
pub(crate) mod table;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use self::encode::{Local, Outcome, Unusual, slot};
use self::stream::{Appended, Stream};
use crate::batcher::BATCH_COST;
use crate::error::{CollectAllError, CollectError};
use crate::report::Stats;
use crate::sender::threads;
use crate::shared::Shared;

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

    /// What became of the events so far, and what is going on. Cheap enough for every scrape of a
    /// metrics endpoint.
    pub fn stats(&self) -> Stats {
        self.owner.shared.stats()
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
    /// Keeps the stream in the table.
    _pin: Arc<Pin>,
}

/// Shared by the clones of a handle.
struct Pin {
    owner: Arc<Owner>,
    stream: Arc<Stream>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let shared = &self.owner.shared;
        shared.table.unpin(&self.stream, &shared.held);
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("name", &self.stream.name).finish_non_exhaustive()
    }
}

impl StreamHandle {
    pub(crate) fn new(owner: &Arc<Owner>, name: &str) -> Result<Self, CollectError> {
        let stream = owner.shared.table.pin(name)?;
        let pin = Pin { owner: Arc::clone(owner), stream: Arc::clone(&stream) };
        Ok(Self { owner: Arc::clone(owner), stream, _pin: Arc::new(pin) })
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

/// Where an event goes.
#[derive(Clone, Copy)]
enum To<'a> {
    Name(&'a str),
    Stream(&'a Arc<Stream>),
}

impl To<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Stream(stream) => &stream.name,
        }
    }
}

/// What all handles share, and the senders do not: so the drop of the last handle is noticed.
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    /// Stops the collector when the last handle is dropped.
    pub(crate) at_end: fn(&Shared),
}

impl Owner {
    // The call site. It is compiled into one piece by force, from here down to the stream's lock: left
    // to the compiler, its calls take a fifth of the time of a small event.

    #[inline(always)]
    fn collect<T: Serialize + ?Sized>(&self, to: To<'_>, event: &T) -> Result<(), CollectError> {
        conclude(Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.writing.encode(event, scratch.bytes(), local)?;
            self.append(to, scratch.bytes(), local, &mut 0)
        }))
    }

    fn collect_all<T: Serialize>(
        &self,
        to: To<'_>,
        events: impl IntoIterator<Item = T>,
    ) -> Result<(), CollectAllError> {
        for (accepted, event) in events.into_iter().enumerate() {
            self.collect(to, &event).map_err(|error| CollectAllError { accepted, error })?;
        }
        Ok(())
    }

    fn collect_json(&self, to: To<'_>, event: &RawValue) -> Result<(), CollectError> {
        conclude(Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.writing.copy(event, scratch.bytes(), local)?;
            self.append(to, scratch.bytes(), local, &mut 0)
        }))
    }

    /// Appends an event to its stream; `grant` is what of the budget was given to it before.
    #[inline(always)]
    fn append(&self, to: To<'_>, event: &[u8], local: &Local, grant: &mut usize) -> Outcome {
        let Shared { id, held, .. } = &*self.shared;
        let appended = match to {
            To::Stream(stream) => stream.append(event, &local.shard, held, grant),
            To::Name(name) => {
                let recent = &local.recent.borrow()[slot(*id, name)];
                match recent {
                    Some(stream) if *stream.name == *name && stream.collector == *id => {
                        stream.append(event, &local.shard, held, grant)
                    }
                    _ => Appended::Retired,
                }
            }
        };
        match appended {
            Appended::Accepted => Ok(()),
            Appended::Retired => self.append_by_name(to.name(), event, local, grant),
            appended => self.unusual(appended),
        }
    }

    /// Looks the stream up, and remembers it.
    #[cold]
    fn append_by_name(
        &self,
        name: &str,
        event: &[u8],
        local: &Local,
        grant: &mut usize,
    ) -> Outcome {
        let Shared { id, held, table, .. } = &*self.shared;
        loop {
            let (stream, is_new) = match table.find(name, held, grant) {
                Ok(found) => found,
                Err(CollectError::Full) => return self.unusual(Appended::Full(None)),
                Err(error) => return Err(error.into()),
            };
            let appended = stream.append(event, &local.shard, held, grant);
            if is_new && matches!(appended, Appended::Full(_) | Appended::Stopped) {
                // Nothing is in it, and nobody would give it back.
                table.retire_unused(&stream, held);
                return self.unusual(appended);
            }
            if matches!(appended, Appended::Retired) {
                continue;
            }
            let before = local.recent.borrow_mut()[slot(*id, name)].replace(stream);
            drop(before);
            return match appended {
                Appended::Accepted => Ok(()),
                appended => self.unusual(appended),
            };
        }
    }

    #[cold]
    fn unusual(&self, appended: Appended) -> Outcome {
        let (error, waker) = match appended {
            Appended::Accepted => return Ok(()),
            Appended::Wakes(waker) => (None, Some(waker)),
            Appended::Full(waker) => {
                (Some(CollectError::Full), waker.or_else(|| self.shared.held.inbox.press()))
            }
            Appended::Stopped | Appended::Retired => (Some(CollectError::Stopped), None),
        };
        Err(Box::new(Unusual { error, waker }))
    }

    fn collect_timeout<T: Serialize + ?Sized>(
        &self,
        to: To<'_>,
        event: &T,
        timeout: Duration,
    ) -> Result<(), CollectError> {
        let Some(event) = self.collect_or_keep(to, event)? else { return Ok(()) };
        let until = Instant::now().checked_add(timeout);
        let mut place = Place::new(self, to, event);
        threads::wait(until, |waker| place.poll(waker)).unwrap_or(Err(CollectError::Full))
    }

    async fn collect_wait<T: Serialize + ?Sized>(
        &self,
        to: To<'_>,
        event: &T,
    ) -> Result<(), CollectError> {
        let Some(event) = self.collect_or_keep(to, event)? else { return Ok(()) };
        let mut place = Place::new(self, to, event);
        poll_fn(|context| place.poll(context.waker()).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Accepts an event; gives its text if there is no room for it.
    fn collect_or_keep<T: Serialize + ?Sized>(
        &self,
        to: To<'_>,
        event: &T,
    ) -> Result<Option<Vec<u8>>, CollectError> {
        let mut kept = None;
        let outcome = conclude(Local::with(|local| {
            let mut scratch = local.scratch();
            self.shared.writing.encode(event, scratch.bytes(), local)?;
            let outcome = self.append(to, scratch.bytes(), local, &mut 0);
            if let Err(unusual) = &outcome
                && matches!(unusual.error, Some(CollectError::Full))
            {
                // The thread's buffer is for the next event that is collected on it.
                kept = Some(scratch.bytes().clone());
            }
            outcome
        }));
        match (outcome, kept) {
            (Err(CollectError::Full), Some(event)) => Ok(Some(event)),
            (outcome, _) => outcome.map(|()| None),
        }
    }
}

/// An event that waits for room, first come, first served.
struct Place<'a> {
    owner: &'a Owner,
    to: To<'a>,
    event: Vec<u8>,
    number: Option<u64>,
    /// What was granted before did not suffice: its stream has to be counted, too.
    served: Option<u64>,
}

impl<'a> Place<'a> {
    fn new(owner: &'a Owner, to: To<'a>, event: Vec<u8>) -> Self {
        Self { owner, to, event, number: None, served: None }
    }

    /// `None` while there is no room.
    fn poll(&mut self, waker: &Waker) -> Option<Result<(), CollectError>> {
        let held = &self.owner.shared.held;
        let number = match self.number {
            Some(number) => {
                held.budget.set_waker(number, waker);
                number
            }
            None => {
                let stream = self.served.map_or(0, |_| Stream::cost(self.to.name()));
                let bytes = self.event.len() + BATCH_COST + stream;
                *self.number.insert(held.budget.wait(bytes, self.served, waker))
            }
        };
        self.serve();
        if held.inbox.is_closed() {
            return Some(Err(CollectError::Stopped));
        }
        let mut grant = held.budget.granted(number)?;
        self.served = self.number.take();
        let outcome = conclude(Local::with(|local| {
            self.owner.append(self.to, &self.event, local, &mut grant)
        }));
        held.budget.adjust(grant, 0);
        self.serve();
        match outcome {
            Err(CollectError::Full) => self.poll(waker),
            outcome => Some(outcome),
        }
    }

    fn serve(&self) {
        let held = &self.owner.shared.held;
        let served = held.budget.serve();
        served.into_iter().chain(held.inbox.press()).for_each(Waker::wake);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.owner.shared.held.budget.leave(number);
            self.serve();
        }
    }
}

/// Wakes whom the event has to, now that no lock and no borrow is held.
#[inline(always)]
fn conclude(outcome: Outcome) -> Result<(), CollectError> {
    #[cold]
    fn unusual(unusual: Unusual) -> Result<(), CollectError> {
        if let Some(waker) = unusual.waker {
            waker.wake();
        }
        unusual.error.map_or(Ok(()), Err)
    }
    outcome.or_else(|it| unusual(*it))
}

impl Drop for Owner {
    fn drop(&mut self) {
        (self.at_end)(&self.shared);
    }
}
