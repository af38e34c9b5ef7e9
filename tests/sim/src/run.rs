//! One run: a random program against a random server, first under faults, then without.

use std::time::Duration;

use stride_collector::batcher::{Policy, SpoolMode};

use crate::choice::Choices;
use crate::server::{Ailment, Mode};
use crate::subscriber::Subscriber;
use crate::world::{Checked, Ending, World};

const STEPS: u32 = 200;

/// After all faults have ended, everything has to end within this: the longest pause that a server
/// may ask for, the longest delay, and what is left to send.
const LIVENESS: Duration = Duration::from_secs(300 + 10 + 120);

/// A server that fails as a whole may get so many requests in ten seconds: a burst until it is known
/// to fail, then probes with delays that double.
const MOST_WHILE_DOWN: usize = 60;

/// Which kinds of faults a run has; each seed has some of them off.
#[derive(Debug, Clone, Copy)]
struct Switches {
    flaky: bool,
    pauses: bool,
    outages: bool,
    ailments: bool,
    bad_events: bool,
    small_server: bool,
    slow: bool,
    slow_reports: bool,
    slow_senders: bool,
    stop: bool,
    small_budget: bool,
    subscribes: bool,
    jumps: bool,
    ordered: bool,
    spool: bool,
    disk_fails: bool,
    restarts: bool,
}

/// Runs a world by these decisions.
///
/// # Errors
///
/// What went wrong, and all decisions up to there.
pub fn run(choices: Choices) -> Result<usize, (String, Vec<u32>)> {
    let (mut world, switches) = build(choices);
    finish(&mut world, switches)
}

/// The same, and writes down what happens.
#[must_use]
pub fn trace(choices: Choices) -> Vec<String> {
    let (mut world, switches) = build(choices);
    world.log = Some(Vec::new());
    let result = finish(&mut world, switches);
    let mut log = world.log.take().unwrap_or_default();
    log.extend(result.err().map(|(error, _)| error));
    log
}

fn finish(world: &mut World, switches: Switches) -> Result<usize, (String, Vec<u32>)> {
    match program(world, switches) {
        Ok(()) => Ok(world.sent.len()),
        Err(error) => Err((error, world.choices.taken().to_vec())),
    }
}

fn build(mut choices: Choices) -> (World, Switches) {
    let mut on = || choices.pick(2) == 1;
    let switches = Switches {
        flaky: on(),
        pauses: on(),
        outages: on(),
        ailments: on(),
        bad_events: on(),
        small_server: on(),
        slow: on(),
        slow_reports: on(),
        slow_senders: on(),
        stop: on(),
        small_budget: on(),
        subscribes: on(),
        jumps: on(),
        ordered: on(),
        spool: on(),
        disk_fails: on(),
        restarts: on(),
    };
    let policy = Policy {
        senders: choices.of(&[2, 1, 3]),
        batch_size: choices.of(&[8, 1, 3, 40]),
        batch_bytes: choices.of(&[1 << 20, 100]),
        flush_interval: Duration::from_millis(choices.of(&[250, 10, 5000])),
        retry_for: Duration::from_secs(choices.of(&[120, 2])),
        ordered: switches.ordered && !switches.spool,
        spool: switches.spool.then(|| choices.of(&[SpoolMode::WriteAhead, SpoolMode::Overflow])),
        seed: u64::from(choices.pick(1000)),
    };
    let lanes = choices.of(&[3, 1, 2, 20]);
    let mut world = World::new(policy, lanes, choices);
    if switches.spool {
        world.add_spool();
    }
    if switches.flaky {
        world.server.flaky = world.choices.of(&[5, 30, 60]);
        world.server.asks_for_pauses = switches.pauses;
    }
    if switches.small_server {
        world.server.most = world.choices.of(&[5, 2, 1]);
    }
    if switches.slow {
        world.server.slow = world.choices.of(&[50, 3000]);
    }
    if switches.small_budget {
        let bytes = world.choices.of(&[20_000, 3000]);
        world.limit_memory(bytes);
    }
    if switches.slow_reports {
        world.reporting = Duration::from_millis(world.choices.of(&[100, 5000]));
    }
    if switches.slow_senders {
        world.hesitation = Duration::from_millis(world.choices.of(&[1, 50, 1000]));
    }
    (world, switches)
}

fn program(world: &mut World, switches: Switches) -> Checked {
    let lanes = u32::try_from(world.lane_count()).unwrap_or(1);
    for _ in 0..STEPS {
        match world.choices.pick(26) {
            0..8 => collect(world, switches),
            8..15 => {
                let time = world.choices.of(&[10, 1, 100, 300, 1000, 20_000]);
                world.pass(Duration::from_millis(time))?;
            }
            15 => world.flush(),
            16 => world.press(),
            17 if switches.ailments => {
                let stream = format!("s{}", world.choices.pick(lanes));
                let ailment = world.choices.of(&[
                    None,
                    Some(Ailment::Fails),
                    Some(Ailment::Stalls),
                    Some(Ailment::Forbidden),
                    Some(Ailment::Missing),
                    Some(Ailment::Limited),
                ]);
                match ailment {
                    Some(ailment) => world.server.ailing.insert(stream, ailment),
                    None => world.server.ailing.remove(&stream),
                };
            }
            18 if switches.outages => {
                let mode = [
                    Mode::Works,
                    Mode::Refuses,
                    Mode::Unavailable,
                    Mode::Unauthorized,
                    Mode::Stalls,
                ];
                world.server.mode = world.choices.of(&mode);
            }
            19 if switches.stop && world.choices.happens(5) => world.stop(),
            20 if switches.small_budget => {
                for _ in 0..=world.choices.pick(3) {
                    let lane = world.choices.pick(lanes) as usize;
                    let padding = world.choices.of(&[0, 200, 2000]);
                    world.collect_wait(lane, padding);
                }
            }
            21 if switches.small_budget => {
                let index = world.choices.pick(4);
                world.leave(index);
            }
            22 if switches.subscribes => subscribe(world)?,
            23 if switches.jumps && world.choices.happens(30) => {
                let time = world.choices.of(&[1, 60, 3600]);
                world.jump(Duration::from_secs(time))?;
            }
            24 if switches.spool && switches.disk_fails => world.fail_disk(),
            25 if switches.spool && switches.restarts && world.choices.happens(30) => {
                let ending = world.choices.of(&[Ending::Killed, Ending::Crashed]);
                world.restart(ending)?;
            }
            _ => world.pass(Duration::ZERO)?,
        }
    }
    if switches.stop && world.choices.happens(30) {
        world.give_up()?;
        // What was being reported then.
        world.pass(Duration::from_secs(20))?;
        if !switches.spool {
            return world.check_end();
        }
        world.restart(Ending::Killed)?;
    }
    requests_are_few(world)?;
    world.server.heal();
    world.heal_disk();
    if world.is_stopped() && switches.spool {
        // What is on disk is the next collector's.
        world.pass(LIVENESS)?;
        world.restart(Ending::Killed)?;
    }
    (world.reporting, world.hesitation) = (Duration::ZERO, Duration::ZERO);
    if let Some(subscriber) = &mut world.subscriber {
        subscriber.calm();
    }
    world.pass(LIVENESS)?;
    if let Some(subscriber) = &world.subscriber
        && !subscriber.is_over()
        && !subscriber.is_connected()
    {
        return Err("a subscriber is not connected, though the server works".to_owned());
    }
    world.check_end()
}

fn collect(world: &mut World, switches: Switches) {
    let lanes = u32::try_from(world.lane_count()).unwrap_or(1);
    let lane = world.choices.pick(lanes) as usize;
    for _ in 0..=world.choices.pick(6) {
        let event = world.collect(lane);
        if let Some(event) = event
            && switches.bad_events
            && world.choices.happens(5)
        {
            world.server.bad.insert(event);
        }
    }
}

/// Subscribes, or sometimes stops the subscription that there is.
fn subscribe(world: &mut World) -> Checked {
    let now = world.now();
    match &mut world.subscriber {
        Some(subscriber) if !subscriber.is_over() => {
            if world.choices.happens(20) {
                subscriber.stop(now)?;
            }
        }
        ended => {
            let before = ended.take();
            *ended = Some(Subscriber::new(before, now, &mut world.choices)?);
        }
    }
    Ok(())
}

/// A server that is down gets few requests, however much there is to send.
fn requests_are_few(world: &mut World) -> Checked {
    if world.lane_count() == 0 || world.choices.pick(4) > 0 {
        return Ok(());
    }
    world.server.ailing.clear();
    world.server.flaky = 0;
    world.server.mode = world.choices.of(&[Mode::Unavailable, Mode::Refuses]);
    for _ in 0..2 {
        let before = world.sent.len();
        for lane in 0..world.lane_count() {
            world.collect(lane);
        }
        world.pass(Duration::from_secs(10))?;
        let requests = world.sent.len() - before;
        if requests > MOST_WHILE_DOWN {
            return Err(format!("{requests} requests in 10 s to a server that is down"));
        }
    }
    Ok(())
}

/// Searches all histories of two lanes, two senders and three events, with a server that decides
/// each request's fate among four.
///
/// # Errors
///
/// What went wrong, and the decisions that lead there.
pub fn exhaust(limit: usize) -> Result<usize, (String, Vec<u32>)> {
    let mut next = Some(Vec::new());
    let mut count = 0;
    while let Some(taken) = next.filter(|_| count < limit) {
        let mut world = World::new(
            Policy { batch_size: 2, retry_for: Duration::from_secs(2), ..Policy::default() },
            2,
            Choices::recorded(taken),
        );
        world.server.chosen = 3;
        world.compresses = 1;
        let result = small(&mut world);
        if let Err(error) = result {
            return Err((error, world.choices.taken().to_vec()));
        }
        count += 1;
        next = world.choices.next();
    }
    Ok(count)
}

fn small(world: &mut World) -> Checked {
    for _ in 0..3 {
        let lane = world.choices.pick(2) as usize;
        world.collect(lane);
        match world.choices.pick(3) {
            0 => {}
            1 => world.pass(Duration::from_millis(300))?,
            _ => world.flush(),
        }
    }
    world.pass(LIVENESS)?;
    world.check_end()
}
