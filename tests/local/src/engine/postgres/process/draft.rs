//! What a process is to be, and the tables that are made for it.

use postgres::Transaction;

use super::adding::events;
use super::{check_circle, homes, successor};
use crate::engine::EngineError;
use crate::engine::postgres::error::{Failure, query_error};
use crate::engine::postgres::query;
use crate::engine::postgres::storage::{self, Stream};
use crate::events::keys::Kinds;
use crate::settings::Limits;
use crate::sql::groups::same_row_by;
use crate::sql::plan::{Dialect, Plan};
use crate::sql::postgresql;
use crate::sql::relations::Relation;
use crate::sql::{Parsed, print};

/// The longest name that a column of a process can have, in bytes: PostgreSQL cuts longer ones.
const LONGEST_NAME: usize = 63;

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
    pub(super) stored: Option<Stream>,
    pub(super) keys: Vec<(String, Kinds)>,
}

impl Draft {
    pub(super) fn new(
        transaction: &mut Transaction<'_>,
        name: &str,
        query: &str,
    ) -> Result<Self, Failure> {
        let mut parsed = postgresql::parse(query, &[])?;
        let names = query::names(transaction, &parsed)?;
        let named = successor::visible(name);
        parsed.homes = homes::of(transaction, named, query)?;
        let runnable = postgresql::rewrite(&parsed, &names)?;
        if runnable.homes != parsed.homes {
            homes::keep(transaction, named, query, &runnable.homes)?;
        }
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
        let (mut stored, mut keys) = (None, Vec::new());
        let sql = match &plan {
            Ok(plan) => {
                // What is committed from here on is added by others, who wait for this lock.
                stored = storage::find_locked(transaction, plan.stream())?;
                if let Some(stream) = &stored {
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
        Ok(Self { parsed, plan, columns, reads, sql, stored, keys })
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
        self.plan.as_ref().ok().map(|_| match &self.stored {
            Some(stream) => stream.seen(),
            None => Stream::NOTHING_SEEN.to_owned(),
        })
    }

    /// The oldest stored event that is to be added to it.
    pub(super) fn first(&self) -> Option<i64> {
        self.stored.as_ref().filter(|stream| stream.first < stream.next).map(|stream| stream.first)
    }

    /// A `SELECT` of the rows in a table, as queries read them.
    pub(super) fn rows(&self, table: &str) -> String {
        rows(self.plan.as_ref().ok(), &self.columns, table)
    }

    /// By which of its columns a row is the same after a change.
    pub(super) fn same_row_by(&self) -> Option<Vec<usize>> {
        same_row_by(&self.parsed)
    }

    /// Makes the tables, with what the rows are before any event is added, and returns their types.
    pub(super) fn make(
        &self,
        transaction: &mut Transaction<'_>,
        table: &str,
        limits: &Limits,
    ) -> Result<Vec<String>, Failure> {
        let types = types(transaction, &self.sql)?;
        let Ok(plan) = &self.plan else {
            self.compute(transaction, &format!("TABLE {table}"), limits)?;
            return Ok(types);
        };
        transaction
            .batch_execute(&format!("CREATE TABLE {table} AS {}", self.sql))
            .map_err(query_error)?;
        let mut create = format!("ALTER TABLE {table} ADD PRIMARY KEY ({});", plan.id());
        for (place, _) in plan.distinct_states().enumerate() {
            create.push_str(&format!(
                "CREATE TABLE {table}_d{place} (hash bytea, value bytea, PRIMARY KEY (hash, value));"
            ));
        }
        transaction.batch_execute(&create)?;
        Ok(types)
    }

    /// Makes what `CREATE` says of all rows of a query, which may take as long, and be as many, as those of any other.
    pub(super) fn compute(
        &self,
        transaction: &mut Transaction<'_>,
        create: &str,
        limits: &Limits,
    ) -> Result<(), Failure> {
        let (most, milliseconds) = (limits.query_rows, limits.query_time.as_millis().max(1));
        let timeout = milliseconds.min(i32::MAX.unsigned_abs().into());
        transaction.batch_execute(&format!("SET LOCAL statement_timeout = {timeout}"))?;
        let one_more = most.saturating_add(1).min(i64::MAX as usize);
        let create = format!("CREATE {create} AS {} LIMIT {one_more}", self.sql);
        let rows = transaction.execute(&create, &[]).map_err(Failure::of_query)?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
        if rows > most as u64 {
            let why = format!("the result has more than {most} rows: use LIMIT");
            return Err(EngineError::Invalid(why).into());
        }
        Ok(())
    }
}

/// A `SELECT` of the rows in a table, as queries read them. A process that is not added to has no plan.
pub(super) fn rows(plan: Option<&Plan>, columns: &[String], table: &str) -> String {
    let outputs: Vec<(String, String)> = match plan {
        Some(plan) => plan.named_outputs(columns.iter().map(String::as_str)),
        None => {
            let columns = columns.iter().enumerate();
            columns.map(|(place, name)| (format!("c{place}"), name.clone())).collect()
        }
    };
    let outputs = outputs
        .iter()
        .map(|(sql, name)| format!("{sql} AS {}", print::name(&postgresql::folded(name))));
    let outputs = outputs.collect::<Vec<_>>().join(", ");
    let having = plan.and_then(Plan::having);
    let having = having.map_or_else(String::new, |having| format!(" WHERE {having}"));
    format!("SELECT {outputs} FROM {table}{having}")
}

/// The types of a query's columns.
pub(super) fn types(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<String>, Failure> {
    let statement = transaction.prepare(sql).map_err(query_error)?;
    Ok(statement.columns().iter().map(|column| column.type_().name().to_owned()).collect())
}
