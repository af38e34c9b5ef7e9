//! The batcher alone, driven by hand in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_collector::batcher::{Batcher, Events, Input, LaneId, Policy, Response, Step};
use stride_collector::{Activity, Delivery, LossReason, ServerState, TransportError, http};
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::TransportErrorKind;

/// Does what the batcher asks, over a connection that is always refused, until it waits.
fn drive(batcher: &mut Batcher, gzip: &mut Gzip, now: Instant) {
    loop {
        match batcher.poll(0, now) {
            Step::Send(request) => {
                let refused = TransportErrorKind::Connect;
                let error = TransportError::new(refused, Delivery::NotSent);
                batcher.handle_result(request.id(), Err(error), now);
            }
            Step::Compress(waiting) => {
                let bytes: Bytes = waiting.run(gzip);
                batcher.handle_gzipped(&waiting, bytes);
            }
            Step::Lost(loss) => batcher.handle_reported(&loss),
            Step::Wait(until) if until <= now => {}
            Step::Wait(_) | Step::Idle => return,
            step => panic!("{step:?}"),
        }
    }
}

/// Each call used to look through all that waited, once there was something to expire.
#[test]
fn c6_an_outage_of_minutes_costs_no_more_after_the_first_batches_expire() {
    let mut now = Instant::now();
    let mut batcher = Batcher::new(Policy { senders: 1, ..Policy::default() }, now);
    let mut gzip = Gzip::new(GzipLevel::FASTEST);
    let names: Vec<Arc<str>> = (0..50).map(|lane| Arc::from(format!("s{lane}"))).collect();
    // What a second of the outage takes: 100 times a batch and a flush.
    let mut seconds = Vec::new();
    for second in 0..200 {
        let begun = Instant::now();
        for call in 0..100 {
            now += Duration::from_millis(10);
            let lane = (second * 100 + call) % names.len();
            let events = Events { text: br#",{"x":1}"#.to_vec(), count: 1 };
            let (lane, stream) = (LaneId(lane as u32), Arc::clone(&names[lane]));
            batcher.handle(Input::Sealed { lane, stream, events, opened: false }, now);
            batcher.handle(Input::Flush, now);
            drive(&mut batcher, &mut gzip, now);
        }
        seconds.push(begun.elapsed());
    }
    let totals = batcher.totals();
    assert!(totals.lost_by(LossReason::Expired, Delivery::NotSent) > 5_000, "{totals}");
    assert!(totals.pending > 10_000, "{totals}");
    let median = |seconds: &mut [Duration]| {
        seconds.sort();
        seconds[seconds.len() / 2]
    };
    let (before, after) = (median(&mut seconds[70..110].to_vec()), median(&mut seconds[150..]));
    // In the same run, so the machine does not matter; it was a hundredfold.
    assert!(after < before * 8, "{before:?} for a second before, {after:?} after");
}

#[test]
fn a_batcher_tells_how_the_server_does_and_how_old_the_oldest_event_is() {
    let start = Instant::now();
    let after = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut batcher = Batcher::new(Policy::default(), start);
    let (lane, stream): (_, Arc<str>) = (LaneId(0), Arc::from("clicks"));
    let opened = Input::Opened { lane, stream: Arc::clone(&stream) };
    batcher.handle(opened, after(1000));
    assert_eq!(batcher.stats(after(1200)).oldest, Some(Duration::from_millis(200)), "it is open");
    let Step::Seal(seal) = batcher.poll(0, after(1250)) else { panic!() };
    let events = Events { text: br#",{"x":1},{"x":2}"#.to_vec(), count: 2 };
    batcher.handle(Input::Sealed { lane, stream, events, opened: true }, after(1250));
    batcher.handle(Input::SealsDone(seal.ticket()), after(1250));

    let Step::Send(request) = batcher.poll(0, after(1250)) else { panic!() };
    let respond = |status: u16, pause: Option<u64>| {
        let mut headers = http::HeaderMap::new();
        headers.extend(pause.map(|seconds| (http::header::RETRY_AFTER, seconds.into())));
        let status = http::StatusCode::from_u16(status).unwrap();
        Ok(Response { status, headers, message: None })
    };
    let activities = batcher.handle_result(request.id(), respond(503, Some(30)), after(1300));
    let [Activity::Retried { events: 2, .. }, Activity::Server(state)] = &activities[..] else {
        panic!("{activities:?}")
    };
    assert_eq!(*state, ServerState::Throttled { until: after(31_300) });
    let stats = batcher.stats(after(31_250));
    assert_eq!((stats.requests, stats.retries, stats.in_flight, stats.streams), (1, 1, 0, 1));
    assert_eq!((stats.oldest, stats.server), (Some(Duration::from_secs(30)), *state));
    assert_eq!(batcher.stats(after(31_300)).server, ServerState::Down, "the pause is over");

    let mut now = after(40_000);
    let request = loop {
        match batcher.poll(0, now) {
            Step::Send(request) => break request,
            Step::Wait(until) => now = until.max(now),
            step => drop(step),
        }
    };
    let activities = batcher.handle_result(request.id(), respond(200, None), now);
    let [Activity::Sent { events: 2, .. }, Activity::Server(ServerState::Healthy)] =
        &activities[..]
    else {
        panic!("{activities:?}")
    };
    assert_eq!(batcher.stats(now).oldest, None);
}
