//! A plan in PostgreSQL's words: one statement that adds events to what is kept, and notes what changes by it.
//!
//! A group is found by a hash of its key, because a key may be longer than an entry of an index. A distinct value is
//! kept as a hash, too, beside that of its group.

use sqlparser::ast::{Expr, Query};

use super::{FUNCTIONS, own};
use crate::engine::EngineError;
use crate::sql::parse::{Homes, Parsed};
use crate::sql::plan::{Merge, Plan};
use crate::sql::print;
use crate::sql::relations::Catalogue;

/// Functions of several rows.
const OF_ROWS: [&str; 24] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "cume_dist",
    "dense_rank",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "nth_value",
    "ntile",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "rank",
    "row_number",
    "string_agg",
    "sum",
];

/// Whether a function gives something of one event. Ours have names of two parts.
pub(in crate::sql) fn is_of_one_event(function: &str) -> bool {
    function.is_empty() || FUNCTIONS.contains(&function) && !OF_ROWS.contains(&function)
}

/// The one form of values that are equal.
pub(in crate::sql) fn one_form(expr: Expr) -> Expr {
    own("key", [expr])
}

/// How many keys a group can have: as many as one function takes arguments.
const MOST_KEYS: usize = 50;

impl Plan {
    /// Whether a group has more keys than PostgreSQL can tell it by.
    pub(crate) fn has_too_many_keys(&self) -> bool {
        self.keys > MOST_KEYS
    }

    /// The column by which a row of the table is found.
    pub(crate) fn id(&self) -> &'static str {
        if self.of_events { "place" } else { "hash" }
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        (0..self.keys).map(|key| format!("k{key}")).collect()
    }

    /// The columns that are kept, besides that by which a row is found.
    pub(crate) fn kept_columns(&self) -> Vec<String> {
        if self.of_events {
            return self.outputs.clone();
        }
        let mut columns = self.keys();
        columns.extend((0..self.states.len()).map(|state| format!("a{state}")));
        columns
    }

    /// Reads the rows that the events in `catalogue` give, as they are kept but for distinct counts.
    pub(crate) fn rows_of(&self, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
        let sql = as_sql(&self.part, catalogue)?;
        let columns = self.kept_columns().join(", ");
        Ok(match self.of_events {
            true => format!("SELECT * FROM ({sql}) AS part (place, {columns})"),
            false => {
                let hash = hash(&self.keys());
                format!("SELECT {hash} AS hash, {columns} FROM ({sql}) AS part ({columns})")
            }
        })
    }

    /// For each distinct count, a query for the values of the events in `catalogue`, as hashes beside that of their group.
    pub(crate) fn values_of(&self, catalogue: &dyn Catalogue) -> Result<Vec<String>, EngineError> {
        let values = self.distinct.iter().map(|(_, query)| {
            let sql = as_sql(query, catalogue)?;
            let mut columns = self.keys();
            columns.push("v".to_owned());
            let (of_group, value) = (hash(&self.keys()), hash(&["v".to_owned()]));
            Ok(format!(
                "SELECT DISTINCT {of_group} AS hash, {value} AS value FROM ({sql}) AS part ({}) \
                 WHERE v IS NOT NULL",
                columns.join(", ")
            ))
        });
        values.collect()
    }

    /// The states that are distinct counts.
    pub(crate) fn distinct_states(&self) -> impl Iterator<Item = String> {
        self.distinct.iter().map(|(distinct, _)| format!("a{}", distinct.state))
    }

    /// What an upsert does with a group that is there already, `kept`.
    pub(crate) fn on_conflict(&self) -> String {
        let updates = self.states.iter().enumerate().map(|(state, it)| {
            let (column, old, new) =
                (format!("a{state}"), format!("kept.a{state}"), format!("excluded.a{state}"));
            match it.merge {
                Merge::Add | Merge::Distinct => format!("{column} = {old} + {new}"),
                Merge::Sum => format!("{column} = coalesce({old} + {new}, {old}, {new})"),
                Merge::Min => format!("{column} = stride.smaller({old}, {new})"),
                Merge::Max => format!("{column} = stride.larger({old}, {new})"),
            }
        });
        let updates: Vec<String> = updates.collect();
        match updates.is_empty() {
            true => "DO NOTHING".to_owned(),
            false => format!("DO UPDATE SET {}", updates.join(", ")),
        }
    }

    /// The columns of the result as SQL over the table, with their names.
    pub(crate) fn named_outputs<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Vec<(String, String)> {
        let outputs = self.outputs.iter().zip(names);
        outputs.map(|(sql, name)| (sql.clone(), name.to_owned())).collect()
    }
}

pub(super) fn as_sql(query: &Query, catalogue: &dyn Catalogue) -> Result<String, EngineError> {
    let parsed = Parsed { query: query.clone(), clock_reads: 0, homes: Homes::new() };
    Ok(super::rewrite(&parsed, catalogue)?.sql)
}

/// A hash of values, which is the same if they are.
pub(super) fn hash(columns: &[String]) -> String {
    format!("sha256(convert_to(jsonb_build_array({})::text, 'UTF8'))", columns.join(", "))
}

/// The columns of rows as they are sent.
pub(crate) fn sent(outputs: &[(String, String)]) -> String {
    let outputs =
        outputs.iter().map(|(sql, name)| format!("stride.out({sql}) AS {}", print::name(name)));
    outputs.collect::<Vec<_>>().join(", ")
}
