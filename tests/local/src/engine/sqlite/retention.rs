//! How long events are kept.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::storage::{Now, Storage, Stream, Totals};
use super::writer::Notice;
use crate::engine::{Author, EngineError};
use crate::settings::Limits;
use crate::sql::places::{block_of, parts, place};

/// How many events go at once: new ones wait meanwhile.
const CHUNK: i64 = 20_000;

const DELETE_BLOCKS: &str = "DELETE FROM blocks WHERE number >= ? AND number < ?";

impl Storage {
    /// Deletes a stream, if there is one of that name. Its events go later, bit by bit.
    pub(super) fn delete(
        &mut self,
        connection: &Connection,
        name: &str,
    ) -> Result<bool, EngineError> {
        let Some(stream) = Stream::load(connection, name)? else { return Ok(false) };
        let Stream { number, first, next, .. } = stream;
        connection.execute("DELETE FROM streams WHERE number = ?", [number])?;
        connection.execute("DELETE FROM columns WHERE stream = ?", [number])?;
        connection.execute("DELETE FROM open_streams WHERE stream = ?", [number])?;
        // Numbers of streams are given once, and rise.
        let deleted = "INSERT INTO meta VALUES ('deleted', ?1)
            ON CONFLICT DO UPDATE SET value = max(value, ?1)";
        connection.execute(deleted, [number])?;
        let insert = "INSERT INTO garbage VALUES (?, ?)";
        connection.execute(insert, [place(number, first), place(number, next)])?;
        self.streams.remove(name);
        self.totals = Totals::default();
        Ok(true)
    }

    /// Deletes what is too old or belongs to no stream, and returns whether there is more of it.
    pub(super) fn sweep(
        &mut self,
        connection: &Connection,
        now: &Now,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, EngineError> {
        let age = i64::try_from(self.limits.max_age.as_micros()).unwrap_or(i64::MAX);
        let before = now.micros.saturating_sub(age);
        let old = "SELECT name FROM streams JOIN events ON place = number << 40 | first
            WHERE at < ? LIMIT 1";
        let name: Option<String> =
            connection.prepare_cached(old)?.query_row([before], |row| row.get(0)).optional()?;
        if let Some(name) = name {
            let stream = self.stream(connection, &name, Author::Trusted, now)?;
            let fresh =
                "SELECT place FROM events WHERE place >= ? AND place < ? AND at >= ? LIMIT 1";
            let end = stream.next.min(stream.first + CHUNK);
            let places = [place(stream.number, stream.first), place(stream.number, end), before];
            let fresh: Option<i64> =
                connection.prepare_cached(fresh)?.query_row(places, |row| row.get(0)).optional()?;
            stream.drop_before(connection, fresh.map_or(end, |place| parts(place).1))?;
            let update = "UPDATE streams SET first = ?, bytes = ? WHERE number = ?";
            connection.prepare_cached(update)?.execute(params![
                stream.first,
                stream.bytes,
                stream.number
            ])?;
            notices.push(Notice::Shrunk(name));
            return Ok(true);
        }
        collect_garbage(connection)
    }
}

fn collect_garbage(connection: &Connection) -> Result<bool, EngineError> {
    let select = "SELECT first, next FROM garbage LIMIT 1";
    let garbage: Option<(i64, i64)> = connection
        .prepare_cached(select)?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((first, next)) = garbage else { return Ok(false) };
    let end = next.min(first + CHUNK);
    let delete = "DELETE FROM events WHERE place >= ? AND place < ?";
    connection.prepare_cached(delete)?.execute([first, end])?;
    // No other stream has events in the last block.
    let blocks = [block_of(first), block_of(end) + i64::from(end == next)];
    connection.prepare_cached(DELETE_BLOCKS)?.execute(blocks)?;
    if end == next {
        connection.execute("DELETE FROM garbage WHERE first = ?", [first])?;
    } else {
        connection.execute("UPDATE garbage SET first = ? WHERE first = ?", [end, first])?;
    }
    Ok(true)
}

impl Stream {
    /// Lets the oldest events go that are too many or too much. That is seldom more than has just come;
    /// if the bounds have become narrower, it takes a few turns.
    pub(super) fn let_go(
        &mut self,
        connection: &Connection,
        limits: &Limits,
    ) -> Result<(), EngineError> {
        let most = i64::try_from(limits.max_events).unwrap_or(i64::MAX);
        let most_bytes = limits.max_event_bytes as u64;
        let first = self.next.saturating_sub(most).min(self.first + 5 * CHUNK);
        self.drop_before(connection, first)?;
        if self.bytes > most_bytes {
            let mut lengths = connection.prepare_cached(
                "SELECT place, octet_length(event) FROM events
                WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
            )?;
            let (from, to) = (place(self.number, self.first), place(self.number, self.next));
            let mut rows = lengths.query([from, to, 5 * CHUNK])?;
            let (mut first, mut left) = (self.first, self.bytes);
            while left > most_bytes
                && let Some(row) = rows.next()?
            {
                first = parts(row.get(0)?).1 + 1;
                left = left.saturating_sub(row.get(1)?);
            }
            drop(rows);
            self.drop_before(connection, first)?;
        }
        Ok(())
    }

    fn drop_before(&mut self, connection: &Connection, first: i64) -> Result<(), EngineError> {
        if first <= self.first {
            return Ok(());
        }
        let places = [place(self.number, self.first), place(self.number, first)];
        let sum = "SELECT coalesce(sum(octet_length(event)), 0) FROM events
            WHERE place >= ? AND place < ?";
        let bytes: u64 = connection.prepare_cached(sum)?.query_row(places, |row| row.get(0))?;
        let delete = "DELETE FROM events WHERE place >= ? AND place < ?";
        connection.prepare_cached(delete)?.execute(places)?;
        connection.prepare_cached(DELETE_BLOCKS)?.execute(places.map(block_of))?;
        self.first = first;
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }
}
