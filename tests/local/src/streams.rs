//! The streams: what is stored, and who is told about it. Nothing in here knows HTTP.

pub(crate) mod batch;
pub(crate) mod event;
pub(crate) mod mailbox;
pub(crate) mod sampler;
pub(crate) mod stamp;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use self::batch::{Batch, BatchError};
use self::mailbox::Mailbox;
use self::stamp::{EventId, Ids};

/// What the streams may take of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Events kept per stream.
    pub(crate) events: usize,
    /// Bytes of events kept per stream.
    pub(crate) bytes: usize,
    /// Bytes that may wait for one subscriber.
    pub(crate) mailbox: usize,
    /// Bytes that the events of one request may take once they are stamped.
    pub(crate) request: usize,
}

/// Whether `name` can name a stream.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What there is to say about one stream.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) first_seen: String,
    pub(crate) last_seen: String,
}

#[derive(Debug)]
pub(crate) struct Streams {
    bounds: Bounds,
    ids: Ids,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Stream>,
    /// Apart from the streams: one can be subscribed to before it exists and after it was deleted.
    audiences: HashMap<String, Audience>,
    next_subscriber: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Audience {
    mailboxes: Vec<(u64, Arc<Mailbox>)>,
    lost: u64,
}

#[derive(Debug)]
struct Stream {
    summary: Summary,
    /// The oldest first.
    batches: VecDeque<Arc<Batch>>,
    /// How many events of the oldest batch are gone already.
    gone: usize,
    /// Events that are still here, and the bytes of their batches.
    kept: usize,
    bytes: usize,
    ids: HashSet<EventId>,
}

impl Streams {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ids: Ids::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half changed when it panics, so poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the body of `POST /collect/NAME`: all of it or nothing.
    pub(crate) fn collect(&self, name: &str, json: &str) -> Result<(), BatchError> {
        let now = stamp::now();
        let batch = Batch::read(json, &self.ids, &now, self.bounds.request)?;
        self.commit([(name.to_owned(), batch)], &now);
        Ok(())
    }

    /// Stores the body of `POST /collect`: all of it or nothing.
    pub(crate) fn collect_map(&self, json: &str) -> Result<(), BatchError> {
        let now = stamp::now();
        let mut left = self.bounds.request;
        let mut batches = Vec::new();
        for (name, events) in batch::read_map(json)? {
            let at = |why| BatchError::Bad(format!("stream {name:?}: {why}"));
            if !is_name(&name) {
                return Err(at("a name is a letter and then letters, digits and _".to_owned()));
            }
            let batch =
                Batch::read(events.get(), &self.ids, &now, left).map_err(|error| match error {
                    BatchError::Bad(why) => at(why),
                    BatchError::TooLarge { .. } => {
                        BatchError::TooLarge { limit: self.bounds.request }
                    }
                })?;
            left -= batch.text.len();
            batches.push((name, batch));
        }
        self.commit(batches, &now);
        Ok(())
    }

    /// Stores what has been checked and tells the subscribers, under one lock: all of them see the
    /// events of a stream in the order in which they were stored.
    fn commit(&self, batches: impl IntoIterator<Item = (String, Batch)>, now: &str) {
        let mut state = self.state();
        let State { streams, audiences, .. } = &mut *state;
        for (name, batch) in batches {
            // A stream comes into being with its first event, and an empty array has none.
            if batch.records.is_empty() {
                continue;
            }
            let audience = audiences.get_mut(&name);
            let stream = streams.entry(name).or_insert_with(|| Stream::new(now));
            let batch = stream.add(batch, now, &self.bounds);
            if let Some(audience) = audience {
                let Audience { mailboxes, lost } = audience;
                *lost += mailboxes.iter().map(|(_, mailbox)| mailbox.put(&batch)).sum::<u64>();
            }
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().streams.keys().cloned().collect()
    }

    pub(crate) fn summary(&self, name: &str) -> Option<Summary> {
        Some(self.state().streams.get(name)?.summary.clone())
    }

    /// Forgets a stream; whoever is subscribed to it stays so.
    pub(crate) fn delete(&self, name: &str) -> bool {
        let removed = self.state().streams.remove(name);
        // Dropped here, outside the lock: it may be a million events.
        removed.is_some()
    }

    /// The events that are still here, the oldest first.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let (batches, gone) = match self.state().streams.get(name) {
            Some(stream) => (stream.batches.clone(), stream.gone),
            None => return Vec::new(),
        };
        let events = batches
            .iter()
            .flat_map(|batch| (0..batch.records.len()).map(|index| batch.event(index)))
            .skip(gone);
        events.filter_map(|event| serde_json::from_slice(event).ok()).collect()
    }

    pub(crate) fn subscribe(&self, name: &str, sample: Option<NonZeroU32>) -> Subscriber {
        let mailbox = Arc::new(Mailbox::new(self.bounds.mailbox, sample));
        let mut state = self.state();
        if state.closed {
            mailbox.close();
        }
        let number = state.next_subscriber;
        state.next_subscriber += 1;
        let audience = state.audiences.entry(name.to_owned()).or_default();
        audience.mailboxes.push((number, Arc::clone(&mailbox)));
        Subscriber { name: name.to_owned(), number, mailbox }
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Subscriber) {
        let mut state = self.state();
        if let Some(audience) = state.audiences.get_mut(&subscriber.name) {
            audience.mailboxes.retain(|(number, _)| *number != subscriber.number);
            // The name goes with its last subscriber, unless it has a loss to tell of.
            if audience.mailboxes.is_empty() && audience.lost == 0 {
                state.audiences.remove(&subscriber.name);
            }
        }
    }

    /// Ends every subscription, those to come included, once it has sent what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for (_, mailbox) in state.audiences.values().flat_map(|audience| &audience.mailboxes) {
            mailbox.close();
        }
    }

    pub(crate) fn subscribers(&self, name: &str) -> usize {
        self.state().audiences.get(name).map_or(0, |audience| audience.mailboxes.len())
    }

    pub(crate) fn all_subscribers(&self) -> usize {
        self.state().audiences.values().map(|audience| audience.mailboxes.len()).sum()
    }

    /// How many events slow subscribers of this stream have missed.
    pub(crate) fn lost(&self, name: &str) -> u64 {
        self.state().audiences.get(name).map_or(0, |audience| audience.lost)
    }
}

/// One subscription to a stream: where its events wait.
#[derive(Debug)]
pub(crate) struct Subscriber {
    name: String,
    number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Stream {
    fn new(now: &str) -> Self {
        Self {
            summary: Summary { count: 0, first_seen: now.to_owned(), last_seen: now.to_owned() },
            batches: VecDeque::new(),
            gone: 0,
            kept: 0,
            bytes: 0,
            ids: HashSet::new(),
        }
    }

    /// Adds the events that are new, lets the oldest go and returns what was added.
    fn add(&mut self, batch: Batch, now: &str, bounds: &Bounds) -> Arc<Batch> {
        let batch = Arc::new(batch.retain(|record| self.ids.insert(record.id.clone())));
        now.clone_into(&mut self.summary.last_seen);
        if !batch.records.is_empty() {
            self.summary.count += batch.records.len() as u64;
            self.kept += batch.records.len();
            self.bytes += batch.text.len();
            self.batches.push_back(Arc::clone(&batch));
            while self.kept > bounds.events || self.bytes > bounds.bytes {
                self.drop_oldest();
            }
        }
        batch
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.batches.front() else { return };
        self.ids.remove(&oldest.records[self.gone].id);
        self.gone += 1;
        self.kept -= 1;
        if self.gone == oldest.records.len() {
            self.bytes -= oldest.text.len();
            self.gone = 0;
            self.batches.pop_front();
        }
    }
}
