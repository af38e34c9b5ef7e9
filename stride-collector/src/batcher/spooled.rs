//! Which batches are on disk, too, and which have to leave memory for it.
//!
//! The batcher decides what is stored and what is let go of; the spool knows where it lies and brings it
//! back. A batch that *leaves* is in no lane: it is compressed, stored, and then no longer in memory.

mod orders;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_core::transport::Delivery;

pub use self::orders::{Leaving, Replay, SpoolMode, SpoolOrder, Store, Stored};
use super::batch::{Batch, Body, Part, Share, Text};
use super::step::{LaneId, RecordId, Step};
use super::{Batcher, SLICE};
use crate::report::LossReason;

/// How many replayed batches are in memory for each sender: one that is sent, and two that wait.
const REPLAYS: usize = 3;

/// How many batches leave at a time.
const MOST_LEAVING: usize = 256;

/// After the disk refused a batch, nothing else is asked to leave for so long.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a batch's copy on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// It was ordered.
    Ordered,
    Safe {
        record: RecordId,
        /// The batch came from there.
        replayed: bool,
    },
    /// The batch is a part of this record.
    Part(RecordId),
    /// There is none, and none to be had.
    Refused,
}

/// Whether a lane's first batch left memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It did, or is about to.
    Yes,
    /// It will, once its copy is known to be safe.
    Later,
    /// It has no place on disk.
    No,
}

/// What the batcher knows of the spool.
#[derive(Debug)]
pub(super) struct Spooled {
    mode: SpoolMode,
    copies: HashMap<u64, Copy>,
    /// How many parts of a record are not settled, if it was split.
    parts: HashMap<RecordId, u32>,
    orders: Vec<SpoolOrder>,
    /// The batches that leave, and those of them that are not compressed.
    leaving: BTreeMap<u64, (LaneId, Box<Batch>)>,
    uncompressed: VecDeque<u64>,
    /// Memory has run out. What has to leave is known when all that was open is sealed.
    is_pressed: bool,
    /// What they take, in bytes, and how much has to leave.
    leaving_bytes: usize,
    excess: usize,
    /// After the disk refused something, nothing leaves before that.
    not_before: Option<Instant>,
    /// The last lane that was looked at for batches that may leave, and whether one will be able to.
    cursor: Option<(Instant, LaneId)>,
    has_later: bool,
    /// All lanes were looked at: the next look is when something else is stored.
    waits: bool,
    /// How many batches in memory came from disk.
    replayed: usize,
    /// The disk did not take what was last given to it.
    refuses: bool,
    /// The last step was to compress: the next is left to requests.
    has_compressed: bool,
}

impl Spooled {
    pub(super) fn new(mode: SpoolMode) -> Self {
        Self {
            mode,
            copies: HashMap::new(),
            parts: HashMap::new(),
            orders: Vec::new(),
            leaving: BTreeMap::new(),
            uncompressed: VecDeque::new(),
            is_pressed: false,
            leaving_bytes: 0,
            excess: 0,
            not_before: None,
            cursor: None,
            has_later: false,
            waits: false,
            replayed: 0,
            refuses: false,
            has_compressed: false,
        }
    }

    /// Orders that a batch that leaves be stored, now that it is compressed.
    fn order(&mut self, id: u64, stream: Arc<str>) {
        let Some((lane, batch)) = self.leaving.get_mut(&id) else { return };
        let store = store(*lane, stream, batch);
        self.copies.insert(id, Copy::Ordered);
        self.orders.push(SpoolOrder::Store(store));
    }

    /// Something is no longer in memory.
    pub(super) fn freed(&mut self, bytes: usize) {
        self.excess = self.excess.saturating_sub(bytes);
    }

    fn has_more_to_leave(&self) -> bool {
        !self.waits && self.excess > self.leaving_bytes && self.leaving.len() < MOST_LEAVING
    }

    /// When there is something to compress for the disk.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let at_once = !self.uncompressed.is_empty() || self.has_more_to_leave();
        match self.not_before {
            Some(at) if self.uncompressed.is_empty() => self.has_more_to_leave().then_some(at),
            _ => at_once.then_some(now),
        }
    }
}

fn store(lane: LaneId, stream: Arc<str>, batch: &mut Batch) -> Store {
    let Batch { id, count, length, delivery, .. } = *batch;
    let (gzipped, _) = batch.share();
    Store { lane, batch: id, stream, count, length, gzipped, delivery }
}

impl Batcher {
    // What the driver calls.

    /// What the spool has to do by now, in this order.
    pub fn take_orders(&mut self) -> Vec<SpoolOrder> {
        self.spooled.as_mut().map_or_else(Vec::new, |spooled| std::mem::take(&mut spooled.orders))
    }

    /// How many records should be read from disk now.
    #[must_use]
    pub fn wanted_replays(&self) -> usize {
        let Some(spooled) = self.spooled.as_ref().filter(|_| !self.stopping) else { return 0 };
        let has_none =
            self.ready.is_empty() && self.delayed.is_empty() && self.in_flight.is_empty();
        let most = if self.health.probing {
            // Something has to probe.
            usize::from(has_none)
        } else {
            self.policy.senders * REPLAYS
        };
        most.saturating_sub(spooled.replayed)
    }

    /// What became of [`Step::Store`].
    pub fn handle_leaving(&mut self, leaving: &Leaving, bytes: Bytes) {
        let Some(spooled) = self.spooled.as_mut() else { return };
        let Some((_, batch)) = spooled.leaving.get_mut(&leaving.id) else { return };
        let (before, after) = batch.set_gzipped(bytes);
        spooled.leaving_bytes = spooled.leaving_bytes - before + after;
        spooled.freed(before.saturating_sub(after));
        spooled.order(leaving.id, Arc::clone(&leaving.body.shares[0].stream));
        self.exchange(before, after);
    }

    /// What became of [`SpoolOrder::Store`]: where the batch is, or `None` if it could not be stored.
    pub fn handle_stored(&mut self, stored: &Stored, record: Option<RecordId>, now: Instant) {
        self.now = now;
        let Some(spooled) = self.spooled.as_mut() else { return };
        spooled.refuses = record.is_none();
        spooled.waits = false;
        spooled.not_before = record.is_none().then_some(now + DISK_PAUSE);
        if spooled.copies.get(&stored.batch) != Some(&Copy::Ordered) {
            // The batch is gone.
            spooled.orders.extend(record.map(SpoolOrder::Settled));
            return;
        }
        let copy = record.map_or(Copy::Refused, |record| Copy::Safe { record, replayed: false });
        spooled.copies.insert(stored.batch, copy);
        if record.is_some() {
            self.totals.spooled += u64::from(stored.count);
        }
        match spooled.leaving.remove(&stored.batch) {
            Some((id, batch)) => {
                spooled.leaving_bytes -= batch.cost;
                self.lane(id).in_flight -= 1;
                if record.is_some() {
                    self.evict(id, &batch);
                } else {
                    self.stay(id, batch);
                }
            }
            None => self.schedule(stored.lane),
        }
    }

    /// The disk no longer takes or acknowledges anything: what waits for it stays, or is lost at the end.
    pub fn handle_disk_gone(&mut self, now: Instant) {
        self.now = now;
        let Some(spooled) = self.spooled.as_mut() else { return };
        spooled.refuses = true;
        spooled.leaving_bytes = 0;
        spooled.uncompressed.clear();
        let leaving = std::mem::take(&mut spooled.leaving);
        // An acknowledgement that comes later finds none of them.
        spooled.copies.retain(|batch, _| !leaving.contains_key(batch));
        for (_, (id, batch)) in leaving {
            self.lane(id).in_flight -= 1;
            self.stay(id, batch);
        }
    }

    /// Events that were on disk only cannot be read. Those of an earlier process were not counted
    /// before.
    pub fn handle_damaged(&mut self, events: u64, recovered: bool) {
        if recovered {
            self.totals.recovered += events;
        } else {
            self.totals.pending -= events;
            self.totals.spooled -= events;
        }
        self.totals.add_lost(LossReason::Damaged, Delivery::MaybeSent, events);
    }

    pub(super) fn handle_replayed(&mut self, id: LaneId, stream: Arc<str>, replay: Replay) {
        self.lane_or_new(id, stream);
        self.keep(id);
        self.count_sealed(id);
        let (now, epoch, number) = (self.now, self.epoch, self.new_id());
        let cost = replay.cost();
        self.held += cost;
        let Replay { record, gzipped, count, length, delivery, recovered, lost } = replay;
        if let Some(spooled) = &mut self.spooled {
            spooled.copies.insert(number, Copy::Safe { record, replayed: true });
            spooled.replayed += 1;
        }
        if recovered {
            self.totals.recovered += u64::from(count);
            self.totals.pending += u64::from(count);
            self.totals.spooled += u64::from(count);
        }
        let batch = Batch {
            id: number,
            order: number,
            epoch,
            text: Text::Gzipped(gzipped),
            count,
            length,
            cost,
            first: now,
            closed: now,
            excused: self.health.excused_before(now),
            delivery,
            tried: false,
            last: None,
            part: Part::default(),
        };
        *self.unsettled.entry(epoch).or_default() += 1;
        self.ages.add(now, count);
        match lost {
            Some(reason) => self.lose(id, batch, reason),
            None => self.lane(id).push_back(Box::new(batch)),
        }
        self.schedule(id);
    }

    // Leaving memory.

    /// Memory has run out: half of what is held should leave.
    pub(super) fn press_to_disk(&mut self) {
        if let Some(spooled) = &mut self.spooled {
            spooled.is_pressed = true;
        }
    }

    /// The next batch to compress for the disk; every other step is left to requests.
    pub(super) fn next_for_disk(&mut self) -> Option<Step> {
        let spooled = self.spooled.as_mut()?;
        if !self.given_up && std::mem::take(&mut spooled.has_compressed) {
            return None;
        }
        if spooled.is_pressed && self.sealing.is_empty() {
            spooled.is_pressed = false;
            spooled.excess = self.held / 2;
            (spooled.cursor, spooled.waits) = (None, false);
        }
        let step = self.next_leaving().map(Step::Store).or_else(|| {
            let is_write_ahead = self.is_write_ahead() && !self.given_up;
            is_write_ahead.then(|| self.next_compress().map(Step::Compress))?
        });
        if let Some(spooled) = &mut self.spooled {
            spooled.has_compressed = step.is_some();
        }
        step
    }

    fn next_leaving(&mut self) -> Option<Leaving> {
        if let Some(spooled) = &mut self.spooled
            && spooled.not_before.is_some_and(|at| at <= self.now)
        {
            // What the disk refused may find a place now.
            (spooled.not_before, spooled.refuses, spooled.cursor) = (None, false, None);
        }
        for _ in 0..SLICE {
            let spooled = self.spooled.as_mut().filter(|it| it.has_more_to_leave());
            let Some(spooled) = spooled.filter(|it| it.not_before.is_none()) else { break };
            let after = spooled.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let Some(&(due, id)) = self.expiries.range((after, Bound::Unbounded)).next() else {
                spooled.cursor = None;
                spooled.waits = std::mem::take(&mut spooled.has_later);
                if !spooled.waits {
                    spooled.excess = spooled.leaving_bytes;
                }
                break;
            };
            let leaves = self.leave(id);
            if leaves != Leaves::Yes
                && let Some(spooled) = &mut self.spooled
            {
                spooled.cursor = Some((due, id));
                spooled.has_later |= leaves == Leaves::Later;
            }
        }
        let spooled = self.spooled.as_mut()?;
        loop {
            let id = spooled.uncompressed.pop_front()?;
            let Some((lane, batch)) = spooled.leaving.get_mut(&id) else { continue };
            let (text, gzipped) = batch.share();
            let stream = Arc::clone(&self.lanes.get(lane.0 as usize)?.as_ref()?.stream);
            let body = Body { shares: vec![Share { stream, text, gzipped }] };
            return Some(Leaving { id, body });
        }
    }

    /// Lets a lane's first batch leave memory.
    pub(super) fn leave(&mut self, id: LaneId) -> Leaves {
        let Some(spooled) = &mut self.spooled else { return Leaves::No };
        let Some(lane) = self.lanes.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return Leaves::No;
        };
        let Some(front) = lane.front().filter(|front| !front.part.member && !lane.is_splitting)
        else {
            return Leaves::No;
        };
        let copy = spooled.copies.get(&front.id).copied();
        match copy {
            Some(Copy::Ordered) if !self.given_up => return Leaves::Later,
            Some(Copy::Part(_)) => return Leaves::No,
            None | Some(Copy::Refused) if spooled.refuses => return Leaves::No,
            _ => {}
        }
        let Some(mut batch) = lane.pop_front() else { return Leaves::No };
        if matches!(copy, Some(Copy::Safe { .. })) {
            self.evict(id, &batch);
            return Leaves::Yes;
        }
        lane.in_flight += 1;
        spooled.leaving_bytes += batch.cost;
        let (number, is_gzipped, stream) = (batch.id, batch.is_gzipped(), Arc::clone(&lane.stream));
        // From now on nothing is merged into it.
        let _ = batch.share();
        spooled.leaving.insert(number, (id, batch));
        match copy {
            Some(Copy::Ordered) => {}
            _ if is_gzipped => spooled.order(number, stream),
            _ => spooled.uncompressed.push_back(number),
        }
        self.schedule(id);
        Leaves::Yes
    }

    /// A batch is safe, and no longer in memory.
    fn evict(&mut self, id: LaneId, batch: &Batch) {
        let Some(spooled) = &mut self.spooled else { return };
        if let Some(Copy::Safe { record, replayed }) = spooled.copies.remove(&batch.id) {
            spooled.replayed -= usize::from(replayed);
            let Batch { count, delivery, .. } = *batch;
            spooled.orders.push(SpoolOrder::Evicted { record, count, delivery });
        }
        self.ages.remove(batch.first, batch.count);
        self.free(batch.cost);
        self.settled(batch.epoch);
        self.lane(id).last_epoch = batch.epoch;
        self.schedule(id);
    }

    /// A batch that should have left could not be stored.
    fn stay(&mut self, id: LaneId, batch: Box<Batch>) {
        if let Some(spooled) = &mut self.spooled
            && spooled.mode == SpoolMode::Overflow
        {
            spooled.copies.remove(&batch.id);
        }
        if self.given_up {
            self.lose(id, *batch, LossReason::Stopped);
        } else {
            self.lane(id).put_back(batch);
        }
        self.schedule(id);
    }

    /// At the end: in-flight batches that are on disk stay there, and the others are lost.
    pub(super) fn give_up_in_flight(&mut self, id: LaneId, batch: Batch) {
        let copy = self.spooled.as_ref().and_then(|spooled| spooled.copies.get(&batch.id));
        if matches!(copy, Some(Copy::Safe { .. })) {
            self.evict(id, &batch);
        } else {
            self.lose(id, batch, LossReason::Stopped);
        }
    }

    // Copies of batches in memory.

    pub(super) fn is_write_ahead(&self) -> bool {
        self.spooled.as_ref().is_some_and(|spooled| spooled.mode == SpoolMode::WriteAhead)
    }

    /// Whether a batch may be sent as far as the disk is concerned.
    pub(super) fn is_stored(&self, batch: u64) -> bool {
        self.spooled.as_ref().is_none_or(|spooled| {
            let copy = spooled.copies.get(&batch);
            spooled.mode == SpoolMode::Overflow || !matches!(copy, None | Some(Copy::Ordered))
        })
    }

    /// The record of a batch that is safe.
    pub(super) fn record(&self, batch: u64) -> Option<RecordId> {
        match self.spooled.as_ref()?.copies.get(&batch)? {
            Copy::Safe { record, .. } | Copy::Part(record) => Some(*record),
            Copy::Ordered | Copy::Refused => None,
        }
    }

    /// A batch in its lane is compressed: a write-ahead spool stores it.
    pub(super) fn order_store(&mut self, id: LaneId, position: i64) {
        let Some(spooled) = &mut self.spooled else { return };
        let Some(lane) = self.lanes.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let stream = Arc::clone(&lane.stream);
        let Some(batch) = lane.at(position) else { return };
        if spooled.mode == SpoolMode::WriteAhead && !spooled.copies.contains_key(&batch.id) {
            spooled.copies.insert(batch.id, Copy::Ordered);
            spooled.orders.push(SpoolOrder::Store(store(id, stream, batch)));
        }
    }

    /// The events of a batch are no longer pending.
    pub(super) fn unspool(&mut self, batch: u64, count: u32) {
        if self.record(batch).is_some() {
            self.totals.spooled -= u64::from(count);
        }
    }

    /// A batch has ended, and its loss was reported if it was one: its copy is not needed.
    pub(super) fn settle_copy(&mut self, batch: u64) {
        let Some(spooled) = &mut self.spooled else { return };
        match spooled.copies.remove(&batch) {
            Some(Copy::Safe { record, replayed }) => {
                spooled.replayed -= usize::from(replayed);
                spooled.orders.push(SpoolOrder::Settled(record));
            }
            Some(Copy::Part(record)) => {
                let parts = spooled.parts.entry(record).or_insert(1);
                *parts -= 1;
                if *parts == 0 {
                    spooled.parts.remove(&record);
                    spooled.orders.push(SpoolOrder::Settled(record));
                }
            }
            Some(Copy::Ordered | Copy::Refused) | None => {}
        }
    }

    /// A batch was split in two.
    pub(super) fn split_copy(&mut self, batch: u64, parts: [u64; 2]) {
        let Some(spooled) = &mut self.spooled else { return };
        let copy = match spooled.copies.remove(&batch) {
            Some(Copy::Safe { record, replayed }) => {
                spooled.replayed -= usize::from(replayed);
                spooled.parts.insert(record, 2);
                Copy::Part(record)
            }
            Some(Copy::Part(record)) => {
                *spooled.parts.entry(record).or_insert(1) += 1;
                Copy::Part(record)
            }
            Some(Copy::Refused) => Copy::Refused,
            None | Some(Copy::Ordered) => return,
        };
        spooled.copies.extend(parts.map(|part| (part, copy)));
    }
}
