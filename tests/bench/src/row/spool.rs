//! What a spool costs, and how fast it is sent.

use std::marker::PhantomData;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use stride_collector::spool::Spool;
use stride_collector::{CollectError, Collector, Delivery, StreamHandle, Target};
use stride_core::cancel::CancelToken;
use stride_core::http;
use stride_core::transport::{Body, Call, TransportError, TransportErrorKind};
use tempfile::TempDir;

use super::pipeline::{self, PATIENCE};
use crate::event::{Event, Web};
use crate::measure::Pair;
use crate::row::client;
use crate::sink::Sink;

/// What a drain has to reach, in MB of JSON per second.
const DRAIN: f64 = 200.0;

/// A folder on the disk that this program lies on: where temporary files go may be in memory.
fn folder() -> TempDir {
    let program = std::env::current_exe().expect("the program has a path");
    let beside = program.parent().expect("it lies in a folder");
    tempfile::tempdir_in(beside).expect("the folder can be written to")
}

/// A collector that writes ahead and syncs each batch, and the same without a spool.
pub(super) struct WriteAhead<E> {
    spooled: (Collector, StreamHandle),
    bare: (Collector, StreamHandle),
    _folder: TempDir,
    // The sink ends after those that send to it.
    _sink: Sink,
    event: PhantomData<E>,
}

impl<E> WriteAhead<E> {
    pub(super) fn new() -> Self {
        let (sink, folder) = (Sink::start(), folder());
        let start = |builder: stride_collector::Builder| {
            let collector = builder.start(client(&sink)).expect("there are threads and a disk");
            let stream = collector.stream("mystream").expect("the name is good");
            (collector, stream)
        };
        // Both stamp: otherwise the other would send shorter events.
        let builder = || Collector::builder().stamp(true);
        let spooled = start(builder().spool(Spool::write_ahead(folder.path())));
        let bare = start(builder());
        Self { spooled, bare, _folder: folder, _sink: sink, event: PhantomData }
    }
}

impl<E: Event> Pair for WriteAhead<E> {
    fn ours(&mut self) -> f64 {
        pipeline::rate::<E>(&self.spooled.0, &self.spooled.1)
    }

    fn limit(&mut self) -> f64 {
        pipeline::rate::<E>(&self.bare.0, &self.bare.1)
    }
}

/// Events that are on disk, until a new collector has sent them.
pub(super) struct Drain {
    folder: TempDir,
    sink: Sink,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self { folder: folder(), sink: Sink::start() }
    }

    /// Leaves events on disk; gives how many.
    fn fill(&self) -> u64 {
        let transport = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
            Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent))
        };
        let api = Target::from(client(&self.sink)).api;
        let collector = Collector::builder()
            .spool(Spool::overflow(self.folder.path()))
            .start(Target { api, transport: Arc::new(transport) })
            .expect("there are threads and a disk");
        for event in pipeline::events::<Web>() {
            match collector.collect("mystream", &event) {
                Err(CollectError::Full) => collector.collect_timeout("mystream", &event, PATIENCE),
                result => result,
            }
            .expect("there is room on disk");
        }
        let report = collector.stop_within(Duration::ZERO);
        assert_eq!(report.spooled, report.accepted, "all is on disk");
        report.spooled
    }
}

impl Pair for Drain {
    fn ours(&mut self) -> f64 {
        let events = self.fill();
        let (sender, receiver) = mpsc::channel();
        let builder =
            Collector::builder().spool(Spool::overflow(self.folder.path())).observer(move |_| {
                // Nobody listens any more once all is delivered.
                let _ = sender.send(());
            });
        let start = Instant::now();
        let collector = builder.start(client(&self.sink)).expect("there are threads and a disk");
        while collector.stats().delivered < events {
            receiver.recv_timeout(PATIENCE).expect("the sink takes everything");
        }
        let seconds = start.elapsed().as_secs_f64();
        let megabytes = collector.stats().json_bytes as f64 / 1e6;
        let report = collector.stop();
        assert_eq!((report.delivered, report.pending), (events, 0), "each is sent once");
        megabytes / seconds
    }

    fn limit(&mut self) -> f64 {
        DRAIN
    }
}
