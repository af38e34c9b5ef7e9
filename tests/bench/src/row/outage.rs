//! How much memory a program has at its peak while its server is down, all of it: in a process of
//! its own.

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

/// 300 MB of event (b).
const EVENTS: u64 = 880_000;

/// A collector's memory budget, as it stands by default.
const BUDGET: u32 = 64 << 20;

/// After so many events that found no room, the program does something else for a moment. That
/// gives the senders time: what they do while the server is away is a part of the peak.
const PAUSE_AFTER: u64 = 2_000;

const PAUSE: Duration = Duration::from_millis(5);

/// Collects against a port where nobody listens, and prints the peak.
pub(super) fn play(_: &[String]) -> io::Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}/v1");
    let stride = Stride::builder("key").endpoint(&endpoint).no_proxy().build();
    let collector = Collector::start(&stride.map_err(io::Error::other)?);
    let collector = collector.map_err(io::Error::other)?;
    let mut full = 0;
    for id in 0..EVENTS {
        match collector.collect("mystream", &Web::new(id)) {
            Ok(()) => {}
            Err(CollectError::Full) => {
                full += 1;
                if full % PAUSE_AFTER == 0 {
                    thread::sleep(PAUSE);
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    assert!(full > 0, "300 MB do not fit");
    let _ = collector.stop_within(Duration::from_millis(100));
    writeln!(io::stdout(), "{}", account::peak_memory()?)
}

pub(super) struct Outage;

impl Pair for Outage {
    fn ours(&mut self) -> f64 {
        Player::start(PART, &[]).answer().trim().parse().expect("it prints a number")
    }

    fn limit(&mut self) -> f64 {
        BUDGET.into()
    }
}
