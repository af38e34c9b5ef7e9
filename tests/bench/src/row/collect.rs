//! What the call site costs: the time that `collect` takes from the program.
//!
//! The senders do what they do in a program, on another core: they compress what is collected, and a
//! transport that answers at once takes it. Time is taken while a burst is collected that fits into
//! the memory budget; what is left is sent between bursts.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use stride_collector::{Collector, Connection, StreamHandle};
use stride_core::{Body, Call, Cancel, Endpoint, TransportError};

use crate::event;
use crate::measure::Pair;
use crate::row::nanoseconds;

/// 15 MB of event (a).
const READMES: usize = 500_000;

/// 34 MB of event (b).
const WEBS: usize = 100_000;

const THREADS: usize = 8;

/// A collector whose server takes everything at once.
fn collector() -> Collector {
    let taken = |_: Call, _: Cancel| -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::new(Body::default()))
    };
    let endpoint = Endpoint::new("key").expect("the key is good");
    let connection = Connection { endpoint, transport: std::sync::Arc::new(taken) };
    Collector::start(connection).expect("there are threads")
}

/// Sends what is left, so that the next burst finds room.
fn settle(collector: &Collector) {
    let report = collector.flush();
    assert_eq!(report.delivered, report.accepted, "the server takes everything");
}

/// What serialising alone costs.
fn serialise<T: Serialize>(count: usize, event: impl Fn(u64) -> T) -> f64 {
    let mut buffer = Vec::with_capacity(1 << 10);
    nanoseconds(count, || {
        for id in 0..count as u64 {
            buffer.clear();
            serde_json::to_writer(&mut buffer, &event(id)).expect("it is JSON");
            black_box(&buffer);
        }
    })
}

/// What collecting costs.
fn collect<T: Serialize>(
    collector: &Collector,
    stream: &StreamHandle,
    count: usize,
    event: impl Fn(u64) -> T,
) -> f64 {
    let time = nanoseconds(count, || {
        for id in 0..count as u64 {
            stream.collect(&event(id)).expect("there is room");
        }
    });
    settle(collector);
    time
}

/// Event (a), one thread.
pub(super) struct Readme {
    collector: Collector,
    stream: StreamHandle,
}

impl Readme {
    pub(super) fn new() -> Self {
        let collector = collector();
        let stream = collector.stream("mystream").expect("the name is good");
        Self { collector, stream }
    }
}

impl Pair for Readme {
    fn ours(&mut self) -> f64 {
        collect(&self.collector, &self.stream, READMES, event::Readme::new)
    }

    fn limit(&mut self) -> f64 {
        serialise(READMES, event::Readme::new)
    }
}

/// The same with the stream's name.
pub(super) struct ByName(pub(super) Readme);

impl Pair for ByName {
    fn ours(&mut self) -> f64 {
        let Readme { collector, .. } = &self.0;
        let time = nanoseconds(READMES, || {
            for id in 0..READMES as u64 {
                // The name comes from anywhere: nothing is known of it here.
                let name = black_box("mystream");
                collector.collect(name, &event::Readme::new(id)).expect("there is room");
            }
        });
        settle(collector);
        time
    }

    fn limit(&mut self) -> f64 {
        self.0.limit()
    }
}

/// Event (b), one thread.
pub(super) struct Web(Readme);

impl Web {
    pub(super) fn new() -> Self {
        Self(Readme::new())
    }
}

impl Pair for Web {
    fn ours(&mut self) -> f64 {
        collect(&self.0.collector, &self.0.stream, WEBS, event::Web::new)
    }

    fn limit(&mut self) -> f64 {
        serialise(WEBS, event::Web::new)
    }
}

/// Event (a), eight threads on one stream; against one thread.
pub(super) struct Threads(Readme);

impl Threads {
    pub(super) fn new() -> Self {
        Self(Readme::new())
    }

    /// Events/s of so many threads, from their common start to the end of the last.
    fn run(&self, threads: usize) -> f64 {
        let barrier = Barrier::new(threads);
        let each = READMES / threads;
        let run = || {
            barrier.wait();
            let start = Instant::now();
            for id in 0..each as u64 {
                self.0.stream.collect(&event::Readme::new(id)).expect("there is room");
            }
            (start, Instant::now())
        };
        let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running.into_iter().map(|thread| thread.join().expect("there is room")).collect()
        });
        settle(&self.0.collector);
        let start = spans.iter().map(|span| span.0).min();
        let end = spans.iter().map(|span| span.1).max();
        let time = start.zip(end).map_or(Duration::MAX, |(start, end)| end - start);
        (each * threads) as f64 / time.as_secs_f64()
    }
}

impl Pair for Threads {
    fn ours(&mut self) -> f64 {
        self.run(THREADS)
    }

    fn limit(&mut self) -> f64 {
        self.run(1)
    }
}
