//! Rows that last only for a time.

use postgres::Transaction;

use super::adding::changes;
use super::{COLUMNS, Process, ROW};
use crate::engine::postgres::error::Failure;
use crate::engine::{EngineError, Ttl};
use crate::sql::postgresql::plan::sent;

/// How many rows go at once: new events of the process wait meanwhile.
pub(crate) const MOST_EXPIRED: u64 = 10_000;

/// Whether a time was so long ago, by the clock of the database.
fn is_old(time: &str, micros: i64) -> String {
    format!("stride.expiry({time}) < now() - {micros} * interval '1 microsecond'")
}

/// The `ttl` of a process.
pub(crate) fn ttl(transaction: &mut Transaction<'_>, number: i64) -> Result<Option<Ttl>, Failure> {
    let select = "SELECT ttl_duration, ttl_column FROM stride.processes WHERE number = $1";
    let Some(row) = transaction.query_opt(select, &[&number])? else { return Ok(None) };
    let (duration, column): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    Ok(duration.zip(column).map(|(duration, column)| Ttl { duration, column }))
}

/// Gives a process another `ttl`, or checks that the one it has is still about one of its columns.
pub(crate) fn set_ttl(
    transaction: &mut Transaction<'_>,
    number: i64,
    new: Option<&Ttl>,
) -> Result<(), Failure> {
    let ttl = match new {
        Some(ttl) => Some(ttl.clone()),
        None => ttl(transaction, number)?,
    };
    let Some(Ttl { duration, column }) = &ttl else { return Ok(()) };
    let select = "SELECT columns FROM stride.processes WHERE number = $1";
    let columns: Vec<String> = transaction.query_one(select, &[&number])?.get(0);
    ttl.as_ref().map(|ttl| ttl.of(columns.iter().map(String::as_str))).transpose()?;
    let update = "UPDATE stride.processes SET ttl_duration = $2, ttl_column = $3 WHERE number = $1";
    transaction.execute(update, &[&number, duration, column])?;
    Ok(())
}

/// The numbers of the processes that have a `ttl`.
pub(crate) fn with_ttl(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select =
        "SELECT number FROM stride.processes WHERE ttl_duration IS NOT NULL AND filled IS NULL";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Takes away rows of a process that have become too old, and returns how many.
pub(crate) fn expire(transaction: &mut Transaction<'_>, number: i64) -> Result<u64, Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE number = $1");
    let Some(row) = transaction.query_opt(&select, &[&number])? else { return Ok(0) };
    let process = Process::of(&row);
    let Some(ttl) = ttl(transaction, number)? else { return Ok(0) };
    let of = |process: &Process| ttl.of(process.columns.iter().map(String::as_str));
    let old_rows = |process: &Process| {
        let (column, micros) = of(process)?;
        old_rows(process, &is_old(&format!("t.c{column}"), micros))
    };
    // Looked for first: those who add to the process need not wait for that.
    let any = format!("SELECT EXISTS ({})", old_rows(&process)?);
    if !transaction.query_one(&any, &[])?.get::<_, bool>(0) {
        return Ok(0);
    }
    let lock = format!("{select} FOR UPDATE");
    let Some(row) = transaction.query_opt(&lock, &[&number])? else { return Ok(0) };
    let process = Process::of(&row);
    let (table, plan) = (process.table(), process.stream.as_ref().map(|_| process.plan()));
    let plan = plan.transpose()?;
    // What a group's distinct values were goes with it.
    let (mut values, mut forgotten) = (String::new(), "0::bigint".to_owned());
    for place in 0..plan.as_ref().map_or(0, |plan| plan.distinct_states().count()) {
        values.push_str(&format!(
            "forgotten{place} AS (DELETE FROM {table}_d{place} WHERE hash IN (SELECT hash FROM gone) RETURNING 1), "
        ));
        forgotten.push_str(&format!(" + (SELECT count(*) FROM forgotten{place})"));
    }
    let delete = format!(
        "WITH old AS MATERIALIZED ({} LIMIT {MOST_EXPIRED}), \
         gone AS (DELETE FROM {table} WHERE ctid IN (SELECT at FROM old) RETURNING *), {values}\
         noted AS (INSERT INTO stride.changes SELECT $1, $2, now(), {} \
            FROM old AS o CROSS JOIN (SELECT NULL::text AS row) AS n HAVING count(*) > 0) \
         SELECT (SELECT count(*) FROM gone), {forgotten}",
        old_rows(&process)?,
        changes("at"),
    );
    let row = transaction.query_one(&delete, &[&number, &process.next])?;
    let (gone, forgotten): (i64, i64) = (row.get(0), row.get(1));
    if gone > 0 {
        let update =
            "UPDATE stride.processes SET next = next + 1, kept = kept - $2 WHERE number = $1";
        transaction.execute(update, &[&number, &forgotten])?;
    }
    Ok(gone.unsigned_abs())
}

/// A query for the rows of a process that `is_old` holds for, as they are sent, and for where each is kept: that tells it
/// from others that are the same.
fn old_rows(process: &Process, is_old: &str) -> Result<String, EngineError> {
    let rows = process
        .rows
        .strip_prefix("SELECT ")
        .map(|rows| format!("SELECT ctid, {rows}"))
        .ok_or_else(|| EngineError::Broken("the rows of a process cannot be told".to_owned()))?;
    let places: Vec<String> = (0..process.columns.len()).map(|place| format!("c{place}")).collect();
    let outputs: Vec<(String, String)> =
        places.iter().cloned().zip(process.columns.iter().cloned()).collect();
    Ok(format!(
        "SELECT t.at, row_to_json({ROW})::text AS row FROM ({rows}) AS t (at, {}) \
         CROSS JOIN LATERAL (SELECT {}) AS {ROW} WHERE {is_old}",
        places.join(", "),
        sent(&outputs),
    ))
}

/// Leaves out of the result of a run what would go at once.
pub(super) fn leave_out(
    transaction: &mut Transaction<'_>,
    number: i64,
    columns: &[String],
    rows: &str,
) -> Result<(), Failure> {
    let Some(ttl) = ttl(transaction, number)? else { return Ok(()) };
    let Ok((column, micros)) = ttl.of(columns.iter().map(String::as_str)) else { return Ok(()) };
    let is_old = is_old(&format!("c{column}"), micros);
    transaction.batch_execute(&format!("DELETE FROM {rows} WHERE {is_old}"))?;
    Ok(())
}
