//! A process with the result that a file has of it.

use std::time::Duration;

use postgres::Transaction;
use postgres::types::ToSql;

use super::adding::events;
use super::draft::types;
use super::fill::{give, most};
use super::{Process, create, look};
use crate::engine::EngineError;
use crate::engine::postgres::error::{Failure, query_error};
use crate::engine::postgres::import::text;
use crate::engine::postgres::storage;
use crate::engine::sqlite::export::{Export, Exported, ExportedProcess, ExportedStream};
use crate::events::keys::Kinds;
use crate::settings::Limits;
use crate::sql::plan::Plan;

/// How many rows are put into a table at once, and of how many bytes.
const AT_ONCE: usize = 1000;
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What the server of the file may have been allowed.
fn unbounded() -> Limits {
    let (query_time, query_rows) = (Duration::MAX, usize::MAX);
    Limits { query_time, query_rows, max_distinct: usize::MAX, ..Limits::default() }
}

/// Makes a process over what a file has of it, and over those events that it was not given there. `stream`: the one that
/// it reads, if there is one. What cannot be copied is `Invalid`.
pub(crate) fn create_copied(
    transaction: &mut Transaction<'_>,
    export: &Export,
    exported: &ExportedProcess,
    stream: Option<&ExportedStream>,
) -> Result<i64, Failure> {
    let number = create(transaction, &exported.name, &exported.definition.query, &unbounded())?;
    let process = find(transaction, number)?;
    if let Some(why) = process.why {
        return Err(EngineError::Invalid(why).into());
    }
    let (plan, sqlite) = (process.plan()?, export.plan(exported)?);
    let columns = plan.kept_in(&sqlite).map_err(EngineError::Invalid)?;
    let values = plan.values_in(&sqlite).map_err(EngineError::Invalid)?;
    let keys = keys(transaction, &process)?;
    let (table, types) = (&process.table(), &process.types);
    let copy = Copy { plan: &plan, keys, table, types };
    let mut rows = copy.rows();
    let of = stream.filter(|_| plan.is_of_events());
    if of.is_some() || !plan.is_of_events() {
        export.rows(exported, &columns, of, |row| rows.put(transaction, row))?;
        rows.end(transaction)?;
    }
    let mut kept = 0;
    for (count, (place, columns)) in values.iter().enumerate() {
        let mut values = copy.values(transaction, count)?;
        export.distinct_values(exported, *place, columns, |row| values.put(transaction, row))?;
        values.end(transaction)?;
        let count = format!("SELECT count(*) FROM {table}_d{count}");
        kept += transaction.query_one(&count, &[])?.get::<_, i64>(0);
    }
    for count in plan.count_values(table) {
        transaction.execute(&count, &[])?;
    }
    // The result of a process that keeps as much as it may ends in the middle of its stream.
    let update = "UPDATE stride.processes SET kept = $2, filled = $3 WHERE number = $1";
    transaction.execute(update, &[&number, &kept, &exported.next])?;
    make_whole(transaction, number)?;
    Ok(number)
}

/// Makes a process over all stored events.
pub(crate) fn create_whole(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
) -> Result<i64, Failure> {
    let number = create(transaction, name, query, &unbounded())?;
    make_whole(transaction, number)?;
    Ok(number)
}

/// Gives a process the stored events that it lacks.
fn make_whole(transaction: &mut Transaction<'_>, number: i64) -> Result<(), Failure> {
    let mut process = find(transaction, number)?;
    let Some((filled, name)) = process.filled.zip(process.stream.clone()) else { return Ok(()) };
    if let Some(stream) = storage::find_locked(transaction, &name)? {
        let keys = storage::keys(transaction, stream.number)?;
        let mut from = filled.max(stream.first);
        while from < stream.next {
            let to = stream.next.min(from + most(&stream));
            give(transaction, &process, &stream, &keys, from..to, &unbounded(), false)?;
            process = find(transaction, number)?;
            from = to;
        }
    }
    let update = "UPDATE stride.processes SET filled = NULL WHERE number = $1";
    transaction.execute(update, &[&number])?;
    Ok(())
}

fn find(transaction: &mut Transaction<'_>, number: i64) -> Result<Process, Failure> {
    let gone = || EngineError::Broken("a process that was just made is gone".to_owned());
    Ok(look(transaction, number, "")?.ok_or_else(gone)?)
}

/// The keys of the stream that a process reads.
fn keys(
    transaction: &mut Transaction<'_>,
    process: &Process,
) -> Result<Vec<(String, Kinds)>, Failure> {
    let Some(name) = &process.stream else { return Ok(Vec::new()) };
    match storage::find_locked(transaction, name)? {
        Some(stream) => storage::keys(transaction, stream.number),
        None => Ok(Vec::new()),
    }
}

/// A copy into the tables of a process.
struct Copy<'a> {
    plan: &'a Plan,
    keys: Vec<(String, Kinds)>,
    table: &'a str,
    /// Those of the columns of its table.
    types: &'a [String],
}

impl Copy<'_> {
    fn rows(&self) -> Rows {
        // A hash is made of the keys, and the place of an event is copied.
        let is_copied = usize::from(self.plan.is_of_events());
        let types = self.types[1 - is_copied..].to_vec();
        let columns = 0..types.len();
        let key = |column: usize| self.plan.key_in(column.checked_sub(is_copied)?);
        let kinds = columns.map(|column| self.kinds(key(column))).collect();
        Rows::new(self.plan.put(self.table, self.types), types, kinds)
    }

    fn values(&self, transaction: &mut Transaction<'_>, count: usize) -> Result<Rows, Failure> {
        let events = events(self.plan, &self.keys, "false".to_owned());
        let alone = self.plan.values_alone(&events)?;
        let of = types(transaction, &alone[count])?.remove(0);
        let put = self.plan.put_values(self.table, count, self.types, &of);
        let keys = self.plan.keys().len();
        let mut types = self.types[1..=keys].to_vec();
        types.push(of);
        let named = (0..keys).map(|key| self.plan.key_in(key));
        let named = named.chain([self.plan.key_of_value(count)]);
        let kinds = named.map(|key| self.kinds(key)).collect();
        Ok(Rows::new(put, types, kinds))
    }

    fn kinds(&self, key: Option<&str>) -> Kinds {
        let mut keys = self.keys.iter();
        keys.find(|(known, _)| Some(&**known) == key).map_or(Kinds::NULL, |(_, kinds)| *kinds)
    }
}

/// Rows on their way into a table, column by column.
struct Rows {
    put: String,
    types: Vec<String>,
    kinds: Vec<Kinds>,
    columns: Vec<Vec<Option<String>>>,
    bytes: usize,
}

impl Rows {
    fn new(put: String, types: Vec<String>, kinds: Vec<Kinds>) -> Self {
        let columns = vec![Vec::new(); types.len()];
        Self { put, types, kinds, columns, bytes: 0 }
    }

    fn put(
        &mut self,
        transaction: &mut Transaction<'_>,
        row: Vec<Exported>,
    ) -> Result<(), Failure> {
        for (place, value) in row.into_iter().enumerate() {
            let text = text(value, &self.types[place], self.kinds[place]);
            let text = text.map_err(EngineError::Invalid)?;
            self.bytes += text.as_ref().map_or(0, String::len);
            self.columns[place].push(text);
        }
        if self.columns[0].len() >= AT_ONCE || self.bytes >= MOST_BYTES {
            self.end(transaction)?;
        }
        Ok(())
    }

    /// Puts what is left.
    fn end(&mut self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        let empty = vec![Vec::new(); self.columns.len()];
        let columns = std::mem::replace(&mut self.columns, empty);
        self.bytes = 0;
        let parameters: Vec<&(dyn ToSql + Sync)> =
            columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
        let mut attempt = transaction.transaction()?;
        match attempt.execute(&self.put, &parameters).map_err(query_error) {
            Ok(_) => return Ok(attempt.commit()?),
            Err(EngineError::Invalid(_)) => attempt.rollback()?,
            Err(error) => return Err(error.into()),
        }
        // Groups of the file that are one to PostgreSQL, such as objects with members in another order, cannot be put with
        // one statement. What else is wrong with a row is found then, too.
        for row in 0..columns[0].len() {
            let row: Vec<Vec<Option<&str>>> =
                columns.iter().map(|column| vec![column[row].as_deref()]).collect();
            let parameters: Vec<&(dyn ToSql + Sync)> =
                row.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            transaction.execute(&self.put, &parameters).map_err(query_error)?;
        }
        Ok(())
    }
}
