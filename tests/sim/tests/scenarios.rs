//! Single kinds of trouble, each in a world of its own: what has to hold is counted exactly.

use std::time::Duration;

use stride_collector::batcher::Policy;
use stride_core::transport::{Delivery, TransportErrorKind};
use stride_sim::choice::Choices;
use stride_sim::server::{Ailment, Mode};
use stride_sim::world::World;

fn world(lanes: usize) -> World {
    World::new(Policy::default(), lanes, Choices::random(7))
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Collects one event in each of these lanes every 200 ms, for that long.
fn trickle(world: &mut World, lanes: &[usize], time: Duration) -> Vec<(usize, u64)> {
    let mut events = Vec::new();
    let end = world.time() + time;
    while world.time() < end {
        for lane in lanes {
            events.push((*lane, world.collect(*lane).unwrap()));
        }
        world.pass(ms(200)).unwrap();
    }
    events
}

#[test]
fn c1_one_event_at_fault_among_a_thousand_is_lost_alone_and_in_few_requests() {
    for bad in [0, 1, 499, 500, 998, 999] {
        let mut world = world(1);
        world.server.bad.insert(bad);
        for _ in 0..1000 {
            world.collect(0);
        }
        world.pass(Duration::from_secs(10)).unwrap();
        world.check_end().unwrap();
        assert_eq!(world.lost(), 1, "event {bad}");
        // 2·log2(1000) + 2.
        assert!(world.sent.len() <= 21, "{} requests for event {bad}", world.sent.len());
    }
}

#[test]
fn c1_a_413_halves_the_batch_and_is_remembered() {
    let mut world = world(1);
    world.server.most = 100;
    for _ in 0..1000 {
        world.collect(0);
    }
    world.pass(Duration::from_secs(10)).unwrap();
    assert_eq!(world.lost(), 0);
    let first = world.sent.len();
    for _ in 0..1000 {
        world.collect(0);
    }
    world.pass(Duration::from_secs(10)).unwrap();
    world.check_end().unwrap();
    assert_eq!((world.lost(), world.accepted()), (0, 2000));
    // Four that are refused, twice because of the second sender, and 32 parts at most.
    assert!(first <= 40, "{first} requests");
}

#[test]
fn c1_a_lane_of_which_everything_is_rejected_takes_64_requests_and_then_8() {
    let mut world = world(1);
    for _ in 0..3 {
        for _ in 0..1000 {
            let event = world.collect(0).unwrap();
            world.server.bad.insert(event);
        }
        // The lane is not given back between: something of it is always under way.
        world.pass(ms(1)).unwrap();
        world.collect(0);
        world.pass(ms(200)).unwrap();
    }
    world.pass(Duration::from_secs(10)).unwrap();
    world.check_end().unwrap();
    let requests = world.sent.len();
    // What is not at fault is lost with the rest when it was sent together with it.
    assert!((3000..=3003).contains(&world.lost()), "{} lost", world.lost());
    assert!(requests <= 64 + 8 + 8 + 6, "{requests} requests");
}

#[test]
fn c2_a_key_that_is_refused_for_a_while_loses_nothing() {
    let mut world = world(3);
    trickle(&mut world, &[0, 1, 2], ms(2000));
    world.server.mode = Mode::Unauthorized;
    let before = world.sent.len();
    trickle(&mut world, &[0, 1, 2], ms(2000));
    let probes = world.sent.len() - before;
    assert!(probes <= 20, "{probes} probes in 2 s");
    world.server.mode = Mode::Works;
    world.server.ailing.insert("s1".into(), Ailment::Forbidden);
    trickle(&mut world, &[0, 1, 2], ms(2000));
    world.server.heal();
    world.pass(Duration::from_secs(30)).unwrap();
    world.check_end().unwrap();
    assert_eq!(world.lost(), 0);
}

#[test]
fn c3_a_lane_that_fails_or_stalls_holds_up_no_other() {
    for (ailment, timeout) in [(Ailment::Fails, ms(5)), (Ailment::Stalls, ms(5000))] {
        let mut world = world(3);
        world.server.ailing.insert("s0".into(), ailment);
        // It is singled out: two shared requests fail, and then it alone.
        trickle(&mut world, &[0, 1, 2], Duration::from_secs(25));
        let events = trickle(&mut world, &[0, 1, 2], Duration::from_secs(150));
        world.pass(Duration::from_secs(1)).unwrap();
        let longest = 2 * ms(250) + timeout;
        for (lane, event) in events.into_iter().filter(|(lane, _)| *lane != 0) {
            let time = world.delivery_time(event);
            let late = time.is_none_or(|time| time > longest);
            assert!(!late, "{ailment:?}: event {event} of lane {lane} took {time:?}");
        }
    }
}

#[test]
fn c4_the_delay_of_a_lane_doubles_whatever_succeeds_elsewhere() {
    let mut world = world(2);
    world.server.ailing.insert("s0".into(), Ailment::Fails);
    trickle(&mut world, &[0, 1], Duration::from_secs(10));
    let to_it = world.sent.iter().filter(|sent| sent.streams.iter().any(|it| it == "s0")).count();
    // 0.1, 0.2, 0.4 … s, each shortened at random: about nine, and 75 without doubling.
    assert!(to_it <= 16, "{to_it} requests");
}

#[test]
fn c9_a_pause_that_the_server_asks_for_does_not_age_a_batch() {
    let mut world = world(3);
    world.server.ailing.insert("s0".into(), Ailment::Paused(150));
    trickle(&mut world, &[0, 1, 2], ms(600));
    world.server.heal();
    trickle(&mut world, &[0, 1, 2], Duration::from_secs(160));
    world.pass(Duration::from_secs(5)).unwrap();
    world.check_end().unwrap();
    assert_eq!(world.lost(), 0);
}

#[test]
fn c14_an_error_that_cannot_pass_loses_its_batch_at_once() {
    let mut world = world(2);
    world.server.ailing.insert("s0".into(), Ailment::Unsupported);
    for lane in [0, 1] {
        world.collect(lane);
        // Not in one request.
        world.pass(ms(300)).unwrap();
    }
    world.check_end().unwrap();
    assert_eq!((world.lost(), world.sent.len()), (1, 2));
}

#[test]
fn c16_a_slow_report_holds_up_one_sender() {
    let mut world = world(2);
    world.server.ailing.insert("s0".into(), Ailment::Missing);
    world.reporting = Duration::from_secs(5);
    let mut healthy = Vec::new();
    for _ in 0..20 {
        world.collect(0);
        world.pass(ms(300)).unwrap();
        healthy.push(world.collect(1).unwrap());
        world.pass(ms(300)).unwrap();
    }
    for event in healthy {
        let time = world.delivery_time(event);
        assert!(time.is_some_and(|time| time < ms(600)), "event {event} took {time:?}");
    }
}

#[test]
fn however_many_lanes_there_are_a_failing_server_gets_few_requests() {
    for mode in [Mode::Unavailable, Mode::Refuses, Mode::Unauthorized] {
        let mut world = world(10_000);
        world.server.mode = mode;
        for lane in 0..10_000 {
            world.collect(lane);
        }
        world.pass(Duration::from_secs(10)).unwrap();
        assert!(world.sent.len() <= 40, "{mode:?}: {} requests in 10 s", world.sent.len());
        world.server.heal();
        world.pass(Duration::from_secs(30)).unwrap();
        world.check_end().unwrap();
        assert_eq!(world.lost(), 0);
        assert!(world.sent.len() <= 100, "{mode:?}: {} requests in all", world.sent.len());
    }
}

#[test]
fn with_one_sender_every_other_request_is_left_to_healthy_lanes() {
    let retry_for = Duration::from_secs(3600);
    let policy = Policy { senders: 1, retry_for, ..Policy::default() };
    let mut world = World::new(policy, 4, Choices::random(7));
    for lane in 0..3 {
        world.server.ailing.insert(format!("s{lane}"), Ailment::Stalls);
    }
    // Until they are singled out, which takes some time-outs.
    trickle(&mut world, &[0, 1, 2, 3], Duration::from_secs(200));
    let events = trickle(&mut world, &[0, 1, 2, 3], Duration::from_secs(60));
    world.pass(Duration::from_secs(6)).unwrap();
    for (_, event) in events.into_iter().filter(|(lane, _)| *lane == 3) {
        let time = world.delivery_time(event);
        assert!(time.is_some_and(|time| time < ms(6000)), "event {event} took {time:?}");
    }
}

#[test]
fn what_a_dead_server_never_took_expires_and_untried_batches_do_not() {
    let mut world = world(50);
    world.server.mode = Mode::Refuses;
    for lane in 0..50 {
        world.collect(lane);
    }
    world.pass(Duration::from_secs(119)).unwrap();
    assert_eq!(world.lost(), 0);
    world.pass(Duration::from_secs(30)).unwrap();
    world.check_end().unwrap();
    assert_eq!(world.lost(), 50);
}

#[test]
fn ailments_end_as_the_batcher_is_told() {
    let outcome = stride_sim::server::Outcome::Error(TransportErrorKind::Io, Delivery::MaybeSent);
    assert_eq!(outcome.result().unwrap_err().kind(), TransportErrorKind::Io);
    assert!(outcome.is_ambiguous());
}

#[test]
fn c10_a_large_event_that_waits_is_not_overtaken_by_small_ones() {
    let mut world = world(2);
    world.limit_memory(1 << 20);
    world.server.slow = 200;
    while world.collect_padded(0, 400).is_some() {}
    // It needs nearly all of the budget, and small ones come faster than room is made for them.
    world.collect_wait(1, 900_000);
    let large = world.accepted();
    let mut small = 0;
    // The world checks that those who wait are served in order: the next that is accepted is this.
    while world.accepted() == large {
        assert!(world.time() < Duration::from_secs(10), "it is still waiting");
        assert!(world.collect_padded(0, 400).is_none(), "it was overtaken");
        world.collect_wait(0, 400);
        small += 1;
        world.pass(ms(10)).unwrap();
    }
    assert!(small > 10, "{small} small ones came meanwhile");
    world.pass(Duration::from_secs(30)).unwrap();
    world.check_end().unwrap();
    assert_eq!((world.lost(), world.accepted()), (0, large + 1 + small));
}
