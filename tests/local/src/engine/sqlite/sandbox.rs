//! What a connection lets SQL do that is made of somebody's query.
//!
//! The rewriting of names decides what a query reads. This is what holds if that goes wrong: the database asks
//! at every table, column and function that a statement mentions, and at the clock while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::engine::Wanted;
use crate::sql::print;

/// Steps of SQLite's machine between two looks at the clock. Each may be a function that reads some megabytes,
/// which takes milliseconds.
const LOOK: i32 = 100;

/// How large a value may become, in bytes: twice the largest event.
pub(super) const LARGEST_VALUE: usize = 4 * 1024 * 1024;

/// Everything that a query may call. SQLite has more, of extensions that nobody has looked at.
pub(in crate::engine) const FUNCTIONS: &[&str] = &[
    "->",
    "->>",
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "date_part",
    "date_trunc",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "if",
    "ifnull",
    "iif",
    "ilike",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_each",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_tree",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "max",
    "median",
    "min",
    "mod",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "randomblob",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "same_type",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "tan",
    "tanh",
    "time",
    "time_add",
    "time_key",
    "time_or_null",
    "time_step",
    "timediff",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unicode",
    "unixepoch",
    "unlikely",
    "upper",
    "utc",
    "zeroblob",
];

/// The sandbox of one connection. It is open until it is [entered](Self::enter).
#[derive(Clone, Debug, Default)]
pub(super) struct Sandbox(Arc<State>);

#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    until: Mutex<Until>,
    ended: AtomicBool,
}

/// How long what runs may run.
#[derive(Debug, Default)]
struct Until {
    deadline: Option<Instant>,
    wanted: Option<Wanted>,
}

/// While this lives, statements are held to the sandbox.
#[derive(Debug)]
pub(super) struct Inside<'s>(&'s Sandbox);

impl Sandbox {
    /// Puts a connection in a sandbox, in which it may write to the rows of processes, or not.
    pub(super) fn install(connection: &mut Connection, writes: bool) -> rusqlite::Result<Self> {
        let sandbox = Self::default();
        let asked = sandbox.clone();
        connection.progress_handler(LOOK, Some(move || asked.is_late()))?;
        let asked = sandbox.clone();
        let authorize = move |context: AuthContext<'_>| {
            if !asked.0.closed.load(Ordering::Relaxed) || is_allowed(&context, writes) {
                Authorization::Allow
            } else {
                Authorization::Deny
            }
        };
        connection.authorizer(Some(authorize))?;
        Ok(sandbox)
    }

    /// From here on it is somebody else's SQL, which has until `deadline`.
    pub(super) fn enter(&self, deadline: Option<Instant>) -> Inside<'_> {
        self.enter_while(deadline, None)
    }

    /// The same, for as long as somebody wants what comes of it.
    pub(super) fn enter_while(
        &self,
        deadline: Option<Instant>,
        wanted: Option<Wanted>,
    ) -> Inside<'_> {
        self.0.closed.store(true, Ordering::Relaxed);
        *self.until() = Until { deadline, wanted };
        Inside(self)
    }

    /// Whether what runs has used up its time.
    pub(super) fn is_late(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed) || self.until().is_over()
    }

    /// Has what runs, and what is run later, be late.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    fn until(&self) -> MutexGuard<'_, Until> {
        self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Until {
    fn is_over(&self) -> bool {
        self.wanted.as_ref().is_some_and(Wanted::is_given_up)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.until() = Until::default();
        self.0.0.closed.store(false, Ordering::Relaxed);
    }
}

fn is_allowed(context: &AuthContext<'_>, writes: bool) -> bool {
    // A relation that the query names, as the engine has put it before the query.
    let from_source = context.accessor.is_some_and(print::is_printed_marker);
    match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        // Without a column nothing is read but how many rows there are.
        AuthAction::Read { column_name: "", .. } => true,
        AuthAction::Read { table_name: "json_each" | "json_tree", .. } => true,
        AuthAction::Read { table_name: "events" | "blocks", .. } => from_source,
        AuthAction::Read { table_name, .. } => is_rows(table_name) && (from_source || writes),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => is_rows(table_name) && writes,
        AuthAction::Function { function_name } => FUNCTIONS.contains(&function_name),
        _ => false,
    }
}

/// Whether a table holds rows of a process, or what is to be added to them.
fn is_rows(table: &str) -> bool {
    table.starts_with("process_") || table.starts_with("delta_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE events (place INTEGER PRIMARY KEY, event);
                CREATE TABLE streams (name); CREATE TABLE process_1 (c0);
                INSERT INTO events VALUES (1, 'secret'); INSERT INTO process_1 VALUES ('row')",
            )
            .unwrap();
        connection
    }

    #[test]
    fn s1_the_database_refuses_what_no_relation_of_the_query_names() {
        let mut connection = tables();
        let sandbox = Sandbox::install(&mut connection, false).unwrap();
        let with = |part: &str| {
            format!("WITH {} AS NOT MATERIALIZED ({part})", print::name(&print::marker(0)))
        };
        let from = format!("FROM {}", print::name(&print::marker(0)));
        let events = with("SELECT event FROM main.events");
        let good = [
            format!("{events} SELECT event {from}"),
            format!("{events} SELECT count(*) {from}"),
            format!("{events}, x AS (SELECT * {from}) SELECT a.event FROM x a, x b"),
            format!("{} SELECT c0 {from}", with("SELECT c0 FROM main.process_1")),
        ];
        let bad = [
            "SELECT event FROM main.events".to_owned(),
            "SELECT place FROM events".to_owned(),
            "SELECT * FROM process_1".to_owned(),
            "SELECT name FROM streams".to_owned(),
            "SELECT sql FROM sqlite_master".to_owned(),
            "WITH x AS (SELECT event FROM main.events) SELECT * FROM x".to_owned(),
            "SELECT * FROM (SELECT event FROM main.events) AS \"\u{1}10\"".to_owned(),
            format!("{events} SELECT e.event FROM main.events AS e, {}", &from[5..]),
            format!("{events} SELECT (SELECT group_concat(event) FROM main.events) {from}"),
            "DELETE FROM process_1".to_owned(),
            "INSERT INTO events VALUES (2, 'x')".to_owned(),
            "PRAGMA query_only = 0".to_owned(),
            "ATTACH 'x' AS x".to_owned(),
            "SELECT load_extension('x')".to_owned(),
        ];
        for sql in &good {
            let _inside = sandbox.enter(None);
            connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        for sql in &bad {
            let inside = sandbox.enter(None);
            assert!(connection.prepare(sql).is_err(), "{sql}");
            drop(inside);
            assert!(sql.contains("load_ext") || connection.prepare(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn the_connection_that_writes_may_write_to_processes_only() {
        let mut connection = tables();
        let sandbox = Sandbox::install(&mut connection, true).unwrap();
        let _inside = sandbox.enter(None);
        for sql in ["DELETE FROM process_1", "INSERT INTO process_1 SELECT c0 FROM process_1"] {
            assert!(connection.prepare(sql).is_ok(), "{sql}");
        }
        for sql in ["DELETE FROM events", "INSERT INTO process_1 SELECT event FROM events"] {
            assert!(connection.prepare(sql).is_err(), "{sql}");
        }
    }
}
