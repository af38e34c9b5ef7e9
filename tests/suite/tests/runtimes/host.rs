//! Collectors of both kinds as one type, and the runtimes that they run on.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use stride_collector::{AsyncCollector, Builder, Collector, LostBatch, Report, StreamHandle};
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

/// What a collector runs on.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Host {
    /// Threads, over ureq.
    Threads,
    /// Tasks, over hyper; on a current-thread runtime if there are no workers.
    Tasks { workers: usize },
}

/// A runtime that a thread drives until it is told to end.
pub(crate) struct Runtime {
    pub(crate) handle: Handle,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Runtime {
    pub(crate) fn start(workers: usize) -> Self {
        let mut builder = match workers {
            0 => runtime::Builder::new_current_thread(),
            _ => runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(workers.max(1)).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let _ = runtime.block_on(ended);
        });
        Self { handle, end, thread }
    }

    pub(crate) fn for_host(host: Host) -> Self {
        Self::start(match host {
            Host::Threads => 0,
            Host::Tasks { workers } => workers,
        })
    }

    /// Shuts it down, and waits until all of its tasks are gone.
    pub(crate) fn end(self) {
        drop(self.end);
        self.thread.join().unwrap();
    }
}

/// A collector of either kind.
#[derive(Clone)]
pub(crate) enum Either {
    Threads(Collector),
    Tasks(AsyncCollector),
}

/// Settings of a collector of either kind.
pub(crate) struct Settings {
    pub(crate) request_timeout: Duration,
    pub(crate) flush_interval: Duration,
    pub(crate) on_lost: Box<dyn Fn(&LostBatch) + Send + Sync>,
}

impl Settings {
    fn apply<C>(self, builder: Builder<C>) -> Builder<C> {
        let Self { request_timeout, flush_interval, on_lost } = self;
        builder.request_timeout(request_timeout).flush_interval(flush_interval).on_lost(on_lost)
    }
}

impl Either {
    pub(crate) fn start(
        host: Host,
        runtime: &Runtime,
        key: &str,
        endpoint: &str,
        settings: Settings,
    ) -> Self {
        runtime.handle.block_on(async {
            match host {
                Host::Threads => {
                    let builder = stride_blocking::Stride::builder(key).endpoint(endpoint);
                    let stride = builder.build().unwrap();
                    let builder = settings.apply(Collector::builder());
                    Self::Threads(builder.start(&stride).unwrap())
                }
                Host::Tasks { .. } => {
                    let builder = stride_async::Stride::builder(key).endpoint(endpoint);
                    let stride = builder.build().unwrap();
                    let builder = settings.apply(AsyncCollector::builder());
                    Self::Tasks(builder.start(&stride).unwrap())
                }
            }
        })
    }

    pub(crate) fn stream(&self) -> StreamHandle {
        match self {
            Self::Threads(collector) => collector.stream("mystream").unwrap(),
            Self::Tasks(collector) => collector.stream("mystream").unwrap(),
        }
    }

    pub(crate) fn stats(&self) -> Report {
        match self {
            Self::Threads(collector) => *collector.stats(),
            Self::Tasks(collector) => *collector.stats(),
        }
    }

    pub(crate) fn flush_within(&self, runtime: &Handle, limit: Duration) -> Report {
        match self {
            Self::Threads(collector) => collector.flush_within(limit),
            Self::Tasks(collector) => runtime.block_on(collector.flush_within(limit)),
        }
    }

    pub(crate) fn stop_within(&self, runtime: &Handle, limit: Duration) -> Report {
        match self {
            Self::Threads(collector) => collector.stop_within(limit),
            Self::Tasks(collector) => runtime.block_on(collector.stop_within(limit)),
        }
    }
}
