//! When a batch is too old, and what for it is lost.

use stride_collector::LossReason;

use super::*;

const RETRY_FOR: u64 = 64_000;

fn policy() -> Policy {
    let retry_for = Duration::from_millis(RETRY_FOR);
    // Batches stay apart.
    Policy { retry_for, batch_size: 1, ..Policy::default() }
}

fn io() -> TransportError {
    TransportError::new(TransportErrorKind::Io, Delivery::MaybeSent)
}

/// The losses that there are by now, without trying anything.
fn losses(hand: &mut Hand) -> Vec<(String, LossReason)> {
    let mut losses = Vec::new();
    while let Step::Lost(loss) = hand.poll(usize::MAX) {
        losses.push((loss.stream().to_string(), loss.reason()));
        hand.batcher.handle_reported(&loss);
    }
    losses
}

#[test]
fn a_batch_is_lost_when_it_was_tried_for_as_long_as_it_may_be() {
    let mut hand = Hand::new(policy());
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.pass(RETRY_FOR - 1);
    hand.respond(&request, 500);
    assert_eq!(losses(&mut hand), []);
    hand.pass(1);
    assert_eq!(losses(&mut hand), [("s0".to_owned(), LossReason::Expired)]);
}

#[test]
fn a_batch_that_was_never_tried_is_lost_soon_after_a_failure_only() {
    let mut hand = Hand::new(Policy { ordered: true, ..policy() });
    hand.seal(0, 1);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.pass(2 * RETRY_FOR);
    assert_eq!(losses(&mut hand), []);
    hand.fail(&request, io());
    // It is looked at again after a 64th of the time.
    hand.pass(RETRY_FOR / 64 + 2);
    let expired = || ("s0".to_owned(), LossReason::Expired);
    assert_eq!(losses(&mut hand), [expired(), expired()]);
}

#[test]
fn a_failure_of_the_moment_in_which_a_batch_came_is_no_try_of_it() {
    let mut hand = Hand::new(Policy { ordered: true, senders: 3, ..policy() });
    hand.seal(1, 1);
    let failing = hand.request(0);
    hand.seal(0, 1);
    hand.seal(0, 1);
    let _stalling = hand.request(1);
    hand.fail(&failing, io());
    let Step::Wait(_) = hand.poll(0) else { panic!() };
    hand.pass(200);
    let retried = hand.request(0);
    assert_eq!(streams(&retried), ["s1"]);
    hand.respond(&retried, 200);
    hand.pass(2 * RETRY_FOR);
    assert!(matches!(hand.tidy(0), Step::Wait(_) | Step::Idle));
    assert_eq!(hand.batcher.totals().lost(), 0);
}

#[test]
fn without_any_time_to_retry_what_is_untried_does_not_make_the_senders_spin() {
    let mut hand = Hand::new(Policy { retry_for: Duration::ZERO, ordered: true, ..policy() });
    hand.seal(0, 1);
    hand.seal(0, 1);
    let _request = hand.request(0);
    assert!(hand.sleeps(1));
    hand.pass(1000);
    assert!(hand.sleeps(1));
}

#[test]
fn what_waits_while_the_key_is_refused_is_lost_for_that() {
    // 401 for the server, 403 for the lane.
    for (status, stream) in [(401, 1), (403, 0)] {
        let mut hand = Hand::new(Policy { ordered: true, senders: 1, ..policy() });
        hand.seal(0, 1);
        hand.seal(stream, 1);
        let request = hand.request(0);
        hand.pass(1);
        hand.respond(&request, status);
        hand.pass(2 * RETRY_FOR);
        let mut losses = losses(&mut hand);
        losses.sort_by(|left, right| left.0.cmp(&right.0));
        let expected = [0, stream].map(|lane| (format!("s{lane}"), LossReason::Unauthorized));
        assert_eq!(losses, expected, "{status}");
    }
}

#[test]
fn a_pause_that_was_over_before_excuses_nothing() {
    let mut hand = Hand::new(Policy { senders: 1, ..policy() });
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.respond_asking(&request, 503, Some(100));
    hand.pass(100_000);
    let request = hand.request(0);
    hand.respond(&request, 200);
    hand.seal(1, 1);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    hand.pass(RETRY_FOR);
    hand.respond(&request, 500);
    assert_eq!(losses(&mut hand), [("s1".to_owned(), LossReason::Expired)]);
}

/// A lane that the server asks for a pause for the second time, after another one worked: the pause
/// is this lane's alone. Gives the batcher at the time of that response.
fn held_alone(seconds: u64) -> Hand {
    let mut hand = Hand::new(Policy { senders: 1, ..policy() });
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.respond_asking(&request, 503, Some(1));
    hand.seal(1, 1);
    hand.pass(1000);
    // Lanes take turns at probing.
    loop {
        let Step::Send(request) = hand.tidy(0) else { panic!() };
        if streams(&request) == ["s1"] {
            hand.respond(&request, 200);
            break;
        }
        hand.respond(&request, 500);
        hand.pass(1000);
    }
    hand.pass(10_000);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    assert_eq!(streams(&request), ["s0"]);
    hand.respond_asking(&request, 503, Some(seconds));
    assert_eq!(hand.batcher.server(), stride_collector::ServerState::Healthy);
    hand
}

#[test]
fn a_pause_of_one_lane_excuses_what_waited_for_it() {
    let mut hand = held_alone(100);
    hand.seal(0, 1);
    hand.pass(RETRY_FOR);
    assert_eq!(losses(&mut hand), [], "both were to wait for 100 s");
    hand.pass(36_000);
    let request = hand.request(0);
    hand.respond(&request, 500);
    // What came before the pause may wait for as long again.
    hand.pass(RETRY_FOR - 36_000 - 12_000);
    assert_eq!(losses(&mut hand), []);
    hand.pass(100_000);
    assert!(!losses(&mut hand).is_empty());
}

#[test]
fn a_pause_of_one_lane_excuses_nothing_that_came_after_it() {
    let mut hand = held_alone(10);
    hand.pass(10_000);
    let request = hand.request(0);
    hand.seal(0, 1);
    hand.respond(&request, 500);
    hand.pass(1000);
    // The first gets through and with it the trouble ends; the second fails.
    let request = hand.request(0);
    hand.respond(&request, 200);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    hand.pass(RETRY_FOR);
    hand.respond(&request, 500);
    assert_eq!(losses(&mut hand), [("s0".to_owned(), LossReason::Expired)]);
}
