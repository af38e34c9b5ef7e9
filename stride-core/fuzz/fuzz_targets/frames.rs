//! The frame decoder against an independent reading of the whole body, guided by coverage:
//! `cargo +nightly fuzz run frames` in `stride-core`.

#![no_main]

#[path = "../../tests/frame_fuzz/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use oracle::{Take, check};

fuzz_target!(|input: &[u8]| {
    let Some((settings, body)) = input.split_first_chunk::<4>() else { return };
    let [limit, first, second, take] = settings.map(usize::from);
    // Small limits often, and large ones as well.
    let limit = if limit < 128 { limit + 1 } else { limit << 10 };
    let way = [Take::Raw, Take::Typed, Take::Mixed(1), Take::Mixed(2)][take % 4];
    check(body, limit, &[first + 1, second + 1], way, take & 4 == 0);
});
