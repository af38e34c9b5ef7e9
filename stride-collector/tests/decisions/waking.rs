//! Which sender sleeps until when, and which one is woken for what.

use super::*;

fn wakes_at(step: &Step) -> Instant {
    match step {
        Step::Wait(until) => *until,
        step => panic!("{step:?} instead of a wait"),
    }
}

#[test]
fn one_sender_watches_the_clock_and_the_others_sleep() {
    let mut hand = Hand::with_senders(3);
    assert!(hand.is_idle(1), "nothing is to be done");
    assert_eq!(hand.batcher.wake_when_opened(), Some(1), "nobody watches");
    hand.open(0);
    let due = hand.now + Duration::from_millis(250);
    assert_eq!(hand.batcher.wake(), Some(1), "the only one that sleeps has to watch");
    assert_eq!(wakes_at(&hand.poll(1)), due);
    assert!(hand.is_idle(0) && hand.is_idle(2), "one that watches is enough");
    assert_eq!(hand.batcher.wake(), None);
    assert_eq!(hand.batcher.wake_when_opened(), None);
    assert_eq!(hand.batcher.wake_when_sealed(), Some(0), "not the one that watches");
    hand.pass(250);
    assert!(matches!(hand.poll(1), Step::Seal(_)));
    assert_eq!(hand.batcher.wake_when_opened(), Some(0), "nobody watches any longer");
}

#[test]
fn nobody_is_woken_when_all_are_awake_or_nothing_is_to_be_done() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 1);
    assert_eq!((hand.batcher.wake(), hand.batcher.wake_when_sealed()), (None, None));
    let request = hand.request(0);
    assert!(hand.sleeps(1));
    assert_eq!(hand.batcher.wake(), None, "what there is is under way");
    hand.respond(&request, 200);
    hand.tidy(0);
    assert_eq!(hand.batcher.wake(), None, "nothing is left");
}

/// Sender 0 watches the clock, sender 1 sleeps without an alarm, sender 2 has sent what lane 1 holds.
fn with_a_request_under_way() -> (Hand, Request) {
    let flush_interval = Duration::from_secs(10);
    let mut hand = Hand::new(Policy { senders: 3, flush_interval, ..Policy::default() });
    hand.open(0);
    hand.seal_long(1, 100);
    let request = hand.request(2);
    wakes_at(&hand.poll(0));
    assert!(hand.is_idle(1));
    assert_eq!(hand.batcher.wake(), None);
    (hand, request)
}

#[test]
fn work_wakes_a_sender_that_does_not_watch_the_clock() {
    // A lane to give back, a loss, a loss with another one under way, and a batch to send.
    for status in [200, 404] {
        let (mut hand, request) = with_a_request_under_way();
        hand.respond(&request, status);
        assert_eq!(hand.batcher.wake(), Some(1), "after {status}");
    }
    let (mut hand, _) = with_a_request_under_way();
    hand.seal(2, 1);
    assert_eq!(hand.batcher.wake(), Some(1), "for a batch");
    let (mut hand, _) = with_a_request_under_way();
    hand.tell(Input::Flush);
    assert_eq!(hand.batcher.wake(), Some(1), "for an open batch that is flushed");
}

#[test]
fn what_is_left_at_a_deadline_wakes_a_sender_and_nothing_else_does() {
    for is_waiting in [false, true] {
        let mut hand = Hand::with_senders(1);
        if is_waiting {
            hand.seal(0, 1);
            let request = hand.request(0);
            hand.respond(&request, 500);
        }
        assert!(hand.sleeps(0));
        hand.batcher.give_up(hand.now);
        assert_eq!(hand.batcher.wake(), is_waiting.then_some(0));
    }
}

#[test]
fn a_batch_to_split_wakes_a_sender() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 2);
    let request = hand.request(0);
    assert!(hand.sleeps(1));
    hand.respond(&request, 413);
    assert_eq!(hand.batcher.wake(), Some(1));
    assert!(matches!(hand.poll(1), Step::Split(_)));
}

#[test]
fn a_lane_to_give_back_wakes_a_sender() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 2);
    let request = hand.request(0);
    assert!(hand.sleeps(1));
    hand.respond(&request, 200);
    assert_eq!(hand.batcher.wake(), Some(1));
    assert!(matches!(hand.poll(1), Step::Retire(_)));
}

#[test]
fn the_end_wakes_the_senders_one_by_one() {
    let mut hand = Hand::with_senders(2);
    assert!(hand.is_idle(0) && hand.is_idle(1));
    hand.tell(Input::Stop);
    assert_eq!(hand.batcher.wake(), Some(0));
    assert!(matches!(hand.poll(0), Step::Finished));
    assert_eq!(hand.batcher.wake(), Some(1));
    assert!(matches!(hand.poll(1), Step::Finished));
    assert_eq!(hand.batcher.wake(), None);
}

#[test]
fn losses_are_reported_one_at_a_time_and_the_next_wakes_a_sender() {
    let mut hand = Hand::with_senders(2);
    hand.lose([0, 1]);
    let Step::Lost(first) = hand.poll(0) else { panic!() };
    // Both lanes are empty.
    assert!(
        matches!(hand.tidy(1), Step::Wait(_) | Step::Idle),
        "another sender does not report the second"
    );
    assert_eq!(hand.batcher.wake(), None, "it waits for the first");
    hand.batcher.handle_reported(&first);
    assert_eq!(hand.batcher.wake(), Some(1));
    let Step::Lost(second) = hand.poll(1) else { panic!() };
    assert_eq!(&**second.stream(), "s1");
    hand.batcher.handle_reported(&second);
    assert!(hand.is_idle(1));
    assert_eq!(hand.batcher.wake(), None);
}

#[test]
fn what_is_due_before_anybody_wakes_changes_the_alarm_of_the_one_that_watches() {
    let (mut hand, request) = with_a_request_under_way();
    hand.respond(&request, 503);
    // The next attempt is due within 100 ms.
    assert_eq!(hand.batcher.wake(), Some(0));
    let until = wakes_at(&hand.poll(0));
    assert!(until > hand.now && until <= hand.now + Duration::from_millis(100));
    assert_eq!(hand.batcher.wake(), None);
}

#[test]
fn a_batch_that_has_to_wait_wakes_a_sender_to_compress_it_if_it_is_worth_it() {
    for (length, is_worth_it) in [(2047, false), (2048, true), (5000, true)] {
        let mut hand = Hand::with_senders(2);
        hand.seal(0, 1);
        let request = hand.request(0);
        hand.refuse(&request);
        wakes_at(&hand.poll(0));
        assert!(hand.is_idle(1));
        hand.seal_long(1, length);
        assert_eq!(hand.batcher.wake(), is_worth_it.then_some(1), "{length} bytes");
        assert_eq!(matches!(hand.poll(1), Step::Compress(_)), is_worth_it, "{length} bytes");
        assert!(!matches!(hand.poll(1), Step::Compress(_)), "once is enough");
    }
}
