//! What `collect` takes at its slowest while a hundred thousand streams wait and another thread asks for
//! figures and flushes all the time; against one stream and no such thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stride_collector::{Collector, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, Delivery, TransportError, TransportErrorKind};

use crate::event::{Event as _, Readme};
use crate::measure::Pair;

const STREAMS: u64 = 100_000;

/// Calls that are timed in a round.
const CALLS: u64 = 20_000;

/// One collector with many streams, and one with a single one. Their server is down, so everything
/// that they hold stays.
pub(super) struct Lanes {
    many: Collector,
    one: Collector,
}

impl Lanes {
    pub(super) fn new() -> Self {
        let many = down();
        for id in 0..STREAMS {
            many.collect(&format!("stream_{id}"), &Readme::new(id)).expect("there is room");
        }
        Self { many, one: down() }
    }
}

fn down() -> Collector {
    let refused = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent))
    };
    let api = Api::new("key").expect("the key is good");
    let builder =
        Collector::builder().memory_budget(1 << 30).retry_for(Duration::from_secs(24 * 3600));
    builder.start(Target { api, transport: Arc::new(refused) }).expect("there are threads")
}

/// The 99.9th percentile of `collect`, in nanoseconds.
fn slow_call(collector: &Collector) -> f64 {
    let mut times: Vec<u64> = (0..CALLS)
        .map(|id| {
            let start = Instant::now();
            collector.collect("mystream", &Readme::new(id)).expect("there is room");
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 999 / 1000] as f64
}

impl Pair for Lanes {
    fn ours(&mut self) -> f64 {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = self.many.stats();
                    let _ = self.many.flush_within(Duration::ZERO);
                }
            });
            let time = slow_call(&self.many);
            done.store(true, Ordering::Relaxed);
            time
        })
    }

    fn limit(&mut self) -> f64 {
        slow_call(&self.one)
    }
}
