//! From a query over streams and processes to one over the tables that SQLite has.
//!
//! Each name of a stream becomes a subquery that gives the keys which the query mentions as
//! columns, each name of a process one over the rows it keeps. So a stream may have any number of
//! keys: those that nobody asks for cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::ast::{ObjectName, Query};

use super::columns::{Column, Outputs, unique};
use super::names::{MOST_READS, Names, too_many_reads};
use super::parse::{Homes, Parsed};
use super::relations::{Catalogue, Source};
use super::tree::{only_part, parts};
use super::{compare, print, visit};
use crate::engine::EngineError;

/// A query that SQLite can run.
#[derive(Clone, Debug)]
pub(crate) struct Runnable {
    pub(crate) sql: String,
    /// The columns of the result, as far as they are known beforehand.
    pub(crate) columns: Option<Vec<Column>>,
    /// The streams and processes that it reads, by name.
    pub(crate) reads: BTreeSet<String>,
    /// What is known now of its names.
    pub(crate) homes: Homes,
}

/// Puts tables in the place of names.
pub(crate) fn rewrite(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Runnable, EngineError> {
    let mut query = parsed.query.clone();
    let mut names = Names::new(&parsed.homes, catalogue);
    visit::change(&mut query, &mut names)?;
    if reads(&query) > MOST_READS {
        return Err(too_many_reads());
    }
    let Names { reads, sources, homes, .. } = names;
    let of_processes = sources.iter().flat_map(Source::columns).filter(|column| column.time);
    compare::times(&mut query, of_processes.map(|it| it.name.to_ascii_lowercase()).collect())?;
    let columns_of = |name: &ObjectName| Some(sources.get(source_number(name)?)?.columns());
    let columns = Outputs::new(&columns_of).of_query(&query).map(unique);
    let selects: Vec<String> = sources.iter().map(Source::select).collect();
    Ok(Runnable { sql: before(&query, &selects)?, columns, reads, homes })
}

/// How many relations a query reads.
fn reads(query: &Query) -> usize {
    // What each part reads, by name; of parts of one name, the most.
    let mut known = BTreeMap::<String, usize>::new();
    let weigh = |query: &Query, known: &BTreeMap<String, usize>| {
        let mut read = 0_usize;
        visit::relations(query, |name| {
            let part = known.get(&name.to_ascii_lowercase());
            read = read.saturating_add(part.map_or(1, |reads| (*reads).max(1)));
        });
        read
    };
    visit::queries(query, |query| {
        for part in parts(query) {
            let read = weigh(&part.query, &known);
            let most = known.entry(part.alias.name.value.to_ascii_lowercase()).or_default();
            *most = read.max(*most);
        }
    });
    weigh(query, &known)
}

/// The query, with the relations that it reads before it. Only in these may events be read: the
/// connection knows them by their names.
pub(super) fn before(query: &Query, selects: &[String]) -> Result<String, EngineError> {
    let printed = print::query(query)?;
    if selects.is_empty() {
        return Ok(printed);
    }
    let mut with = Vec::with_capacity(selects.len());
    for (number, select) in selects.iter().enumerate() {
        let name = print::name(&print::marker(number));
        with.push(format!("{name} AS NOT MATERIALIZED ({select})"));
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

pub(super) fn source_number(name: &ObjectName) -> Option<usize> {
    print::marked(&only_part(name)?.value)
}
