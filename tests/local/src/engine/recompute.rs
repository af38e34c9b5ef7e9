//! Processes whose query is run again: when, and by whom.

use std::collections::HashMap;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use sqlparser::ast::{Expr, GroupByExpr, SelectItem, SetExpr};

use super::EngineError;
use super::columns::{Column, name_results};
use super::objects::kept;
use super::read::{Reader, too_large};
use super::sql::Parsed;
use super::{incremental, visit};

/// A query is not run again sooner than this after its last run ended, and not sooner than that run took:
/// queries that are run again take no more than half of a core.
const PAUSE: Duration = Duration::from_secs(1);

/// The result of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) steps: u64,
    pub(super) took: Duration,
}

pub(super) fn run(reader: &mut Reader, parsed: &Parsed) -> Result<Run, EngineError> {
    let start = Instant::now();
    let most = reader.limits.bytes;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let effort = reader.run(parsed, &[], |_, columns, row| {
        let values: Vec<Value> = (0..columns.len())
            .map(|place| Ok(kept(row.get_ref(place)?)))
            .collect::<rusqlite::Result<_>>()?;
        bytes += values.iter().map(size).sum::<usize>();
        rows.push(values);
        if bytes > most { Err(too_large(most)) } else { Ok(()) }
    })?;
    let (columns, steps) = (effort.columns, effort.steps);
    Ok(Run { columns, rows, steps, took: start.elapsed() })
}

fn size(value: &Value) -> usize {
    let more = match value {
        Value::Text(text) => text.len(),
        Value::Blob(blob) => blob.len(),
        _ => 0,
    };
    size_of::<Value>() + more
}

/// The columns by which a row of a result is the same row after a change: those that are grouped by. An
/// aggregate of everything has one row, and so needs none. `None`: rows are only what is in them.
pub(super) fn same_row_by(parsed: &Parsed) -> Option<Vec<usize>> {
    let SetExpr::Select(select) = &*parsed.query.body else { return None };
    let mut projection = select.projection.clone();
    name_results(&mut projection);
    let named: Option<Vec<(Expr, String)>> = projection
        .into_iter()
        .map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((expr, alias.value)),
            _ => None,
        })
        .collect();
    let named = named?;
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return None };
    if group_by.is_empty() {
        let aggregates = named.iter().any(|(expr, _)| {
            visit::any_expression(expr, |expr| {
                matches!(expr, Expr::Function(function) if incremental::is_aggregate(function))
            })
        });
        return aggregates.then(Vec::new);
    }
    let columns = group_by.iter().map(|key| {
        let key = incremental::spelled_out(key, &named)?;
        named.iter().position(|(expr, _)| incremental::same(expr, &key))
    });
    columns.collect()
}

/// Which processes are to be computed anew, and when.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    /// What it reads has changed since its last run began.
    outdated: bool,
    /// It changes with time, and so is always outdated.
    always: bool,
    not_before: Instant,
}

impl Schedule {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this process is to be computed.
    pub(super) fn put(&self, process: &str, always: bool) {
        let entry = Entry { outdated: true, always, not_before: Instant::now() };
        self.state().entries.insert(process.to_owned(), entry);
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, process: &str) {
        self.state().entries.remove(process);
    }

    pub(super) fn outdated(&self, process: &str) {
        if let Some(entry) = self.state().entries.get_mut(process)
            && !entry.outdated
        {
            entry.outdated = true;
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Waits until a process has to be computed and names it; `None` at the end.
    pub(super) fn next(&self) -> Option<String> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let waiting = state.entries.iter_mut().filter(|(_, it)| it.outdated || it.always);
            let first = waiting.min_by_key(|(_, entry)| entry.not_before);
            let wait = match first {
                Some((name, entry)) if entry.not_before <= now => {
                    entry.outdated = false;
                    return Some(name.clone());
                }
                Some((_, entry)) => entry.not_before - now,
                // Nothing to do before somebody says so.
                None => Duration::from_secs(3600),
            };
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A run is over, which `took` this long, and is to be made up for if it came to nothing.
    pub(super) fn done(&self, process: &str, took: Duration, again: bool) {
        if let Some(entry) = self.state().entries.get_mut(process) {
            entry.outdated |= again;
            entry.not_before = Instant::now() + PAUSE.max(took);
        }
    }
}
