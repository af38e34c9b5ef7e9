//! What the intake tells the batcher, in the order in which it happened.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::batcher::{Events, Input, LaneId};
use crate::sync::{AtomicBool, Mutex, MutexGuard};

/// Filled under a stream's lock, so that what comes after a flush cannot overtake it; emptied under
/// the batcher's. No other lock is taken under its own.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// A batch was opened since memory was last found to have run out: it could be sent.
    can_press: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) inputs: VecDeque<Input>,
    /// Nothing is opened from now on.
    pub(crate) closed: bool,
    /// The sender that has to know when a batch is opened, and when anything else comes.
    pub(crate) when_opened: Option<Waker>,
    pub(crate) when_sealed: Option<Waker>,
    flushes: u64,
    /// How many events were sealed so far.
    pub(crate) sealed: u64,
}

/// The collector was stopped.
#[derive(Debug)]
pub(crate) struct Closed;

impl Inbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No user code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is open. Whom to wake is returned: it must not happen under a lock.
    pub(crate) fn opened(&self, lane: LaneId, stream: &Arc<str>) -> Result<Option<Waker>, Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        state.inputs.push_back(Input::Opened { lane, stream: Arc::clone(stream) });
        self.can_press.store(true, Ordering::Relaxed);
        Ok(state.when_opened.take())
    }

    /// An open batch is complete.
    pub(crate) fn sealed(&self, lane: LaneId, stream: &Arc<str>, events: Events) -> Option<Waker> {
        let mut state = self.lock();
        state.seal(Input::Sealed { lane, stream: Arc::clone(stream), events, opened: true })
    }

    /// A batch was opened and is complete.
    pub(crate) fn sealed_at_once(
        &self,
        lane: LaneId,
        stream: &Arc<str>,
        events: Events,
    ) -> Result<Option<Waker>, (Closed, Events)> {
        let mut state = self.lock();
        if state.closed {
            return Err((Closed, events));
        }
        let stream = Arc::clone(stream);
        Ok(state.seal(Input::Sealed { lane, stream, events, opened: false }))
    }

    /// A record was read from disk.
    #[cfg(feature = "spool")]
    pub(crate) fn replayed(
        &self,
        lane: LaneId,
        stream: &Arc<str>,
        replay: crate::batcher::Replay,
    ) -> Result<Option<Waker>, crate::batcher::Replay> {
        let mut state = self.lock();
        if state.closed {
            return Err(replay);
        }
        let stream = Arc::clone(stream);
        state.inputs.push_back(Input::Replayed { lane, stream, replay });
        Ok(state.when_sealed.take())
    }

    /// What the other inputs are.
    pub(crate) fn push(&self, input: Input) -> Option<Waker> {
        let mut state = self.lock();
        state.inputs.push_back(input);
        state.when_sealed.take()
    }

    /// Memory has run out: says so, unless that is known.
    pub(crate) fn press(&self) -> Option<Waker> {
        let can_press = self.can_press.load(Ordering::Relaxed);
        if !can_press || !self.can_press.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.push(Input::Press)
    }

    /// Asks for a flush, and gives its number.
    pub(crate) fn flush(&self) -> (u64, Option<Waker>) {
        let mut state = self.lock();
        state.inputs.push_back(Input::Flush);
        state.flushes += 1;
        (state.flushes - 1, state.when_sealed.take())
    }

    /// Accepts no open batch from now on.
    pub(crate) fn close(&self) -> Option<Waker> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.closed, true) {
            return None;
        }
        state.inputs.push_back(Input::Stop);
        state.when_sealed.take()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    fn seal(&mut self, input: Input) -> Option<Waker> {
        if let Input::Sealed { events, .. } = &input {
            self.sealed += u64::from(events.count);
        }
        self.inputs.push_back(input);
        self.when_sealed.take()
    }
}
