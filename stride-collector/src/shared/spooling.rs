//! What the collector and its spool tell each other.

use std::io;
use std::sync::atomic::Ordering;
use std::task::Waker;

use stride_core::transport::{Delivery, TransportError, TransportErrorKind};

use super::{Shared, Wakers, guarded};
use crate::batcher::{Batcher, RecordId, Replay, Stored};
use crate::error::CollectError;
use crate::intake::stream::Appended;
use crate::spool::Spooler;
use crate::spool::machine::Damage;

/// Whether a record that was read found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Taken,
    None,
}

impl Shared {
    /// The same with a spool.
    pub(crate) fn with_spool(mut self, spooler: Spooler) -> Self {
        self.spooler = Some(spooler);
        self
    }

    pub(crate) fn spooler(&self) -> Option<&Spooler> {
        self.spooler.as_ref()
    }

    /// Tells the spool what the batcher wants.
    pub(crate) fn tell_spool(&self) {
        self.update(|_, _| ());
    }

    /// Says on disk what is about to be sent.
    ///
    /// # Errors
    ///
    /// It must not be: the collector has ended, and left it to the next one.
    pub(crate) fn mark_sent(&self, records: &[RecordId]) -> Result<(), TransportError> {
        if self.spooler().is_none_or(|spooler| spooler.mark_sent(records)) {
            return Ok(());
        }
        Err(TransportError::new(TransportErrorKind::Cancelled, Delivery::NotSent))
    }

    /// What became of batches that were to be stored.
    pub(crate) fn handle_stored(&self, stored: &[(Stored, Option<RecordId>)]) {
        let given_up = self.update(|batcher, now| {
            for (stored, record) in stored {
                batcher.handle_stored(stored, *record, now);
            }
            batcher.has_given_up()
        });
        if given_up {
            // The thread that gave up may have returned already.
            while self.end() {}
        }
    }

    /// Gives a record that was read to the batcher, if there is room for it.
    pub(crate) fn replay(&self, stream: &str, mut replay: Replay) -> Room {
        let cost = replay.cost();
        let budget = &self.held.budget;
        // What is lost is only passed through. The last quarter is left to new events.
        if replay.lost.is_some() || cost > budget.limit() / 2 {
            budget.adjust(0, cost);
        } else if budget.used() + cost > budget.limit() / 4 * 3 || !budget.try_reserve(cost, &mut 0)
        {
            return Room::None;
        }
        let spooler = self.spooler();
        let underway = |count: usize| {
            spooler.map(|spooler| spooler.underway.fetch_add(count, Ordering::SeqCst));
        };
        underway(1);
        loop {
            let found = self.table.find(stream, &self.held, &mut 0);
            let result = match found {
                Ok((stream, is_new)) => stream.replay(replay, &self.held).inspect_err(|_| {
                    if is_new {
                        self.table.retire_unused(&stream, &self.held);
                    }
                }),
                Err(CollectError::Full) => Err((Appended::Full(None), replay)),
                Err(_) => Err((Appended::Stopped, replay)),
            };
            match result {
                Ok(waker) => {
                    Wakers(waker.into_iter().collect()).wake();
                    return Room::Taken;
                }
                Err((Appended::Retired, refused)) => replay = refused,
                Err(_) => {
                    underway(usize::MAX);
                    budget.adjust(cost, 0);
                    Wakers(budget.serve()).wake();
                    return Room::None;
                }
            }
        }
    }

    /// Records cannot be read.
    pub(crate) fn handle_damaged(&self, damage: Damage) {
        let Damage { records, events, recovered } = damage;
        guarded(|| {
            let text = "events on disk are damaged, and lost";
            tracing::warn!(target: "stride::collector", records, events, "{text}");
        });
        self.update(|batcher, _| batcher.handle_damaged(events, recovered));
    }

    pub(crate) fn log_disk(&self, error: &io::Error) {
        guarded(|| {
            tracing::warn!(target: "stride::collector", %error, "the spool's disk failed");
        });
    }

    pub(crate) fn log_spool(&self, is_failing: bool) {
        guarded(|| {
            if is_failing {
                let text = "events cannot be stored on disk; they are kept in memory";
                tracing::warn!(target: "stride::collector", "{text}");
            } else {
                tracing::info!(target: "stride::collector", "events are stored on disk again");
            }
        });
    }

    /// The spool has ended: whoever waits for that is woken.
    pub(crate) fn spool_ended(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.state();
            std::mem::take(&mut state.waiters).into_values().collect()
        };
        Wakers(wakers).wake();
    }

    /// The disk does not come back: what waits for it is lost.
    pub(crate) fn give_up_spool(&self) {
        self.update(Batcher::handle_disk_gone);
        while self.end() {}
    }
}
