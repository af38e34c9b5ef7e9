//! What a process is to be, and the tables that are made for it.

use postgres::Transaction;

use super::adding::{Adding, MOST_TRIED, events, statement};
use super::check_circle;
use crate::engine::EngineError;
use crate::engine::postgres::error::{Failure, query_error};
use crate::engine::postgres::query;
use crate::engine::postgres::storage::{self, Stream};
use crate::events::keys::Kinds;
use crate::sql::groups::same_row_by;
use crate::sql::plan::{Dialect, Plan};
use crate::sql::postgresql;
use crate::sql::relations::Relation;
use crate::sql::{Parsed, print};

/// The longest name that a column of a process can have, in bytes: PostgreSQL cuts longer ones.
const LONGEST_NAME: usize = 63;

/// How many stored events are given to a new process at once.
const SLICE: i64 = 20_000;

/// What a process is to be.
pub(super) struct Draft {
    parsed: Parsed,
    /// How its result is added to, or why it cannot be.
    pub(super) plan: Result<Plan, String>,
    pub(super) columns: Vec<String>,
    pub(super) reads: Vec<String>,
    /// A query for the rows that it begins with.
    pub(super) sql: String,
    /// Whose events are added to it, if there is such a stream.
    stream: Option<Stream>,
    keys: Vec<(String, Kinds)>,
}

/// What came of making its tables.
pub(super) struct Made {
    pub(super) types: Vec<String>,
    pub(super) kept: i64,
    pub(super) skipped: i64,
    pub(super) error: Option<String>,
}

impl Draft {
    pub(super) fn new(
        transaction: &mut Transaction<'_>,
        name: &str,
        query: &str,
    ) -> Result<Self, Failure> {
        let parsed = postgresql::parse(query, &[])?;
        let names = query::names(transaction, &parsed)?;
        let runnable = postgresql::rewrite(&parsed, &names)?;
        let reads: Vec<String> = runnable.reads.iter().cloned().collect();
        check_circle(transaction, name, &reads)?;
        let columns = query::columns_of(transaction, &runnable)?;
        let columns: Vec<String> = columns.into_iter().map(|column| column.name).collect();
        if let Some(long) = columns.iter().find(|column| column.len() > LONGEST_NAME) {
            let why = format!(
                "the name of a column of a process can have {LONGEST_NAME} bytes: {long:?}"
            );
            return Err(EngineError::Invalid(why).into());
        }
        let is_process = |stream: &str| {
            let mut relations = names.0.iter();
            relations.any(|(name, it)| name == stream && matches!(it, Relation::Process { .. }))
        };
        let plan = match Plan::new(&parsed, Dialect::Postgresql) {
            Ok(plan) if is_process(plan.stream()) => Err("it reads another process".to_owned()),
            Ok(plan) if plan.has_too_many_keys() => Err("it groups by too many keys".to_owned()),
            plan => plan,
        };
        let (mut stream, mut keys) = (None, Vec::new());
        let sql = match &plan {
            Ok(plan) => {
                // What is committed from here on is added by others, who wait for this lock.
                stream = storage::find_locked(transaction, plan.stream())?;
                if let Some(stream) = &stream {
                    keys = storage::keys(transaction, stream.number)?;
                }
                plan.rows_of(&events(plan, &keys, "false".to_owned()))?
            }
            Err(_) => {
                let places = (0..columns.len()).map(|place| format!("c{place}"));
                let places = places.collect::<Vec<_>>().join(", ");
                format!("SELECT * FROM ({}) AS q ({places})", runnable.sql)
            }
        };
        Ok(Self { parsed, plan, columns, reads, sql, stream, keys })
    }

    /// The stream that its events are added from.
    pub(super) fn stream(&self) -> Option<&str> {
        self.plan.as_ref().ok().map(Plan::stream)
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.plan.as_ref().err().map(String::as_str)
    }

    /// What its rows are of, if it is added to.
    pub(super) fn seen(&self) -> Option<String> {
        self.plan.as_ref().ok().map(|_| match &self.stream {
            Some(stream) => stream.seen(),
            None => Stream::NOTHING_SEEN.to_owned(),
        })
    }

    /// A `SELECT` of the rows in a table, as queries read them.
    pub(super) fn rows(&self, table: &str) -> String {
        let outputs: Vec<(String, String)> = match &self.plan {
            Ok(plan) => plan.named_outputs(self.columns.iter().map(String::as_str)),
            Err(_) => {
                let columns = self.columns.iter().enumerate();
                columns.map(|(place, name)| (format!("c{place}"), name.clone())).collect()
            }
        };
        let outputs = outputs
            .iter()
            .map(|(sql, name)| format!("{sql} AS {}", print::name(&postgresql::folded(name))));
        let outputs = outputs.collect::<Vec<_>>().join(", ");
        let having = self.plan.as_ref().ok().and_then(Plan::having);
        let having = having.map_or_else(String::new, |having| format!(" WHERE {having}"));
        format!("SELECT {outputs} FROM {table}{having}")
    }

    /// By which of its columns a row is the same after a change.
    pub(super) fn same_row_by(&self) -> Option<Vec<usize>> {
        same_row_by(&self.parsed)
    }

    /// Makes the tables, and gives them all stored events.
    pub(super) fn make(
        &self,
        transaction: &mut Transaction<'_>,
        table: &str,
        most_distinct: i64,
    ) -> Result<Made, Failure> {
        let types = types(transaction, &self.sql)?;
        transaction
            .batch_execute(&format!("CREATE TABLE {table} AS {}", self.sql))
            .map_err(query_error)?;
        let mut made = Made { types, kept: 0, skipped: 0, error: None };
        let Ok(plan) = &self.plan else { return Ok(made) };
        let id = plan.id();
        let mut create = format!("ALTER TABLE {table} ADD PRIMARY KEY ({id});");
        for (place, _) in plan.distinct_states().enumerate() {
            create.push_str(&format!(
                "CREATE TABLE {table}_d{place} (hash bytea, value bytea, PRIMARY KEY (hash, value));"
            ));
        }
        transaction.batch_execute(&create)?;
        let Some(stream) = &self.stream else { return Ok(made) };
        let sql = statement(plan, table, &self.columns, stream.number, &self.keys, false)?;
        let mut from = stream.first;
        let mut adding = Adding::new(&sql, None, 0, most_distinct);
        while from < stream.next {
            let to = stream.next.min(from + SLICE);
            adding.add(transaction, from..to)?;
            let too_many = adding.error.take_if(|_| adding.skipped >= MOST_TRIED);
            let full = adding.full.take().map(|(_, why)| why);
            if let Some(why) = full.or(too_many) {
                return Err(EngineError::Invalid(why).into());
            }
            from = to;
        }
        (made.kept, made.skipped, made.error) = (adding.kept, adding.skipped, adding.error);
        Ok(made)
    }
}

/// The types of a query's columns.
pub(super) fn types(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<String>, Failure> {
    let statement = transaction.prepare(sql).map_err(query_error)?;
    Ok(statement.columns().iter().map(|column| column.type_().name().to_owned()).collect())
}
