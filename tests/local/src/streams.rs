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
use crate::engine::{Commit, Engine, Listener};

/// Whether `name` can name a stream, a process or a saved query.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Hands the body of `POST /collect/NAME` to the engine: all of it or nothing. `limit` is what the
/// events may take once they are stamped, in bytes.
pub(crate) fn collect(
    engine: &dyn Engine,
    name: &str,
    json: &str,
    limit: usize,
) -> Result<Commit, BatchError> {
    let batch = Batch::read(json, &stamp::now(), limit)?;
    Ok(engine.append(vec![(name.to_owned(), batch)]))
}

/// Hands the body of `POST /collect` to the engine: all of it or nothing.
pub(crate) fn collect_map(
    engine: &dyn Engine,
    json: &str,
    limit: usize,
) -> Result<Commit, BatchError> {
    let now = stamp::now();
    let mut left = limit;
    let mut batches = Vec::new();
    for (name, events) in batch::read_map(json)? {
        let at = |why| BatchError::Bad(format!("stream {name:?}: {why}"));
        if !is_name(&name) {
            return Err(at("a name is a letter and then letters, digits and _".to_owned()));
        }
        let batch = Batch::read(events.get(), &now, left).map_err(|error| match error {
            BatchError::Bad(why) => at(why),
            BatchError::TooLarge { .. } => BatchError::TooLarge { limit },
            error @ BatchError::LargeEvent { .. } => error,
        })?;
        left -= batch.text.len();
        batches.push((name, batch));
    }
    Ok(engine.append(batches))
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
