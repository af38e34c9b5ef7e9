//! What is told of a result, and what is known of a loss.

use std::sync::Arc;

use bytes::Bytes;
use stride_collector::LossReason;

use super::*;

/// Each activity in short.
fn told(activities: &[Activity]) -> Vec<String> {
    let stream = |stream: &Option<Arc<str>>| stream.as_deref().unwrap_or("several").to_owned();
    let short = |activity: &Activity| match activity {
        Activity::Sent { stream: of, events } => format!("sent {} {events}", stream(of)),
        Activity::Retried { stream: of, events, .. } => format!("retried {} {events}", stream(of)),
        Activity::Narrowed { stream: of, events, status } => {
            format!("narrowed {} {events} {}", stream(of), status.as_u16())
        }
        other => format!("{other:?}"),
    };
    activities.iter().map(short).collect()
}

#[test]
fn a_result_is_told_with_its_stream_and_events() {
    for (status, lanes, expected) in [
        (200, 1, vec!["sent s0 2"]),
        (200, 2, vec!["sent several 4"]),
        (500, 1, vec!["retried s0 2"]),
        (500, 2, vec!["retried several 4"]),
        (400, 1, vec!["narrowed s0 2 400"]),
        (413, 1, vec!["narrowed s0 2 413"]),
        (404, 2, vec!["narrowed several 4 404"]),
        // It is told as a loss.
        (404, 1, vec![]),
    ] {
        let mut hand = Hand::with_senders(1);
        (0..lanes).for_each(|lane| hand.seal(lane, 2));
        let request = hand.request(0);
        let activities = hand.respond(&request, status);
        assert_eq!(told(&activities), expected, "{status} for {lanes}");
        assert_eq!(hand.batcher.stats(hand.now).retries, u64::from(status == 500));
    }
}

#[test]
fn a_single_event_that_is_too_large_or_rejected_is_lost_at_once() {
    for (status, reason) in [(413, LossReason::TooLarge), (400, LossReason::Rejected)] {
        let mut hand = Hand::with_senders(1);
        hand.seal(0, 1);
        let request = hand.request(0);
        assert_eq!(told(&hand.respond(&request, status)), [""; 0]);
        let Step::Lost(loss) = hand.poll(0) else { panic!() };
        assert_eq!((loss.reason(), loss.count()), (reason, 1));
    }
}

#[test]
fn a_stream_that_is_forbidden_is_sorted_out_of_a_shared_request_by_halves() {
    let mut hand = Hand::with_senders(1);
    (0..4).for_each(|lane| hand.seal(lane, 1));
    let mut sizes = Vec::new();
    while let Step::Send(request) = hand.tidy(0) {
        let streams = streams(&request);
        sizes.push(streams.len());
        let is_forbidden = streams.iter().any(|it| it == "s0");
        hand.respond(&request, if is_forbidden { 403 } else { 200 });
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 2, 2, 4]);
}

#[test]
fn a_loss_holds_the_last_response_and_the_last_error() {
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 3);
    let request = hand.request(0);
    let (status, message) = (http::StatusCode::NOT_FOUND, Some(Arc::from("no such stream")));
    let response = Response { status, headers: http::HeaderMap::new(), message };
    hand.batcher.handle_result(request.id(), Ok(response), hand.now);
    let Step::Lost(loss) = hand.poll(0) else { panic!() };
    assert_eq!((loss.count(), loss.status()), (3, Some(status)));
    assert_eq!(loss.message().map(|it| &**it), Some("no such stream"));
    assert!(loss.error().is_none());
    hand.batcher.handle_reported(&loss);

    hand.seal(1, 1);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    hand.respond(&request, 503);
    hand.pass(1000);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    hand.fail(&request, TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent));
    let Step::Lost(loss) = hand.poll(0) else { panic!() };
    assert_eq!(loss.status(), Some(http::StatusCode::SERVICE_UNAVAILABLE), "it stays known");
    assert_eq!(loss.error().map(TransportError::kind), Some(TransportErrorKind::Unsupported));
    assert_eq!(loss.delivery(), Delivery::MaybeSent, "by the attempt before");
}

#[test]
fn the_buffer_of_a_request_can_be_used_again_when_nobody_else_holds_it() {
    let mut hand = Hand::with_senders(1);
    let compressed = Bytes::from_static(b"compressed");
    hand.seal(0, 2);
    let request = hand.request(0);
    let id = request.id();
    hand.batcher.handle_gzipped_request(id, &compressed);
    assert_eq!(request.into_buffer(), Some(b",1,1".to_vec()));
    // The next attempt has compressed bytes, which are kept.
    let status = http::StatusCode::SERVICE_UNAVAILABLE;
    let response = Response { status, headers: http::HeaderMap::new(), message: None };
    hand.batcher.handle_result(id, Ok(response), hand.now);
    hand.pass(1000);
    let request = hand.request(0);
    assert_eq!(request.body().gzipped(), Some(compressed));
    assert_eq!(request.into_buffer(), None);
    // One that was not compressed is kept as it is, and shared ones have several buffers.
    let mut hand = Hand::with_senders(1);
    hand.seal(0, 2);
    assert_eq!(hand.request(0).into_buffer(), None);
    (1..3).for_each(|lane| hand.seal(lane, 2));
    let request = hand.request(0);
    assert_eq!(streams(&request).len(), 2);
    assert_eq!(request.into_buffer(), None);
}
