//! Runs seeds: `stride-sim --seeds 100000`; replays one: `stride-sim --replay 42`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser;
use stride_sim::choice::Choices;
use stride_sim::run::{exhaust, run, trace};
use stride_sim::shrink::shrink;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs one seed again, shrinks it if it fails, and prints its decisions.
    #[arg(long)]
    replay: Option<u64>,
    /// Searches all histories of two lanes, two senders and three events, up to so many.
    #[arg(long)]
    exhaust: Option<usize>,
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    if let Some(limit) = arguments.exhaust {
        return match exhaust(limit) {
            Ok(count) => writeln!(out, "{count} histories").map(|()| ExitCode::SUCCESS),
            Err((error, taken)) => {
                writeln!(out, "{error}\ndecisions: {taken:?}").map(|()| ExitCode::FAILURE)
            }
        };
    }
    if let Some(seed) = arguments.replay {
        return match run(Choices::random(seed)) {
            Ok(requests) => {
                writeln!(out, "seed {seed}: {requests} requests").map(|()| ExitCode::SUCCESS)
            }
            Err((error, taken)) => {
                let (error, taken) = shrink(error, taken);
                for line in trace(Choices::recorded(taken.clone())) {
                    writeln!(out, "{line}")?;
                }
                writeln!(out, "seed {seed}: {error}\ndecisions: {taken:?}")?;
                Ok(ExitCode::FAILURE)
            }
        };
    }
    let start = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err((error, _)) = run(Choices::random(seed)) {
                        next.store(end, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(before, _)| seed < *before) {
                            *failed = Some((seed, error));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed {
        None => {
            let seconds = start.elapsed().as_secs_f64();
            writeln!(out, "{} seeds in {seconds:.1} s: nothing found", arguments.seeds)?;
            Ok(ExitCode::SUCCESS)
        }
        Some((seed, error)) => {
            let mut git = std::process::Command::new("git");
            let commit = git.args(["rev-parse", "--short", "HEAD"]).output();
            let commit = commit.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
            let commit = commit.unwrap_or_default();
            writeln!(out, "seed {seed} at {}: {error}", commit.trim())?;
            writeln!(out, "again: cargo run --release -p stride-sim -- --replay {seed}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
