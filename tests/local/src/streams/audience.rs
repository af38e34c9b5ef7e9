//! Who is told about what is stored: the subscribers of streams and of processes.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lines::Lines;
use super::mailbox::Mailbox;

/// What can be subscribed to, by name. It need not exist yet, and may exist no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The events of a stream.
    Stream,
    /// The changes of a process.
    Process,
}

/// Who listens to what. Lines are put in by one thread, the one that wrote them.
#[derive(Debug)]
pub(crate) struct Audiences {
    /// Bytes that may wait for one subscriber.
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    audiences: [HashMap<String, Audience>; 2],
    next_subscriber: u64,
    lost: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Audience {
    mailboxes: Vec<(u64, Arc<Mailbox>)>,
    lost: u64,
}

/// One subscription: where its lines wait.
#[derive(Debug)]
pub(crate) struct Subscriber {
    source: Source,
    name: String,
    number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl State {
    fn of(&self, source: Source) -> &HashMap<String, Audience> {
        &self.audiences[source as usize]
    }

    fn of_mut(&mut self, source: Source) -> &mut HashMap<String, Audience> {
        &mut self.audiences[source as usize]
    }
}

impl Audiences {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half changed when it panics, so poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, source: Source, name: &str, lines: &Lines) {
        let mut state = self.state();
        let Some(audience) = state.of_mut(source).get_mut(name) else { return };
        let lost: u64 = audience.mailboxes.iter().map(|(_, mailbox)| mailbox.put(lines)).sum();
        audience.lost += lost;
        state.lost += lost;
    }

    pub(crate) fn subscribe(
        &self,
        source: Source,
        name: &str,
        sample: Option<NonZeroU32>,
    ) -> Subscriber {
        let mailbox = Arc::new(Mailbox::new(self.room, sample));
        let mut state = self.state();
        if state.closed {
            mailbox.close();
        }
        let number = state.next_subscriber;
        state.next_subscriber += 1;
        let audience = state.of_mut(source).entry(name.to_owned()).or_default();
        audience.mailboxes.push((number, Arc::clone(&mailbox)));
        Subscriber { source, name: name.to_owned(), number, mailbox }
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Subscriber) {
        let mut state = self.state();
        let audiences = state.of_mut(subscriber.source);
        if let Some(audience) = audiences.get_mut(&subscriber.name) {
            audience.mailboxes.retain(|(number, _)| *number != subscriber.number);
            // The name goes with its last subscriber, unless it has a loss to tell of.
            if audience.mailboxes.is_empty() && audience.lost == 0 {
                audiences.remove(&subscriber.name);
            }
        }
    }

    /// Ends the subscriptions to one source once they have sent what waits.
    pub(crate) fn end(&self, source: Source, name: &str) {
        let state = self.state();
        for (_, mailbox) in state.of(source).get(name).iter().flat_map(|it| &it.mailboxes) {
            mailbox.close();
        }
    }

    /// Ends every subscription, those to come included, once it has sent what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let audiences = state.audiences.iter().flat_map(HashMap::values);
        for (_, mailbox) in audiences.flat_map(|audience| &audience.mailboxes) {
            mailbox.close();
        }
    }

    pub(crate) fn subscribers(&self, source: Source, name: &str) -> usize {
        self.state().of(source).get(name).map_or(0, |audience| audience.mailboxes.len())
    }

    pub(crate) fn all_subscribers(&self) -> usize {
        let state = self.state();
        state.audiences.iter().flat_map(HashMap::values).map(|it| it.mailboxes.len()).sum()
    }

    /// How many lines slow subscribers have missed.
    pub(crate) fn lost(&self, source: Source, name: &str) -> u64 {
        self.state().of(source).get(name).map_or(0, |audience| audience.lost)
    }

    /// How many lines slow subscribers of anything have missed since the start.
    pub(crate) fn all_lost(&self) -> u64 {
        self.state().lost
    }
}
