//! The quickstart on tokio: 100,000 events collected in the background, a sample of them seen by a
//! live subscription, and the totals.
//!
//!     cargo run --release --example quickstart_async
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`. It
//! exits with 1 when the numbers of accepted, delivered and stored events differ.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use stride_async::Stride;
use stride_collector::AsyncCollector;
use stride_local::Local;
use tokio::sync::oneshot;

const EVENTS: u64 = 100_000;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    // An embedded Stride, on another thread, unless the environment names another.
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;
    println!("Stride is at {endpoint}");

    // A live subscription that gets at most 100 events per second, in another task.
    let mut sampled = stride.subscribe("/collect/mystream").sample(100).data::<Value>().await?;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let subscriber = tokio::spawn(async move {
        let mut events = Vec::new();
        loop {
            tokio::select! {
                Some(event) = sampled.next() => events.push(event?),
                _ = &mut stopped => return Ok::<_, stride_async::Error>(events),
            }
        }
    });

    let before = stored(&stride).await?;
    let collector = AsyncCollector::start(&stride)?;
    // Draws nothing when the output is not a terminal.
    let progress = ProgressBar::new(EVENTS);
    let begin = Instant::now();
    for id in 0..EVENTS {
        collector.collect("mystream", &json!({"id": id, "bojack": "horseman"}))?;
        if id % 1000 == 0 {
            progress.set_position(id);
        }
    }
    let collected = begin.elapsed();
    let report = collector.stop().await;
    let delivered = begin.elapsed();
    progress.finish_and_clear();

    let stored = stored(&stride).await? - before;
    drop(stop);
    let sampled = subscriber.await??;
    for event in sampled.iter().take(5) {
        println!("sampled: {event}");
    }
    let rate = |time: std::time::Duration| EVENTS as f64 / time.as_secs_f64();
    println!("collected in {collected:.0?}: {:.0} events per second", rate(collected));
    println!("delivered in {delivered:.0?}: {:.0} events per second", rate(delivered));
    println!("{report}, {stored} stored");

    let kept = [report.accepted, report.delivered, stored].iter().all(|count| *count == EVENTS);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many events have been stored in `mystream` so far.
async fn stored(stride: &Stride) -> Result<u64, Box<dyn Error>> {
    let response = stride.get("/collect/mystream").await?;
    if response.status() == 404 {
        return Ok(0);
    }
    let about: Option<Value> = response.error_for_status()?.data()?;
    Ok(about.and_then(|about| about["count"].as_u64()).unwrap_or(0))
}
