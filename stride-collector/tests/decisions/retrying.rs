//! When what failed is sent again: a lane in trouble, and a server that is not healthy.

use std::io;

use stride_collector::{LossReason, ServerState};

use super::*;

const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Until when this sender has nothing to do.
fn until(hand: &mut Hand, sender: usize) -> Instant {
    match hand.tidy(sender) {
        Step::Wait(until) => until,
        step => panic!("{step:?} instead of a wait"),
    }
}

/// Brings each of these lanes into trouble: a request of its own failed.
fn trouble(hand: &mut Hand, lanes: impl IntoIterator<Item = u32>) {
    let mut requests = Vec::new();
    for lane in lanes {
        hand.seal(lane, 1);
        requests.push(hand.request(0));
    }
    for request in requests {
        hand.respond(&request, 500);
    }
}

#[test]
fn one_sender_is_left_to_lanes_in_good_health() {
    for (senders, trials) in [(2, 1), (3, 2), (4, 3)] {
        let mut hand = Hand::with_senders(senders);
        trouble(&mut hand, 0..5);
        hand.pass(1000);
        hand.seal(9, 1);
        let sent: Vec<_> = (0..senders).map(|it| streams(&hand.request(it))[0].clone()).collect();
        let in_trouble = sent.iter().take_while(|stream| *stream != "s9").count();
        assert_eq!((in_trouble, &*sent[trials]), (trials, "s9"), "{sent:?}");
        assert!(hand.sleeps(0), "the other lanes in trouble wait for their turn");
    }
}

#[test]
fn with_one_sender_lanes_in_trouble_and_others_take_turns() {
    let mut hand = Hand::new(Policy { senders: 1, batch_size: 1, ..Policy::default() });
    trouble(&mut hand, 0..3);
    hand.pass(1000);
    (7..10).for_each(|lane| hand.seal(lane, 1));
    let mut turns = Vec::new();
    for _ in 0..6 {
        let Step::Send(request) = hand.tidy(0) else { panic!() };
        let stream = streams(&request)[0].clone();
        turns.push(["s0", "s1", "s2"].contains(&&*stream));
        hand.respond(&request, 200);
    }
    assert_eq!(turns, [true, false, true, false, true, false]);
}

#[test]
fn a_lane_keeps_its_turn_when_more_comes_for_it() {
    let mut hand = Hand::new(Policy { senders: 1, batch_size: 1, ..Policy::default() });
    for lane in [0, 1, 0, 0] {
        hand.seal(lane, 1);
    }
    let turns = [(); 4].map(|()| {
        let Step::Send(request) = hand.tidy(0) else { panic!() };
        hand.respond(&request, 200);
        streams(&request)[0].clone()
    });
    assert_eq!(turns, ["s0", "s1", "s0", "s0"]);
}

#[test]
fn lanes_that_fail_together_do_not_come_back_together() {
    for seed in [0, u64::MAX] {
        let mut hand = Hand::new(Policy { senders: 2, seed, ..Policy::default() });
        trouble(&mut hand, 0..3);
        let mut delays = Vec::new();
        for _ in 0..3 {
            let due = until(&mut hand, 0);
            assert!(due > hand.now && due <= hand.now + FIRST_DELAY);
            delays.push(due);
            hand.now = due;
            let request = hand.request(0);
            hand.respond(&request, 200);
        }
        delays.dedup();
        assert_eq!(delays.len(), 3, "seed {seed}");
    }
}

#[test]
fn a_lane_that_fails_alone_does_not_make_the_server_suspect() {
    let retry_for = Duration::from_secs(3600);
    let mut hand = Hand::new(Policy { senders: 1, retry_for, ..Policy::default() });
    trouble(&mut hand, [0]);
    for _ in 0..12 {
        assert_eq!(hand.batcher.server(), ServerState::Healthy);
        hand.pass(10_000);
        let request = hand.request(0);
        hand.respond(&request, 500);
    }
    // That the lane's delay has grown says nothing of the server's.
    hand.seal(1, 1);
    let request = hand.request(0);
    assert_eq!(streams(&request), ["s1"]);
    hand.refuse(&request);
    assert_eq!(hand.batcher.server(), ServerState::Down);
    let due = until(&mut hand, 0);
    assert!(due <= hand.now + FIRST_DELAY, "{:?}", due - hand.now);
}

#[test]
fn eight_failures_of_several_lanes_make_the_server_suspect() {
    let mut hand = Hand::with_senders(9);
    for lane in 0..8 {
        hand.seal(lane, 1);
        let request = hand.request(0);
        assert_eq!(hand.batcher.server(), ServerState::Healthy);
        hand.respond(&request, 500);
    }
    assert_eq!(hand.batcher.server(), ServerState::Down);
}

#[test]
fn requests_of_one_outage_that_fail_together_count_once() {
    let mut hand = Hand::with_senders(3);
    let mut requests = Vec::new();
    for lane in 0..3 {
        hand.seal(lane, 1);
        requests.push(hand.request(lane as usize));
    }
    hand.refuse(&requests[0]);
    hand.refuse(&requests[1]);
    hand.refuse(&requests[2]);
    let due = until(&mut hand, 0);
    assert!(due <= hand.now + FIRST_DELAY);
    // The same with one only.
    let mut other = Hand::with_senders(3);
    other.seal(0, 1);
    let request = other.request(0);
    other.refuse(&request);
    assert_eq!(due - hand.now, until(&mut other, 0) - other.now);
}

#[test]
fn when_the_key_is_refused_the_lane_is_not_to_blame() {
    let mut hand = Hand::with_senders(2);
    (0..2).for_each(|lane| hand.seal(lane, 1000));
    let requests = [0, 1].map(|sender| hand.request(sender));
    hand.respond(&requests[0], 401);
    assert_eq!(hand.batcher.server(), ServerState::Paused);
    assert!(hand.sleeps(0), "nothing is sent while another request is under way");
    hand.respond(&requests[1], 200);
    assert_eq!(hand.batcher.server(), ServerState::Healthy);
    // It has no delay of its own.
    assert_eq!(streams(&hand.request(0)), ["s0"]);
}

#[test]
fn only_another_lanes_success_shows_that_a_pause_is_meant_for_one_lane() {
    for (other, is_alone) in [(1, true), (0, false)] {
        let mut hand = Hand::new(Policy { senders: 1, batch_size: 1, ..Policy::default() });
        hand.seal(0, 1);
        let request = hand.request(0);
        hand.respond_asking(&request, 503, Some(2));
        hand.seal(1, 1);
        // It holds up everybody once.
        assert_eq!(until(&mut hand, 0), hand.now + Duration::from_secs(2));
        hand.pass(2000);
        // Both are tried one after the other; one of them works.
        for _ in 0..2 {
            let request = hand.request(0);
            let is_other = streams(&request) == [format!("s{other}")];
            hand.respond(&request, if is_other { 200 } else { 500 });
            hand.pass(1000);
        }
        // Another pause for lane 0.
        hand.seal(0, 1);
        let Step::Send(request) = hand.tidy(0) else { panic!() };
        hand.respond_asking(&request, 503, Some(2));
        let throttled = matches!(hand.batcher.server(), ServerState::Throttled { .. });
        assert_eq!(throttled, !is_alone || streams(&request) != ["s0"], "lane {other} worked");
    }
}

#[test]
fn what_an_error_means_depends_on_its_kind() {
    use TransportErrorKind::*;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the certificate is not trusted");
    let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
    let of = |kind| TransportError::new(kind, Delivery::NotSent);
    let unreachable = [Connect, ConnectTimeout, Proxy, Resolve].map(of);
    let unreachable = unreachable.into_iter().chain([of(Tls).with_source(reset())]);
    let transient = [HeadTimeout, IdleTimeout, TotalTimeout, Io, Protocol].map(of);
    let permanent = [of(Unsupported), of(Tls), of(Tls).with_source(invalid())];
    let all = unreachable
        .map(|error| (error, ServerState::Down, 0))
        .chain(transient.map(|error| (error, ServerState::Healthy, 0)))
        .chain(permanent.map(|error| (error, ServerState::Healthy, 1)));
    for (error, state, lost) in all {
        let mut hand = Hand::with_senders(1);
        hand.seal(0, 1);
        let request = hand.request(0);
        hand.fail(&request, error.clone());
        assert_eq!(hand.batcher.server(), state, "{error:?}");
        let undeliverable = LossReason::Undeliverable;
        let count = hand.batcher.totals().lost_by(undeliverable, Delivery::NotSent);
        assert_eq!(count, lost, "{error:?}");
    }
}
