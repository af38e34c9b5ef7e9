//! Processes that are run again, each by one server at a time.

use postgres::Transaction;

use super::draft::{Draft, types};
use super::{COLUMNS, Process, difference, expiry, replace, stop};
use crate::engine::EngineError;
use crate::engine::postgres::error::Failure;
use crate::engine::postgres::schema::LOCKS;
use crate::settings::Limits;

/// What came of looking whether a process is to be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rerun {
    /// It was not.
    Not,
    Ran {
        changed: bool,
    },
}

/// The numbers of the processes that are run again.
pub(crate) fn recomputed(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select = "SELECT number FROM stride.processes WHERE stream IS NULL ORDER BY number";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Runs a process again if what it reads has changed. The server that does it holds a lock, which ends with its
/// transaction or with itself.
pub(crate) fn run_again(
    transaction: &mut Transaction<'_>,
    number: i64,
    limits: &Limits,
) -> Result<Rerun, Failure> {
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
    let key = i32::try_from(number).unwrap_or(i32::MAX);
    let lock = "SELECT pg_try_advisory_xact_lock($1, $2)";
    if !transaction.query_one(lock, &[&LOCKS, &key])?.get::<_, bool>(0) {
        return Ok(Rerun::Not);
    }
    let select =
        format!("SELECT {COLUMNS} FROM stride.processes WHERE number = $1 AND stream IS NULL");
    let Some(row) = transaction.query_opt(&select, &[&number])? else { return Ok(Rerun::Not) };
    let process = Process::of(&row);
    let seen = seen(transaction, &process.reads)?;
    let parsed = crate::sql::postgresql::parse(&process.query, &[])?;
    if process.seen.as_ref() == Some(&seen) && !parsed.changes_with_time() {
        return Ok(Rerun::Not);
    }
    let mut attempt = transaction.transaction()?;
    let changed = match run(&mut attempt, &process, limits) {
        Ok(changed) => {
            attempt.commit()?;
            let update = "UPDATE stride.processes SET seen = $2, error = NULL, stale_since = NULL
                WHERE number = $1";
            transaction.execute(update, &[&number, &seen])?;
            changed
        }
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            stop(transaction, number, &why)?;
            let update = "UPDATE stride.processes SET seen = $2 WHERE number = $1";
            transaction.execute(update, &[&number, &seen])?;
            false
        }
        Err(failure) => return Err(failure),
    };
    Ok(Rerun::Ran { changed })
}

/// How far what a process reads had come.
fn seen(transaction: &mut Transaction<'_>, reads: &[String]) -> Result<String, Failure> {
    let select = "SELECT coalesce(string_agg(which, ' ' ORDER BY which), '') FROM (
        SELECT 's' || number || ':' || first || ':' || next AS which FROM stride.streams WHERE name = ANY($1)
        UNION ALL
        SELECT 'p' || number || ':' || next FROM stride.processes WHERE name = ANY($1)) AS read";
    Ok(transaction.query_one(select, &[&reads])?.get(0))
}

fn run(
    transaction: &mut Transaction<'_>,
    process: &Process,
    limits: &Limits,
) -> Result<bool, Failure> {
    let draft = Draft::new(transaction, &process.name, &process.query)?;
    let of = types(transaction, &draft.sql)?;
    if of != process.types || draft.columns != process.columns {
        return replace(transaction, process, &draft, limits);
    }
    let (table, number, by) = (process.table(), process.number, draft.same_row_by());
    let (old, new) = (format!("old_{number}"), format!("new_{number}"));
    draft.compute(transaction, &format!("TEMP TABLE {new} ON COMMIT DROP"), limits)?;
    expiry::leave_out(transaction, number, &process.columns, &new)?;
    difference::keep(transaction, &old, &process.rows, &process.columns, by.as_deref())?;
    let (rows, of) = (draft.rows(&format!("pg_temp.{new}")), (number, process.next));
    let by = by.as_deref();
    let changed = difference::note(transaction, &old, &rows, &draft.columns, by, of)?;
    if changed {
        transaction.batch_execute(&format!(
            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM pg_temp.{new};
             UPDATE stride.processes SET next = next + 1 WHERE number = {number}"
        ))?;
    }
    Ok(changed)
}
