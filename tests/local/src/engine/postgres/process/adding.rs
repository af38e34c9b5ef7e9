//! Giving events to a process.

use std::ops::Range;

use postgres::Transaction;
use postgres::types::{ToSql, Type};

use super::ROW;
use crate::engine::EngineError;
use crate::engine::postgres::connections::Prepared;
use crate::engine::postgres::error::Failure;
use crate::engine::postgres::query::Names;
use crate::events::keys::Kinds;
use crate::settings::Limits;
use crate::sql::plan::Plan;
use crate::sql::postgresql::plan::sent;
use crate::sql::relations::Relation;

/// How many events may fail one by one. If it is more, the rest of those that are with them is left out unseen: to try
/// them all takes too long.
pub(super) const MOST_TRIED: i64 = 100;

/// Those events of a plan's stream that `rows` holds for.
pub(super) fn events(plan: &Plan, keys: &[(String, Kinds)], rows: String) -> Names {
    let relation = Relation::Stream { number: None, rows: Some(rows), keys: keys.to_vec() };
    Names(vec![(plan.stream().to_owned(), relation)])
}

/// The statement that adds the events at places from `$1` up to, but without, `$2`. If it is `noting`, it notes what
/// changes, as the change at place `$4` of the process `$3`. It gives how many notes there are, 0 or 1, and how many
/// distinct values are new.
pub(super) fn statement(
    plan: &Plan,
    table: &str,
    columns: &[String],
    stream: i64,
    keys: &[(String, Kinds)],
    noting: bool,
) -> Result<String, EngineError> {
    let rows = format!("stream = {stream} AND place >= $1 AND place < $2");
    let events = events(plan, keys, rows);
    let (id, on_conflict) = (plan.id(), plan.on_conflict());
    let kept = plan.kept_columns();
    let mut from = kept.iter().map(|column| format!("delta.{column}")).collect::<Vec<_>>();
    let mut with = vec![format!("delta AS MATERIALIZED ({})", plan.rows_of(&events)?)];
    let (mut joins, mut new) = (String::new(), "0::bigint".to_owned());
    let values = plan.values_of(&events)?;
    for (place, (values, state)) in values.iter().zip(plan.distinct_states()).enumerate() {
        with.push(format!(
            "new{place} AS (INSERT INTO {table}_d{place} {values} ON CONFLICT DO NOTHING RETURNING hash)"
        ));
        joins.push_str(&format!(
            " LEFT JOIN (SELECT hash, count(*) AS n FROM new{place} GROUP BY hash) AS count{place} USING (hash)"
        ));
        new.push_str(&format!(" + (SELECT count(*) FROM new{place})"));
        if let Some(column) = kept.iter().position(|column| *column == state) {
            from[column] = format!("coalesce(count{place}.n, 0)");
        }
    }
    with.push(format!(
        "after AS (INSERT INTO {table} AS kept ({id}, {}) SELECT {id}, {} FROM delta{joins} ORDER BY {id} \
         ON CONFLICT ({id}) {on_conflict} RETURNING *)",
        kept.join(", "),
        from.join(", "),
    ));
    let mut notes = "0::bigint";
    if noting {
        // Of those that nothing is added to, the new ones alone are given back.
        let before = match plan.is_of_events() || on_conflict == "DO NOTHING" {
            true => "false".to_owned(),
            false => format!("{id} = ANY(ARRAY(SELECT {id} FROM delta))"),
        };
        let before = format!("SELECT * FROM {table} WHERE {before}");
        with.push(format!("before AS ({before})"));
        let (old, new) = (rows_in(plan, columns, "before"), rows_in(plan, columns, "after"));
        // Without a join: the planner takes a batch for one row, and would compare each group with all others.
        with.push(format!(
            "noted AS (INSERT INTO stride.changes SELECT $3, $4, now(), {} \
             FROM (SELECT id, max(was) AS was, max(is_now) AS is_now FROM ( \
                SELECT id, row AS was, NULL::text AS is_now FROM ({old}) AS rows_before \
                UNION ALL SELECT id, NULL, row FROM ({new}) AS rows_after) AS states GROUP BY id) AS pairs \
             CROSS JOIN LATERAL (SELECT was AS row) AS o CROSS JOIN LATERAL (SELECT is_now AS row) AS n \
             WHERE o.row IS DISTINCT FROM n.row HAVING count(*) > 0 RETURNING 1)",
            changes("id"),
        ));
        notes = "(SELECT count(*) FROM noted)";
    }
    Ok(format!("WITH {} SELECT {notes}, {new}", with.join(", ")))
}

/// Changes as they are sent, in an order: `o` has a row as it was, `n` as it is.
pub(super) fn changes(order: &str) -> String {
    format!(
        r#"string_agg('{{"old":' || coalesce(o.row, 'null') || ',"new":' || coalesce(n.row, 'null')
        || '}}' || E'\r\n', '' ORDER BY {order})"#
    )
}

/// The rows of a result in a table as they are sent, beside what each is found by. Those that are none are `NULL`.
pub(super) fn rows_in(plan: &Plan, columns: &[String], table: &str) -> String {
    let (id, sent) = (plan.id(), sent(&plan.named_outputs(columns.iter().map(String::as_str))));
    let is_row = plan.having().unwrap_or("true");
    format!(
        "SELECT t.{id} AS id, CASE WHEN t.is_row THEN row_to_json({ROW})::text END AS row \
         FROM (SELECT *, {is_row} AS is_row FROM {table}) AS t CROSS JOIN LATERAL (SELECT {sent}) AS {ROW}"
    )
}

/// Events on the way into one process, and what has come of them.
pub(super) struct Adding<'a> {
    sql: &'a str,
    /// Where the statement is kept for the next ones, if it is.
    pub(super) prepared: Option<&'a mut Prepared>,
    /// The number of the process, and the change to come.
    noting: Option<(i64, i64)>,
    most_distinct: i64,
    pub(super) kept: i64,
    pub(super) changes: i64,
    pub(super) skipped: i64,
    pub(super) error: Option<String>,
    /// It may keep no more: from which place on nothing was added, and why.
    pub(super) full: Option<(i64, String)>,
}

impl<'a> Adding<'a> {
    pub(super) fn new(
        sql: &'a str,
        noting: Option<(i64, i64)>,
        kept: i64,
        limits: &Limits,
    ) -> Self {
        let most_distinct = i64::try_from(limits.max_distinct).unwrap_or(i64::MAX);
        let (changes, skipped, error, full) = (0, 0, None, None);
        let prepared = None;
        Self { sql, prepared, noting, most_distinct, kept, changes, skipped, error, full }
    }

    /// Adds events; those that the query fails at are left out: they can only be found by trying.
    pub(super) fn add(
        &mut self,
        transaction: &mut Transaction<'_>,
        places: Range<i64>,
    ) -> Result<(), Failure> {
        let (mut waiting, skipped) = (vec![places], self.skipped);
        while let Some(places) = waiting.pop() {
            let Range { start, end } = places;
            if self.skipped - skipped >= MOST_TRIED {
                self.skipped += end - start;
                continue;
            }
            let mut attempt = transaction.transaction()?;
            match self.add_part(&mut attempt, &places) {
                Ok((changes, new)) if new == 0 || self.kept + new <= self.most_distinct => {
                    attempt.commit()?;
                    self.changes += changes;
                    self.kept += new;
                }
                Ok(_) => {
                    attempt.rollback()?;
                    let most = self.most_distinct;
                    let why = format!(
                        "the process counts more than {most} distinct values, which is the most that it may keep"
                    );
                    // Those before it are added, or left out for other reasons.
                    self.full = Some((start, why));
                    return Ok(());
                }
                Err(Failure { error: EngineError::Invalid(why), .. }) => {
                    attempt.rollback()?;
                    if end - start > 1 {
                        let middle = start + (end - start) / 2;
                        waiting.extend([middle..end, start..middle]);
                    } else {
                        self.skipped += 1;
                        self.error = Some(why);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Returns how many changes were noted, and how many distinct values are new.
    fn add_part(
        &mut self,
        transaction: &mut Transaction<'_>,
        places: &Range<i64>,
    ) -> Result<(i64, i64), Failure> {
        let next = self.noting.map(|(process, next)| (process, next + self.changes));
        let mut values = vec![places.start, places.end];
        values.extend(next.iter().flat_map(|(process, next)| [*process, *next]));
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync));
        let rows = match &mut self.prepared {
            Some(prepared) => {
                let sql = prepared.of(transaction, self.sql).map_err(Failure::of_query)?;
                transaction.query(&sql, &values.collect::<Vec<_>>())
            }
            // One round trip: a statement that is prepared for once takes three.
            None => {
                let values: Vec<_> = values.map(|value| (value, Type::INT8)).collect();
                transaction.query_typed(self.sql, &values)
            }
        };
        let rows = rows.map_err(Failure::of_query)?;
        let counted = rows.first().map(|row| (row.get(0), row.get(1)));
        counted.ok_or_else(|| EngineError::Broken("nothing was counted".to_owned()).into())
    }
}
