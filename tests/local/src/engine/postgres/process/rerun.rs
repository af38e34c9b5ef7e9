//! Processes that are run again, each by one server at a time.

use postgres::Transaction;

use super::{COLUMNS, Draft, Process, expiry, replace, types};
use crate::engine::EngineError;
use crate::engine::postgres::error::{Failure, query_error};
use crate::engine::postgres::schema::LOCKS;

/// The numbers of the processes that are run again.
pub(crate) fn recomputed(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select = "SELECT number FROM stride.processes WHERE stream IS NULL ORDER BY number";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Runs a process again if what it reads has changed, and returns whether its rows did. The server that does it holds
/// a lock, which ends with its transaction or with itself.
pub(crate) fn run_again(transaction: &mut Transaction<'_>, number: i64) -> Result<bool, Failure> {
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
    let key = i32::try_from(number).unwrap_or(i32::MAX);
    let lock = "SELECT pg_try_advisory_xact_lock($1, $2)";
    if !transaction.query_one(lock, &[&LOCKS, &key])?.get::<_, bool>(0) {
        return Ok(false);
    }
    let select =
        format!("SELECT {COLUMNS} FROM stride.processes WHERE number = $1 AND stream IS NULL");
    let Some(row) = transaction.query_opt(&select, &[&number])? else { return Ok(false) };
    let process = Process::of(&row);
    let seen = seen(transaction, &process.reads)?;
    let parsed = crate::sql::postgresql::parse(&process.query, &[])?;
    if process.seen.as_ref() == Some(&seen) && !parsed.changes_with_time() {
        return Ok(false);
    }
    let mut attempt = transaction.transaction()?;
    let end = match run(&mut attempt, &process) {
        Ok(changed) => {
            attempt.commit()?;
            (changed, None)
        }
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            (false, Some(why))
        }
        Err(failure) => return Err(failure),
    };
    let update = "UPDATE stride.processes SET seen = $2, error = $3 WHERE number = $1";
    transaction.execute(update, &[&number, &seen, &end.1])?;
    Ok(end.0)
}

/// How far what a process reads had come.
fn seen(transaction: &mut Transaction<'_>, reads: &[String]) -> Result<String, Failure> {
    let select = "SELECT coalesce(string_agg(which, ' ' ORDER BY which), '') FROM (
        SELECT 's' || number || ':' || first || ':' || next AS which FROM stride.streams WHERE name = ANY($1)
        UNION ALL
        SELECT 'p' || number || ':' || next FROM stride.processes WHERE name = ANY($1)) AS read";
    Ok(transaction.query_one(select, &[&reads])?.get(0))
}

fn run(transaction: &mut Transaction<'_>, process: &Process) -> Result<bool, Failure> {
    let draft = Draft::new(transaction, &process.name, &process.query)?;
    let of = types(transaction, &draft.sql)?;
    if of != process.types {
        return replace(transaction, process, &draft, true);
    }
    let (table, number) = (process.table(), process.number);
    let new = format!("pg_temp.new_{number}");
    transaction
        .batch_execute(&format!("CREATE TEMP TABLE new_{number} ON COMMIT DROP AS {}", draft.sql))
        .map_err(query_error)?;
    expiry::leave_out(transaction, number, &process.columns, &new)?;
    let changed = draft.note_changes(transaction, process, &table, &new)?;
    if changed {
        transaction.batch_execute(&format!(
            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {new};
             UPDATE stride.processes SET next = next + 1 WHERE number = {number}"
        ))?;
    }
    Ok(changed)
}
