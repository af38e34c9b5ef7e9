//! How much leaves memory for the disk when memory has run out.

use stride_collector::batcher::{RecordId, SpoolMode, SpoolOrder};

use super::*;

#[test]
fn half_of_what_is_held_leaves_whatever_was_held_before() {
    let spool = Some(SpoolMode::Overflow);
    let mut hand = Hand::new(Policy { senders: 1, batch_size: 1, spool, ..Policy::default() });
    let gzip = &mut Gzip::new(GzipLevel::FASTEST);
    for _ in 0..20 {
        hand.seal_long(0, 1000);
        let Step::Send(request) = hand.tidy(0) else { panic!() };
        hand.batcher.handle_gzipped_request(request.id(), &request.body().gzip(gzip));
        hand.respond(&request, 200);
    }
    // The server can be reached no longer.
    hand.seal_long(0, 1000);
    let Step::Send(request) = hand.tidy(0) else { panic!() };
    hand.refuse(&request);
    (1..10).for_each(|lane| hand.seal_long(lane, 1000));
    hand.tell(Input::Press);
    let mut stored = 0;
    // It comes one by one, and between them requests could have their turn.
    for _ in 0..100 {
        if let Step::Store(leaving) = hand.poll(0) {
            let bytes = leaving.run(gzip);
            hand.batcher.handle_leaving(&leaving, bytes);
        }
        for order in hand.batcher.take_orders() {
            if let SpoolOrder::Store(store) = order {
                let record = RecordId { segment: 0, offset: stored };
                hand.batcher.handle_stored(&store.stored(), Some(record), hand.now);
                stored += 1;
            }
        }
    }
    assert_eq!(stored, 5);
}
