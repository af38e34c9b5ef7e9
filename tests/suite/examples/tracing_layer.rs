//! Sends what a program tells `tracing` to a stream: a layer over a collector.
//!
//!     cargo run --example tracing_layer
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`.
//!
//! What a layer like this must not do is feed on itself: sending events emits events. So the collector
//! runs on threads of its own, and the layer ignores what happens on them, whichever library it comes
//! from. An `AsyncCollector` shares its runtime's threads with the program; there, give the layer a
//! filter for the targets `stride`, `hyper` and `rustls`.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};
use stride_blocking::Stride;
use stride_collector::{Collector, StreamHandle};
use stride_local::Local;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// A layer that collects events into a stream.
struct StrideLayer {
    stream: StreamHandle,
    /// How many events found no room.
    refused: Arc<AtomicU64>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StrideLayer {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        thread_local! {
            static IS_SENDER: bool = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("stride-sender-"));
            static IS_COLLECTING: Cell<bool> = const { Cell::new(false) };
        }
        // What collecting an event emits would be collected in turn.
        if IS_SENDER.with(|is| *is) || IS_COLLECTING.replace(true) {
            return;
        }
        let metadata = event.metadata();
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.0.insert("level".into(), metadata.level().as_str().into());
        fields.0.insert("target".into(), metadata.target().into());
        let spans = context.event_scope(event).into_iter().flatten();
        let spans: Vec<&str> = spans.map(|span| span.name()).collect();
        fields.0.insert("spans".into(), spans.into());
        if self.stream.collect(&fields.0).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        IS_COLLECTING.set(false);
    }
}

/// The fields of an event as JSON.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let stride = match std::env::var_os("STRIDE_ENDPOINT") {
        Some(_) => Stride::from_env()?,
        None => Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build()?,
    };
    let collector = Collector::start(&stride)?;
    let refused = Arc::new(AtomicU64::new(0));
    let layer = StrideLayer { stream: collector.stream("logs")?, refused: Arc::clone(&refused) };
    // Everything down to TRACE, also what the libraries below say; but not what the embedded Stride says,
    // which would log each request that brings it its logs.
    let layer = layer.with_filter(filter_fn(|it| !it.target().starts_with("stride_local")));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    for order in 0..1000 {
        let _span = tracing::info_span!("order", order).entered();
        tracing::info!(order, total = 9.99, "an order was paid");
        if order % 100 == 0 && collector.flush().lost() > 0 {
            break;
        }
    }

    let report = collector.stop();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{report}; {} found no room", refused.load(Ordering::Relaxed))?;
    if std::env::var_os("STRIDE_ENDPOINT").is_none() {
        // Each event once, and nothing that the sending of them emitted.
        assert_eq!(report.delivered, 1000);
    }
    Ok(())
}
