//! Distinct counts: for each expression a table of the values that each group has had. What is not in there yet, is new.

use sqlparser::ast::{BinaryOperator, Expr, GroupByExpr, Select, SetExpr};

use super::{Dialect, Plan, aliased};
use crate::engine::EngineError;
use crate::sql::relations::Catalogue;
use crate::sql::tree::binary;

/// What is counted.
#[derive(Clone, Debug)]
pub(in crate::sql) struct Distinct {
    pub(super) value: Expr,
    /// Only events that this holds for.
    pub(super) filter: Option<Expr>,
    /// The state that is the count.
    pub(in crate::sql) state: usize,
}

/// The distinct values of one expression in the tables of a process.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    /// Reads groups and values, from the events at places from `?1` up to, but without, `?2`. It may give one twice,
    /// and `NULL`, which does not count.
    pub(crate) read: String,
    /// Puts a group and a value into the table, unless they are there.
    pub(crate) insert: String,
    /// Counts a new value of a group.
    pub(crate) count: String,
}

impl Distinct {
    /// A query for groups and values, made of one for events and the keys of their groups.
    pub(super) fn query(&self, dialect: Dialect, mut select: Select, keys: &[Expr]) -> SetExpr {
        let value = dialect.one_form(self.value.clone());
        let nested = |expr: Expr| Expr::Nested(Box::new(expr));
        select.selection = match (select.selection, self.filter.clone()) {
            (Some(condition), Some(filter)) => {
                Some(binary(nested(condition), BinaryOperator::And, nested(filter)))
            }
            (condition, filter) => condition.or(filter),
        };
        select.projection = aliased(keys.iter().cloned().chain([value]));
        select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
        SetExpr::Select(Box::new(select))
    }
}

impl Plan {
    /// The tables of values that belong to the table of groups.
    pub(crate) fn value_tables(&self, table: &str) -> Vec<String> {
        (0..self.distinct.len()).map(|place| format!("{table}_d{place}")).collect()
    }

    /// Makes the tables of values.
    pub(crate) fn create_values(&self, table: &str) -> String {
        let mut columns = self.group_columns();
        columns.push("v".to_owned());
        let columns = columns.join(", ");
        let create = |table| {
            format!("CREATE TABLE {table} ({columns}, PRIMARY KEY ({columns})) WITHOUT ROWID;")
        };
        self.value_tables(table).into_iter().map(create).collect()
    }

    /// What is done for each expression whose distinct values count.
    pub(crate) fn values(
        &self,
        table: &str,
        delta: &str,
        catalogue: &dyn Catalogue,
    ) -> Result<Vec<Values>, EngineError> {
        let keys = self.group_columns();
        let of_group: Vec<String> = keys.iter().map(|key| format!("{key} = ?")).collect();
        let of_group = match of_group.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", of_group.join(" AND ")),
        };
        let marks = vec!["?"; keys.len() + 1].join(", ");
        let values = self.value_tables(table).into_iter().zip(&self.distinct);
        let values = values.map(|(table, (distinct, query))| {
            let state = distinct.state;
            Ok(Values {
                read: self.read_events(query, catalogue)?,
                insert: format!("INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING"),
                count: format!("UPDATE {delta} SET a{state} = a{state} + 1{of_group}"),
            })
        });
        values.collect()
    }

    /// Forgets the values of those groups that `condition` holds for.
    pub(crate) fn forget_values(&self, table: &str, condition: &str) -> Vec<String> {
        let keys = self.group_columns().join(", ");
        let forget = |values: String| match keys.is_empty() {
            true => {
                format!(
                    "DELETE FROM {values} WHERE EXISTS (SELECT 1 FROM {table} WHERE {condition})"
                )
            }
            false => format!(
                "DELETE FROM {values} WHERE ({keys}) IN (SELECT {keys} FROM {table} WHERE {condition})"
            ),
        };
        self.value_tables(table).into_iter().map(forget).collect()
    }
}
