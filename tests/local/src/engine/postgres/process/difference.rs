//! What is different between the rows of a process before and after they are made anew.

use postgres::Transaction;

use super::ROW;
use super::adding::changes;
use crate::engine::postgres::error::{Failure, query_error};
use crate::sql::postgresql::plan::sent;

/// How many rows a process may have before and after it gets another query, so that subscribers are told of the
/// difference.
const MOST_COMPARED: i64 = 100_000;

/// How many columns a row can be told by: as many as one function takes arguments.
const MOST_COLUMNS: usize = 50;

/// A query for rows as they are sent, `row`. `rows`: a `SELECT` of them.
pub(super) fn shown(rows: &str, columns: &[String]) -> String {
    let places = places(columns);
    let outputs: Vec<(String, String)> =
        places.iter().cloned().zip(columns.iter().cloned()).collect();
    format!(
        "SELECT row_to_json({ROW})::text AS row, t.* FROM ({rows}) AS t ({}) \
         CROSS JOIN LATERAL (SELECT {}) AS {ROW}",
        places.join(", "),
        sent(&outputs),
    )
}

fn places(columns: &[String]) -> Vec<String> {
    (0..columns.len()).map(|place| format!("c{place}")).collect()
}

/// Keeps the rows that a process has, as `name`, to be compared with those that it will have. They are paired by the
/// columns `by`, or else by all that is in them.
pub(super) fn keep(
    transaction: &mut Transaction<'_>,
    name: &str,
    rows: &str,
    columns: &[String],
    by: Option<&[usize]>,
) -> Result<(), Failure> {
    let keep =
        format!("CREATE TEMP TABLE {name} ON COMMIT DROP AS {}", told_apart(rows, columns, by));
    Ok(transaction.batch_execute(&keep).map_err(query_error)?)
}

fn told_apart(rows: &str, columns: &[String], by: Option<&[usize]>) -> String {
    let id = match by.filter(|by| by.len() <= MOST_COLUMNS) {
        Some(by) => {
            let by: Vec<String> = by.iter().map(|place| format!("stride.out(c{place})")).collect();
            format!("jsonb_build_array({})::text", by.join(", "))
        }
        None => "row".to_owned(),
    };
    format!(
        "SELECT id, row, row_number() OVER (PARTITION BY id ORDER BY row) AS nth FROM \
         (SELECT sha256(convert_to({id}, 'UTF8')) AS id, row FROM ({}) AS shown) AS rows",
        shown(rows, columns),
    )
}

/// Notes what is different from the rows that were kept as `name`, as one change, and returns whether anything is.
pub(super) fn note(
    transaction: &mut Transaction<'_>,
    name: &str,
    rows: &str,
    columns: &[String],
    by: Option<&[usize]>,
    (process, place): (i64, i64),
) -> Result<bool, Failure> {
    let insert = format!(
        "INSERT INTO stride.changes SELECT $1, $2, now(), {} \
         FROM pg_temp.{name} AS o FULL JOIN ({}) AS n USING (id, nth) \
         WHERE o.row IS DISTINCT FROM n.row HAVING count(*) > 0",
        changes("id, nth"),
        told_apart(rows, columns, by),
    );
    let noted = transaction.execute(&insert, &[&process, &place]).map_err(query_error)?;
    Ok(noted > 0)
}

/// Whether there are too many rows to compare.
pub(super) fn are_many(transaction: &mut Transaction<'_>, rows: &str) -> Result<bool, Failure> {
    let count = format!("SELECT count(*) FROM ({rows} LIMIT {MOST_COMPARED}) AS q");
    let count: i64 = transaction.query_one(&count, &[]).map_err(query_error)?.get(0);
    Ok(count >= MOST_COMPARED)
}
