//! What there is to do next, of each kind.

use std::sync::Arc;

use stride_core::transport::Delivery;

use super::batch::{Body, Share};
use super::lane::Place;
use super::step::{LaneId, Request, Retire, Seal, Split, Step, Waiting};
use super::{Batcher, COMPRESSED_FROM, InFlight, SLICE, Sealing};

impl Batcher {
    pub(super) fn next_seal(&mut self) -> Option<Seal> {
        if self.opened.first_key_value().is_some_and(|(_, (_, due))| *due <= self.now) {
            // All of them, so that streams that trickle share few requests however their events are
            // spread over the interval.
            self.seal_through = self.next_opened - 1;
        }
        let first = *self.opened.first_key_value()?.0;
        let mut lanes = Vec::new();
        while lanes.len() < SLICE
            && let Some(entry) = self.opened.first_entry()
            && *entry.key() <= self.seal_through
        {
            let (id, _) = entry.remove();
            self.lane(id).opened = 0;
            lanes.push(id);
        }
        if lanes.is_empty() {
            return None;
        }
        self.has_sealed = true;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.sealing.insert(ticket, Sealing { first, lanes: lanes.clone() });
        Some(Seal { ticket, lanes })
    }

    /// Ends the epochs of flushes whose batches are all known.
    pub(super) fn resolve_flushes(&mut self) {
        while let Some(&through) = self.flushes.front() {
            let is_open = self.opened.first_key_value().is_some_and(|(first, _)| *first <= through);
            let is_sealing = self.sealing.values().next().is_some_and(|it| it.first <= through);
            if is_open || is_sealing {
                return;
            }
            self.flushes.pop_front();
            self.epoch += 1;
        }
    }

    pub(super) fn next_retire(&mut self) -> Option<Step> {
        let mut retire = Vec::new();
        while retire.len() < SLICE
            && let Some(id) = self.retires.pop_front()
        {
            let lane = self.lanes.get(id.0 as usize).and_then(Option::as_ref);
            if lane.is_some_and(|lane| lane.retire_asked.is_some() && lane.is_empty()) {
                let sealed = self.sealed.get(id.0 as usize).copied().unwrap_or_default();
                self.forget_expiry(id);
                retire.push(Retire { lane: id, sealed });
            }
        }
        (!retire.is_empty()).then_some(Step::Retire(retire))
    }

    pub(super) fn next_split(&mut self) -> Option<Split> {
        while let Some(id) = self.splits.pop_front() {
            let lane = self.lane(id);
            let stream = Arc::clone(&lane.stream);
            if let Some(front) = lane.front_mut() {
                let (text, gzipped) = front.share();
                let (batch, at) = (front.id, front.count / 2);
                return Some(Split {
                    lane: id,
                    id: batch,
                    share: Share { stream, text, gzipped },
                    at,
                });
            }
        }
        None
    }

    pub(super) fn next_compress(&mut self) -> Option<Waiting> {
        let shortest = if self.is_write_ahead() { 0 } else { COMPRESSED_FROM };
        while let Some(&id) = self.uncompressed.front() {
            let Some(lane) = self.lanes[id.0 as usize].as_mut() else {
                self.uncompressed.pop_front();
                continue;
            };
            let mut position = lane.uncompressed_from.max(lane.base());
            while let Some(batch) = lane.at(position) {
                position += 1;
                if batch.is_gzipped() || batch.length < shortest {
                    continue;
                }
                let batch_id = batch.id;
                let (text, gzipped) = batch.share();
                lane.uncompressed_from = position;
                // One of each lane at a time.
                self.uncompressed.rotate_left(1);
                let stream = Arc::clone(&lane.stream);
                let body = Body { shares: vec![Share { stream, text, gzipped }] };
                return Some(Waiting { lane: id, position: position - 1, id: batch_id, body });
            }
            lane.uncompressed_from = position;
            lane.is_uncompressed = false;
            self.uncompressed.pop_front();
        }
        None
    }

    /// How many requests for lanes in trouble may be under way at a time: a sender is left to the
    /// others.
    pub(super) fn most_trials(&self) -> usize {
        self.policy.senders.saturating_sub(1).max(1)
    }

    /// Whether a lane in trouble may have its turn.
    pub(super) fn may_try(&self) -> bool {
        // With one sender, what is open is sealed and has its turn before.
        let is_others_turn = self.policy.senders == 1 && self.was_trial && !self.has_sealed;
        self.trials < self.most_trials() && (self.opened.is_empty() || !is_others_turn)
    }

    /// The lane in trouble whose turn it is.
    pub(super) fn next_trial(&self) -> Option<LaneId> {
        let &(due, id) = self.delayed.first()?;
        (due <= self.now && self.may_try()).then_some(id)
    }

    pub(super) fn next_request(&mut self) -> Option<Request> {
        let ready = self.ready.first_key_value().map(|(_, id)| *id);
        if self.health.probing {
            if !self.in_flight.is_empty() || self.now < self.health.probes_at() {
                return None;
            }
            let trial = self.next_trial();
            let id = if self.was_trial { ready.or(trial) } else { trial.or(ready) }?;
            self.was_trial = trial == Some(id);
            // One lane alone, so that a lane in trouble does not make the server look down.
            return self.request(id, 1, true);
        }
        let trial = self.next_trial();
        // With one sender, every other request is left to the others.
        let id = match (trial, ready) {
            (Some(_), Some(ready)) if self.was_trial && self.policy.senders == 1 => ready,
            (Some(trial), _) => trial,
            (None, ready) => ready?,
        };
        self.was_trial = trial == Some(id);
        self.has_sealed = false;
        let most = usize::MAX;
        self.request(id, most, self.was_trial)
    }

    /// Makes a request of the lane's first batch, and of those of other lanes if they fit.
    pub(super) fn request(
        &mut self,
        first: LaneId,
        most: usize,
        is_trial: bool,
    ) -> Option<Request> {
        let (size, bytes) = (self.policy.batch_size, self.policy.batch_bytes);
        let mut most = most;
        let (mut count, mut length) = (0, 0);
        let (mut parts, mut shares, mut records) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(id) = next {
            let lane = self.lane(id);
            if !parts.is_empty() && !lane.may_share() {
                break;
            }
            most = most.min(if lane.may_share() { lane.share as usize } else { 1 });
            let Some(front) = lane.front() else { break };
            count += front.count as usize;
            length += front.length + lane.stream.len() + r#","":[]"#.len();
            if !parts.is_empty() && (parts.len() >= most || count > size || length > bytes) {
                break;
            }
            let Some(mut batch) = lane.pop_front() else { break };
            lane.in_flight += 1;
            let (text, gzipped) = batch.share();
            shares.push(Share { stream: Arc::clone(&lane.stream), text, gzipped });
            if batch.delivery == Delivery::NotSent {
                records.extend(self.record(batch.id));
            }
            parts.push((id, batch));
            // Its next batch has its turn after the others.
            self.put(id, Place::None);
            self.schedule(id);
            if parts.len() >= most {
                break;
            }
            next = self.ready.first_key_value().map(|(_, id)| *id);
            if next.is_some_and(|id| parts.iter().any(|(other, _)| *other == id)) {
                break;
            }
        }
        if parts.is_empty() {
            return None;
        }
        let id = self.new_id();
        self.requests += 1;
        self.trials += usize::from(is_trial);
        self.in_flight.insert(id, InFlight { parts, outage: self.health.outage(), is_trial });
        Some(Request { id, body: Body { shares }, records })
    }
}
