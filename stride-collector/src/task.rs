//! Drives the batcher with tokio tasks. It decides nothing: it asks, does, and tells.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::{AsyncTarget, Limits, TransportError};
use tokio::runtime::Handle;
use tokio::task::{coop, spawn_blocking, yield_now};
use tokio::time::sleep_until;

use crate::batch::{Job, Loss, Step};
use crate::report::Report;
use crate::request::{self, Reading, Response};
use crate::shared::Shared;

/// How much text is compressed before the runtime's other tasks have their turn: some 30 us of work
/// at level 1.
const SLICE: usize = 32 << 10;

/// The time as tokio has it, which tests may stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A task that sends.
pub(crate) struct Sender {
    pub(crate) number: usize,
    pub(crate) senders: Arc<Senders>,
    pub(crate) target: AsyncTarget,
    pub(crate) gzip_level: GzipLevel,
    pub(crate) limits: Limits,
}

impl Sender {
    /// Starts it. It ends by itself when the batcher has finished.
    pub(crate) fn spawn(self, runtime: &Handle) {
        drop(runtime.spawn(self.run()));
    }

    async fn run(self) {
        let shared = &self.senders.0;
        let mut gzip = Gzip::new(self.gzip_level);
        loop {
            // A transport that never waits must not keep the thread to itself.
            coop::consume_budget().await;
            let step = poll_fn(|context| Poll::Ready(shared.poll(self.number, context.waker())));
            match step.await {
                Step::Send(job) => {
                    let (id, path) = (job.id, job.body.path());
                    let bytes = compress(&job, &mut gzip).await;
                    shared.compressed(job, &bytes);
                    shared.handle_result(id, self.send(&path, bytes).await);
                }
                Step::Lost(loss) => hand_over(shared, vec![loss]).await,
                Step::Wait(until) => woken(Some(until)).await,
                Step::Idle => woken(None).await,
                Step::Finished => return,
            }
        }
    }

    async fn send(&self, path: &str, bytes: Bytes) -> Result<Response, TransportError> {
        let AsyncTarget { api, transport } = &self.target;
        let call = request::call(api, path, bytes, self.limits)?;
        let sent = async {
            let (head, mut body) = transport.send(call).await?.into_parts();
            let mut reading = Reading::new(head);
            while let Some(chunk) = body.next().await {
                if !reading.takes(chunk) {
                    break;
                }
            }
            Ok(reading.finish())
        };
        guarded(sent).await.unwrap_or_else(|| Err(request::panicked()))
    }
}

/// The bytes to send.
async fn compress(job: &Job, gzip: &mut Gzip) -> Bytes {
    let pieces = match job.body.gzipped() {
        Ok(bytes) => return bytes,
        Err(pieces) => pieces,
    };
    let mut member = gzip.member();
    let mut room = SLICE;
    for mut piece in pieces {
        while piece.len() >= room {
            let (slice, rest) = piece.split_at(room);
            member.write(slice);
            (piece, room) = (rest, SLICE);
            yield_now().await;
        }
        member.write(piece);
        room -= piece.len();
    }
    member.finish()
}

/// Gives losses to the user, who may take their time.
async fn hand_over(shared: &Arc<Shared>, losses: Vec<Loss>) {
    let losses = HandOver { shared: Arc::clone(shared), losses };
    if shared.has_on_lost() && !losses.losses.is_empty() {
        // They are handed over when they are dropped, also if the runtime ends before.
        let _ = spawn_blocking(move || drop(losses)).await;
    }
}

/// Losses that are given to the user when they are dropped, and so in any case.
struct HandOver {
    shared: Arc<Shared>,
    losses: Vec<Loss>,
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.losses.iter().for_each(|loss| self.shared.hand_over(loss));
    }
}

/// What the senders of one collector share. When the last of them ends, and so when their runtime
/// does, nobody is left to send anything: what is pending then is lost, and nothing more accepted.
pub(crate) struct Senders(pub(crate) Arc<Shared>);

impl Drop for Senders {
    fn drop(&mut self) {
        self.0.stop();
        let losses = self.0.give_up();
        drop(HandOver { shared: Arc::clone(&self.0), losses });
    }
}

/// Waits until the task is woken, by whatever, or until then.
async fn woken(until: Option<Instant>) {
    let mut sleep = pin!(until.map(|until| sleep_until(until.into())));
    let mut asleep = false;
    poll_fn(|context| {
        let over = match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context).is_ready(),
            None => false,
        };
        if over || std::mem::replace(&mut asleep, true) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// What a future comes to; `None` if it panics.
async fn guarded<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let poll = AssertUnwindSafe(|| future.as_mut().poll(context));
        // The panic itself was reported by the panic hook.
        catch_unwind(poll).map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}

/// Waits until `check` gives something, or until then (for ever without a time).
pub(crate) async fn wait<R>(
    shared: &Shared,
    until: Option<Instant>,
    mut check: impl FnMut() -> Option<R>,
) -> Option<R> {
    let waiter = shared.waiter();
    let mut sleep = pin!(until.map(|until| sleep_until(until.into())));
    poll_fn(|context| {
        waiter.register(context.waker());
        if let Some(found) = check() {
            return Poll::Ready(Some(found));
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Stops the collector, and gives it so long to deliver what it holds.
pub(crate) async fn stop(shared: &Arc<Shared>, limit: Duration) -> Report {
    let until = now().checked_add(limit);
    shared.stop();
    let finished = || shared.is_finished().then_some(());
    if wait(shared, until, finished).await.is_none() {
        hand_over(shared, shared.give_up()).await;
    }
    shared.report()
}
