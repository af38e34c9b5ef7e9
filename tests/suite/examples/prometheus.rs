//! The figures of a collector as Prometheus reads them: a page of text, made anew for each scrape.
//!
//!     cargo run --example prometheus
//!
//! Most of them are in `stats()`. An observer counts what is not: here the failures by their status.
//! Serve the page at `/metrics` with the HTTP server that your program has. It uses an embedded Stride,
//! or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use stride_blocking::Stride;
use stride_collector::{Activity, Collector, Delivery, LossReason, ServerState, Stats};
use stride_local::Local;

/// How many requests failed, by status; those without a response have none.
type Failures = BTreeMap<Option<u16>, u64>;

/// The page.
fn page(stats: &Stats, failures: &Failures) -> Result<String, fmt::Error> {
    let mut page = String::new();
    let counters = [
        ("events_accepted", stats.accepted),
        ("events_delivered", stats.delivered),
        ("requests", stats.requests),
        ("retries", stats.retries),
        ("json_bytes", stats.json_bytes),
        ("sent_bytes", stats.sent_bytes),
    ];
    for (name, value) in counters {
        writeln!(page, "# TYPE stride_{name} counter\nstride_{name}_total {value}")?;
    }
    let is_healthy = stats.server == ServerState::Healthy;
    let gauges = [
        ("events_pending", stats.pending as f64),
        ("requests_in_flight", stats.in_flight as f64),
        ("oldest_event_seconds", stats.oldest.unwrap_or_default().as_secs_f64()),
        ("memory_bytes", stats.memory as f64),
        ("streams", stats.streams as f64),
        ("server_healthy", f64::from(u8::from(is_healthy))),
    ];
    for (name, value) in gauges {
        writeln!(page, "# TYPE stride_{name} gauge\nstride_{name} {value}")?;
    }
    writeln!(page, "# TYPE stride_events_lost counter")?;
    for reason in LossReason::ALL {
        for delivery in [Delivery::NotSent, Delivery::MaybeSent] {
            let lost = stats.lost_by(reason, delivery);
            let labels = format!(r#"reason="{reason}",delivery="{delivery:?}""#);
            writeln!(page, "stride_events_lost_total{{{labels}}} {lost}")?;
        }
    }
    writeln!(page, "# TYPE stride_requests_failed counter")?;
    for (status, count) in failures {
        let status = status.map_or("none".to_owned(), |status| status.to_string());
        writeln!(page, r#"stride_requests_failed_total{{status="{status}"}} {count}"#)?;
    }
    Ok(page)
}

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;

    let failures: Arc<Mutex<Failures>> = Arc::default();
    let counted = Arc::clone(&failures);
    let collector = Collector::builder()
        .observer(move |activity| {
            let status = match activity {
                Activity::Retried { status, .. } => status.map(|status| status.as_u16()),
                Activity::Narrowed { status, .. } => Some(status.as_u16()),
                _ => return,
            };
            let mut failures = counted.lock().unwrap_or_else(PoisonError::into_inner);
            *failures.entry(status).or_default() += 1;
        })
        .start(&stride)?;
    // One that Stride rejects: the batch that holds it is narrowed down.
    collector.collect("scraped", &json!({"$timestamp": "no time at all"}))?;
    for id in 0..10_000 {
        collector.collect("scraped", &json!({"id": id, "bojack": "horseman"}))?;
    }
    let report = collector.stop();

    let page = page(&collector.stats(), &failures.lock().unwrap_or_else(PoisonError::into_inner))?;
    print!("{page}");
    assert!(page.contains("stride_events_delivered_total 10000\n"), "{report}");
    assert!(page.contains(r#"stride_requests_failed_total{status="400"}"#), "{report}");
    Ok(())
}
