//! Statements that put what another database kept of a query into the tables of a process. Each takes an array of texts for
//! each column.

use super::plan::{as_sql, hash};
use crate::engine::EngineError;
use crate::sql::plan::Plan;
use crate::sql::relations::Catalogue;

impl Plan {
    /// Puts rows into the table. `types`: those of its columns. Groups that are one to PostgreSQL become one.
    pub(crate) fn put(&self, table: &str, types: &[String]) -> String {
        let mut columns = self.kept_columns();
        let names = columns.join(", ");
        if self.is_of_events() {
            columns.insert(0, self.id().to_owned());
            let from = from(&columns, types, 0);
            return format!("INSERT INTO {table} (place, {names}) SELECT * FROM {from}");
        }
        let keys = self.keys();
        let (from, hash) = (from(&columns, &types[1..], keys.len()), hash(&keys));
        let on_conflict = self.on_conflict();
        format!(
            "INSERT INTO {table} AS kept (hash, {names}) SELECT {hash}, {names} FROM {from} ON CONFLICT (hash) {on_conflict}"
        )
    }

    /// Queries for the values of the distinct counts, each of one column.
    pub(crate) fn values_alone(
        &self,
        catalogue: &dyn Catalogue,
    ) -> Result<Vec<String>, EngineError> {
        let mut columns = self.keys();
        columns.push("v".to_owned());
        let columns = columns.join(", ");
        let values = self.distinct.iter().map(|(_, query)| {
            Ok(format!("SELECT v FROM ({}) AS part ({columns})", as_sql(query, catalogue)?))
        });
        values.collect()
    }

    /// Puts values of the distinct count `place` into their table. `of`: the type of a value.
    pub(crate) fn put_values(
        &self,
        table: &str,
        place: usize,
        types: &[String],
        of: &str,
    ) -> String {
        let keys = self.keys();
        let mut columns = keys.clone();
        columns.push("v".to_owned());
        let mut types = types[1..=keys.len()].to_vec();
        types.push(of.to_owned());
        let from = from(&columns, &types, columns.len());
        let (of_group, value) = (hash(&keys), hash(&["v".to_owned()]));
        format!(
            "INSERT INTO {table}_d{place} SELECT {of_group}, {value} FROM {from} WHERE v IS NOT NULL \
             ON CONFLICT DO NOTHING"
        )
    }

    /// Sets the distinct counts of all groups to what is in their tables.
    pub(crate) fn count_values(&self, table: &str) -> Vec<String> {
        let states = self.distinct_states().enumerate();
        let count = |(place, state)| {
            format!(
                "UPDATE {table} AS kept SET {state} = n \
                 FROM (SELECT hash, count(*) AS n FROM {table}_d{place} GROUP BY hash) AS counted \
                 WHERE kept.hash = counted.hash"
            )
        };
        states.map(count).collect()
    }
}

/// A row of typed values for each of the arrays' places, the first `keys` of which are keys.
fn from(columns: &[String], types: &[String], keys: usize) -> String {
    let typed = columns.iter().zip(types).enumerate().map(|(place, (column, of))| {
        let value = match &**of {
            // A text with an offset, which these types would pass over.
            "timestamp" | "date" => format!("t{place}::timestamptz::{of}"),
            of => format!("t{place}::{of}"),
        };
        let value = if place < keys { format!("stride.key({value})") } else { value };
        format!("{value} AS {column}")
    });
    let typed = typed.collect::<Vec<_>>().join(", ");
    let arrays: Vec<String> = (1..=columns.len()).map(|it| format!("${it}::text[]")).collect();
    let names: Vec<String> = (0..columns.len()).map(|place| format!("t{place}")).collect();
    let (arrays, names) = (arrays.join(", "), names.join(", "));
    format!("(SELECT {typed} FROM unnest({arrays}) AS texts ({names})) AS typed")
}
