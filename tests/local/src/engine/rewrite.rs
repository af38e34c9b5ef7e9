//! From a query over streams and processes to one over the tables that SQLite has.
//!
//! Each name of a stream becomes a subquery that gives the keys which the query mentions as
//! columns, each name of a process one over the rows it keeps. So a stream may have any number of
//! keys: those that nobody asks for cost nothing.

mod names;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlparser::ast::{Ident, ObjectName, Query};

use self::names::Names;
use super::EngineError;
use super::columns::{Column, Outputs, unique};
use super::compare::TIMESTAMP;
use super::print::{self, MARK};
use super::sql::Parsed;
use super::windows::Window;
use super::{compare, schema, times, visit};
use crate::events::keys::Kinds;

/// How many relations a query may read, each counted as often as the part that it is in is read.
const MOST_READS: usize = 1_000;

/// Names in a query that are keys of streams, with the streams that have them.
pub(super) type Homes = BTreeMap<String, BTreeSet<String>>;

/// The column that every stream has besides its keys: when an event came.
const ARRIVAL: &str = "arrival_timestamp";

/// What a name in a query stands for.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// A stream: which rows of the table of events are to be read, and the keys that its events have had.
    /// One that nobody has written to has no rows. `number`: by what the blocks of these rows are found.
    Stream { number: Option<i64>, rows: Option<String>, keys: Vec<(String, Kinds)> },
    /// What a process keeps: a `SELECT` of its rows, and its columns.
    Process { select: String, columns: Vec<Column> },
}

/// Knows what names stand for.
pub(super) trait Catalogue {
    fn relation(&self, name: &str) -> Result<Relation, EngineError>;
}

/// A query that SQLite can run.
#[derive(Clone, Debug)]
pub(super) struct Runnable {
    pub(super) sql: String,
    /// The columns of the result, as far as they are known beforehand.
    pub(super) columns: Option<Vec<Column>>,
    /// The streams and processes that it reads, by name.
    pub(super) reads: BTreeSet<String>,
    /// What is known now of its names.
    pub(super) homes: Homes,
}

/// Puts tables in the place of names.
pub(super) fn rewrite(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Runnable, EngineError> {
    let mut query = parsed.query.clone();
    let mut names = Names::new(&parsed.homes, catalogue);
    visit::change(&mut query, &mut names)?;
    if reads(&query) > MOST_READS {
        return Err(EngineError::Invalid(format!(
            "the query reads more than {MOST_READS} relations, those of its parts counted each time"
        )));
    }
    let Names { reads, sources, homes, .. } = names;
    let of_processes = sources.iter().flat_map(Source::columns).filter(|column| column.time);
    compare::times(&mut query, of_processes.map(|it| it.name.to_ascii_lowercase()).collect())?;
    let columns_of = |name: &ObjectName| Some(sources.get(source_number(name)?)?.columns());
    let columns = Outputs::new(&columns_of).of_query(&query).map(unique);
    Ok(Runnable { sql: with_sources(&query, &sources)?, columns, reads, homes })
}

/// A place in the query where a stream or a process is named.
#[derive(Debug)]
struct Source {
    /// The stream or process.
    name: String,
    relation: Relation,
    /// The columns that are mentioned of a stream, by name, and the keys they are of.
    columns: Vec<(String, String)>,
    /// What the blocks of a stream have to be like, so that they can hold rows that the query wants.
    blocks: Vec<String>,
}

impl Source {
    /// A column of this relation is mentioned. In SQL `a` and `A` are one name, but they are two keys,
    /// so the second is given a name that nobody can have meant.
    fn mention(&mut self, column: &mut Ident) {
        if matches!(self.relation, Relation::Process { .. }) {
            return;
        }
        let key = &column.value;
        let name = match self.columns.iter().find(|(_, known)| known == key) {
            Some((name, _)) => name.clone(),
            None => {
                let mut name = key.clone();
                while self.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                    name.push(MARK);
                }
                self.columns.push((name.clone(), key.clone()));
                name
            }
        };
        *column = Ident::with_quote('"', name);
    }

    fn has(&self, name: &str) -> bool {
        match &self.relation {
            Relation::Stream { keys, .. } => keys.iter().any(|(key, _)| key == name),
            Relation::Process { columns, .. } => {
                columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Whether a column is the time at which events came.
    fn is_arrival(&self, name: &str) -> bool {
        matches!(self.relation, Relation::Stream { .. }) && name == ARRIVAL && !self.has(name)
    }

    /// Only rows in `window` are wanted.
    fn narrow(&mut self, window: &Window<'_>) -> Result<(), EngineError> {
        let latest = match &*window.column.value {
            TIMESTAMP => "latest",
            name if self.is_arrival(name) => "arrived",
            _ => return Ok(()),
        };
        let after = print::expression(window.after)?;
        // To the second: SQLite rounds what is shorter.
        self.blocks.push(format!("blocks.{latest} >= (unixepoch(utc({after})) - 1) * 1000000"));
        Ok(())
    }

    /// The columns that it has in this query.
    fn columns(&self) -> Vec<Column> {
        match &self.relation {
            Relation::Process { columns, .. } => columns.clone(),
            Relation::Stream { keys, .. } => self
                .columns
                .iter()
                .map(|(name, of)| Column {
                    name: name.clone(),
                    boolean: keys.iter().any(|(key, kinds)| key == of && kinds.is_boolean()),
                    time: of == TIMESTAMP || self.is_arrival(of),
                })
                .collect(),
        }
    }

    fn select(&self) -> String {
        match &self.relation {
            Relation::Process { select, .. } => select.clone(),
            Relation::Stream { number, rows, .. } => {
                let columns: Vec<String> = self
                    .columns
                    .iter()
                    .map(|(name, key)| {
                        let name = print::name(name);
                        match rows {
                            Some(_) if key == TIMESTAMP => {
                                format!("{}{} AS {name}", value_of(key), times::COLLATED)
                            }
                            Some(_) if self.is_arrival(key) => {
                                let at = "time_add('1970-01-01T00:00:00Z', at)";
                                format!("{at}{} AS {name}", times::COLLATED)
                            }
                            Some(_) if !key.contains('\0') => {
                                format!("{} AS {name}", value_of(key))
                            }
                            _ => format!("NULL AS {name}"),
                        }
                    })
                    .collect();
                let columns = match columns.is_empty() {
                    true => "1".to_owned(),
                    false => columns.join(", "),
                };
                match (rows, number) {
                    (Some(rows), Some(number)) if !self.blocks.is_empty() => {
                        let (from, to) = (schema::block(*number), schema::block(number + 1));
                        let blocks = self.blocks.join(" AND ");
                        let (first, next) = (schema::first("number"), schema::first("number + 1"));
                        // The other way round, SQLite would read all events.
                        format!(
                            "SELECT {columns} FROM main.blocks CROSS JOIN main.events \
                             WHERE number >= {from} AND number < {to} AND {blocks} \
                             AND place >= {first} AND place < {next} AND {rows}"
                        )
                    }
                    (Some(rows), _) => format!("SELECT {columns} FROM main.events WHERE {rows}"),
                    (None, _) => format!("SELECT {columns} WHERE false"),
                }
            }
        }
    }
}

/// The value of a key: objects and arrays in SQLite's binary form, so that they can be told from texts.
pub(super) fn value_of(key: &str) -> String {
    format!("jsonb_extract(event, {})", print::literal(&format!("$.{}", Value::from(key))))
}

/// Which rows of the table of events are of this stream.
pub(super) fn of_stream(number: i64) -> String {
    let (from, to) = (schema::place(number, 0), schema::place(number + 1, 0));
    format!("place >= {from} AND place < {to}")
}

/// How many relations a query reads.
fn reads(query: &Query) -> usize {
    // What each part reads, by name; of parts of one name, the most.
    let mut parts = BTreeMap::<String, usize>::new();
    let weigh = |query: &Query, parts: &BTreeMap<String, usize>| {
        let mut read = 0_usize;
        visit::relations(query, &mut |name| {
            let part = parts.get(&name.to_ascii_lowercase());
            read = read.saturating_add(part.map_or(1, |reads| (*reads).max(1)));
        });
        read
    };
    visit::queries(query, &mut |query| {
        for part in query.with.iter().flat_map(|with| &with.cte_tables) {
            let read = weigh(&part.query, &parts);
            let most = parts.entry(part.alias.name.value.to_ascii_lowercase()).or_default();
            *most = read.max(*most);
        }
    });
    weigh(query, &parts)
}

/// The query, with the relations that it reads before it. Only in these may events be read: the
/// connection knows them by their names.
fn with_sources(query: &Query, sources: &[Source]) -> Result<String, EngineError> {
    let printed = print::query(query)?;
    if sources.is_empty() {
        return Ok(printed);
    }
    let mut with = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let name = print::name(&print::marker(number));
        with.push(format!("{name} AS NOT MATERIALIZED ({})", source.select()));
    }
    let with = with.join(", ");
    Ok(match printed.strip_prefix("WITH ") {
        Some(rest) => match rest.strip_prefix("RECURSIVE ") {
            Some(rest) => format!("WITH RECURSIVE {with}, {rest}"),
            None => format!("WITH {with}, {rest}"),
        },
        None => format!("WITH {with} {printed}"),
    })
}

fn source_number(name: &ObjectName) -> Option<usize> {
    let [part] = &name.0[..] else { return None };
    print::marked(&part.as_ident()?.value)
}
