//! Which lanes share a request.

use super::*;

/// Sends until nothing is to be sent for now, gets this status each time, and gives the streams.
fn send_all(hand: &mut Hand, status: u16) -> Vec<Vec<String>> {
    let mut sent = Vec::new();
    while let Step::Send(request) = hand.tidy(0) {
        sent.push(streams(&request));
        hand.respond(&request, status);
    }
    sent
}

#[test]
fn a_shared_request_that_is_refused_is_sent_again_by_halves() {
    let mut hand = Hand::with_senders(1);
    (0..5).for_each(|lane| hand.seal(lane, 1));
    let sizes: Vec<usize> = send_all(&mut hand, 404).iter().map(Vec::len).collect();
    assert_eq!(sizes, [5, 2, 2, 1, 1, 1, 1, 1]);
    assert_eq!(hand.batcher.totals().lost(), 5);
}

#[test]
fn a_shared_request_that_fails_twice_is_sent_again_by_halves() {
    let mut hand = Hand::with_senders(1);
    (0..4).for_each(|lane| hand.seal(lane, 1));
    let sizes: Vec<usize> = send_all(&mut hand, 500).iter().map(Vec::len).collect();
    // Then each is in trouble alone, or the server is.
    assert_eq!(sizes[..6], [4, 4, 2, 2, 2, 2]);
    assert!(sizes[6..].iter().all(|size| *size == 1), "{sizes:?}");
}

#[test]
fn a_lane_that_got_a_success_shares_with_all_again() {
    let mut hand = Hand::with_senders(1);
    (0..4).for_each(|lane| hand.seal(lane, 1));
    let request = hand.request(0);
    hand.respond(&request, 404);
    assert_eq!(send_all(&mut hand, 200).len(), 2);
    (0..4).for_each(|lane| hand.seal(lane, 1));
    assert_eq!(send_all(&mut hand, 200).len(), 1);
}

#[test]
fn a_lane_in_trouble_shares_with_nobody() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.respond(&request, 500);
    hand.pass(60_000);
    (1..3).for_each(|lane| hand.seal(lane, 1));
    let sent = [0, 1].map(|sender| hand.request(sender)).map(|request| streams(&request));
    assert_eq!(sent, [vec!["s0"], vec!["s1", "s2"]]);
}

#[test]
fn a_lane_that_is_narrowed_down_shares_with_nobody() {
    let mut hand = Hand::with_senders(2);
    hand.seal(0, 4);
    let request = hand.request(0);
    hand.respond(&request, 400);
    let Step::Split(split) = hand.poll(0) else { panic!() };
    hand.batcher.handle_split(split.run(), hand.now);
    (1..3).for_each(|lane| hand.seal(lane, 1));
    let sent = [0, 1].map(|sender| hand.request(sender)).map(|request| streams(&request));
    assert_eq!(sent, [vec!["s0"], vec!["s1", "s2"]]);
}

#[test]
fn a_shared_request_stays_within_the_size_of_a_request() {
    let policy = Policy { batch_size: 10, ..Policy::default() };
    for (counts, expected) in [([5, 5, 1], 2), ([5, 6, 1], 1), ([4, 5, 1], 3), ([10, 1, 1], 1)] {
        let mut hand = Hand::new(policy);
        (0..).zip(counts).for_each(|(lane, count)| hand.seal(lane, count));
        assert_eq!(streams(&hand.request(0)).len(), expected, "{counts:?}");
    }
    // Each takes its name and 6 bytes more: `"s0":[]` and a comma, which the text has already.
    let policy = Policy { batch_bytes: 100, ..Policy::default() };
    for (lengths, expected) in [([42, 42], 2), ([42, 43], 1), ([84, 0], 1), ([200, 0], 1)] {
        let mut hand = Hand::new(policy);
        (0..).zip(lengths).filter(|it| it.1 > 0).for_each(|(lane, length)| {
            hand.seal_long(lane, length);
        });
        assert_eq!(streams(&hand.request(0)).len(), expected, "{lengths:?}");
    }
}
