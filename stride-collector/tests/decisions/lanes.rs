//! Each lane's order, how long it stays, and when its open batches are sealed.

use super::*;

fn sealed_lanes(step: Step) -> Vec<u32> {
    match step {
        Step::Seal(seal) => seal.lanes().iter().map(|lane| lane.0).collect(),
        step => panic!("{step:?} instead of lanes to seal"),
    }
}

#[test]
fn the_oldest_event_is_as_old_as_the_oldest_batch_that_is_pending() {
    let mut hand = Hand::with_senders(4);
    let mut requests = Vec::new();
    for lane in 0..3 {
        hand.seal(lane, 1);
        requests.push(hand.request(lane as usize));
        hand.pass(1000);
    }
    for (request, oldest) in requests.iter().zip([Some(2), Some(1), None]) {
        hand.respond(request, 200);
        assert_eq!(hand.batcher.stats(hand.now).oldest, oldest.map(Duration::from_secs));
    }
}

#[test]
fn of_batches_of_the_same_moment_the_last_counts_too() {
    let mut hand = Hand::with_senders(4);
    let requests = [0, 1].map(|lane| {
        hand.seal(lane, 3);
        hand.request(0)
    });
    hand.pass(500);
    for (request, oldest) in requests.iter().zip([Some(Duration::from_millis(500)), None]) {
        hand.respond(request, 200);
        assert_eq!(hand.batcher.stats(hand.now).oldest, oldest);
    }
}

#[test]
fn what_is_opened_after_a_press_or_a_flush_stays_open() {
    for input in [Input::Press, Input::Flush] {
        let mut hand = Hand::with_senders(1);
        hand.open(0);
        hand.tell(input);
        hand.open(1);
        assert_eq!(sealed_lanes(hand.poll(0)), [0]);
        assert!(hand.sleeps(0), "lane 1 has time");
        hand.pass(250);
        assert_eq!(sealed_lanes(hand.poll(0)), [1]);
    }
}

#[test]
fn a_flush_does_not_wait_for_what_is_opened_after_it() {
    let mut hand = Hand::with_senders(1);
    hand.open(0);
    hand.tell(Input::Flush);
    hand.open(1);
    let Step::Seal(seal) = hand.poll(0) else { panic!() };
    hand.sealed(0, b",1".to_vec(), 1, true);
    hand.tell(Input::SealsDone(seal.ticket()));
    assert_eq!(hand.batcher.settled_flushes(), 0);
    let request = hand.request(0);
    hand.respond(&request, 200);
    assert!(matches!(hand.tidy(0), Step::Wait(_)));
    assert_eq!(hand.batcher.settled_flushes(), 1);
}

#[test]
fn a_flush_waits_until_all_slices_of_lanes_are_sealed() {
    let mut hand = Hand::with_senders(2);
    (0..257).for_each(|lane| hand.open(lane));
    hand.tell(Input::Flush);
    let Step::Seal(first) = hand.poll(0) else { panic!() };
    let Step::Seal(second) = hand.poll(1) else { panic!() };
    assert_eq!((first.lanes().len(), second.lanes().len()), (256, 1));
    for seal in [&first, &second] {
        for lane in seal.lanes() {
            hand.sealed(lane.0, b",1".to_vec(), 1, true);
        }
    }
    hand.tell(Input::SealsDone(first.ticket()));
    let request = hand.request(0);
    assert_eq!(events(&request), 257);
    hand.respond(&request, 200);
    hand.tidy(0);
    assert_eq!(hand.batcher.settled_flushes(), 0, "one slice may still be under way");
    hand.tell(Input::SealsDone(second.ticket()));
    assert_eq!(hand.batcher.settled_flushes(), 1);
}

#[test]
fn lanes_are_given_back_in_slices() {
    let mut hand = Hand::with_senders(1);
    (0..257).for_each(|lane| hand.seal(lane, 1));
    let request = hand.request(0);
    hand.respond(&request, 200);
    for count in [256, 1] {
        let Step::Retire(lanes) = hand.poll(0) else { panic!() };
        assert_eq!(lanes.len(), count);
        lanes.iter().for_each(|it| hand.tell(Input::Retired(it.lane)));
    }
    assert!(hand.batcher.is_empty());
}

#[test]
fn a_lane_with_an_open_batch_is_not_given_back() {
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.open(0);
    hand.respond(&request, 200);
    assert!(matches!(hand.poll(0), Step::Wait(_)));
    hand.pass(250);
    assert_eq!(sealed_lanes(hand.poll(0)), [0]);
    hand.sealed(0, b",1".to_vec(), 1, true);
    let request = hand.request(0);
    hand.respond(&request, 200);
    let Step::Retire(lanes) = hand.poll(0) else { panic!() };
    assert_eq!((lanes[0].lane, lanes[0].sealed), (LaneId(0), 2));
}

#[test]
fn batches_that_come_back_in_any_order_are_sent_in_theirs() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut hand = Hand::new(Policy { senders: 4, batch_size: 5, ..Policy::default() });
        for count in [5, 4, 3, 4] {
            hand.seal(0, count);
        }
        let requests = [0, 1, 2].map(|sender| hand.request(sender));
        for index in order {
            hand.respond(&requests[index], 500);
        }
        for count in [5, 4, 3, 4] {
            hand.pass(1000);
            let request = hand.request(0);
            assert_eq!(events(&request), count, "{order:?}");
            hand.respond(&request, 200);
        }
    }
}

#[test]
fn sealed_batches_count_over_all_the_times_that_a_lane_is_used() {
    let mut hand = Hand::with_senders(1);
    for sealed in 1..=3 {
        hand.seal(0, 1);
        let request = hand.request(0);
        hand.respond(&request, 200);
        let Step::Retire(lanes) = hand.poll(0) else { panic!() };
        assert_eq!((lanes[0].lane, lanes[0].sealed), (LaneId(0), sealed));
        hand.tell(Input::Retired(LaneId(0)));
        assert!(hand.batcher.is_empty());
    }
}

#[test]
fn a_lane_that_is_given_back_too_early_loses_nothing() {
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 1);
    hand.tell(Input::Retired(LaneId(0)));
    assert!(!hand.batcher.is_empty());
    let request = hand.request(0);
    hand.respond(&request, 200);
    assert!(matches!(hand.poll(0), Step::Retire(_)));
}
