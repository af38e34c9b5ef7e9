//! Who is told about what is stored: the subscribers of streams and of processes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::mailbox::{Mailbox, Want};
use super::records::Records;
use crate::engine::position::Position;

/// What can be subscribed to, by name. It need not exist yet, and may be deleted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The events of a stream.
    Stream,
    /// The changes of a process.
    Process,
}

/// Who listens to what. Records are put in by one thread, the one that wrote them.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Bytes that may wait for one subscriber.
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subscribers: [HashMap<String, Listeners>; 2],
    next_subscriber: u64,
    lost: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Listeners {
    mailboxes: Vec<(u64, Arc<Mailbox>)>,
    lost: u64,
}

/// One subscription: where its records wait.
#[derive(Debug)]
pub(crate) struct Subscriber {
    source: Source,
    pub(crate) name: String,
    number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// How a source is heard: its subscribers, and what they have missed since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Heard {
    pub(crate) subscribers: usize,
    pub(crate) missed: u64,
}

impl State {
    fn named(&self, source: Source) -> &HashMap<String, Listeners> {
        &self.subscribers[source as usize]
    }

    fn named_mut(&mut self, source: Source) -> &mut HashMap<String, Listeners> {
        &mut self.subscribers[source as usize]
    }
}

impl Hub {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, state: Mutex::default() }
    }

    /// How many bytes may wait for one subscriber.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half changed when it panics, so poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `after`: what events of a stream follow on.
    pub(crate) fn tell(
        &self,
        source: Source,
        name: &str,
        after: Option<Position>,
        records: &Records,
    ) {
        let mut state = self.state();
        let Some(listeners) = state.named_mut(source).get_mut(name) else { return };
        let lost: u64 =
            listeners.mailboxes.iter().map(|(_, mailbox)| mailbox.put(after, records)).sum();
        listeners.lost += lost;
        state.lost += lost;
    }

    pub(crate) fn subscribe(&self, source: Source, name: &str, want: Want) -> Subscriber {
        let mailbox = Arc::new(Mailbox::new(self.room, want));
        let mut state = self.state();
        if state.closed {
            mailbox.close();
        }
        let number = state.next_subscriber;
        state.next_subscriber += 1;
        let listeners = state.named_mut(source).entry(name.to_owned()).or_default();
        listeners.mailboxes.push((number, Arc::clone(&mailbox)));
        Subscriber { source, name: name.to_owned(), number, mailbox }
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Subscriber) {
        let mut state = self.state();
        let subscribers = state.named_mut(subscriber.source);
        if let Some(listeners) = subscribers.get_mut(&subscriber.name) {
            listeners.mailboxes.retain(|(number, _)| *number != subscriber.number);
            // The name goes with its last subscriber, unless it has a loss to tell of.
            if listeners.mailboxes.is_empty() && listeners.lost == 0 {
                subscribers.remove(&subscriber.name);
            }
        }
    }

    /// Retention has overtaken a subscriber.
    pub(crate) fn missed(&self, subscriber: &Subscriber, events: u64) {
        let mut state = self.state();
        state.lost += events;
        if let Some(listeners) = state.named_mut(subscriber.source).get_mut(&subscriber.name) {
            listeners.lost += events;
        }
    }

    /// Ends the subscriptions to a process that begin with a snapshot: there were changes which nobody noted.
    pub(crate) fn outdate(&self, process: &str) {
        let state = self.state();
        let listeners = state.named(Source::Process).get(process);
        for (_, mailbox) in listeners.iter().flat_map(|it| &it.mailboxes) {
            mailbox.outdate();
        }
    }

    /// Ends the subscriptions to one source once they have sent what waits.
    pub(crate) fn end(&self, source: Source, name: &str) {
        let state = self.state();
        for (_, mailbox) in state.named(source).get(name).iter().flat_map(|it| &it.mailboxes) {
            mailbox.close();
        }
    }

    /// Ends every subscription, those to come included, once it has sent what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let subscribers = state.subscribers.iter().flat_map(HashMap::values);
        for (_, mailbox) in subscribers.flat_map(|listeners| &listeners.mailboxes) {
            mailbox.close();
        }
    }

    pub(crate) fn of(&self, source: Source, name: &str) -> usize {
        self.state().named(source).get(name).map_or(0, |listeners| listeners.mailboxes.len())
    }

    pub(crate) fn count_all(&self) -> usize {
        let state = self.state();
        state.subscribers.iter().flat_map(HashMap::values).map(|it| it.mailboxes.len()).sum()
    }

    /// The streams and the processes that have subscribers, or had some that missed something.
    pub(crate) fn heard(&self) -> (HashMap<String, Heard>, HashMap<String, Heard>) {
        let state = self.state();
        let of = |source| {
            let heard = |(name, it): (&String, &Listeners)| {
                (name.clone(), Heard { subscribers: it.mailboxes.len(), missed: it.lost })
            };
            state.named(source).iter().map(heard).collect()
        };
        (of(Source::Stream), of(Source::Process))
    }

    /// How many records slow subscribers have missed.
    pub(crate) fn lost(&self, source: Source, name: &str) -> u64 {
        self.state().named(source).get(name).map_or(0, |listeners| listeners.lost)
    }

    /// How many records slow subscribers of anything have missed since the start.
    pub(crate) fn all_lost(&self) -> u64 {
        self.state().lost
    }
}
