//! The rows of the table, in its order.

mod collect;
mod continuous;
mod frames;
mod idle;
mod lanes;
mod local;
mod outage;
mod pipeline;
mod post;
mod spool;
mod subscribe;

use std::time::Instant;

use stride_blocking::Stride;

use self::outage::Mix;
use crate::child::Part;
use crate::event::{Readme, Web};
use crate::measure::Mark::{AtLeast, AtMost};
use crate::measure::Row;
use crate::sink::{self, Sink};

pub(crate) use self::collect::Held;
pub use self::frames::{compact, pretty, raw, typed};

/// The parts that other processes play for the rows.
pub const PARTS: &[Part] = &[
    (sink::PART, |_| sink::serve(0, None)),
    (outage::PART, outage::play),
    (idle::PART, idle::play),
];

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "collect/readme",
        unit: "ns per event",
        mark: AtMost(1.8),
        rounds: 201,
        pair: || Box::new(collect::Handle::<Readme>::new()),
    },
    Row {
        name: "collect/readme-by-name",
        unit: "ns per event",
        mark: AtMost(2.5),
        rounds: 201,
        pair: || Box::new(collect::ByName::new()),
    },
    Row {
        name: "collect/web",
        unit: "ns per event",
        mark: AtMost(1.2),
        rounds: 201,
        pair: || Box::new(collect::Handle::<Web>::new()),
    },
    Row {
        name: "collect/8-threads",
        unit: "events/s",
        mark: AtLeast(1.0),
        rounds: 51,
        pair: || Box::new(collect::Threads::new()),
    },
    Row {
        name: "collect/100000-streams",
        unit: "ns at p99.9",
        mark: AtMost(3.0),
        rounds: 21,
        pair: || Box::new(lanes::Lanes::new()),
    },
    Row {
        name: "pipeline/readme",
        unit: "events/s",
        mark: AtLeast(0.9),
        rounds: 9,
        pair: || Box::new(pipeline::Blocking::<Readme>::new()),
    },
    Row {
        name: "pipeline/web",
        unit: "events/s",
        mark: AtLeast(0.9),
        rounds: 9,
        pair: || Box::new(pipeline::Blocking::<Web>::new()),
    },
    Row {
        name: "pipeline/async/readme",
        unit: "events/s",
        mark: AtLeast(0.9),
        rounds: 9,
        pair: || Box::new(pipeline::Async::<Readme>::new()),
    },
    Row {
        name: "pipeline/async/web",
        unit: "events/s",
        mark: AtLeast(0.9),
        rounds: 9,
        pair: || Box::new(pipeline::Async::<Web>::new()),
    },
    Row {
        name: "spool/write-ahead/readme",
        unit: "events/s",
        mark: AtLeast(0.8),
        rounds: 9,
        pair: || Box::new(spool::WriteAhead::<Readme>::new()),
    },
    Row {
        name: "spool/write-ahead/web",
        unit: "events/s",
        mark: AtLeast(0.8),
        rounds: 9,
        pair: || Box::new(spool::WriteAhead::<Web>::new()),
    },
    Row {
        name: "spool/drain",
        unit: "MB/s",
        mark: AtLeast(1.0),
        rounds: 9,
        pair: || Box::new(spool::Drain::new()),
    },
    Row {
        name: "frames/compact",
        unit: "events/s",
        mark: AtLeast(0.85),
        rounds: 801,
        pair: || Box::new(frames::Typed::new(false)),
    },
    Row {
        name: "frames/pretty",
        unit: "events/s",
        mark: AtLeast(0.7),
        rounds: 801,
        pair: || Box::new(frames::Typed::new(true)),
    },
    Row {
        name: "frames/raw",
        unit: "MB/s",
        mark: AtLeast(1.2),
        rounds: 801,
        pair: || Box::new(frames::Raw::new()),
    },
    Row {
        name: "subscribe/blocking",
        unit: "events/s",
        mark: AtLeast(0.85),
        rounds: 75,
        pair: || Box::new(subscribe::Blocking::new()),
    },
    Row {
        name: "subscribe/async",
        unit: "events/s",
        mark: AtLeast(0.85),
        rounds: 75,
        pair: || Box::new(subscribe::Async::new()),
    },
    Row {
        name: "post/blocking",
        unit: "requests/s",
        mark: AtLeast(0.9),
        rounds: 201,
        pair: || Box::new(post::Blocking::new()),
    },
    Row {
        name: "post/async",
        unit: "requests/s",
        mark: AtLeast(0.9),
        rounds: 201,
        pair: || Box::new(post::Async::new()),
    },
    Row {
        name: "outage/memory",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 5,
        pair: || Box::new(outage::Memory),
    },
    Row {
        name: "outage/memory-1-MB",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Large)),
    },
    Row {
        name: "outage/memory-10000-streams",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Streams(10_000))),
    },
    Row {
        name: "outage/memory-100000-streams",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Streams(100_000))),
    },
    Row {
        name: "outage/memory-single",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Single)),
    },
    Row {
        name: "outage/memory-flushed",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Flushed)),
    },
    Row {
        name: "outage/memory-2-MiB",
        unit: "bytes",
        mark: AtMost(1.2),
        rounds: 3,
        pair: || Box::new(outage::Mixed(Mix::Small)),
    },
    Row {
        name: "outage/held",
        unit: "bytes",
        mark: AtLeast(4.0),
        rounds: 3,
        pair: || Box::new(outage::Held),
    },
    Row {
        name: "local/ingest",
        unit: "events/s",
        mark: AtLeast(0.5),
        rounds: 9,
        pair: || Box::new(local::Ingest::new()),
    },
    Row {
        name: "local/rows",
        unit: "us per event",
        mark: AtMost(2.5),
        rounds: 9,
        pair: || Box::new(continuous::Events::new(&continuous::OF_ROWS)),
    },
    Row {
        name: "local/distinct-known",
        unit: "us per event",
        mark: AtMost(3.0),
        rounds: 9,
        pair: || Box::new(continuous::Events::new(&continuous::OF_KNOWN_VALUES)),
    },
    Row {
        name: "local/distinct-new",
        unit: "us per event",
        mark: AtMost(1.5),
        rounds: 9,
        pair: || Box::new(continuous::Events::new(&continuous::OF_NEW_VALUES)),
    },
    Row {
        name: "local/window",
        unit: "us per event",
        mark: AtMost(2.0),
        rounds: 9,
        pair: || Box::new(continuous::Events::new(&continuous::OF_WINDOW)),
    },
    Row {
        name: "local/window-read",
        unit: "ms",
        mark: AtMost(2.0),
        rounds: 9,
        pair: || Box::new(continuous::Read::new()),
    },
    Row {
        name: "local/window-step",
        unit: "ms at most",
        mark: AtMost(1.0),
        rounds: 3,
        pair: || Box::new(continuous::Step),
    },
    Row {
        name: "idle/wakeups",
        unit: "in 5 s",
        mark: AtMost(0.0),
        rounds: 5,
        pair: || Box::new(idle::Idle::default()),
    },
];

/// How long `work` takes, in nanoseconds for each of `count`.
fn nanoseconds(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// How many of `count` there are in a second of `work`.
fn per_second(count: usize, work: impl FnOnce()) -> f64 {
    1e9 / nanoseconds(count, work)
}

/// A client of a sink.
fn client(sink: &Sink) -> Stride {
    let builder = Stride::builder("key").endpoint(&sink.endpoint()).no_proxy();
    builder.build().expect("the endpoint is good")
}

/// The same, asynchronous.
fn async_client(sink: &Sink) -> stride_async::Stride {
    let builder = stride_async::Stride::builder("key").endpoint(&sink.endpoint()).no_proxy();
    builder.build().expect("the endpoint is good")
}

/// One thread that sends, receives and waits.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("the operating system gives a runtime")
}
