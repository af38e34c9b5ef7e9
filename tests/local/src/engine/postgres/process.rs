//! Processes: each has a table of its rows, and a feed of what changed in them.
//!
//! An incremental process is added to by one upsert, in the transaction that stores the events and while it holds the
//! lock of their stream. The others are run again by one server at a time.

mod added;
mod expiry;
mod rerun;

use std::collections::{BTreeSet, HashMap};

use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::ToSql;
use postgres::{Row, Transaction};

use super::error::{Failure, query_error};
use super::query;
use super::schema::{lock_names, next_number};
use super::storage::Events;
use crate::engine::{Definition, EngineError, Mode, ProcessStats, Ttl};
use crate::sql::groups::same_row_by;
use crate::sql::postgresql::{self, plan::Plan};
use crate::sql::relations::Relation;
use crate::sql::{Parsed, print};
use crate::subscribers::records::{DELIMITER, Records};

pub(super) use self::added::added;
pub(super) use self::expiry::{MOST_EXPIRED, expire, set_ttl, ttl, with_ttl};
pub(super) use self::rerun::{recomputed, run_again};

/// The longest name that a column of a process can have, in bytes: PostgreSQL cuts longer ones.
const LONGEST_NAME: usize = 63;

/// A process as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) number: i64,
    pub(super) name: String,
    pub(super) query: String,
    stream: Option<String>,
    reads: Vec<String>,
    columns: Vec<String>,
    types: Vec<String>,
    next: i64,
    seen: Option<String>,
    skipped: i64,
    error: Option<String>,
}

const COLUMNS: &str =
    "number, name, query, stream, reads, columns, types, next, seen, skipped, error";

impl Process {
    fn of(row: &Row) -> Self {
        Self {
            number: row.get(0),
            name: row.get(1),
            query: row.get(2),
            stream: row.get(3),
            reads: row.get(4),
            columns: row.get(5),
            types: row.get(6),
            next: row.get(7),
            seen: row.get(8),
            skipped: row.get(9),
            error: row.get(10),
        }
    }

    fn table(&self) -> String {
        table(self.number)
    }

    fn stats(&self, rows: &HashMap<i64, i64>) -> ProcessStats {
        let mode = if self.stream.is_some() { Mode::Incremental } else { Mode::Recomputed };
        let mut stats = ProcessStats::new(mode);
        stats.rows = rows.get(&self.number).map_or(0, |rows| rows.unsigned_abs());
        stats.skipped = self.skipped.unsigned_abs();
        stats.set_stale(self.error.is_some());
        stats.last_error.clone_from(&self.error);
        stats
    }
}

fn table(number: i64) -> String {
    format!("stride.p_{number}")
}

pub(super) fn find(transaction: &mut Transaction<'_>, name: &str) -> Result<Process, Failure> {
    let select = format!("SELECT {COLUMNS} FROM stride.processes WHERE name = $1 FOR UPDATE");
    let row = transaction.query_opt(&select, &[&name])?;
    row.map(|row| Process::of(&row)).ok_or_else(|| no_process(name).into())
}

pub(super) fn no_process(name: &str) -> EngineError {
    EngineError::NotFound(format!("there is no process {name:?}"))
}

/// What a process is to be.
struct Draft {
    parsed: Parsed,
    plan: Option<Plan>,
    /// What its table is made of.
    sql: String,
    /// The columns of its rows, as SQL over its table, with their names.
    outputs: Vec<(String, String)>,
    reads: Vec<String>,
    /// What its rows are of, if it is added to.
    keys_version: Option<i64>,
}

impl Draft {
    fn new(transaction: &mut Transaction<'_>, name: &str, query: &str) -> Result<Self, Failure> {
        let parsed = postgresql::parse(query, &[])?;
        let names = query::names(transaction, &parsed)?;
        let runnable = postgresql::rewrite(&parsed, &names)?;
        let reads: Vec<String> = runnable.reads.iter().cloned().collect();
        check_circle(transaction, name, &reads)?;
        let columns = query::columns_of(transaction, &runnable)?;
        if let Some(long) = columns.iter().find(|column| column.name.len() > LONGEST_NAME) {
            let why = format!(
                "the name of a column of a process can have {LONGEST_NAME} bytes: {:?}",
                long.name
            );
            return Err(EngineError::Invalid(why).into());
        }
        let is_process = |stream: &str| {
            names
                .0
                .iter()
                .any(|(name, it)| name == stream && matches!(it, Relation::Process { .. }))
        };
        let plan = Plan::new(&parsed).filter(|plan| !is_process(&plan.stream));
        let mut keys_version = None;
        let names = match &plan {
            // What is committed from here on is added by others, who wait for this lock.
            Some(plan) => {
                let lock = "SELECT keys_version FROM stride.streams WHERE name = $1 FOR UPDATE";
                let row = transaction.query_opt(lock, &[&plan.stream])?;
                keys_version = Some(row.map_or(0, |row| row.get(0)));
                query::names(transaction, &parsed)?
            }
            None => names,
        };
        let (sql, outputs) = match &plan {
            Some(plan) => {
                let named = plan.outputs.iter().zip(&columns);
                let outputs =
                    named.map(|((sql, _), column)| (sql.clone(), column.name.clone())).collect();
                (plan.read(&names)?, outputs)
            }
            None => {
                let outputs = columns.iter().enumerate();
                let outputs: Vec<(String, String)> =
                    outputs.map(|(place, it)| (format!("c{place}"), it.name.clone())).collect();
                let places: Vec<&str> = outputs.iter().map(|(place, _)| place.as_str()).collect();
                let sql = postgresql::rewrite(&parsed, &names)?.sql;
                (format!("SELECT * FROM ({sql}) AS q ({})", places.join(", ")), outputs)
            }
        };
        Ok(Self { parsed, plan, sql, outputs, reads, keys_version })
    }

    /// A `SELECT` of the rows, as queries read them.
    fn rows(&self, number: i64) -> String {
        let outputs = self
            .outputs
            .iter()
            .map(|(sql, name)| format!("{sql} AS {}", print::name(&postgresql::folded(name))));
        let outputs = outputs.collect::<Vec<_>>().join(", ");
        format!("SELECT {outputs} FROM {}", table(number))
    }

    fn columns(&self) -> Vec<&str> {
        self.outputs.iter().map(|(_, name)| name.as_str()).collect()
    }

    /// Makes the table, and returns the types of its columns.
    fn make(&self, transaction: &mut Transaction<'_>, number: i64) -> Result<Vec<String>, Failure> {
        let table = table(number);
        let types = types(transaction, &self.sql)?;
        transaction
            .batch_execute(&format!("CREATE TABLE {table} AS {}", self.sql))
            .map_err(query_error)?;
        if self.plan.is_some() {
            transaction.batch_execute(&format!("ALTER TABLE {table} ADD PRIMARY KEY (hash)"))?;
        }
        Ok(types)
    }

    /// Rows of a table as JSON, told apart by what they are grouped by.
    fn as_json(&self, table: &str) -> String {
        let outputs = objects(&self.outputs);
        let id = match same_row_by(&self.parsed).filter(|it| it.len() <= 50) {
            Some(columns) => {
                let columns: Vec<String> = columns
                    .iter()
                    .filter_map(|column| self.outputs.get(*column))
                    .map(|(sql, _)| format!("stride.out({sql})"))
                    .collect();
                format!("jsonb_build_array({})::text", columns.join(", "))
            }
            None => "row_to_json(r)::text".to_owned(),
        };
        format!(
            "SELECT id, row, row_number() OVER (PARTITION BY id) AS nth FROM \
             (SELECT sha256(convert_to({id}, 'UTF8')) AS id, row_to_json(r)::text AS row \
             FROM {table} AS t CROSS JOIN LATERAL (SELECT {outputs}) AS r) AS rows"
        )
    }

    /// Notes the changes from one table to another, and returns whether there are any.
    fn note_changes(
        &self,
        transaction: &mut Transaction<'_>,
        process: &Process,
        old: &str,
        new: &str,
    ) -> Result<bool, Failure> {
        let (old, new) = (self.as_json(old), self.as_json(new));
        let insert = format!(
            "INSERT INTO stride.changes SELECT $1, $2, now(), {CHANGES} \
             FROM ({old}) AS o FULL JOIN ({new}) AS n USING (id, nth) \
             WHERE o.row IS DISTINCT FROM n.row HAVING count(*) > 0"
        );
        let inserted = transaction.execute(&insert, &[&process.number, &process.next])?;
        Ok(inserted > 0)
    }
}

/// Changes as they are sent: `o` has a row as it was, `n` as it is.
const CHANGES: &str = r#"string_agg('{"old":' || coalesce(o.row, 'null') || ',"new":' || coalesce(n.row, 'null')
    || '}' || E'\r\n', '')"#;

/// The columns of rows as they are sent.
fn objects(outputs: &[(String, String)]) -> String {
    let outputs =
        outputs.iter().map(|(sql, name)| format!("stride.out({sql}) AS {}", print::name(name)));
    outputs.collect::<Vec<_>>().join(", ")
}

/// The types of a query's columns.
fn types(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<String>, Failure> {
    let statement = transaction.prepare(sql).map_err(query_error)?;
    Ok(statement.columns().iter().map(|column| column.type_().name().to_owned()).collect())
}

/// A process must not read itself, by others or not.
fn check_circle(
    transaction: &mut Transaction<'_>,
    name: &str,
    reads: &[String],
) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    let mut open = reads.to_vec();
    while let Some(read) = open.pop() {
        if read == name {
            return Err(EngineError::Invalid(format!("{name:?} would read itself")).into());
        }
        if known.insert(read.clone()) {
            let select = "SELECT reads FROM stride.processes WHERE name = $1";
            if let Some(row) = transaction.query_opt(select, &[&read])? {
                open.extend(row.get::<_, Vec<String>>(0));
            }
        }
    }
    Ok(())
}

/// Starts a process over what is stored and what will be.
pub(super) fn create(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
) -> Result<i64, Failure> {
    lock_names(transaction)?;
    for (table, what) in [("streams", "stream"), ("processes", "process")] {
        let taken = format!("SELECT 1 FROM stride.{table} WHERE name = $1");
        if transaction.query_opt(&taken, &[&name])?.is_some() {
            let why = format!("there is a {what} {name:?} already");
            return Err(EngineError::Conflict(why).into());
        }
    }
    let draft = Draft::new(transaction, name, query)?;
    let number = next_number(transaction, "processes")?;
    let types = draft.make(transaction, number)?;
    let insert = "INSERT INTO stride.processes VALUES
        ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, 0, NULL)";
    let stream = draft.plan.as_ref().map(|plan| plan.stream.as_str());
    let seen = draft.keys_version.map(|version| version.to_string());
    transaction.execute(
        insert,
        &[
            &number,
            &name,
            &query,
            &stream,
            &draft.reads,
            &draft.rows(number),
            &draft.columns(),
            &types,
            &seen,
        ],
    )?;
    Ok(number)
}

/// A new query starts anew, over what is stored.
pub(super) fn change(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
) -> Result<i64, Failure> {
    lock_names(transaction)?;
    let process = find(transaction, name)?;
    let draft = Draft::new(transaction, name, query)?;
    let stream = draft.plan.as_ref().map(|plan| plan.stream.as_str());
    let update = "UPDATE stride.processes SET query = $2, stream = $3, reads = $4, skipped = 0
        WHERE number = $1";
    transaction.execute(update, &[&process.number, &query, &stream, &draft.reads])?;
    replace(transaction, &process, &draft, false)?;
    Ok(process.number)
}

/// Puts a new table in the place of a process's. `is_same`: the columns are the same, so that what changed can be noted.
fn replace(
    transaction: &mut Transaction<'_>,
    process: &Process,
    draft: &Draft,
    is_same: bool,
) -> Result<bool, Failure> {
    let (table, number) = (process.table(), process.number);
    let old = format!("{table}_old");
    transaction.batch_execute(&format!("ALTER TABLE {table} RENAME TO p_{number}_old"))?;
    let types = draft.make(transaction, number)?;
    // A change that is not among those that are noted tells subscribers that they lack something.
    let changed = !is_same || draft.note_changes(transaction, process, &old, &table)?;
    transaction.batch_execute(&format!("DROP TABLE {old}"))?;
    let update = "UPDATE stride.processes
        SET rows = $2, columns = $3, types = $4, seen = $5, next = next + $6, error = NULL
        WHERE number = $1";
    let seen = draft.keys_version.map(|version| version.to_string());
    let changes = i64::from(changed);
    let (rows, columns) = (draft.rows(number), draft.columns());
    transaction.execute(update, &[&number, &rows, &columns, &types, &seen, &changes])?;
    Ok(changed)
}

/// Deletes a process that no other reads.
pub(super) fn delete(transaction: &mut Transaction<'_>, name: &str) -> Result<i64, Failure> {
    lock_names(transaction)?;
    let process = find(transaction, name)?;
    let reader = "SELECT name FROM stride.processes WHERE $1 = ANY(reads) LIMIT 1";
    if let Some(reader) = transaction.query_opt(reader, &[&name])? {
        let reader: &str = reader.get(0);
        return Err(EngineError::Conflict(format!("the process {reader:?} reads {name:?}")).into());
    }
    transaction.execute("DELETE FROM stride.processes WHERE number = $1", &[&process.number])?;
    transaction.execute("DELETE FROM stride.changes WHERE process = $1", &[&process.number])?;
    transaction.batch_execute(&format!("DROP TABLE {}", process.table()))?;
    Ok(process.number)
}

/// The changes at places from `from` up to, but without, `next`; `None` if not all of them are kept.
pub(super) fn changes(
    transaction: &mut Transaction<'_>,
    process: i64,
    from: i64,
    next: i64,
) -> Result<Option<Records>, Failure> {
    let select = "SELECT changes FROM stride.changes
        WHERE process = $1 AND place >= $2 AND place < $3 ORDER BY place";
    let rows = transaction.query(select, &[&process, &from, &next])?;
    if rows.len() as u64 != next.abs_diff(from) {
        return Ok(None);
    }
    let mut text = Vec::new();
    for row in rows {
        text.extend_from_slice(row.get::<_, &str>(0).as_bytes());
    }
    // JSON holds no line break.
    let ends = memchr::memmem::find_iter(&text, DELIMITER).map(|at| at + DELIMITER.len());
    let ends = ends.collect();
    Ok(Some(Records { text: text.into(), ends }))
}

/// All rows of a process, each as new, with the change to come after them.
pub(super) fn snapshot(
    transaction: &mut Transaction<'_>,
    name: &str,
    most: usize,
) -> Result<(i64, i64, Records), Failure> {
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let select = "SELECT number, next, rows, columns FROM stride.processes WHERE name = $1";
    let row = transaction.query_opt(select, &[&name])?.ok_or_else(|| no_process(name))?;
    let (rows, columns): (&str, Vec<String>) = (row.get(2), row.get(3));
    let outputs = columns.into_iter().map(|name| (print::name(&postgresql::folded(&name)), name));
    let objects = objects(&outputs.collect::<Vec<_>>());
    let select = format!(
        "SELECT '{{\"old\":null,\"new\":' || row_to_json(r) || '}}' \
         FROM ({rows}) AS t CROSS JOIN LATERAL (SELECT {objects}) AS r"
    );
    let mut events = Events::default();
    let mut rows = transaction.query_raw::<_, &i32, [&i32; 0]>(&select, [])?;
    while let Some(row) = rows.next()? {
        events.push(row.get(0));
        if events.text.len() > most {
            let why = format!("the rows of {name:?} take more than {most} bytes");
            return Err(EngineError::Invalid(why).into());
        }
    }
    drop(rows);
    Ok((row.get(0), row.get(1), events.into_records()))
}

/// How a process fares.
pub(super) fn stats(
    transaction: &mut Transaction<'_>,
    name: &str,
) -> Result<ProcessStats, Failure> {
    let process = look(transaction, "name = $1", &[&name])?.pop();
    let (process, _) = process.ok_or_else(|| no_process(name))?;
    let counts = counts(transaction, &[process.number])?;
    Ok(process.stats(&counts))
}

/// All processes, by name.
pub(super) fn all(
    transaction: &mut Transaction<'_>,
) -> Result<Vec<(String, Definition, ProcessStats)>, Failure> {
    let processes = look(transaction, "true", &[])?;
    let numbers: Vec<i64> = processes.iter().map(|(process, _)| process.number).collect();
    let counts = counts(transaction, &numbers)?;
    let all = processes.into_iter().map(|(process, ttl)| {
        let stats = process.stats(&counts);
        (process.name, Definition { query: process.query, ttl }, stats)
    });
    Ok(all.collect())
}

/// Looks processes up without waiting for those who add to them.
fn look(
    transaction: &mut Transaction<'_>,
    which: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<(Process, Option<Ttl>)>, Failure> {
    let select = format!(
        "SELECT {COLUMNS}, ttl_duration, ttl_column FROM stride.processes WHERE {which} ORDER BY name"
    );
    let rows = transaction.query(&select, parameters)?;
    let ttl = |row: &Row| {
        let (duration, column): (Option<String>, _) =
            (row.get("ttl_duration"), row.get::<_, Option<String>>("ttl_column"));
        duration.zip(column).map(|(duration, column)| Ttl { duration, column })
    };
    Ok(rows.iter().map(|row| (Process::of(row), ttl(row))).collect())
}

/// How many rows processes have, by their numbers, from one statement.
fn counts(
    transaction: &mut Transaction<'_>,
    processes: &[i64],
) -> Result<HashMap<i64, i64>, Failure> {
    let counts = processes
        .iter()
        .map(|number| format!("SELECT {number}::bigint, count(*) FROM {}", table(*number)));
    let counts = counts.collect::<Vec<_>>().join(" UNION ALL ");
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = transaction.query(&counts, &[]).map_err(|error| {
        // One was deleted meanwhile.
        let again = error.code() == Some(&SqlState::UNDEFINED_TABLE);
        Failure { again, ..Failure::from(error) }
    })?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
