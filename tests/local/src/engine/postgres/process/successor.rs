//! What takes the place of a process once it has been given all stored events: another query, or the same one, whose
//! columns have to be of other types.

use postgres::Transaction;

use super::draft::{self, Draft};
use super::{
    COLUMNS, Process, difference, discard_tables, insert, look, no_process, remove, stop, table,
};
use crate::engine::EngineError;
use crate::engine::postgres::error::Failure;
use crate::engine::postgres::schema::lock_names;
use crate::engine::postgres::storage::Stream;
use crate::settings::Limits;
use crate::sql::groups::same_row_by;
use crate::sql::plan::Plan;
use crate::sql::postgresql;

/// What the name of a successor begins with. No process that somebody makes has such a name.
const MARK: char = '\u{1}';

/// Why a process shows old rows until its successor is there.
const ANEW: &str = "a key has values of another type: it is being made anew";

/// Why the successor has less than the process had.
pub(super) const LACKS: &str = "it was made anew, because a key has values of another type: it lacks the events that its \
    stream no longer holds";

/// The name of the process that a name belongs to.
pub(super) fn visible(name: &str) -> &str {
    name.strip_prefix(MARK).unwrap_or(name)
}

/// Removes the successor of the process of this name, if it has one. It may be given a slice of events just now, and is
/// waited for before anything is locked that those who store events wait for.
pub(super) fn remove_of(transaction: &mut Transaction<'_>, name: &str) -> Result<(), Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE name = $1 FOR UPDATE");
    match transaction.query_opt(&select, &[&format!("{MARK}{name}")])? {
        Some(row) => remove(transaction, &Process::of(&row)),
        None => Ok(()),
    }
}

/// Whether a process has a successor.
pub(super) fn is_there(transaction: &mut Transaction<'_>, number: i64) -> Result<bool, Failure> {
    let select = "SELECT 1 FROM stride.processes WHERE successor_of = $1";
    Ok(transaction.query_opt(select, &[&number])?.is_some())
}

/// Makes the successor of a process that is to have another query, and returns its number. The same query changes nothing.
pub(crate) fn change(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
    limits: &Limits,
) -> Result<Option<i64>, Failure> {
    lock_names(transaction)?;
    let now = "SELECT number, query,
            (SELECT query FROM stride.processes WHERE successor_of = process.number)
        FROM stride.processes AS process WHERE name = $1";
    let now = transaction.query_opt(now, &[&name])?.ok_or_else(|| no_process(name))?;
    let (number, now, then): (i64, &str, Option<&str>) = (now.get(0), now.get(1), now.get(2));
    if now == query {
        return Ok(None);
    }
    if then.is_some_and(|then| then != now) {
        let why = format!("{name:?} is being changed already");
        return Err(EngineError::Conflict(why).into());
    }
    remove_of(transaction, name)?;
    let draft = Draft::new(transaction, name, query)?;
    let successor =
        insert(transaction, &draft, &format!("{MARK}{name}"), query, Some(number), limits)?;
    let ttl = "UPDATE stride.processes AS new
        SET ttl_duration = old.ttl_duration, ttl_column = old.ttl_column
        FROM stride.processes AS old WHERE new.number = $1 AND old.number = $2";
    transaction.execute(ttl, &[&successor, &number])?;
    if then.is_some() {
        // Should nothing come of the other query.
        let update = "UPDATE stride.processes SET outdated = true WHERE number = $1";
        transaction.execute(update, &[&number])?;
    }
    Ok(Some(successor))
}

/// Notes that a process, whose row is locked, is to be made anew over many events. It shows its old rows until then.
pub(super) fn outdate(
    transaction: &mut Transaction<'_>,
    number: i64,
    stream: &Stream,
) -> Result<(), Failure> {
    stop(transaction, number, ANEW)?;
    // A successor with this query finds out by itself.
    let update =
        "UPDATE stride.processes AS old SET seen = $2, stopped = NULL, outdated = NOT EXISTS (
            SELECT FROM stride.processes AS new WHERE successor_of = $1 AND new.query = old.query)
        WHERE number = $1";
    transaction.execute(update, &[&number, &stream.seen()])?;
    Ok(())
}

/// The processes that are to be made anew. What becomes of another query comes first.
pub(crate) fn outdated(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select = "SELECT number FROM stride.processes WHERE outdated
            AND number NOT IN (SELECT successor_of FROM stride.processes WHERE successor_of IS NOT NULL)
        ORDER BY number";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Begins to make a process anew that is to be.
pub(crate) fn begin_anew(
    transaction: &mut Transaction<'_>,
    number: i64,
    limits: &Limits,
) -> Result<(), Failure> {
    // Nobody else gives it a successor, or deletes it.
    lock_names(transaction)?;
    let Some(process) = look(transaction, number, "AND outdated")? else { return Ok(()) };
    if is_there(transaction, number)? {
        return Ok(());
    }
    let mut attempt = transaction.transaction()?;
    let begun = begin(&mut attempt, &process, limits);
    match begun {
        Ok(()) => attempt.commit()?,
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            tracing::warn!(process = process.name, why, "a process shows an old result");
            let update = "UPDATE stride.processes SET outdated = false, error = $2
                WHERE number = $1 AND outdated";
            transaction.execute(update, &[&number, &why])?;
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

fn begin(
    transaction: &mut Transaction<'_>,
    process: &Process,
    limits: &Limits,
) -> Result<(), Failure> {
    let number = process.number;
    let draft = Draft::new(transaction, &process.name, &process.query)?;
    let update = "UPDATE stride.processes SET outdated = false WHERE number = $1";
    transaction.execute(update, &[&number])?;
    let successor = format!("{MARK}{}", process.name);
    let successor = insert(transaction, &draft, &successor, &process.query, Some(number), limits)?;
    lacks(transaction, successor, draft.stored.as_ref())
}

/// Notes what the new rows of a process lack, of those that its old ones may have had.
pub(super) fn lacks(
    transaction: &mut Transaction<'_>,
    number: i64,
    stream: Option<&Stream>,
) -> Result<(), Failure> {
    let gone = stream.map_or(0, |stream| stream.first - 1);
    if gone > 0 {
        tracing::warn!(process = number, events = gone, "{LACKS}");
        let update = "UPDATE stride.processes SET skipped = $2, error = $3 WHERE number = $1";
        transaction.execute(update, &[&number, &gone, &LACKS])?;
    }
    Ok(())
}

/// Puts a successor in the place of its process, and notes what is different. The rows of both are locked.
pub(super) fn take_over(
    transaction: &mut Transaction<'_>,
    old: &Process,
    new: &Process,
) -> Result<(), Failure> {
    let number = old.number;
    let is_same = old.query == new.query;
    let by = match is_same && old.columns == new.columns {
        true => same_row_by(&postgresql::parse(&new.query, &[])?),
        false => None,
    };
    let by = by.as_deref();
    let kept = format!("old_{number}");
    let are_many = difference::are_many(transaction, &old.rows)?
        || difference::are_many(transaction, &new.rows)?;
    if !are_many {
        difference::keep(transaction, &kept, &old.rows, &old.columns, by)?;
    }
    discard_tables(transaction, old)?;
    let plan = new.stream.as_ref().map(|_| new.plan()).transpose()?;
    let (from, to) = (new.table(), table(number, old.made + 1));
    let name = to.strip_prefix("stride.").unwrap_or(&to);
    let mut rename = format!("ALTER TABLE {from} RENAME TO {name};");
    for (place, _) in plan.iter().flat_map(Plan::distinct_states).enumerate() {
        rename.push_str(&format!("ALTER TABLE {from}_d{place} RENAME TO {name}_d{place};"));
    }
    transaction.batch_execute(&rename)?;
    let rows = draft::rows(plan.as_ref(), &new.columns, &to);
    let mut next = old.next;
    if !are_many {
        let of = (number, next);
        next += i64::from(difference::note(transaction, &kept, &rows, &new.columns, by, of)?);
    }
    if !is_same && !are_many {
        // Subscriptions that began with a snapshot begin again with the new rows, and the new columns.
        let insert = "INSERT INTO stride.changes VALUES ($1, $2, now(), '')";
        transaction.execute(insert, &[&number, &next])?;
    }
    // A change that is not among those that are noted tells subscribers that they lack something.
    next += i64::from(!is_same || are_many);
    let update = "UPDATE stride.processes AS old
        SET query = new.query, stream = new.stream, reads = new.reads, rows = $3, columns = new.columns,
            types = new.types, why = new.why, made = old.made + 1, next = $4, seen = new.seen, kept = new.kept,
            stopped = NULL, skipped = new.skipped, error = new.error, stale_since = NULL, filled = NULL,
            outdated = false,
            ttl_duration = CASE WHEN $5 THEN old.ttl_duration ELSE new.ttl_duration END,
            ttl_column = CASE WHEN $5 THEN old.ttl_column ELSE new.ttl_column END
        FROM stride.processes AS new WHERE old.number = $1 AND new.number = $2";
    transaction.execute(update, &[&number, &new.number, &rows, &next, &is_same])?;
    transaction.execute("DELETE FROM stride.processes WHERE number = $1", &[&new.number])?;
    Ok(())
}
