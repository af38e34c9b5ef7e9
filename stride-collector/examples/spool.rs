//! Looks into the folder of a spool.
//!
//!     cargo run -p stride-collector --features spool --example spool -- ls DIR
//!     cargo run -p stride-collector --features spool --example spool -- check DIR
//!
//! `ls` lists the slots: whether a process holds them, and what is not delivered yet. `check` reads everything
//! and lists what is damaged; if anything is, it exits with 1. Neither changes anything, and both may run
//! beside the processes that use the folder.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use stride_collector::spool::record::{BadHeader, HEADER, Next, SegmentHeader, State, next};
use stride_collector::spool::slot::{LOCK, parse_name};

/// Part of a segment that cannot be read.
struct Damage {
    offset: usize,
    len: usize,
    records: u64,
    events: Option<u64>,
}

/// What is in a segment, or in all of a slot.
#[derive(Default)]
struct Contents {
    bytes: usize,
    written: u64,
    maybe_sent: u64,
    done: u64,
    /// Events that are not done.
    events: u64,
    /// When the oldest batch that is not done was sealed, in ms since 1970.
    oldest: Option<u64>,
    damage: Vec<Damage>,
    /// The bytes behind the last record, which were never written completely.
    torn: usize,
}

impl Contents {
    fn read(file: &[u8]) -> Result<Self, BadHeader> {
        let salt = SegmentHeader::decode(file)?.salt;
        let mut contents = Self { bytes: file.len(), ..Self::default() };
        let (mut offset, mut expected, mut damaged) = (HEADER, None, 0);
        loop {
            match next(&file[offset..], true, salt) {
                Next::Found(found) => {
                    // How many there were before it is known exactly by their sequence.
                    let missing = expected.map_or(0, |it| found.sequence.saturating_sub(it));
                    if let Some(last) = contents.damage.last_mut() {
                        last.records += missing.saturating_sub(damaged);
                    }
                    damaged = 0;
                    expected = Some(found.sequence + 1);
                    match found.state {
                        State::Written => contents.written += 1,
                        State::MaybeSent => contents.maybe_sent += 1,
                        State::Done => contents.done += 1,
                    }
                    if found.state != State::Done {
                        contents.events += u64::from(found.count);
                        contents.oldest =
                            Some(contents.oldest.map_or(found.time, |it| it.min(found.time)));
                    }
                    offset += found.len;
                }
                Next::Damage { len, records, events } => {
                    damaged += records;
                    contents.damage.push(Damage { offset, len, records, events });
                    offset += len;
                }
                Next::More(_) | Next::End => break,
            }
        }
        contents.torn = file.len() - offset;
        Ok(contents)
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.written += other.written;
        self.maybe_sent += other.maybe_sent;
        self.done += other.done;
        self.events += other.events;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }
}

/// The folders of collectors, in order.
fn slots(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut slots = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| parse_name(name).is_some()) {
            slots.push(entry.path());
        }
    }
    slots.sort();
    Ok(slots)
}

/// The segments of a slot, those that are kept aside included, in order. What was removed meanwhile is left
/// out.
fn segments(slot: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(slot)? {
        let path = entry?.path();
        if path.to_string_lossy().contains(".segment") {
            match fs::read(&path) {
                Ok(bytes) => segments.push((path, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    segments.sort();
    Ok(segments)
}

/// Whether a process holds the slot. To find out, it is locked for a moment: a collector that starts in this
/// moment takes another.
fn status(slot: &Path) -> &'static str {
    match File::open(slot.join(LOCK)).map(|lock| lock.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => "held",
        Ok(_) => "free",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "free",
        Err(_) => "?",
    }
}

fn ls(dir: &Path) -> Result<String, Failure> {
    let mut list = format!(
        "{:<24} {:<6} {:>8} {:>8} {:>10} {:>8} {:>10} {:>12} {:>8} OLDEST\n",
        "SLOT", "STATUS", "SEGMENTS", "WRITTEN", "MAYBE SENT", "DONE", "EVENTS", "BYTES", "DAMAGED"
    );
    for slot in slots(dir)? {
        let (mut all, mut count, mut damaged) = (Contents::default(), 0, 0);
        for (_, bytes) in segments(&slot)? {
            count += 1;
            match Contents::read(&bytes) {
                Ok(contents) => {
                    all.add(&contents);
                    damaged += u32::from(!contents.damage.is_empty());
                }
                Err(_) => damaged += 1,
            }
        }
        let oldest = all.oldest.and_then(|time| Timestamp::from_millisecond(time as i64).ok());
        writeln!(
            list,
            "{:<24} {:<6} {count:>8} {:>8} {:>10} {:>8} {:>10} {:>12} {damaged:>8} {}",
            slot.file_name().unwrap_or_default().display(),
            status(&slot),
            all.written,
            all.maybe_sent,
            all.done,
            all.events,
            all.bytes,
            oldest.map_or_else(|| "-".to_owned(), |time| time.to_string()),
        )?;
    }
    Ok(list)
}

/// The list, and whether anything is damaged.
fn check(dir: &Path) -> Result<(String, bool), Failure> {
    let (mut list, mut all, mut count, mut is_damaged) =
        (String::new(), Contents::default(), 0, false);
    for slot in slots(dir)? {
        for (path, bytes) in segments(&slot)? {
            let path = path.display();
            count += 1;
            let contents = match Contents::read(&bytes) {
                Ok(contents) => contents,
                Err(error) => {
                    is_damaged = true;
                    writeln!(list, "{path}: {error}")?;
                    continue;
                }
            };
            for Damage { offset, len, records, events } in &contents.damage {
                is_damaged = true;
                let events = events.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                writeln!(
                    list,
                    "{path}: {len} bytes are damaged at {offset}: records {records}, events {events}"
                )?;
            }
            if contents.torn > 0 {
                let torn = contents.torn;
                writeln!(list, "{path}: the last {torn} bytes were never written completely")?;
            }
            all.add(&contents);
        }
    }
    let records = all.written + all.maybe_sent + all.done;
    let bytes = all.bytes;
    writeln!(list, "{count} segments of {bytes} bytes with {records} whole records were read")?;
    Ok((list, is_damaged))
}

/// Why nothing can be said.
#[derive(Debug)]
struct Failure(String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<fmt::Error> for Failure {
    fn from(error: fmt::Error) -> Self {
        Self(error.to_string())
    }
}

fn run(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let usage = || Err(Failure("usage: spool ls DIR, or spool check DIR".to_owned()));
    let [verb, dir] = arguments else { return usage() };
    let dir = Path::new(dir);
    let (list, is_damaged) = match verb.to_str() {
        Some("ls") => (ls(dir)?, false),
        Some("check") => check(dir)?,
        _ => return usage(),
    };
    print!("{list}");
    Ok(ExitCode::from(u8::from(is_damaged)))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    run(&arguments).unwrap_or_else(|Failure(message)| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}

#[cfg(test)]
mod tests {
    use stride_collector::spool::disk::Disk as _;
    use stride_collector::spool::record::{Record, encode, segment_name};
    use stride_collector::spool::slot::Slots;

    use super::*;

    /// A segment of so many records, and where they begin.
    fn segment(records: u64) -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader { number: 1, salt: 5, endpoint: 0xabc, boot: 0 };
        let (mut bytes, mut offsets) = (header.encode().to_vec(), Vec::new());
        for sequence in 0..records {
            offsets.push(bytes.len());
            let (stream, time) = ("clicks", 1_700_000_000_000 + sequence);
            let record =
                Record { sequence, stream, count: 10, length: 99, time, gzipped: &[7; 100] };
            encode(&record, header.salt, &mut bytes);
        }
        (bytes, offsets)
    }

    /// A held slot with a segment of three records, of which the last is done.
    fn spool(dir: &Path) -> (Slots, Vec<usize>) {
        let slots = Slots::open(dir, 0xabc).unwrap();
        let (mut bytes, offsets) = segment(3);
        bytes[offsets[2]..][..8].copy_from_slice(&State::Done.to_bytes());
        let folder = slots.own.folder();
        folder.create(&segment_name(1)).unwrap();
        folder.write_at(&segment_name(1), 0, &bytes).unwrap();
        (slots, offsets)
    }

    #[test]
    fn slots_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (slots, _) = spool(dir.path());
        let words = || -> Vec<String> {
            let list = ls(dir.path()).unwrap();
            list.lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect()
        };
        let mut expected = [
            "0000000000000abc-0",
            "held",
            "1",
            "2",
            "0",
            "1",
            "20",
            "568",
            "0",
            "2023-11-14T22:13:20Z",
        ];
        assert_eq!(words(), expected);
        drop(slots);
        expected[1] = "free";
        assert_eq!(words(), expected);
    }

    #[test]
    fn records_in_a_hole_are_counted_by_their_sequence() {
        let (mut bytes, offsets) = segment(5);
        bytes[offsets[1]..offsets[4]].fill(0);
        let contents = Contents::read(&bytes).unwrap();
        let damage: Vec<_> = contents.damage.iter().map(|it| (it.offset, it.records)).collect();
        assert_eq!((contents.written, damage), (2, vec![(offsets[1], 3)]));
    }

    #[test]
    fn damage_is_listed_and_told_by_the_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let (slots, offsets) = spool(dir.path());
        let (list, is_damaged) = check(dir.path()).unwrap();
        assert_eq!(list, "1 segments of 568 bytes with 3 whole records were read\n");
        assert!(!is_damaged);
        let run = |verb: &str| run(&[verb.into(), dir.path().into()]).unwrap();
        assert_eq!(run("check"), ExitCode::SUCCESS);

        let folder = slots.own.folder();
        folder.write_at(&segment_name(1), offsets[0] as u64 + 150, b"!").unwrap();
        folder.write_at(&segment_name(1), offsets[1] as u64 + 20, b"!").unwrap();
        folder.write_at(&segment_name(1), 568, b"torn").unwrap();
        let (list, is_damaged) = check(dir.path()).unwrap();
        assert!(is_damaged);
        assert_eq!(run("check"), ExitCode::from(1));
        let lines: Vec<_> =
            list.lines().map(|line| line.rsplit_once("segment").unwrap().1).collect();
        assert_eq!(
            lines,
            [
                ": 168 bytes are damaged at 64: records 1, events 10",
                ": 168 bytes are damaged at 232: records 1, events unknown",
                ": the last 4 bytes were never written completely",
                "s of 572 bytes with 1 whole records were read",
            ]
        );
    }
}
