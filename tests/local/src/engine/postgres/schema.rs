//! The tables, in a schema of their own.

use std::ops::Range;

use postgres::{Client, Transaction};

use super::error::Failure;
use super::values;
use crate::engine::EngineError;
use crate::events::ids::Ids;

/// Raised when the tables or the functions change.
const VERSION: i64 = 2;

/// Advisory locks are known by two numbers, of which this is the first of ours.
pub(super) const LOCKS: i32 = 0x5374_7264;

/// The lock of those who make and delete streams and processes, which share their names.
pub(super) const NAMES: i32 = 0;

/// The lock of the server that deletes what has become too old or too much. Those of processes are their numbers.
pub(super) const SWEEP: i32 = -1;

/// Every table leads with the stream or the process that its rows are of.
const TABLES: &str = "
CREATE SCHEMA IF NOT EXISTS stride;
CREATE TABLE IF NOT EXISTS stride.meta (key text PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE IF NOT EXISTS stride.streams (
    number bigint PRIMARY KEY,
    name text COLLATE \"C\" NOT NULL UNIQUE,
    next bigint NOT NULL,        -- the event to come
    keys_version bigint NOT NULL,
    first_seen text NOT NULL,
    last_seen text NOT NULL,
    first bigint NOT NULL DEFAULT 1,        -- the oldest event that is still here
    bytes bigint NOT NULL DEFAULT 0,        -- of the text of those that are
    room bigint NOT NULL DEFAULT 0,         -- that they take with all that belongs to them, about
    is_open boolean NOT NULL DEFAULT false  -- the open key made it
);
CREATE INDEX IF NOT EXISTS open_streams ON stride.streams (number) WHERE is_open;
CREATE TABLE IF NOT EXISTS stride.garbage (
    stream bigint PRIMARY KEY,              -- that was deleted, and whose events go bit by bit
    first bigint NOT NULL,
    next bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS stride.keys (
    stream bigint NOT NULL,
    place integer NOT NULL,
    name text COLLATE \"C\" NOT NULL,
    kinds smallint NOT NULL,
    PRIMARY KEY (stream, place)
);
CREATE TABLE IF NOT EXISTS stride.events (
    stream bigint NOT NULL,
    place bigint NOT NULL,
    at timestamptz NOT NULL,     -- when it was stored
    time timestamptz NOT NULL,   -- its $timestamp
    id bytea,                    -- if a client gave it; of a long one, a hash
    event text NOT NULL,
    doc text,                    -- what queries read, if that is not the event itself
    PRIMARY KEY (stream, place)
);
CREATE UNIQUE INDEX IF NOT EXISTS event_ids ON stride.events (stream, id) WHERE id IS NOT NULL;
CREATE TABLE IF NOT EXISTS stride.processes (
    number bigint PRIMARY KEY,
    name text COLLATE \"C\" NOT NULL UNIQUE,
    query text NOT NULL,
    stream text COLLATE \"C\",   -- that its events are added from; without one it is recomputed
    reads text[] NOT NULL,
    rows text NOT NULL,          -- a SELECT of its rows
    columns text[] NOT NULL,     -- their names
    types text[] NOT NULL,       -- of the columns of its table
    why text,                    -- it is run again
    made bigint NOT NULL,        -- how often its tables were made
    next bigint NOT NULL,        -- the change to come
    seen text,                   -- what it was last computed of
    kept bigint NOT NULL,        -- distinct values
    stopped bigint,              -- the place of the first event that it has no room for
    skipped bigint NOT NULL,
    error text,                  -- what last went wrong
    stale_since text,            -- its rows are old
    ttl_duration text,           -- how old a row may get
    ttl_column text,             -- by the time in this column
    filled bigint,               -- while it lacks stored events: the place of the next one
    successor_of bigint,         -- the process whose place it takes then: it is out of sight until then
    outdated boolean NOT NULL DEFAULT false -- a successor with the same query is to be made
);
CREATE INDEX IF NOT EXISTS processes_of ON stride.processes (stream, name);
CREATE UNIQUE INDEX IF NOT EXISTS successors ON stride.processes (successor_of) WHERE successor_of IS NOT NULL;
CREATE TABLE IF NOT EXISTS stride.homes (
    process text COLLATE \"C\" NOT NULL,
    hash bytea NOT NULL,         -- of its query
    homes text NOT NULL,         -- whose keys its names are
    PRIMARY KEY (process, hash)
);
CREATE TABLE IF NOT EXISTS stride.changes (
    process bigint NOT NULL,
    place bigint NOT NULL,
    at timestamptz NOT NULL,
    changes text NOT NULL,
    PRIMARY KEY (process, place)
);
CREATE TABLE IF NOT EXISTS stride.discarded (name text PRIMARY KEY); -- tables of processes that go once nobody reads them
CREATE TABLE IF NOT EXISTS stride.queries (name text COLLATE \"C\" PRIMARY KEY, query text NOT NULL);
CREATE TABLE IF NOT EXISTS stride.probe (filler text NOT NULL);
";

/// Functions of ours, by type. `value`: a value of a key that has had several types. `num`: the number that a value is, if it is one.
/// `key`: the one form of values that are equal. `out`: what a client gets to see. `expiry`: the time that a value is, if it is one, by which a row grows old.
const FUNCTIONS: &str = "
CREATE OR REPLACE FUNCTION stride.value(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'null' THEN NULL
        WHEN 'number' THEN to_jsonb(trim_scale(($1 #>> '{}')::numeric)) ELSE $1 END $$;
CREATE OR REPLACE FUNCTION stride.num(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE OR REPLACE FUNCTION stride.num(double precision) RETURNS double precision IMMUTABLE LANGUAGE sql
    AS $$ SELECT $1 $$;
CREATE OR REPLACE FUNCTION stride.num(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
    AS $$ SELECT $1 $$;
CREATE OR REPLACE FUNCTION stride.num(integer) RETURNS integer IMMUTABLE LANGUAGE sql
    AS $$ SELECT $1 $$;
CREATE OR REPLACE FUNCTION stride.num(boolean) RETURNS numeric IMMUTABLE LANGUAGE sql
    AS $$ SELECT $1::int::numeric $$;
CREATE OR REPLACE FUNCTION stride.num(text) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 ~ '^[-+]?[0-9]{1,255}(\\.[0-9]{1,255})?$' THEN $1::numeric END $$;
CREATE OR REPLACE FUNCTION stride.num(jsonb) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'number' THEN ($1 #>> '{}')::numeric
        WHEN 'boolean' THEN ($1 #>> '{}')::boolean::int::numeric
        WHEN 'string' THEN stride.num($1 #>> '{}') END $$;
CREATE OR REPLACE FUNCTION stride.key(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql
    AS $$ SELECT trim_scale($1) $$;
CREATE OR REPLACE FUNCTION stride.key(double precision) RETURNS double precision IMMUTABLE LANGUAGE sql
    AS $$ SELECT $1 + 0 $$;
CREATE OR REPLACE FUNCTION stride.key(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN jsonb_typeof($1) IN ('array', 'object') THEN stride.inner_key($1) ELSE stride.value($1) END $$;
CREATE OR REPLACE FUNCTION stride.inner_key(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1)
        WHEN 'number' THEN to_jsonb(trim_scale(($1 #>> '{}')::numeric))
        WHEN 'array' THEN (SELECT coalesce(jsonb_agg(stride.inner_key(value) ORDER BY place), '[]')
            FROM jsonb_array_elements($1) WITH ORDINALITY AS all_of (value, place))
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(key, stride.inner_key(value)), '{}') FROM jsonb_each($1))
        ELSE $1 END $$;
CREATE OR REPLACE FUNCTION stride.out(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql
    AS $$ SELECT trim_scale($1) $$;
CREATE OR REPLACE FUNCTION stride.out(timestamptz) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') $$;
CREATE OR REPLACE FUNCTION stride.out(timestamp) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT to_char($1, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') $$;
CREATE OR REPLACE FUNCTION stride.expiry(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE OR REPLACE FUNCTION stride.expiry(timestamp) RETURNS timestamptz STABLE LANGUAGE sql
    AS $$ SELECT $1 AT TIME ZONE 'UTC' $$;
CREATE OR REPLACE FUNCTION stride.expiry(date) RETURNS timestamptz STABLE LANGUAGE sql
    AS $$ SELECT $1::timestamp AT TIME ZONE 'UTC' $$;
CREATE OR REPLACE FUNCTION stride.expiry(text) RETURNS timestamptz STABLE LANGUAGE plpgsql AS $$ BEGIN
    RETURN CASE WHEN $1 ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}' THEN $1::timestamptz END;
    EXCEPTION WHEN data_exception THEN RETURN NULL; END $$;
CREATE OR REPLACE FUNCTION stride.expiry(jsonb) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'string' THEN stride.expiry($1 #>> '{}') END $$;
";

/// Types whose values are no times.
const TIMELESS: [&str; 9] = [
    "bigint",
    "boolean",
    "double precision",
    "integer",
    "interval",
    "json",
    "numeric",
    "real",
    "anyarray",
];

/// Types whose values `out`, and mostly `key`, leave as they are. All are named, because PostgreSQL would otherwise have several
/// functions to choose from.
const PLAIN: [&str; 11] = [
    "bigint",
    "boolean",
    "date",
    "double precision",
    "integer",
    "interval",
    "json",
    "jsonb",
    "real",
    "text",
    "anyarray",
];

/// The functions of those types.
fn plain_functions() -> String {
    let of = |name: &str, of: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION stride.{name}({of}) RETURNS {of} IMMUTABLE LANGUAGE sql \
             AS $$ SELECT $1 $$;"
        )
    };
    let times = ["timestamptz", "timestamp"].map(|time| of("key", time));
    let keys = PLAIN.iter().filter(|plain| !matches!(**plain, "double precision" | "jsonb"));
    let plain = keys.map(|key| of("key", key)).chain(PLAIN.iter().map(|plain| of("out", plain)));
    let timeless = TIMELESS.map(|of| {
        format!(
            "CREATE OR REPLACE FUNCTION stride.expiry({of}) RETURNS timestamptz IMMUTABLE LANGUAGE sql \
             AS $$ SELECT NULL::timestamptz $$;"
        )
    });
    plain.chain(times).chain(timeless).collect()
}

/// What is drawn once for a storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) epoch: u64,
    pub(super) ids: Ids,
}

/// Makes what is not there yet. Servers that start together take turns.
pub(super) fn create(client: &mut Client) -> Result<Drawn, EngineError> {
    let mut transaction = client.transaction()?;
    let work = |transaction: &mut Transaction<'_>| -> Result<Drawn, Failure> {
        lock_names(transaction)?;
        // Made only where they are not: others may be at work on the tables, and hold their locks in another order.
        let version = match version(transaction)? {
            Some(version) => version,
            None => {
                transaction.batch_execute(TABLES)?;
                // One of them calls itself.
                transaction.batch_execute("SET LOCAL check_function_bodies = off")?;
                transaction.batch_execute(FUNCTIONS)?;
                transaction.batch_execute(&plain_functions())?;
                values::create(transaction)?;
                number(transaction, "version", VERSION)?
            }
        };
        if version != VERSION {
            let why =
                format!("the database is of version {version}, and this program knows {VERSION}");
            return Err(EngineError::Invalid(why).into());
        }
        let ids = number(transaction, "ids", Ids::draw().cast_signed())?.cast_unsigned();
        let epoch = number(transaction, "epoch", Ids::draw().cast_signed())?.cast_unsigned();
        for counter in ["streams", "deleted", "processes"] {
            number(transaction, counter, 0)?;
        }
        Ok(Drawn { epoch, ids: Ids::new(ids) })
    };
    let drawn = work(&mut transaction).map_err(|failure| failure.error)?;
    transaction.commit()?;
    Ok(drawn)
}

/// The version of the tables, if there are any.
fn version(transaction: &mut Transaction<'_>) -> Result<Option<i64>, Failure> {
    let is_there = "SELECT to_regclass('stride.meta') IS NOT NULL";
    if !transaction.query_one(is_there, &[])?.get::<_, bool>(0) {
        return Ok(None);
    }
    let select = "SELECT value FROM stride.meta WHERE key = 'version'";
    Ok(transaction.query_opt(select, &[])?.map(|row| row.get(0)))
}

/// No other server makes or deletes a stream or a process until the transaction ends.
pub(super) fn lock_names(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    transaction.execute("SELECT pg_advisory_xact_lock($1, $2)", &[&LOCKS, &NAMES])?;
    Ok(())
}

/// A number that is kept, which is `first` if there is none yet.
fn number(transaction: &mut Transaction<'_>, key: &str, first: i64) -> Result<i64, Failure> {
    let insert = "INSERT INTO stride.meta VALUES ($1, $2) ON CONFLICT DO NOTHING";
    transaction.execute(insert, &[&key, &first])?;
    let select = "SELECT value FROM stride.meta WHERE key = $1";
    Ok(transaction.query_one(select, &[&key])?.get(0))
}

/// The next number of a stream or of a process. No other is ever given it.
pub(super) fn next_number(transaction: &mut Transaction<'_>, of: &str) -> Result<i64, Failure> {
    Ok(next_numbers(transaction, of, 1)?.start)
}

/// The next so many of them.
pub(super) fn next_numbers(
    transaction: &mut Transaction<'_>,
    of: &str,
    count: i64,
) -> Result<Range<i64>, Failure> {
    let update = "UPDATE stride.meta SET value = value + $2 WHERE key = $1 RETURNING value";
    let last: i64 = transaction.query_one(update, &[&of, &count])?.get(0);
    Ok(last - count + 1..last + 1)
}
