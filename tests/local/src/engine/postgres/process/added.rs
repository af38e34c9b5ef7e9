//! New events, added to the processes of their stream.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use postgres::Transaction;

use super::adding::{Adding, events, statement};
use super::draft::{Draft, types};
use super::{COLUMNS, Process, fill, replace, stop, successor, table};
use crate::engine::EngineError;
use crate::engine::postgres::connections::Prepared;
use crate::engine::postgres::error::Failure;
use crate::engine::postgres::storage::{self, Stream};
use crate::events::keys::Kinds;
use crate::settings::Limits;
use crate::sql::plan::{Dialect, Plan};
use crate::sql::postgresql;

/// Of how many processes the statements are kept in memory.
const MOST_KNOWN: usize = 1000;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The processes whose rows changed.
    pub(crate) changed: Vec<i64>,
    /// How many events processes lack, because their queries failed at them.
    pub(crate) skipped: u64,
}

/// The statements that add to processes, by their numbers: they depend on what stands beside them.
#[derive(Debug, Default)]
pub(crate) struct Statements(Mutex<HashMap<i64, Statement>>);

/// The statement that adds to tables which were made for the time `made`, of a stream as it was `seen`.
#[derive(Debug)]
struct Statement {
    made: i64,
    seen: Option<String>,
    sql: Arc<str>,
}

impl Statements {
    fn of(
        &self,
        process: &Process,
        stream: &Stream,
        keys: &[(String, Kinds)],
    ) -> Result<Arc<str>, EngineError> {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all().get(&process.number)
            && (known.made, &known.seen) == (process.made, &process.seen)
        {
            return Ok(Arc::clone(&known.sql));
        }
        let table = process.table();
        let plan = process.plan()?;
        let sql = statement(&plan, &table, &process.columns, stream.number, keys, true)?;
        let sql: Arc<str> = sql.into();
        let mut all = all();
        if all.len() >= MOST_KNOWN {
            all.clear();
        }
        let (made, seen) = (process.made, process.seen.clone());
        all.insert(process.number, Statement { made, seen, sql: Arc::clone(&sql) });
        Ok(sql)
    }
}

/// Events that were stored just now.
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    /// Their stream, whose row is locked.
    pub(crate) name: &'a str,
    pub(crate) stream: &'a Stream,
    pub(crate) keys: &'a [(String, Kinds)],
    pub(crate) places: Range<i64>,
}

/// Adds events to the processes of their stream.
pub(crate) fn added(
    transaction: &mut Transaction<'_>,
    prepared: &mut Prepared,
    statements: &Statements,
    limits: &Limits,
    stored: &Stored<'_>,
) -> Result<News, Failure> {
    let Stored { name, stream, keys, places } = stored;
    let select = format!(
        "SELECT {COLUMNS} FROM stride.processes
        WHERE stream = $1 AND filled IS NULL ORDER BY name FOR UPDATE"
    );
    let mut news = News::default();
    let select = prepared.of(transaction, &select)?;
    for row in transaction.query(&select, &[&name])? {
        let mut process = Process::of(&row);
        if process.stopped.is_some() {
            continue;
        }
        let seen = Some(stream.seen());
        if process.seen != seen {
            if !fits(transaction, &process, keys)? && !widen(transaction, &mut process)? {
                // Over all events, these included.
                if rebuild(transaction, &process, Some(*stream), limits)? {
                    news.changed.push(process.number);
                }
                continue;
            }
            process.seen = seen;
        }
        if process.stale_since.is_some() {
            continue;
        }
        let sql = statements.of(&process, stream, keys)?;
        let (changes, skipped) = add(transaction, prepared, &process, &sql, places, limits)?;
        if changes > 0 {
            news.changed.push(process.number);
        }
        news.skipped += skipped;
    }
    Ok(news)
}

/// Adds events to a process, and returns how many changes that makes, and how many events it fails at.
fn add(
    transaction: &mut Transaction<'_>,
    prepared: &mut Prepared,
    process: &Process,
    sql: &str,
    places: &Range<i64>,
    limits: &Limits,
) -> Result<(i64, u64), Failure> {
    let number = process.number;
    let mut adding = Adding::new(sql, Some((number, process.next)), process.kept, limits);
    adding.prepared = Some(&mut *prepared);
    adding.add(transaction, places.clone())?;
    let Adding { kept, changes, skipped, error, full, .. } = adding;
    let update = "UPDATE stride.processes SET next = next + $2, kept = $3, seen = $4,
        skipped = skipped + $5, error = coalesce($6, error) WHERE number = $1";
    let update = prepared.of(transaction, update)?;
    transaction.execute(&update, &[&number, &changes, &kept, &process.seen, &skipped, &error])?;
    if let Some((place, why)) = full {
        tracing::warn!(process = process.name, why, "a process has stopped: it may keep no more");
        stop(transaction, number, &why)?;
        let update = "UPDATE stride.processes SET stopped = $2 WHERE number = $1";
        transaction.execute(update, &[&number, &place])?;
    }
    if skipped > 0 {
        let (process, events) = (&process.name, skipped);
        tracing::warn!(process, events, "a process lacks events that its query fails at");
    }
    Ok((changes, skipped.unsigned_abs()))
}

/// Whether the columns of a process's table still have the types of what is added.
pub(super) fn fits(
    transaction: &mut Transaction<'_>,
    process: &Process,
    keys: &[(String, Kinds)],
) -> Result<bool, Failure> {
    if process.stale_since.is_some() {
        return Ok(false);
    }
    let plan = process.plan()?;
    let events = events(&plan, keys, "false".to_owned());
    let (rows, values) = (plan.rows_of(&events)?, plan.values_of(&events)?);
    let mut attempt = transaction.transaction()?;
    let mut fits = types(&mut attempt, &rows).is_ok_and(|types| types == process.types);
    for values in values {
        fits = fits && types(&mut attempt, &values).is_ok();
    }
    attempt.rollback()?;
    Ok(fits)
}

/// Gives the columns of a process's table the types that its keys have by now, with all that is in them. Not every
/// column can have another: returns whether they all have.
pub(super) fn widen(
    transaction: &mut Transaction<'_>,
    process: &mut Process,
) -> Result<bool, Failure> {
    if process.stale_since.is_some() {
        return Ok(false);
    }
    let mut attempt = transaction.transaction()?;
    match widen_to(&mut attempt, process) {
        Ok(Some(types)) => {
            attempt.commit()?;
            (process.types, process.made) = (types, process.made + 1);
            Ok(true)
        }
        Ok(None) | Err(Failure { error: EngineError::Invalid(_), .. }) => {
            attempt.rollback()?;
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

/// Returns the new types, unless a column cannot have its own.
fn widen_to(
    transaction: &mut Transaction<'_>,
    process: &Process,
) -> Result<Option<Vec<String>>, Failure> {
    let draft = Draft::new(transaction, &process.name, &process.query)?;
    let Ok(plan) = &draft.plan else { return Ok(None) };
    let (old, new) = (process.table(), table(process.number, process.made + 1));
    let types = types(transaction, &draft.sql)?;
    let mut columns = vec![plan.id().to_owned()];
    columns.extend(plan.kept_columns());
    if types.len() != columns.len() || types.len() != process.types.len() {
        return Ok(None);
    }
    let mut selected = Vec::with_capacity(columns.len());
    for ((column, was), is_now) in columns.iter().zip(&process.types).zip(&types) {
        selected.push(match (was, &**is_now) {
            (was, is_now) if was == is_now => column.clone(),
            // What was of one type is JSON of that type.
            (_, "jsonb") => format!("to_jsonb(stride.out({column})) AS {column}"),
            // No event had the key.
            (_, is_now) => {
                let any = format!("SELECT EXISTS (SELECT FROM {old} WHERE {column} IS NOT NULL)");
                if transaction.query_one(&any, &[])?.get::<_, bool>(0) {
                    return Ok(None);
                }
                format!("NULL::{is_now} AS {column}")
            }
        });
    }
    // A table of another name, as when it is made anew, so that nobody waits for those who read the old one. The distinct
    // values are hashes, which no type changes.
    let mut make = format!(
        "CREATE TABLE {new} AS SELECT {} FROM {old}; ALTER TABLE {new} ADD PRIMARY KEY ({});
         INSERT INTO stride.discarded VALUES ('{old}');",
        selected.join(", "),
        plan.id(),
    );
    for (place, _) in plan.distinct_states().enumerate() {
        let name = new.strip_prefix("stride.").unwrap_or(&new);
        make.push_str(&format!("ALTER TABLE {old}_d{place} RENAME TO {name}_d{place};"));
    }
    transaction.batch_execute(&make)?;
    let update = "UPDATE stride.processes SET rows = $2, types = $3, made = made + 1, seen = $4
        WHERE number = $1";
    let (rows, seen) = (draft.rows(&new), draft.seen());
    transaction.execute(update, &[&process.number, &rows, &types, &seen])?;
    Ok(Some(types))
}

/// Makes the tables of a process anew, because a key has other values than before: at once, or out of sight if there are
/// many events. If that cannot be done, its rows stay as they are, and it says why. Returns whether its rows changed.
fn rebuild(
    transaction: &mut Transaction<'_>,
    process: &Process,
    stream: Option<&Stream>,
    limits: &Limits,
) -> Result<bool, Failure> {
    if let Some(stream) = stream
        && (stream.next - stream.first > fill::most(stream)
            || successor::is_there(transaction, process.number)?)
    {
        successor::outdate(transaction, process.number, stream)?;
        return Ok(false);
    }
    let mut attempt = transaction.transaction()?;
    let rebuilt = Draft::new(&mut attempt, &process.name, &process.query)
        .and_then(|draft| replace(&mut attempt, process, &draft, limits));
    match rebuilt {
        Ok(changed) => {
            successor::lacks(&mut attempt, process.number, stream)?;
            attempt.commit()?;
            Ok(changed)
        }
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            tracing::warn!(process = process.name, why, "a process shows an old result");
            stop(transaction, process.number, &why)?;
            // It is tried again when there is something new about the keys.
            let update = "UPDATE stride.processes SET seen = $2 WHERE number = $1";
            transaction.execute(update, &[&process.number, &stream.map(Stream::seen)])?;
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

/// The processes that are added to, and have stopped.
pub(crate) fn stopped(transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Failure> {
    let select = "SELECT number FROM stride.processes
        WHERE stream IS NOT NULL AND stale_since IS NOT NULL AND NOT outdated
            AND number NOT IN (SELECT successor_of FROM stride.processes WHERE successor_of IS NOT NULL)
        ORDER BY number";
    Ok(transaction.query(select, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Has a process that has stopped go on where it did, if it can, and returns whether its rows changed.
pub(crate) fn go_on(
    transaction: &mut Transaction<'_>,
    prepared: &mut Prepared,
    statements: &Statements,
    limits: &Limits,
    number: i64,
) -> Result<bool, Failure> {
    let select = "SELECT stream FROM stride.processes WHERE number = $1";
    let name: Option<String> =
        transaction.query_opt(select, &[&number])?.and_then(|row| row.get(0));
    let Some(name) = name else { return Ok(false) };
    // In this order, as those do who store events.
    let stream = storage::find_locked(transaction, &name)?;
    let select = format!(
        "SELECT {COLUMNS} FROM stride.processes
        WHERE number = $1 AND stream = $2 AND stale_since IS NOT NULL FOR UPDATE"
    );
    let Some(row) = transaction.query_opt(&select, &[&number, &name])? else { return Ok(false) };
    let mut process = Process::of(&row);
    let keys = match &stream {
        Some(stream) => storage::keys(transaction, stream.number)?,
        None => Vec::new(),
    };
    let seen = stream.as_ref().map(Stream::seen);
    let since = process.stale_since.take();
    if let (Some(from), Some(stream)) = (process.stopped, &stream)
        && fits(transaction, &process, &keys)?
    {
        process.seen.clone_from(&seen);
        let update = "UPDATE stride.processes SET stopped = NULL, stale_since = NULL, error = NULL
            WHERE number = $1";
        transaction.execute(update, &[&number])?;
        let sql = statements.of(&process, stream, &keys)?;
        let places = from..stream.next;
        let (changes, _) = add(transaction, prepared, &process, &sql, &places, limits)?;
        let stale = "UPDATE stride.processes SET stale_since = $2
            WHERE number = $1 AND stale_since IS NOT NULL";
        transaction.execute(stale, &[&number, &since])?;
        return Ok(changes > 0);
    }
    process.stale_since = since;
    rebuild(transaction, &process, stream.as_ref(), limits)
}

impl Process {
    /// How it is added to.
    pub(super) fn plan(&self) -> Result<Plan, EngineError> {
        let plan = Plan::new(&postgresql::parse(&self.query, &[])?, Dialect::Postgresql);
        plan.map_err(|why| EngineError::Broken(format!("a process cannot be added to: {why}")))
    }
}
