//! Where SQLite keeps what another database keeps of the same query.

use std::collections::BTreeMap;

use sqlparser::ast::{Expr, SelectItem, SetExpr};

use super::dialect::NULL_KEY;
use super::{Plan, Use};
use crate::sql::groups::Aggregate;
use crate::sql::tree::{arguments, function_name};

impl Plan {
    /// The columns that are kept, besides that by which a row is found, as SQL over the table of SQLite's plan for the same
    /// query. States have other numbers there: it keeps a text of each key that is a time, and of an average the total.
    /// Distinct counts are 0: they are counted.
    pub(crate) fn kept_in(&self, sqlite: &Self) -> Result<Vec<String>, String> {
        if sqlite.window.is_some() {
            return Err("it is over a window, which PostgreSQL keeps in another way".to_owned());
        }
        let sizes = |plan: &Self| (plan.of_events, plan.keys, plan.outputs.len());
        if sizes(self) != sizes(sqlite) {
            return Err("PostgreSQL keeps it in another way".to_owned());
        }
        if self.of_events {
            return Ok(sqlite.outputs.clone());
        }
        let mut states = BTreeMap::new();
        for (mine, other) in self.uses_in(sqlite)? {
            let (mine, others) = match (mine.aggregate, &mine.states[..], &other.states[..]) {
                (Aggregate::Average, &[sum, count], &[total, counted]) => {
                    states.insert(count, format!("a{counted}"));
                    // Of no numbers there is a total, but no sum. A sum that the query has, too, is more exact.
                    let total = format!("CASE WHEN a{counted} > 0 THEN a{total} END");
                    states.entry(sum).or_insert(total);
                    continue;
                }
                (Aggregate::CountDistinct, &[mine], _) => (mine, "0".to_owned()),
                (_, &[mine], &[other]) => (mine, format!("a{other}")),
                _ => return Err("PostgreSQL keeps it in another way".to_owned()),
            };
            states.insert(mine, others);
        }
        let keys = (0..self.keys).map(|key| Ok(key_of_sqlite(key)));
        let states = (0..self.states.len()).map(|state| {
            states.remove(&state).ok_or_else(|| "PostgreSQL keeps more of it".to_owned())
        });
        keys.chain(states).collect()
    }

    /// The distinct counts, each with the number of SQLite's, and the columns of its table of values as SQL.
    pub(crate) fn values_in(&self, sqlite: &Self) -> Result<Vec<(usize, Vec<String>)>, String> {
        let uses = self.uses_in(sqlite)?;
        let values = self.distinct.iter().map(|(distinct, _)| {
            let mut uses = uses.iter();
            let pair = uses.find(|(mine, _)| mine.states == [distinct.state]);
            let states = pair.map_or(&[][..], |(_, other)| &other.states);
            let place = sqlite.distinct.iter().position(|(it, _)| states == [it.state]);
            let place = place.ok_or("PostgreSQL counts other values")?;
            let columns = (0..self.keys).map(key_of_sqlite).chain(["v".to_owned()]);
            Ok((place, columns.collect()))
        });
        values.collect()
    }

    /// The aggregates of both plans, in pairs.
    fn uses_in<'a>(&'a self, other: &'a Self) -> Result<Vec<(&'a Use, &'a Use)>, String> {
        let kinds = |plan: &Self| plan.uses.iter().map(|it| it.aggregate).collect::<Vec<_>>();
        if kinds(self) != kinds(other) {
            return Err("PostgreSQL aggregates it in another way".to_owned());
        }
        Ok(self.uses.iter().zip(&other.uses).collect())
    }

    /// The key of the stream that a column has a value of as it is, if it is one that is kept, counted without that by which a
    /// row is found.
    pub(crate) fn key_in(&self, column: usize) -> Option<&str> {
        let SetExpr::Select(select) = &*self.part.body else { return None };
        let place = column + usize::from(self.of_events);
        match select.projection.get(place)? {
            SelectItem::ExprWithAlias { expr, .. } => key_of(expr),
            _ => None,
        }
    }

    /// The same of the value of a distinct count.
    pub(crate) fn key_of_value(&self, place: usize) -> Option<&str> {
        key_of(&self.distinct.get(place)?.0.value)
    }
}

fn key_of_sqlite(key: usize) -> String {
    format!("nullif(k{key}, x'{NULL_KEY}')")
}

/// The key that an expression is the value of, or one of the values of.
fn key_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(name) => Some(&name.value),
        Expr::Nested(inner) => key_of(inner),
        // Those of two parts are ours.
        Expr::Function(function) if matches!(&*function_name(function), "" | "min" | "max") => {
            match &arguments(function)?[..] {
                [argument] => key_of(argument),
                _ => None,
            }
        }
        _ => None,
    }
}
