//! Rows that last only for a time.

use postgres::Transaction;

use super::{CHANGES, no_process, objects, table};
use crate::engine::postgres::error::Failure;
use crate::engine::{EngineError, Ttl};
use crate::sql::postgresql::folded;
use crate::sql::print;

/// How many rows go at once: new events of the process wait meanwhile.
pub(crate) const MOST_EXPIRED: u64 = 10_000;

/// Whether a time was so long ago, by the clock of the database.
fn is_old(time: &str, micros: i64) -> String {
    format!("stride.time({time}) < now() - {micros} * interval '1 microsecond'")
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
    let select = "SELECT number FROM stride.processes WHERE ttl_duration IS NOT NULL";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Takes away rows of a process that have become too old, and returns how many.
pub(crate) fn expire(transaction: &mut Transaction<'_>, number: i64) -> Result<u64, Failure> {
    let Some(Ttl { duration, column }) = ttl(transaction, number)? else { return Ok(0) };
    let micros = crate::sql::times::duration(&duration)?;
    let select = "SELECT rows, columns, next, name FROM stride.processes WHERE number = $1";
    let is_old = is_old(&format!("t.{}", print::name(&folded(&column))), micros);
    let Some(row) = transaction.query_opt(select, &[&number])? else { return Ok(0) };
    // Looked for first: those who add to the process need not wait for that.
    let any =
        format!("SELECT EXISTS (SELECT FROM ({}) AS t WHERE {is_old})", row.get::<_, &str>(0));
    if !transaction.query_one(&any, &[])?.get::<_, bool>(0) {
        return Ok(0);
    }
    let lock = format!("{select} FOR UPDATE");
    let row = transaction.query_opt(&lock, &[&number])?;
    let row = row.ok_or_else(|| no_process(&number.to_string()))?;
    let (rows, columns, next): (&str, Vec<String>, i64) = (row.get(0), row.get(1), row.get(2));
    let outputs = columns.into_iter().map(|name| (print::name(&folded(&name)), name));
    let objects = objects(&outputs.collect::<Vec<_>>());
    // Where a row is kept tells it from others that are the same.
    let rows = rows
        .strip_prefix("SELECT ")
        .map(|rows| format!("SELECT ctid AS \"\u{1}row\", {rows}"))
        .ok_or_else(|| EngineError::Broken("the rows of a process cannot be told".to_owned()))?;
    let delete = format!(
        "WITH old AS MATERIALIZED (
            SELECT t.\"\u{1}row\" AS at, row_to_json(r)::text AS row
            FROM ({rows}) AS t CROSS JOIN LATERAL (SELECT {objects}) AS r WHERE {is_old} LIMIT {MOST_EXPIRED}),
        gone AS (DELETE FROM {table} WHERE ctid IN (SELECT at FROM old) RETURNING 1),
        noted AS (INSERT INTO stride.changes SELECT $1, $2, now(), {CHANGES}
            FROM old AS o CROSS JOIN (SELECT NULL::text AS row) AS n HAVING count(*) > 0)
        SELECT count(*) FROM gone",
        table = table(number),
    );
    let gone: i64 = transaction.query_one(&delete, &[&number, &next])?.get(0);
    if gone > 0 {
        let update = "UPDATE stride.processes SET next = next + 1 WHERE number = $1";
        transaction.execute(update, &[&number])?;
    }
    Ok(gone.unsigned_abs())
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
