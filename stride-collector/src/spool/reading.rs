//! What a spool reads: records that are on disk only, to be sent, dropped or copied forward.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use stride_core::transport::Delivery;

use super::machine::{Append, Damage, Job, Segment, SpoolMachine};
use super::record::{BadHeader, Found, HEADER, Next, SegmentHeader, State, next};
use crate::batcher::{RecordId, Replay};
use crate::report::LossReason;

/// How much is read at a time, in bytes, unless a record is longer.
const WINDOW: usize = 256 << 10;

/// How many records that are dropped the batcher is given before it has reported them.
const MOST_DROPPED: u64 = 4;

/// With so many segments, the rest of one that is nearly done is copied forward, so that what cannot be
/// sent does not keep it.
const FORWARD_FROM: usize = 5;

/// How many records are copied forward in one write.
const MOST_FORWARDED: usize = 64;

/// What reading gives.
pub(super) enum Reading {
    Job(Job),
    Found(Arc<str>, Replay),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Replay,
    Drop(LossReason),
    Forward,
}

/// Reading a segment from its start to where it ended when this began.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) segment: u64,
    purpose: Purpose,
    offset: u64,
    limit: u64,
    window: Bytes,
    window_at: u64,
    /// Records ahead that are done, or may have been sent, by now: the window may not say so.
    done: HashSet<u64>,
    sent: HashSet<u64>,
    /// What this pass has not seen, although it is on disk only by now: records, and events.
    unseen: (u64, u64),
    /// The last record that was given out, and whether it was counted for the first time.
    last: Option<(RecordId, bool)>,
}

impl Pass {
    fn new(segment: u64, limit: u64, purpose: Purpose) -> Self {
        Self {
            segment,
            purpose,
            offset: HEADER as u64,
            limit,
            window: Bytes::new(),
            window_at: 0,
            done: HashSet::new(),
            sent: HashSet::new(),
            unseen: (0, 0),
            last: None,
        }
    }

    fn has_passed(&self, record: RecordId) -> bool {
        record.segment == self.segment && !(self.offset..self.limit).contains(&record.offset)
    }

    pub(super) fn evicted(&mut self, record: RecordId, count: u32, delivery: Delivery) {
        if self.has_passed(record) {
            self.unseen.0 += 1;
            self.unseen.1 += u64::from(count);
        } else if record.segment == self.segment && delivery == Delivery::MaybeSent {
            self.sent.insert(record.offset);
        }
    }

    pub(super) fn done(&mut self, record: RecordId) {
        if record.segment == self.segment && !self.has_passed(record) {
            self.done.insert(record.offset);
        }
    }

    /// What of the window is still to be read, if anything is there.
    fn rest(&self) -> Option<&[u8]> {
        let from = usize::try_from(self.offset.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..)
    }
}

impl SpoolMachine {
    /// The next record to be given out, or what has to be read for it.
    pub(super) fn next_read(&mut self, time: u64) -> Option<Reading> {
        let queued = self.queue.len();
        loop {
            if self.pass.is_none() {
                if self.queue.len() > queued {
                    return None;
                }
                self.pass = self.choose(time);
            }
            let pass = self.pass.as_mut()?;
            let id = pass.segment;
            let Some(segment) = self.segments.get_mut(&id) else {
                self.pass = None;
                continue;
            };
            let Some(header) = segment.header else {
                return Some(Reading::Job(Job::Read(id, 0, HEADER)));
            };
            let at_end = pass.window_at + pass.window.len() as u64 >= pass.limit;
            let rest = pass.rest().filter(|rest| at_end || !rest.is_empty());
            let (offset, left) = (pass.offset, pass.limit.saturating_sub(pass.offset));
            let read = |len: usize| {
                let len = usize::try_from(left).unwrap_or(len).min(len);
                Some(Reading::Job(Job::Read(id, offset, len)))
            };
            let next = match rest {
                _ if left == 0 => Next::End,
                Some(rest) => next(rest, at_end, header.salt),
                None => return read(WINDOW),
            };
            match next {
                Next::More(len) => return read(len.max(WINDOW)),
                Next::End => self.end_pass(),
                Next::Damage { len, records, events } => {
                    segment.damaged = true;
                    pass.offset += len as u64;
                    if offset >= segment.counted_to {
                        segment.counted_to = pass.offset;
                        let events = events.unwrap_or(0);
                        self.damages.push_back(Damage { records, events, recovered: true });
                    }
                }
                Next::Found(found) => match self.found(found, time) {
                    Some(Some(reading)) => return Some(reading),
                    Some(None) => {}
                    None => return None,
                },
            }
            if !self.damages.is_empty() || self.queue.len() >= queued + MOST_FORWARDED {
                return None;
            }
        }
    }

    /// What to do with a record; `None` if it has to wait.
    fn found(&mut self, found: Found, time: u64) -> Option<Option<Reading>> {
        let pass = self.pass.as_mut()?;
        let segment = self.segments.get_mut(&pass.segment)?;
        let record = RecordId { segment: pass.segment, offset: pass.offset };
        let end = pass.offset + found.len as u64;
        let is_new = pass.offset >= segment.counted_to;
        let is_live = found.state != State::Done
            && !pass.done.contains(&pass.offset)
            && !segment.void.contains(&pass.offset)
            && !self.held.contains_key(&record)
            && (is_new || segment.out > 0);
        if !is_live {
            segment.counted_to = segment.counted_to.max(end);
            pass.offset = end;
            return Some(None);
        }
        let is_old = u128::from(time.saturating_sub(found.time)) > self.policy.max_age.as_millis();
        let lost = match pass.purpose {
            Purpose::Drop(reason) => Some(reason),
            Purpose::Replay if is_old => Some(LossReason::Expired),
            Purpose::Replay | Purpose::Forward => None,
        };
        let boots = segment.header.map_or(0, |header| header.boot);
        let is_same_boot = segment.own || boots != 0 && boots == self.policy.boot;
        let delivery = match found.state {
            State::Written if is_same_boot && !pass.sent.contains(&pass.offset) => {
                Delivery::NotSent
            }
            _ => Delivery::MaybeSent,
        };
        let payload = {
            let from = usize::try_from(pass.offset - pass.window_at).ok()?;
            pass.window.slice(from + found.payload.start..from + found.payload.end)
        };
        let mut replay = Replay {
            record,
            gzipped: payload,
            count: found.count,
            length: found.length as usize,
            delivery,
            recovered: is_new && !segment.own,
            lost,
        };
        if pass.purpose == Purpose::Forward {
            pass.offset = end;
            let (from, len, stream, time) = (record, found.len as u64, found.stream, found.time);
            self.queue.push_back(Append::Forward { from, len, stream, replay, time });
            return Some(None);
        }
        if lost.is_some() {
            if segment.live - segment.out >= MOST_DROPPED {
                return None;
            }
        } else if self.demand == 0 || self.has_no_room {
            return None;
        } else {
            self.demand -= 1;
        }
        // In memory that can be given back without the window.
        replay.gzipped = Bytes::copy_from_slice(&replay.gzipped);
        segment.newest = segment.newest.max(found.time);
        if is_new {
            segment.live += 1;
            segment.live_bytes += found.len as u64;
            segment.counted_to = end;
        } else {
            segment.out -= 1;
            segment.out_events = segment.out_events.saturating_sub(found.count.into());
        }
        self.held.insert(record, found.len as u64);
        pass.offset = end;
        pass.last = Some((record, is_new));
        Some(Some(Reading::Found(found.stream, replay)))
    }

    /// The batcher had no room for the record that was given out last: it comes again.
    pub fn handle_refused(&mut self, record: RecordId, count: u32) {
        self.has_no_room = true;
        if self.drops() {
            // Nobody can be told what is dropped, so nothing is.
            self.refuse();
        }
        let len = self.held.remove(&record).unwrap_or(0);
        let Some(segment) = self.segments.get_mut(&record.segment) else { return };
        let last = self.pass.as_mut().and_then(|pass| {
            pass.offset = pass.last.filter(|(last, _)| *last == record)?.0.offset;
            pass.last.take()
        });
        if let Some((_, true)) = last {
            segment.live -= 1;
            segment.live_bytes -= len;
            segment.counted_to = record.offset;
        } else {
            segment.out += 1;
            segment.out_events += u64::from(count);
        }
    }

    /// What was read; `None` if it cannot be, now or later.
    pub(super) fn handle_read(&mut self, id: u64, offset: u64, bytes: Option<Vec<u8>>) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        if segment.header.is_none() {
            let header = bytes.as_deref().map_or(Err(BadHeader::Damaged), SegmentHeader::decode);
            match header {
                Ok(header) if header.endpoint == self.policy.endpoint => {
                    segment.header = Some(header);
                }
                Err(BadHeader::Damaged) => {
                    // A file that was made, and never written to, held nothing.
                    segment.damaged = bytes.is_none_or(|it| it.iter().any(|byte| *byte != 0));
                    segment.counted_to = u64::MAX;
                    if segment.damaged {
                        self.damages.push_back(Damage { records: 1, events: 0, recovered: true });
                    }
                    self.pass = None;
                }
                // It is another's, or of a later version: left alone.
                _ => {
                    self.segments.remove(&id);
                    self.pass = None;
                }
            }
            return;
        }
        let Some(pass) = self.pass.as_mut().filter(|pass| pass.segment == id) else { return };
        match bytes {
            Some(bytes) if !bytes.is_empty() => {
                pass.window = bytes.into();
                pass.window_at = offset;
            }
            _ => {
                // What cannot be read is not there.
                if !segment.is_counted() {
                    self.damages.push_back(Damage { records: 1, events: 0, recovered: true });
                }
                segment.damaged = true;
                self.end_pass();
            }
        }
    }

    /// All was seen: what should have been there and was not is damaged.
    fn end_pass(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        let Some(segment) = self.segments.get_mut(&pass.segment) else { return };
        segment.counted_to = u64::MAX;
        let (records, events) = pass.unseen;
        let missing = segment.out.saturating_sub(records);
        if pass.purpose == Purpose::Forward || missing == 0 {
            return;
        }
        let events = segment.out_events.saturating_sub(events);
        segment.damaged = true;
        segment.live = segment.live.saturating_sub(missing);
        segment.out -= missing;
        segment.out_events -= events;
        self.damages.push_back(Damage { records: missing, events, recovered: false });
    }

    fn choose(&self, time: u64) -> Option<Pass> {
        let closed = || self.segments.iter().filter(|(id, _)| self.active != Some(**id));
        let max_age = u64::try_from(self.policy.max_age.as_millis()).unwrap_or(u64::MAX);
        let is_old = |it: &Segment| time.saturating_sub(it.newest) > max_age && it.is_counted();
        let pass = |(id, it): (&u64, &Segment), purpose| Some(Pass::new(*id, it.len, purpose));
        let old = closed().find(|(_, it)| it.out > 0 && it.is_out() && is_old(it));
        if let Some(old) = old {
            return pass(old, Purpose::Drop(LossReason::Expired));
        }
        let is_nearly_done = |it: &Segment| {
            it.live > 0 && it.is_out() && it.is_counted() && it.live_bytes * 8 <= it.len
        };
        let forwards = self.segments.len() >= FORWARD_FROM && self.paused_until.is_none();
        let room = self.policy.max_bytes.saturating_sub(self.bytes() + HEADER as u64);
        if forwards
            && let Some(rest) = closed().find(|(_, it)| is_nearly_done(it) && it.live_bytes <= room)
        {
            return pass(rest, Purpose::Forward);
        }
        if self.demand == 0 || self.has_no_room {
            return None;
        }
        let mut oldest =
            closed().chain(self.active.and_then(|id| self.segments.get_key_value(&id)));
        let left = self.segments.iter().find(|(_, it)| !it.own && it.has_more());
        pass(left.or_else(|| oldest.find(|(_, it)| it.has_more()))?, Purpose::Replay)
    }

    /// Whether what is read is given up.
    pub(super) fn drops(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| matches!(pass.purpose, Purpose::Drop(_)))
    }

    /// Makes room: the oldest segment of which nothing is in memory is given up. `false` if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.drops() {
            return true;
        }
        let is_done = |it: &Segment| it.live == 0 && it.is_counted();
        let closed = || self.segments.iter().filter(|(id, _)| self.active != Some(**id));
        if closed().any(|(_, it)| is_done(it)) {
            return true;
        }
        let oldest = closed().find(|(_, it)| it.has_more() && it.is_out());
        let Some((id, segment)) = oldest else { return false };
        self.pass = Some(Pass::new(*id, segment.len, Purpose::Drop(LossReason::SpoolFull)));
        true
    }
}
