//! The engine through its trait: what is stored, asked and kept.

pub(in crate::engine) mod contract;
mod definitions;
mod differential;
mod hostile;
mod incremental;
mod kinds;
mod process;
mod quoting;
mod sliding;
mod storage;
mod times;
mod windows;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use super::Sqlite;
use super::writer::Clock;
use crate::changes::Changes;
use crate::engine::contract::received;
use crate::engine::{Author, Definition, Engine, EngineError, ProcessStats, Ttl};
use crate::events::Collector;
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::{Hub, Source, Subscriber};
use crate::subscribers::mailbox::Want;

/// An engine, and those who listen to it.
struct Fixture {
    engine: Sqlite,
    subscribers: Arc<Hub>,
    changes: Arc<Changes>,
}

fn limits() -> Limits {
    Limits {
        max_event_bytes: 1 << 30,
        max_age: Duration::from_secs(24 * 60 * 60),
        max_open_bytes: usize::MAX,
        query_time: Duration::from_secs(60),
        query_bytes: 1 << 24,
        ..Limits::default()
    }
}

fn start() -> Fixture {
    start_with(&limits())
}

fn at(path: &Path) -> Fixture {
    open(Some(path), &limits())
}

fn start_with(limits: &Limits) -> Fixture {
    open(None, limits)
}

fn open(path: Option<&Path>, limits: &Limits) -> Fixture {
    open_at(path, limits, Box::new(OffsetDateTime::now_utc))
}

fn open_at(path: Option<&Path>, limits: &Limits, clock: Clock) -> Fixture {
    let subscribers = Arc::new(Hub::new(1 << 24));
    let changes = Arc::new(Changes::default());
    let announcer = Announcer {
        subscribers: Arc::clone(&subscribers),
        rates: Arc::default(),
        changes: Arc::clone(&changes),
    };
    let engine = Sqlite::open_at(path, limits, Arc::new(announcer), clock).unwrap();
    Fixture { engine, subscribers, changes }
}

impl Fixture {
    fn collect(&self, stream: &str, json: &str) {
        self.try_collect(stream, json).unwrap();
    }

    fn try_collect(&self, stream: &str, json: &str) -> Result<(), EngineError> {
        self.collect_as(Author::Trusted, stream, json)
    }

    fn collect_as(&self, author: Author, stream: &str, json: &str) -> Result<(), EngineError> {
        self.collector(author).one(stream, json).unwrap().blocking_recv().unwrap()
    }

    fn collector(&self, author: Author) -> Collector<'_> {
        Collector { engine: &self.engine, author, limit: 1 << 27, may_write: &|_| true }
    }

    fn query(&self, sql: &str) -> Value {
        self.try_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_query(&self, sql: &str) -> Result<Value, EngineError> {
        let answer = self.engine.query(sql, &[])?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    fn process(&self, name: &str, query: &str) {
        self.try_process(name, query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }

    fn try_process(&self, name: &str, query: &str) -> Result<(), EngineError> {
        let definition = Definition { query: query.to_owned(), ttl: None };
        self.engine.create_process(name, &definition)
    }

    fn stats(&self, name: &str) -> ProcessStats {
        self.engine.process_stats(name).unwrap()
    }

    /// Waits for what is done in the background.
    fn wait_until(&self, done: impl Fn() -> bool) {
        assert!(self.changes.wait_until(Duration::from_secs(60), done), "nothing came of it");
    }

    fn subscribe(&self, process: &str, sample: Option<u32>) -> Subscriber {
        let sample = sample.and_then(NonZeroU32::new);
        let want = sample.map_or(Want::Changes, Want::Sample);
        self.subscribers.subscribe(Source::Process, process, want)
    }
}
