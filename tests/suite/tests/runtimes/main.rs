//! Collectors where they run: on threads, or as tasks of every kind of tokio runtime;
//! and what each does when that runtime is shut down under it.

mod host;
mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use stride_collector::{CollectError, LossReason, Report, StreamHandle};
use stride_local::{Fault, Local};
use stride_tests::suite;
use tokio::sync::oneshot;

use self::host::{Either, Host, Runtime, Settings};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

const EVENTS: u64 = 5000;

suite! {
    {
        threads: Host::Threads,
        current_thread: Host::Tasks { workers: 0 },
        one_worker: Host::Tasks { workers: 1 },
        four_workers: Host::Tasks { workers: 4 },
    }
    [
        events_arrive_without_a_flush,
        a_flush_waits_until_all_is_settled,
        a_flush_keeps_its_limit,
        a_stop_delivers_and_ends,
        a_stop_keeps_its_limit,
        dropping_the_last_handle_loses_nothing,
        the_runtime_ends_while_there_is_no_response,
        the_runtime_ends_under_a_flush,
        the_runtime_ends_before_the_last_handle,
    ]
}

/// A Stride, a runtime, a collector that was started in it, and the losses as they were handed over.
struct Rig {
    host: Host,
    local: Local,
    runtime: Runtime,
    collector: Either,
    lost: Arc<AtomicU64>,
}

impl Rig {
    fn start(host: Host, request_timeout: Duration) -> Self {
        let local = Local::start().unwrap();
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        let settings = Settings {
            request_timeout,
            flush_interval: Duration::from_millis(250),
            on_lost: Box::new(move |loss| {
                counted.fetch_add(loss.count as u64, Ordering::SeqCst);
            }),
        };
        let runtime = Runtime::for_host(host);
        let collector =
            Either::start(host, &runtime, local.secret_key(), &local.endpoint(), settings);
        Self { host, local, runtime, collector, lost }
    }

    /// Collects half of the events on this thread, and half in a task.
    fn collect(&self) {
        let stream = self.collector.stream();
        let in_a_task = stream.clone();
        let collect = |stream: &StreamHandle| {
            for id in 0..EVENTS / 2 {
                stream.collect(&json!({"id": id, "bojack": "horseman"})).unwrap();
            }
        };
        let task = self.runtime.handle.spawn(async move { collect(&in_a_task) });
        collect(&stream);
        self.runtime.handle.block_on(task).unwrap();
    }

    fn arrived(&self, events: u64) -> bool {
        self.local.wait_until(MINUTE, |local| local.count("mystream").unwrap() >= events)
    }

    /// Compares a report with what can be seen from outside.
    fn check(&self, report: Report) {
        assert_eq!(report.accepted, EVENTS);
        assert_eq!(report.accepted, report.delivered + report.lost() + report.pending);
        assert_eq!(self.lost.load(Ordering::SeqCst), report.lost(), "what is lost is handed over");
        assert!(self.local.count("mystream").unwrap() >= report.delivered);
    }

    fn is_stopped(&self) -> bool {
        matches!(self.collector.stream().collect(&json!({})), Err(CollectError::Stopped))
    }
}

fn events_arrive_without_a_flush(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.collect();
    assert!(rig.arrived(EVENTS));
    let report = rig.collector.flush_within(&rig.runtime.handle, MINUTE);
    assert_eq!((report.delivered, report.pending), (EVENTS, 0));
    rig.check(report);
}

fn a_flush_waits_until_all_is_settled(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.local.fault_times(Fault::Status { every: 1, status: 503, retry_after: None }, 2);
    rig.local.fault_times(Fault::ResetBeforeRead, 1);
    rig.collect();
    let report = rig.collector.flush_within(&rig.runtime.handle, MINUTE);
    assert_eq!((report.delivered, report.pending), (EVENTS, 0));
    rig.check(report);
    assert_eq!(rig.local.count("mystream").unwrap(), EVENTS);
}

fn a_flush_keeps_its_limit(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.local.fault(Fault::Stall);
    rig.collect();
    let report = rig.collector.flush_within(&rig.runtime.handle, Duration::from_millis(200));
    assert_eq!((report.lost(), report.pending), (0, EVENTS));
    rig.check(report);
}

fn a_stop_delivers_and_ends(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.collect();
    let report = rig.collector.stop_within(&rig.runtime.handle, MINUTE);
    assert_eq!((report.delivered, report.pending), (EVENTS, 0));
    rig.check(report);
    assert!(rig.is_stopped());
    assert_eq!(rig.collector.stop_within(&rig.runtime.handle, MINUTE), report, "once is enough");
}

fn a_stop_keeps_its_limit(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.local.fault(Fault::Stall);
    rig.collect();
    let report = rig.collector.stop_within(&rig.runtime.handle, Duration::from_millis(200));
    assert_eq!((report.lost(), report.pending), (EVENTS, 0));
    rig.check(report);
}

fn dropping_the_last_handle_loses_nothing(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.collect();
    let Rig { local, runtime, collector, .. } = rig;
    drop(collector);
    assert!(local.wait_until(MINUTE, |local| local.count("mystream").unwrap() == EVENTS));
    runtime.end();
}

fn the_runtime_ends_while_there_is_no_response(host: Host) {
    // Threads try again after this; tasks do not live to see it.
    let rig = Rig::start(host, Duration::from_secs(1));
    rig.local.fault_times(Fault::Stall, 2);
    rig.collect();
    assert!(rig.local.wait_until(MINUTE, |local| local.requests() >= 2));
    let Rig { host, local, runtime, collector, lost } = rig;
    runtime.end();
    let runtime = Runtime::start(0);
    let rig = Rig { host, local, runtime, collector, lost };
    if host == Host::Threads {
        let report = rig.collector.stop_within(&rig.runtime.handle, MINUTE);
        assert_eq!(report.delivered, EVENTS, "threads need no runtime");
        rig.check(report);
    } else {
        let report = rig.collector.stats();
        let stopped =
            report.lost_by(LossReason::Stopped, stride_core::transport::Delivery::MaybeSent);
        assert!(stopped >= 1000, "{report}");
        assert_eq!((report.lost(), report.pending), (EVENTS, 0));
        rig.check(report);
        assert!(rig.is_stopped());
        // There is nothing to wait for, in whatever runtime.
        assert_eq!(rig.collector.flush_within(&rig.runtime.handle, MINUTE), report);
        assert_eq!(rig.collector.stop_within(&rig.runtime.handle, MINUTE), report);
    }
}

fn the_runtime_ends_under_a_flush(host: Host) {
    let rig = Rig::start(host, Duration::from_secs(1));
    rig.local.fault_times(Fault::Stall, 2);
    rig.collect();
    let flushing = rig.collector.clone();
    let (begun, has_begun) = oneshot::channel();
    let task = rig.runtime.handle.spawn(async move {
        let _ = begun.send(());
        match flushing {
            // A flush that blocks belongs on a thread.
            Either::Threads(collector) => {
                tokio::task::spawn_blocking(move || collector.flush_within(MINUTE)).await.ok()
            }
            Either::Tasks(collector) => Some(collector.flush_within(MINUTE).await),
        }
    });
    rig.runtime.handle.block_on(has_begun).unwrap();
    let Rig { host, local, runtime, collector, lost } = rig;
    runtime.end();
    assert!(task.is_finished());
    let runtime = Runtime::start(0);
    let rig = Rig { host, local, runtime, collector, lost };
    let report = rig.collector.stop_within(&rig.runtime.handle, MINUTE);
    assert_eq!(report.pending, 0);
    rig.check(report);
}

fn the_runtime_ends_before_the_last_handle(host: Host) {
    let rig = Rig::start(host, MINUTE);
    rig.local.fault(Fault::Refuse);
    rig.collect();
    let Rig { host, runtime, collector, lost, .. } = rig;
    runtime.end();
    let pending = collector.stats().pending;
    // Without a runtime around it, which it must not need.
    drop(collector);
    if host == Host::Threads {
        assert_eq!(pending, EVENTS);
    } else {
        assert_eq!((pending, lost.load(Ordering::SeqCst)), (0, EVENTS));
    }
}
