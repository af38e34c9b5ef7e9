//! The machine of the spool alone: a crash between any two calls of the disk, and each image that it may
//! leave; and what went wrong in other spools.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_collector::batcher::{
    Batcher, Events, Input, LaneId, Policy, RecordId, Replay, SpoolMode, SpoolOrder, Step,
};
use stride_collector::spool::WhenFull;
use stride_collector::spool::disk::Disk as _;
use stride_collector::spool::machine::{Left, SpoolMachine, SpoolPolicy, SpoolStep, mark_sent};
use stride_collector::spool::record::segment_number;
use stride_collector::{Delivery, LossReason};
use stride_core::gzip::{Gzip, GzipLevel, gunzip};
use stride_sim::disk::SimDisk;

const POLICY: SpoolPolicy = SpoolPolicy {
    max_bytes: 1 << 20,
    segment_bytes: 300,
    max_age: Duration::from_secs(3600),
    when_full: WhenFull::DropOldest,
    sync: true,
    endpoint: 7,
    boot: 1,
    seed: 5,
};

/// What was given to the spool, and what it said of it.
#[derive(Debug, Default)]
struct Given {
    record: Option<RecordId>,
    /// It could not be stored.
    refused: bool,
    settled: bool,
    evicted: bool,
    sent: bool,
}

/// A spool, its disk, and what is known of the batches.
struct World {
    machine: SpoolMachine,
    disk: SimDisk,
    now: Instant,
    time: u64,
    given: Vec<Given>,
    replays: Vec<Replay>,
    damaged: u64,
    /// Every call, and whether it failed.
    calls: Vec<String>,
    /// The process ends at the first call that fails.
    crashes: bool,
    crashed: bool,
    batches: Batches,
}

/// Makes orders as a batcher does: with a write-ahead spool, each batch of one event is stored at once.
struct Batches(Gzip);

impl Batches {
    fn order(&mut self, number: u64) -> SpoolOrder {
        let policy = Policy { spool: Some(SpoolMode::WriteAhead), ..Policy::default() };
        let now = Instant::now();
        let mut batcher = Batcher::new(policy, now);
        // The numbers of batches begin anew in each: the lane tells them apart.
        let lane = LaneId(u32::try_from(number).unwrap());
        let events = Events { text: format!(",{{\"n\":{number}}}").into_bytes(), count: 1 };
        batcher.handle(Input::Sealed { lane, stream: "s".into(), events, opened: false }, now);
        let Step::Compress(waiting) = batcher.poll(0, now) else { panic!("not compressed") };
        let bytes = waiting.run(&mut self.0);
        batcher.handle_gzipped(&waiting, bytes);
        batcher.take_orders().pop().expect("an order")
    }
}

fn machine(disk: &SimDisk, policy: SpoolPolicy) -> SpoolMachine {
    let left = disk.list().unwrap().into_iter().filter_map(|(name, len)| {
        segment_number(&name).map(|number| Left { slot: 0, number, len })
    });
    SpoolMachine::new(policy, &left.collect::<Vec<_>>(), 0)
}

impl World {
    fn new(disk: SimDisk, policy: SpoolPolicy) -> Self {
        Self {
            machine: machine(&disk, policy),
            disk,
            now: Instant::now(),
            time: 1_700_000_000_000,
            given: Vec::new(),
            replays: Vec::new(),
            damaged: 0,
            calls: Vec::new(),
            crashes: false,
            crashed: false,
            batches: Batches(Gzip::new(GzipLevel::FASTEST)),
        }
    }

    /// Lets the spool do all it has to.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.crashed {
                return;
            }
            match self.machine.poll(self.now, self.time) {
                SpoolStep::Disk(call) => {
                    let result = call.run(&self.disk);
                    let outcome = if result.is_ok() { "" } else { " failed" };
                    self.calls.push(format!("{call:?}{outcome}"));
                    self.crashed = self.crashes && result.is_err();
                    self.machine.handle_disk(result, self.now);
                }
                SpoolStep::Stored(stored) => {
                    for (stored, record) in stored {
                        let given = &mut self.given[stored.lane().0 as usize];
                        (given.record, given.refused) = (record, record.is_none());
                    }
                }
                SpoolStep::Replay(stream, replay) => {
                    assert_eq!(&*stream, "s");
                    self.replays.push(replay);
                }
                SpoolStep::Damaged(damage) => self.damaged += damage.records,
                SpoolStep::Wait(_) | SpoolStep::Idle | SpoolStep::Finished => return,
            }
        }
        panic!("the spool spins");
    }

    fn store(&mut self) {
        let order = self.batches.order(self.given.len() as u64);
        self.given.push(Given::default());
        self.machine.handle(order);
        self.run();
    }

    /// The first batch that is stored and in memory.
    fn held(&mut self) -> Option<(&mut Given, RecordId)> {
        let held = |it: &&mut Given| it.record.is_some() && !it.settled && !it.evicted;
        let given = self.given.iter_mut().find(held)?;
        let record = given.record?;
        Some((given, record))
    }

    fn settle(&mut self) {
        if let Some((given, record)) = self.held() {
            given.settled = true;
            self.machine.handle(SpoolOrder::Settled(record));
            self.run();
        }
    }

    fn evict(&mut self) {
        if let Some((given, record)) = self.held() {
            given.evicted = true;
            let delivery = if given.sent { Delivery::MaybeSent } else { Delivery::NotSent };
            self.machine.handle(SpoolOrder::Evicted { record, count: 1, delivery });
            self.run();
        }
    }

    /// Says that the first batch in memory is about to be sent.
    fn send(&mut self) {
        if self.crashed {
            return;
        }
        let marked = self.held().map(|(_, record)| record);
        if let Some(record) = marked
            && mark_sent(record, &self.disk).is_ok()
            && let Some((given, _)) = self.held()
        {
            given.sent = true;
        }
    }

    /// Reads all that is on disk only, and settles it.
    fn drain(&mut self) -> Vec<(u64, Delivery)> {
        let mut drained = Vec::new();
        for _ in 0..1000 {
            self.machine.handle_demand(4);
            self.run();
            if self.replays.is_empty() {
                break;
            }
            for replay in std::mem::take(&mut self.replays) {
                assert_eq!(replay.count, 1);
                drained.push((number(&replay.gzipped), replay.delivery));
                self.machine.handle(SpoolOrder::Settled(replay.record));
            }
        }
        self.run();
        drained
    }

    fn stop(&mut self) {
        self.machine.handle_stop();
        self.run();
    }
}

fn number(gzipped: &Bytes) -> u64 {
    let text = String::from_utf8(gunzip(gzipped).unwrap()).unwrap();
    text.trim_start_matches("[{\"n\":").trim_end_matches("}]").parse().unwrap()
}

/// What a process does in a short history.
fn step(world: &mut World, what: usize) {
    match what {
        0 => world.store(),
        1 => world.settle(),
        2 => world.evict(),
        3 => world.send(),
        _ => {
            world.machine.handle_demand(1);
            world.run();
            for replay in std::mem::take(&mut world.replays) {
                let given = &mut world.given[usize::try_from(number(&replay.gzipped)).unwrap()];
                assert!(given.evicted && !given.settled, "a batch in memory was read");
                given.evicted = false;
            }
        }
    }
}

/// What the next process finds has to be what the last one was told.
fn check(history: &[usize], before: &World, disk: SimDisk, boot: u64) {
    let mut after = World::new(disk, SpoolPolicy { boot, ..POLICY });
    let mut drained = after.drain();
    drained.sort_unstable_by_key(|(number, _)| *number);
    let context = || format!("{history:?} {:?} {drained:?}", before.given);
    for (number, given) in (0..).zip(&before.given) {
        let times = drained.iter().filter(|(other, _)| *other == number).count();
        assert!(times <= 1, "twice: {}", context());
        let is_needed = given.record.is_some() && !given.settled;
        assert!(times == 1 || !is_needed, "batch {number} is missing: {}", context());
        let is_unsent = drained.contains(&(number, Delivery::NotSent));
        assert!(!is_unsent || !given.sent, "batch {number} was sent: {}", context());
        assert!(!is_unsent || boot == POLICY.boot, "nobody knows that: {}", context());
    }
    after.stop();
    let files = after.disk.list().unwrap();
    let is_left = |(name, _): &&(String, u64)| segment_number(name).is_some();
    assert!(!files.iter().any(|file| is_left(&file)), "{files:?}: {}", context());
}

#[test]
fn a_crash_between_any_two_calls_loses_nothing_that_was_stored() {
    const KINDS: usize = 5;
    let (mut crashes, mut images) = (0, 0);
    for length in 1..=5_u32 {
        for number in 0..KINDS.pow(length) {
            let history: Vec<usize> =
                (0..length).map(|digit| number / KINDS.pow(digit) % KINDS).collect();
            if history[0] != 0 {
                continue;
            }
            for call in 0.. {
                let mut world = World::new(SimDisk::new(number as u64), POLICY);
                world.disk.fail(call..u64::MAX, ErrorKind::Other);
                world.crashes = true;
                history.iter().for_each(|what| step(&mut world, *what));
                crashes += 1;
                check(&history, &world, world.disk.after_kill(), POLICY.boot);
                for image in world.disk.images(500) {
                    images += 1;
                    check(&history, &world, image, POLICY.boot + 1);
                }
                if !world.crashed {
                    break;
                }
            }
        }
    }
    assert!(crashes > 1000 && images > 10_000, "{crashes} crashes, {images} images");
}

#[test]
fn states_are_synced_before_a_segment_is_removed_and_its_folder_after() {
    let mut world = World::new(SimDisk::new(1), POLICY);
    world.store();
    world.settle();
    world.stop();
    let verb =
        |call: &String| call.split("verb: ").nth(1).unwrap().split('(').next().unwrap().to_owned();
    let verbs: Vec<String> = world.calls.iter().map(verb).collect();
    let verbs: Vec<&str> = verbs.iter().map(|verb| verb.trim_end_matches(" }")).collect();
    assert_eq!(
        verbs,
        ["Create", "SyncFolder", "Write", "Sync", "Write", "Sync", "Unlink", "SyncFolder"]
    );
}

#[test]
fn a_failed_sync_is_not_believed_when_the_next_one_succeeds() {
    for seed in 0..50 {
        let mut world = World::new(SimDisk::new(seed), POLICY);
        world.store();
        let calls = world.disk.calls();
        // The write of the second batch succeeds, its sync does not, and all that follow do.
        world.disk.fail(calls + 1..calls + 2, ErrorKind::Other);
        world.store();
        let (first, second) = (world.given[0].record.unwrap(), world.given[1].record.unwrap());
        assert_ne!(first.segment, second.segment, "it was written again, elsewhere");
        for image in world.disk.images(20) {
            let mut after = World::new(image, SpoolPolicy { boot: 2, ..POLICY });
            let numbers: Vec<u64> = after.drain().into_iter().map(|(number, _)| number).collect();
            assert!(numbers.contains(&0) && numbers.contains(&1), "{numbers:?}");
        }
    }
}

#[test]
fn a_full_disk_can_be_drained_and_takes_batches_again() {
    let mut world = World::new(SimDisk::new(1), SpoolPolicy { segment_bytes: 2000, ..POLICY });
    world.disk.set_capacity(500);
    (0..10).for_each(|_| world.store());
    let stored = world.given.iter().filter(|given| given.record.is_some()).count();
    assert!((1..10).contains(&stored) && world.machine.stats().failing, "{stored}");
    assert!(world.given.iter().filter(|given| given.record.is_none()).all(|given| given.refused));
    (0..stored).for_each(|_| world.evict());
    assert_eq!(world.drain().len(), stored, "what is there needs no room to be read and removed");
    world.now += Duration::from_secs(60);
    world.store();
    assert!(world.given[10].record.is_some() && !world.machine.stats().failing);
}

#[test]
fn a_clock_that_goes_back_ends_nothing_early_and_one_that_goes_on_does() {
    let policy = SpoolPolicy { max_age: Duration::from_secs(60), ..POLICY };
    for (later, lost) in
        [(-3_600_000_i64, None), (30_000, None), (61_000, Some(LossReason::Expired))]
    {
        let mut world = World::new(SimDisk::new(1), policy);
        world.store();
        world.evict();
        world.time = world.time.checked_add_signed(later).unwrap();
        world.machine.handle_demand(1);
        world.run();
        let [replay] = &world.replays[..] else { panic!("{:?}", world.replays) };
        assert_eq!(replay.lost, lost, "after {later} ms");
    }
}

#[test]
fn a_stuck_batch_does_not_keep_its_segment() {
    let mut world = World::new(SimDisk::new(1), SpoolPolicy { segment_bytes: 2000, ..POLICY });
    (0..140).for_each(|_| world.store());
    world.evict();
    (0..139).for_each(|_| world.settle());
    let files = world.disk.list().unwrap().len();
    assert!(files <= 2, "{files} files for one batch");
    assert_eq!(world.drain(), [(0, Delivery::NotSent)]);
}

#[test]
fn the_oldest_are_dropped_when_there_is_no_room_and_nothing_else_is() {
    let policy = SpoolPolicy { max_bytes: 3000, segment_bytes: 500, ..POLICY };
    let mut world = World::new(SimDisk::new(1), policy);
    let mut dropped = Vec::new();
    for _ in 0..60 {
        world.store();
        for _ in 0..10 {
            for replay in std::mem::take(&mut world.replays) {
                assert_eq!(replay.lost, Some(LossReason::SpoolFull));
                dropped.push(number(&replay.gzipped));
                world.machine.handle(SpoolOrder::Settled(replay.record));
            }
            world.run();
        }
        world.evict();
    }
    assert!(dropped.is_sorted() && dropped.len() > 20, "{dropped:?}");
    let mut rest: Vec<u64> = world.drain().into_iter().map(|(number, _)| number).collect();
    rest.sort_unstable();
    assert_eq!(rest, (dropped.len() as u64..60).collect::<Vec<_>>());
}

#[test]
fn one_window_at_a_time_is_in_memory_and_segments_are_opened_when_they_are_needed() {
    let disk = SimDisk::new(1);
    let mut world = World::new(disk, SpoolPolicy { segment_bytes: 200, ..POLICY });
    (0..200).for_each(|_| world.store());
    let disk = world.disk.after_kill();
    assert!(disk.list().unwrap().len() >= 90);
    let mut after = World::new(disk, POLICY);
    after.machine.handle_demand(1);
    after.run();
    assert_eq!(after.replays.len(), 1, "the first is there");
    assert_eq!(after.calls.len(), 2, "after two reads: {:?}", after.calls);
}

#[test]
fn what_cannot_be_read_for_a_while_is_read_later() {
    let mut world = World::new(SimDisk::new(1), POLICY);
    world.store();
    world.evict();
    let calls = world.disk.calls();
    world.disk.fail(calls..calls + 1, ErrorKind::Other);
    assert!(world.drain().is_empty());
    assert_eq!(world.damaged, 0);
    world.now += Duration::from_secs(60);
    assert_eq!(world.drain(), [(0, Delivery::NotSent)]);
}

#[test]
fn damage_on_disk_is_counted_and_kept_aside() {
    let mut world = World::new(SimDisk::new(1), SpoolPolicy { segment_bytes: 1000, ..POLICY });
    (0..5).for_each(|_| world.store());
    (0..5).for_each(|_| world.evict());
    let record = world.given[2].record.unwrap();
    let name: Arc<str> = "0000000000000001.segment".into();
    world.disk.corrupt(&name, |bytes| {
        bytes[usize::try_from(record.offset).unwrap() + 70] ^= 1;
    });
    let numbers: Vec<u64> = world.drain().into_iter().map(|(number, _)| number).collect();
    assert_eq!((numbers, world.damaged), (vec![0, 1, 3, 4], 1));
    world.stop();
    let files: Vec<String> = world.disk.list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, [format!("{name}.damaged")]);
}

#[test]
fn without_syncs_a_batch_counts_as_stored_once_it_is_written() {
    let mut world = World::new(SimDisk::new(1), SpoolPolicy { sync: false, ..POLICY });
    world.store();
    assert!(world.given[0].record.is_some());
    assert!(!world.calls.iter().any(|call| call.contains("Sync(")), "{:?}", world.calls);
    let mut after = World::new(world.disk.after_kill(), POLICY);
    assert_eq!(after.drain(), [(0, Delivery::NotSent)], "a kill of the process loses nothing");
}
