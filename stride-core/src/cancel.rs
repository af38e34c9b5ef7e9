//! Interrupting a blocking call from another thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A flag that is raised once, with hooks that run when it is. Clones share it.
///
/// A transport registers a hook that interrupts its call; the holder of another clone calls
/// [`cancel`](Self::cancel).
///
/// ```
/// use stride_core::cancel::CancelToken;
///
/// let cancel = CancelToken::new();
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let hook = cancel.on_cancel(move || sender.send("interrupted").unwrap());
/// cancel.cancel();
/// assert_eq!(receiver.recv(), Ok("interrupted"));
/// assert!(cancel.is_cancelled());
/// # drop(hook);
/// ```
#[derive(Clone)]
pub struct CancelToken(Option<Arc<Shared>>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    waiting: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
}

impl Shared {
    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        // No user code runs under the lock, so a poisoned one holds nothing half done.
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelToken {
    /// A flag that is not raised yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// A flag that nobody can raise, for calls that run to their end. A transport then need not be
    /// prepared for an interruption.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// Whether this is [`CancelToken::never`].
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.0.is_none()
    }

    /// Raises the flag, then runs the hooks on this thread. Raising it again does nothing.
    pub fn cancel(&self) {
        let Some(shared) = &self.0 else { return };
        shared.cancelled.store(true, Ordering::SeqCst);
        let hooks = std::mem::take(&mut shared.hooks().waiting);
        for hook in hooks.into_values() {
            hook();
        }
    }

    /// Whether the flag is raised.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.cancelled.load(Ordering::SeqCst))
    }

    /// Runs `hook` when the flag is raised, on the thread that raises it; at once when it is raised
    /// already. Dropping what this returns withdraws the hook.
    #[must_use = "dropping it withdraws the hook"]
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> CancelRegistration {
        let Some(shared) = &self.0 else { return CancelRegistration(None) };
        let mut hooks = shared.hooks();
        // Looked at under the lock: either `cancel` finds the hook, or we see the flag.
        if shared.cancelled.load(Ordering::SeqCst) {
            drop(hooks);
            hook();
            return CancelRegistration(None);
        }
        let id = hooks.next;
        hooks.next += 1;
        hooks.waiting.insert(id, Box::new(hook));
        CancelRegistration(Some((Arc::clone(shared), id)))
    }
}

/// Keeps a hook registered until it is dropped.
#[must_use = "dropping it withdraws the hook"]
pub struct CancelRegistration(Option<(Arc<Shared>, u64)>);

impl fmt::Debug for CancelRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelRegistration").finish_non_exhaustive()
    }
}

impl Drop for CancelRegistration {
    fn drop(&mut self) {
        if let Some((shared, id)) = self.0.take() {
            // Taken out first: the hook may own something whose drop takes this lock again.
            let hook = shared.hooks().waiting.remove(&id);
            drop(hook);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn counter() -> (Arc<AtomicU32>, impl FnOnce() + Send + 'static) {
        let count = Arc::new(AtomicU32::new(0));
        let hook = Arc::clone(&count);
        (count, move || {
            hook.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[test]
    fn a_hook_runs_once() {
        let cancel = CancelToken::new();
        let (count, hook) = counter();
        let _hook = cancel.on_cancel(hook);
        assert!(!cancel.is_cancelled());
        cancel.clone().cancel();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_hook_that_comes_late_runs_at_once() {
        let cancel = CancelToken::new();
        cancel.cancel();
        let (count, hook) = counter();
        let _hook = cancel.on_cancel(hook);
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_hook_that_is_dropped_does_not_run() {
        let cancel = CancelToken::new();
        let (count, hook) = counter();
        drop(cancel.on_cancel(hook));
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn never_is_never() {
        let cancel = CancelToken::never();
        cancel.cancel();
        assert!(cancel.is_never() && !cancel.is_cancelled());
    }
}
