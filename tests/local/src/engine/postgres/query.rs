//! Queries, by a login that may only read.

mod caller;

use std::time::Instant;

use postgres::fallible_iterator::FallibleIterator as _;
use postgres::{Client, Transaction};

pub(super) use self::caller::Caller;
use super::connections::{Connections, MOST_TRIES};
use super::error::{self, Failure, query_error};
use super::{process, storage};
use crate::engine::{EngineError, Rows};
use crate::settings::Limits;
use crate::sql::Parsed;
use crate::sql::columns::{Column, unique};
use crate::sql::postgresql;
use crate::sql::relations::{Catalogue, Relation};
use crate::sql::rewrite::Runnable;

/// What names stand for, as a transaction sees it. A catalogue is asked one name after the other, and this has looked
/// all of them up before.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) Vec<(String, Relation)>);

impl Catalogue for Names {
    fn relation(&self, name: &str) -> Result<Relation, EngineError> {
        let known = self.0.iter().find(|(known, _)| known == name);
        let nothing = Relation::Stream { number: None, rows: None, keys: Vec::new() };
        Ok(known.map_or(nothing, |(_, relation)| relation.clone()))
    }
}

/// Looks up what a query may read.
pub(super) fn names(transaction: &mut Transaction<'_>, parsed: &Parsed) -> Result<Names, Failure> {
    // What is not known stands for a stream without events: that is enough to find out the names.
    let runnable = postgresql::rewrite(parsed, &Names::default())?;
    let mut names = Names::default();
    for name in runnable.reads {
        if let Some(relation) = relation(transaction, &name)? {
            names.0.push((name, relation));
        }
    }
    Ok(names)
}

fn relation(transaction: &mut Transaction<'_>, name: &str) -> Result<Option<Relation>, Failure> {
    let select = "SELECT number FROM stride.streams WHERE name = $1";
    if let Some(row) = transaction.query_opt(select, &[&name])? {
        let number: i64 = row.get(0);
        let rows = Some(format!("stream = {number}"));
        let keys = storage::keys(transaction, number)?;
        return Ok(Some(Relation::Stream { number: Some(number), rows, keys }));
    }
    let select = "SELECT rows, columns FROM stride.processes WHERE name = $1";
    let Some(row) = transaction.query_opt(select, &[&name])? else { return Ok(None) };
    let names: Vec<String> = row.get(1);
    let columns = names.into_iter().map(|name| Column { name, boolean: false, time: false });
    Ok(Some(Relation::Process { select: row.get(0), columns: columns.collect() }))
}

/// Saves a query under a name.
pub(super) fn save(
    transaction: &mut Transaction<'_>,
    name: &str,
    query: &str,
) -> Result<(), Failure> {
    let parsed = postgresql::parse_without_values(query)?;
    // Of what types its values are depends on events to come.
    let names = names(transaction, &parsed)?;
    postgresql::rewrite(&parsed, &names)?;
    let upsert = "INSERT INTO stride.queries VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET query = excluded.query";
    transaction.execute(upsert, &[&name, &query])?;
    Ok(())
}

/// Runs a query for somebody, again if the database ended it: it changes nothing.
pub(super) fn run(
    readers: &Connections,
    limits: &Limits,
    parsed: &Parsed,
    caller: &Caller,
) -> Result<Rows, EngineError> {
    let (mut tries, begin) = (0, Instant::now());
    loop {
        tries += 1;
        let mut client = readers.take()?;
        if !caller.begins(client.cancel_token()) {
            readers.put_back(client);
            return Err(EngineError::unwanted());
        }
        let done = once(&mut client, limits, parsed);
        if caller.ends() {
            readers.put_back(client);
        }
        match done {
            Err(Failure { again: true, .. })
                if tries < MOST_TRIES && begin.elapsed() < limits.query_time => {}
            done => return done.map_err(|failure| failure.error),
        }
    }
}

/// Runs a query, all of which sees one moment.
fn once(client: &mut Client, limits: &Limits, parsed: &Parsed) -> Result<Rows, Failure> {
    let too_long = || {
        let most = limits.query_time.as_millis();
        let why = format!("the query takes more than {most} ms, which is the most that is allowed");
        Failure::from(EngineError::Invalid(why))
    };
    let failed = |error| match Failure::of_query(error) {
        failure if failure.error == error::too_long() => too_long(),
        failure => failure,
    };
    let mut transaction = client
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    let names = names(&mut transaction, parsed)?;
    let runnable = postgresql::rewrite(parsed, &names)?;
    let columns = columns_of(&mut transaction, &runnable)?;
    let mut processes = names.0.iter().filter(|(_, it)| matches!(it, Relation::Process { .. }));
    let mut stale = Vec::new();
    if processes.next().is_some() {
        let reads: Vec<String> = runnable.reads.iter().cloned().collect();
        stale = process::stale_of(&mut transaction, &reads).map_err(|failure| failure.error)?;
    }
    let sql = postgresql::as_json(&runnable.sql, columns.len());
    let keys: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let comma = if place == 0 { "{" } else { "," };
            format!("{comma}{}:", serde_json::Value::from(column.name.as_str()))
        })
        .collect();
    let deadline = Instant::now() + limits.query_time;
    let mut json = b"[".to_vec();
    let mut count = 0;
    let mut rows = transaction.query_raw::<_, &i32, [&i32; 0]>(&sql, []).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if count > 0 {
            json.push(b',');
        }
        count += 1;
        for (place, key) in keys.iter().enumerate() {
            json.extend_from_slice(key.as_bytes());
            let value: Option<&str> = row.get(place);
            json.extend_from_slice(value.unwrap_or("null").as_bytes());
        }
        if keys.is_empty() {
            json.push(b'{');
        }
        json.push(b'}');
        if count > limits.query_rows {
            let most = limits.query_rows;
            let why = format!("the result has more than {most} rows: use LIMIT");
            return Err(EngineError::Invalid(why).into());
        }
        if json.len() > limits.query_bytes {
            let most = limits.query_bytes;
            let why = format!("the result has more than {most} bytes");
            return Err(EngineError::Invalid(why).into());
        }
        if Instant::now() > deadline {
            return Err(too_long());
        }
    }
    json.push(b']');
    Ok(Rows { json: json.into(), stale })
}

/// The columns of a result; also checks that the database understands the query.
pub(super) fn columns_of(
    transaction: &mut Transaction<'_>,
    runnable: &Runnable,
) -> Result<Vec<Column>, EngineError> {
    let statement = transaction.prepare(&runnable.sql).map_err(query_error)?;
    let named = statement.columns().iter().map(|column| Column {
        name: column.name().to_owned(),
        boolean: false,
        time: false,
    });
    let named: Vec<Column> = named.collect();
    Ok(match &runnable.columns {
        Some(columns) if columns.len() == named.len() => columns.clone(),
        _ => unique(named),
    })
}
