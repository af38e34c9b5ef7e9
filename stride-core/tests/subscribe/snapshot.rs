//! Subscriptions to processes that begin with all rows.

use stride_core::api::RequestError;
use stride_core::subscribe::SubscribeOptions;

use super::*;

const ROWS: &str = "stride-snapshot";

fn requested() -> Bench {
    let mut bench = Bench::new(Reconnect::default(), 1);
    bench.subscription = bench.subscription.snapshot();
    assert!(matches!(bench.run(), Stop::Connect(0)));
    assert_eq!(bench.query.as_deref(), Some("snapshot=1"));
    bench
}

#[test]
fn the_end_of_a_snapshot_is_told_before_what_changed_since() {
    let mut bench = requested();
    bench.accept_with(&[(ROWS, "2")]);
    bench.bytes("{\"new\":1}\r\n{\"new\":2}\r\n{\"new\":3}\r\n");
    for expected in ["1", "2"] {
        assert!(matches!(bench.run(), Stop::Data(text) if text.contains(expected)));
    }
    assert!(matches!(bench.run(), Stop::SnapshotDone));
    assert!(matches!(bench.run(), Stop::Data(text) if text.contains('3')));
    assert!(matches!(bench.run(), Stop::Read));
    assert!(bench.subscription.position().is_none());
}

#[test]
fn each_connection_begins_with_a_snapshot_and_an_empty_one_ends_at_once() {
    let mut bench = requested();
    bench.accept_with(&[(ROWS, "2")]);
    // Cut off in the middle: the rest is not reported, because all of it comes again.
    bench.bytes("{\"new\":1}\r\n{\"new\"");
    assert!(matches!(bench.run(), Stop::Data(_)));
    bench.end(Ok(()));
    bench.reconnects();
    assert_eq!(bench.query.as_deref(), Some("snapshot=1"));
    assert_eq!(bench.accept_with(&[(ROWS, "0")]), Resumed::No);
    assert!(matches!(bench.run(), Stop::SnapshotDone));
    assert!(matches!(bench.run(), Stop::Read));
    assert_eq!(bench.subscription.malformed(), 0);
}

#[test]
fn a_row_of_another_type_is_a_row() {
    let mut bench = requested();
    bench.accept_with(&[(ROWS, "2")]);
    bench.bytes("{}\r\n5\r\n");
    let mut poll = || bench.subscription.poll_as::<u8>(bench.now);
    assert!(matches!(poll(), Step::Item(SubscriptionEvent::Malformed(FrameError::Mismatch(_)))));
    assert!(matches!(poll(), Step::Item(SubscriptionEvent::Data(5))));
    assert!(matches!(poll(), Step::Item(SubscriptionEvent::SnapshotDone)));
}

#[test]
fn a_server_that_makes_no_snapshots_sends_changes_alone() {
    let mut bench = requested();
    bench.accept();
    bench.bytes("{\"new\":1}\r\n");
    assert!(matches!(bench.run(), Stop::Data(_)));
    assert!(matches!(bench.run(), Stop::Read));
}

#[test]
fn a_snapshot_that_nobody_asked_for_is_none() {
    let mut bench = Bench::new(Reconnect::default(), 1);
    bench.run();
    bench.accept_with(&[(ROWS, "0")]);
    assert!(matches!(bench.run(), Stop::Read));
}

#[test]
fn a_snapshot_is_of_a_process_as_a_whole() {
    let api = Api::new("key").unwrap();
    let options = |path| SubscribeOptions::new(path, Limits::for_stream()).snapshot();
    assert!(options("/process/p").start(&api, 1).is_ok());
    for options in [
        options("/collect/s"),
        options("/process/p").sample(5),
        options("/process/p").after(Position::oldest()),
    ] {
        let error = options.start(&api, 1).unwrap_err();
        assert!(matches!(error, Error::Request(RequestError::Snapshot)), "{error:?}");
    }
}
