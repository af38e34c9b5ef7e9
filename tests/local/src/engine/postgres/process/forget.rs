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
    let select = format!(
        "SELECT {COLUMNS} FROM stride.processes WHERE stream = $1 ORDER BY name FOR UPDATE"
    );
    let mut changed = Vec::new();
    for row in transaction.query(&select, &[&stream])? {
        let process = Process::of(&row);
        let plan = process.plan()?;
        if !plan.is_of_events() {
            continue;
        }
        let delete = format!(
            "WITH gone AS (DELETE FROM {} WHERE place < $3 RETURNING *) \
             INSERT INTO stride.changes SELECT $1, $2, now(), {} \
             FROM ({}) AS o LEFT JOIN (SELECT NULL::text AS row WHERE false) AS n ON false \
             HAVING count(*) > 0",
            process.table(),
            changes("id"),
            rows_in(&plan, &process.columns, "gone"),
        );
        if transaction.execute(&delete, &[&process.number, &process.next, &first])? > 0 {
            let update = "UPDATE stride.processes SET next = next + 1 WHERE number = $1";
            transaction.execute(update, &[&process.number])?;
            changed.push(process.number);
        }
    }
    Ok(changed)
}
