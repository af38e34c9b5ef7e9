//! What the batcher is told: inputs, and what came of its steps. What came of a request is in
//! [`outcome`](super::outcome).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use stride_core::transport::Delivery;

use super::batch::{BATCH_COST, Batch, Events, Part, Text};
use super::step::{Input, LaneId, Loss, Parts, Waiting};
use super::{Batcher, COMPRESSED_FROM, InFlight};

impl Batcher {
    /// Takes in what happened. Inputs have to come in the order in which they happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Opened { lane, stream } => self.handle_opened(lane, stream),
            Input::Sealed { lane, stream, events, opened } => {
                self.handle_sealed(lane, stream, events, opened);
            }
            Input::Replayed { lane, stream, replay } => self.handle_replayed(lane, stream, replay),
            Input::SealsDone(ticket) => {
                self.sealing.remove(&ticket);
            }
            Input::Retired(id) => {
                self.keep(id);
                let lane = self.lanes.get(id.0 as usize).and_then(Option::as_ref);
                // Nothing is lost by a lane that is given back too early.
                if lane.is_some_and(|lane| lane.is_empty()) {
                    self.forget_expiry(id);
                    self.lanes[id.0 as usize] = None;
                    self.lane_count -= 1;
                }
            }
            Input::Press => {
                self.seal_through = self.next_opened - 1;
                self.press_to_disk();
            }
            Input::Flush => {
                self.seal_through = self.next_opened - 1;
                self.flushes.push_back(self.seal_through);
            }
            Input::Stop => {
                self.stopping = true;
                self.seal_through = self.next_opened - 1;
            }
        }
        self.resolve_flushes();
    }

    fn handle_opened(&mut self, id: LaneId, stream: Arc<str>) {
        self.lane_or_new(id, stream);
        self.keep(id);
        let lane = self.lane(id);
        lane.open += 1;
        if lane.opened == 0 {
            let number = self.next_opened;
            self.lane(id).opened = number;
            self.next_opened += 1;
            let due = self.now + self.policy.flush_interval;
            self.opened.insert(number, (id, due));
            if self.stopping {
                self.seal_through = number;
            }
        }
    }

    fn handle_sealed(&mut self, id: LaneId, stream: Arc<str>, events: Events, opened: bool) {
        self.lane_or_new(id, stream);
        self.keep(id);
        self.count_sealed(id);
        let lane = self.lane(id);
        lane.open = lane.open.saturating_sub(u32::from(opened));
        let number = if lane.open == 0 { std::mem::take(&mut lane.opened) } else { 0 };
        self.opened.remove(&number);
        self.totals.accepted += u64::from(events.count);
        self.totals.pending += u64::from(events.count);
        self.take_in(id, events);
    }

    fn take_in(&mut self, id: LaneId, mut events: Events) {
        let (now, epoch) = (self.now, self.epoch);
        let slack = events.text.capacity() - events.text.len();
        if slack > events.text.len() / 4 && events.text.len() < COMPRESSED_FROM {
            let before = events.cost();
            events.text.shrink_to_fit();
            self.freed += before - events.cost();
        }
        let (count, length, cost) = (events.count, events.text.len(), events.cost());
        self.held += cost;
        let (most, longest) = (self.policy.batch_size, self.policy.batch_bytes);
        let merges = self.policy.retry_for / 10;
        let lane = self.lane(id);
        let merged = lane.back_mut().is_some_and(|back| {
            let Text::Growing(text) = &mut back.text else { return false };
            // A bracket takes the place of the first comma.
            let fits = (back.count + count) as usize <= most && text.len() + length < longest;
            if !fits || back.tried || now.saturating_duration_since(back.first) > merges {
                return false;
            }
            // To double it, as a vector does, could take as much again as all that is held.
            if text.capacity() - text.len() < length {
                text.reserve_exact(length.max(text.len() / 8));
            }
            text.extend_from_slice(&events.text);
            back.count += count;
            back.length = text.len();
            back.closed = now;
            true
        });
        if merged {
            let Some(back) = lane.back_mut() else { return };
            let first = back.first;
            let Text::Growing(text) = &back.text else { return };
            let after = text.capacity() + BATCH_COST;
            let before = std::mem::replace(&mut back.cost, after) + cost;
            let is_long = back.length >= COMPRESSED_FROM;
            self.exchange(before, after);
            self.ages.add(first, count);
            if is_long {
                self.mark_uncompressed(id);
            }
            return;
        }
        let is_to_compress = length >= COMPRESSED_FROM || self.is_write_ahead();
        let number = self.new_id();
        let excused = self.health.excused_before(now);
        let batch = Batch {
            id: number,
            order: number,
            epoch,
            text: Text::Growing(events.text),
            count,
            length,
            cost,
            first: now,
            closed: now,
            excused,
            delivery: Delivery::NotSent,
            tried: false,
            last: None,
            part: Part::default(),
        };
        *self.unsettled.entry(epoch).or_default() += 1;
        self.ages.add(now, count);
        self.lane(id).push_back(Box::new(batch));
        if is_to_compress {
            self.mark_uncompressed(id);
        }
        self.schedule(id);
    }

    /// The bytes that a request sends. They are counted; those of a single stream are kept instead of the
    /// text, for the next attempt.
    pub fn handle_gzipped_request(&mut self, id: u64, bytes: &Bytes) {
        let Some(InFlight { parts, .. }) = self.in_flight.get_mut(&id) else { return };
        self.json_bytes += parts.iter().map(|(_, batch)| batch.length as u64).sum::<u64>();
        self.sent_bytes += bytes.len() as u64;
        if let [(_, batch)] = &mut parts[..]
            && !batch.is_gzipped()
        {
            let (before, after) = batch.set_gzipped(bytes.clone());
            self.exchange(before, after);
        }
    }

    /// What became of [`Step::Compress`](super::Step::Compress).
    pub fn handle_gzipped(&mut self, waiting: &Waiting, bytes: Bytes) {
        let Some(lane) = self.lanes.get_mut(waiting.lane.0 as usize).and_then(Option::as_mut)
        else {
            return;
        };
        let batch = lane.at(waiting.position).filter(|batch| batch.id == waiting.id);
        if let Some(batch) = batch.filter(|batch| !batch.is_gzipped()) {
            let (before, after) = batch.set_gzipped(bytes);
            self.exchange(before, after);
            self.order_store(waiting.lane, waiting.position);
        }
    }

    /// What became of [`Step::Split`](super::Step::Split).
    pub fn handle_split(&mut self, parts: Parts, now: Instant) {
        self.now = now;
        let id = parts.lane;
        if self.given_up || self.lanes.get(id.0 as usize).is_none_or(Option::is_none) {
            return;
        }
        let [left_id, right_id] = [self.new_id(), self.new_id()];
        let lane = self.lane(id);
        if lane.front().is_none_or(|front| front.id != parts.id) {
            return;
        }
        lane.is_splitting = false;
        let Some(batch) = lane.pop_front() else { return };
        let before = batch.cost;
        let guilty = batch.part.guilty;
        let at = batch.count / 2;
        let part = |number, text: Bytes, count, heir| {
            let known = Part { heir, guilty: false, too_long: false, member: batch.part.member };
            Box::new(Batch {
                id: number,
                length: text.len(),
                cost: text.len() + BATCH_COST,
                text: Text::Plain(text),
                count,
                last: batch.last.clone(),
                part: known,
                ..*batch
            })
        };
        // The right half is guilty if the whole is and the left half turns out not to be.
        let right = part(right_id, parts.right, batch.count - at, guilty);
        let left = part(left_id, parts.left, at, false);
        if !guilty && let Some(next) = lane.front_mut() {
            // What the whole would have said of it, its halves do not.
            next.part.heir = false;
        }
        let after = left.cost + right.cost;
        if let Some(narrowing) = lane.narrowing.as_mut().filter(|_| batch.part.member) {
            narrowing.members += 1;
        }
        lane.push_front(right);
        lane.push_front(left);
        *self.unsettled.entry(batch.epoch).or_default() += 1;
        self.exchange(before, after);
        self.split_copy(batch.id, [left_id, right_id]);
        self.schedule(id);
    }

    /// The user was told of a loss.
    pub fn handle_reported(&mut self, loss: &Loss) {
        self.free(loss.cost);
        self.settle_copy(loss.batch);
        self.reporting -= 1;
        self.settled(loss.epoch);
    }
}
