//! Drives the spool on a separate thread, so that nothing else waits for the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use super::disk::Disk;
use super::machine::{
    ASIDE, Left, SEGMENT_BYTES, SpoolMachine, SpoolPolicy, SpoolStats, SpoolStep, mark_sent,
    slot_of,
};
use super::record::segment_number;
use super::settings::Spool;
use super::slot::{self, Slot, Slots};
use crate::batcher::{Batcher, RecordId, SpoolOrder};
use crate::intake::stamp;
use crate::shared::{Room, Shared};
use crate::sync::{AtomicUsize, Condvar, Mutex, MutexGuard};

/// What a collector and the thread of its spool share.
pub(crate) struct Spooler {
    disks: Vec<Box<dyn Disk>>,
    queue: Mutex<Queue>,
    condition: Condvar,
    /// How many records were given to the intake that the batcher has not seen.
    pub(crate) underway: AtomicUsize,
    /// The folders may be another's by now. Locked while a sender writes to one.
    given_back: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    orders: VecDeque<SpoolOrder>,
    demand: usize,
    /// The batcher has changed since its demand was last looked at.
    told: bool,
    /// There is more on disk than was asked for.
    hungry: bool,
    /// The batcher has ended; the spool has.
    stopping: bool,
    finished: bool,
    stats: SpoolStats,
}

/// What is on disk at the start.
pub(crate) struct Opened {
    slots: Vec<Slot>,
    machine: SpoolMachine,
    pub(crate) spooler: Spooler,
}

impl Opened {
    /// Takes the folder. What is in it never makes this fail.
    pub(crate) fn new(spool: &Spool, base: &str) -> io::Result<Self> {
        let endpoint = slot::hash(base);
        let Slots { own, left } = Slots::open(&spool.dir, endpoint)?;
        let slots: Vec<Slot> = std::iter::once(own).chain(left).collect();
        let disks: Vec<Box<dyn Disk>> =
            slots.iter().map(|slot| Box::new(slot.folder()) as Box<dyn Disk>).collect();
        let (mut left, mut aside) = (Vec::new(), 0);
        for (slot, disk) in disks.iter().enumerate() {
            // A folder that cannot be listed holds nothing that could be sent.
            for (name, len) in disk.list().unwrap_or_default() {
                match segment_number(&name) {
                    Some(number) => left.push(Left { slot, number, len }),
                    None if name.ends_with(ASIDE) => aside += len,
                    None => {}
                }
            }
        }
        let policy = SpoolPolicy {
            max_bytes: spool.max_bytes,
            segment_bytes: SEGMENT_BYTES,
            max_age: spool.max_age,
            when_full: spool.when_full,
            sync: spool.sync,
            endpoint,
            boot: slot::boot(),
            seed: stamp::random(),
        };
        let machine = SpoolMachine::new(policy, &left, aside);
        let queue = Queue { hungry: true, stats: machine.stats(), ..Queue::default() };
        let spooler = Spooler {
            disks,
            queue: Mutex::new(queue),
            condition: Condvar::new(),
            underway: AtomicUsize::new(0),
            given_back: Mutex::new(false),
        };
        Ok(Self { slots, machine, spooler })
    }
}

/// What the thread owns.
pub(crate) struct SpoolThread {
    pub(crate) slots: Vec<Slot>,
    pub(crate) machine: SpoolMachine,
}

impl Opened {
    pub(crate) fn into_parts(self) -> (Spooler, SpoolThread) {
        let Self { slots, machine, spooler } = self;
        (spooler, SpoolThread { slots, machine })
    }
}

impl Spooler {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No user code runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the batcher has changed, under its lock: hands over what it orders.
    pub(crate) fn tell(&self, batcher: &mut Batcher) {
        let orders = batcher.take_orders();
        let demand = batcher.wanted_replays().saturating_sub(self.underway.load(Ordering::SeqCst));
        let mut queue = self.queue();
        (queue.demand, queue.told) = (demand, true);
        queue.stopping |= batcher.is_finished();
        if !orders.is_empty() || queue.stopping || demand > 0 && queue.hungry {
            queue.orders.extend(orders);
            drop(queue);
            self.condition.notify_one();
        }
    }

    /// Says on disk that these records are about to be sent; `false` if they must not be. What cannot be
    /// said is not: they would count as not sent, and be sent again.
    #[must_use]
    pub(crate) fn mark_sent(&self, records: &[RecordId]) -> bool {
        if records.is_empty() {
            return true;
        }
        let given_back = self.given_back();
        if *given_back {
            // Whoever has the folder now sends them, and a file may have the name of one that is gone.
            return false;
        }
        for record in records {
            if let Some(disk) = self.disks.get(slot_of(*record)) {
                let _ = mark_sent(*record, &**disk);
            }
        }
        true
    }

    fn given_back(&self) -> MutexGuard<'_, bool> {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no sender writes to the folders.
    fn give_back(&self) {
        *self.given_back() = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.queue().finished
    }

    pub(crate) fn stats(&self) -> SpoolStats {
        self.queue().stats
    }
}

impl SpoolThread {
    pub(crate) fn spawn(self, shared: Arc<Shared>) -> io::Result<()> {
        let name = "stride-spool".to_owned();
        thread::Builder::new().name(name).spawn(move || self.run(&shared)).map(drop)
    }

    fn run(mut self, shared: &Arc<Shared>) {
        let Some(spooler) = shared.spooler() else { return };
        let mut is_failing = false;
        shared.tell_spool();
        loop {
            self.take_in(spooler);
            let stats = self.machine.stats();
            if stats.failing != is_failing {
                is_failing = stats.failing;
                shared.log_spool(is_failing);
            }
            match self.machine.poll(Instant::now(), milliseconds()) {
                SpoolStep::Disk(call) => {
                    // A child that was forked has no thread, but who knows who calls this.
                    let result = match self.slots.get(call.slot).filter(|slot| slot.is_ours()) {
                        Some(_) => call.run(&*spooler.disks[call.slot]),
                        None => Err(io::ErrorKind::PermissionDenied.into()),
                    };
                    if let Err(error) = &result {
                        shared.log_disk(error);
                    }
                    self.machine.handle_disk(result, Instant::now());
                }
                SpoolStep::Stored(stored) => shared.handle_stored(&stored),
                SpoolStep::Replay(stream, replay) => {
                    let (record, count) = (replay.record, replay.count);
                    match shared.replay(&stream, replay) {
                        Room::Taken => {}
                        Room::None => self.machine.handle_refused(record, count),
                    }
                }
                SpoolStep::Damaged(damage) => shared.handle_damaged(damage),
                SpoolStep::Wait(until) => self.wait(spooler, Some(until)),
                SpoolStep::Idle => self.wait(spooler, None),
                SpoolStep::Finished => break,
            }
        }
        spooler.give_back();
        for slot in self.slots {
            // Those in which nothing is left, and nothing kept aside.
            let _ = slot.remove();
        }
        let mut queue = spooler.queue();
        queue.stats = self.machine.stats();
        queue.finished = true;
        drop(queue);
        shared.spool_ended();
    }

    fn take_in(&mut self, spooler: &Spooler) {
        let mut queue = spooler.queue();
        let orders = std::mem::take(&mut queue.orders);
        let demand = std::mem::take(&mut queue.told).then_some(queue.demand);
        let stopping = queue.stopping;
        queue.stats = self.machine.stats();
        drop(queue);
        for order in orders {
            self.machine.handle(order);
        }
        if let Some(demand) = demand {
            self.machine.handle_demand(demand);
        }
        if stopping {
            self.machine.handle_stop();
        }
    }

    fn wait(&self, spooler: &Spooler, until: Option<Instant>) {
        let mut queue = spooler.queue();
        queue.hungry = self.machine.has_more();
        queue.stats = self.machine.stats();
        let is_asked = |queue: &Queue| queue.hungry && queue.told && queue.demand > 0;
        while queue.orders.is_empty() && !queue.stopping && !is_asked(&queue) {
            let Some(until) = until else {
                queue = spooler.condition.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = spooler.condition.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.hungry = false;
    }
}

/// The time of the system's clock, in ms since 1970.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::record::segment_name;

    /// Otherwise it would write into the middle of a record: the names of files are used again.
    #[test]
    fn a_sender_that_is_late_writes_to_no_slot_that_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let opened = Opened::new(&Spool::write_ahead(dir.path()), "http://localhost/v1").unwrap();
        let (spooler, thread) = opened.into_parts();
        let file = segment_name(1);
        let disk = &*spooler.disks[0];
        disk.create(&file).unwrap();
        let record = RecordId { segment: 1, offset: 0 };
        assert!(spooler.mark_sent(&[record]));
        assert_eq!(disk.read_at(&file, 0, 100).unwrap(), b"MAYBSENT");

        spooler.give_back();
        disk.write_at(&file, 0, b"another's").unwrap();
        drop(thread);
        assert!(!spooler.mark_sent(&[record]), "it must not be sent");
        assert!(spooler.mark_sent(&[]), "what is not on disk may be");
        assert_eq!(disk.read_at(&file, 0, 100).unwrap(), b"another's");
    }
}
