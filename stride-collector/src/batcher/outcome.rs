//! What the outcome of a request means: for its batches, for their lanes, and for the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use stride_core::retry::{is_transient, least_delay};
use stride_core::transport::{Delivery, TransportError};

use super::batch::{Batch, Last, Response};
use super::narrow;
use super::retry::{Failure, Trouble, backoff, is_pause};
use super::step::LaneId;
use super::{Batcher, InFlight};
use crate::activity::Activity;
use crate::report::LossReason;

impl Batcher {
    /// What came of a request, and what it means; a result that comes after
    /// [`give_up`](Self::give_up) changes nothing.
    pub fn handle_result(
        &mut self,
        id: u64,
        result: Result<Response, TransportError>,
        now: Instant,
    ) -> Vec<Activity> {
        self.now = now;
        let Some(InFlight { mut parts, outage, is_trial }) = self.in_flight.remove(&id) else {
            return Vec::new();
        };
        self.trials -= usize::from(is_trial);
        for (lane, _) in &parts {
            self.lane(*lane).in_flight -= 1;
        }
        let (last, delivery) = match &result {
            Ok(Response { status, message, .. }) => {
                let (status, message) = (Some(*status), message.clone());
                (Last { status, message, error: None }, Delivery::MaybeSent)
            }
            Err(error) => {
                let (error, delivery) = (error.clone(), error.delivery());
                (Last { error: Some(error), ..Last::default() }, delivery)
            }
        };
        for (_, batch) in &mut parts {
            batch.tried = true;
            if delivery == Delivery::MaybeSent {
                batch.delivery = delivery;
            }
            if last.status.is_none_or(|status| !status.is_success()) {
                let before = batch.last.get_or_insert_default();
                // The last response stays known after an error.
                let status = last.status.or(before.status);
                let message = last.message.clone().or(before.message.take());
                **before = Last { status, message, error: last.error.clone() };
            }
        }
        let events = parts.iter().map(|(_, batch)| u64::from(batch.count)).sum();
        let stream = match &parts[..] {
            [(lane, _)] => Some(Arc::clone(&self.lane(*lane).stream)),
            _ => None,
        };
        let mut activities = Vec::with_capacity(2);
        match result {
            Ok(response) if response.status.is_success() => {
                let lanes: Vec<LaneId> = parts.iter().map(|(lane, _)| *lane).collect();
                parts.into_iter().for_each(|(lane, batch)| self.delivered(lane, &batch));
                self.worked(&lanes);
                activities.push(Activity::Sent { stream, events });
            }
            Ok(Response { status, .. }) if !is_transient(status) && !is_pause(status) => {
                if self.refused(parts, status) {
                    activities.push(Activity::Narrowed { stream, events, status });
                }
            }
            Ok(Response { status, headers, .. }) => {
                let pause = if is_transient(status) {
                    least_delay(status, &headers)
                } else {
                    Duration::ZERO
                };
                let failure = match status {
                    StatusCode::UNAUTHORIZED => Failure::Unauthorized,
                    StatusCode::FORBIDDEN => Failure::Forbidden,
                    _ => Failure::Transient,
                };
                self.failed(parts, failure, pause, outage);
                let status = Some(status);
                activities.push(Activity::Retried { stream, events, status, error: None });
            }
            Err(error) => match Failure::of(&error) {
                Failure::Permanent => {
                    for (lane, batch) in parts {
                        self.lose(lane, *batch, LossReason::Undeliverable);
                        self.schedule(lane);
                    }
                }
                failure => {
                    self.failed(parts, failure, Duration::ZERO, outage);
                    let error = Some(error);
                    activities.push(Activity::Retried { stream, events, status: None, error });
                }
            },
        }
        if let [Activity::Retried { .. }] = &activities[..] {
            self.retries += 1;
        }
        let state = self.health.state(now);
        if std::mem::replace(&mut self.server, state) != state {
            activities.push(Activity::Server(state));
        }
        activities
    }

    pub(super) fn delivered(&mut self, id: LaneId, batch: &Batch) {
        self.totals.pending -= u64::from(batch.count);
        self.totals.delivered += u64::from(batch.count);
        self.free(batch.cost);
        self.unspool(batch.id, batch.count);
        self.settle_copy(batch.id);
        self.ages.remove(batch.first, batch.count);
        self.settled(batch.epoch);
        let lane = self.lane(id);
        lane.last_epoch = batch.epoch;
        lane.trouble = None;
        lane.is_held_alone = false;
        lane.share = u32::MAX;
        lane.shared_failures = 0;
        if batch.part.member {
            self.member_settled(id, true);
        }
        self.schedule(id);
    }

    /// A part of a narrowed batch is settled; `innocent` if the server took it.
    pub(super) fn member_settled(&mut self, id: LaneId, innocent: bool) {
        let lane = self.lane(id);
        let Some(narrowing) = &mut lane.narrowing else { return };
        narrowing.members = narrowing.members.saturating_sub(1);
        narrowing.left = narrowing.left.saturating_sub(1);
        if narrowing.members == 0 {
            lane.narrowing = None;
            lane.narrowing_limit = narrow::REQUESTS;
            return;
        }
        let used_up = narrowing.left == 0;
        if let Some(heir) = lane.front_mut().filter(|front| front.part.member && front.part.heir) {
            heir.part.heir = false;
            heir.part.guilty |= innocent;
        }
        if used_up {
            self.end_narrowing(id);
        }
    }

    /// Loses what is left of a batch that took too many requests.
    pub(super) fn end_narrowing(&mut self, id: LaneId) {
        let lane = self.lane(id);
        lane.narrowing = None;
        lane.narrowing_limit = narrow::REQUESTS_AFTER;
        while self.lane(id).front().is_some_and(|front| front.part.member) {
            let Some(batch) = self.lane(id).pop_front() else { break };
            self.lose(id, *batch, LossReason::Rejected);
        }
    }

    /// A status that no later attempt changes, but for a smaller part. Says whether there is one.
    pub(super) fn refused(&mut self, parts: Vec<(LaneId, Box<Batch>)>, status: StatusCode) -> bool {
        let ids: Vec<LaneId> = parts.iter().map(|(lane, _)| *lane).collect();
        let mut narrows = ids.len() > 1;
        for (id, mut batch) in parts {
            if ids.len() > 1 {
                self.halve(id, ids.len());
                self.put_back(id, batch);
                continue;
            }
            match status.as_u16() {
                400 | 422 => narrows = self.rejected(id, batch),
                413 if batch.count > 1 => {
                    let lane = self.lane(id);
                    lane.longest = lane.longest.min(batch.length / 2);
                    batch.part.too_long = true;
                    narrows = true;
                    self.put_back(id, batch);
                }
                _ => {
                    let member = batch.part.member;
                    self.lose(id, *batch, LossReason::of_status(status));
                    if member {
                        self.member_settled(id, false);
                    }
                    self.schedule(id);
                }
            }
        }
        self.worked(&ids);
        narrows
    }

    pub(super) fn rejected(&mut self, id: LaneId, mut batch: Box<Batch>) -> bool {
        let lane = self.lane(id);
        if let Some(narrowing) = &mut lane.narrowing
            && batch.part.member
        {
            narrowing.left = narrowing.left.saturating_sub(1);
            // Whatever stands behind it was guilty only if this is not.
            if let Some(next) = lane.front_mut().filter(|front| front.part.member) {
                next.part.heir = false;
            }
        }
        batch.part.guilty = true;
        if batch.count > 1 {
            let used_up = lane.narrowing.as_ref().is_some_and(|narrowing| narrowing.left == 0);
            lane.put_back(batch);
            if used_up {
                self.end_narrowing(id);
            }
            self.schedule(id);
            return !used_up;
        }
        let member = batch.part.member;
        self.lose(id, *batch, LossReason::Rejected);
        if member {
            // This request was counted above.
            if let Some(narrowing) = &mut self.lane(id).narrowing {
                narrowing.left += 1;
            }
            self.member_settled(id, false);
        }
        self.schedule(id);
        false
    }

    /// A request failed that may succeed later.
    pub(super) fn failed(
        &mut self,
        parts: Vec<(LaneId, Box<Batch>)>,
        failure: Failure,
        pause: Duration,
        outage: u64,
    ) {
        let now = self.now;
        let single = match &parts[..] {
            [(lane, _)] => Some(*lane),
            _ => None,
        };
        let held_alone = single.filter(|id| self.lane(*id).is_held_alone && !pause.is_zero());
        self.health.failed(failure, single, outage, now);
        if !pause.is_zero() && held_alone.is_none() {
            self.health.hold(pause, single, now);
        }
        let is_servers = self.health.probing;
        let lanes = parts.len();
        for (id, batch) in parts {
            let forbidden = failure == Failure::Forbidden;
            if lanes > 1 {
                let lane = self.lane(id);
                if forbidden {
                    self.halve(id, lanes);
                } else if !is_servers {
                    lane.shared_failures += 1;
                    if lane.shared_failures >= 2 {
                        self.halve(id, lanes);
                    }
                }
            } else if forbidden || !is_servers || held_alone.is_some() {
                self.trouble(id, forbidden, pause);
            } else if let Some(trouble) = &mut self.lane(id).trouble {
                // The next probe is another lane's.
                trouble.not_before = trouble.not_before.max(now);
            }
            self.put_back(id, batch);
        }
    }

    /// From now on the lane shares requests with half as many.
    pub(super) fn halve(&mut self, id: LaneId, lanes: usize) {
        let lane = self.lane(id);
        lane.share = u32::try_from(lanes / 2).unwrap_or(u32::MAX).max(1);
        lane.shared_failures = 0;
    }

    pub(super) fn trouble(&mut self, id: LaneId, forbidden: bool, pause: Duration) {
        let (now, seed) = (self.now, self.policy.seed ^ u64::from(id.0).rotate_left(32));
        let lane = self.lane(id);
        let trouble = lane.trouble.get_or_insert_with(|| {
            Box::new(Trouble {
                backoff: backoff(seed),
                not_before: now,
                last_failure: now,
                forbidden,
                excused: Duration::ZERO,
                excused_until: now,
            })
        });
        trouble.last_failure = now;
        trouble.forbidden = forbidden;
        trouble.not_before = now + trouble.backoff.next_delay().max(pause);
        if !pause.is_zero() {
            trouble.excused += pause;
            trouble.excused_until = now;
        }
    }

    pub(super) fn put_back(&mut self, id: LaneId, batch: Box<Batch>) {
        self.lane(id).put_back(batch);
        self.schedule(id);
    }

    /// The server gave a response as one that works.
    pub(super) fn worked(&mut self, lanes: &[LaneId]) {
        let held_by = self.health.worked(|lane| lanes.contains(&lane));
        if let Some(lane) = held_by.and_then(|id| self.lanes.get_mut(id.0 as usize)?.as_mut()) {
            lane.is_held_alone = true;
        }
    }
}
