//! Flushes, stops and deadlines, and what is reported on the way.

use stride_collector::{LossReason, ServerState};

use super::*;

#[test]
fn a_lane_counts_from_its_first_batch_until_it_is_given_back() {
    let mut hand = Hand::with_senders(2);
    assert!(hand.batcher.is_empty());
    hand.open(0);
    assert!(!hand.batcher.is_empty(), "a batch is open");
    hand.sealed(0, b",1".to_vec(), 1, true);
    let request = hand.request(0);
    assert!(!hand.batcher.is_empty(), "a request is under way");
    hand.respond(&request, 200);
    assert!(!hand.batcher.is_empty(), "its lane was not given back");
    hand.tidy(0);
    assert!(hand.batcher.is_empty());
}

#[test]
fn a_stop_is_finished_when_nothing_is_held_sealed_or_reported() {
    let mut hand = Hand::with_senders(2);
    assert!(!hand.batcher.is_finished(), "it was not stopped");
    hand.open(0);
    hand.tell(Input::Stop);
    let Step::Seal(seal) = hand.poll(0) else { panic!() };
    hand.sealed(0, b",1".to_vec(), 1, true);
    let request = hand.request(0);
    hand.respond(&request, 404);
    let Step::Lost(loss) = hand.poll(0) else { panic!() };
    assert!(matches!(hand.tidy(1), Step::Idle), "a loss is being reported, and lanes are sealed");
    assert!(!hand.batcher.is_finished());
    hand.batcher.handle_reported(&loss);
    assert!(!hand.batcher.is_finished(), "lanes are being sealed");
    hand.tell(Input::SealsDone(seal.ticket()));
    assert!(hand.batcher.is_finished());
    assert!(matches!(hand.poll(0), Step::Finished) && matches!(hand.poll(1), Step::Finished));
}

#[test]
fn a_stop_is_not_finished_while_a_loss_waits_or_is_reported() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.tell(Input::Stop);
    hand.respond(&request, 404);
    let Step::Lost(loss) = hand.poll(0) else { panic!() };
    assert!(matches!(hand.tidy(1), Step::Idle));
    assert!(hand.batcher.is_empty() && !hand.batcher.is_finished());
    hand.batcher.handle_reported(&loss);
    assert!(hand.batcher.is_finished());
}

/// Polls as no sender, as whoever gave up does, and gives what there was to do.
fn end(hand: &mut Hand) -> (Vec<u32>, Vec<String>) {
    let (mut sealed, mut lost) = (Vec::new(), Vec::new());
    loop {
        match hand.poll(usize::MAX) {
            Step::Seal(seal) => {
                for lane in seal.lanes() {
                    sealed.push(lane.0);
                    hand.sealed(lane.0, b",1".to_vec(), 1, true);
                }
                hand.tell(Input::SealsDone(seal.ticket()));
            }
            Step::Lost(loss) => {
                assert_eq!(loss.reason(), LossReason::Stopped);
                lost.push(format!("{} {:?}", loss.stream(), loss.delivery()));
                hand.batcher.handle_reported(&loss);
            }
            Step::Retire(lanes) => {
                lanes.iter().for_each(|it| hand.tell(Input::Retired(it.lane)));
            }
            Step::Finished => return (sealed, lost),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn after_a_deadline_the_senders_are_finished_and_whoever_gave_up_ends_the_rest() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 1);
    let _request = hand.request(0);
    hand.seal(1, 1);
    hand.open(2);
    hand.tell(Input::Stop);
    assert!(!hand.batcher.has_given_up());
    hand.batcher.give_up(hand.now);
    assert!(hand.batcher.has_given_up());
    for sender in [0, 1] {
        assert!(matches!(hand.poll(sender), Step::Finished), "sender {sender}");
    }
    assert!(!hand.batcher.is_finished());
    // The first number that no sender has is as good as any other.
    let Step::Seal(seal) = hand.poll(2) else { panic!() };
    assert_eq!(seal.lanes(), [LaneId(2)]);
    hand.sealed(2, b",1".to_vec(), 1, true);
    hand.tell(Input::SealsDone(seal.ticket()));
    let (sealed, mut lost) = end(&mut hand);
    lost.sort();
    assert!(sealed.is_empty(), "it was sealed above");
    assert_eq!(lost, ["s0 MaybeSent", "s1 NotSent", "s2 NotSent"]);
    let totals = hand.batcher.totals();
    assert_eq!((totals.accepted, totals.pending, totals.lost()), (3, 0, 3));
    assert!(hand.batcher.is_finished() && hand.batcher.is_empty());
}

#[test]
fn after_a_deadline_what_nobody_sealed_is_sealed_once() {
    let mut hand = Hand::with_senders(2);
    (0..5).for_each(|lane| hand.open(lane));
    hand.tell(Input::Flush);
    let Step::Seal(seal) = hand.poll(0) else { panic!() };
    assert_eq!(seal.lanes().len(), 5);
    // Of these, one is sealed, and one is sealed and opened again; then the sender is gone.
    for lane in [3, 4] {
        hand.sealed(lane, b",1".to_vec(), 1, true);
    }
    hand.open(4);
    hand.open(5);
    hand.tell(Input::Stop);
    hand.batcher.give_up(hand.now);
    let (mut sealed, lost) = end(&mut hand);
    sealed.sort_unstable();
    assert_eq!(sealed, [0, 1, 2, 4, 5]);
    // Lane 4 lost both as one.
    assert_eq!(lost.len(), 6);
    assert!(hand.batcher.is_finished());
}

#[test]
fn with_one_sender_reports_and_requests_take_turns() {
    let mut hand = Hand::with_senders(1);
    hand.lose(0..3);
    (10..13).for_each(|lane| hand.seal(lane, 1000));
    let mut steps = String::new();
    for _ in 0..6 {
        match hand.poll(0) {
            Step::Lost(loss) => {
                steps.push('l');
                hand.batcher.handle_reported(&loss);
            }
            Step::Send(request) => {
                steps.push('s');
                hand.respond(&request, 200);
            }
            step => panic!("{step:?}"),
        }
    }
    assert_eq!(steps, "lslsls");
}

#[test]
fn with_one_sender_and_nothing_to_send_now_reports_follow_each_other() {
    // Nothing to send, or something later.
    for is_delayed in [false, true] {
        let mut hand = Hand::with_senders(1);
        if is_delayed {
            hand.seal(0, 1);
            let request = hand.request(0);
            hand.respond(&request, 500);
        }
        hand.lose(1..4);
        for _ in 0..3 {
            let Step::Lost(loss) = hand.poll(0) else { panic!("delayed: {is_delayed}") };
            hand.batcher.handle_reported(&loss);
        }
    }
}

#[test]
fn with_more_senders_a_report_never_waits_for_a_request() {
    let mut hand = Hand::with_senders(2);
    hand.lose(0..3);
    hand.seal(10, 1);
    for _ in 0..3 {
        let Step::Lost(loss) = hand.poll(0) else { panic!() };
        hand.batcher.handle_reported(&loss);
    }
    hand.request(0);
}

#[test]
fn many_lanes_are_given_back_before_more_is_sent_and_few_after() {
    for (lanes, is_before) in [(255, false), (256, true)] {
        let mut hand = Hand::with_senders(1);
        (0..lanes).for_each(|lane| hand.seal(lane, 1));
        let request = hand.request(0);
        hand.respond(&request, 200);
        hand.seal(1000, 1);
        match hand.poll(0) {
            Step::Retire(retire) => assert!(is_before && retire.len() == 256),
            Step::Send(_) => assert!(!is_before),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn the_state_of_the_server_is_that_of_the_last_result() {
    let mut hand = Hand::with_senders(2);
    assert_eq!(hand.batcher.server(), ServerState::Healthy);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.respond_asking(&request, 503, Some(2));
    let throttled = ServerState::Throttled { until: hand.now + Duration::from_secs(2) };
    assert_eq!(hand.batcher.server(), throttled);
    hand.pass(2000);
    assert_eq!(hand.batcher.server(), throttled, "until there is another");
    assert_eq!(hand.batcher.stats(hand.now).server, ServerState::Down);
}
