//! Rows that last only for a time.

use std::time::Instant;

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use super::{Process, time_for};
use crate::engine::sqlite::error::query_error;
use crate::engine::sqlite::objects::ChangeRecords;
use crate::engine::{EngineError, Ttl};
use crate::sql::columns::Column;
use crate::sql::plan::Plan;
use crate::sql::times;

/// Which column a row's age is told by, and how old it may get, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine::sqlite) struct Expiry {
    pub(super) column: usize,
    pub(super) micros: i64,
}

impl Expiry {
    pub(in crate::engine::sqlite) fn new(
        ttl: &Ttl,
        columns: &[Column],
    ) -> Result<Self, EngineError> {
        let (column, micros) = ttl.of(columns.iter().map(|column| &*column.name))?;
        Ok(Self { column, micros })
    }
}

impl Process {
    /// Takes away the rows that have become too old.
    pub(in crate::engine::sqlite) fn expire(
        &self,
        connection: &Connection,
        now: i64,
        changes: &mut ChangeRecords,
    ) -> Result<(), EngineError> {
        let Some(Expiry { column, micros }) = self.expiry else { return Ok(()) };
        let before = times::text_of(now.saturating_sub(micros));
        let (table, column, values) = (self.table(), self.value(column), self.values());
        let is_old = format!("utc({column}) < ?");
        let having = self.compiled.plan().and_then(Plan::having).unwrap_or("1");
        let groups = self.groups(&table);
        let old =
            format!("SELECT {values}, CASE WHEN {having} THEN 1 END FROM {groups} WHERE {is_old}");
        let inside = self.sandbox.enter(Some(Instant::now() + time_for(0)));
        let mut select = connection.prepare_cached(&old)?;
        let mut rows = select.query([&before])?;
        let mut any = false;
        while let Some(row) = rows.next().map_err(query_error)? {
            any = true;
            // One that was not in the result cannot leave it.
            if row.get_ref(self.compiled.columns.len())? != ValueRef::Null {
                changes.push(connection, &self.objects, Some(&self.row(row)?), None)?;
            }
        }
        drop(rows);
        drop(inside);
        if any {
            // It asks the same again, which has just been answered in time.
            let _inside = self.sandbox.enter(None);
            self.forget_values(connection, &is_old, &before)?;
            let rows_of_old = match self.compiled.plan() {
                Some(plan) => plan.rows_of_groups(&table, &is_old),
                None => is_old,
            };
            let delete = format!("DELETE FROM {table} WHERE {rows_of_old}");
            connection.prepare_cached(&delete)?.execute([&before])?;
        }
        Ok(())
    }

    /// Whether a row of a result has become too old to be kept.
    pub(in crate::engine::sqlite) fn is_old(&self, row: &[Value], now: i64) -> bool {
        let Some(Expiry { column, micros }) = self.expiry else { return false };
        match row.get(column) {
            Some(Value::Text(at)) => {
                times::micros_of(at).is_some_and(|at| at < now.saturating_sub(micros))
            }
            _ => false,
        }
    }
}
