//! Other clients that take events and send them in the background, each used as its docs recommend
//! and with its defaults, against the same sink.
//!
//! None but ours says `Full` and lets the program wait: the others drop what finds no room in their
//! queues. So there are two runs. At full speed, events come as fast as they are taken, and what
//! counts is how many of them reach the sink in a second, and how many are lost on the way. At a
//! steady pace, every queue has room, so that what is lost is lost because of the server, and the
//! processor time is that of events that are sent.

mod appender;
mod count;
mod otlp;
mod ours;
mod posthog;

use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use crate::account;
use crate::child::{Part, Player};
use crate::event::{Event as _, Readme, Web};
use crate::sink::{self, Count, Sink};

/// A client under measurement.
trait Client {
    /// Takes event (a).
    fn readme(&mut self, event: &Readme);
    /// Takes event (b).
    fn web(&mut self, event: &Web);
    /// Sends what is left. Gives how many were delivered, where the client knows.
    fn finish(self: Box<Self>) -> Option<u64>;
}

/// A client: what it is called, the package whose version counts, and what starts it.
#[derive(Clone, Copy)]
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    /// Its package in the lock file.
    pub package: &'static str,
    /// Whether it sends anything.
    pub sends: bool,
    start: fn(port: u16) -> Box<dyn Client>,
    count: Option<Count>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All of them, ours first.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "stride-collector",
        package: "stride-collector",
        sends: true,
        start: ours::start,
        count: Some(count::stride),
    },
    Peer {
        name: "posthog-rs",
        package: "posthog-rs",
        sends: true,
        start: posthog::start,
        count: Some(count::posthog),
    },
    Peer {
        name: "opentelemetry logs",
        package: "opentelemetry_sdk",
        sends: true,
        start: otlp::start,
        count: Some(count::otlp),
    },
    Peer {
        name: "tracing-appender",
        package: "tracing-appender",
        sends: false,
        start: appender::start,
        count: None,
    },
];

/// The parts that other processes play.
pub const PARTS: &[Part] = &[(sink::PART, serve), (PART, play)];

const PART: &str = "peer";

/// Events a second of a steady pace.
const PACE: u64 = 20_000;

/// Events that come at once, a hundred times a second.
const AT_ONCE: u64 = PACE / 100;

/// How long a steady pace is kept up.
const STEADY: Duration = Duration::from_secs(3);

/// How long events come at full speed.
const RUSH: Duration = Duration::from_secs(2);

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Event (a) as fast as it is taken.
    ReadmeRush,
    /// Event (b) as fast as it is taken.
    WebRush,
    /// Event (b) at a steady pace.
    Steady,
    /// The same, while the sink answers every fifth request with 503.
    Refused,
}

impl Run {
    const ALL: [(&str, Self); 4] = [
        ("readme", Self::ReadmeRush),
        ("web", Self::WebRush),
        ("steady", Self::Steady),
        ("refused", Self::Refused),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, run)| *run == self).map_or("", |(name, _)| name)
    }

    fn is_rush(self) -> bool {
        matches!(self, Self::ReadmeRush | Self::WebRush)
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Events that were handed to the client.
    pub offered: u64,
    /// Events that arrived.
    pub delivered: u64,
    /// From the first event until the client had finished, in seconds.
    pub seconds: f64,
    /// Processor time of the client's process, in seconds.
    pub busy: f64,
}

impl Outcome {
    /// Events that did not arrive.
    #[must_use]
    pub fn lost(&self) -> f64 {
        1.0 - self.delivered as f64 / self.offered as f64
    }

    /// Events that arrived in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// Processor time for an event that arrived, in microseconds.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.busy / self.delivered as f64 * 1e6
    }
}

/// Measures a client, once.
///
/// # Panics
///
/// It did not finish.
#[must_use]
pub fn measure(peer: &Peer, run: Run) -> Outcome {
    let every = if run == Run::Refused { "5" } else { "0" };
    // Unpacking takes longer than our packing: at full speed, ours is believed what it says.
    let counted = peer.count.is_some() && !(run.is_rush() && peer.package == "stride-collector");
    let counter = if counted { peer.name } else { "" };
    let sink = Sink::start_with(&[every, counter]);
    let port = sink.port().to_string();
    let answer = Player::start(PART, &[peer.name, run.name(), &port]).answer();
    let numbers: Vec<f64> =
        answer.split_whitespace().map(|word| word.parse().expect("numbers")).collect();
    let [offered, delivered, seconds, busy] = numbers[..] else { panic!("four numbers: {answer}") };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they are counts")]
    let (offered, said) = (offered as u64, delivered as u64);
    let delivered = if counted { sink.seen().events } else { said };
    Outcome { offered, delivered, seconds, busy }
}

/// Plays the sink: how often it refuses, and how it counts.
fn serve(arguments: &[String]) -> io::Result<()> {
    let [every, counter] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let peer = PEERS.iter().find(|peer| peer.name == counter);
    sink::serve(every.parse().map_err(io::Error::other)?, peer.and_then(|peer| peer.count))
}

/// Plays the program, and prints four numbers.
fn play(arguments: &[String]) -> io::Result<()> {
    let [name, run, port] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let peer = PEERS.iter().find(|peer| peer.name == name);
    let run = Run::ALL.iter().find(|(name, _)| name == run);
    let (Some(peer), Some((_, run))) = (peer, run) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut client = (peer.start)(port.parse().map_err(io::Error::other)?);
    let before = account::processor_time()?;
    let start = Instant::now();
    let mut offered = 0;
    if run.is_rush() {
        while start.elapsed() < RUSH {
            for _ in 0..1000 {
                match run {
                    Run::ReadmeRush => client.readme(&Readme::new(offered)),
                    _ => client.web(&Web::new(offered)),
                }
                offered += 1;
            }
        }
    } else {
        while start.elapsed() < STEADY {
            for _ in 0..AT_ONCE {
                client.web(&Web::new(offered));
                offered += 1;
            }
            let due = Duration::from_secs_f64(offered as f64 / PACE as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    let delivered = client.finish().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    let busy = (account::processor_time()? - before).as_secs_f64();
    writeln!(io::stdout(), "{offered} {delivered} {seconds} {busy}")
}

/// A package's version, of the lock file that this was built by.
#[must_use]
pub fn version(package: &str) -> &'static str {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
    let entry = format!("name = \"{package}\"\nversion = \"");
    let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("?", |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_version() {
        for peer in PEERS {
            assert_ne!(version(peer.package), "?", "{}", peer.name);
        }
    }
}
