//! The events of a stream after a position.

use rusqlite::{Connection, OptionalExtension as _};

use super::storage::given_at;
use crate::engine::position::{Position, Which};
use crate::engine::{EngineError, Page, PageLimit, Start};
use crate::events::ids::{EventId, Ids};
use crate::sql::places::{parts, place};
use crate::subscribers::records::{DELIMITER, Records};

/// Reads streams of one storage: all of a page is of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) epoch: u64,
    pub(super) ids: Ids,
}

/// A stream as it is at one moment.
struct Found {
    number: i64,
    /// The oldest event that is still here, and the one to come.
    first: i64,
    next: i64,
}

impl Pages {
    /// Where to begin to read.
    pub(super) fn position(
        &self,
        connection: &Connection,
        stream: &str,
        start: Start<'_>,
    ) -> Result<Position, EngineError> {
        let snapshot = connection.unchecked_transaction()?;
        let Some(found) = find(&snapshot, stream)? else {
            if let Start::After(_) = start {
                return Err(no_such_event());
            }
            let stream = Which::After(last_number(&snapshot)?);
            return Ok(Position { epoch: self.epoch, stream, place: 0 });
        };
        let next = match start {
            Start::Oldest => found.first,
            Start::Newest => found.next,
            Start::After(id) => {
                self.place_of(&snapshot, &found, id)?.ok_or_else(no_such_event)? + 1
            }
        };
        Ok(self.before(found.number, next))
    }

    /// What comes after a position.
    pub(super) fn after(
        &self,
        connection: &Connection,
        stream: &str,
        position: Position,
        most: PageLimit,
    ) -> Result<Page, EngineError> {
        let snapshot = connection.unchecked_transaction()?;
        let found = find(&snapshot, stream)?;
        if position.epoch != self.epoch {
            return Err(gone("the storage is another one, or was put back from a copy"));
        }
        let is_same = match (&found, position.stream) {
            (Some(found), Which::Number(number)) => found.number.cast_unsigned() == number,
            (None, Which::Number(_)) => false,
            // One that came since then and was deleted may have had this name.
            (_, Which::After(number)) => last_deleted(&snapshot)? <= number,
        };
        if !is_same {
            return Err(gone("the stream was deleted since"));
        }
        let count = found.as_ref().map_or(0, |found| found.next.abs_diff(1));
        if position.place > count {
            return Err(gone("the stream never had so many events"));
        }
        match found {
            Some(found) => self.page(&snapshot, &found, position.place, most),
            None => Ok(Page { events: Records::default(), missing: 0, end: position }),
        }
    }

    fn page(
        &self,
        snapshot: &Connection,
        found: &Found,
        after: u64,
        most: PageLimit,
    ) -> Result<Page, EngineError> {
        let next = i64::try_from(after).unwrap_or(i64::MAX).saturating_add(1);
        let from = next.max(found.first);
        let select =
            "SELECT place, event FROM events WHERE place >= ? AND place < ? ORDER BY place LIMIT ?";
        let mut select = snapshot.prepare_cached(select)?;
        let places = [place(found.number, from), place(found.number, found.next)];
        let count = i64::try_from(most.events.max(1)).unwrap_or(i64::MAX);
        let mut rows = select.query([places[0], places[1], count])?;
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        let mut to = from;
        while let Some(row) = rows.next()? {
            let event = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            // The first is taken however long it is, or there would be no end.
            if !ends.is_empty() && text.len() + event.len() + DELIMITER.len() > most.bytes {
                break;
            }
            if row.get::<_, i64>(0)? != place(found.number, to) {
                return Err(EngineError::Damaged("an event is missing in its stream".to_owned()));
            }
            text.extend_from_slice(event.as_bytes());
            text.extend_from_slice(DELIMITER);
            ends.push(text.len());
            to += 1;
        }
        let events = Records { text: text.into(), ends };
        Ok(Page { events, missing: from.abs_diff(next), end: self.before(found.number, to) })
    }

    /// The place in its stream of the event with this `$id`.
    fn place_of(
        &self,
        snapshot: &Connection,
        found: &Found,
        id: &EventId,
    ) -> Result<Option<i64>, EngineError> {
        let select = "SELECT place FROM events WHERE place >> 40 = ? AND id = ?";
        let mut select = snapshot.prepare_cached(select)?;
        let given = select.query_row((found.number, id), |row| row.get(0)).optional()?;
        match given {
            Some(place) => Ok(Some(parts(place).1)),
            None => given_at(snapshot, self.ids, found.number, id),
        }
    }

    /// The position before the event to come at a place of a stream.
    pub(super) fn before(&self, stream: i64, next: i64) -> Position {
        let (stream, place) = (Which::Number(stream.cast_unsigned()), next.abs_diff(1));
        Position { epoch: self.epoch, stream, place }
    }
}

fn find(snapshot: &Connection, stream: &str) -> rusqlite::Result<Option<Found>> {
    let select = "SELECT number, first, next FROM streams WHERE name = ?";
    let mut select = snapshot.prepare_cached(select)?;
    let found = select.query_row([stream], |row| {
        Ok(Found { number: row.get(0)?, first: row.get(1)?, next: row.get(2)? })
    });
    found.optional()
}

/// The last number that a stream was given.
fn last_number(snapshot: &Connection) -> rusqlite::Result<u64> {
    let select = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'streams'";
    snapshot.prepare_cached(select)?.query_row([], |row| row.get(0))
}

/// The greatest number of a stream that was deleted.
fn last_deleted(snapshot: &Connection) -> rusqlite::Result<u64> {
    let select = "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'deleted'";
    snapshot.prepare_cached(select)?.query_row([], |row| row.get(0))
}

fn gone(why: &str) -> EngineError {
    EngineError::Gone(format!("there is nothing to go on from at this position: {why}"))
}

fn no_such_event() -> EngineError {
    EngineError::Gone("the stream holds no event with this $id".to_owned())
}
