//! The regression guard: instructions that the call site and the frame decoder take, as counted by
//! callgrind. Unlike times, they repeat.
//!
//! Each case runs twice, with different numbers of events. The difference is what the further events
//! take; what a program needs to start and to end is not in it.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::process::{Command, Stdio};

use crate::event::{Event as _, Readme, Web};
use crate::row::{Held, compact, pretty, raw, typed};

/// What counts depend on beside the code: the compiler that built this, and which instructions the
/// processor has, by which libraries choose theirs.
#[must_use]
pub fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = if is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let features = "";
    format!("{} on {}-{}{features}", env!("STRIDE_RUSTC"), env::consts::ARCH, env::consts::OS)
}

/// How much a count may differ from the one that stands, either way. Better is a change, too: it
/// should be written down.
pub const TOLERANCE: f64 = 0.05;

/// Events of the shorter and the longer run. Both fill some batches.
const EVENTS: [usize; 2] = [4_000, 24_000];

/// A case: its name, and what runs it for so many events.
pub type Case = (&'static str, fn(usize));

/// All cases.
pub const CASES: &[Case] = &[
    ("collect/readme", |count| {
        let held = held_back();
        let stream = held.collector.stream("mystream").expect("the name is good");
        for id in 0..count as u64 {
            stream.collect(&Readme::new(id)).expect("there is room");
        }
        leave();
    }),
    ("collect/readme-by-name", |count| {
        let held = held_back();
        for id in 0..count as u64 {
            held.collector.collect("mystream", &Readme::new(id)).expect("there is room");
        }
        leave();
    }),
    ("collect/web", |count| {
        let held = held_back();
        let stream = held.collector.stream("mystream").expect("the name is good");
        for id in 0..count as u64 {
            stream.collect(&Web::new(id)).expect("there is room");
        }
        leave();
    }),
    // Making the body is in the count, too; so it is made before, for the longer run always.
    ("frames/compact", |count| {
        let body = compact(EVENTS[1]);
        let part: usize = body.split_inclusive('\n').take(count).map(str::len).sum();
        assert_eq!(typed(&body.as_bytes()[..part]), count);
    }),
    ("frames/pretty", |count| {
        let values = pretty(EVENTS[1]);
        let body = values.join("\r\n");
        let part: usize = values[..count].iter().map(|value| value.len() + 2).sum();
        assert_eq!(typed(&body.as_bytes()[..part.min(body.len())]), count);
    }),
    ("frames/raw", |count| {
        let body = compact(EVENTS[1]);
        let part: usize = body.split_inclusive('\n').take(count).map(str::len).sum();
        assert_eq!(raw(&body.as_bytes()[..part]), count);
    }),
];

/// A collector whose senders do nothing: what is counted then is the call site alone.
fn held_back() -> Held {
    let held = Held::new();
    held.hold(|event: &Readme| held.collector.collect("before", event));
    held
}

/// Ends the process; a collector would wait for its senders.
fn leave() {
    std::process::exit(0);
}

/// Whether valgrind can be run.
#[must_use]
pub fn has_valgrind() -> bool {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    valgrind.is_ok_and(|status| status.success())
}

/// How many instructions an event takes in a case of that name.
///
/// # Errors
///
/// valgrind failed, or says something else than it used to.
pub fn count(name: &str) -> io::Result<f64> {
    let [few, many] = EVENTS;
    let more = total(name, many)?.saturating_sub(total(name, few)?);
    Ok(more as f64 / (many - few) as f64)
}

fn total(name: &str, events: usize) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--run", name, &events.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said)
        .filter(|_| output.status.success())
        .ok_or_else(|| io::Error::other(format!("callgrind failed: {said}")))
}

/// The count in what callgrind says at its end.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?.1;
    line.trim().parse().ok()
}

/// The counts that stand, in a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored {
    /// What they hold for; see [`machine`].
    pub machine: String,
    /// Instructions per event, by case.
    pub counts: BTreeMap<String, f64>,
}

impl Stored {
    /// Reads the file's text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut stored = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.split_once(' ')?;
            if name == "machine" {
                stored.machine = value.trim().to_owned();
            } else {
                stored.counts.insert(name.to_owned(), value.trim().parse().ok()?);
            }
        }
        Some(stored)
    }

    /// The file's text.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = "# Instructions per event, by callgrind; see src/guard.rs. Written by\n\
                        # cargo run --release -p stride-bench --bin instructions -- --update\n"
            .to_owned();
        text += &format!("machine {}\n", self.machine);
        for (name, count) in &self.counts {
            text += &format!("{name} {count:.1}\n");
        }
        text
    }
}

/// By how much a count differs from the one that stands, if that is too much.
#[must_use]
pub fn excess(count: f64, stood: f64) -> Option<f64> {
    let change = count / stood - 1.0;
    (change.abs() > TOLERANCE).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let counts = [("a/b".to_owned(), 12.5), ("c".to_owned(), 700.0)].into();
        let stored = Stored { machine: "rustc 1.95.0 (598 2026) on z80-cpm".to_owned(), counts };
        assert_eq!(Stored::parse(&stored.write()), Some(stored));
    }

    #[test]
    fn every_case_has_a_count_that_stands() {
        let stored = Stored::parse(include_str!("../instructions.txt")).unwrap();
        assert!(!stored.machine.is_empty());
        let names: Vec<&str> = stored.counts.keys().map(String::as_str).collect();
        let mut cases: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        cases.sort_unstable();
        assert_eq!(names, cases);
    }

    #[test]
    fn callgrind_is_understood() {
        let said = "==7== Events    : Ir\n==7== Collected : 227421\n==7== \n";
        assert_eq!(collected(said), Some(227_421));
    }

    #[test]
    fn a_change_may_be_too_much_either_way() {
        assert_eq!(excess(104.0, 100.0), None);
        assert!(excess(106.0, 100.0).is_some_and(|change| change > 0.0));
        assert!(excess(94.0, 100.0).is_some_and(|change| change < 0.0));
    }
}
