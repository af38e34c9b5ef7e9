//! The tables, and the connections to them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{EngineError, times};
use crate::streams::stamp::Ids;

/// How long to wait for a lock that another program has on the file.
const BUSY: Duration = Duration::from_secs(1);

/// How much memory SQLite may take in all, in bytes. A query that needs more fails; if it is the
/// writer, those who wait for it are told that the storage is unavailable.
const MEMORY: i64 = 1024 * 1024 * 1024;

/// Raised when the tables change.
const VERSION: i64 = 1;

/// Bits of a place that count within its stream; those above are the number of the stream.
const SEQUENCE_BITS: u32 = 40;

/// All events are in one table, so that 10,000 streams cost no more than one. A `place` is the number
/// of the stream and then that of the event in it: the events of a stream lie together, in order, and
/// new ones go to the end. `id` holds only ids that clients gave; others follow from the place.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL, -- the oldest event that is still here
    next INTEGER NOT NULL,  -- the event to come
    bytes INTEGER NOT NULL, -- of the events that are still here
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL
);
CREATE TABLE columns (
    stream INTEGER NOT NULL,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    kinds INTEGER NOT NULL,
    PRIMARY KEY (stream, place)
) WITHOUT ROWID;
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,    -- when it was stored, in microseconds since 1970
    id,
    event TEXT NOT NULL
);
CREATE UNIQUE INDEX event_ids ON events (place >> 40, id) WHERE id IS NOT NULL;
-- Places of events whose stream is gone.
CREATE TABLE garbage (first INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE processes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    query TEXT NOT NULL,
    ttl_duration TEXT,
    ttl_column TEXT,
    rows TEXT NOT NULL,     -- a SELECT of its rows
    columns TEXT NOT NULL   -- their names, and which are true or false: JSON
);
CREATE TABLE queries (name TEXT PRIMARY KEY, query TEXT NOT NULL) WITHOUT ROWID;
";

/// The place of event `sequence` of the stream with this number.
pub(super) fn place(stream: i64, sequence: i64) -> i64 {
    stream << SEQUENCE_BITS | sequence
}

/// The stream and the sequence that a place is made of.
pub(super) fn parts(place: i64) -> (i64, i64) {
    (place >> SEQUENCE_BITS, place & ((1 << SEQUENCE_BITS) - 1))
}

/// Opens the connection that writes, and makes what is not there yet. `durable`: commits are on the
/// disk before they are done.
pub(super) fn open_writer(path: &Path, durable: bool) -> Result<(Connection, Ids), EngineError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", if durable { "full" } else { "off" })?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // For all connections of the process: what a query can make of a row has no other bound.
    connection.pragma_update(None, "hard_heap_limit", MEMORY)?;
    // A reader that takes its time lets the log grow; it is cut when it starts anew.
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.set_prepared_statement_cache_capacity(256);
    times::install(&connection)?;

    let transaction = connection.transaction()?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        _ => {
            return Err(EngineError::Broken(format!(
                "the file is of version {version}, and this program knows only {VERSION}"
            )));
        }
    }
    let drawn = "SELECT value FROM meta WHERE key = 'ids'";
    let drawn: Option<i64> = transaction.query_row(drawn, [], |row| row.get(0)).optional()?;
    let drawn = match drawn {
        Some(drawn) => drawn.cast_unsigned(),
        None => {
            let drawn = Ids::draw();
            let insert = "INSERT INTO meta VALUES ('ids', ?)";
            transaction.execute(insert, [drawn.cast_signed()])?;
            drawn
        }
    };
    transaction.commit()?;
    Ok((connection, Ids::new(drawn)))
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, EngineError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
