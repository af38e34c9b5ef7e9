//! What comes in: events, checked and stamped before the engine gets them. Nothing in here knows HTTP, or how
//! events are kept.

pub(crate) mod batch;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod reserved;
pub(crate) mod timestamp;

use std::collections::HashMap;

use self::batch::{Batch, BatchError};
use crate::engine::{Author, Commit, Engine};

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

/// How many events a request may have that may be from anybody: all writers wait until they are stored,
/// which is less than a second. Clients that batch halve what is too much.
const MOST_EVENTS_OF_ANYBODY: usize = 100_000;

/// What a stream of a request takes beside its events, in bytes: counted, so that a request of many streams with
/// a tiny event each is bounded as any other.
const STREAM: usize = 2048;

impl Collector<'_> {
    /// The body of `POST /collect/NAME`: all of it or nothing.
    pub(crate) fn one(&self, name: &str, json: &str) -> Result<Commit, BatchError> {
        self.check(name)?;
        let batch = Batch::read(json, &timestamp::now(), self.limit, self.most_events())?;
        Ok(self.engine.append(vec![(name.to_owned(), batch)], self.author))
    }

    /// The body of `POST /collect`: all of it or nothing.
    pub(crate) fn map(&self, json: &str) -> Result<Commit, BatchError> {
        let now = timestamp::now();
        let (mut left, mut left_events) = (self.limit, self.most_events());
        let mut batches = Vec::<(String, Batch)>::new();
        let mut places = HashMap::<String, usize>::new();
        batch::read_map(json, |name, events| {
            let at = |why| BatchError::Bad(format!("stream {name:?}: {why}"));
            if !is_name(name) {
                return Err(at("a name is a letter and then letters, digits and _".to_owned()));
            }
            self.check(name)?;
            // Of no events there is nothing to keep, but they have to be checked.
            let mut first = Batch::default();
            let known = places.get(name).map(|place| &mut batches[*place].1);
            let is_new = known.is_none();
            let batch = known.unwrap_or(&mut first);
            let before = (batch.text.len(), batch.records.len());
            batch.add(events, &now, left, left_events).map_err(|error| match error {
                BatchError::Bad(why) => at(why),
                BatchError::TooLarge { .. } => BatchError::TooLarge { limit: self.limit },
                BatchError::TooMany { .. } => BatchError::TooMany { most: self.most_events() },
                error => error,
            })?;
            left = left.saturating_sub(batch.text.len() - before.0);
            left_events -= batch.records.len() - before.1;
            if is_new && !first.records.is_empty() {
                left = left.saturating_sub(STREAM);
                places.insert(name.to_owned(), batches.len());
                batches.push((name.to_owned(), first));
            }
            Ok(())
        })?;
        Ok(self.engine.append(batches, self.author))
    }

    fn most_events(&self) -> usize {
        match self.author {
            Author::Trusted => usize::MAX,
            Author::Anybody => MOST_EVENTS_OF_ANYBODY,
        }
    }

    fn check(&self, name: &str) -> Result<(), BatchError> {
        match (self.may_write)(name) {
            true => Ok(()),
            false => Err(BatchError::Forbidden(name.to_owned())),
        }
    }
}
