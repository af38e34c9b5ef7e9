//! How long events are kept, and how much the open key may add.
//!
//! What is too many or too much goes with the append that exceeds it, while that holds the lock of the stream. What
//! is too old goes, with what was deleted, by one server at a time, in slices between which others write.

use postgres::Transaction;

use super::error::Failure;
use super::process;
use super::storage::{ROOM, Stream};
use crate::settings::Limits;

/// How many events go at once: new ones of their stream wait meanwhile.
const CHUNK: i64 = 10_000;

/// How many bytes all of it takes, about. Of events, those that are still here count, not their table: it keeps
/// the room of those that went, for new ones.
pub(super) fn used(transaction: &mut Transaction<'_>) -> Result<u64, Failure> {
    let sum = "SELECT (SELECT coalesce(sum(room), 0) FROM stride.streams)::bigint
        + (SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
            WHERE relnamespace = 'stride'::regnamespace AND relkind = 'r' AND relname <> 'events')::bigint";
    Ok(transaction.query_one(sum, &[])?.get::<_, i64>(0).unsigned_abs())
}

/// Lets the oldest events of a stream go that are too many or too much, after `added` more came. That is seldom more
/// than those; if the bounds have become narrower, it takes a few turns. Returns the processes that changed by it.
pub(super) fn let_go(
    transaction: &mut Transaction<'_>,
    stream: &mut Stream,
    limits: &Limits,
    added: u64,
) -> Result<Vec<i64>, Failure> {
    let slice = CHUNK.saturating_add_unsigned(added);
    let most = i64::try_from(limits.max_events).unwrap_or(i64::MAX);
    let most_bytes = i64::try_from(limits.max_event_bytes).unwrap_or(i64::MAX);
    let before = stream.first;
    let first = stream.next.saturating_sub(most).min(stream.first + slice);
    drop_before(transaction, stream, first)?;
    if stream.bytes > most_bytes {
        let end = "SELECT place FROM (
                SELECT place, sum(octet_length(event)) OVER (ORDER BY place) AS bytes
                FROM stride.events WHERE stream = $1 AND place >= $2 AND place < $3) AS oldest
            WHERE bytes >= $4 ORDER BY place LIMIT 1";
        let to = stream.next.min(stream.first + slice);
        let too_much = stream.bytes - most_bytes;
        let end = transaction.query_opt(end, &[&stream.number, &stream.first, &to, &too_much])?;
        drop_before(transaction, stream, end.map_or(to, |row| row.get::<_, i64>(0) + 1))?;
    }
    if stream.first > before { save(transaction, stream) } else { Ok(Vec::new()) }
}

fn drop_before(
    transaction: &mut Transaction<'_>,
    stream: &mut Stream,
    first: i64,
) -> Result<(), Failure> {
    if first <= stream.first {
        return Ok(());
    }
    let delete = format!(
        "WITH gone AS (DELETE FROM stride.events WHERE stream = $1 AND place >= $2 AND place < $3
            RETURNING octet_length(event) AS bytes, {ROOM} AS room)
        SELECT coalesce(sum(bytes), 0)::bigint, coalesce(sum(room), 0)::bigint FROM gone"
    );
    let gone = transaction.query_one(&delete, &[&stream.number, &stream.first, &first])?;
    stream.first = first;
    stream.bytes -= gone.get::<_, i64>(0);
    stream.room -= gone.get::<_, i64>(1);
    Ok(())
}

/// Notes what is left of a stream. Rows that are made of one event each go with it.
fn save(transaction: &mut Transaction<'_>, stream: &Stream) -> Result<Vec<i64>, Failure> {
    let update = "UPDATE stride.streams SET first = $2, bytes = $3, room = $4 WHERE number = $1
        RETURNING name";
    let Stream { number, first, bytes, room, .. } = stream;
    let row = transaction.query_one(update, &[number, first, bytes, room])?;
    process::forget(transaction, row.get(0), stream.first)
}

/// The streams of which something has to go.
pub(super) fn overfull(
    transaction: &mut Transaction<'_>,
    limits: &Limits,
    now: i64,
) -> Result<Vec<i64>, Failure> {
    // Each is asked for its oldest event alone, whatever is known of how many there are.
    let select = "SELECT number FROM stride.streams CROSS JOIN LATERAL (
            SELECT at FROM stride.events WHERE stream = number AND place = first OFFSET 0) AS oldest
        WHERE at < timestamptz 'epoch' + $1::bigint * interval '1 microsecond'
        UNION SELECT number FROM stride.streams WHERE next - first > $2 OR bytes > $3";
    let most = i64::try_from(limits.max_events).unwrap_or(i64::MAX);
    let most_bytes = i64::try_from(limits.max_event_bytes).unwrap_or(i64::MAX);
    let rows = transaction.query(select, &[&oldest(limits, now), &most, &most_bytes])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Events from before this moment are too old.
fn oldest(limits: &Limits, now: i64) -> i64 {
    now.saturating_sub(i64::try_from(limits.max_age.as_micros()).unwrap_or(i64::MAX)).max(0)
}

/// Lets a slice of a stream go, and returns the processes that changed by it.
pub(super) fn trim(
    transaction: &mut Transaction<'_>,
    number: i64,
    limits: &Limits,
    now: i64,
) -> Result<Vec<i64>, Failure> {
    let Some(mut stream) = Stream::lock(transaction, number)? else { return Ok(Vec::new()) };
    let first = stream.first;
    let end = stream.next.min(first + CHUNK);
    let fresh =
        "SELECT min(place) FROM stride.events WHERE stream = $1 AND place >= $2 AND place < $3
        AND at >= timestamptz 'epoch' + $4::bigint * interval '1 microsecond'";
    let before = oldest(limits, now);
    let fresh: Option<i64> =
        transaction.query_one(fresh, &[&number, &first, &end, &before])?.get(0);
    drop_before(transaction, &mut stream, fresh.unwrap_or(end))?;
    match stream.first > first {
        true => save(transaction, &stream),
        false => let_go(transaction, &mut stream, limits, 0),
    }
}

/// Deletes a slice of what belongs to no stream, and returns whether there is more of it.
pub(super) fn collect_garbage(transaction: &mut Transaction<'_>) -> Result<bool, Failure> {
    let select = "SELECT stream, first, next FROM stride.garbage LIMIT 1 FOR UPDATE";
    let Some(row) = transaction.query_opt(select, &[])? else { return Ok(false) };
    let (stream, first, next): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let end = next.min(first + CHUNK);
    let delete = "DELETE FROM stride.events WHERE stream = $1 AND place >= $2 AND place < $3";
    transaction.execute(delete, &[&stream, &first, &end])?;
    if end == next {
        transaction.execute("DELETE FROM stride.garbage WHERE stream = $1", &[&stream])?;
    } else {
        let update = "UPDATE stride.garbage SET first = $2 WHERE stream = $1";
        transaction.execute(update, &[&stream, &end])?;
    }
    Ok(true)
}
