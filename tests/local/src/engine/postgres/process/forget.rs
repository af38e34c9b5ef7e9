//! Rows that go with their events.

use postgres::Transaction;

use super::adding::{changes, rows_in};
use super::{COLUMNS, Process};
use crate::engine::postgres::error::Failure;

/// Takes away the rows that are made of one event each, of those before the place `first` of a stream, whose row is
/// locked. Returns the processes that changed.
pub(crate) fn forget(
    transaction: &mut Transaction<'_>,
    stream: &str,
    first: i64,
) -> Result<Vec<i64>, Failure> {
    // Those that are being filled do so themselves.
    let select = format!(
        "SELECT {COLUMNS} FROM stride.processes
        WHERE stream = $1 AND filled IS NULL ORDER BY name FOR UPDATE"
    );
    let mut changed = Vec::new();
    for row in transaction.query(&select, &[&stream])? {
        let mut process = Process::of(&row);
        if forget_rows(transaction, &mut process, first)? {
            changed.push(process.number);
        }
    }
    Ok(changed)
}

/// Takes away the rows of a process that are made of one event each, of those before a place, and returns whether there
/// were any. The change is noted, unless the process is out of sight.
pub(super) fn forget_rows(
    transaction: &mut Transaction<'_>,
    process: &mut Process,
    first: i64,
) -> Result<bool, Failure> {
    let (plan, table, number) = (process.plan()?, process.table(), process.number);
    if !plan.is_of_events() {
        return Ok(false);
    }
    if process.successor_of.is_some() {
        let delete = format!("DELETE FROM {table} WHERE place < $1");
        return Ok(transaction.execute(&delete, &[&first])? > 0);
    }
    let delete = format!(
        "WITH gone AS (DELETE FROM {table} WHERE place < $3 RETURNING *) \
         INSERT INTO stride.changes SELECT $1, $2, now(), {} \
         FROM ({}) AS o LEFT JOIN (SELECT NULL::text AS row WHERE false) AS n ON false \
         HAVING count(*) > 0",
        changes("id"),
        rows_in(&plan, &process.columns, "gone"),
    );
    let changed = transaction.execute(&delete, &[&number, &process.next, &first])? > 0;
    if changed {
        let update = "UPDATE stride.processes SET next = next + 1 WHERE number = $1";
        transaction.execute(update, &[&number])?;
        process.next += 1;
    }
    Ok(changed)
}
