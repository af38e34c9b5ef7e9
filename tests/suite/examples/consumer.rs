//! A consumer that is killed with SIGKILL and started again, and takes every event exactly once.
//!
//!     cargo run --example consumer
//!
//! It starts itself as another process, kills that in the middle of its work, and starts it again; meanwhile events
//! are stored. What makes it safe is in `consume`: the position is saved in one step with what came of the event,
//! and the next subscription starts after it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

#[path = "consumer/journal.rs"]
mod journal;

use std::env;
use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use stride_blocking::{Position, Stride, SubscriptionEvent};
use stride_local::Local;

use self::journal::Journal;

/// What runs until it is killed.
fn consume(stride: &Stride, file: &Path) -> Result<(), Box<dyn Error>> {
    let (mut journal, saved) = Journal::open(file)?;
    let start = saved.map_or(Ok(Position::oldest()), |saved| saved.parse())?;
    let mut events = stride.subscribe("/collect/orders").after(start).events::<Value>()?;
    while let Some(event) = events.next() {
        match event? {
            SubscriptionEvent::Data(event) => {
                let position = events.position().ok_or("this server knows no positions")?;
                journal.add(&event, &position.to_string())?;
                println!("{event}");
            }
            // Tells whether anything is missing, too.
            other => eprintln!("{other:?}"),
        }
    }
    Ok(())
}

/// The consumer as another process, which is killed when this is dropped.
struct Consumer {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Consumer {
    fn start(local: &Local, file: &Path) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(env::current_exe()?)
            .arg(local.endpoint())
            .arg(local.secret_key())
            .arg(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lines = process.stdout.take().ok_or("its output is piped")?;
        Ok(Self { process, lines: BufReader::new(lines).lines() })
    }

    /// Waits until it has taken an event.
    fn took(&mut self) -> Result<u64, Box<dyn Error>> {
        let line = self.lines.next().ok_or("the consumer has ended")??;
        Ok(serde_json::from_str::<Value>(&line)?["order"].as_u64().ok_or("not an order")?)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let [endpoint, key, file] = &env::args().skip(1).collect::<Vec<_>>()[..] {
        return consume(
            &Stride::builder(key.as_str()).endpoint(endpoint).build()?,
            Path::new(file),
        );
    }
    let local = Local::start()?;
    let stride = Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("orders");
    let mut orders = 0;
    for kill in 0..3 {
        let mut consumer = Consumer::start(&local, &file)?;
        let batch: Vec<Value> =
            (orders..orders + 1000).map(|order| json!({"order": order})).collect();
        stride.post("/collect/orders", &batch)?.error_for_status()?;
        orders += 1000;
        // Somewhere in the middle, and at the end of it in the last round.
        let enough = if kill < 2 { orders - 700 } else { orders - 1 };
        while consumer.took()? < enough {}
    }
    let taken = journal::events(&file)?;
    for (order, event) in taken.iter().enumerate() {
        assert_eq!(event["order"], order, "each comes once, and in order");
    }
    println!("{} orders came once each, over two kills", taken.len());
    Ok(())
}
