//! What is written, read, kept and removed when: every decision of a spool, without IO, clock or thread.
//!
//! It is told what the batcher orders, and asks its driver for one call of the [`Disk`](super::disk::Disk) at a time.
//!
//! ```text
//!   handle(order), handle_demand, handle_stop
//!              poll                         the driver then
//!   ┌────────► Disk(call) ────────────────► runs it:              handle_disk
//!   │          Stored(batches) ───────────► tells the batcher
//!   │          Replay(record) ────────────► gives it to the batcher; handle_refused if it has no room
//!   │          Damaged(damage) ───────────► tells the batcher
//!   └───────── Wait(until), Idle, Finished  sleeps until then, until something happens, or ends
//! ```
//!
//! Batches are appended to the *active* segment, as many as wait together, and are stored once that is
//! synced. A segment is *closed* when it is long, after any error, and at the start of a process. When all
//! its records are done, their states are synced, the file is removed, and the folder is synced.

mod call;
mod segment;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_core::retry::{Backoff, Jitter};

use self::call::Verb;
pub use self::call::{DiskCall, mark_sent, slot_of};
use self::segment::Appended;
pub(super) use self::segment::{Append, Segment};
use super::reading::{Pass, Reading};
use super::record::{HEADER, SegmentHeader, State};
use crate::batcher::{RecordId, Replay, SpoolOrder, Stored};

/// A collector's segments are closed when they are that long, in bytes: small enough to be given back soon, and so long
/// that making a file costs little.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// The longest write, in bytes, unless a record is longer.
const LONGEST_WRITE: usize = 4 << 20;

/// How long nothing is written after an error: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the name of a segment that is kept aside ends with.
pub const ASIDE: &str = ".damaged";

/// The bits of a segment's number that its file has in its name; the others are its slot.
const NUMBER_BITS: u32 = 48;

/// What happens when the spool is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The oldest events are lost, and reported.
    #[default]
    DropOldest,
    /// It takes nothing more: events stay in memory, and [`Full`](crate::CollectError::Full) is returned
    /// when that is used up.
    Refuse,
}

/// What a spool goes by.
#[derive(Debug, Clone, Copy)]
pub struct SpoolPolicy {
    /// The most that all segments take, in bytes.
    pub max_bytes: u64,
    /// A segment is closed when it is that long, in bytes.
    pub segment_bytes: u64,
    /// How old an event gets on disk.
    pub max_age: Duration,
    /// What happens at `max_bytes`.
    pub when_full: WhenFull,
    /// Whether a batch counts as stored only when it is synced.
    pub sync: bool,
    /// The hash of the base URL.
    pub endpoint: u64,
    /// The hash of what names this start of the machine; 0 if unknown.
    pub boot: u64,
    /// For salts and pauses.
    pub seed: u64,
}

/// A segment that an earlier process left.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// The index of its slot; 0 is that of this process.
    pub slot: usize,
    /// The number in its name.
    pub number: u64,
    /// Its length, in bytes.
    pub len: u64,
}

/// What the driver has to do next.
#[derive(Debug)]
pub enum SpoolStep {
    /// Run this, then call [`handle_disk`](SpoolMachine::handle_disk).
    Disk(DiskCall),
    /// Tell the batcher where these batches are, or that they could not be stored.
    Stored(Vec<(Stored, Option<RecordId>)>),
    /// Give this to the batcher.
    Replay(Arc<str>, Replay),
    /// Tell the batcher, and the user.
    Damaged(Damage),
    /// Do nothing before that time, or until something happens.
    Wait(Instant),
    /// Do nothing until something happens.
    Idle,
    /// Do nothing ever again.
    Finished,
}

/// Records that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// How many, as far as is known.
    pub records: u64,
    /// How many events were in them, as far as is known.
    pub events: u64,
    /// They are of an earlier process, and were not counted before.
    pub recovered: bool,
}

/// What a call of the disk is for.
#[derive(Debug)]
pub(super) enum Job {
    Create(u64),
    SyncCreated(u64),
    Append(u64, Vec<Appended>, Bytes),
    SyncAppended(u64, Vec<Appended>),
    Mark(RecordId),
    SyncDone(u64),
    Remove(u64),
    SyncRemoved(usize),
    Read(u64, u64, usize),
}

/// The machine; see the [module](self).
#[derive(Debug)]
pub struct SpoolMachine {
    pub(super) policy: SpoolPolicy,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Where batches are appended.
    pub(super) active: Option<u64>,
    next_number: u64,
    next_sequence: u64,
    random: u64,
    pub(super) queue: VecDeque<Append>,
    /// The call that is under way, and the one that has to follow it.
    job: Option<Job>,
    then: Option<Job>,
    acks: Vec<(Stored, Option<RecordId>)>,
    pub(super) damages: VecDeque<Damage>,
    /// Records that are done, which their files do not say yet.
    marks: VecDeque<RecordId>,
    /// The records of batches in memory, and how long they are.
    pub(super) held: HashMap<RecordId, u64>,
    pub(super) pass: Option<Pass>,
    /// How many records the batcher takes now, and whether it had no room for the last one.
    pub(super) demand: usize,
    pub(super) has_no_room: bool,
    /// After an error, nothing is written before that.
    pub(super) paused_until: Option<Instant>,
    pause: Backoff,
    /// After an error, nothing is read before that.
    pub(super) unread_until: Option<Instant>,
    /// The last sync of a batch failed.
    has_failed_sync: bool,
    aside_bytes: u64,
    damaged: u64,
    stopping: bool,
}

/// A spool in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolStats {
    /// The length of all segments, in bytes.
    pub bytes: u64,
    /// How many segments there are.
    pub segments: usize,
    /// How many records could not be read since the start, as far as is known.
    pub damaged: u64,
    /// The last batch could not be stored: the disk is full, or fails. Events are in memory only.
    pub failing: bool,
}

impl SpoolMachine {
    /// A spool with what earlier processes left, of which `aside_bytes` are only kept because they are
    /// damaged.
    #[must_use]
    pub fn new(policy: SpoolPolicy, left: &[Left], aside_bytes: u64) -> Self {
        let last = left.iter().filter(|left| left.slot == 0).map(|left| left.number).max();
        let left = left.iter().filter(|left| left.number >> NUMBER_BITS == 0);
        let segment = |left: &Left| {
            let handle = ((left.slot as u64) << NUMBER_BITS) | left.number;
            (handle, Segment::new(left.slot, left.number, left.len))
        };
        Self {
            policy,
            segments: left.map(segment).collect(),
            active: None,
            next_number: last.unwrap_or(0) + 1,
            next_sequence: 0,
            random: policy.seed,
            queue: VecDeque::new(),
            job: None,
            then: None,
            acks: Vec::new(),
            damages: VecDeque::new(),
            marks: VecDeque::new(),
            held: HashMap::new(),
            pass: None,
            demand: 0,
            has_no_room: false,
            paused_until: None,
            pause: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Jitter::UpperHalf, policy.seed),
            unread_until: None,
            has_failed_sync: false,
            aside_bytes,
            damaged: 0,
            stopping: false,
        }
    }

    /// The figures of now.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        SpoolStats {
            bytes: self.bytes(),
            segments: self.segments.len(),
            damaged: self.damaged,
            failing: self.paused_until.is_some(),
        }
    }

    /// Whether something is on disk only, as far as is known.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.segments.values().any(Segment::has_more)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    // What happens.

    /// What the batcher orders.
    pub fn handle(&mut self, order: SpoolOrder) {
        match order {
            SpoolOrder::Store(store) => self.queue.push_back(Append::Batch(store)),
            SpoolOrder::Settled(record) => {
                let len = self.held.remove(&record).unwrap_or(0);
                self.end_record(record, len);
            }
            SpoolOrder::Evicted { record, count, delivery } => {
                self.held.remove(&record);
                if let Some(segment) = self.segments.get_mut(&record.segment) {
                    segment.out += 1;
                    segment.out_events += u64::from(count);
                }
                if let Some(pass) = &mut self.pass {
                    pass.evicted(record, count, delivery);
                }
            }
        }
    }

    /// How many records the batcher takes now.
    pub fn handle_demand(&mut self, records: usize) {
        self.demand = records;
        self.has_no_room = false;
    }

    /// The batcher has ended: nothing is replayed, and what is done is removed.
    pub fn handle_stop(&mut self) {
        self.stopping = true;
        self.pass = None;
    }

    fn end_record(&mut self, record: RecordId, len: u64) {
        let Some(segment) = self.segments.get_mut(&record.segment) else { return };
        segment.live = segment.live.saturating_sub(1);
        segment.live_bytes = segment.live_bytes.saturating_sub(len);
        self.marks.push_back(record);
        if let Some(pass) = &mut self.pass {
            pass.done(record);
        }
    }

    /// What became of the last call.
    pub fn handle_disk(&mut self, result: io::Result<Vec<u8>>, now: Instant) {
        let Some(job) = self.job.take() else { return };
        match (job, result) {
            (Job::Create(id), Ok(_)) => self.then = Some(Job::SyncCreated(id)),
            (Job::SyncCreated(id), Ok(_)) => self.active = Some(id),
            (Job::Create(id), Err(_)) => {
                self.segments.remove(&id);
                self.fail(now);
            }
            // It is removed again, as nothing is in it.
            (Job::SyncCreated(_), Err(_)) => self.fail(now),
            (Job::Append(id, appended, bytes), Ok(_)) => {
                if let Some(segment) = self.segments.get_mut(&id) {
                    segment.len += bytes.len() as u64;
                }
                if self.policy.sync {
                    self.then = Some(Job::SyncAppended(id, appended));
                } else {
                    self.stored(appended);
                }
            }
            (Job::SyncAppended(_, appended), Ok(_)) => self.stored(appended),
            (Job::Append(_, appended, _), Err(_)) => {
                self.queue_again(appended);
                self.fail(now);
            }
            (Job::SyncAppended(id, appended), Err(_)) => {
                // Whether it is on disk cannot be known, and a second sync would not tell. It goes to
                // another segment, where it can be.
                self.active = None;
                self.marks.extend(appended.iter().map(|(_, record, _)| *record));
                if let Some(segment) = self.segments.get_mut(&id) {
                    segment.void.extend(appended.iter().map(|(_, record, _)| record.offset));
                }
                self.queue_again(appended);
                if std::mem::replace(&mut self.has_failed_sync, true) {
                    self.fail(now);
                }
            }
            (Job::SyncDone(id), _) => self.then = Some(Job::Remove(id)),
            (Job::Remove(id), _) => {
                if let Some(segment) = self.segments.remove(&id) {
                    if segment.damaged {
                        self.aside_bytes += segment.len;
                    }
                    self.then = Some(Job::SyncRemoved(segment.slot));
                }
            }
            (Job::Mark(record), Err(_)) => {
                if let Some(segment) = self.segments.get_mut(&record.segment) {
                    segment.void.insert(record.offset);
                }
            }
            (Job::Mark(_) | Job::SyncRemoved(_), _) => {}
            (Job::Read(id, offset, _), result) => {
                let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
                match result {
                    Err(error) if !is_gone(&error) && !self.drops() => {
                        // It may pass, and what is there is not to be lost.
                        self.unread_until = Some(now + LONGEST_PAUSE);
                        self.pass = None;
                    }
                    result => self.handle_read(id, offset, result.ok()),
                }
            }
        }
    }

    fn stored(&mut self, appended: Vec<Appended>) {
        (self.paused_until, self.has_failed_sync) = (None, false);
        self.pause.reset();
        for (append, record, len) in appended {
            let Some(segment) = self.segments.get_mut(&record.segment) else { continue };
            segment.live += 1;
            segment.live_bytes += len;
            match append {
                Append::Batch(store) => {
                    self.held.insert(record, len);
                    self.acks.push((store.stored(), Some(record)));
                }
                Append::Forward { from, len, replay, .. } => {
                    segment.out += 1;
                    segment.out_events += u64::from(replay.count);
                    if let Some(before) = self.segments.get_mut(&from.segment) {
                        before.out = before.out.saturating_sub(1);
                        before.out_events =
                            before.out_events.saturating_sub(u64::from(replay.count));
                    }
                    self.end_record(from, len);
                }
            }
        }
    }

    fn queue_again(&mut self, appended: Vec<Appended>) {
        for (append, _, _) in appended.into_iter().rev() {
            self.queue.push_front(append);
        }
    }

    /// The disk does not work, or is full: what waits stays in memory, and is not held up.
    fn fail(&mut self, now: Instant) {
        self.active = None;
        self.paused_until = Some(now + self.pause.next_delay());
        self.refuse();
    }

    pub(super) fn refuse(&mut self) {
        for append in self.queue.drain(..) {
            if let Append::Batch(store) = append {
                self.acks.push((store.stored(), None));
            }
        }
    }

    // What to do.

    /// What the driver has to do next; `time` is in ms since 1970. After a call of the disk it does
    /// nothing before it has told the result.
    pub fn poll(&mut self, now: Instant, time: u64) -> SpoolStep {
        if self.job.is_some() {
            return SpoolStep::Idle;
        }
        let job = self.then.take().or_else(|| self.next_append(now, time));
        if let Some(job) = job {
            return self.start(job);
        }
        if !self.acks.is_empty() {
            return SpoolStep::Stored(std::mem::take(&mut self.acks));
        }
        if let Some(damage) = self.damages.pop_front() {
            self.damaged += damage.records;
            return SpoolStep::Damaged(damage);
        }
        let mark = self.marks.pop_front().map(Job::Mark);
        if let Some(job) = mark.or_else(|| self.next_removal()) {
            return self.start(job);
        }
        if self.stopping {
            return SpoolStep::Finished;
        }
        if let Some(until) = self.unread_until.filter(|until| now < *until)
            && !self.drops()
        {
            return if self.has_more() { SpoolStep::Wait(until) } else { SpoolStep::Idle };
        }
        self.unread_until = None;
        let queued = self.queue.len();
        match self.next_read(time) {
            Some(Reading::Job(job)) => self.start(job),
            Some(Reading::Found(stream, replay)) => SpoolStep::Replay(stream, replay),
            // Something was found to be damaged, or to be copied forward.
            None if !self.damages.is_empty() || self.queue.len() > queued => self.poll(now, time),
            None => SpoolStep::Idle,
        }
    }

    fn start(&mut self, job: Job) -> SpoolStep {
        let (slot, verb) = match &job {
            Job::SyncRemoved(slot) => (*slot, Verb::SyncFolder),
            Job::Create(id)
            | Job::SyncCreated(id)
            | Job::Append(id, ..)
            | Job::SyncAppended(id, _)
            | Job::Mark(RecordId { segment: id, .. })
            | Job::SyncDone(id)
            | Job::Remove(id)
            | Job::Read(id, ..) => {
                let Some(segment) = self.segments.get(id) else { return SpoolStep::Idle };
                let name = segment.name.clone();
                let verb = match &job {
                    Job::Create(_) => Verb::Create(name),
                    Job::Append(_, _, bytes) => Verb::Write(name, segment.len, bytes.clone()),
                    Job::Mark(record) => {
                        let done = Bytes::copy_from_slice(&State::Done.to_bytes());
                        Verb::Write(name, record.offset, done)
                    }
                    Job::Remove(_) if segment.damaged => {
                        let aside = format!("{name}{ASIDE}");
                        Verb::Rename(name, aside)
                    }
                    Job::Remove(_) => Verb::Unlink(name),
                    Job::Read(_, offset, len) => Verb::Read(name, *offset, *len),
                    Job::SyncCreated(_) | Job::SyncRemoved(_) => Verb::SyncFolder,
                    Job::SyncAppended(..) | Job::SyncDone(_) => Verb::Sync(name),
                };
                (segment.slot, verb)
            }
        };
        self.job = Some(job);
        SpoolStep::Disk(DiskCall { slot, verb })
    }

    fn next_append(&mut self, now: Instant, time: u64) -> Option<Job> {
        let first = self.queue.front()?.len();
        let active = self.active.filter(|id| self.segments[id].len < self.policy.segment_bytes);
        self.active = active;
        if self.paused_until.is_some_and(|until| now < until) {
            self.refuse();
            return None;
        }
        let room = self.policy.max_bytes.saturating_sub(self.bytes());
        if room < first {
            // What is copied forward may be what is dropped.
            self.queue.retain(|append| matches!(append, Append::Batch(_)));
            self.queue.front()?;
            let drops = self.policy.when_full == WhenFull::DropOldest && self.drop_oldest();
            if !drops {
                self.refuse();
            }
            return None;
        }
        let Some(active) = active else { return Some(self.create()) };
        let segment = self.segments.get_mut(&active)?;
        let header = segment.header?;
        let mut bytes = if segment.len == 0 { header.encode().to_vec() } else { Vec::new() };
        let mut appended = Vec::new();
        while let Some(next) = self.queue.front()
            && (appended.is_empty() || bytes.len() + next.len() as usize <= LONGEST_WRITE)
            && (bytes.len() as u64 + next.len()) <= room.max(first + HEADER as u64)
            && let Some(next) = self.queue.pop_front()
        {
            let (from, offset) = (bytes.len(), segment.len + bytes.len() as u64);
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            segment.newest =
                segment.newest.max(next.encode(sequence, time, header.salt, &mut bytes));
            let len = (bytes.len() - from) as u64;
            appended.push((next, RecordId { segment: active, offset }, len));
        }
        Some(Job::Append(active, appended, bytes.into()))
    }

    fn create(&mut self) -> Job {
        let number = self.next_number;
        self.next_number += 1;
        // Another for each file, whatever the seed is: an odd step visits all numbers.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let SpoolPolicy { endpoint, boot, .. } = self.policy;
        let mut segment = Segment::new(0, number, 0);
        segment.own = true;
        segment.counted_to = u64::MAX;
        segment.header = Some(SegmentHeader { number, salt: self.random, endpoint, boot });
        self.segments.insert(number, segment);
        Job::Create(number)
    }

    /// A segment of which nothing is needed.
    fn next_removal(&mut self) -> Option<Job> {
        if self.stopping && self.active.is_some_and(|id| self.segments[&id].live == 0) {
            self.active = None;
        }
        let is_read = |id: u64| self.pass.as_ref().is_some_and(|pass| pass.segment == id);
        let is_done = |segment: &Segment| segment.live == 0 && segment.is_counted();
        let (id, segment) = self.segments.iter_mut().find(|(id, segment)| {
            is_done(segment) && self.active != Some(**id) && !is_read(**id)
        })?;
        // What is kept aside takes a quarter of the room at most.
        segment.damaged &= self.aside_bytes + segment.len <= self.policy.max_bytes / 4;
        Some(Job::SyncDone(*id))
    }
}
