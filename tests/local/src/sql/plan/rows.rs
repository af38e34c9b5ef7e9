//! Plain rows: each event that the condition holds for is one, kept by its place.

use sqlparser::ast::{Expr, Ident, Query, Select, SetExpr};

use super::split::check;
use super::{Dialect, Plan, aliased};
use crate::sql::relations::PLACE;

impl Plan {
    /// The plan for a query whose rows are made of one event each.
    pub(super) fn of_events(
        dialect: Dialect,
        query: &Query,
        mut select: Select,
        stream: String,
        named: Vec<(Expr, String)>,
    ) -> Result<Self, String> {
        for (expr, _) in &named {
            check(dialect, expr, &[])?;
        }
        let outputs = (0..named.len()).map(|place| format!("c{place}")).collect();
        let place = Expr::Identifier(Ident::with_quote('"', PLACE));
        select.projection = aliased([place].into_iter().chain(named.into_iter().map(|(it, _)| it)));
        let part = Query { body: Box::new(SetExpr::Select(Box::new(select))), ..query.clone() };
        let (window, keys, states, having, distinct) = (None, 0, Vec::new(), None, Vec::new());
        let (uses, of_events) = (Vec::new(), true);
        Ok(Self { stream, part, window, keys, states, uses, outputs, having, distinct, of_events })
    }

    /// Whether each event is a row.
    pub(crate) fn is_of_events(&self) -> bool {
        self.of_events
    }

    pub(super) fn event_columns(&self) -> Vec<String> {
        let mut columns = vec!["place".to_owned()];
        columns.extend(self.outputs.iter().cloned());
        columns
    }

    /// Makes the table of rows.
    pub(super) fn create_of_events(&self, table: &str) -> String {
        format!("CREATE TABLE {table} (place INTEGER PRIMARY KEY, {})", self.outputs.join(", "))
    }

    /// The rows of events before the place `?1`.
    pub(crate) fn rows_before(&self, table: &str) -> String {
        let columns = self.outputs.join(", ");
        format!("SELECT {columns} FROM {table} WHERE place < ?1 ORDER BY place")
    }
}
