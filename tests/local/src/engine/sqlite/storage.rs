//! What the writing connection does with new events.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use rusqlite::types::{Null, ToSqlOutput, Value};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};

use super::pages::Pages;
use crate::engine::position::Position;
use crate::engine::{Author, EngineError};
use crate::events::batch::{Batch, GIVEN_ID};
use crate::events::ids::{EventId, Ids};
use crate::events::keys::{Kinds, MOST};
use crate::settings::Limits;
use crate::sql::places::{block_of, parts, place};
use crate::subscribers::records::{DELIMITER, Records};

/// How many streams there may be: they take memory even when nobody writes to them.
const MOST_STREAMS: u64 = 100_000;

/// How many of them the open key may make.
const MOST_OPEN_STREAMS: u64 = 1000;

/// How many bytes the keys of all streams may have that are remembered, and those of the open key's events only up
/// to half of it. Those past it are in their events only.
const MOST_KEY_BYTES: u64 = 64 * 1024 * 1024;

/// How much of what is known of streams is kept in memory: bytes of keys, and what a stream takes besides.
const CACHE: usize = 16 * 1024 * 1024;
const CACHED_STREAM: usize = 256;
const CACHED_KEY: usize = 64;

/// The streams as the writing connection knows them.
#[derive(Debug)]
pub(super) struct Storage {
    pages: Pages,
    pub(super) limits: Limits,
    /// As they are in the table. Thrown away when a transaction fails.
    pub(super) streams: HashMap<String, Stream>,
    pub(super) totals: Totals,
    /// How much `streams` takes, in bytes.
    cached: usize,
}

/// Sums over all streams; `None` is counted when it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// How many there are, and how many of them the open key has made.
    count: Option<(u64, u64)>,
    /// How many bytes their keys have.
    key_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: i64,
    /// The oldest event that is still here, the one to come, and the bytes of those between.
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) bytes: u64,
    columns: HashMap<Box<str>, (usize, Kinds)>,
}

/// What became of one batch.
#[derive(Debug)]
pub(super) struct Stored {
    /// From the place of the first new event to that of the one to come.
    pub(super) places: Range<i64>,
    /// What they come after.
    pub(super) after: Position,
    pub(super) records: Records,
    /// A key was new, or had a kind of value that it never had before.
    pub(super) new_kinds: bool,
}

/// The moment of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Now {
    /// As RFC 3339.
    pub(super) text: String,
    /// In microseconds since 1970.
    pub(super) micros: i64,
}

impl Storage {
    pub(super) fn new(pages: Pages, limits: Limits) -> Self {
        let (streams, totals) = (HashMap::new(), Totals::default());
        Self { pages, limits, streams, totals, cached: 0 }
    }

    /// Forgets what may not have become true, and takes the totals for those from before.
    pub(super) fn rolled_back(&mut self, totals: Totals) {
        self.forget();
        self.totals = totals;
    }

    /// Refuses the open key once the database is as large as it may make it. All that events leave behind counts:
    /// keys, ids, indexes and the rows of processes.
    pub(super) fn check_room(
        &self,
        connection: &Connection,
        author: Author,
    ) -> Result<(), EngineError> {
        let most = self.limits.max_open_bytes as u64;
        if author == Author::Trusted {
            return Ok(());
        }
        let used = "SELECT (page_count - freelist_count) * page_size
            FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        let used: u64 = connection.prepare_cached(used)?.query_row([], |row| row.get(0))?;
        if used < most {
            return Ok(());
        }
        Err(EngineError::Full(format!(
            "the database has {} MiB, and the open key may add nothing past {} MiB",
            used >> 20,
            most >> 20
        )))
    }

    fn forget(&mut self) {
        self.streams.clear();
        self.cached = 0;
    }

    /// Adds the events that are new to their stream.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        name: &str,
        batch: Batch,
        author: Author,
        now: &Now,
    ) -> Result<Stored, EngineError> {
        let pages = self.pages;
        let most_key_bytes = match author {
            Author::Trusted => MOST_KEY_BYTES,
            Author::Anybody => MOST_KEY_BYTES / 2,
        };
        let mut key_bytes = match self.totals.key_bytes {
            Some(bytes) => bytes,
            None => {
                let sum = "SELECT coalesce(sum(octet_length(name)), 0) FROM columns";
                connection.query_row(sum, [], |row| row.get(0))?
            }
        };
        let before = key_bytes;
        let stream = self.stream(connection, name, author, now)?;
        let new_kinds = stream.note_columns(connection, &batch, &mut key_bytes, most_key_bytes)?;
        let (places, records) = stream.insert(connection, pages.ids, batch, now)?;
        let (number, first) = parts(places.start);
        let after = pages.before(number, first);
        self.totals.key_bytes = Some(key_bytes);
        self.cached += usize::try_from(key_bytes - before).unwrap_or(usize::MAX);
        Ok(Stored { places, after, records, new_kinds })
    }

    /// Lets the oldest events of a stream go that are too many or too much, and saves how it stands.
    pub(super) fn settle(
        &mut self,
        connection: &Connection,
        name: &str,
        now: &Now,
    ) -> Result<(), EngineError> {
        let limits = self.limits;
        let stream = self.stream(connection, name, Author::Trusted, now)?;
        stream.let_go(connection, &limits)?;
        stream.save(connection, now)
    }

    /// The stream of this name, which comes into being if there is none.
    pub(super) fn stream(
        &mut self,
        connection: &Connection,
        name: &str,
        author: Author,
        now: &Now,
    ) -> Result<&mut Stream, EngineError> {
        // Not `entry`: that would copy the name each time.
        if !self.streams.contains_key(name) {
            let stream = match Stream::load(connection, name)? {
                Some(stream) => stream,
                None => self.create(connection, name, author, now)?,
            };
            // All of them are as they are in the table: a stream is settled before the next one is asked for.
            if self.cached > CACHE {
                self.forget();
            }
            let keys = stream.columns.keys().map(|key| key.len() + CACHED_KEY);
            self.cached += name.len() + CACHED_STREAM + keys.sum::<usize>();
            self.streams.insert(name.to_owned(), stream);
        }
        self.streams.get_mut(name).ok_or_else(|| EngineError::Broken("a stream is gone".into()))
    }

    fn create(
        &mut self,
        connection: &Connection,
        name: &str,
        author: Author,
        now: &Now,
    ) -> Result<Stream, EngineError> {
        let taken = "SELECT 1 FROM processes WHERE name = ?";
        if connection.prepare_cached(taken)?.exists([name])? {
            return Err(EngineError::Conflict(format!("{name:?} is a process, not a stream")));
        }
        let (all, open) = match self.totals.count {
            Some(count) => count,
            None => {
                let count = "SELECT (SELECT count(*) FROM streams),
                    (SELECT count(*) FROM open_streams)";
                connection.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)))?
            }
        };
        if all >= MOST_STREAMS {
            return Err(EngineError::Full(format!(
                "there are {MOST_STREAMS} streams already, which is the most there may be"
            )));
        }
        let is_open = author == Author::Anybody;
        if is_open && open >= MOST_OPEN_STREAMS {
            return Err(EngineError::Full(format!(
                "the open key has made {open} streams already, which is the most it may make"
            )));
        }
        self.totals.count = Some((all + 1, open + u64::from(is_open)));
        let insert = "INSERT INTO streams (name, first, next, bytes, first_seen, last_seen)
            VALUES (?1, 1, 1, 0, ?2, ?2)";
        let number = connection.prepare_cached(insert)?.insert(params![name, now.text])?;
        if is_open {
            connection.prepare_cached("INSERT INTO open_streams VALUES (?)")?.execute([number])?;
        }
        Ok(Stream { number, first: 1, next: 1, bytes: 0, columns: HashMap::new() })
    }
}

impl Stream {
    pub(super) fn load(connection: &Connection, name: &str) -> Result<Option<Self>, EngineError> {
        let found = connection
            .prepare_cached("SELECT number, first, next, bytes FROM streams WHERE name = ?")?
            .query_row([name], |row| {
                let (number, first) = (row.get(0)?, row.get(1)?);
                let (next, bytes) = (row.get(2)?, row.get(3)?);
                Ok(Self { number, first, next, bytes, columns: HashMap::new() })
            })
            .optional()?;
        let Some(mut stream) = found else { return Ok(None) };
        let mut columns =
            connection.prepare_cached("SELECT name, place, kinds FROM columns WHERE stream = ?")?;
        let mut rows = columns.query([stream.number])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            stream.columns.insert(name.into(), (row.get(1)?, Kinds(row.get(2)?)));
        }
        Ok(Some(stream))
    }

    /// Remembers which keys the events have had, and returns whether anything changed.
    fn note_columns(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        key_bytes: &mut u64,
        most_key_bytes: u64,
    ) -> Result<bool, EngineError> {
        let mut news = false;
        for (name, kinds) in batch.keys.iter() {
            let (place, known) = match self.columns.get(name) {
                Some((place, known)) => (*place, *known),
                None if self.columns.len() < MOST && *key_bytes < most_key_bytes => {
                    *key_bytes += name.len() as u64;
                    let place = self.columns.len();
                    self.columns.insert(name.into(), (place, Kinds::NULL));
                    let insert = "INSERT INTO columns VALUES (?, ?, ?, 0)";
                    connection.prepare_cached(insert)?.execute(params![
                        self.number,
                        place,
                        name
                    ])?;
                    (place, Kinds::NULL)
                }
                None => continue,
            };
            let kinds = known.with(kinds);
            if kinds != known {
                news = true;
                self.columns.insert(name.into(), (place, kinds));
                let update = "UPDATE columns SET kinds = ? WHERE stream = ? AND place = ?";
                connection.prepare_cached(update)?.execute(params![kinds.0, self.number, place])?;
            }
        }
        Ok(news)
    }

    fn insert(
        &mut self,
        connection: &Connection,
        ids: Ids,
        batch: Batch,
        now: &Now,
    ) -> Result<(Range<i64>, Records), EngineError> {
        let first = self.next;
        let Batch { mut text, records, .. } = batch;
        let mut insert = connection
            .prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")?;
        insert.raw_bind_parameter(2, now.micros)?;
        let mut block = Block::default();
        // Where the events that are known already lie.
        let mut known = Vec::new();
        let (mut ends, mut start) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            let place = place(self.number, self.next);
            match &record.id {
                None => {
                    let id = record.end - GIVEN_ID.end..record.end - GIVEN_ID.start;
                    text[id].copy_from_slice(&ids.give(place.cast_unsigned()));
                    insert.raw_bind_parameter(3, Null)?;
                }
                Some(id) => insert.raw_bind_parameter(3, id)?,
            }
            insert.raw_bind_parameter(1, place)?;
            let event = &text[start..record.end - DELIMITER.len()];
            let event = std::str::from_utf8(event)
                .map_err(|_| EngineError::Broken("an event is not UTF-8".to_owned()))?;
            insert.raw_bind_parameter(4, event)?;
            let is_known = match &record.id {
                Some(id) => {
                    given_at(connection, ids, self.number, id)?.is_some()
                        || insert.raw_execute()? == 0
                }
                None => {
                    insert.raw_execute()?;
                    false
                }
            };
            if is_known {
                known.push(start..record.end);
            } else {
                if block.number != block_of(place) {
                    block.save(connection, now)?;
                    block = Block { number: block_of(place), latest: i64::MIN };
                }
                block.latest = block.latest.max(record.at);
                self.next += 1;
                self.bytes += event.len() as u64;
                ends.push(record.end);
            }
            start = record.end;
        }
        block.save(connection, now)?;
        let records = if known.is_empty() {
            Records { text: text.into(), ends }
        } else {
            without(&text, &known, &ends)
        };
        let places = place(self.number, first)..place(self.number, self.next);
        Ok((places, records))
    }

    pub(super) fn save(&self, connection: &Connection, now: &Now) -> Result<(), EngineError> {
        connection
            .prepare_cached(
                "UPDATE streams SET first = ?, next = ?, bytes = ?, last_seen = ? WHERE number = ?",
            )?
            .execute(params![self.first, self.next, self.bytes, now.text, self.number])?;
        Ok(())
    }
}

/// The place in its stream of the event that this stream gave `id` to, if it is still here.
pub(super) fn given_at(
    connection: &Connection,
    ids: Ids,
    stream: i64,
    id: &EventId,
) -> Result<Option<i64>, EngineError> {
    let EventId::Text(id) = id else { return Ok(None) };
    let place = ids.place(id).map(u64::cast_signed);
    let Some(place) = place.filter(|place| parts(*place).0 == stream) else { return Ok(None) };
    let given = "SELECT 1 FROM events WHERE place = ? AND id IS NULL";
    let is_here = connection.prepare_cached(given)?.exists([place])?;
    Ok(is_here.then_some(parts(place).1))
}

/// New events of one block.
#[derive(Debug, Default)]
struct Block {
    /// 0 before the first.
    number: i64,
    /// The last of their times.
    latest: i64,
}

impl Block {
    /// Adds them to what is known of their block.
    fn save(&self, connection: &Connection, now: &Now) -> Result<(), EngineError> {
        if self.number != 0 {
            let save = "INSERT INTO blocks VALUES (?, ?, ?) ON CONFLICT DO UPDATE
                SET latest = max(latest, excluded.latest), arrived = max(arrived, excluded.arrived)";
            let times = [self.number, self.latest, now.micros];
            connection.prepare_cached(save)?.execute(times)?;
        }
        Ok(())
    }
}

/// The text without what is `known`; `ends` are those of what stays.
fn without(text: &[u8], known: &[Range<usize>], ends: &[usize]) -> Records {
    let mut kept = Vec::new();
    let mut from = 0;
    for range in known {
        kept.extend_from_slice(&text[from..range.start]);
        from = range.end;
    }
    kept.extend_from_slice(&text[from..]);
    let (mut gone, mut known) = (0, known.iter().peekable());
    let ends = ends
        .iter()
        .map(|end| {
            while let Some(range) = known.next_if(|range| range.end <= *end) {
                gone += range.len();
            }
            end - gone
        })
        .collect();
    Records { text: Bytes::from(kept), ends }
}

impl ToSql for EventId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(text) => ToSqlOutput::from(&**text),
            // Past what SQLite's integers hold: as bytes, which equal no integer and no text.
            Self::Unsigned(number) => ToSqlOutput::Owned(
                i64::try_from(*number)
                    .map_or_else(|_| Value::Blob(number.to_be_bytes().into()), Value::Integer),
            ),
            Self::Negative(number) => ToSqlOutput::from(*number),
        })
    }
}
