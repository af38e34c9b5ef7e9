//! New events, added to the processes of their stream.

use std::ops::Range;

use postgres::Transaction;

use super::{CHANGES, COLUMNS, Draft, Process, objects, replace, types};
use crate::engine::EngineError;
use crate::engine::postgres::error::{Failure, query_error};
use crate::engine::postgres::query::Names;
use crate::engine::postgres::storage::Stream;
use crate::events::keys::Kinds;
use crate::sql::postgresql::{self, plan::Plan};
use crate::sql::relations::Relation;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The processes whose rows changed.
    pub(crate) changed: Vec<i64>,
    /// How many events processes lack, because their queries failed at them.
    pub(crate) skipped: u64,
}

/// Adds the events at `places` of a stream, whose row is locked.
pub(crate) fn added(
    transaction: &mut Transaction<'_>,
    name: &str,
    stream: &Stream,
    keys: &[(String, Kinds)],
    places: Range<i64>,
) -> Result<News, Failure> {
    let select = format!(
        "SELECT {COLUMNS} FROM stride.processes WHERE stream = $1 ORDER BY name FOR UPDATE"
    );
    let mut news = News::default();
    for row in transaction.query(&select, &[&name])? {
        let process = Process::of(&row);
        let mut adding = Adding { process, stream, keys, changes: 0, skipped: 0 };
        let version = stream.keys_version.to_string();
        if adding.process.seen.as_deref() != Some(&*version) && !adding.fits(transaction)? {
            // Over all events, these included.
            if rebuild(transaction, &adding.process)? {
                news.changed.push(adding.process.number);
            }
            continue;
        }
        if adding.process.error.is_some() {
            continue;
        }
        adding.add(transaction, places.clone())?;
        let Adding { process, changes, skipped, .. } = adding;
        let update = "UPDATE stride.processes
            SET next = next + $2, skipped = skipped + $3, seen = $4 WHERE number = $1";
        transaction.execute(update, &[&process.number, &changes, &skipped, &version])?;
        if changes > 0 {
            news.changed.push(process.number);
        }
        news.skipped += skipped.unsigned_abs();
    }
    Ok(news)
}

/// Makes the table of a process anew, because a key has other values than before. If that cannot be done, its rows stay
/// as they are, and it says why.
fn rebuild(transaction: &mut Transaction<'_>, process: &Process) -> Result<bool, Failure> {
    let mut attempt = transaction.transaction()?;
    let rebuilt = Draft::new(&mut attempt, &process.name, &process.query)
        .and_then(|draft| replace(&mut attempt, process, &draft, true));
    match rebuilt {
        Ok(changed) => {
            attempt.commit()?;
            Ok(changed)
        }
        Err(Failure { error: EngineError::Invalid(why), .. }) => {
            attempt.rollback()?;
            let update = "UPDATE stride.processes SET error = $2 WHERE number = $1";
            transaction.execute(update, &[&process.number, &why])?;
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

/// Events on the way into one process.
struct Adding<'a> {
    process: Process,
    stream: &'a Stream,
    keys: &'a [(String, Kinds)],
    changes: i64,
    skipped: i64,
}

impl Adding<'_> {
    /// A query of what events add to the rows.
    fn delta(&self, plan: &Plan, places: &Range<i64>) -> Result<String, EngineError> {
        let number = self.stream.number;
        let Range { start, end } = places;
        let rows = format!("stream = {number} AND place >= {start} AND place < {end}");
        let (number, keys) = (Some(number), self.keys.to_vec());
        let relation = Relation::Stream { number, rows: Some(rows), keys };
        plan.read(&Names(vec![(plan.stream.clone(), relation)]))
    }

    fn plan(&self) -> Result<Plan, EngineError> {
        let broken = || EngineError::Broken("a process cannot be added to".to_owned());
        Plan::new(&postgresql::parse(&self.process.query, &[])?).ok_or_else(broken)
    }

    /// Whether the columns of the table still have the types of what is added.
    fn fits(&self, transaction: &mut Transaction<'_>) -> Result<bool, Failure> {
        if self.process.error.is_some() {
            return Ok(false);
        }
        let delta = self.delta(&self.plan()?, &(0..0))?;
        let mut attempt = transaction.transaction()?;
        let types = types(&mut attempt, &delta);
        attempt.rollback()?;
        Ok(types.is_ok_and(|types| types == self.process.types))
    }

    /// Adds events; those that the query fails at are left out.
    fn add(
        &mut self,
        transaction: &mut Transaction<'_>,
        places: Range<i64>,
    ) -> Result<(), Failure> {
        let plan = self.plan()?;
        let mut waiting = vec![places];
        while let Some(places) = waiting.pop() {
            let delta = self.delta(&plan, &places)?;
            let upsert = self.upsert(&plan, &delta);
            let place = self.process.next + self.changes;
            let mut attempt = transaction.transaction()?;
            match attempt.execute(&upsert, &[&self.process.number, &place]) {
                Ok(changes) => {
                    attempt.commit()?;
                    self.changes += i64::try_from(changes).unwrap_or(i64::MAX);
                }
                Err(error) => {
                    let again = Failure::from_query(error);
                    if !matches!(again.error, EngineError::Invalid(_)) {
                        return Err(again);
                    }
                    attempt.rollback()?;
                    let Range { start, end } = places;
                    if end - start == 1 {
                        self.skipped += 1;
                    } else {
                        let half = start + (end - start) / 2;
                        waiting.extend([half..end, start..half]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what `delta` gives, and notes what changed.
    fn upsert(&self, plan: &Plan, delta: &str) -> String {
        let outputs = plan.outputs.iter().zip(&self.process.columns);
        let outputs: Vec<(String, String)> =
            outputs.map(|((sql, _), name)| (sql.clone(), name.clone())).collect();
        let outputs = objects(&outputs);
        let rows = |of: &str| {
            format!(
                "SELECT hash, row_to_json(r)::text AS row \
                 FROM {of} CROSS JOIN LATERAL (SELECT {outputs}) AS r"
            )
        };
        let (table, on_conflict) = (self.process.table(), plan.on_conflict());
        format!(
            "WITH delta AS MATERIALIZED ({delta}), \
             before AS (SELECT kept.* FROM {table} AS kept JOIN delta USING (hash)), \
             after AS (INSERT INTO {table} AS kept SELECT * FROM delta ORDER BY hash \
                ON CONFLICT (hash) {on_conflict} RETURNING *) \
             INSERT INTO stride.changes SELECT $1, $2, now(), {CHANGES} \
             FROM ({}) AS o RIGHT JOIN ({}) AS n USING (hash) \
             WHERE o.row IS DISTINCT FROM n.row HAVING count(*) > 0",
            rows("before"),
            rows("after"),
        )
    }
}

impl Failure {
    /// An error of a query of somebody's.
    fn from_query(error: postgres::Error) -> Self {
        match error.code().map(|code| code.code().starts_with("40")) {
            Some(false) => query_error(error).into(),
            _ => error.into(),
        }
    }
}
