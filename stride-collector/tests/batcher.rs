//! The batcher alone, driven by hand in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stride_collector::batcher::{Batcher, Events, Input, LaneId, Policy, Step};
use stride_collector::{Delivery, LossReason, TransportError};
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
