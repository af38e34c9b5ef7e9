//! Processes: each has a table of its rows, and a feed of what changed in them.
//!
//! An incremental process is added to by one upsert, in the transaction that stores the events and while it holds the
//! lock of their stream. The others are run again by one server at a time. A new one is given what is stored in slices,
//! without that lock; with another query, as a successor that is out of sight.

mod added;
mod adding;
mod copied;
mod difference;
mod draft;
mod expiry;
mod fill;
mod forget;
mod homes;
mod rerun;
mod stats;
mod successor;

use std::collections::BTreeSet;

use postgres::fallible_iterator::FallibleIterator as _;
use postgres::{Row, Transaction};

use self::draft::Draft;
use super::error::Failure;
use super::schema::{lock_names, next_number};
use super::storage::Events;
use crate::engine::EngineError;
use crate::events::timestamp;
use crate::settings::Limits;
use crate::sql::plan::Plan;
use crate::subscribers::records::{DELIMITER, Records};

pub(super) use self::added::{Statements, Stored, added, go_on, stopped};
pub(super) use self::copied::{create_copied, create_whole};
pub(super) use self::expiry::{MOST_EXPIRED, expire, set_ttl, ttl, with_ttl};
pub(super) use self::fill::{Filled, finish, give_up, slice, unfilled};
pub(super) use self::forget::forget;
pub(super) use self::homes::keep as keep_homes;
pub(super) use self::rerun::{Rerun, recomputed, run_again};
pub(super) use self::stats::{all, counts, stale_of, stats};
pub(super) use self::successor::{begin_anew, change, outdated};

/// How rows are called that are sent: no column can have this name, and so be taken for them.
const ROW: &str = "\"\u{1}\"";

/// A process as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) number: i64,
    name: String,
    query: String,
    stream: Option<String>,
    reads: Vec<String>,
    rows: String,
    columns: Vec<String>,
    types: Vec<String>,
    why: Option<String>,
    made: i64,
    next: i64,
    seen: Option<String>,
    kept: i64,
    stopped: Option<i64>,
    skipped: i64,
    error: Option<String>,
    stale_since: Option<String>,
    filled: Option<i64>,
    successor_of: Option<i64>,
}

const COLUMNS: &str = "number, name, query, stream, reads, rows, columns, types, why, made, next, seen, kept, stopped,
    skipped, error, stale_since, filled, successor_of";

impl Process {
    fn of(row: &Row) -> Self {
        Self {
            number: row.get("number"),
            name: row.get("name"),
            query: row.get("query"),
            stream: row.get("stream"),
            reads: row.get("reads"),
            rows: row.get("rows"),
            columns: row.get("columns"),
            types: row.get("types"),
            why: row.get("why"),
            made: row.get("made"),
            next: row.get("next"),
            seen: row.get("seen"),
            kept: row.get("kept"),
            stopped: row.get("stopped"),
            skipped: row.get("skipped"),
            error: row.get("error"),
            stale_since: row.get("stale_since"),
            filled: row.get("filled"),
            successor_of: row.get("successor_of"),
        }
    }

    fn table(&self) -> String {
        table(self.number, self.made)
    }
}

/// The table of a process that was made for the time `made`.
fn table(number: i64, made: i64) -> String {
    format!("stride.p_{number}_{made}")
}

/// A process by its number, `locked` as that says.
fn look(
    transaction: &mut Transaction<'_>,
    number: i64,
    locked: &str,
) -> Result<Option<Process>, Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE number = $1 {locked}");
    Ok(transaction.query_opt(&select, &[&number])?.map(|row| Process::of(&row)))
}

pub(super) fn find(transaction: &mut Transaction<'_>, name: &str) -> Result<Process, Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE name = $1 FOR UPDATE");
    let row = transaction.query_opt(&select, &[&name])?;
    row.map(|row| Process::of(&row)).ok_or_else(|| no_process(name).into())
}

pub(super) fn no_process(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no process {name:?}"))
}

/// A process must not read itself, by others or not.
fn check_circle(
    transaction: &mut Transaction<'_>,
    name: &str,
    reads: &[String],
) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    let mut open = reads.to_vec();
    while let Some(read) = open.pop() {
        if read == name {
            return Err(EngineError::Invalid(format!("{name:?} would read itself")).into());
        }
        if known.insert(read.clone()) {
            let select = "SELECT reads FROM stride.processes WHERE name = $1";
            if let Some(row) = transaction.query_opt(select, &[&read])? {
                open.extend(row.get::<_, Vec<String>>(0));
            }
        }
    }
    Ok(())
}

/// Makes a process, which is to be given what is stored.
pub(super) fn create(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
    limits: &Limits,
) -> Result<i64, Failure> {
    lock_names(transaction)?;
    for (table, what) in [("streams", "stream"), ("processes", "process")] {
        let taken = format!("SELECT 1 FROM stride.{table} WHERE name = $1");
        if transaction.query_opt(&taken, &[&name])?.is_some() {
            let why = format!("there is a {what} {name:?} already");
            return Err(EngineError::Conflict(why).into());
        }
    }
    if let Some(reader) = reader_of(transaction, name)? {
        let why = format!("the process {reader:?} reads {name:?} as a stream");
        return Err(EngineError::Conflict(why).into());
    }
    let draft = Draft::new(transaction, name, query)?;
    insert(transaction, &draft, name, query, None, limits)
}

/// A process that reads `name`.
fn reader_of(transaction: &mut Transaction<'_>, name: &str) -> Result<Option<String>, Failure> {
    let reader = "SELECT name FROM stride.processes WHERE $1 = ANY(reads) LIMIT 1";
    let reader = transaction.query_opt(reader, &[&name])?;
    Ok(reader.map(|reader| successor::visible(reader.get(0)).to_owned()))
}

fn insert(
    transaction: &mut Transaction<'_>,
    draft: &Draft,
    name: &str,
    query: &str,
    successor_of: Option<i64>,
    limits: &Limits,
) -> Result<i64, Failure> {
    let number = next_number(transaction, "processes")?;
    let table = table(number, 1);
    let types = draft.make(transaction, &table, limits)?;
    let insert = "INSERT INTO stride.processes (number, name, query, stream, reads, rows, columns, types, why, made,
            next, seen, kept, skipped, filled, successor_of)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, 1, $10, 0, 0, $11, $12)";
    transaction.execute(
        insert,
        &[
            &number,
            &name,
            &query,
            &draft.stream(),
            &draft.reads,
            &draft.rows(&table),
            &draft.columns,
            &types,
            &draft.why(),
            &draft.seen(),
            &draft.first(),
            &successor_of,
        ],
    )?;
    Ok(number)
}

/// Puts new tables in the place of a process's, over all stored events, notes what changed, and returns whether anything did.
fn replace(
    transaction: &mut Transaction<'_>,
    process: &Process,
    draft: &Draft,
    limits: &Limits,
) -> Result<bool, Failure> {
    let (number, old) = (process.number, format!("old_{}", process.number));
    let by = draft.same_row_by().filter(|_| process.columns == draft.columns);
    difference::keep(transaction, &old, &process.rows, &process.columns, by.as_deref())?;
    let new = put_in_place(transaction, process, draft, limits)?;
    if let Some(stream) = &draft.stored {
        let places = stream.first..stream.next;
        fill::give(transaction, &new, stream, &draft.keys, places, limits, false)?;
    }
    let of = (number, process.next);
    let changed =
        difference::note(transaction, &old, &new.rows, &draft.columns, by.as_deref(), of)?;
    let update = "UPDATE stride.processes SET next = next + $2 WHERE number = $1";
    transaction.execute(update, &[&number, &i64::from(changed)])?;
    Ok(changed)
}

/// Makes new tables for a process, to which nothing is added yet. They have another name than those before, so that a
/// query that looked those up does not find others.
fn put_in_place(
    transaction: &mut Transaction<'_>,
    process: &Process,
    draft: &Draft,
    limits: &Limits,
) -> Result<Process, Failure> {
    discard_tables(transaction, process)?;
    let table = table(process.number, process.made + 1);
    let types = draft.make(transaction, &table, limits)?;
    let update = format!(
        "UPDATE stride.processes
        SET rows = $2, columns = $3, types = $4, made = made + 1, seen = $5, kept = 0, stopped = NULL, error = NULL,
            stale_since = NULL, outdated = false
        WHERE number = $1 RETURNING {COLUMNS}"
    );
    let (rows, columns, seen) = (draft.rows(&table), &draft.columns, draft.seen());
    let row = transaction.query_one(&update, &[&process.number, &rows, columns, &types, &seen])?;
    Ok(Process::of(&row))
}

/// Leaves the tables of a process to be dropped later. That waits for those who read them, and nobody is to wait for it.
fn discard_tables(transaction: &mut Transaction<'_>, process: &Process) -> Result<(), Failure> {
    let table = process.table();
    let plan = process.stream.as_ref().map(|_| process.plan()).transpose()?;
    let values = plan.iter().flat_map(Plan::distinct_states).count();
    let mut tables: Vec<String> = (0..values).map(|place| format!("{table}_d{place}")).collect();
    tables.push(table);
    let insert = "INSERT INTO stride.discarded SELECT unnest($1::text[])";
    transaction.execute(insert, &[&tables])?;
    Ok(())
}

/// The tables that nobody needs but those who read them already.
pub(super) fn discarded(transaction: &mut Transaction<'_>) -> Result<Vec<String>, Failure> {
    let rows = transaction.query("SELECT name FROM stride.discarded", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Drops one of them.
pub(super) fn drop_table(transaction: &mut Transaction<'_>, name: &str) -> Result<(), Failure> {
    transaction.batch_execute(&format!(
        "SET LOCAL lock_timeout = '100 ms'; DROP TABLE IF EXISTS {name}"
    ))?;
    transaction.execute("DELETE FROM stride.discarded WHERE name = $1", &[&name])?;
    Ok(())
}

/// The rows of a process are old from now on.
fn stop(transaction: &mut Transaction<'_>, number: i64, why: &str) -> Result<(), Failure> {
    let update = "UPDATE stride.processes
        SET error = $2, stale_since = coalesce(stale_since, $3) WHERE number = $1";
    transaction.execute(update, &[&number, &why, &timestamp::now()])?;
    Ok(())
}

/// Deletes a process that no other reads.
pub(super) fn delete(transaction: &mut Transaction<'_>, name: &str) -> Result<i64, Failure> {
    lock_names(transaction)?;
    let is_there = "SELECT 1 FROM stride.processes WHERE name = $1";
    if transaction.query_opt(is_there, &[&name])?.is_none() {
        return Err(no_process(name).into());
    }
    if let Some(reader) = reader_of(transaction, name)? {
        return Err(EngineError::Conflict(format!("the process {reader:?} reads {name:?}")).into());
    }
    successor::remove_of(transaction, name)?;
    let process = find(transaction, name)?;
    remove(transaction, &process)?;
    Ok(process.number)
}

/// Removes a process with all that it has.
fn remove(transaction: &mut Transaction<'_>, process: &Process) -> Result<(), Failure> {
    transaction.execute("DELETE FROM stride.processes WHERE number = $1", &[&process.number])?;
    transaction.execute("DELETE FROM stride.changes WHERE process = $1", &[&process.number])?;
    if process.successor_of.is_none() {
        homes::forget(transaction, &process.name)?;
    }
    discard_tables(transaction, process)
}

/// The changes at places from `from` up to, but without, `next`; `None` if not all of them are kept. Also returns
/// whether the process has got another query.
pub(super) fn changes(
    transaction: &mut Transaction<'_>,
    process: i64,
    from: i64,
    next: i64,
) -> Result<(Option<Records>, bool), Failure> {
    let select = "SELECT changes FROM stride.changes
        WHERE process = $1 AND place >= $2 AND place < $3 ORDER BY place";
    let rows = transaction.query(select, &[&process, &from, &next])?;
    if rows.len() as u64 != next.abs_diff(from) {
        return Ok((None, true));
    }
    let (mut text, mut has_begun_anew) = (Vec::new(), false);
    for row in rows {
        let changes: &str = row.get(0);
        has_begun_anew |= changes.is_empty();
        text.extend_from_slice(changes.as_bytes());
    }
    // JSON holds no line break.
    let ends = memchr::memmem::find_iter(&text, DELIMITER).map(|at| at + DELIMITER.len());
    let ends = ends.collect();
    Ok((Some(Records { text: text.into(), ends }), has_begun_anew))
}

/// All rows of a process, each as new, with the change to come after them.
pub(super) fn snapshot(
    transaction: &mut Transaction<'_>,
    name: &str,
    most: usize,
) -> Result<(i64, i64, Records), Failure> {
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let select = "SELECT number, next, rows, columns FROM stride.processes WHERE name = $1";
    let row = transaction.query_opt(select, &[&name])?.ok_or_else(|| no_process(name))?;
    let (rows, columns): (&str, Vec<String>) = (row.get(2), row.get(3));
    let select = format!(
        "SELECT '{{\"old\":null,\"new\":' || row || '}}' FROM ({}) AS shown",
        difference::shown(rows, &columns)
    );
    let mut events = Events::default();
    let mut rows = transaction.query_raw::<_, &i32, [&i32; 0]>(&select, [])?;
    while let Some(row) = rows.next()? {
        events.push(row.get(0));
        if events.text.len() > most {
            let why = format!("the rows of {name:?} take more than {most} bytes");
            return Err(EngineError::Invalid(why).into());
        }
    }
    drop(rows);
    Ok((row.get(0), row.get(1), events.into_records()))
}
