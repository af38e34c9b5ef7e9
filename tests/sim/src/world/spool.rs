//! The world's spool: a disk that loses and fails, and a process that is killed, or ends with its machine.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use stride_collector::batcher::{
    Batcher, Budget, Input, LaneId, RecordId, Replay, SpoolOrder, Stored,
};
use stride_collector::spool::WhenFull;
use stride_collector::spool::disk::Disk as _;
use stride_collector::spool::machine::{Left, SpoolMachine, SpoolPolicy, SpoolStep, mark_sent};
use stride_collector::spool::record::segment_number;
use stride_core::gzip::gunzip;

use super::{Checked, Lane, Later, Sender, World, numbers, stream};
use crate::disk::SimDisk;
use stride_collector::ServerState;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is killed.
    Killed,
    /// The machine ends with it.
    Crashed,
}

#[derive(Debug)]
pub(super) struct Spool {
    machine: SpoolMachine,
    disk: SimDisk,
    policy: SpoolPolicy,
    /// A call is under way.
    is_busy: bool,
    /// When it wakes without being woken.
    alarm: Option<Instant>,
    /// How long calls take, in ms.
    slow: u32,
    pub(super) underway: usize,
    /// The events of batches that are being stored, and of records.
    stores: Vec<(u64, Vec<u64>)>,
    records: HashMap<RecordId, Vec<u64>>,
    /// The events that were lost by damage.
    pub(super) damaged: u64,
    /// It may drop events for want of room.
    pub(super) is_small: bool,
    /// A call may have failed: then it may be unknown what was sent, as what could not be written may be there.
    pub(super) has_failed: bool,
}

/// 1970 plus this is when a world begins, in ms.
const EPOCH: u64 = 1_700_000_000_000;

fn machine(policy: SpoolPolicy, disk: &SimDisk) -> SpoolMachine {
    let files = disk.list().unwrap_or_default();
    let left = |(name, len): (String, u64)| {
        segment_number(&name).map(|number| Left { slot: 0, number, len })
    };
    let left: Vec<Left> = files.into_iter().filter_map(left).collect();
    SpoolMachine::new(policy, &left, 0)
}

impl World {
    /// Adds a spool, before anything happens; the policy has a mode for it.
    pub fn add_spool(&mut self) {
        let policy = SpoolPolicy {
            max_bytes: self.choices.of(&[1 << 30, 12_000]),
            segment_bytes: self.choices.of(&[2000, 500, 1 << 20]),
            max_age: Duration::from_secs(3600 * 24 * 365),
            when_full: self.choices.of(&[WhenFull::DropOldest, WhenFull::Refuse]),
            sync: true,
            endpoint: 7,
            boot: 1,
            seed: u64::from(self.choices.pick(1000)),
        };
        let disk = SimDisk::new(u64::from(self.choices.pick(1000)));
        self.spool = Some(Spool {
            machine: machine(policy, &disk),
            is_small: policy.max_bytes < 1 << 20,
            policy,
            disk,
            is_busy: false,
            alarm: None,
            slow: self.choices.of(&[0, 1, 50]),
            underway: 0,
            stores: Vec::new(),
            records: HashMap::new(),
            damaged: 0,
            has_failed: false,
        });
    }

    /// Lets some of the next calls of the disk fail.
    pub fn fail_disk(&mut self) {
        let count = self.choices.of(&[1, 3, 30]);
        let kind = self.choices.of(&[io::ErrorKind::StorageFull, io::ErrorKind::Other]);
        let first = u64::from(self.choices.pick(4));
        if let Some(spool) = &mut self.spool {
            spool.has_failed = true;
            let from = spool.disk.calls() + first;
            spool.disk.fail(from..from + count, kind);
        }
    }

    /// The disk works from now on.
    pub fn heal_disk(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.disk.heal();
            spool.slow = 0;
        }
    }

    /// Whether an event may be on disk twice: a copy of it could not be called done, after a failed sync or
    /// between copying it forward and removing the segment it came from.
    pub(super) fn may_double(&self) -> bool {
        let may = |spool: &Spool| spool.has_failed || spool.policy.segment_bytes < 1000;
        self.restarts > 0 && self.spool.as_ref().is_some_and(may)
    }

    pub(super) fn mark_sent(&mut self, records: &[RecordId]) {
        let Some(spool) = &mut self.spool else { return };
        for record in records {
            spool.has_failed |= mark_sent(*record, &spool.disk).is_err();
        }
    }

    /// Hands over what the batcher orders.
    pub(super) fn order_spool(&mut self) {
        let orders = self.batcher.take_orders();
        let wanted = self.batcher.wanted_replays();
        let Some(spool) = &mut self.spool else { return };
        for order in orders {
            match &order {
                SpoolOrder::Store(store) => {
                    let events = gunzip(&store.gzipped).ok().and_then(|it| numbers(&it).ok());
                    spool.stores.push((store.batch, events.unwrap_or_default()));
                }
                SpoolOrder::Evicted { record, .. } => {
                    for event in spool.records.get(record).into_iter().flatten() {
                        let index = usize::try_from(*event).unwrap_or_default();
                        self.fates[index].evicted = true;
                    }
                }
                SpoolOrder::Settled(_) => {}
            }
            spool.machine.handle(order);
        }
        spool.machine.handle_demand(wanted.saturating_sub(spool.underway));
    }

    /// Lets the spool do what it has to.
    pub(super) fn run_spool(&mut self) -> Checked {
        for _ in 0..100_000 {
            let Some(spool) = self.spool.as_mut().filter(|spool| !spool.is_busy) else {
                return Ok(());
            };
            let time = EPOCH + u64::try_from((self.now - self.start).as_millis()).unwrap_or(0);
            spool.alarm = None;
            let step = spool.machine.poll(self.now, time);
            match step {
                SpoolStep::Disk(call) => {
                    let result = call.run(&spool.disk);
                    let slow = spool.slow;
                    self.note(|| format!("spool: {call:?} {:?}", result.as_ref().map(Vec::len)));
                    if slow > 0 && self.choices.pick(3) == 0 {
                        if let Some(spool) = &mut self.spool {
                            spool.is_busy = true;
                        }
                        self.happens_in(Duration::from_millis(slow.into()), Later::Disk(result));
                    } else if let Some(spool) = &mut self.spool {
                        spool.machine.handle_disk(result, self.now);
                    }
                }
                SpoolStep::Stored(stored) => {
                    for (stored, record) in stored {
                        self.stored(&stored, record);
                    }
                    if self.given_up {
                        self.collect_freed();
                        self.end_steps()?;
                    }
                }
                SpoolStep::Replay(stream, replay) => {
                    if !self.replay(&stream, replay)? {
                        // There is no room before something changes.
                        return Ok(());
                    }
                }
                SpoolStep::Damaged(damage) => {
                    // Of a segment that is dropped and cannot be read, nobody knows how many were in it.
                    let is_unknown = damage.events == 0 && spool.has_failed;
                    spool.damaged += if is_unknown { 1 << 32 } else { damage.events };
                    self.note(|| format!("{damage:?}"));
                    self.batcher.handle_damaged(damage.events, damage.recovered);
                }
                SpoolStep::Wait(until) => {
                    spool.alarm = Some(until);
                    return Ok(());
                }
                SpoolStep::Idle | SpoolStep::Finished => return Ok(()),
            }
            self.collect_freed();
            let wake = self.batcher.wake();
            self.wake(wake);
        }
        Err(format!("the spool spins at {:?}", self.time()))
    }

    fn stored(&mut self, stored: &Stored, record: Option<RecordId>) {
        self.note(|| format!("{stored:?} is at {record:?}"));
        let Some(spool) = &mut self.spool else { return };
        let index = spool.stores.iter().position(|(batch, _)| *batch == stored.batch());
        let events = index.map(|index| spool.stores.swap_remove(index).1).unwrap_or_default();
        if let Some(record) = record {
            for event in &events {
                self.fates[usize::try_from(*event).unwrap_or_default()].safe = true;
            }
            spool.records.insert(record, events);
        }
        self.batcher.handle_stored(stored, record, self.now);
    }

    fn replay(&mut self, name: &str, replay: Replay) -> Result<bool, String> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        let text = gunzip(&replay.gzipped).map_err(|error| error.to_string())?;
        let events = numbers(&text)?;
        if events.len() != replay.count as usize || text.len() != replay.length + 1 {
            return Err(format!("a record of {} events holds {events:?}", replay.count));
        }
        let cost = replay.cost();
        let is_full = self.budget.used() + cost > self.limit / 4 * 3 && cost <= self.limit / 2;
        if self.stopped || is_full && replay.lost.is_none() {
            spool.machine.handle_refused(replay.record, replay.count);
            return Ok(false);
        }
        self.budget.adjust(0, cost);
        let lane = name.strip_prefix('s').and_then(|lane| lane.parse::<usize>().ok());
        let lane = lane.filter(|lane| *lane < self.lanes.len());
        let lane = lane.ok_or_else(|| format!("a record of the stream {name}"))?;
        spool.records.insert(replay.record, events);
        spool.underway += 1;
        self.lanes[lane].known = true;
        self.lanes[lane].sealed = self.lanes[lane].sealed.wrapping_add(1);
        let id = LaneId(u32::try_from(lane).unwrap_or_default());
        let wake = self.batcher.wake_when_sealed();
        self.tell(Input::Replayed { lane: id, stream: stream(lane).into(), replay }, wake);
        Ok(true)
    }

    pub(super) fn spool_alarm(&self) -> Option<Instant> {
        self.spool.as_ref()?.alarm
    }

    pub(super) fn end_call(&mut self, result: io::Result<Vec<u8>>) -> Checked {
        if let Some(spool) = &mut self.spool {
            spool.is_busy = false;
            spool.machine.handle_disk(result, self.now);
        }
        self.run_spool()
    }

    /// At the deadline of a stop nobody waits for the clock.
    pub(super) fn hurry_spool(&mut self) -> Checked {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        spool.slow = 0;
        let is_call = |later: &Later| matches!(later, Later::Disk(_));
        while let Some(at) = self.later.iter().find(|(_, it)| is_call(it)).map(|(at, _)| *at)
            && let Some(later) = self.later.remove(&at)
        {
            self.happen(later)?;
        }
        self.run_spool()
    }

    /// The process ends, and another begins with what is on disk.
    ///
    /// # Errors
    ///
    /// Something is wrong.
    pub fn restart(&mut self, ending: Ending) -> Checked {
        self.note(|| format!("{ending:?}"));
        let Some(spool) = &mut self.spool else { return Ok(()) };
        spool.disk = match ending {
            Ending::Killed => spool.disk.after_kill(),
            Ending::Crashed => {
                spool.policy.boot += 1;
                let nth = self.choices.pick(8) as usize;
                let mut images = spool.disk.images(8);
                images.by_ref().take(nth).last();
                images.next().unwrap_or_else(|| spool.disk.after_kill())
            }
        };
        spool.policy.seed += 1;
        spool.machine = machine(spool.policy, &spool.disk);
        (spool.is_busy, spool.underway) = (false, 0);
        spool.stores.clear();
        spool.records.clear();
        for later in std::mem::take(&mut self.later).into_values() {
            if let Later::Result { arrived, .. } = later {
                for event in arrived.iter().flat_map(|(_, events)| events) {
                    self.fates[usize::try_from(*event).unwrap_or_default()].ambiguous += 1;
                }
            }
        }
        for fate in &mut self.fates {
            fate.gone |= fate.ended.take().is_some() || !fate.safe;
            fate.evicted = true;
        }
        self.batcher = Batcher::new(self.policy, self.now);
        self.lanes = self.lanes.iter().map(|_| Lane::default()).collect();
        self.senders = vec![Sender::Awake; self.policy.senders];
        self.inbox.clear();
        self.flushes.clear();
        self.flush_count = 0;
        self.budget = Budget::new(self.limit);
        self.waiters.clear();
        self.in_flight.clear();
        self.observed = (0, ServerState::Healthy);
        (self.reported, self.restarts) = (0, self.restarts + 1);
        (self.stopped, self.given_up, self.can_press) = (false, false, false);
        self.settle()
    }

    /// What must hold of the spool when everything has ended.
    pub(super) fn check_spool_end(&mut self) -> Checked {
        let stats = self.batcher.stats(self.now);
        if (stats.in_flight, stats.oldest, stats.streams) != (0, None, 0) {
            return Err(format!("nothing is held, and there are {stats:?}"));
        }
        if self.budget.used() != 0 {
            return Err(format!("{} bytes are left", self.budget.used()));
        }
        if !self.waiters.is_empty() || !self.flushes.is_empty() {
            return Err("somebody waits for ever".to_owned());
        }
        let Some(spool) = &mut self.spool else { return Ok(()) };
        if spool.machine.has_more() {
            return Err(format!("something is left on disk: {:?}", spool.machine.stats()));
        }
        spool.machine.handle_stop();
        self.run_spool()?;
        let Some(spool) = &self.spool else { return Ok(()) };
        if spool.has_failed {
            // What could not be removed is there.
            return Ok(());
        }
        let files = spool.disk.list().unwrap_or_default();
        if let Some((name, _)) = files.iter().find(|(name, _)| segment_number(name).is_some()) {
            return Err(format!("{name} is left, in which all is done"));
        }
        Ok(())
    }
}
