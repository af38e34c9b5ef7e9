//! Collectors with a write-ahead spool are killed while they collect, and the server is killed, too: no event
//! that was reported safe is missing afterwards, and none is stored twice.
#![expect(clippy::print_stdout, reason = "it is how a child process tells its parent")]

use std::collections::HashSet;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;
use stride_collector::spool::Spool;
use stride_collector::{AsyncCollector, Builder, Collector, Intake, Report};
use stride_local::Local;
use stride_tests::{Proxy, watchdog};

const STREAMS: u64 = 5;
/// Threads that collect at the same time, in each process.
const THREADS: u64 = 3;
/// More events than a process collects before it is killed.
const NUMBERS: u64 = 1 << 32;

/// Far longer than the last collector takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// What a child process does; its name is the value of an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Server,
    /// Collects until it is killed, with a `Collector` or an `AsyncCollector`.
    Threads,
    Tasks,
    /// Collects nothing, and ends when nothing is left on disk.
    Drain,
}

impl Part {
    const ALL: [Self; 4] = [Self::Server, Self::Threads, Self::Tasks, Self::Drain];
}

/// A process, which is killed at the latest when this is dropped. It ends, too, when its parent does.
struct Process(Child);

impl Process {
    /// This program, which plays nothing but [`plays_its_part_when_it_is_a_child`].
    fn start(part: Part, argument: &Path, endpoint: &str, number: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plays_its_part_when_it_is_a_child", "--nocapture"])
            .env("STRIDE_TEST_PART", format!("{part:?}"))
            .env("STRIDE_TEST_PATH", argument)
            .env("STRIDE_TEST_ENDPOINT", endpoint)
            .env("STRIDE_TEST_NUMBER", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// The lines that it prints, but not the rest of one in which it was killed.
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let mut output = BufReader::new(self.0.stdout.take().unwrap());
        std::iter::from_fn(move || {
            let mut line = String::new();
            let length = output.read_line(&mut line).unwrap();
            (length > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
        })
    }

    /// With SIGKILL.
    fn kill(&mut self) {
        // It may have ended; whether it should have is seen by what it printed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn plays_its_part_when_it_is_a_child() {
    let Ok(part) = std::env::var("STRIDE_TEST_PART") else { return };
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
    let variable = |name: &str| std::env::var(format!("STRIDE_TEST_{name}")).unwrap();
    let (path, endpoint) = (variable("PATH"), variable("ENDPOINT"));
    let number: u64 = variable("NUMBER").parse().unwrap();
    let spool = Spool::write_ahead(&path);
    match Part::ALL.into_iter().find(|it| format!("{it:?}") == part).unwrap() {
        Part::Server => serve(Path::new(&path)),
        Part::Threads => {
            let collector = with_threads(spool, &endpoint);
            collect(number, &collector, |limit| collector.flush_within(limit));
        }
        Part::Tasks => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let inside = runtime.enter();
            let stride = stride_async::Stride::builder("key").endpoint(&endpoint).build().unwrap();
            let collector =
                settings(AsyncCollector::builder()).spool(spool).start(&stride).unwrap();
            drop(inside);
            collect(number, &collector, |limit| runtime.block_on(collector.flush_within(limit)));
        }
        Part::Drain => {
            let collector = with_threads(spool, &endpoint);
            let until = Instant::now() + MINUTE;
            while collector.stats().pending > 0 || collector.stats().spool.segments > 0 {
                assert!(Instant::now() < until, "{:?}", collector.stats());
                thread::yield_now();
            }
            let report = collector.stop();
            assert_eq!((report.pending, report.lost()), (0, 0), "{report}");
            println!("\ndrained");
        }
    }
}

fn serve(file: &Path) {
    let local = Local::builder().secret_key("key").data(file).start().unwrap();
    println!("\naddress={}", local.addr());
    loop {
        thread::park();
    }
}

fn settings<C>(builder: Builder<C>) -> Builder<C> {
    builder.flush_interval(Duration::from_millis(5)).batch_size(20)
}

fn with_threads(spool: Spool, endpoint: &str) -> Collector {
    let stride = stride_blocking::Stride::builder("key").endpoint(endpoint).build().unwrap();
    settings(Collector::builder()).spool(spool).start(&stride).unwrap()
}

/// Collects until it is killed, and prints how many events are safe: delivered, or on disk.
fn collect(number: u64, intake: &Intake, flush: impl Fn(Duration) -> Report) {
    println!("\nready");
    let mut random = Rng::with_seed(number);
    let mut collected = 0;
    loop {
        let to = collected + random.u64(1..100);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for n in (collected..to).filter(|n| n % THREADS == thread) {
                        let event = json!({"n": number * NUMBERS + n});
                        intake.collect(&format!("s{}", n % STREAMS), &event).unwrap();
                    }
                });
            }
        });
        collected = to;
        let report = flush(Duration::from_millis(random.u64(0..10)));
        assert_eq!(report.accepted, collected);
        assert_eq!(report.lost(), 0, "{report}");
        if report.accepted + report.recovered == report.delivered + report.spooled {
            println!("safe={collected}");
        }
    }
}

/// The server, which is killed and started again on the same file. Collectors know it by the address of a
/// proxy, because the spool belongs to that.
struct Server {
    file: PathBuf,
    process: Option<Process>,
}

impl Server {
    fn start(&mut self) -> SocketAddr {
        let mut process = Process::start(Part::Server, &self.file, "", 0);
        let found =
            process.lines().find_map(|line| Some(line.strip_prefix("address=")?.to_owned()));
        self.process = Some(process);
        found.expect("the server starts").parse().unwrap()
    }
}

/// A process that collects, and how many of its events it has reported as safe.
struct Collecting {
    number: u64,
    process: Process,
    safe: Arc<Mutex<u64>>,
    reader: JoinHandle<bool>,
}

impl Collecting {
    fn start(folder: &Path, endpoint: &str, number: u64) -> Self {
        let part = if number.is_multiple_of(2) { Part::Threads } else { Part::Tasks };
        let mut process = Process::start(part, folder, endpoint, number);
        let lines = process.lines();
        let safe = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&safe);
        let reader = thread::spawn(move || {
            let mut failed = false;
            for line in lines {
                if let Some(count) = line.strip_prefix("safe=") {
                    *seen.lock().unwrap() = count.parse().unwrap();
                }
                failed |= line.contains("FAILED");
            }
            !failed
        });
        Self { number, process, safe, reader }
    }

    fn kill(mut self, all: &mut Vec<(u64, u64)>) {
        self.process.kill();
        assert!(self.reader.join().unwrap(), "it ended before it was killed");
        all.push((self.number, *self.safe.lock().unwrap()));
    }
}

fn nothing_safe_is_missing(rounds: u64, seed: u64) {
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let (spool, file) = (folder.path().join("spool"), folder.path().join("stride.db"));
    let mut server = Server { file: file.clone(), process: None };
    let proxy = Proxy::start(server.start(), seed);
    proxy.calm();
    let toggle = |server: &mut Server| match server.process.take() {
        Some(process) => drop(process),
        None => proxy.redirect(server.start()),
    };

    // How many events of each process are safe.
    let mut safe = Vec::new();
    let mut next = 0;
    for round in 0..rounds {
        let mut collecting = Vec::new();
        for _ in 0..random.usize(1..=2) {
            collecting.push(Collecting::start(&spool, &proxy.endpoint(), next));
            next += 1;
        }
        // So that there is something to lose; others are killed as they start.
        if !round.is_multiple_of(4) {
            while collecting.iter().all(|it| *it.safe.lock().unwrap() == 0) {
                if server.process.is_none() && random.u8(..) == 0 {
                    toggle(&mut server);
                }
                assert!(!collecting.iter().any(|it| it.reader.is_finished()), "it has ended");
                thread::yield_now();
            }
        }
        let mut moves = vec![true; collecting.len()];
        moves.resize(collecting.len() + random.usize(..3), false);
        random.shuffle(&mut moves);
        for kills in moves {
            // A random moment; nothing is waited for.
            thread::sleep(Duration::from_micros(random.u64(..60_000)));
            if kills {
                let killed = collecting.swap_remove(random.usize(..collecting.len()));
                killed.kill(&mut safe);
            } else {
                toggle(&mut server);
            }
        }
    }

    if server.process.is_none() {
        toggle(&mut server);
    }
    let mut last = Process::start(Part::Drain, &spool, &proxy.endpoint(), 0);
    // All of them: it should not find its output closed.
    let printed: Vec<String> = last.lines().collect();
    assert!(printed.iter().any(|line| line == "drained"), "the last collector failed: {printed:?}");
    drop(server);
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "the folder is empty");

    let local = Local::builder().data(file).start().unwrap();
    let mut stored = HashSet::new();
    for stream in local.streams().unwrap() {
        for event in local.events(&stream).unwrap() {
            let n = event["n"].as_u64().unwrap();
            assert!(stored.insert(n), "{n} is stored twice");
        }
    }
    for (number, count) in &safe {
        for n in 0..*count {
            let is_there = stored.contains(&(number * NUMBERS + n));
            assert!(is_there, "event {n} of process {number} was safe, and is missing");
        }
    }
    let reported: u64 = safe.iter().map(|(_, count)| count).sum();
    assert!(reported > 0);
    println!("{} processes, {reported} events safe, {} stored", safe.len(), stored.len());
}

#[test]
fn what_was_reported_safe_survives_five_kills() {
    watchdog(|| nothing_safe_is_missing(5, fastrand::u64(..)));
}

#[test]
#[ignore = "kills some three hundred collectors"]
fn what_was_reported_safe_survives_two_hundred_kills() {
    nothing_safe_is_missing(200, fastrand::u64(..));
}
