//! What is merged and compressed, and that each byte of it is counted.

use bytes::Bytes;
use stride_collector::batcher::{BATCH_COST, Waiting};

use super::*;

fn text_with_capacity(length: usize, capacity: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(capacity);
    text.extend_from_slice(format!(",\"{}\"", "x".repeat(length - 3)).as_bytes());
    assert_eq!(text.capacity(), capacity);
    text
}

fn compress(hand: &mut Hand) -> Waiting {
    match hand.poll(0) {
        Step::Compress(waiting) => waiting,
        step => panic!("{step:?} instead of a batch to compress"),
    }
}

fn gzip(waiting: &Waiting) -> Bytes {
    waiting.run(&mut Gzip::new(GzipLevel::FASTEST))
}

/// A batcher whose server cannot be reached, so that what is sealed waits. Lane 0 has a batch.
fn without_a_server(policy: Policy) -> Hand {
    let mut hand = Hand::new(policy);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.refuse(&request);
    assert!(hand.sleeps(0));
    hand
}

#[test]
fn what_a_short_text_does_not_use_is_given_back() {
    for (length, capacity, freed) in
        [(100, 125, 0), (100, 126, 26), (2047, 4000, 1953), (2048, 4000, 0)]
    {
        let mut hand = Hand::with_senders(1);
        for lane in 0..2 {
            hand.sealed(lane, text_with_capacity(length, capacity), 1, false);
        }
        assert_eq!(hand.batcher.take_freed(), (2 * freed, 0), "{length} of {capacity}");
        assert_eq!(hand.batcher.take_freed(), (0, 0), "once");
    }
}

#[test]
fn a_batch_that_others_are_merged_into_grows_by_an_eighth_at_least() {
    let mut hand = Hand::with_senders(1);
    hand.seal_long(0, 800);
    assert_eq!(hand.batcher.take_freed(), (0, 0));
    // Capacities: 800 + 100, the same twice, and 900 + 200.
    let mut cost = 800 + BATCH_COST;
    for (length, after) in [(10, 900), (10, 900), (80, 900), (200, 1100)] {
        hand.seal_long(0, length);
        let before = cost + length + BATCH_COST;
        cost = after + BATCH_COST;
        assert_eq!(hand.batcher.take_freed(), (before - cost, 0), "{length} more");
    }
    let request = hand.request(0);
    hand.respond(&request, 200);
    assert_eq!(hand.batcher.take_freed(), (cost, 0));
}

#[test]
fn batches_are_merged_up_to_the_size_of_a_request() {
    let policy = Policy { batch_size: 4, ..Policy::default() };
    for (first, second, merges) in [(2, 2, true), (1, 3, true), (1, 4, false), (3, 2, false)] {
        let mut hand = Hand::new(policy);
        hand.seal(0, first);
        hand.seal(0, second);
        let expected = if merges { first + second } else { first };
        assert_eq!(events(&hand.request(0)), expected as usize, "{first} and {second}");
    }
    let policy = Policy { batch_bytes: 100, ..Policy::default() };
    for (first, second, merges) in [(50, 49, true), (50, 50, false), (10, 9, true)] {
        let mut hand = Hand::new(policy);
        hand.seal_long(0, first);
        hand.seal_long(0, second);
        let request = hand.request(0);
        // A bracket takes the place of the first comma, and another one stands at the end.
        let length = if merges { first + second } else { first } + 1;
        assert_eq!(request.body().pieces().concat().len(), length, "{first} and {second}");
    }
}

#[test]
fn batches_of_a_tenth_of_the_retry_time_are_merged() {
    for (later, merges) in [(12_000, true), (12_001, false)] {
        let mut hand = Hand::with_senders(1);
        hand.seal(0, 1);
        hand.pass(later);
        hand.seal(0, 1);
        assert_eq!(events(&hand.request(0)), if merges { 2 } else { 1 }, "after {later} ms");
    }
}

#[test]
fn batches_that_are_worth_compressing_together_are_compressed() {
    let mut hand = without_a_server(Policy::default());
    hand.seal_long(1, 1500);
    assert!(hand.sleeps(0));
    hand.seal_long(1, 548);
    let waiting = compress(&mut hand);
    assert_eq!(waiting.body().pieces().concat().len(), 2049);
}

#[test]
fn each_batch_that_waits_is_compressed_once_and_sent_as_it_is() {
    let mut hand = without_a_server(Policy { batch_size: 1, ..Policy::default() });
    // Many short ones before the first that is worth it.
    (0..600).for_each(|_| hand.seal(1, 1));
    hand.seal_long(1, 3000);
    hand.seal(1, 1);
    hand.seal_long(1, 4000);
    hand.seal_long(2, 5000);
    hand.batcher.take_freed();
    let mut compressed = Vec::new();
    // One of each lane at a time.
    for length in [3000, 5000, 4000] {
        let waiting = compress(&mut hand);
        assert_eq!(waiting.body().pieces().concat().len(), length + 1);
        let bytes = gzip(&waiting);
        hand.batcher.handle_gzipped(&waiting, bytes.clone());
        assert_eq!(hand.batcher.take_freed(), (length - bytes.len(), 0));
        // Twice is no harm.
        hand.batcher.handle_gzipped(&waiting, bytes.clone());
        assert_eq!(hand.batcher.take_freed(), (0, 0));
        compressed.push(bytes);
    }
    assert!(hand.sleeps(0), "all are compressed");
    // One that comes later is found behind them.
    hand.seal_long(1, 6000);
    assert_eq!(compress(&mut hand).body().pieces().concat().len(), 6001);
    // The server works again.
    hand.pass(60_000);
    let mut sent = Vec::new();
    loop {
        let Step::Send(request) = hand.poll(0) else { break };
        sent.extend(request.body().gzipped());
        hand.respond(&request, 200);
    }
    sent.sort();
    compressed.sort();
    assert_eq!(sent, compressed);
}

#[test]
fn a_batch_is_compressed_though_one_before_it_is_sent_meanwhile() {
    let mut hand = without_a_server(Policy { batch_size: 1, ..Policy::default() });
    for length in [3000, 4000, 5000] {
        hand.seal_long(1, length);
    }
    let (_, second, third) = (compress(&mut hand), compress(&mut hand), compress(&mut hand));
    hand.pass(60_000);
    let request = hand.request(0);
    hand.respond(&request, 200);
    let request = hand.request(0);
    assert_eq!(streams(&request), ["s1"]);
    // It comes back, and is then the first again.
    hand.respond(&request, 500);
    hand.batcher.take_freed();
    for (waiting, length) in [(second, 4000), (third, 5000)] {
        let bytes = gzip(&waiting);
        hand.batcher.handle_gzipped(&waiting, bytes.clone());
        assert_eq!(hand.batcher.take_freed(), (length - bytes.len(), 0));
    }
}

#[test]
fn a_batch_is_compressed_though_others_were_sent_before_it_came() {
    let mut hand = Hand::new(Policy { batch_size: 1, ..Policy::default() });
    // Something of the lane is always there, so that it is not given back.
    hand.seal(0, 1);
    hand.seal(0, 1);
    let request = hand.request(0);
    hand.respond(&request, 200);
    let request = hand.request(0);
    hand.refuse(&request);
    hand.seal_long(0, 3000);
    let waiting = compress(&mut hand);
    let bytes = gzip(&waiting);
    hand.batcher.take_freed();
    hand.batcher.handle_gzipped(&waiting, bytes.clone());
    assert_eq!(hand.batcher.take_freed(), (3000 - bytes.len(), 0));
}

#[test]
fn a_batch_that_was_split_is_not_compressed_as_a_whole() {
    let mut hand = without_a_server(Policy::default());
    let event = format!(",\"{}\"", "x".repeat(3000));
    hand.sealed(1, event.repeat(2).into_bytes(), 2, false);
    let waiting = compress(&mut hand);
    hand.pass(60_000);
    let request = hand.request(0);
    hand.respond(&request, 200);
    let request = hand.request(0);
    hand.respond(&request, 413);
    let Step::Split(split) = hand.poll(0) else { panic!() };
    hand.batcher.handle_split(split.run(), hand.now);
    hand.batcher.take_freed();
    let bytes = gzip(&waiting);
    hand.batcher.handle_gzipped(&waiting, bytes);
    assert_eq!(hand.batcher.take_freed(), (0, 0));
    for _ in 0..2 {
        let request = hand.request(0);
        assert_eq!(request.body().pieces().concat().len(), event.len() + 1);
        hand.respond(&request, 200);
    }
}

#[test]
fn what_is_sent_is_counted_and_kept_compressed_for_the_next_attempt() {
    let mut hand = Hand::with_senders(1);
    hand.seal_long(0, 3000);
    let gzip = &mut Gzip::new(GzipLevel::FASTEST);
    let request = hand.request(0);
    assert_eq!(request.body().gzipped(), None);
    let bytes = request.body().gzip(gzip);
    hand.batcher.handle_gzipped_request(request.id(), &bytes);
    assert_eq!(hand.batcher.take_freed(), (3000 - bytes.len(), 0));
    hand.respond(&request, 500);
    assert!(hand.sleeps(0), "it is not compressed again");
    hand.pass(1000);
    let request = hand.request(0);
    assert_eq!(request.body().gzipped().as_ref(), Some(&bytes));
    hand.batcher.handle_gzipped_request(request.id(), &bytes);
    assert_eq!(hand.batcher.take_freed(), (0, 0));
    let stats = hand.batcher.stats(hand.now);
    assert_eq!((stats.json_bytes, stats.sent_bytes), (6000, 2 * bytes.len() as u64));
    hand.respond(&request, 200);
    assert_eq!(hand.batcher.take_freed(), (bytes.len() + BATCH_COST, 0));
    // A shared request is counted with all its texts, and not kept.
    hand.seal_long(1, 100);
    hand.seal_long(2, 200);
    let request = hand.request(0);
    assert_eq!(streams(&request).len(), 2);
    hand.batcher.handle_gzipped_request(request.id(), &Bytes::from_static(b"0123456789"));
    let stats = hand.batcher.stats(hand.now);
    assert_eq!((stats.json_bytes, stats.sent_bytes), (6300, 2 * bytes.len() as u64 + 10));
    assert_eq!(hand.batcher.take_freed(), (0, 0));
}

#[test]
fn the_parts_of_a_batch_are_counted_as_two() {
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 4);
    let request = hand.request(0);
    hand.respond(&request, 413);
    let Step::Split(split) = hand.poll(0) else { panic!() };
    assert_eq!(hand.batcher.take_freed(), (0, 0));
    hand.batcher.handle_split(split.run(), hand.now);
    assert_eq!(hand.batcher.take_freed(), (0, BATCH_COST));
    for count in [2, 2] {
        let request = hand.request(0);
        assert_eq!(events(&request), count);
        hand.respond(&request, 200);
        assert_eq!(hand.batcher.take_freed(), (2 * count + BATCH_COST, 0));
    }
}

#[test]
fn a_loss_is_held_until_it_is_reported() {
    let mut hand = Hand::with_senders(1);
    hand.lose([0, 1]);
    for freed in [2 + BATCH_COST, 2 + BATCH_COST] {
        let Step::Lost(loss) = hand.poll(0) else { panic!() };
        assert_eq!(hand.batcher.take_freed(), (0, 0));
        hand.batcher.handle_reported(&loss);
        assert_eq!(hand.batcher.take_freed(), (freed, 0));
    }
}

#[test]
fn a_split_that_comes_after_a_deadline_is_too_late() {
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 4);
    let request = hand.request(0);
    hand.respond(&request, 413);
    let Step::Split(split) = hand.poll(0) else { panic!() };
    hand.tell(Input::Stop);
    hand.batcher.give_up(hand.now);
    hand.batcher.handle_split(split.run(), hand.now);
    let Step::Lost(loss) = hand.poll(1) else { panic!() };
    assert_eq!(loss.count(), 4);
}
