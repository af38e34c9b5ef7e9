//! Who waits for a query, and may stop waiting.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::CancelToken;

use crate::engine::{EngineError, Rows};

type Result = std::result::Result<Rows, EngineError>;

/// How long a query that is cancelled takes to end, unless it was between two statements and did not notice. After that
/// it is cancelled again, after twice as long each time.
const AGAIN: Duration = Duration::from_millis(50);

/// No longer than that.
const MOST: Duration = Duration::from_secs(5);

/// Who waits for a query. It is told once: by the query, or by itself when it stops waiting.
#[derive(Clone)]
pub(in crate::engine::postgres) struct Caller(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// Taken by whoever tells.
    done: Option<SyncSender<Result>>,
    /// What ends the query while it runs.
    running: Option<CancelToken>,
}

impl Caller {
    pub(in crate::engine::postgres) fn new() -> (Self, Receiver<Result>) {
        let (done, is_done) = mpsc::sync_channel(1);
        let state = Mutex::new(State { done: Some(done), running: None });
        (Self(Arc::new(Shared { state, ended: Condvar::new() })), is_done)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::engine::postgres) fn tell(&self, result: Result) {
        let done = self.state().done.take();
        // It waits, but its thread may be gone.
        drop(done.map(|done| done.send(result)));
    }

    /// Stops waiting, whether the query waits for its turn or runs. Returns whether there is one to be cancelled.
    pub(in crate::engine::postgres) fn stop_waiting(&self) -> bool {
        self.tell(Err(EngineError::unwanted()));
        self.state().running.is_some()
    }

    /// Cancels the query until it has ended.
    pub(in crate::engine::postgres) fn cancel(&self, cancel: impl Fn(&CancelToken)) {
        let (mut state, mut pause) = (self.state(), AGAIN);
        while let Some(query) = state.running.clone() {
            drop(state);
            cancel(&query);
            let runs = |state: &mut State| state.running.is_some();
            let waited = self.0.ended.wait_timeout_while(self.state(), pause, runs);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            pause = (2 * pause).min(MOST);
        }
    }

    pub(in crate::engine::postgres) fn waits(&self) -> bool {
        self.state().done.is_some()
    }

    /// The query runs from here on, unless nobody waits for it.
    pub(in crate::engine::postgres) fn begins(&self, query: CancelToken) -> bool {
        let mut state = self.state();
        let waits = state.done.is_some();
        state.running = waits.then_some(query);
        waits
    }

    /// The query no longer runs. Returns whether it was left alone: what cancelled it may come late, and end the next
    /// query of its connection.
    pub(in crate::engine::postgres) fn ends(&self) -> bool {
        let mut state = self.state();
        state.running = None;
        self.0.ended.notify_all();
        state.done.is_some()
    }

    /// One that learns of it when the query panics.
    pub(in crate::engine::postgres) fn held(self) -> Held {
        Held(self)
    }
}

/// Tells at the latest when it is dropped.
pub(in crate::engine::postgres) struct Held(Caller);

impl std::ops::Deref for Held {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ends();
        self.tell(Err(EngineError::Broken("a query panicked".to_owned())));
    }
}
