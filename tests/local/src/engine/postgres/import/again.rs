//! What a file has become since a copy of it was interrupted: a server may have had it meanwhile.

use std::collections::HashMap;

use postgres::{Client, Row};

use crate::engine::postgres::error::Failure;
use crate::engine::postgres::schema::lock_names;
use crate::engine::postgres::{process, storage};
use crate::engine::sqlite::export::{ExportedProcess, ExportedStream};
use crate::engine::{Definition, Ttl};

/// Takes away what the file no longer has. Processes go if they lack anything: they are copied again.
pub(super) fn take_back(
    client: &mut Client,
    streams: &[ExportedStream],
    processes: &[ExportedProcess],
    queries: &[(String, String)],
) -> Result<(), Failure> {
    let mut transaction = client.transaction()?;
    lock_names(&mut transaction)?;
    let copied = transaction.query("SELECT number, name, next FROM stride.streams", &[])?;
    let next: HashMap<i64, i64> = copied.iter().map(|row| (row.get(0), row.get(2))).collect();
    let is_whole = |stream: &ExportedStream| next.get(&stream.number) == Some(&stream.next);
    let is_there = |row: &&Row| streams.iter().any(|it| it.number == row.get::<_, i64>(0));
    let gone: Vec<&str> =
        copied.iter().filter(|row| !is_there(row)).map(|row| row.get(1)).collect();
    let select = "SELECT name, query, ttl_duration, ttl_column FROM stride.processes
        ORDER BY number DESC";
    let known = transaction.query(select, &[])?;
    let is_same = |row: &Row| {
        let (duration, column): (Option<String>, Option<String>) = (row.get(2), row.get(3));
        let ttl = duration.zip(column).map(|(duration, column)| Ttl { duration, column });
        let definition = Definition { query: row.get(1), ttl };
        let name: &str = row.get(0);
        processes.iter().any(|it| it.name == name && it.definition == definition)
    };
    if !gone.is_empty() || !streams.iter().all(is_whole) || !known.iter().all(is_same) {
        // Each before those that it reads.
        for row in &known {
            process::delete(&mut transaction, row.get(0))?;
        }
    }
    for name in gone {
        storage::delete(&mut transaction, name)?;
    }
    let names: Vec<&str> = queries.iter().map(|(name, _)| &**name).collect();
    transaction.execute("DELETE FROM stride.queries WHERE name <> ALL($1)", &[&names])?;
    transaction.commit()?;
    Ok(())
}
