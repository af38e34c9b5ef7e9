//! What comes into streams and goes out of them: stamps on the way in, subscribers on the way out.
//! Nothing in here knows HTTP, or how events are kept.

pub(crate) mod batch;
pub(crate) mod event;
pub(crate) mod keys;
pub(crate) mod mailbox;
pub(crate) mod records;
pub(crate) mod sampler;
pub(crate) mod stamp;
pub(crate) mod subscribers;

use std::sync::Arc;

use self::batch::{Batch, BatchError};
use self::records::Records;
use self::subscribers::{Source, Subscribers};
use crate::changes::Changes;
use crate::engine::{Author, Commit, Engine, Listener};

/// Whether `name` can name a stream, a process or a saved query.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Hands events to the engine.
pub(crate) struct Collector<'a> {
    pub(crate) engine: &'a dyn Engine,
    pub(crate) author: Author,
    /// What the events of a request may take once they are stamped, in bytes.
    pub(crate) limit: usize,
    /// Whether its author may write to a stream.
    pub(crate) may_write: &'a dyn Fn(&str) -> bool,
}

/// What a stream of a request takes beside its events, in bytes: counted, so that a request of many streams with
/// a tiny event each is bounded as any other.
const STREAM: usize = 2048;

impl Collector<'_> {
    /// The body of `POST /collect/NAME`: all of it or nothing.
    pub(crate) fn one(&self, name: &str, json: &str) -> Result<Commit, BatchError> {
        self.check(name)?;
        let batch = Batch::read(json, &stamp::now(), self.limit)?;
        Ok(self.engine.append(vec![(name.to_owned(), batch)], self.author))
    }

    /// The body of `POST /collect`: all of it or nothing.
    pub(crate) fn map(&self, json: &str) -> Result<Commit, BatchError> {
        let now = stamp::now();
        let mut left = self.limit;
        let mut batches = Vec::new();
        batch::read_map(json, |name, events| {
            let at = |why| BatchError::Bad(format!("stream {name:?}: {why}"));
            if !is_name(name) {
                return Err(at("a name is a letter and then letters, digits and _".to_owned()));
            }
            self.check(name)?;
            let batch = Batch::read(events, &now, left).map_err(|error| match error {
                BatchError::Bad(why) => at(why),
                BatchError::TooLarge { .. } => BatchError::TooLarge { limit: self.limit },
                error => error,
            })?;
            if batch.records.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(batch.text.len() + STREAM);
            batches.push((name.to_owned(), batch));
            Ok(())
        })?;
        Ok(self.engine.append(batches, self.author))
    }

    fn check(&self, name: &str) -> Result<(), BatchError> {
        match (self.may_write)(name) {
            true => Ok(()),
            false => Err(BatchError::Forbidden(name.to_owned())),
        }
    }
}

/// Passes on what the engine did to those who want to know.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) subscribers: Arc<Subscribers>,
    pub(crate) changes: Arc<Changes>,
}

impl Listener for Announcer {
    fn stored(&self, stream: &str, events: &Records) {
        self.subscribers.tell(Source::Stream, stream, events);
    }

    fn wants_changes(&self, process: &str) -> bool {
        self.subscribers.of(Source::Process, process) > 0
    }

    fn changed(&self, process: &str, changes: &Records) {
        self.subscribers.tell(Source::Process, process, changes);
    }

    fn process_deleted(&self, process: &str) {
        self.subscribers.end(Source::Process, process);
    }

    fn progressed(&self) {
        self.changes.note();
    }
}
