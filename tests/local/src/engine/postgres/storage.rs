//! What a transaction does with new events.
//!
//! A transaction locks the row of each of its streams, in the order of their names, before it adds to it. So the
//! events of a stream have places without holes, in the order in which they are committed, whichever server they
//! come by; and whoever reads up to the place in that row lacks none of them.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use postgres::{Row, Transaction};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::connections::Prepared;
use super::error::Failure;
use super::process;
use super::schema::{Drawn, lock_names, next_numbers};
use crate::engine::{Author, EngineError};
use crate::events::batch::{Batch, GIVEN_ID};
use crate::events::ids::EventId;
use crate::events::keys::{Kinds, MOST};
use crate::sql::places::{parts, place};
use crate::subscribers::records::{DELIMITER, Records};

/// The end of the year 9999, in microseconds since 1970: later times are taken for it.
pub(super) const LATEST: i64 = 253_402_300_799_999_999;

/// How many streams there may be: they take memory even when nobody writes to them.
const MOST_STREAMS: i64 = 100_000;

/// How many of them the open key may make.
const MOST_OPEN_STREAMS: i64 = 1000;

/// How much an event takes, about: its text and what is kept of it besides, its id twice, and the rest of its row and of
/// two indexes.
pub(super) const ROOM: &str = "octet_length(event) + coalesce(octet_length(doc), 0) + 2 * coalesce(octet_length(id), 0) + 150";

fn room(event: &str, doc: Option<&str>, id: Option<&[u8]>) -> usize {
    event.len() + doc.map_or(0, str::len) + 2 * id.map_or(0, <[u8]>::len) + 150
}

/// A stream whose row is locked.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) number: i64,
    /// The oldest event that is still here.
    pub(super) first: i64,
    /// How much those take that are: their text, and all of it.
    pub(super) bytes: i64,
    pub(super) room: i64,
    /// The event to come.
    pub(super) next: i64,
    /// Raised when a key is new, or has a new kind of value.
    pub(super) keys_version: i64,
}

impl Stream {
    const COLUMNS: &str = "number, first, next, keys_version, bytes, room";

    fn of(row: &Row) -> Self {
        Self {
            number: row.get(0),
            first: row.get(1),
            next: row.get(2),
            keys_version: row.get(3),
            bytes: row.get(4),
            room: row.get(5),
        }
    }

    /// Locks one stream.
    pub(super) fn lock(
        transaction: &mut Transaction<'_>,
        number: i64,
    ) -> Result<Option<Self>, Failure> {
        let columns = Self::COLUMNS;
        let select = format!("SELECT {columns} FROM stride.streams WHERE number = $1 FOR UPDATE");
        Ok(transaction.query_opt(&select, &[&number])?.map(|row| Self::of(&row)))
    }

    /// What a process has seen of a stream that is not there.
    pub(super) const NOTHING_SEEN: &str = "0:0";

    /// What a process that is added to has seen of it.
    pub(super) fn seen(&self) -> String {
        format!("{}:{}", self.number, self.keys_version)
    }
}

/// Locks a stream, if there is one of this name.
pub(super) fn find_locked(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<Option<Stream>, Failure> {
    let columns = Stream::COLUMNS;
    let select = format!("SELECT {columns} FROM stride.streams WHERE name = $1 FOR UPDATE");
    Ok(transaction.query_opt(&select, &[&name])?.map(|row| Stream::of(&row)))
}

/// A stream as it is, for those who need not keep others from adding to it.
pub(super) fn find(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<Option<Stream>, Failure> {
    let select = format!("SELECT {} FROM stride.streams WHERE name = $1", Stream::COLUMNS);
    Ok(transaction.query_opt(&select, &[&name])?.map(|row| Stream::of(&row)))
}

/// Locks the streams of a request, whose names are in order, and makes those that are not there yet.
pub(super) fn lock(
    transaction: &mut Transaction<'_>,
    prepared: &mut Prepared,
    names: &[&str],
    author: Author,
    now: &str,
) -> Result<Vec<Stream>, Failure> {
    let columns = Stream::COLUMNS;
    // All of them or none: names are locked before any stream is, also by whoever deletes one.
    let select = format!(
        "SELECT {columns} FROM stride.streams WHERE name = ANY($1)
            AND (SELECT count(*) FROM stride.streams WHERE name = ANY($1)) = cardinality($1)
        ORDER BY name FOR UPDATE"
    );
    let select = prepared.of(transaction, &select)?;
    let mut rows = transaction.query(&select, &[&names])?;
    if rows.is_empty() {
        lock_names(transaction)?;
        let taken = "SELECT name FROM stride.processes WHERE name = ANY($1) LIMIT 1";
        if let Some(taken) = transaction.query_opt(taken, &[&names])? {
            let name: &str = taken.get(0);
            let why = format!("{name:?} is a process, not a stream");
            return Err(EngineError::Conflict(why).into());
        }
        create(transaction, names, author, now)?;
        rows = transaction.query(&select, &[&names])?;
    }
    if rows.len() != names.len() {
        // One was deleted just now: the next try makes it anew.
        let error = EngineError::Unavailable("a stream is being deleted".to_owned());
        return Err(Failure { error, again: true });
    }
    Ok(rows.iter().map(Stream::of).collect())
}

/// Makes those streams that are not there yet. No other server makes any meanwhile.
fn create(
    transaction: &mut Transaction<'_>,
    names: &[&str],
    author: Author,
    now: &str,
) -> Result<(), Failure> {
    let new = "SELECT name FROM unnest($1::text[]) AS new (name)
        WHERE name NOT IN (SELECT name FROM stride.streams WHERE name = ANY($1))";
    let new = transaction.query(new, &[&names])?;
    let new: Vec<&str> = new.iter().map(|row| row.get(0)).collect();
    // Another server may have made them just now.
    if new.is_empty() {
        return Ok(());
    }
    check_count(transaction, new.len(), author)?;
    let numbers =
        next_numbers(transaction, "streams", i64::try_from(new.len()).unwrap_or(i64::MAX))?;
    let numbers: Vec<i64> = numbers.collect();
    let insert = "INSERT INTO stride.streams
        (number, name, next, keys_version, first_seen, last_seen, is_open)
        SELECT number, name, 1, 0, $3, $3, $4 FROM unnest($1::bigint[], $2::text[]) AS new (number, name)";
    transaction.execute(insert, &[&numbers, &new, &now, &(author == Author::Anybody)])?;
    Ok(())
}

/// Refuses so many new streams if there is no room for them. No other server makes any meanwhile.
fn check_count(
    transaction: &mut Transaction<'_>,
    new: usize,
    author: Author,
) -> Result<(), Failure> {
    let count = "SELECT (SELECT count(*) FROM stride.streams),
        (SELECT count(*) FROM stride.streams WHERE is_open)";
    let row = transaction.query_one(count, &[])?;
    let new = i64::try_from(new).unwrap_or(i64::MAX);
    let (all, open): (i64, i64) = (row.get(0), row.get(1));
    if all.saturating_add(new) > MOST_STREAMS {
        let why =
            format!("there are {all} streams already, and {MOST_STREAMS} is the most there may be");
        return Err(EngineError::Full(why).into());
    }
    if author == Author::Anybody && open.saturating_add(new) > MOST_OPEN_STREAMS {
        let why = format!(
            "the open key has made {open} streams already, and {MOST_OPEN_STREAMS} is the most it may make"
        );
        return Err(EngineError::Full(why).into());
    }
    Ok(())
}

/// The keys that a stream has had.
pub(super) fn keys(
    transaction: &mut Transaction<'_>,
    stream: i64,
) -> Result<Vec<(String, Kinds)>, Failure> {
    let select = "SELECT name, kinds FROM stride.keys WHERE stream = $1 ORDER BY place";
    let rows = transaction.query(select, &[&stream])?;
    let keys = rows.iter().map(|row| {
        let kinds = u8::try_from(row.get::<_, i16>(1)).unwrap_or(Kinds::JSON.0);
        (row.get(0), Kinds(kinds))
    });
    Ok(keys.collect())
}

/// Notes the keys of new events, and returns whether anything about them is new.
fn note_keys(
    transaction: &mut Transaction<'_>,
    stream: &mut Stream,
    known: &mut Vec<(String, Kinds)>,
    batch: &Batch,
) -> Result<bool, Failure> {
    let mut news = false;
    let places: HashMap<String, usize> =
        known.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
    for (name, kinds) in batch.keys.iter() {
        let place = match places.get(name) {
            Some(place) if known[*place].1.with(kinds) == known[*place].1 => continue,
            Some(place) => *place,
            None if known.len() < MOST => {
                known.push((name.to_owned(), Kinds::NULL));
                known.len() - 1
            }
            None => continue,
        };
        known[place].1 = known[place].1.with(kinds);
        let upsert = "INSERT INTO stride.keys VALUES ($1, $2, $3, $4)
            ON CONFLICT (stream, place) DO UPDATE SET kinds = excluded.kinds";
        let (number, kinds) =
            (i32::try_from(place).unwrap_or(i32::MAX), i16::from(known[place].1.0));
        transaction.execute(upsert, &[&stream.number, &number, &name, &kinds])?;
        news = true;
    }
    stream.keys_version += i64::from(news);
    Ok(news)
}

/// Keys of streams as this server has read them, with their version: they are only added to.
pub(super) type KnownKeys = HashMap<i64, (i64, Vec<(String, Kinds)>)>;

/// Adds to a stream what it does not have, and returns how many events that were.
pub(super) fn add(
    transaction: &mut Transaction<'_>,
    prepared: &mut Prepared,
    drawn: Drawn,
    stream: &mut Stream,
    keys: &mut Vec<(String, Kinds)>,
    batch: &mut Batch,
    now: &str,
) -> Result<u64, Failure> {
    note_keys(transaction, stream, keys, batch)?;
    let mut known = given_back(transaction, drawn, stream, batch)?;
    let first = stream.next;
    let mut new = New::read(drawn, stream.number, first, batch, &known)?;
    // The index of ids finds what is known. To ask before would be to look for each event twice.
    if new.insert(transaction, prepared, stream.number, now)? < new.places.len() {
        // Places have no holes: what is new gets its places once more, without what is known.
        let take_back = "DELETE FROM stride.events WHERE stream = $1 AND place >= $2 RETURNING id";
        let stored = transaction.query(take_back, &[&stream.number, &first])?;
        let stored: HashSet<&[u8]> = stored.iter().filter_map(|row| row.get(0)).collect();
        let ids = new.ids.into_iter().flatten();
        known.extend(ids.filter(|id| !stored.contains(&id[..])));
        new = New::read(drawn, stream.number, first, batch, &known)?;
        if new.insert(transaction, prepared, stream.number, now)? < new.places.len() {
            let why = "the index of ids has some that no event has";
            return Err(EngineError::Damaged(why.to_owned()).into());
        }
    }
    stream.next += i64::try_from(new.places.len()).unwrap_or(i64::MAX);
    stream.bytes += i64::try_from(new.bytes).unwrap_or(i64::MAX);
    stream.room += i64::try_from(new.room).unwrap_or(i64::MAX);
    // The clocks of servers differ a little.
    let update = "UPDATE stride.streams SET next = $2, keys_version = $3, bytes = $4, room = $5,
        last_seen = greatest(last_seen, $6) WHERE number = $1";
    let Stream { number, next, keys_version, bytes, room, .. } = &*stream;
    let update = prepared.of(transaction, update)?;
    transaction.execute(&update, &[number, next, keys_version, bytes, room, &now])?;
    Ok(stream.next.abs_diff(first))
}

/// Events that are to be stored, column by column.
#[derive(Debug, Default)]
struct New<'a> {
    places: Vec<i64>,
    times: Vec<i64>,
    ids: Vec<Option<Vec<u8>>>,
    texts: Vec<&'a str>,
    docs: Vec<Option<String>>,
    bytes: usize,
    room: usize,
}

impl<'a> New<'a> {
    /// Those of a batch whose ids are not known, at places from `first` on.
    fn read(
        drawn: Drawn,
        stream: i64,
        first: i64,
        batch: &'a mut Batch,
        known: &HashSet<Vec<u8>>,
    ) -> Result<Self, EngineError> {
        let mut new = Self::default();
        let (mut events, mut in_request) = (Vec::new(), HashSet::new());
        let (mut start, mut next) = (0, first);
        for record in &batch.records {
            let event = start..record.end - DELIMITER.len();
            start = record.end;
            match &record.id {
                Some(id) => {
                    let bytes = bytes(id);
                    if known.contains(&bytes) || !in_request.insert(id) {
                        continue;
                    }
                    new.ids.push(Some(bytes));
                }
                None => {
                    let given = drawn.ids.give(place(stream, next).cast_unsigned());
                    let id = record.end - GIVEN_ID.end..record.end - GIVEN_ID.start;
                    batch.text[id].copy_from_slice(&given);
                    new.ids.push(None);
                }
            }
            new.places.push(next);
            new.times.push(record.at.min(LATEST));
            events.push(event);
            next += 1;
        }
        for (event, id) in events.into_iter().zip(&new.ids) {
            let event = std::str::from_utf8(&batch.text[event])
                .map_err(|_| EngineError::Broken("an event is not UTF-8".to_owned()))?;
            let doc = doc(event);
            new.bytes += event.len();
            new.room += room(event, doc.as_deref(), id.as_deref());
            new.texts.push(event);
            new.docs.push(doc);
        }
        Ok(new)
    }

    /// Stores those whose ids are not known, and returns how many that are.
    fn insert(
        &self,
        transaction: &mut Transaction<'_>,
        prepared: &mut Prepared,
        stream: i64,
        now: &str,
    ) -> Result<usize, Failure> {
        if self.places.is_empty() {
            return Ok(0);
        }
        // The time of arrival is read once, in a query of its own.
        let insert = "INSERT INTO stride.events SELECT $1, place, (SELECT $2::text::timestamptz),
            timestamptz 'epoch' + time * interval '1 microsecond', id, event, doc
            FROM unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::text[])
            AS new (place, time, id, event, doc)
            ON CONFLICT (stream, id) WHERE id IS NOT NULL DO NOTHING";
        let Self { places, times, ids, texts, docs, .. } = self;
        let insert = prepared.of(transaction, insert)?;
        let stored =
            transaction.execute(&insert, &[&stream, &now, places, times, ids, texts, docs])?;
        Ok(usize::try_from(stored).unwrap_or(usize::MAX))
    }
}

/// Those ids of a batch that were given in its stream, and that a client sends back.
fn given_back(
    transaction: &mut Transaction<'_>,
    drawn: Drawn,
    stream: &Stream,
    batch: &Batch,
) -> Result<HashSet<Vec<u8>>, Failure> {
    let ids = batch.records.iter().filter_map(|record| record.id.as_ref());
    let given: HashMap<i64, &EventId> =
        ids.filter_map(|id| Some((given_place(drawn, stream.number, id)?, id))).collect();
    if given.is_empty() {
        return Ok(HashSet::new());
    }
    let places: Vec<i64> = given.keys().copied().collect();
    let select = "SELECT place FROM stride.events
        WHERE stream = $1 AND place = ANY($2) AND id IS NULL";
    let stored = transaction.query(select, &[&stream.number, &places])?;
    let stored = stored.iter().filter_map(|row| given.get(&row.get::<_, i64>(0)));
    Ok(stored.map(|id| bytes(id)).collect())
}

/// The place in its stream that an id has if it was given in this one.
pub(super) fn given_place(drawn: Drawn, stream: i64, id: &EventId) -> Option<i64> {
    let EventId::Text(id) = id else { return None };
    let (of, place) = parts(drawn.ids.place(id)?.cast_signed());
    (of == stream).then_some(place)
}

/// The longest id that is kept as it is. An entry of an index holds no more than 2,704 bytes.
const LONGEST_ID: usize = 255;

/// An id as it is kept. A number, a text and the hash of a long text are never the same.
pub(super) fn bytes(id: &EventId) -> Vec<u8> {
    match id {
        EventId::Text(text) if text.len() > LONGEST_ID => {
            [b"h", Sha256::digest(text.as_bytes()).as_slice()].concat()
        }
        EventId::Text(text) => [b"t", text.as_bytes()].concat(),
        EventId::Unsigned(number) => format!("n{number}").into_bytes(),
        EventId::Negative(number) => format!("n{number}").into_bytes(),
    }
}

/// What queries read in the place of an event that PostgreSQL's `jsonb` would fail at: it holds no NUL, and no
/// number of any exponent.
pub(super) fn doc(event: &str) -> Option<String> {
    let text = event.as_bytes();
    let has_nul = memchr::memmem::find(text, b"\\u0000").is_some();
    let has_exponent = memchr::memchr2_iter(b'e', b'E', text).any(|at| {
        let digits = &text[at + 1..];
        let digits =
            digits.strip_prefix(b"+").or_else(|| digits.strip_prefix(b"-")).unwrap_or(digits);
        digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_digit)
    });
    if !has_nul && !has_exponent {
        return None;
    }
    let mut value: Value = serde_json::from_str(event).ok()?;
    without_nul(&mut value);
    Some(value.to_string())
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(values) => values.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            for (key, mut value) in std::mem::take(members) {
                without_nul(&mut value);
                members.insert(key.replace('\0', "\u{fffd}"), value);
            }
        }
        _ => {}
    }
}

/// Deletes a stream, and returns what its number was, and the processes that changed by it. Its events go later, bit
/// by bit.
pub(super) fn delete(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<Option<(i64, Vec<i64>)>, Failure> {
    lock_names(transaction)?;
    let delete = "DELETE FROM stride.streams WHERE name = $1 RETURNING number, first, next";
    let Some(row) = transaction.query_opt(delete, &[&name])? else { return Ok(None) };
    let changed = process::forget(transaction, name, i64::MAX)?;
    let (number, first, next): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    transaction.execute("DELETE FROM stride.keys WHERE stream = $1", &[&number])?;
    let garbage = "INSERT INTO stride.garbage VALUES ($1, $2, $3)";
    transaction.execute(garbage, &[&number, &first, &next])?;
    let note = "UPDATE stride.meta SET value = greatest(value, $1) WHERE key = 'deleted'";
    transaction.execute(note, &[&number])?;
    Ok(Some((number, changed)))
}

/// Text of events, with where each ends.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) text: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Events {
    pub(super) fn push(&mut self, event: &str) {
        self.text.extend_from_slice(event.as_bytes());
        self.text.extend_from_slice(DELIMITER);
        self.ends.push(self.text.len());
    }

    pub(super) fn into_records(self) -> Records {
        Records { text: Bytes::from(self.text), ends: self.ends }
    }
}
