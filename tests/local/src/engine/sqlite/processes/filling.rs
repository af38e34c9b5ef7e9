//! Giving a new process the events that were stored before it.

use std::time::Instant;

use rusqlite::Connection;

use super::Processes;
use crate::engine::sqlite::catalogue::Tables;
use crate::engine::sqlite::objects::ChangeRecords;
use crate::engine::sqlite::process::{Added, MOST_TRIED, Process};
use crate::engine::sqlite::writer::Notice;
use crate::engine::{EngineError, Filling};

/// How far a process has been given the events that were stored before it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine::sqlite) enum Filled {
    Partly,
    Whole,
    /// It fails at too many of them.
    Failed(String),
}

impl Processes {
    /// How far a process has been given the events that were stored before it.
    pub(in crate::engine::sqlite) fn filling(
        connection: &Connection,
        process: &Process,
    ) -> Result<Option<Filling>, EngineError> {
        let Some((next, plan)) = process.next.zip(process.compiled.plan()) else {
            return Ok(None);
        };
        let stored = Tables { connection }.places(plan.stream())?.unwrap_or(next..next);
        let given = next.clamp(stored.start, stored.end).abs_diff(stored.start);
        Ok(Some(Filling { given, of: stored.end.abs_diff(stored.start) }))
    }

    /// Gives a process some more of the events that were stored before it, and returns whether there are more. It
    /// is done in slices, because everybody who writes waits meanwhile.
    pub(in crate::engine::sqlite) fn fill(
        &mut self,
        connection: &Connection,
        name: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<Filled, EngineError> {
        let (stats, listener) = (self.stats.clone(), self.listener());
        self.touched = true;
        let Some(process) = self.all(connection)?.get_mut(name) else { return Ok(Filled::Whole) };
        let (Some(next), Some(plan)) = (process.next, process.compiled.plan()) else {
            return Ok(Filled::Whole);
        };
        // The stream may be gone by now, or be another one, or have let go of old events.
        let stored = Tables { connection }.places(plan.stream())?.unwrap_or(next..next);
        let from = if stored.contains(&next) { next } else { next.max(stored.start) };
        let to = stored.end.min(from.saturating_add(process.slice));
        process.save_window(connection)?;
        let start = Instant::now();
        let mut changes = listener.wants_changes(name).then(ChangeRecords::default);
        let added = if from < to {
            process.add(connection, from..to, changes.as_mut())?
        } else {
            Added::default()
        };
        let next = match &added.full {
            Some((place, _)) => Some(*place),
            None => (to < stored.end).then_some(to),
        };
        process.stop_at(connection, next)?;
        process.slice = match start.elapsed().as_millis() {
            0..20 => (process.slice * 2).min(20_000),
            40.. => (process.slice / 2).max(100),
            _ => process.slice,
        };
        let filling = Self::filling(connection, process)?;
        stats.note(name, |stats| stats.filling = filling);
        notices.push(Notice::changed(name, changes));
        if let Some((_, why)) = added.full {
            stats.full(name, &why);
            return Ok(Filled::Failed(why));
        }
        let filled = match (next, &added.error) {
            (_, Some(why)) if added.skipped >= MOST_TRIED => Filled::Failed(why.clone()),
            (Some(_), _) => Filled::Partly,
            (None, _) => Filled::Whole,
        };
        stats.added(name, added);
        Ok(filled)
    }

    /// The processes that lack stored events.
    pub(in crate::engine::sqlite) fn unfilled(&self) -> Vec<String> {
        let all = self.loaded.iter().flatten();
        all.filter(|(_, process)| process.next.is_some()).map(|(name, _)| name.clone()).collect()
    }
}
