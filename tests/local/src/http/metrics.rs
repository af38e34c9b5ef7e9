//! `GET /metrics`: how much has been done. It is outside of `/v1` and takes no key: it tells numbers,
//! and never a name, a key or an event.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::shared::Shared;

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests whose head has arrived.
    pub(crate) requests: AtomicU64,
    /// Responses by the first digit of their status, less one.
    responses: [AtomicU64; 5],
    /// Responses to the API by how long they took: no longer than that of [`BUCKETS`], or longer.
    took: [AtomicU64; BUCKETS.len() + 1],
    /// How long all of them took, in microseconds.
    took_micros: AtomicU64,
    /// Connections accepted, those that were turned away included.
    pub(crate) connections: AtomicU64,
    /// Connections turned away because too many were open.
    pub(crate) turned_away: AtomicU64,
    /// Connections open now.
    pub(crate) open: AtomicUsize,
}

/// Upper bounds of times, in milliseconds.
const BUCKETS: [u64; 10] = [1, 5, 10, 50, 100, 250, 500, 1000, 5000, 30_000];

impl Counters {
    /// A request to the API took this long, until the head of its response.
    pub(crate) fn took(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound <= millis);
        self.took[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.took_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(responses) = self.responses.get(class) {
            responses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The page of `GET /metrics`, in the text format of Prometheus.
pub(crate) fn page(shared: &Shared) -> String {
    let Shared { counters, subscribers, engine, .. } = shared;
    let engine = engine.counters();
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut page = Page(String::with_capacity(4096));
    page.counter("requests_total", "Requests whose head has arrived", value(&counters.requests));
    page.head("responses_total", "counter", "Responses by the class of their status");
    for (class, responses) in counters.responses.iter().enumerate() {
        let responses = value(responses);
        page.line(&format!("responses_total{{status=\"{}xx\"}}", class + 1), responses);
    }
    page.head(
        "request_seconds",
        "histogram",
        "Time from the head of a request to that of its response",
    );
    let mut count = 0;
    for (bucket, took) in counters.took.iter().enumerate() {
        count += value(took);
        let bound = BUCKETS.get(bucket).map(|millis| Duration::from_millis(*millis).as_secs_f64());
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
        page.line(&format!("request_seconds_bucket{{le=\"{bound}\"}}"), count);
    }
    let sum = Duration::from_micros(value(&counters.took_micros)).as_secs_f64();
    page.line("request_seconds_sum", sum);
    page.line("request_seconds_count", count);
    page.counter("connections_total", "Connections accepted", value(&counters.connections));
    page.counter(
        "connections_turned_away_total",
        "Connections turned away because too many were open",
        value(&counters.turned_away),
    );
    page.gauge("connections_open", "Connections open now", counters.open.load(Ordering::Relaxed));
    page.counter("events_stored_total", "Events stored", engine.events);
    page.gauge("subscribers", "Subscriptions open now", subscribers.count_all());
    page.counter(
        "subscriber_events_lost_total",
        "Changes that slow subscribers missed, and events that were gone before they read them",
        subscribers.all_lost(),
    );
    page.counter("transactions_total", "Transactions that stored events", engine.transactions);
    page.counter(
        "storage_errors_total",
        "Transactions that the storage refused",
        engine.storage_errors,
    );
    page.counter(
        "process_events_skipped_total",
        "Events that processes lack because their queries failed at them",
        engine.skipped_events,
    );
    page.gauge(
        "processes_stale",
        "Processes that show an old result because later runs failed",
        engine.stale_processes,
    );
    page.head("processes", "gauge", "Processes by how they are kept up to date");
    page.line("processes{mode=\"incremental\"}", engine.incremental_processes);
    page.line("processes{mode=\"recomputed\"}", engine.recomputed_processes);
    page.gauge(
        "processes_filling",
        "Processes that have not been given all events that were stored before them",
        engine.filling_processes,
    );
    page.gauge("queries_running", "Queries that run now", engine.running_queries);
    page.counter("queries_total", "Queries run for clients", engine.queries);
    page.counter("queries_failed_total", "Queries that ended with an error", engine.failed_queries);
    page.counter(
        "query_seconds_total",
        "Time that queries run for clients have taken",
        Duration::from_micros(engine.query_micros).as_secs_f64(),
    );
    page.0
}

struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(name, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let written = write!(
            self.0,
            "# HELP stride_local_{name} {help}.\n# TYPE stride_local_{name} {kind}\n"
        );
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }

    fn line(&mut self, series: &str, value: impl Display) {
        let written = writeln!(self.0, "stride_local_{series} {value}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
}
