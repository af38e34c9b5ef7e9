//! A copy of what a file holds. It can be gone on with after a kill, and has the places and ids of the file, so
//! that positions stay what they were.

mod again;
mod migrated;
mod texts;

use std::io;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Transaction};

pub use self::migrated::Migrated;
pub(super) use self::texts::text;
use super::connections::Connections;
use super::error::Failure;
use super::schema::{self, LOCKS, SWEEP, lock_names};
use super::storage::{LATEST, ROOM, bytes, doc};
use super::{SETTINGS, process, query};
use crate::engine::EngineError;
use crate::engine::sqlite::export::{Export, ExportedEvent, ExportedProcess, ExportedStream};
use crate::events::batch::Batch;
use crate::events::keys::Kinds;
use crate::events::timestamp;

/// How many events a transaction copies.
const AT_ONCE: usize = 1000;

/// How often it says how far it has come.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// What the storage says of the copy of a file: that of this epoch is under way, or done.
const UNDER_WAY: &str = "import";
const DONE: &str = "imported";

/// Copies a file into a database that holds nothing else. `patience`: how long whoever has the database may take to let go
/// of it.
pub(crate) fn copy(database: &str, export: &Export, patience: Duration) -> io::Result<Migrated> {
    // What is copied does not depend on the settings of a login.
    let connections = Connections::that_write(database, SETTINGS.to_owned())?;
    let mut client = connections.connect().map_err(io::Error::other)?;
    take(&mut client, patience)?;
    schema::create(&mut client).map_err(io::Error::other)?;
    let copied = copy_to(&mut client, export);
    copied.map_err(|failure| io::Error::other(failure.error))
}

/// Takes the database as a server does that deletes what is too old. The session of a copy that was killed may still have it.
fn take(client: &mut Client, patience: Duration) -> io::Result<()> {
    let failed = |error| io::Error::other(EngineError::from(error));
    let wait = format!("SET lock_timeout = {}", patience.as_millis().max(1));
    client.batch_execute(&wait).map_err(failed)?;
    let lock = "SELECT pg_advisory_lock($1, $2)";
    client.execute(lock, &[&LOCKS, &SWEEP]).map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            let why = "a server, or another copy, has the database open";
            io::Error::new(io::ErrorKind::ResourceBusy, why)
        }
        _ => failed(error),
    })?;
    client.batch_execute("SET lock_timeout = 0").map_err(failed)
}

fn copy_to(client: &mut Client, export: &Export) -> Result<Migrated, Failure> {
    let mut migrated = Migrated::default();
    if begin(client, export)? {
        migrated.is_done = true;
        return Ok(migrated);
    }
    let (streams, processes, queries) = (export.streams()?, export.processes()?, export.queries()?);
    again::take_back(client, &streams, &processes, &queries)?;
    for stream in &streams {
        migrated.events += copy_stream(client, export, stream)?;
    }
    for process in &processes {
        let stream = streams.iter().find(|stream| process.reads.contains(&stream.name));
        copy_process(client, export, process, stream, &mut migrated)?;
    }
    for (name, query) in queries {
        let mut transaction = client.transaction()?;
        query::save(&mut transaction, &name, &query)
            .map_err(|failure| of(&format!("the saved query {name:?}"), failure))?;
        transaction.commit()?;
        migrated.queries += 1;
    }
    migrated.streams = streams.len();
    // What is done again changes nothing from here on.
    let note = "INSERT INTO stride.meta VALUES ($1, $2) ON CONFLICT DO NOTHING";
    client.execute(note, &[&DONE, &export.epoch.cast_signed()])?;
    Ok(migrated)
}

/// The same failure, which says where.
fn of(what: &str, failure: Failure) -> Failure {
    match failure.error {
        EngineError::Invalid(why) => EngineError::Invalid(format!("{what}: {why}")).into(),
        error => error.into(),
    }
}

/// Copies a process with its result, or makes it anew over the events that are left.
fn copy_process(
    client: &mut Client,
    export: &Export,
    process: &ExportedProcess,
    stream: Option<&ExportedStream>,
    migrated: &mut Migrated,
) -> Result<(), Failure> {
    let (name, query) = (&process.name, &process.definition.query);
    let named = |failure| of(&format!("the process {name:?}"), failure);
    let mut transaction = client.transaction()?;
    // Whoever was killed may just have committed it.
    lock_names(&mut transaction)?;
    if transaction.query_opt("SELECT 1 FROM stride.processes WHERE name = $1", &[name])?.is_some() {
        migrated.known += 1;
        return Ok(());
    }
    if !process.homes.is_empty() {
        process::keep_homes(&mut transaction, name, query, &process.homes)?;
    }
    let mut attempt = transaction.transaction()?;
    let number = match process::create_copied(&mut attempt, export, process, stream) {
        Ok(number) => {
            attempt.commit()?;
            tracing::info!(process = name, "a process is copied with its result");
            migrated.copied.push(name.clone());
            number
        }
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            let made = process::create_whole(&mut transaction, name, query);
            let number = made.map_err(named)?;
            // What is run again in the file's server, too, lacks nothing.
            let gone = stream.map_or(0, |stream| stream.first - 1);
            let was_added_to = export.plan(process).is_ok();
            let lacks = gone > 0 && was_added_to;
            let why = match stream {
                Some(_) if lacks => {
                    format!("{why}; it lacks the {gone} events that its stream no longer holds")
                }
                None if was_added_to => format!("{why}; nothing is left, its stream was deleted"),
                _ => why,
            };
            tracing::warn!(process = name, why, "a process is made anew");
            if lacks {
                let note = "UPDATE stride.processes SET skipped = $2, error = $3 WHERE number = $1";
                let error = format!("it was made anew when it came from a file: {why}");
                transaction.execute(note, &[&number, &gone, &error])?;
            }
            migrated.anew.push((name.clone(), why));
            number
        }
        Err(failure) => return Err(failure),
    };
    process::set_ttl(&mut transaction, number, process.definition.ttl.as_ref()).map_err(named)?;
    transaction.commit()?;
    Ok(())
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
    let is_under_way = is_noted(&mut transaction, UNDER_WAY)?.is_some();
    let holds =
        "SELECT EXISTS (SELECT FROM stride.streams) OR EXISTS (SELECT FROM stride.processes)
        OR EXISTS (SELECT FROM stride.queries)";
    if !is_under_way && transaction.query_one(holds, &[])?.get(0) {
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

/// Whether a copy of a file is not done yet.
pub(super) fn is_under_way(client: &mut Client) -> Result<bool, EngineError> {
    let select = "SELECT EXISTS (SELECT FROM stride.meta WHERE key = $1)
        AND NOT EXISTS (SELECT FROM stride.meta WHERE key = $2)";
    Ok(client.query_one(select, &[&UNDER_WAY, &DONE])?.get(0))
}

/// Copies what is not there yet of a stream, and returns how many events that were.
fn copy_stream(
    client: &mut Client,
    export: &Export,
    stream: &ExportedStream,
) -> Result<u64, Failure> {
    let mut keys = export.keys(stream)?;
    make_stream(client, stream, &keys)?;
    let (mut copied, mut said) = (0, Instant::now());
    loop {
        let (count, next) = slice(client, export, stream, &mut keys)?;
        copied += count;
        if count == 0 || said.elapsed() >= SAID_EVERY {
            said = Instant::now();
            let (name, of) = (&stream.name, stream.next - stream.first);
            let events = next - stream.first;
            tracing::info!(stream = name, events, of, "events are copied");
        }
        if count == 0 {
            return Ok(copied);
        }
    }
}

/// Makes a stream without events, unless it is there, and notes the keys of those that the file ever had.
fn make_stream(
    client: &mut Client,
    stream: &ExportedStream,
    keys: &[(String, Kinds)],
) -> Result<(), Failure> {
    let ExportedStream { number, name, first, first_seen, last_seen, is_open, .. } = stream;
    let mut transaction = client.transaction()?;
    let make = "INSERT INTO stride.streams
            (number, name, next, keys_version, first_seen, last_seen, first, is_open)
        VALUES ($1, $2, $3, 1, $4, $5, $3, $6)
        ON CONFLICT (number) DO UPDATE SET last_seen = excluded.last_seen";
    transaction.execute(make, &[number, name, first, first_seen, last_seen, is_open])?;
    note_keys(&mut transaction, *number, keys.iter().enumerate())?;
    // The file may have let go of events since then that are not copied: places have no holes.
    let start_again = "UPDATE stride.streams SET first = $2, next = $2, bytes = 0, room = 0
        WHERE number = $1 AND next < $2";
    if transaction.execute(start_again, &[number, first])? > 0 {
        transaction.execute("DELETE FROM stride.events WHERE stream = $1", &[number])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Copies the events that come next of a stream. Returns how many there were, and the place behind them. `keys`: those
/// that are noted.
fn slice(
    client: &mut Client,
    export: &Export,
    stream: &ExportedStream,
    keys: &mut [(String, Kinds)],
) -> Result<(u64, i64), Failure> {
    let number = &stream.number;
    let mut transaction = client.transaction()?;
    let next = "SELECT next FROM stride.streams WHERE number = $1 FOR UPDATE";
    let next: i64 = transaction.query_one(next, &[number])?.get(0);
    let events = export.events(stream, next, AT_ONCE)?;
    let Some(last) = events.last() else { return Ok((0, next)) };
    let end = last.place + 1;
    let found = insert(&mut transaction, *number, &events)?;
    // A file of an earlier version does not tell numbers from texts.
    let mut news = Vec::new();
    for (place, (name, kinds)) in keys.iter_mut().enumerate() {
        let known = *kinds;
        let found = found.iter().find(|(found, _)| found == name);
        *kinds = found.map_or(known, |(_, found)| known.with(*found));
        if *kinds != known {
            news.push(place);
        }
    }
    note_keys(&mut transaction, *number, news.into_iter().map(|place| (place, &keys[place])))?;
    let update = format!(
        "UPDATE stride.streams SET next = $2, keys_version = keys_version + 1,
            bytes = streams.bytes + copied.bytes, room = streams.room + copied.room
        FROM (SELECT sum(octet_length(event)) AS bytes, sum({ROOM}) AS room FROM stride.events
            WHERE stream = $1 AND place >= $3 AND place < $2) AS copied
        WHERE number = $1"
    );
    transaction.execute(&update, &[number, &end, &next])?;
    transaction.commit()?;
    Ok((events.len() as u64, end))
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

/// Notes keys, each with its place in the file.
fn note_keys<'a>(
    transaction: &mut Transaction<'_>,
    stream: i64,
    keys: impl Iterator<Item = (usize, &'a (String, Kinds))>,
) -> Result<(), Failure> {
    let (mut places, mut names, mut all_kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (place, (name, kinds)) in keys {
        places.push(i32::try_from(place).unwrap_or(i32::MAX));
        names.push(name);
        all_kinds.push(i16::from(kinds.0));
    }
    if places.is_empty() {
        return Ok(());
    }
    let note = "INSERT INTO stride.keys
        SELECT $1, place, name, kinds FROM unnest($2::int[], $3::text[], $4::smallint[]) AS new (place, name, kinds)
        ON CONFLICT (stream, place) DO UPDATE SET kinds = keys.kinds | excluded.kinds";
    transaction.execute(note, &[&stream, &places, &names, &all_kinds])?;
    Ok(())
}
