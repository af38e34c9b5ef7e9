//! In steady state an event allocates nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use stride_collector::{Collector, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, TransportError};

#[derive(Serialize)]
struct Event {
    id: u64,
    bojack: &'static str,
}

fn collector() -> Collector {
    let transport = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::new(Body::default()))
    };
    let endpoint = Api::new("key").unwrap();
    Collector::builder()
        .flush_interval(Duration::from_secs(600))
        .start(Target { api: endpoint, transport: Arc::new(transport) })
        .unwrap()
}

#[test]
fn an_event_allocates_nothing_and_a_batch_little() {
    let collector = collector();
    let stream = collector.stream("mystream").unwrap();
    let collect = |events: u64, by_name: bool| {
        for id in 0..events {
            let event = Event { id: 1_000_000 + id, bojack: "horseman" };
            if by_name {
                collector.collect("mystream", &event).unwrap();
            } else {
                stream.collect(&event).unwrap();
            }
        }
    };
    for by_name in [false, true] {
        // Full batches, so that the next one knows its size.
        collect(3000, by_name);
        collect(1, by_name);
        let within_a_batch = allocation_counter::measure(|| collect(998, by_name));
        assert_eq!(within_a_batch.count_total, 0, "by name: {by_name}");
        collect(1, by_name);
        let batches = allocation_counter::measure(|| collect(100_000, by_name));
        assert!(batches.count_total <= 100 * 10, "{batches:?}");
    }
}
