//! What goes out: events and changes, to those who have subscribed to them. Nothing in here knows HTTP, or how
//! events are kept.

pub(crate) mod hub;
pub(crate) mod mailbox;
mod place;
pub(crate) mod records;
mod sampler;

use std::sync::Arc;

use self::hub::{Hub, Source};
use self::records::Records;
use crate::changes::Changes;
use crate::engine::Listener;
use crate::engine::position::Position;
use crate::rates::Rates;

/// Tells subscribers and waiters what the engine did, and counts it.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) subscribers: Arc<Hub>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) changes: Arc<Changes>,
}

impl Listener for Announcer {
    fn added(&self, stream: &str, events: u64) {
        self.rates.note(stream, events);
    }

    fn stored(&self, stream: &str, after: Position, events: &Records) {
        self.subscribers.tell(Source::Stream, stream, Some(after), events);
    }

    #[cfg(feature = "postgres")]
    fn wants_events(&self, stream: &str) -> bool {
        self.subscribers.of(Source::Stream, stream) > 0
    }

    fn wants_changes(&self, process: &str) -> bool {
        self.subscribers.of(Source::Process, process) > 0
    }

    fn changed(&self, process: &str, changes: &Records) {
        self.subscribers.tell(Source::Process, process, None, changes);
    }

    fn changed_unseen(&self, process: &str) {
        self.subscribers.outdate(process);
    }

    fn process_deleted(&self, process: &str) {
        self.subscribers.end(Source::Process, process);
    }

    fn progressed(&self) {
        self.changes.note();
    }
}
