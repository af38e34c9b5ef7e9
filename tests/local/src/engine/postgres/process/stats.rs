//! How processes fare.

use postgres::Transaction;

use super::{COLUMNS, Process, no_process};
use crate::engine::postgres::error::Failure;
use crate::engine::{Mode, ProcessStats};

/// How a process fares.
pub(crate) fn stats(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<(i64, ProcessStats), Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE name = $1");
    let row = transaction.query_opt(&select, &[&name])?.ok_or_else(|| no_process(name))?;
    let process = Process::of(&row);
    let mode = if process.stream.is_some() { Mode::Incremental } else { Mode::Recomputed };
    let count = format!("SELECT count(*) FROM {}", process.table());
    let rows: i64 = transaction.query_one(&count, &[])?.get(0);
    let mut stats = ProcessStats::new(mode);
    stats.why = process.why;
    stats.rows = rows.unsigned_abs();
    stats.skipped = process.skipped.unsigned_abs();
    stats.stale = process.stale_since.is_some();
    stats.stale_since = process.stale_since;
    stats.last_error = process.error;
    Ok((process.number, stats))
}

/// The processes with an old result that something comes from which reads `reads`.
pub(crate) fn stale_of(
    transaction: &mut Transaction<'_>,
    reads: &[String],
) -> Result<Vec<String>, Failure> {
    let select = "WITH RECURSIVE read (name, reads, is_stale) AS (
            SELECT name, reads, stale_since IS NOT NULL FROM stride.processes WHERE name = ANY($1)
            UNION
            SELECT process.name, process.reads, process.stale_since IS NOT NULL
            FROM read JOIN stride.processes AS process ON process.name = ANY(read.reads))
        SELECT name FROM read WHERE is_stale ORDER BY name";
    let rows = transaction.query(select, &[&reads])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How many processes are incremental, recomputed and stale.
pub(crate) fn counts(transaction: &mut Transaction<'_>) -> Result<[i64; 3], Failure> {
    let select = "SELECT count(stream), count(*) - count(stream), count(stale_since)
        FROM stride.processes";
    let row = transaction.query_one(select, &[])?;
    Ok([row.get(0), row.get(1), row.get(2)])
}
