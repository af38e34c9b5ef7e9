//! The whole way: from the first `collect` to the last answer, over loopback.

use std::time::Duration;

use serde::Serialize;
use stride_collector::{CollectError, Collector, StreamHandle};

use crate::event;
use crate::measure::Pair;
use crate::outline::Outline;
use crate::row::{client, per_second};
use crate::sink::Sink;

/// 120 MB: more than a collector may hold, so that it is the whole way that counts.
const READMES: usize = 4_000_000;

/// 136 MB.
const WEBS: usize = 400_000;

/// Longer than a row takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A collector and the outline, each before the same sink.
struct Pipeline {
    collector: Collector,
    stream: StreamHandle,
    outline: Option<Outline>,
    // The sink ends after those that send to it.
    _sink: Sink,
}

impl Pipeline {
    fn new() -> Self {
        let sink = Sink::start();
        let collector = Collector::start(&client(&sink)).expect("there are threads");
        let stream = collector.stream("mystream").expect("the name is good");
        let outline = Some(Outline::start(sink.port()));
        Self { collector, stream, outline, _sink: sink }
    }

    fn ours<T: Serialize>(&self, count: usize, event: impl Fn(u64) -> T) -> f64 {
        per_second(count, || {
            for id in 0..count as u64 {
                let event = event(id);
                match self.stream.collect(&event) {
                    Err(CollectError::Full) => self.stream.collect_timeout(&event, PATIENCE),
                    result => result,
                }
                .expect("there is room");
            }
            let report = self.collector.flush();
            assert_eq!(report.delivered, report.accepted, "the sink takes everything");
        })
    }

    fn limit<T: Serialize>(&self, count: usize, event: impl Fn(u64) -> T) -> f64 {
        let outline = self.outline.as_ref().expect("it runs");
        per_second(count, || {
            for id in 0..count as u64 {
                outline.collect(&event(id));
            }
            outline.flush();
        })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let stopped = self.outline.take().map(Outline::stop);
        assert!(stopped.is_none_or(|stopped| stopped.is_ok()), "a sender failed");
    }
}

/// Event (a).
pub(super) struct Readme(Pipeline);

impl Readme {
    pub(super) fn new() -> Self {
        Self(Pipeline::new())
    }
}

impl Pair for Readme {
    fn ours(&mut self) -> f64 {
        self.0.ours(READMES, event::Readme::new)
    }

    fn limit(&mut self) -> f64 {
        self.0.limit(READMES, event::Readme::new)
    }
}

/// Event (b).
pub(super) struct Web(Pipeline);

impl Web {
    pub(super) fn new() -> Self {
        Self(Pipeline::new())
    }
}

impl Pair for Web {
    fn ours(&mut self) -> f64 {
        self.0.ours(WEBS, event::Web::new)
    }

    fn limit(&mut self) -> f64 {
        self.0.limit(WEBS, event::Web::new)
    }
}
