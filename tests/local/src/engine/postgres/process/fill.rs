//! Giving a process the events that were stored before it, in slices: its stream goes on taking others.
//!
//! The row of the process says how far it has come. Those who store events leave it alone until the last slice, which
//! holds the lock of the stream. A slice holds that of the row alone, so it is of one server at a time, and another goes on
//! where it ended if that server does.

use std::ops::Range;

use postgres::Transaction;

use super::added::{fits, widen};
use super::adding::{Adding, MOST_TRIED, statement};
use super::draft::Draft;
use super::forget::forget_rows;
use super::successor::{lacks, take_over};
use super::{COLUMNS, Process, look, put_in_place, reader_of, remove, stop};
use crate::engine::EngineError;
use crate::engine::postgres::error::Failure;
use crate::engine::postgres::schema::lock_names;
use crate::engine::postgres::storage::{self, Stream};
use crate::events::keys::Kinds;
use crate::settings::Limits;

/// How many events a slice has, and how many bytes of them, about. Tests make do with less.
const SLICE: i64 = if cfg!(test) { 500 } else { 5_000 };
const SLICE_BYTES: i64 = 16 * 1024 * 1024;

/// What came of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There are more events.
    Partly,
    /// There were no more: the next slice may be the last.
    Nearly,
    /// This process has all events from here on.
    Whole(i64),
    /// Another server is at it.
    Busy,
    /// There is no such process.
    Gone,
}

/// How many events of a stream to give at once.
pub(super) fn most(stream: &Stream) -> i64 {
    let mean = stream.bytes / (stream.next - stream.first).max(1);
    (SLICE_BYTES / mean.max(1)).clamp(SLICE / 50, SLICE)
}

/// The processes that lack stored events.
pub(crate) fn unfilled(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select = "SELECT number FROM stride.processes WHERE filled IS NOT NULL ORDER BY number";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Gives a process some more of what is stored, while others add to its stream.
pub(crate) fn slice(
    transaction: &mut Transaction<'_>,
    limits: &Limits,
    number: i64,
) -> Result<Filled, Failure> {
    // The events, and what is known of their keys, are of one moment.
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
    let Some(mut process) = look(transaction, number, "FOR UPDATE SKIP LOCKED")? else {
        return busy_or_gone(transaction, number);
    };
    let Some((filled, name)) = process.filled.zip(process.stream.as_deref()) else {
        return Ok(Filled::Whole(number));
    };
    let stream = storage::find(transaction, name)?;
    let Some(stream) = stream.filter(|stream| process.seen == Some(stream.seen())) else {
        return Ok(Filled::Nearly);
    };
    let from = filled.max(stream.first);
    let to = stream.next.min(from + most(&stream));
    forget_rows(transaction, &mut process, stream.first)?;
    let keys = storage::keys(transaction, stream.number)?;
    let noting = process.successor_of.is_none();
    give(transaction, &process, &stream, &keys, from..to, limits, noting)?;
    let update = "UPDATE stride.processes SET filled = $2 WHERE number = $1";
    transaction.execute(update, &[&number, &to])?;
    Ok(if to < stream.next { Filled::Partly } else { Filled::Nearly })
}

fn busy_or_gone(transaction: &mut Transaction<'_>, number: i64) -> Result<Filled, Failure> {
    let is_there = look(transaction, number, "")?.is_some();
    Ok(if is_there { Filled::Busy } else { Filled::Gone })
}

/// Gives a process what is left, unless that is much, and has new events added to it from here on. A successor takes the
/// place of its process.
pub(crate) fn finish(
    transaction: &mut Transaction<'_>,
    limits: &Limits,
    number: i64,
) -> Result<Filled, Failure> {
    let Some(process) = look(transaction, number, "")? else { return Ok(Filled::Gone) };
    // The stream comes first, as it does for those who store events.
    let mut stream = None;
    if let Some(name) = &process.stream {
        let is_there = storage::find(transaction, name)?.is_some();
        if !is_there {
            // Nobody makes it until the process is one that is added to.
            lock_names(transaction)?;
        }
        stream = storage::find_locked(transaction, name)?;
        if is_there && stream.is_none() {
            return Ok(Filled::Nearly);
        }
    }
    let old = match process.successor_of {
        Some(of) => match look(transaction, of, "FOR UPDATE")? {
            Some(old) => Some(old),
            None => return Ok(Filled::Gone),
        },
        None => None,
    };
    // Not waited for: those who store events wait meanwhile.
    let Some(mut process) = look(transaction, number, "FOR UPDATE SKIP LOCKED")? else {
        return busy_or_gone(transaction, number);
    };
    if process.filled.is_none() && old.is_none() {
        return Ok(Filled::Whole(number));
    }
    if let Some(stream) = &stream {
        let keys = storage::keys(transaction, stream.number)?;
        if process.seen != Some(stream.seen()) {
            let is_same = old.as_ref().is_some_and(|old| old.query == process.query);
            fit(transaction, &mut process, stream, &keys, is_same, limits)?;
        }
        forget_rows(transaction, &mut process, stream.first)?;
        let from = process.filled.map_or(stream.next, |filled| filled.max(stream.first));
        if stream.next - from > most(stream) {
            return Ok(Filled::Partly);
        }
        let (places, noting) = (from..stream.next, old.is_none());
        give(transaction, &process, stream, &keys, places, limits, noting)?;
    } else if process.stream.is_some() {
        forget_rows(transaction, &mut process, i64::MAX)?;
    }
    let seen = match (&stream, &process.stream) {
        (Some(stream), _) => Some(stream.seen()),
        (None, Some(_)) => Some(Stream::NOTHING_SEEN.to_owned()),
        (None, None) => None,
    };
    let update = format!(
        "UPDATE stride.processes SET filled = NULL, seen = $2 WHERE number = $1 RETURNING {COLUMNS}"
    );
    let process = Process::of(&transaction.query_one(&update, &[&number, &seen])?);
    match old {
        Some(old) => {
            take_over(transaction, &old, &process)?;
            Ok(Filled::Whole(old.number))
        }
        None => Ok(Filled::Whole(number)),
    }
}

/// Has a process follow what its stream has become since it was given the last events. The stream is locked.
fn fit(
    transaction: &mut Transaction<'_>,
    process: &mut Process,
    stream: &Stream,
    keys: &[(String, Kinds)],
    is_same: bool,
    limits: &Limits,
) -> Result<(), Failure> {
    let number = process.number;
    let before = process.seen.as_deref().and_then(|seen| seen.split_once(':'));
    if before.is_none_or(|(before, _)| before != stream.number.to_string()) {
        // It was deleted, and is another one.
        forget_rows(transaction, process, i64::MAX)?;
        process.filled = Some(stream.first);
    }
    let mut filled = process.filled;
    if !fits(transaction, process, keys)? && !widen(transaction, process)? {
        let draft = Draft::new(transaction, &process.name, &process.query)?;
        put_in_place(transaction, process, &draft, limits)?;
        let update = "UPDATE stride.processes SET skipped = 0 WHERE number = $1";
        transaction.execute(update, &[&number])?;
        if is_same {
            lacks(transaction, number, Some(stream))?;
        }
        if process.successor_of.is_none() {
            // Whoever has seen its rows begins again.
            let insert = "INSERT INTO stride.changes VALUES ($1, $2, now(), '')";
            transaction.execute(insert, &[&number, &process.next])?;
            let update = "UPDATE stride.processes SET next = next + 1 WHERE number = $1";
            transaction.execute(update, &[&number])?;
        }
        filled = Some(stream.first);
    }
    let update = format!(
        "UPDATE stride.processes SET filled = $2, seen = $3 WHERE number = $1 RETURNING {COLUMNS}"
    );
    let row = transaction.query_one(&update, &[&number, &filled, &stream.seen()])?;
    *process = Process::of(&row);
    Ok(())
}

/// Gives events to a process that has to take them all.
pub(super) fn give(
    transaction: &mut Transaction<'_>,
    process: &Process,
    stream: &Stream,
    keys: &[(String, Kinds)],
    places: Range<i64>,
    limits: &Limits,
    noting: bool,
) -> Result<(), Failure> {
    if places.is_empty() {
        return Ok(());
    }
    let (number, next) = (process.number, process.next);
    let (plan, table) = (process.plan()?, process.table());
    let sql = statement(&plan, &table, &process.columns, stream.number, keys, noting)?;
    let noting = noting.then_some((number, next));
    let mut adding = Adding::new(&sql, noting, process.kept, limits);
    adding.add(transaction, places)?;
    let Adding { kept, changes, skipped, error, full, .. } = adding;
    let full = full.map(|(_, why)| why);
    if let Some(why) = full.or_else(|| error.clone().filter(|_| skipped >= MOST_TRIED)) {
        return Err(EngineError::Invalid(why).into());
    }
    let update = "UPDATE stride.processes
        SET next = next + $2, kept = $3, skipped = skipped + $4, error = coalesce($5, error) WHERE number = $1";
    transaction.execute(update, &[&number, &changes, &kept, &skipped, &error])?;
    Ok(())
}

/// A process cannot be filled: one that has never been whole goes, and a successor leaves its process as it was. Returns
/// which process is concerned.
pub(crate) fn give_up(
    transaction: &mut Transaction<'_>,
    number: i64,
    why: &str,
) -> Result<Option<i64>, Failure> {
    lock_names(transaction)?;
    let Some(process) = look(transaction, number, "AND filled IS NOT NULL FOR UPDATE")? else {
        return Ok(None);
    };
    let old = match process.successor_of {
        Some(of) => look(transaction, of, "FOR UPDATE")?,
        None => None,
    };
    tracing::warn!(process = process.name, why, "a process cannot be given what is stored");
    if let Some(old) = old {
        remove(transaction, &process)?;
        if old.query == process.query {
            stop(transaction, old.number, why)?;
        }
        return Ok(Some(old.number));
    }
    if reader_of(transaction, &process.name)?.is_none() {
        remove(transaction, &process)?;
        return Ok(Some(number));
    }
    stop(transaction, number, why)?;
    let update = "UPDATE stride.processes SET filled = NULL WHERE number = $1";
    transaction.execute(update, &[&number])?;
    Ok(Some(number))
}
