//! What is kept of a window: a row for each step and group, in this order, so that a step that leaves the window lies
//! together. The rows of a group are merged when they are read.

use sqlparser::ast::Expr;

use super::{Merge, Plan, State};
use crate::sql::times;
use crate::sql::tree::function_name;

/// How many steps of a window are many: it has 20 of its own, and those of events that come early.
const MANY: u32 = 60;

/// The steps that a table has, one seek for each.
fn steps(table: &str) -> String {
    format!(
        "WITH RECURSIVE steps(step) AS (SELECT min(step) FROM {table} UNION ALL \
         SELECT (SELECT min(step) FROM {table} WHERE step > steps.step) FROM steps \
         WHERE step IS NOT NULL)"
    )
}

impl State {
    /// The state of a group, from those of its steps. Of no steps at all it is the state of no events.
    fn merged(&self, column: &str) -> String {
        let collation = if self.time { times::COLLATED } else { "" };
        let is_total =
            matches!(&self.part, Expr::Function(function) if function_name(function) == "total");
        match self.merge {
            Merge::Add if is_total => format!("total({column})"),
            Merge::Add | Merge::Distinct => format!("ifnull(sum({column}), 0)"),
            Merge::Sum => format!("sum({column})"),
            Merge::Min => format!("min({column}{collation})"),
            Merge::Max => format!("max({column}{collation})"),
        }
    }
}

impl Plan {
    /// What the groups and their states are read from.
    pub(crate) fn groups(&self, table: &str) -> String {
        if self.window.is_none() {
            return table.to_owned();
        }
        let groups = self.group_columns().join(", ");
        let by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {groups}") };
        let columns = self.merged_columns(table);
        format!("(SELECT {columns} FROM {table}{by})")
    }

    /// The groups of which there is a row for each step.
    pub(crate) fn distinct_groups(&self, table: &str) -> Option<String> {
        self.window?;
        let groups = self.group_columns().join(", ");
        Some(match groups.is_empty() {
            true => "(SELECT 1)".to_owned(),
            false => format!("(SELECT DISTINCT {groups} FROM {table})"),
        })
    }

    fn merged_columns(&self, table: &str) -> String {
        let columns = self.group_columns().into_iter().chain(self.merged_states(table));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn merged_states(&self, table: &str) -> impl Iterator<Item = String> {
        self.states.iter().enumerate().map(move |(place, state)| {
            format!("{} AS a{place}", state.merged(&format!("{table}.a{place}")))
        })
    }

    /// Which rows of `table` are to go so that those groups do that `condition` holds for.
    pub(crate) fn rows_of_groups(&self, table: &str, condition: &str) -> String {
        let groups = self.group_columns().join(", ");
        match self.window {
            None => condition.to_owned(),
            Some(_) if groups.is_empty() => {
                format!("EXISTS (SELECT 1 FROM {} WHERE {condition})", self.groups(table))
            }
            Some(_) => {
                let of = self.groups(table);
                format!("({groups}) IN (SELECT {groups} FROM {of} WHERE {condition})")
            }
        }
    }

    /// Whether the table has so many steps that reading it is better than to look for a group in each of them: events of any
    /// time may have come.
    pub(crate) fn many_steps(&self, table: &str) -> Option<String> {
        self.window?;
        let steps = steps(table);
        Some(format!(
            "{steps} SELECT count(*) > {MANY} FROM (SELECT 1 FROM steps LIMIT {MANY} + 1)"
        ))
    }

    /// As [`touched`](Self::touched).
    pub(super) fn touched_in_window(
        &self,
        table: &str,
        delta: &str,
        outputs: &str,
        scanning: bool,
    ) -> String {
        let groups = self.group_columns();
        let is_there = match self.having() {
            Some(having) => format!("CASE WHEN {having} THEN 1 END"),
            None => "1".to_owned(),
        };
        if groups.is_empty() {
            return format!("SELECT {is_there}, {outputs} FROM {}", self.groups(table));
        }
        let names = groups.join(", ");
        let touched = format!("touched AS (SELECT DISTINCT {names} FROM {delta})");
        let states = (0..self.states.len()).map(|place| format!(", a{place}"));
        let columns = format!("step, {names}{}", states.collect::<String>());
        let with = if scanning {
            format!("WITH {touched}")
        } else {
            format!("{}, {touched}", steps(table))
        };
        let found = if scanning {
            format!(
                "SELECT {columns} FROM {table} WHERE ({names}) IN (SELECT {names} FROM touched)"
            )
        } else {
            let same = groups.iter().map(|key| format!(" AND {table}.{key} = touched.{key}"));
            // In this order: SQLite would read the table for each of the groups.
            format!(
                "SELECT {table}.* FROM touched CROSS JOIN steps CROSS JOIN {table} \
                 WHERE {table}.step = steps.step{}",
                same.collect::<String>()
            )
        };
        let nothing = ", NULL".repeat(self.states.len());
        format!(
            "{with} SELECT CASE WHEN count > 0 THEN {is_there} END, {outputs} \
             FROM (SELECT count(step) AS count, {} \
             FROM ({found} UNION ALL SELECT NULL, {names}{nothing} FROM touched) AS found \
             GROUP BY {names}) ORDER BY {names}",
            self.merged_columns("found"),
        )
    }

    /// Forgets the steps before `?1`.
    pub(crate) fn forget(&self, table: &str) -> String {
        format!("DELETE FROM {table} WHERE step < ?1")
    }

    /// Puts the next `?2` groups into `delta` that have something in a step before `?1`.
    pub(crate) fn leaving(&self, table: &str, delta: &str) -> String {
        let groups = self.group_columns();
        let order = if groups.is_empty() { "step".to_owned() } else { groups.join(", ") };
        format!(
            "INSERT INTO {delta} SELECT * FROM {table} \
             WHERE step = (SELECT min(step) FROM {table}) AND step < ?1 ORDER BY {order} LIMIT ?2"
        )
    }

    /// Forgets the steps before `?1` of the groups in `delta`.
    pub(crate) fn forget_groups(&self, table: &str, delta: &str) -> String {
        if self.keys == 0 {
            return self.forget(table);
        }
        let keys = self.key_columns().join(", ");
        let groups = self.group_columns();
        let groups = groups.iter().map(|key| format!("{delta}.{key}")).collect::<Vec<_>>();
        format!(
            "DELETE FROM {table} WHERE ({keys}) IN ({} SELECT steps.step, {} \
             FROM steps CROSS JOIN {delta} WHERE steps.step < ?1)",
            steps(table),
            groups.join(", "),
        )
    }
}
