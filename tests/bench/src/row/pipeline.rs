//! The whole way: from the first `collect` to the last answer, over loopback.

use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

use stride_collector::{AsyncCollector, CollectError, Collector, StreamHandle};
use tokio::runtime::{self, Runtime};

use crate::event::Event;
use crate::measure::Pair;
use crate::outline::Outline;
use crate::row::{async_client, client, per_second};
use crate::sink::Sink;

/// More than a collector may hold, so that it is the whole way that counts.
const BYTES: usize = 120_000_000;

/// Longer than a row takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn events<E: Event>() -> impl ExactSizeIterator<Item = E> {
    (0..BYTES / E::LENGTH).map(|id| E::new(id as u64))
}

/// How many events a second a collector sends to a sink.
pub(super) fn rate<E: Event>(collector: &Collector, stream: &StreamHandle) -> f64 {
    let events = events::<E>();
    per_second(events.len(), || {
        for event in events {
            match stream.collect(&event) {
                Err(CollectError::Full) => stream.collect_timeout(&event, PATIENCE),
                result => result,
            }
            .expect("there is room");
        }
        let report = collector.flush();
        assert_eq!(report.delivered + report.spooled, report.accepted, "nothing is lost");
        // A flush does not wait for what memory had no room for, if that is on disk.
        while collector.stats().pending > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    })
}

/// The outline, whatever the collector runs on.
struct Limit(Option<Outline>);

impl Limit {
    fn start(sink: &Sink) -> Self {
        Self(Some(Outline::start(sink.port())))
    }

    fn rate<E: Event>(&self) -> f64 {
        let (events, outline) = (events::<E>(), self.0.as_ref().expect("it runs"));
        per_second(events.len(), || {
            for event in events {
                outline.collect(&event);
            }
            outline.flush();
        })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let stopped = self.0.take().map(Outline::stop);
        assert!(stopped.is_none_or(|stopped| stopped.is_ok()), "a sender failed");
    }
}

/// A collector with threads, and the outline before the same sink.
pub(super) struct Blocking<E> {
    collector: Collector,
    stream: StreamHandle,
    limit: Limit,
    // The sink ends after those that send to it.
    _sink: Sink,
    event: PhantomData<E>,
}

impl<E> Blocking<E> {
    pub(super) fn new() -> Self {
        let sink = Sink::start();
        let collector = Collector::start(client(&sink)).expect("there are threads");
        let stream = collector.stream("mystream").expect("the name is good");
        let limit = Limit::start(&sink);
        Self { collector, stream, limit, _sink: sink, event: PhantomData }
    }
}

impl<E: Event> Pair for Blocking<E> {
    fn ours(&mut self) -> f64 {
        rate::<E>(&self.collector, &self.stream)
    }

    fn limit(&mut self) -> f64 {
        self.limit.rate::<E>()
    }
}

/// A collector with tokio tasks on a runtime of two threads, and the outline.
pub(super) struct Async<E> {
    collector: AsyncCollector,
    stream: StreamHandle,
    runtime: Runtime,
    limit: Limit,
    _sink: Sink,
    event: PhantomData<E>,
}

impl<E> Async<E> {
    pub(super) fn new() -> Self {
        let sink = Sink::start();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("the operating system gives a runtime");
        let inside = runtime.enter();
        let collector = AsyncCollector::start(async_client(&sink)).expect("there is a runtime");
        let stream = collector.stream("mystream").expect("the name is good");
        drop(inside);
        let limit = Limit::start(&sink);
        Self { collector, stream, runtime, limit, _sink: sink, event: PhantomData }
    }
}

impl<E: Event> Pair for Async<E> {
    fn ours(&mut self) -> f64 {
        let events = events::<E>();
        let count = events.len();
        let work = async {
            for event in events {
                match self.stream.collect(&event) {
                    Err(CollectError::Full) => self.stream.collect_wait(&event).await,
                    result => result,
                }
                .expect("there is room");
            }
            let report = self.collector.flush().await;
            assert_eq!(report.delivered, report.accepted, "the sink takes everything");
        };
        per_second(count, || self.runtime.block_on(work))
    }

    fn limit(&mut self) -> f64 {
        self.limit.rate::<E>()
    }
}
