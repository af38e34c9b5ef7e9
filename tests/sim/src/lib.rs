//! Simulates the collector's batcher and a subscription in virtual time, against a server that
//! misbehaves, and a [disk](disk::SimDisk) that loses what was not synced.
//!
//! One seed makes a whole run of some 200 steps: a random program, a random server, and faults of
//! which each seed has some switched off. First everything that must never happen is checked; then all
//! faults cease, and everything that was accepted has to end in time.

pub mod choice;
pub mod disk;
mod history;
pub mod run;
mod script;
pub mod server;
pub mod shrink;
pub mod subscriber;
pub mod world;

/// Seeds that failed once; they run for ever. A seed that was found before decisions were added to a run makes another run
/// now, and is left out.
pub const FOUND: &[u64] = &[8_496, 771_459, 773_702, 799_516];
