//! Drives the batcher with tokio tasks.

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

use super::request::{self, Reading};
#[cfg(feature = "spool")]
use super::threads::DISK_PATIENCE;
#[cfg(feature = "spool")]
use crate::batcher::RecordId;
use crate::batcher::{Body, Loss, Response, Step};
use crate::report::Report;
use crate::shared::{Goal, Shared};

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
                Step::Send(request) => {
                    let bytes = compress(request.body(), &mut gzip).await;
                    let path = request.body().path();
                    let id = request.id();
                    shared.handle_gzipped_request(id, &bytes);
                    #[cfg(feature = "spool")]
                    let marked = mark_sent(shared, request.records()).await;
                    #[cfg(not(feature = "spool"))]
                    let marked = Ok(());
                    request.into_buffer().into_iter().for_each(|it| shared.held.recycle(it));
                    let result = match marked {
                        Ok(()) => self.send(&path, bytes).await,
                        Err(error) => Err(error),
                    };
                    shared.handle_result(id, result);
                }
                Step::Compress(waiting) => {
                    let bytes = compress(waiting.body(), &mut gzip).await;
                    shared.handle_gzipped(&waiting, bytes);
                }
                Step::Store(leaving) => {
                    let bytes = compress(leaving.body(), &mut gzip).await;
                    shared.handle_leaving(&leaving, bytes);
                }
                Step::Split(split) => shared.handle_split(split.run()),
                Step::Lost(loss) => report(shared, loss).await,
                Step::Seal(seal) => shared.seal(&seal),
                Step::Retire(lanes) => shared.retire(&lanes),
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

/// Says on disk what is about to be sent, on a thread that may wait for it.
#[cfg(feature = "spool")]
async fn mark_sent(shared: &Arc<Shared>, records: &[RecordId]) -> Result<(), TransportError> {
    if records.is_empty() {
        return Ok(());
    }
    let (shared, records) = (Arc::clone(shared), records.to_vec());
    // An error is a runtime that ends: the task does not come to send.
    spawn_blocking(move || shared.mark_sent(&records)).await.unwrap_or(Ok(()))
}

/// The bytes to send.
async fn compress(body: &Body, gzip: &mut Gzip) -> Bytes {
    if let Some(bytes) = body.gzipped() {
        return bytes;
    }
    let mut member = gzip.member();
    let mut room = SLICE;
    for piece in body.pieces() {
        let mut piece = &piece[..];
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

/// Reports a loss to the user, who may take their time.
async fn report(shared: &Arc<Shared>, loss: Loss) {
    let reported = Reported { shared: Arc::clone(shared), loss };
    if shared.has_on_lost() {
        // It is reported when it is dropped, also if the runtime ends before.
        let _ = spawn_blocking(move || drop(reported)).await;
    }
}

/// A loss that is reported when it is dropped, and so in any case.
struct Reported {
    shared: Arc<Shared>,
    loss: Loss,
}

impl Drop for Reported {
    fn drop(&mut self) {
        self.shared.report_loss(&self.loss);
    }
}

/// What the senders of one collector share. When the last of them ends, and so when their runtime
/// does, nobody is left to send anything: what is pending then is lost, and nothing more accepted.
pub(crate) struct Senders(pub(crate) Arc<Shared>);

impl Drop for Senders {
    fn drop(&mut self) {
        self.0.stop();
        self.0.give_up();
        while self.0.end() {}
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

/// Waits until a goal is reached, or until then (for ever without a time).
pub(crate) async fn reach(shared: &Shared, until: Option<Instant>, goal: Goal) -> bool {
    let waiter = shared.waiter(goal);
    let mut sleep = pin!(until.map(|until| sleep_until(until.into())));
    poll_fn(|context| {
        waiter.register(context.waker());
        if shared.is_reached(goal) {
            return Poll::Ready(true);
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context).map(|()| false),
            None => Poll::Pending,
        }
    })
    .await
}

/// Stops the collector, and gives it so long to deliver what it holds.
pub(crate) async fn stop(shared: &Arc<Shared>, limit: Duration) -> Report {
    let until = now().checked_add(limit);
    shared.stop();
    if !reach(shared, until, Goal::Finished).await {
        shared.give_up();
        if shared.has_on_lost() {
            let ending = Arc::clone(shared);
            let _ = spawn_blocking(move || while ending.end() {}).await;
        }
        while shared.end() {
            yield_now().await;
        }
        #[cfg(feature = "spool")]
        if shared.spooler().is_some()
            && !reach(shared, Some(now() + DISK_PATIENCE), Goal::Finished).await
        {
            shared.give_up_spool();
        }
    }
    shared.report()
}
