//! Drives the batcher with threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_core::cancel::CancelToken;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::{Limits, Target, TransportError};

use super::request::{self, Reading};
use crate::batcher::{Response, Step};
use crate::report::Report;
use crate::shared::{Goal, Shared};
use crate::sync::{Condvar, Mutex};

/// A thread that sends.
pub(crate) struct Sender {
    pub(crate) number: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Target,
    pub(crate) gzip_level: GzipLevel,
    pub(crate) limits: Limits,
}

impl Sender {
    /// Starts it. It ends by itself when the batcher has finished.
    pub(crate) fn spawn(self) -> io::Result<()> {
        let name = format!("stride-sender-{}", self.number);
        thread::Builder::new().name(name).spawn(move || self.run()).map(drop)
    }

    fn run(self) {
        let mut gzip = Gzip::new(self.gzip_level);
        let parker = Arc::new(Parker::default());
        let waker = Waker::from(Arc::clone(&parker));
        loop {
            match self.shared.poll(self.number, &waker) {
                Step::Send(request) => {
                    let bytes = request.body().gzip(&mut gzip);
                    let path = request.body().path();
                    let id = request.id();
                    self.shared.handle_gzipped_request(id, &bytes);
                    #[cfg(feature = "spool")]
                    let marked = self.shared.mark_sent(request.records());
                    #[cfg(not(feature = "spool"))]
                    let marked = Ok(());
                    request.into_buffer().into_iter().for_each(|it| self.shared.held.recycle(it));
                    let result = marked.and_then(|()| self.send(&path, bytes));
                    self.shared.handle_result(id, result);
                }
                Step::Compress(waiting) => {
                    self.shared.handle_gzipped(&waiting, waiting.run(&mut gzip));
                }
                Step::Store(leaving) => {
                    self.shared.handle_leaving(&leaving, leaving.run(&mut gzip));
                }
                Step::Split(split) => self.shared.handle_split(split.run()),
                Step::Lost(loss) => self.shared.report_loss(&loss),
                Step::Seal(seal) => self.shared.seal(&seal),
                Step::Retire(lanes) => self.shared.retire(&lanes),
                Step::Wait(until) => parker.park(Some(until)),
                Step::Idle => parker.park(None),
                Step::Finished => return,
            }
        }
    }

    fn send(&self, path: &str, bytes: Bytes) -> Result<Response, TransportError> {
        let Target { api, transport } = &self.target;
        let call = request::call(api, path, bytes, self.limits)?;
        let sent = AssertUnwindSafe(|| {
            let (head, body) = transport.send(call, CancelToken::never())?.into_parts();
            let mut reading = Reading::new(head);
            for chunk in body {
                if !reading.takes(chunk) {
                    break;
                }
            }
            Ok(reading.finish())
        });
        catch_unwind(sent).unwrap_or_else(|_| Err(request::panicked()))
    }
}

/// How long the end of a collector waits for its disk, beyond its own limit.
#[cfg(feature = "spool")]
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Stops the collector, and gives it so long to deliver what it holds.
pub(crate) fn stop(shared: &Shared, limit: Duration) -> Report {
    let until = Instant::now().checked_add(limit);
    shared.stop();
    if !reach(shared, until, Goal::Finished) {
        shared.give_up();
        while shared.end() {}
        #[cfg(feature = "spool")]
        if shared.spooler().is_some()
            && !reach(shared, Some(Instant::now() + DISK_PATIENCE), Goal::Finished)
        {
            shared.give_up_spool();
        }
    }
    shared.report()
}

/// Waits until a goal is reached, or until then (for ever without a time).
pub(crate) fn reach(shared: &Shared, until: Option<Instant>, goal: Goal) -> bool {
    let waiter = shared.waiter(goal);
    let reached = wait(until, |waker| {
        waiter.register(waker);
        shared.is_reached(goal).then_some(())
    });
    reached.is_some()
}

/// Waits on this thread until `check` gives something, or until then (for ever without a time).
pub(crate) fn wait<R>(
    until: Option<Instant>,
    mut check: impl FnMut(&Waker) -> Option<R>,
) -> Option<R> {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    loop {
        let found = check(&waker);
        if found.is_some() || until.is_some_and(|until| until <= Instant::now()) {
            return found;
        }
        parker.park(until);
    }
}

/// Puts its thread to sleep until it is woken; a wake that came before counts. Unlike
/// `std::thread::park` it shares nothing with other uses of the thread.
#[derive(Default)]
pub(crate) struct Parker {
    woken: Mutex<bool>,
    condition: Condvar,
}

impl Parker {
    pub(crate) fn park(&self, until: Option<Instant>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *woken) {
            let Some(until) = until else {
                woken = self.condition.wait(woken).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.condition.wait_timeout(woken, left);
            woken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condition.notify_one();
    }
}
