//! What the call site costs: the time that `collect` takes from the program.
//!
//! Nothing is sent meanwhile: on a machine of few cores, a sender that compresses would slow down
//! what is measured by half, and so hide it. What is collected is sent between bursts; what all of
//! it costs together is measured by the pipelines.

use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::{Arc, Barrier, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use stride_collector::{CollectError, Collector, StreamHandle, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, TransportError};

use crate::event::{Event, Readme};
use crate::measure::Pair;
use crate::row::nanoseconds;

/// Events of a burst: with those that the senders hold, as many batches as a collector keeps the
/// memory of. So a batch finds memory, as it does in a program that goes on and on.
const BURST: usize = 2 * BATCH;

/// Of a burst of eight threads: they need longer to get going.
const EACH: usize = 20_000;

const THREADS: usize = 8;

/// A collector's senders and the events of a batch, as they are by default.
const SENDERS: usize = 2;
const BATCH: usize = 1000;

/// A collector whose server takes nothing while it is held back, and everything at once otherwise.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) collector: Collector,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Whether it is closed, and how many senders wait before it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        self.changed.notify_all();
        let open = self.changed.wait_while(state, |(closed, _)| *closed);
        open.unwrap_or_else(PoisonError::into_inner).1 -= 1;
    }

    fn wait_for(&self, senders: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.changed.wait_while(state, |(_, waiting)| *waiting < senders);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Held {
    pub(crate) fn new() -> Self {
        let gate = Arc::<Gate>::default();
        let passed = Arc::clone(&gate);
        let taken =
            move |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
                passed.pass();
                Ok(http::Response::new(Body::default()))
            };
        let endpoint = Api::new("key").expect("the key is good");
        let connection = Target { api: endpoint, transport: Arc::new(taken) };
        // An hour: no batch is sent because of the time that it takes under valgrind.
        let builder = Collector::builder().flush_interval(Duration::from_secs(3600));
        let collector = builder.start(connection).expect("there are threads");
        // It stays behind between bursts: a collector that has nothing to do gives its memory back.
        collector.collect("mystream", &Readme::new(0)).expect("there is room");
        Self { collector, gate }
    }

    /// Gives each sender a batch, with which it waits from then on.
    pub(crate) fn hold<E: Event>(&self, collect: impl Fn(&E) -> Result<(), CollectError>) {
        self.gate.set(true);
        for id in 0..SENDERS * BATCH {
            collect(&E::new(id as u64)).expect("there is room");
        }
        self.gate.wait_for(SENDERS);
    }

    /// Sends what one thread collected, but for the batch that is not full.
    fn release(&self) {
        self.gate.set(false);
        while self.collector.stats().pending >= BATCH as u64 {
            thread::yield_now();
        }
    }

    /// Sends everything.
    fn flush(&self) {
        self.gate.set(false);
        let report = self.collector.flush();
        assert_eq!(report.delivered, report.accepted, "the server takes everything");
    }
}

/// What collecting a burst costs, each event.
fn burst<E: Event>(held: &Held, collect: impl Fn(&E) -> Result<(), CollectError>) -> f64 {
    held.hold(&collect);
    let time = nanoseconds(BURST, || {
        for id in 0..BURST as u64 {
            collect(&E::new(id)).expect("there is room");
        }
    });
    held.release();
    time
}

/// What serialising alone costs.
fn serialise<E: Event>() -> f64 {
    let mut buffer = Vec::with_capacity(1 << 10);
    nanoseconds(BURST, || {
        for id in 0..BURST as u64 {
            buffer.clear();
            serde_json::to_writer(&mut buffer, &E::new(id)).expect("it is JSON");
            black_box(&buffer);
        }
    })
}

/// One thread, with a handle of the stream.
pub(super) struct Handle<E> {
    held: Held,
    stream: StreamHandle,
    event: PhantomData<E>,
}

impl<E> Handle<E> {
    pub(super) fn new() -> Self {
        let held = Held::new();
        let stream = held.collector.stream("mystream").expect("the name is good");
        Self { held, stream, event: PhantomData }
    }
}

impl<E: Event> Pair for Handle<E> {
    fn ours(&mut self) -> f64 {
        burst(&self.held, |event: &E| self.stream.collect(event))
    }

    fn limit(&mut self) -> f64 {
        serialise::<E>()
    }
}

/// Event (a), one thread, with the stream's name.
pub(super) struct ByName(Held);

impl ByName {
    pub(super) fn new() -> Self {
        Self(Held::new())
    }
}

impl Pair for ByName {
    fn ours(&mut self) -> f64 {
        // The name comes from anywhere: nothing is known of it here.
        let collector = &self.0.collector;
        burst(&self.0, |event: &Readme| collector.collect(black_box("mystream"), event))
    }

    fn limit(&mut self) -> f64 {
        serialise::<Readme>()
    }
}

/// Event (a), eight threads on one stream; against one thread.
pub(super) struct Threads {
    held: Held,
    stream: StreamHandle,
}

impl Threads {
    pub(super) fn new() -> Self {
        let held = Held::new();
        let stream = held.collector.stream("mystream").expect("the name is good");
        Self { held, stream }
    }

    /// Events/s of so many threads, from their common start to the end of the last.
    fn run(&self, threads: usize) -> f64 {
        self.held.hold(|event: &Readme| self.stream.collect(event));
        let barrier = Barrier::new(threads);
        let each = EACH * THREADS / threads;
        let run = || {
            barrier.wait();
            let start = Instant::now();
            for id in 0..each as u64 {
                self.stream.collect(&Readme::new(id)).expect("there is room");
            }
            (start, Instant::now())
        };
        let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running.into_iter().map(|thread| thread.join().expect("there is room")).collect()
        });
        self.held.flush();
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
