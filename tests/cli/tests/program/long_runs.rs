//! Imports that are killed, cut off from their server, and larger than memory.
#![expect(clippy::print_stdout, reason = "figures and seeds are to be read")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use stride_blocking::Stride;
use stride_collector::{CollectError, Collector};
use stride_local::{Fault, Local};

use crate::child::{HUNG, Program, stride};
use crate::imports::{Given, stored};

/// Long runs come one after another: each uses the whole machine, and a ratio is of two that have it alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events of some 100 bytes, a line each.
fn events(count: u64) -> String {
    let mut lines = String::new();
    for n in 0..count {
        let user = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        writeln!(
            lines,
            r#"{{"n":{n},"page":"/articles/{}","user":{user},"referrer":"https://example.com/"}}"#,
            n % 977
        )
        .unwrap();
    }
    lines
}

/// Events of some 900 bytes, with texts that hardly shrink: what waits is compressed.
fn large_events(numbers: Range<u64>) -> String {
    let mut lines = String::new();
    for n in numbers {
        let text: String = (0..900).map(|_| fastrand::alphanumeric()).collect();
        writeln!(lines, r#"{{"n":{n},"text":"{text}"}}"#).unwrap();
    }
    lines
}

/// Every one of so many events is there, and once.
#[track_caller]
fn none_is_missing_and_none_twice(local: &Local, count: u64) {
    let stored = stored(local, "clicks");
    let numbers: HashSet<u64> = stored.iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert_eq!(stored.len() as u64, count);
    assert_eq!(numbers, (0..count).collect());
}

/// A figure of a process from `/proc`.
fn status(program: &Program, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How long a process has used a core.
fn cpu_time(program: &Program) -> Duration {
    let text = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    // The name, in parentheses, may hold spaces.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Kills an import at random points, and ends it with one that is not killed.
fn killed(kills: u64, count: u64) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let local = Local::start().unwrap();
    let given = Given::file("f.ndjson", events(count));
    let mut points: Vec<u64> = (0..kills).map(|_| random.u64(0..count)).collect();
    points.sort_unstable();
    for (kill, point) in points.into_iter().enumerate() {
        let program = Program::start(&mut given.import(&local));
        // One asks whether the key may do this, and each takes at most 1,000 events.
        let requests = local.requests() + random.u64(0..(count / 2_000).clamp(2, 8));
        // Some are killed while they send again what is there.
        assert!(local.wait_until(HUNG, |local| match kill % 3 {
            0 => local.requests() > requests,
            _ => local.count("clicks").unwrap() > point,
        }));
        program.kill();
    }
    let ended = Program::start(&mut given.import(&local)).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    none_is_missing_and_none_twice(&local, count);
}

#[test]
fn an_import_that_was_killed_is_run_again() {
    killed(2, 3_000);
}

#[test]
#[ignore = "takes some seconds; .ci/run runs it"]
fn an_import_that_was_killed_at_twenty_points_misses_nothing_and_has_nothing_twice() {
    let _alone = alone();
    killed(20, 100_000);
}

#[test]
#[ignore = "takes some seconds; .ci/run runs it"]
fn a_server_that_is_away_for_four_seconds_loses_nothing() {
    let _alone = alone();
    let local = Local::start().unwrap();
    // More than a collector holds.
    let count = 160_000;
    let given = Given::file("f.ndjson", large_events(0..count));
    let program = Program::start(&mut given.import(&local));
    assert!(local.wait_until(HUNG, |local| local.count("clicks").unwrap() > 10_000));
    local.fault(Fault::Refuse);
    let began = Instant::now();
    // It fills the memory that it may use, and then it rests: if it did not, this would hang.
    let mut used = cpu_time(&program);
    loop {
        thread::sleep(Duration::from_millis(250));
        let now = cpu_time(&program);
        if now - used <= Duration::from_millis(10) {
            break;
        }
        used = now;
        assert!(began.elapsed() < HUNG, "it does not rest");
    }
    thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
    assert!(local.count("clicks").unwrap() < count);
    local.clear_faults();
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("cannot be reached"), "{ended:?}");
    assert!(ended.err.contains("160000 events imported, 0 not"), "{ended:?}");
    none_is_missing_and_none_twice(&local, count);
}

/// The most that an import of so many bytes has in memory, in KiB.
fn resident(bytes: u64) -> u64 {
    let local = Local::start().unwrap();
    let mut program = Program::start(stride(&local).args(["import", "clicks"]));
    let began = Instant::now();
    let (mut written, mut count) = (0, 0);
    while written < bytes {
        let lines = large_events(count..count + 64);
        program.input(lines.as_bytes());
        written += lines.len() as u64;
        count += 64;
    }
    assert!(local.wait_until(HUNG, |local| local.count("clicks").unwrap() == count));
    let most = status(&program, "VmHWM:");
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    println!("{written} bytes in {:?}, with at most {} MiB resident", began.elapsed(), most / 1024);
    most
}

#[test]
#[ignore = "takes many seconds; .ci/run runs it"]
fn a_large_import_stays_within_its_memory() {
    let _alone = alone();
    // As many bytes as wanted for a look by hand: in the gate, some times of what it may hold.
    let megabytes =
        std::env::var("STRIDE_TEST_MEGABYTES").map_or(500, |text| text.parse().unwrap());
    assert!(resident(megabytes * 1_000_000) < 150 * 1024);
}

/// How long the same events take from memory.
fn collected(local: &Local, stream: &str, lines: &str) -> Duration {
    let client = Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build().unwrap();
    let began = Instant::now();
    let collector = Collector::start(&client).unwrap();
    let stream = collector.stream(stream).unwrap();
    for line in lines.lines() {
        let event: &RawValue = serde_json::from_str(line).unwrap();
        let mut put = stream.collect_json(event);
        while let Err(CollectError::Full) = put {
            put = stream.collect_timeout(event, HUNG);
        }
        put.unwrap();
    }
    let report = collector.stop();
    assert_eq!(report.delivered, lines.lines().count() as u64, "{report}");
    began.elapsed()
}

#[test]
#[ignore = "takes many seconds; .ci/run runs it"]
fn an_import_takes_little_longer_than_to_collect_the_same_events_from_memory() {
    let _alone = alone();
    let count = 500_000;
    let lines = events(count);
    // What the import makes of them, so that the server has the same work.
    let with_ids: String = lines
        .lines()
        .enumerate()
        .map(|(at, line)| {
            format!("{{\"$id\":\"import-0123456789abcdef-{}\",{}\n", at + 1, &line[1..])
        })
        .collect();
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let local = Local::start().unwrap();
        let memory = collected(&local, "memory", &with_ids);
        let given = Given::file("f.ndjson", &lines);
        let began = Instant::now();
        Program::start(&mut given.import(&local)).end().succeeded();
        let import = began.elapsed();
        assert_eq!(local.count("clicks").unwrap(), count);
        let ratio = memory.as_secs_f64() / import.as_secs_f64();
        println!("{count} events: {memory:?} from memory, {import:?} by an import: {ratio:.2}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    // 0.7 to 0.9 on a quiet machine: the bound is for one that others use.
    assert!(ratios[2] >= 0.5, "{ratios:?}");
}
