//! How often the threads of an idle collector and of idle subscriptions wake up, by the kernel's
//! account: in a process of their own.

use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use stride_collector::Collector;

use crate::account::{Thread, other_threads};
use crate::child::Player;
use crate::event::{Event as _, Readme};
use crate::measure::Pair;
use crate::row::{async_client, client, runtime};
use crate::sink::Sink;

pub(super) const PART: &str = "idle";

/// Until everything that was going on is over.
const BEFORE: Duration = Duration::from_secs(1);

const WHILE: Duration = Duration::from_secs(5);

/// Prints each thread's wake-ups, a line for each.
pub(super) fn play(_: &[String]) -> io::Result<()> {
    // A sink in this process would be among its threads; this one ends with this process.
    let sink = Sink::start();
    let stride = client(&sink);
    let collector = Collector::start(&stride).map_err(io::Error::other)?;
    collector.collect("mystream", &Readme::new(0)).map_err(io::Error::other)?;
    assert_eq!(collector.flush().delivered, 1);
    named("blocking", move || {
        let data = stride.subscribe("/collect/quiet").data::<Value>();
        data.expect("the sink answers").next();
    })?;
    let stride = async_client(&sink);
    named("async", move || {
        runtime().block_on(async {
            let data = stride.subscribe("/collect/quiet").data::<Value>().await;
            data.expect("the sink answers").next().await;
        });
    })?;
    thread::sleep(BEFORE);
    let before = other_threads()?;
    thread::sleep(WHILE);
    for thread in other_threads()? {
        let was = before.iter().find(|before| before.id == thread.id);
        let switches = thread.switches - was.map_or(0, |was| was.switches);
        writeln!(io::stdout(), "{switches} {}", thread.name)?;
    }
    drop(collector);
    drop(sink);
    // The subscriptions wait for ever.
    std::process::exit(0);
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Counts over all threads, and keeps those that did wake up.
#[derive(Default)]
pub(super) struct Idle {
    awake: Vec<Thread>,
    seen: Vec<String>,
}

impl Pair for Idle {
    fn ours(&mut self) -> f64 {
        let answer = Player::start(PART, &[]).answer();
        let mut sum = 0;
        self.seen.clear();
        for line in answer.lines() {
            let (switches, name) = line.split_once(' ').expect("a number and a name");
            let switches: u32 = switches.parse().expect("a number and a name");
            sum += switches;
            self.seen.push(name.to_owned());
            if switches > 0 {
                let name = name.to_owned();
                self.awake.push(Thread { id: 0, name, switches: switches.into() });
            }
        }
        assert!(self.seen.len() >= 4, "two senders and two subscriptions: {:?}", self.seen);
        sum.into()
    }

    fn limit(&mut self) -> f64 {
        0.0
    }

    fn note(&self) -> Option<String> {
        let awake = self.awake.iter().map(|thread| format!("{} {}", thread.name, thread.switches));
        let awake: Vec<String> = awake.collect();
        Some(match &awake[..] {
            [] => format!("none by {}", self.seen.join(", ")),
            awake => format!("awake: {}", awake.join(", ")),
        })
    }
}
