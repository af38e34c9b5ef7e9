//! How an event at fault is found, and how many requests that takes.

use super::*;

/// A batch of `,0,1,2…`, of which the server rejects these; gives what was sent.
fn narrow(hand: &mut Hand, count: u32, bad: &[u32]) -> Vec<Vec<u32>> {
    let text: String = (0..count).map(|event| format!(",{event}")).collect();
    hand.sealed(0, text.into_bytes(), count, false);
    let mut sent = Vec::new();
    while let Step::Send(request) = hand.tidy(0) {
        let text = String::from_utf8(request.body().pieces().concat()).unwrap();
        let events: Vec<u32> =
            text.trim_matches(['[', ']']).split(',').map(|it| it.parse().unwrap()).collect();
        let is_bad = events.iter().any(|event| bad.contains(event));
        sent.push(events);
        hand.respond(&request, if is_bad { 400 } else { 200 });
    }
    assert_eq!(hand.batcher.totals().pending, 0);
    sent
}

fn counts(sent: &[Vec<u32>]) -> Vec<usize> {
    sent.iter().map(Vec::len).collect()
}

#[test]
fn a_part_that_must_be_guilty_is_halved_without_being_sent() {
    for (bad, expected) in [
        (vec![0], vec![4, 2, 1, 1, 2]),
        (vec![1], vec![4, 2, 1, 1, 2]),
        (vec![2], vec![4, 2, 1, 1]),
        (vec![3], vec![4, 2, 1, 1]),
        (vec![0, 3], vec![4, 2, 1, 1, 2, 1, 1]),
        (vec![0, 1, 2, 3], vec![4, 2, 1, 1, 2, 1, 1]),
        (vec![], vec![4]),
    ] {
        let mut hand = Hand::with_senders(1);
        assert_eq!(counts(&narrow(&mut hand, 4, &bad)), expected, "{bad:?}");
        let totals = hand.batcher.totals();
        assert_eq!(totals.lost(), bad.len() as u64, "{bad:?}");
    }
}

#[test]
fn one_batch_takes_64_requests_and_the_next_8() {
    let mut hand = Hand::with_senders(1);
    let bad: Vec<u32> = (0..1000).collect();
    hand.open(0);
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 64);
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 8);
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 8);
    // One that is sorted out within its requests gives the next one all of them.
    assert_eq!(narrow(&mut hand, 4, &[2]).len(), 4);
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 64);
}

#[test]
fn a_single_event_that_is_rejected_takes_one_request() {
    let mut hand = Hand::with_senders(1);
    hand.open(0);
    let bad: Vec<u32> = (0..1000).collect();
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 64);
    assert_eq!(narrow(&mut hand, 1, &bad).len(), 1);
    assert_eq!(narrow(&mut hand, 1000, &bad).len(), 8, "it says nothing of the lane");
}

#[test]
fn two_batches_that_are_rejected_at_once_are_narrowed_down_one_after_the_other() {
    let mut hand = Hand::new(Policy { senders: 2, batch_size: 4, ..Policy::default() });
    for _ in 0..2 {
        hand.sealed(0, b",0,1,2,3".to_vec(), 4, false);
    }
    let requests = [0, 1].map(|sender| hand.request(sender));
    for request in &requests {
        hand.respond(request, 422);
    }
    let mut sent = Vec::new();
    while let Step::Send(request) = hand.tidy(0) {
        let text = String::from_utf8(request.body().pieces().concat()).unwrap();
        hand.respond(&request, if text.contains('3') { 422 } else { 200 });
        sent.push(text);
    }
    assert_eq!(sent, ["[0,1]", "[2]", "[3]", "[0,1]", "[2]", "[3]"]);
    assert_eq!(hand.batcher.totals().lost(), 2);
}

#[test]
fn what_is_too_long_is_halved_and_the_length_is_remembered() {
    let mut hand = Hand::with_senders(1);
    hand.open(0);
    for expected in [vec![8, 4, 4], vec![4, 4]] {
        hand.seal(0, 8);
        let mut counts = Vec::new();
        while let Step::Send(request) = hand.tidy(0) {
            counts.push(events(&request));
            hand.respond(&request, if events(&request) > 4 { 413 } else { 200 });
        }
        assert_eq!(counts, expected);
    }
}

#[test]
fn a_part_that_is_halved_for_its_length_says_nothing_of_the_part_behind_it() {
    let mut hand = Hand::with_senders(1);
    hand.sealed(0, b",1000,1001,2,3".to_vec(), 4, false);
    for (text, status) in [
        ("[1000,1001,2,3]", 400),
        ("[1000,1001]", 413),
        ("[1000]", 400),
        ("[1001]", 200),
        ("[2,3]", 200),
    ] {
        let Step::Send(request) = hand.tidy(0) else { panic!("{text}") };
        assert_eq!(String::from_utf8(request.body().pieces().concat()).unwrap(), text);
        hand.respond(&request, status);
    }
    assert_eq!(hand.batcher.totals().lost(), 1);
}
