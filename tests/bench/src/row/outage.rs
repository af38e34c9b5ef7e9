//! How much memory a program has at its peak while its server is down, for events and streams of all
//! kinds, and how much its collector then holds: each in a separate process.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use stride_blocking::Stride;
use stride_collector::{Builder, CollectError, Collector};

use crate::account;
use crate::child::Player;
use crate::event::{Event as _, Readme, Web};
use crate::measure::Pair;

pub(super) const PART: &str = "outage";

/// More of event (b) than fits in any case: 7 GB.
const EVENTS: u64 = 20_000_000;

/// A collector's memory budget, as it stands by default.
const BUDGET: usize = 64 << 20;

/// What a collector takes beside its budget, whatever that is: two threads with their compressors, and
/// what the allocator keeps of each thread.
const FIXED: f64 = (4 << 20) as f64;

/// After so many events that found no room, the program does something else for a moment. That
/// gives the senders time: what they do while the server is away is a part of the peak.
const PAUSE_AFTER: u64 = 2_000;

/// After so many there is no room to be made by compression any longer.
const ENOUGH: u64 = 100 * PAUSE_AFTER;

const PAUSE: Duration = Duration::from_millis(5);

/// What is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    /// Event (b), one stream.
    Web,
    /// Events of nearly 1 MB.
    Large,
    /// Event (b), so many streams in turn.
    Streams(u64),
    /// Event (a), one to a batch.
    Single,
    /// Event (a), and a flush after each.
    Flushed,
    /// Event (b), with a budget of 2 MiB.
    Small,
}

/// An event of nearly 1 MB.
#[derive(Serialize)]
struct Views {
    views: &'static [Web],
}

impl Mix {
    const ALL: [Self; 7] = [
        Self::Web,
        Self::Large,
        Self::Streams(10_000),
        Self::Streams(100_000),
        Self::Single,
        Self::Flushed,
        Self::Small,
    ];

    fn budget(self) -> usize {
        if self == Self::Small { 2 << 20 } else { BUDGET }
    }

    fn settings(self, builder: Builder) -> Builder {
        let builder = builder.memory_budget(self.budget());
        if self == Self::Single { builder.batch_size(1) } else { builder }
    }

    /// Collects the event of that number; gives its length.
    fn collect(self, collector: &Collector, id: u64) -> Result<usize, CollectError> {
        fn one<T: Serialize>(
            collector: &Collector,
            stream: &str,
            event: &T,
        ) -> Result<usize, CollectError> {
            collector.collect(stream, event)?;
            Ok(serde_json::to_vec(event).map_or(0, |json| json.len()))
        }
        match self {
            Self::Web | Self::Small => one(collector, "mystream", &Web::new(id)),
            Self::Large => {
                // The same each time: nothing is compressed together that lies so far apart.
                static VIEWS: LazyLock<Vec<Web>> =
                    LazyLock::new(|| (0..2_800).map(Web::new).collect());
                one(collector, "mystream", &Views { views: &VIEWS })
            }
            Self::Streams(streams) => {
                one(collector, &format!("stream_{}", id % streams), &Web::new(id))
            }
            Self::Single => one(collector, "mystream", &Readme::new(id)),
            Self::Flushed => {
                let length = one(collector, "mystream", &Readme::new(id));
                let _ = collector.flush_within(Duration::ZERO);
                length
            }
        }
    }
}

/// Collects against a port where nobody listens, and prints the peak, how much of it there was before
/// the collector, and how many bytes of JSON were accepted: none of them is delivered, and none is old
/// enough to be lost.
pub(super) fn play(arguments: &[String]) -> io::Result<()> {
    let index: Option<usize> = arguments.first().and_then(|index| index.parse().ok());
    let mix = index.and_then(|index| Mix::ALL.get(index)).copied();
    let mix = mix.ok_or_else(|| io::Error::other("an unknown mix"))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}/v1");
    let stride = Stride::builder("key").endpoint(&endpoint).no_proxy().build();
    let before = account::peak_memory()?;
    let builder = mix.settings(Collector::builder());
    let collector = builder.start(&stride.map_err(io::Error::other)?);
    let collector = collector.map_err(io::Error::other)?;
    let (mut full, mut held) = (0, 0);
    // One large event takes as long as thousands of others.
    let weight = if mix == Mix::Large { PAUSE_AFTER } else { 1 };
    for id in 0..EVENTS {
        match mix.collect(&collector, id) {
            Ok(length) => held += length,
            Err(CollectError::Full) => {
                full += weight;
                if full % PAUSE_AFTER == 0 {
                    thread::sleep(PAUSE);
                }
                if full >= ENOUGH {
                    break;
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    assert!(full > 0, "so much does not fit");
    let _ = collector.stop_within(Duration::from_millis(100));
    writeln!(io::stdout(), "{} {before} {held}", account::peak_memory()?)
}

/// The peak of the whole process, over the budget.
pub(super) struct Memory;

/// What the peak is above the process without a collector, and a fixed base, over the budget.
pub(super) struct Mixed(pub(super) Mix);

/// The bytes of JSON that are held, over the budget.
pub(super) struct Held;

/// The peak, what there was before the collector, and what is held.
fn played(mix: Mix) -> [f64; 3] {
    let index = Mix::ALL.iter().position(|it| *it == mix).unwrap_or(Mix::ALL.len());
    let answer = Player::start(PART, &[&index.to_string()]).answer();
    let mut numbers = answer.split_whitespace().map(|text| text.parse().expect("it is a number"));
    std::array::from_fn(|_| numbers.next().expect("it prints three numbers"))
}

impl Pair for Held {
    fn ours(&mut self) -> f64 {
        let [_, _, held] = played(Mix::Web);
        held
    }

    fn limit(&mut self) -> f64 {
        BUDGET as f64
    }
}

impl Pair for Memory {
    fn ours(&mut self) -> f64 {
        let [peak, ..] = played(Mix::Web);
        peak
    }

    fn limit(&mut self) -> f64 {
        BUDGET as f64
    }
}

impl Pair for Mixed {
    fn ours(&mut self) -> f64 {
        let [peak, before, _] = played(self.0);
        peak - before - FIXED
    }

    fn limit(&mut self) -> f64 {
        self.0.budget() as f64
    }
}
