//! The tables, and the connections to them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::functions::times;
use super::pages::Pages;
use crate::engine::EngineError;
use crate::events::ids::Ids;
use crate::sql::places::BLOCK_BITS;

/// How long to wait for a lock that another program has on the file.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// How much memory SQLite may take in all, in bytes. A query that needs more fails; if it is the
/// writer, those who wait for it are told that the storage is unavailable.
const MEMORY: i64 = 1024 * 1024 * 1024;

/// Raised when the tables change.
const VERSION: i64 = 1;

/// Marks a file as ours: `Strd`.
const APPLICATION: i64 = 0x5374_7264;

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

/// A coarse index on time: what the last time in a block is, of the events themselves and of their arrival, in
/// microseconds since 1970. An index of every event would cost much of what storing it does.
const BLOCKS: &str = "
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    latest INTEGER NOT NULL,
    arrived INTEGER NOT NULL
);
";

/// Makes the tables that are not there yet.
pub(super) fn create(connection: &Connection) -> Result<(), EngineError> {
    if !connection.table_exists(None, "meta")? {
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    // The first versions had none of these.
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS open_streams (stream INTEGER PRIMARY KEY);
        -- Processes that have not been given all stored events yet, and the place of the next one.
        CREATE TABLE IF NOT EXISTS fills (process INTEGER PRIMARY KEY, next INTEGER NOT NULL);
        -- Which streams the names in a process's query are keys of, as far as that is settled: JSON.
        CREATE TABLE IF NOT EXISTS homes (process INTEGER PRIMARY KEY, streams TEXT NOT NULL);
        -- How many distinct values a process keeps, over all its groups.
        CREATE TABLE IF NOT EXISTS distincts (process INTEGER PRIMARY KEY, kept INTEGER NOT NULL);
        -- Processes over a window that is kept in steps, and the first step that nothing was taken out of.
        CREATE TABLE IF NOT EXISTS windows (process INTEGER PRIMARY KEY, first INTEGER NOT NULL)",
    )?;
    if !connection.table_exists(None, "blocks")? {
        connection.execute_batch(BLOCKS)?;
        // Those that were stored before may be of any time.
        connection.execute(
            "INSERT INTO blocks SELECT DISTINCT place >> ?1, ?2, ?2 FROM events",
            (BLOCK_BITS, i64::MAX),
        )?;
    }
    Ok(())
}

/// Opens the connection that writes, and makes what is not there yet. `durable`: commits are on the
/// disk before they are done.
pub(super) fn open_writer(path: &Path, durable: bool) -> Result<(Connection, Pages), EngineError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // Before anything is changed.
    check(&connection)?;
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
    create(&transaction)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    let ids = Ids::new(drawn(&transaction, "ids")?);
    let epoch = drawn(&transaction, EPOCH)?;
    transaction.commit()?;
    Ok((connection, Pages { epoch, ids }))
}

/// What tells this storage from its copies: it is not in them. Positions of both would be the same, and events are not.
pub(super) const EPOCH: &str = "epoch";

/// A number that is drawn once.
fn drawn(connection: &Connection, key: &str) -> Result<u64, EngineError> {
    let known = "SELECT value FROM meta WHERE key = ?";
    let known: Option<i64> = connection.query_row(known, [key], |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok(known.cast_unsigned());
    }
    let drawn = Ids::draw();
    connection.execute("INSERT INTO meta VALUES (?, ?)", (key, drawn.cast_signed()))?;
    Ok(drawn)
}

/// Checks that a database is one of ours, or empty.
pub(super) fn check(connection: &Connection) -> Result<(), EngineError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
    let is_empty = application == 0 && version == 0 && tables == 0;
    let is_ours = application == APPLICATION
        || application == 0 && version == 1 && connection.table_exists(None, "garbage")?;
    if !is_empty && !is_ours {
        return Err(EngineError::Invalid("the file is a database of another program".to_owned()));
    }
    if is_ours && version != VERSION {
        return Err(EngineError::Invalid(format!(
            "the file is of version {version}, and this program knows only {VERSION}"
        )));
    }
    Ok(())
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, EngineError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    // SQLite opens its files when they are first read, and they may have no names later.
    connection.query_row("SELECT 1 FROM meta", [], |_| Ok(()))?;
    Ok(connection)
}
