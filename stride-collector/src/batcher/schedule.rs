//! Where each lane waits for its turn, and until when its batches may wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Share};
use super::lane::{Lane, Place};
use super::retry::{MOST_EXCUSED, is_pause};
use super::spooled::Leaves;
use super::step::{LaneId, Loss};
use super::{Batcher, SLICE};
use crate::report::LossReason;

impl Batcher {
    pub(super) fn lane_or_new(&mut self, id: LaneId, stream: Arc<str>) -> &mut Lane {
        let index = id.0 as usize;
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, || None);
        }
        let count = &mut self.lane_count;
        self.lanes[index].get_or_insert_with(|| {
            *count += 1;
            Box::new(Lane::new(stream))
        })
    }

    /// A sealed batch came for a lane.
    pub(super) fn count_sealed(&mut self, id: LaneId) {
        if self.sealed.len() < self.lanes.len() {
            self.sealed.resize(self.lanes.len(), 0);
        }
        let sealed = &mut self.sealed[id.0 as usize];
        *sealed = sealed.wrapping_add(1);
    }

    /// A lane that something is known of, and that so exists.
    pub(super) fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lane_or_new(id, Arc::default())
    }

    /// Puts a lane to where it has to wait now.
    pub(super) fn schedule(&mut self, id: LaneId) {
        if self.given_up {
            self.watch_expiry(id);
            return self.ask_to_retire(id);
        }
        let ordered = self.policy.ordered;
        let front = self.lane(id).front().map(|front| front.id);
        let is_stored = front.is_none_or(|front| self.is_stored(front));
        let lane = self.lane(id);
        let longest = lane.longest;
        let is_whole = |batch: &Batch| {
            batch.count == 1
                || (!batch.part.guilty && !batch.part.too_long && batch.length <= longest)
        };
        let in_turn = lane.in_flight == 0;
        let place = match (lane.front(), &lane.trouble) {
            _ if lane.is_splitting => Place::None,
            // Not split either: the parts have its record.
            _ if !is_stored => Place::None,
            (Some(front), _) if !is_whole(front) => {
                if in_turn {
                    lane.is_splitting = true;
                    lane.narrow_down();
                    self.splits.push_back(id);
                }
                Place::None
            }
            (Some(_), Some(trouble)) if in_turn => Place::Delayed(trouble.not_before),
            (Some(_), None) if in_turn || !ordered && lane.narrowing.is_none() => {
                match lane.place {
                    Place::Ready(turn) => Place::Ready(turn),
                    _ => Place::Ready(u64::MAX),
                }
            }
            _ => Place::None,
        };
        self.put(id, place);
        self.watch_expiry(id);
        self.ask_to_retire(id);
    }

    pub(super) fn put(&mut self, id: LaneId, place: Place) {
        let before = std::mem::replace(&mut self.lane(id).place, place);
        if before == place {
            return;
        }
        match before {
            Place::None => {}
            Place::Ready(turn) => {
                self.ready.remove(&turn);
            }
            Place::Delayed(until) => {
                self.delayed.remove(&(until, id));
            }
        }
        match place {
            Place::None => {}
            Place::Ready(_) => {
                let turn = self.next_turn;
                self.next_turn += 1;
                self.lane(id).place = Place::Ready(turn);
                self.ready.insert(turn, id);
            }
            Place::Delayed(until) => {
                self.delayed.insert((until, id));
            }
        }
    }

    pub(super) fn mark_uncompressed(&mut self, id: LaneId) {
        let lane = self.lane(id);
        if !std::mem::replace(&mut lane.is_uncompressed, true) {
            self.uncompressed.push_back(id);
        }
    }

    pub(super) fn ask_to_retire(&mut self, id: LaneId) {
        let lane = self.lane(id);
        if lane.is_empty() && lane.retire_asked.is_none() {
            // What a lane takes of the budget is given back before a flush ends.
            let epoch = lane.last_epoch;
            lane.retire_asked = Some(epoch);
            *self.unsettled.entry(epoch).or_default() += 1;
            self.retires.push_back(id);
        }
    }

    /// Something came for a lane: it is not given back, or it has been.
    pub(super) fn keep(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(id.0 as usize).and_then(Option::as_mut);
        if let Some(epoch) = lane.and_then(|lane| lane.retire_asked.take()) {
            self.settled(epoch);
        }
    }

    /// When a lane's first batch is too old.
    pub(super) fn expiry(&mut self, id: LaneId) -> Option<Instant> {
        let retry_for = self.policy.retry_for;
        let lane = self.lanes.get(id.0 as usize)?.as_deref()?;
        let front = lane.front()?;
        let mut excuse = self.health.excuse(front.excused);
        if let Some(trouble) = &lane.trouble
            && front.closed <= trouble.excused_until
        {
            excuse += trouble.excused;
        }
        Some(front.closed + retry_for + excuse.min(MOST_EXCUSED))
    }

    /// Sees to it that a lane's first batch is looked at when it is too old.
    pub(super) fn watch_expiry(&mut self, id: LaneId) {
        if self.lane(id).expires.is_none()
            && let Some(expiry) = self.expiry(id)
        {
            self.lane(id).expires = Some(expiry);
            self.expiries.insert((expiry, id));
        }
    }

    pub(super) fn forget_expiry(&mut self, id: LaneId) {
        if let Some(expiry) = self.lane(id).expires.take() {
            self.expiries.remove(&(expiry, id));
        }
    }

    /// Looks at a lane again when it expires; if it has, somewhat later.
    fn watch_again(&mut self, id: LaneId, expiry: Instant) {
        let later = self.now + self.policy.retry_for / 64 + Duration::from_millis(1);
        let next = if expiry > self.now { expiry } else { later };
        self.lane(id).expires = Some(next);
        self.expiries.insert((next, id));
    }

    /// Loses batches that are too old.
    pub(super) fn expire(&mut self) {
        for _ in 0..SLICE {
            let Some(&(due, id)) = self.expiries.first() else { return };
            if due > self.now {
                return;
            }
            self.forget_expiry(id);
            let Some(expiry) = self.expiry(id) else {
                self.ask_to_retire(id);
                continue;
            };
            let now = self.now;
            let last_failure = self.health.last_failure;
            let lane = self.lane(id);
            let Some(front) = lane.front() else { continue };
            let failures =
                [last_failure, lane.trouble.as_ref().map(|trouble| trouble.last_failure)];
            // Nothing is lost untried; a probe that failed was a try of all that waited behind it.
            let tried =
                front.tried || failures.into_iter().flatten().any(|failed| failed > front.closed);
            if expiry > now || lane.is_splitting || !tried {
                self.watch_again(id, expiry);
                continue;
            }
            let status = front.last.as_ref().and_then(|last| last.status);
            let forbidden = lane.trouble.as_ref().is_some_and(|trouble| trouble.forbidden);
            let paused = match status {
                Some(status) => is_pause(status),
                None => forbidden || self.health.unauthorized,
            };
            let reason = if paused { LossReason::Unauthorized } else { LossReason::Expired };
            match self.leave(id) {
                Leaves::Yes => continue,
                Leaves::Later => {
                    self.watch_again(id, expiry);
                    continue;
                }
                Leaves::No => {}
            }
            if let Some(batch) = self.lane(id).pop_front() {
                let member = batch.part.member;
                self.lose(id, *batch, reason);
                if member {
                    self.member_settled(id, false);
                }
            }
            self.schedule(id);
        }
    }

    pub(super) fn lose(&mut self, id: LaneId, batch: Batch, reason: LossReason) {
        let mut batch = batch;
        let (text, gzipped) = batch.share();
        let Batch { id: number, epoch, cost, count, delivery, last, first, .. } = batch;
        self.unspool(number, count);
        self.ages.remove(first, count);
        self.totals.pending -= u64::from(count);
        self.totals.add_lost(reason, delivery, count.into());
        let lane = self.lane(id);
        lane.last_epoch = epoch;
        let stream = Arc::clone(&lane.stream);
        let share = Share { stream, text, gzipped };
        self.losses.push_back(Loss {
            batch: number,
            epoch,
            cost,
            share,
            count,
            reason,
            delivery,
            last,
        });
    }
}
