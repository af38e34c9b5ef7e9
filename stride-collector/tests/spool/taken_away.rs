//! Folders that are removed, and given to another, while a collector uses them.

#[cfg(unix)]
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::json;
use stride_collector::Target;
use stride_collector::spool::Spool;
use stride_core::cancel::CancelToken;
use stride_core::transport::Call;

use super::{Server, builder, files, start, wait_for};

#[cfg(unix)] // Elsewhere a folder with open files cannot be removed.
#[test]
fn a_folder_that_is_removed_while_in_use_leaves_events_in_memory_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    server.down.store(true, Ordering::SeqCst);
    let (collector, activities) = start(builder(Spool::write_ahead(dir.path())), &server);
    let collect = |from: u64| {
        for n in from..from + 100 {
            collector.collect("clicks", &json!({"n": n})).unwrap();
        }
    };
    collect(0);
    wait_for(&collector, &activities, |report| report.spooled == 100);
    assert!(!collector.stats().spool.failing);

    std::fs::remove_dir_all(dir.path()).unwrap();
    collect(100);
    wait_for(&collector, &activities, |_| collector.stats().spool.failing);
    let report = *collector.stats();
    assert_eq!((report.pending, report.spooled, report.lost()), (200, 100, 0), "{report}");

    server.down.store(false, Ordering::SeqCst);
    wait_for(&collector, &activities, |report| report.delivered == 200);
    let report = collector.stop();
    assert_eq!((report.pending, report.lost()), (0, 0), "{report}");
    assert_eq!(server.numbers(), (0..200).collect::<Vec<_>>());
}

/// The first collector gives up while its request is under way; the next one has the folder by then.
#[test]
fn a_slot_that_is_used_again_while_a_sender_still_sends_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (slow, goes_on) = (server.clone(), Mutex::new(goes_on));
    let transport = move |call: Call, _: CancelToken| {
        begun.send(()).unwrap();
        // Until the test says so.
        let _ = goes_on.lock().unwrap().recv();
        slow.take(&call)
    };
    let target = Target { transport: Arc::new(transport), ..server.target() };
    let first = builder(Spool::write_ahead(dir.path())).start(target).unwrap();
    for n in 0..100 {
        first.collect("clicks", &json!({"n": n})).unwrap();
    }
    has_begun.recv().unwrap();
    let report = first.stop_within(Duration::ZERO);
    assert_eq!((report.lost(), report.spooled), (0, report.pending), "{report}");

    let (second, activities) = start(builder(Spool::write_ahead(dir.path())), &server);
    for n in 100..200 {
        second.collect("clicks", &json!({"n": n})).unwrap();
    }
    drop(go_on);
    wait_for(&second, &activities, |report| report.delivered == 200);
    let report = second.stop();
    assert_eq!((report.recovered, report.lost(), report.pending), (100, 0, 0), "{report}");
    assert_eq!(second.stats().spool.damaged, 0);
    assert!(files(dir.path()).is_empty());
    // What the first sent although it had given up has the same `$id`s.
    for (n, ids) in &*server.stored.lock().unwrap() {
        assert!(ids.iter().all(|id| !id.is_empty() && *id == ids[0]), "{n}: {ids:?}");
    }
    assert_eq!(server.numbers(), (0..200).collect::<Vec<_>>());
}
