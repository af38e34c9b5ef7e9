//! What must hold, in other words than the code's: each event has a fate, and ends once.

use std::time::Duration;

use stride_collector::batcher::Loss;
use stride_collector::{Activity, Delivery, LossReason, ServerState};

use super::{Checked, End, Fate, Sent, UNLIMITED, World, numbers, stream};
use crate::server::{Arrived, Outcome};

impl World {
    pub(super) fn begin_request(&mut self, arrived: &Arrived) -> Checked {
        let streams = arrived.iter().map(|(stream, _)| stream.clone()).collect();
        if self.policy.ordered {
            let is_shared = |(stream, _): &&(String, Vec<u64>)| self.in_flight.contains(stream);
            if let Some((stream, _)) = arrived.iter().find(is_shared) {
                return Err(format!("two requests of {stream} are in flight"));
            }
            self.in_flight.extend(arrived.iter().map(|(stream, _)| stream.clone()));
        }
        let may_double = self.may_double();
        self.sent.push(Sent { at: self.time(), streams });
        for (name, events) in arrived {
            for event in events {
                let Some(fate) = self.fates.get_mut(usize::try_from(*event).unwrap_or(usize::MAX))
                else {
                    return Err(format!("event {event} was invented"));
                };
                if stream(fate.lane) != *name {
                    return Err(format!("event {event} was sent to {name}"));
                }
                if let Some((end, _)) = fate.ended.filter(|_| !may_double) {
                    return Err(format!("event {event} was sent after it had ended: {end:?}"));
                }
                fate.tried = true;
            }
            if !events.is_sorted() {
                return Err(format!("events out of order: {events:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn end_request(&mut self, arrived: &Arrived, outcome: &Outcome) -> Checked {
        self.note(|| format!("{outcome:?} to {arrived:?}"));
        arrived.iter().for_each(|(stream, _)| {
            self.in_flight.remove(stream);
        });
        let success = matches!(outcome, Outcome::Status(200..300, _));
        for event in arrived.iter().flat_map(|(_, events)| events) {
            if outcome.is_ambiguous() {
                self.fates[usize::try_from(*event).unwrap_or_default()].ambiguous += 1;
            }
            // A result that comes after a stop gave up changes nothing.
            if success && !self.given_up {
                self.end(*event, End::Delivered)?;
            }
        }
        Ok(())
    }

    pub(super) fn end_loss(&mut self, loss: &Loss) -> Checked {
        let lost = loss.to_lost_batch();
        let events = numbers(&lost.events)?;
        if events.len() != lost.count {
            return Err(format!("{} events in a loss of {}", events.len(), lost.count));
        }
        for event in events {
            self.end(event, End::Lost(lost.reason, lost.delivery))?;
            let fate = &self.fates[usize::try_from(event).unwrap_or_default()];
            let age = self.time() - fate.accepted;
            let bad = self.server.bad.contains(&event);
            let siblings =
                |it: &&u64| self.fates[usize::try_from(**it).unwrap_or_default()].lane == fate.lane;
            let bad_in_lane = self.server.bad.iter().filter(siblings).count();
            let wrong = match lost.reason {
                // The first few faults are found within the requests that there are.
                LossReason::Rejected => !bad && bad_in_lane < 3,
                LossReason::Expired | LossReason::Unauthorized => {
                    age < self.policy.retry_for || (!fate.tried && self.sent.is_empty())
                }
                LossReason::TooLarge => self.server.most > 0,
                LossReason::Stopped => !self.given_up,
                LossReason::SpoolFull => self.spool.as_ref().is_none_or(|spool| !spool.is_small),
                _ => false,
            };
            if wrong {
                return Err(format!("event {event} was lost as {} after {age:?}", lost.reason));
            }
            let is_known = self.spool.as_ref().is_none_or(|spool| !spool.has_failed);
            if lost.delivery == Delivery::NotSent
                && is_known
                && self.server.stored.contains_key(&event)
            {
                return Err(format!("event {event} is stored and was lost as not sent"));
            }
        }
        Ok(())
    }

    fn end(&mut self, event: u64, end: End) -> Checked {
        let (time, may_double) = (self.time(), self.may_double());
        let Some(fate) = self.fates.get_mut(usize::try_from(event).unwrap_or(usize::MAX)) else {
            return Err(format!("event {event} was invented"));
        };
        if let Some((before, _)) = fate.ended.replace((end, time))
            && !may_double
        {
            return Err(format!("event {event} ended twice: {before:?}, {end:?}"));
        }
        Ok(())
    }

    /// What an observer is told of a result.
    pub(super) fn check_activities(
        &mut self,
        arrived: &Arrived,
        outcome: &Outcome,
        activities: &[Activity],
    ) -> Checked {
        let wrong = Err(format!("after {outcome:?} an observer was told {activities:?}"));
        if self.given_up {
            return if activities.is_empty() { Ok(()) } else { wrong };
        }
        let count: u64 = arrived.iter().map(|(_, events)| events.len() as u64).sum();
        let success = matches!(outcome, Outcome::Status(200..300, _));
        let mut told = 0;
        for activity in activities {
            match activity {
                Activity::Sent { events, .. } if success => {
                    self.observed.0 += events;
                    told += events;
                }
                Activity::Retried { events, .. } | Activity::Narrowed { events, .. }
                    if !success =>
                {
                    told += events;
                }
                Activity::Server(state) if *state != self.observed.1 => {
                    // Only a success, or a refusal of what was sent, shows that the server works.
                    let works = matches!(outcome, Outcome::Status(200..500, _));
                    if *state == ServerState::Healthy && !works {
                        return wrong;
                    }
                    self.observed.1 = *state;
                }
                _ => return wrong,
            }
        }
        // What was refused for good is told when it is lost.
        let is_told = told == count || !success && told == 0;
        let is_told = is_told && self.observed.1 == self.batcher.stats(self.now).server;
        if is_told && self.observed.0 == self.batcher.totals().delivered { Ok(()) } else { wrong }
    }

    /// What must hold at every moment.
    pub(super) fn check(&mut self) -> Checked {
        for (event, times) in &self.server.stored {
            let fate = &self.fates[usize::try_from(*event).unwrap_or_default()];
            let doubles = if self.may_double() { self.restarts } else { 0 };
            if *times > 1 + fate.ambiguous + self.restarts + doubles {
                return Err(format!("event {event} was stored {times} times without need"));
            }
        }
        let (used, totals) = (self.budget.used(), self.batcher.totals());
        let held = self.fates.len() as u64 + totals.recovered;
        let held = held.saturating_sub(totals.delivered + self.reported);
        // Very short batches take more once they are compressed; one into which others are merged
        // grows by an eighth at a time; and one that is split is as long again as it once was.
        let most = if self.has_split { UNLIMITED } else { self.limit + self.limit / 8 };
        let most = most + usize::try_from(held).unwrap_or(0) * 32;
        let most = if self.spool.is_some() { most * 2 } else { most };
        if used > most {
            return Err(format!("{used} bytes are used of {} by {held} events", self.limit));
        }
        if let Some(event) = self.server.overtaken.filter(|_| self.policy.ordered) {
            return Err(format!("event {event} was stored after a later one of its lane"));
        }
        let settled = self.batcher.settled_flushes();
        let fates = &self.fates;
        let is_pending =
            |event: &u64| fates[usize::try_from(*event).unwrap_or_default()].is_pending();
        for flush in self.flushes.extract_if(.., |flush| flush.number < settled) {
            if let Some(event) = flush.events.iter().copied().find(is_pending) {
                return Err(format!("a flush ended before event {event}"));
            }
        }
        Ok(())
    }

    /// What must hold when everything has ended.
    ///
    /// # Errors
    ///
    /// Something does not.
    pub fn check_end(&mut self) -> Checked {
        self.check()?;
        let is_left = |fate: &Fate| fate.ended.is_none() && !fate.gone;
        let left = self.fates.iter().filter(|fate| is_left(fate)).count() as u64;
        let damaged = self.spool.as_ref().map_or(0, |spool| spool.damaged);
        if let Some((event, fate)) =
            (0..).zip(&self.fates).find(|(_, fate): &(u64, _)| is_left(fate))
            && left > damaged
        {
            return Err(format!(
                "event {event} of s{}, accepted at {:?}, has not ended at {:?}",
                fate.lane,
                fate.accepted,
                self.time()
            ));
        }
        let totals = self.batcher.totals();
        let delivered =
            self.fates.iter().filter(|it| matches!(it.ended, Some((End::Delivered, _)))).count();
        let lost = self.fates.len() - delivered;
        let ends = totals.delivered + totals.lost() + totals.pending;
        if totals.accepted + totals.recovered != ends || (totals.pending, totals.spooled) != (0, 0)
        {
            return Err(format!("{totals:?} does not balance"));
        }
        if self.spool.is_some() {
            return self.check_spool_end();
        }
        let counted = (totals.accepted, totals.delivered, totals.lost(), totals.pending);
        let expected = (self.fates.len() as u64, delivered as u64, lost as u64, 0);
        if counted != expected {
            return Err(format!("counted {counted:?}, not {expected:?}"));
        }
        let stats = self.batcher.stats(self.now);
        let idle = (stats.in_flight, stats.oldest, stats.streams);
        if idle != (0, None, 0) || stats.requests != self.sent.len() as u64 {
            return Err(format!("nothing is held, and there are {stats:?}"));
        }
        if self.budget.used() != 0 {
            return Err(format!("{} bytes are left", self.budget.used()));
        }
        if !self.waiters.is_empty() {
            return Err(format!("{} wait for room for ever", self.waiters.len()));
        }
        if !self.flushes.is_empty() {
            return Err(format!("{} flushes have not ended", self.flushes.len()));
        }
        Ok(())
    }

    /// How long an event took to be delivered; `None` if it was not.
    #[must_use]
    pub fn delivery_time(&self, event: u64) -> Option<Duration> {
        let fate = self.fates.get(usize::try_from(event).ok()?)?;
        match fate.ended? {
            (End::Delivered, at) => Some(at - fate.accepted),
            (End::Lost(..), _) => None,
        }
    }

    /// How many events were lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.fates.iter().filter(|fate| matches!(fate.ended, Some((End::Lost(..), _)))).count()
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// How many events were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.fates.len()
    }

    /// How many wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }
}
