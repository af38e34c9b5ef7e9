//! The stream that a subscriber reads, as the server keeps it: trimmed, restored, deleted, and sometimes by
//! a server that knows no positions.

use crate::choice::Choices;

/// A stream. Every event has a number of its own for ever, and a place as long as nothing goes back.
#[derive(Debug)]
pub(crate) struct History {
    knows_positions: bool,
    /// Grows whenever places are used twice.
    epoch: u64,
    /// The place of the oldest event that is left.
    first: u64,
    /// The events from there on.
    events: Vec<u64>,
    next: u64,
}

/// What the server says to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The place of the first event, and how many before it are gone.
    At { place: u64, missed: u64 },
    /// 410.
    Gone,
}

impl History {
    pub(crate) fn new(choices: &mut Choices) -> Self {
        let knows_positions = choices.pick(4) > 0;
        Self { knows_positions, epoch: 0, first: 0, events: Vec::new(), next: 0 }
    }

    /// The place behind the newest event.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the event at a place.
    pub(crate) fn at(&self, place: u64) -> Option<u64> {
        let index = place.checked_sub(self.first)?;
        self.events.get(usize::try_from(index).ok()?).copied()
    }

    /// Adds an event.
    pub(crate) fn append(&mut self) {
        self.events.push(self.next);
        self.next += 1;
    }

    /// What happens while a subscriber is away.
    pub(crate) fn pass(&mut self, calm: bool, choices: &mut Choices) {
        for _ in 0..choices.pick(4) {
            self.append();
        }
        if calm {
            return;
        }
        let some = choices.pick(8) as usize;
        match choices.pick(20) {
            // Retention.
            14 | 15 => {
                let gone = some.min(self.events.len());
                self.events.drain(..gone);
                self.first += gone as u64;
            }
            // A backup is restored, or the machine fails: the newest are lost, and their places used again.
            16 | 17 => {
                self.events.truncate(self.events.len().saturating_sub(some));
                self.epoch += 1;
            }
            // It is deleted, and made again.
            18 => {
                (self.first, self.epoch) = (0, self.epoch + 1);
                self.events.clear();
            }
            // Another version of the server.
            19 => self.knows_positions = !self.knows_positions,
            // It does nothing, or starts again and forgets nothing.
            _ => {}
        }
    }

    /// How a place is called.
    pub(crate) fn token(&self, place: u64) -> Option<String> {
        self.knows_positions.then(|| format!("~{}.{place}", self.epoch))
    }

    /// Where a subscription with this query begins.
    pub(crate) fn begin(&self, query: Option<&str>) -> Result<Begin, String> {
        let now = Begin::At { place: self.end(), missed: 0 };
        let Some(query) = query.filter(|_| self.knows_positions) else { return Ok(now) };
        let asked = || {
            let (token, skip) = query.strip_prefix("after=")?.split_once("&skip=")?;
            // The tilde is encoded.
            let (epoch, place) = token.strip_prefix("%7E")?.split_once('.')?;
            let (place, skip) = (place.parse::<u64>().ok()?, skip.parse::<u64>().ok()?);
            Some((epoch.parse::<u64>().ok()?, place + skip))
        };
        let (epoch, place) = asked().ok_or_else(|| format!("a server was asked for {query}"))?;
        if epoch != self.epoch || place > self.end() {
            return Ok(Begin::Gone);
        }
        let missed = self.first.saturating_sub(place);
        Ok(Begin::At { place: place + missed, missed })
    }
}
