//! The events of a stream after a position.

use postgres::Transaction;
use postgres::fallible_iterator::FallibleIterator as _;

use super::error::Failure;
use super::schema::Drawn;
use super::storage::{Events, bytes, given_place};
use crate::engine::position::{Position, Which};
use crate::engine::{EngineError, Page, PageLimit, Start};
use crate::events::ids::EventId;
use crate::subscribers::records::{DELIMITER, Records};

/// All of what is read in the transaction is of one moment.
const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Where to begin to read.
pub(super) fn position(
    transaction: &mut Transaction<'_>,
    drawn: Drawn,
    stream: &str,
    start: Start<'_>,
) -> Result<Position, Failure> {
    transaction.batch_execute(SNAPSHOT)?;
    let Some((number, first, next)) = find(transaction, stream)? else {
        if let Start::After(_) = start {
            return Err(no_such_event().into());
        }
        let stream = Which::After(counter(transaction, "streams")?);
        return Ok(Position { epoch: drawn.epoch, stream, place: 0 });
    };
    let next = match start {
        Start::Oldest => first,
        Start::Newest => next,
        Start::After(id) => {
            place_of(transaction, drawn, number, id)?.ok_or_else(no_such_event)? + 1
        }
    };
    Ok(before(drawn, number, next))
}

/// What comes after a position.
pub(super) fn after(
    transaction: &mut Transaction<'_>,
    drawn: Drawn,
    stream: &str,
    position: Position,
    most: PageLimit,
) -> Result<Page, Failure> {
    transaction.batch_execute(SNAPSHOT)?;
    let found = find(transaction, stream)?;
    if position.epoch != drawn.epoch {
        return Err(gone("the storage is another one, or was put back from a copy").into());
    }
    let is_same = match (found, position.stream) {
        (Some((found, ..)), Which::Number(number)) => found.cast_unsigned() == number,
        (None, Which::Number(_)) => false,
        // One that came since then and was deleted may have had this name.
        (_, Which::After(number)) => counter(transaction, "deleted")? <= number,
    };
    if !is_same {
        return Err(gone("the stream was deleted since").into());
    }
    if position.place > found.map_or(0, |(.., next)| next.abs_diff(1)) {
        return Err(gone("the stream never had so many events").into());
    }
    let Some((number, first, next)) = found else {
        return Ok(Page { events: Records::default(), missing: 0, end: position });
    };
    let asked = i64::try_from(position.place).unwrap_or(i64::MAX).saturating_add(1);
    let (from, events) = read(transaction, number, first.max(asked), next, most)?;
    let to = from.saturating_add_unsigned(events.ends.len() as u64);
    Ok(Page { events, missing: from.abs_diff(asked), end: before(drawn, number, to) })
}

/// Events at places from `from` up to, but without, `next`, and the place of the first of those that are still here.
pub(super) fn read(
    transaction: &mut Transaction<'_>,
    stream: i64,
    from: i64,
    next: i64,
    most: PageLimit,
) -> Result<(i64, Records), Failure> {
    let select = "SELECT place, event FROM stride.events
        WHERE stream = $1 AND place >= $2 AND place < $3 ORDER BY place LIMIT $4";
    let count = i64::try_from(most.events.max(1)).unwrap_or(i64::MAX);
    let mut rows = transaction.query_raw(select, [&stream, &from, &next, &count])?;
    let (mut first, mut events) = (next, Events::default());
    while let Some(row) = rows.next()? {
        let event: &str = row.get(1);
        // The first is taken however long it is, or there would be no end.
        if !events.ends.is_empty() && events.text.len() + event.len() + DELIMITER.len() > most.bytes
        {
            break;
        }
        let place: i64 = row.get(0);
        if events.ends.is_empty() {
            first = place;
        }
        if place.abs_diff(first) != events.ends.len() as u64 {
            let why = "an event is missing in its stream";
            return Err(EngineError::Damaged(why.to_owned()).into());
        }
        events.push(event);
    }
    Ok((first, events.into_records()))
}

/// The position before the event to come at a place of a stream.
pub(super) fn before(drawn: Drawn, stream: i64, next: i64) -> Position {
    let (stream, place) = (Which::Number(stream.cast_unsigned()), next.abs_diff(1));
    Position { epoch: drawn.epoch, stream, place }
}

/// The place in its stream of the event with this `$id`.
fn place_of(
    transaction: &mut Transaction<'_>,
    drawn: Drawn,
    stream: i64,
    id: &EventId,
) -> Result<Option<i64>, Failure> {
    let select = "SELECT place FROM stride.events
        WHERE stream = $1 AND id = $2";
    if let Some(row) = transaction.query_opt(select, &[&stream, &bytes(id)])? {
        return Ok(Some(row.get(0)));
    }
    let Some(place) = given_place(drawn, stream, id) else { return Ok(None) };
    let given = "SELECT 1 FROM stride.events WHERE stream = $1 AND place = $2 AND id IS NULL";
    Ok(transaction.query_opt(given, &[&stream, &place])?.map(|_| place))
}

/// The number of a stream, and the places of its oldest event and of the one to come.
fn find(
    transaction: &mut Transaction<'_>,
    stream: &str,
) -> Result<Option<(i64, i64, i64)>, Failure> {
    let select = "SELECT number, first, next FROM stride.streams WHERE name = $1";
    let row = transaction.query_opt(select, &[&stream])?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

fn counter(transaction: &mut Transaction<'_>, key: &str) -> Result<u64, Failure> {
    let select = "SELECT value FROM stride.meta WHERE key = $1";
    Ok(transaction.query_one(select, &[&key])?.get::<_, i64>(0).cast_unsigned())
}

fn gone(why: &str) -> EngineError {
    EngineError::Gone(format!("there is nothing to go on from at this position: {why}"))
}

fn no_such_event() -> EngineError {
    EngineError::Gone("the stream holds no event with this $id".to_owned())
}
