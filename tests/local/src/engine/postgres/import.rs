//! A copy of what a file holds. It can be gone on with after a kill, and has the places and ids of the file, so
//! that positions stay what they were.

use std::io;

use postgres::{Client, Transaction};

use super::connections::{Connection, Connections};
use super::error::Failure;
use super::schema::{self, lock_names};
use super::storage::{LATEST, ROOM, bytes, doc};
use crate::engine::sqlite::export::{Export, ExportedEvent, ExportedStream};
use crate::engine::{Engine, EngineError};
use crate::events::batch::Batch;
use crate::events::keys::Kinds;
use crate::events::timestamp;

/// How many events a transaction copies.
const AT_ONCE: usize = 1000;

/// What the storage says of the copy of a file: that of this epoch is under way, or done.
const UNDER_WAY: &str = "import";
const DONE: &str = "imported";

/// Copies the streams of a file into a database that holds nothing else, and returns how many events that were.
pub(crate) fn streams(database: &str, export: &Export) -> io::Result<u64> {
    let mut client = connect(database)?;
    schema::create(&mut client).map_err(io::Error::other)?;
    let failed = |failure: Failure| io::Error::other(failure.error);
    if begin(&mut client, export).map_err(failed)? {
        return Ok(0);
    }
    let mut copied = 0;
    for stream in export.streams().map_err(io::Error::other)? {
        loop {
            let count = slice(&mut client, export, &stream).map_err(failed)?;
            if count == 0 {
                break;
            }
            copied += count;
        }
    }
    Ok(copied)
}

/// What is copied does not depend on the settings of a login.
fn connect(database: &str) -> io::Result<Connection> {
    let settings = "SET timezone = 'UTC'; SET search_path = pg_catalog, stride";
    let connections = Connections::that_write(database, settings.to_owned())?;
    connections.connect().map_err(io::Error::other)
}

/// Makes what is left: processes over the streams, and saved queries.
pub(crate) fn definitions(engine: &dyn Engine, export: &Export) -> Result<(), EngineError> {
    for (name, definition) in export.processes()? {
        let named = |error| of(&format!("the process {name:?}"), error);
        match engine.process(&name) {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => {
                engine.create_process(&name, &definition).map_err(named)?;
            }
            Err(error) => return Err(named(error)),
        }
    }
    for (name, query) in export.queries()? {
        let named = |error| of(&format!("the saved query {name:?}"), error);
        engine.save_query(&name, &query).map_err(named)?;
    }
    Ok(())
}

/// Notes that all of it is copied: what is done again changes nothing then.
pub(crate) fn end(database: &str, export: &Export) -> io::Result<()> {
    let note = "INSERT INTO stride.meta VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let noted = connect(database)?.execute(note, &[&DONE, &export.epoch.cast_signed()]);
    noted.map(drop).map_err(io::Error::other)
}

/// The same error, which says where.
fn of(what: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Invalid(why) => EngineError::Invalid(format!("{what}: {why}")),
        error => error,
    }
}

/// Takes the database for the copy of this file, and returns whether that is done already.
fn begin(client: &mut Client, export: &Export) -> Result<bool, Failure> {
    let mut transaction = client.transaction()?;
    lock_names(&mut transaction)?;
    let epoch = export.epoch.cast_signed();
    let is_noted = |transaction: &mut Transaction<'_>, key: &str| {
        let noted = "SELECT 1 FROM stride.meta WHERE key = $1 AND value = $2";
        transaction.query_opt(noted, &[&key, &epoch])
    };
    if is_noted(&mut transaction, DONE)?.is_some() {
        return Ok(true);
    }
    if is_noted(&mut transaction, UNDER_WAY)?.is_some() {
        return Ok(false);
    }
    let holds =
        "SELECT EXISTS (SELECT FROM stride.streams) OR EXISTS (SELECT FROM stride.processes)
        OR EXISTS (SELECT FROM stride.queries)";
    if transaction.query_one(holds, &[])?.get(0) {
        let why = "the database holds something else already";
        return Err(EngineError::Invalid(why.to_owned()).into());
    }
    let (last, deleted) = export.numbers()?;
    let ids = export.ids.cast_signed();
    for (key, value) in [
        ("epoch", epoch),
        ("ids", ids),
        ("streams", last),
        ("deleted", deleted),
        (UNDER_WAY, epoch),
    ] {
        let set = "INSERT INTO stride.meta VALUES ($1, $2)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        transaction.execute(set, &[&key, &value])?;
    }
    transaction.commit()?;
    Ok(false)
}

/// Copies the events that come next of a stream, and returns how many there were.
fn slice(client: &mut Client, export: &Export, stream: &ExportedStream) -> Result<u64, Failure> {
    let mut transaction = client.transaction()?;
    let ExportedStream { number, name, first, first_seen, last_seen, .. } = stream;
    let make =
        "INSERT INTO stride.streams (number, name, next, keys_version, first_seen, last_seen, first)
        VALUES ($1, $2, $3, 1, $4, $5, $3) ON CONFLICT DO NOTHING";
    transaction.execute(make, &[number, name, first, first_seen, last_seen])?;
    let next = "SELECT next FROM stride.streams WHERE number = $1 FOR UPDATE";
    let next: i64 = transaction.query_one(next, &[number])?.get(0);
    let events = export.events(stream, next, AT_ONCE)?;
    if let Some(last) = events.last() {
        let keys = insert(&mut transaction, *number, &events)?;
        note_keys(&mut transaction, *number, &export.keys(stream)?, &keys)?;
        let update = format!(
            "UPDATE stride.streams SET next = $2, keys_version = keys_version + 1,
                bytes = streams.bytes + copied.bytes, room = streams.room + copied.room
            FROM (SELECT sum(octet_length(event)) AS bytes, sum({ROOM}) AS room FROM stride.events
                WHERE stream = $1 AND place >= $3 AND place < $2) AS copied
            WHERE number = $1"
        );
        transaction.execute(&update, &[number, &(last.place + 1), &next])?;
    }
    transaction.commit()?;
    Ok(events.len() as u64)
}

/// Returns which keys the events have.
fn insert(
    transaction: &mut Transaction<'_>,
    stream: i64,
    events: &[ExportedEvent],
) -> Result<Vec<(String, Kinds)>, Failure> {
    let texts: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    // Read again: another database wants to know more of the values than the file does.
    let json = format!("[{}]", texts.join(","));
    let batch = Batch::read(&json, &timestamp::now(), usize::MAX, usize::MAX)
        .map_err(|error| EngineError::Damaged(format!("an event of the file is bad: {error}")))?;
    let (mut places, mut arrivals, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ids, mut docs) = (Vec::new(), Vec::new());
    for (event, record) in events.iter().zip(&batch.records) {
        places.push(event.place);
        arrivals.push(event.at);
        times.push(record.at.min(LATEST));
        ids.push(record.id.as_ref().filter(|_| !event.id_was_given).map(bytes));
        docs.push(doc(&event.event));
    }
    let insert = "INSERT INTO stride.events
        SELECT $1, place, timestamptz 'epoch' + at * interval '1 microsecond',
            timestamptz 'epoch' + time * interval '1 microsecond', id, event, doc
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::text[])
        AS new (place, at, time, id, event, doc)";
    transaction.execute(insert, &[&stream, &places, &arrivals, &times, &ids, &texts, &docs])?;
    Ok(batch.keys.iter().map(|(name, kinds)| (name.to_owned(), kinds)).collect())
}

/// Notes keys at the places that they have in the file.
fn note_keys(
    transaction: &mut Transaction<'_>,
    stream: i64,
    names: &[String],
    keys: &[(String, Kinds)],
) -> Result<(), Failure> {
    let note = transaction.prepare(
        "INSERT INTO stride.keys VALUES ($1, $2, $3, $4)
        ON CONFLICT (stream, place) DO UPDATE SET kinds = keys.kinds | excluded.kinds",
    )?;
    for (place, name) in (0_i32..).zip(names) {
        let kinds = keys.iter().find(|(key, _)| key == name).map(|(_, kinds)| kinds.0);
        let kinds = i16::from(kinds.unwrap_or_default());
        transaction.execute(&note, &[&stream, &place, name, &kinds])?;
    }
    Ok(())
}
