//! Connections that are kept open for the next requests.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use stride_core::transport::KEPT_FOR;
use tokio::runtime::Id;
use tokio::time::Instant;

use super::{Link, Origin};
use crate::alarm::{Alarm, current_runtime};

/// Kept connections, each for the runtime whose socket it is: another one could not drive it.
///
/// There is no bound on their number, because there are never more than were in use at once.
#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which they came.
    kept: Vec<Kept>,
    /// The runtimes that have a [`Reaper`].
    reaped: Vec<Id>,
}

struct Kept {
    link: Link,
    until: Instant,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is half done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, which is the one least likely to be closed by now.
    pub(super) fn take(&self, runtime: Id, origin: &Origin) -> Option<Link> {
        let now = Instant::now();
        let mut state = self.state();
        // What is due may be there still: the reaper sleeps as long as its runtime stands still.
        let fits = |kept: &Kept| {
            kept.link.runtime == runtime && kept.until > now && kept.link.origin == *origin
        };
        let index = state.kept.iter().rposition(fits)?;
        Some(state.kept.remove(index).link)
    }

    pub(super) fn keep(self: &Arc<Self>, link: Link) {
        let runtime = link.runtime;
        if current_runtime().ok() != Some(runtime) {
            return;
        }
        let mut state = self.state();
        state.kept.push(Kept { link, until: Instant::now() + KEPT_FOR });
        if !state.reaped.contains(&runtime) {
            state.reaped.push(runtime);
            drop(state);
            tokio::spawn(Reaper { pool: Arc::downgrade(self), runtime }.run());
        }
    }

    /// Drops what is due, and says when to come back: never, when nothing is left.
    fn drop_due(&self, runtime: Id) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        let is_due = |kept: &mut Kept| kept.link.runtime == runtime && kept.until <= now;
        let due: Vec<Kept> = state.kept.extract_if(.., is_due).collect();
        let next = state.kept.iter().find(|kept| kept.link.runtime == runtime);
        let next = next.map(|kept| kept.until);
        drop(state);
        drop(due);
        next
    }

    fn forget(&self, runtime: Id) {
        let mut state = self.state();
        let gone: Vec<Kept> =
            state.kept.extract_if(.., |kept| kept.link.runtime == runtime).collect();
        state.reaped.retain(|id| *id != runtime);
        drop(state);
        drop(gone);
    }
}

/// Closes the connections of its runtime when they are due, as a task that lives only while there
/// are any; and all of them when the runtime ends, which drops the task.
struct Reaper {
    pool: Weak<Pool>,
    runtime: Id,
}

impl Reaper {
    async fn run(self) {
        let mut alarm = Alarm::default();
        while let Some(until) = self.pool.upgrade().and_then(|pool| pool.drop_due(self.runtime))
            && poll_fn(|context| alarm.poll(until, context)).await.is_ok()
        {}
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.forget(self.runtime);
        }
    }
}
