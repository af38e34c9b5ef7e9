//! How much memory a program has at its peak while its server is down, all of it, and how much its
//! collector then holds: in a process of its own.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use stride_blocking::Stride;
use stride_collector::{CollectError, Collector};

use crate::account;
use crate::child::Player;
use crate::event::{Event as _, Web};
use crate::measure::Pair;

pub(super) const PART: &str = "outage";

/// More of event (b) than fits in any case: 7 GB.
const EVENTS: u64 = 20_000_000;

/// A collector's memory budget, as it stands by default.
const BUDGET: u32 = 64 << 20;

/// After so many events that found no room, the program does something else for a moment. That
/// gives the senders time: what they do while the server is away is a part of the peak.
const PAUSE_AFTER: u64 = 2_000;

/// After so many there is no room to be made by compression any longer.
const ENOUGH: u64 = 100 * PAUSE_AFTER;

const PAUSE: Duration = Duration::from_millis(5);

/// Collects against a port where nobody listens, and prints the peak, and how many bytes of JSON were
/// accepted: none of them is delivered, and none is old enough to be lost.
pub(super) fn play(_: &[String]) -> io::Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}/v1");
    let stride = Stride::builder("key").endpoint(&endpoint).no_proxy().build();
    let collector = Collector::start(&stride.map_err(io::Error::other)?);
    let collector = collector.map_err(io::Error::other)?;
    let (mut full, mut held) = (0, 0);
    for id in 0..EVENTS {
        let event = Web::new(id);
        match collector.collect("mystream", &event) {
            Ok(()) => held += serde_json::to_vec(&event).map_or(0, |json| json.len()),
            Err(CollectError::Full) => {
                full += 1;
                if full % PAUSE_AFTER == 0 {
                    thread::sleep(PAUSE);
                }
                if full == ENOUGH {
                    break;
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    assert!(full > 0, "7 GB do not fit");
    let _ = collector.stop_within(Duration::from_millis(100));
    writeln!(io::stdout(), "{} {held}", account::peak_memory()?)
}

/// The peak, over the budget.
pub(super) struct Memory;

/// The bytes of JSON that are held, over the budget.
pub(super) struct Held;

fn played() -> (f64, f64) {
    let answer = Player::start(PART, &[]).answer();
    let (peak, held) = answer.trim().split_once(' ').expect("it prints two numbers");
    let number = |text: &str| text.parse().expect("it prints two numbers");
    (number(peak), number(held))
}

impl Pair for Held {
    fn ours(&mut self) -> f64 {
        played().1
    }

    fn limit(&mut self) -> f64 {
        BUDGET.into()
    }
}

impl Pair for Memory {
    fn ours(&mut self) -> f64 {
        played().0
    }

    fn limit(&mut self) -> f64 {
        BUDGET.into()
    }
}
