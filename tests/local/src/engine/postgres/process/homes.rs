//! Whose keys the names in the query of a process are. They stay that when another of its streams gets a key of that name
//! later, by which a query that is new could mean either.

use postgres::Transaction;

use crate::engine::EngineError;
use crate::engine::postgres::error::Failure;
use crate::sql::Homes;

/// A query may be longer than an entry of an index.
const HASH: &str = "sha256(convert_to($2, 'UTF8'))";

/// What the names of a process have meant so far.
pub(super) fn of(
    transaction: &mut Transaction<'_>,
    process: &str,
    query: &str,
) -> Result<Homes, Failure> {
    let select = format!("SELECT homes FROM stride.homes WHERE process = $1 AND hash = {HASH}");
    let Some(row) = transaction.query_opt(&select, &[&process, &query])? else {
        return Ok(Homes::new());
    };
    let homes = serde_json::from_str(row.get(0));
    Ok(homes.map_err(|error| EngineError::Damaged(format!("the homes of {process:?}: {error}")))?)
}

/// Keeps what they mean, and no longer what those of a former query did.
pub(crate) fn keep(
    transaction: &mut Transaction<'_>,
    process: &str,
    query: &str,
    homes: &Homes,
) -> Result<(), Failure> {
    let upsert = format!(
        "INSERT INTO stride.homes VALUES ($1, {HASH}, $3)
         ON CONFLICT (process, hash) DO UPDATE SET homes = excluded.homes"
    );
    let homes = serde_json::json!(homes).to_string();
    transaction.execute(&upsert, &[&process, &query, &homes])?;
    // While another query takes over, both are run.
    let former = format!(
        "DELETE FROM stride.homes WHERE process = $1 AND hash <> {HASH} AND NOT EXISTS (
         SELECT FROM stride.processes AS p
            WHERE p.name IN ($1, chr(1) || $1) AND sha256(convert_to(p.query, 'UTF8')) = hash)"
    );
    transaction.execute(&former, &[&process, &query])?;
    Ok(())
}

pub(super) fn forget(transaction: &mut Transaction<'_>, process: &str) -> Result<(), Failure> {
    transaction.execute("DELETE FROM stride.homes WHERE process = $1", &[&process])?;
    Ok(())
}
