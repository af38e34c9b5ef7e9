//! Random bodies: what the decoder makes of them, chunk by chunk, is what `serde_json` makes of the
//! whole.
//!
//! `cargo test -p stride-core --release --test frame_fuzz -- --ignored --nocapture` reads 10^8 bytes,
//! or for a minute. `STRIDE_FUZZ_SEED` repeats a run, `STRIDE_FUZZ_BYTES` makes it longer.

mod bodies;
mod oracle;

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use fastrand::Rng;

use oracle::{Take, check};

/// How many bodies come of one seed, until the next.
const BODIES: usize = 64;

/// Checks bodies of this seed, and says how many bytes they had.
fn run(seed: u64) -> usize {
    let mut random = Rng::with_seed(seed);
    let mut bytes = 0;
    for _ in 0..BODIES {
        let body = bodies::body(&mut random);
        let limit = if random.bool() { random.usize(1..120) } else { 1 << 20 };
        let largest = [1, 4, 30, 1000, 100_000][random.usize(0..5)];
        let sizes: Vec<usize> =
            (0..random.usize(1..5)).map(|_| random.usize(1..=largest)).collect();
        for take in [Take::Raw, Take::Typed, Take::Mixed(random.usize(0..3))] {
            check(&body, limit, &sizes, take, random.u8(0..4) > 0);
        }
        bytes += body.len();
    }
    bytes
}

fn report(seed: u64, run: impl FnOnce() -> usize + std::panic::UnwindSafe) -> usize {
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        panic!("the readings differ: repeat it with STRIDE_FUZZ_SEED={seed}");
    })
}

#[test]
fn random_bodies_are_read_as_serde_json_reads_them() {
    let mut bytes = 0;
    let mut seed = 1;
    while bytes < 200_000 {
        bytes += report(seed, move || run(seed));
        seed += 1;
    }
}

/// A number that is another one in every run.
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test may ask for a seed"
)]
fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[expect(clippy::disallowed_methods, reason = "a test may be told what to run")]
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
#[ignore = "takes up to a minute: run it in release"]
#[expect(clippy::disallowed_methods, reason = "the time bounds the run, and decides nothing in it")]
fn a_long_run_of_random_bodies() {
    if let Some(seed) = setting("STRIDE_FUZZ_SEED") {
        println!("{} bytes", report(seed, move || run(seed)));
        return;
    }
    let most = setting("STRIDE_FUZZ_BYTES");
    let limit = if most.is_some() { Duration::MAX } else { Duration::from_secs(60) };
    let most = most.unwrap_or(100_000_000);
    let first = fresh();
    println!("seeds from {first}");
    let started = Instant::now();
    let (mut seed, mut bytes) = (first, 0);
    while bytes < most && started.elapsed() < limit {
        bytes += report(seed, move || run(seed)) as u64;
        seed = seed.wrapping_add(1);
    }
    println!("{bytes} bytes, {:?}, without a difference", started.elapsed());
}
