//! What a collector does with files that it finds: many of them, those of a later version, and those of a
//! clock that was wrong.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::json;
use stride_collector::spool::Spool;
use stride_collector::spool::record::{Record, SegmentHeader, State, encode, segment_name};
use stride_collector::spool::slot::{Slots, boot, hash};
use stride_collector::{Delivery, LossReason, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::Call;

use super::{Server, builder, files, start, wait_for};

const SALT: u64 = 77;

/// The time of now, as records have it.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Makes a slot of the tests' endpoint in this folder, and gives it back.
fn slot(dir: &Path) -> PathBuf {
    Slots::open(dir, endpoint()).unwrap().own.path().to_owned()
}

fn endpoint() -> u64 {
    hash(Api::new("secret").unwrap().base())
}

fn header(number: u64) -> SegmentHeader {
    SegmentHeader { number, salt: SALT, endpoint: endpoint(), boot: boot() }
}

/// A segment with one event to a record, each with its state and time.
fn segment(number: u64, records: impl IntoIterator<Item = (u64, State, u64)>) -> Vec<u8> {
    let mut bytes = header(number).encode().to_vec();
    for (sequence, (n, state, time)) in records.into_iter().enumerate() {
        let json = json!([{"n": n, "$id": n.to_string()}]).to_string();
        let from = bytes.len();
        let record = Record {
            sequence: sequence as u64,
            stream: "clicks",
            count: 1,
            length: json.len() as u32,
            time,
            gzipped: &Gzip::new(GzipLevel::FASTEST).compress([json.as_bytes()]),
        };
        encode(&record, SALT, &mut bytes);
        bytes[from..from + 8].copy_from_slice(&state.to_bytes());
    }
    bytes
}

/// The files of the spool that this process has open.
#[cfg(target_os = "linux")]
fn open_segments(dir: &Path) -> Vec<String> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let paths = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    let here = paths.filter(|path| path.starts_with(dir));
    let mut names: Vec<_> =
        here.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| name.ends_with("segment"));
    names
}

/// As many as 10 GB are: the first request is sent when one was looked into.
#[cfg(target_os = "linux")]
#[test]
fn a_start_with_700_segments_sends_before_it_has_looked_into_the_second() {
    const SEGMENTS: u64 = 700;
    const RECORDS: u64 = 30;
    let dir = tempfile::tempdir().unwrap();
    let slot = slot(dir.path());
    for number in 1..=SEGMENTS {
        let numbers = (number - 1) * RECORDS..number * RECORDS;
        let bytes = segment(number, numbers.map(|n| (n, State::Written, now())));
        std::fs::write(slot.join(segment_name(number)), bytes).unwrap();
    }

    let server = Server::default();
    let first: Arc<Mutex<Option<Vec<String>>>> = Arc::default();
    let (seen, looked, path) = (server.clone(), Arc::clone(&first), dir.path().to_owned());
    let transport = move |call: Call, _: CancelToken| {
        looked.lock().unwrap().get_or_insert_with(|| open_segments(&path));
        seen.take(&call)
    };
    let (sender, activities) = std::sync::mpsc::channel();
    let collector = builder(Spool::overflow(dir.path()))
        .observer(move |activity| drop(sender.send(activity.clone())))
        .start(Target { transport: Arc::new(transport), ..server.target() })
        .unwrap();
    wait_for(&collector, &activities, |report| report.delivered == SEGMENTS * RECORDS);
    assert_eq!(first.lock().unwrap().as_deref(), Some(&[segment_name(1)][..]));
    let report = collector.stop();
    assert_eq!((report.recovered, report.lost()), (SEGMENTS * RECORDS, 0), "{report}");
    assert!(files(dir.path()).is_empty());
}

/// CRC-32, by its definition.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn what_was_done_is_not_sent_again_and_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let slot = slot(dir.path());
    let states = [State::Done, State::Written, State::Done, State::MaybeSent, State::Done];
    let records = (0..).zip(states).map(|(n, state)| (n, state, now()));
    std::fs::write(slot.join(segment_name(1)), segment(1, records)).unwrap();
    // Whoever goes back to this version finds what the next one wrote.
    let mut later = segment(2, [(100, State::Written, now())]);
    later[12] = 2;
    let checksum = crc32(&later[12..64]);
    later[8..12].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(slot.join(segment_name(2)), &later).unwrap();

    let server = Server::default();
    let (collector, activities) = start(builder(Spool::write_ahead(dir.path())), &server);
    collector.collect("clicks", &json!({"n": 5})).unwrap();
    wait_for(&collector, &activities, |report| report.delivered == 3);
    let report = collector.stop();
    assert_eq!((report.recovered, report.lost(), report.pending), (2, 0, 0), "{report}");
    assert_eq!(server.numbers(), [1, 3, 5]);
    assert_eq!(files(dir.path()), [segment_name(2)]);
    assert_eq!(std::fs::read(slot.join(segment_name(2))).unwrap(), later);
}

#[test]
fn a_clock_that_goes_back_makes_no_event_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let slot = slot(dir.path());
    let (day, year) = (24 * 3600 * 1000, 365 * 24 * 3600 * 1000);
    // Written when the clock was ahead; the last one is really old.
    let times = [now() + 1000, now() + 10 * year, u64::MAX, now() - 6 * day, now() - 8 * day];
    let records = (0..).zip(times).map(|(n, time)| (n, State::Written, time));
    std::fs::write(slot.join(segment_name(1)), segment(1, records)).unwrap();

    let server = Server::default();
    let spool = Spool::overflow(dir.path()).max_age(Duration::from_secs(7 * 24 * 3600));
    let (collector, activities) = start(builder(spool), &server);
    wait_for(&collector, &activities, |report| report.recovered == 5 && report.pending == 0);
    let report = collector.stop();
    assert_eq!(server.numbers(), [0, 1, 2, 3]);
    assert_eq!(report.lost_by(LossReason::Expired, Delivery::NotSent), 1, "{report}");
    assert_eq!((report.delivered, report.lost()), (4, 1), "{report}");
    assert!(files(dir.path()).is_empty());
}
