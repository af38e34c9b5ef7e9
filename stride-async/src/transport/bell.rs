//! Tells what wakes a connection from outside from what it does to itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes the task that polls a connection.
///
/// The halves of a hyper connection wake each other, though both are polled by the same task. A task
/// that was woken while it was polled comes back at once, even where it wanted to yield, and a
/// current-thread runtime looks at its timers and sockets only after 61 such turns.
pub(super) struct Bell {
    state: Arc<State>,
    waker: Waker,
}

struct State(Mutex<(Waker, Phase)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody polls: whoever rings wakes the task.
    Quiet,
    /// It is being polled, which ringing does not interrupt.
    Polled,
    /// It is being polled, and has to be once more.
    Rung,
}

impl Default for Bell {
    fn default() -> Self {
        let state = Arc::new(State(Mutex::new((Waker::noop().clone(), Phase::Quiet))));
        Self { waker: Arc::clone(&state).into(), state }
    }
}

impl Bell {
    /// Polls until nothing is left to do, or some result is there.
    pub(super) fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Once more is enough; and where it is not, for example because a runtime is not there to put
        // a wake-up off, the task does come back at once.
        for _ in 0..2 {
            self.state.begin(context.waker());
            let result = poll(&mut Context::from_waker(&self.waker));
            let rung = self.state.end();
            if result.is_ready() || !rung {
                return result;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, (Waker, Phase)> {
        // Nothing is half done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, task: &Waker) {
        let mut state = self.lock();
        state.1 = Phase::Polled;
        if !state.0.will_wake(task) {
            let gone = std::mem::replace(&mut state.0, task.clone());
            drop(state);
            drop(gone);
        }
    }

    fn end(&self) -> bool {
        std::mem::replace(&mut self.lock().1, Phase::Quiet) == Phase::Rung
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.1 != Phase::Quiet {
            state.1 = Phase::Rung;
            return;
        }
        let task = state.0.clone();
        drop(state);
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was polled and the task woken, if it rings in so many polls.
    fn ring(polls: usize) -> (usize, usize) {
        let (bell, task) = (Bell::default(), Arc::<Task>::default());
        let waker = Arc::clone(&task).into();
        let mut count = 0;
        let result: Poll<()> = bell.poll(&mut Context::from_waker(&waker), |context| {
            count += 1;
            if count <= polls {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        });
        assert!(result.is_pending());
        (count, task.0.load(Ordering::Relaxed))
    }

    #[test]
    fn what_it_does_to_itself_does_not_wake_the_task() {
        assert_eq!(ring(0), (1, 0));
        assert_eq!(ring(1), (2, 0));
        assert_eq!(ring(2), (2, 1), "but it is not polled for ever");
    }

    #[test]
    fn what_comes_from_outside_wakes_the_last_task() {
        let bell = Bell::default();
        let tasks = [(); 2].map(|()| Arc::<Task>::default());
        let mut inside = None;
        for task in &tasks {
            let waker = Arc::clone(task).into();
            let result: Poll<()> = bell.poll(&mut Context::from_waker(&waker), |context| {
                inside = Some(context.waker().clone());
                Poll::Pending
            });
            assert!(result.is_pending());
        }
        inside.unwrap().wake();
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [0, 1]);
    }
}
