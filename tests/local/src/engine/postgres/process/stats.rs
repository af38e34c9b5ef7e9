//! How processes fare.

use std::collections::HashMap;

use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Row, Transaction};

use super::{COLUMNS, Process, no_process};
use crate::engine::postgres::error::Failure;
use crate::engine::{Definition, Filling, Mode, ProcessStats, Ttl};

/// How a process fares.
pub(crate) fn stats(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<(i64, ProcessStats), Failure> {
    let process = look(transaction, "name = $1", &[&name])?.pop();
    let (process, _) = process.ok_or_else(|| no_process(name))?;
    let rows = rows(transaction, std::slice::from_ref(&process))?;
    let filling = filling(transaction)?;
    Ok((process.number, of(process, &rows, &filling)))
}

/// All processes, by name: each with its number, its definition and how it fares.
pub(crate) fn all(
    transaction: &mut Transaction<'_>,
) -> Result<Vec<(i64, String, Definition, ProcessStats)>, Failure> {
    let processes = look(transaction, "true", &[])?;
    let (processes, ttls): (Vec<Process>, Vec<Option<Ttl>>) = processes.into_iter().unzip();
    let (rows, filling) = (rows(transaction, &processes)?, filling(transaction)?);
    let all = processes.into_iter().zip(ttls).map(|(process, ttl)| {
        let definition = Definition { query: process.query.clone(), ttl };
        (process.number, process.name.clone(), definition, of(process, &rows, &filling))
    });
    Ok(all.collect())
}

/// Looks processes up without waiting for those who add to them.
fn look(
    transaction: &mut Transaction<'_>,
    which: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<(Process, Option<Ttl>)>, Failure> {
    let select = format!(
        "SELECT {COLUMNS}, ttl_duration, ttl_column FROM stride.processes
        WHERE successor_of IS NULL AND {which} ORDER BY name"
    );
    let rows = transaction.query(&select, parameters)?;
    let ttl = |row: &Row| {
        let (duration, column): (Option<String>, Option<String>) =
            (row.get("ttl_duration"), row.get("ttl_column"));
        duration.zip(column).map(|(duration, column)| Ttl { duration, column })
    };
    Ok(rows.iter().map(|row| (Process::of(row), ttl(row))).collect())
}

/// How many rows processes have, by their numbers, from one statement.
fn rows(
    transaction: &mut Transaction<'_>,
    processes: &[Process],
) -> Result<HashMap<i64, i64>, Failure> {
    let counts = processes.iter().map(|process| {
        format!("SELECT {}::bigint, count(*) FROM {}", process.number, process.table())
    });
    let counts = counts.collect::<Vec<_>>().join(" UNION ALL ");
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = transaction.query(&counts, &[]).map_err(|error| {
        // One was deleted meanwhile.
        let again = error.code() == Some(&SqlState::UNDEFINED_TABLE);
        Failure { again, ..Failure::from(error) }
    })?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// How far those processes are that lack stored events, by their numbers, or by those of the processes whose place they
/// take.
fn filling(transaction: &mut Transaction<'_>) -> Result<HashMap<i64, Filling>, Failure> {
    let select = "SELECT coalesce(successor_of, process.number),
            least(greatest(filled, first), streams.next) - first, streams.next - first
        FROM stride.processes AS process JOIN stride.streams ON streams.name = process.stream
        WHERE filled IS NOT NULL ORDER BY successor_of NULLS LAST";
    let rows = transaction.query(select, &[])?;
    let filling = rows.iter().map(|row| {
        let (given, of): (i64, i64) = (row.get(1), row.get(2));
        (row.get(0), Filling { given: given.unsigned_abs(), of: of.unsigned_abs() })
    });
    Ok(filling.collect())
}

fn of(process: Process, rows: &HashMap<i64, i64>, filling: &HashMap<i64, Filling>) -> ProcessStats {
    let mode = if process.stream.is_some() { Mode::Incremental } else { Mode::Recomputed };
    let mut stats = ProcessStats::new(mode);
    stats.why = process.why;
    stats.filling = filling.get(&process.number).copied();
    stats.rows = rows.get(&process.number).map_or(0, |rows| rows.unsigned_abs());
    stats.skipped = process.skipped.unsigned_abs();
    stats.stale = process.stale_since.is_some();
    stats.stale_since = process.stale_since;
    stats.last_error = process.error;
    stats
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

/// How many processes are incremental, recomputed, stale, and being filled.
pub(crate) fn counts(transaction: &mut Transaction<'_>) -> Result<[i64; 4], Failure> {
    let select =
        "SELECT count(stream) FILTER (WHERE successor_of IS NULL), count(*) - count(stream),
            count(stale_since), count(filled)
        FROM stride.processes";
    let row = transaction.query_one(select, &[])?;
    Ok([row.get(0), row.get(1), row.get(2), row.get(3)])
}
