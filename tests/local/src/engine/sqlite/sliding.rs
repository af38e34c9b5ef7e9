//! Windows that are kept in steps: what has left its window is forgotten a step at a time.

use std::time::Instant;

use rusqlite::{Connection, params};

use super::catalogue::Tables;
use super::objects::ChangeRecords;
use super::process::{Process, execute, time_for};
use super::processes::Processes;
use super::writer::Notice;
use crate::engine::EngineError;
use crate::sql::plan::Plan;
use crate::sql::windows::Steps;

/// How far the window of a process has moved, as the writer holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    steps: Steps,
    /// The first step that is in the result in whole. Events of earlier ones are not added.
    first: i64,
    /// What the table says of it.
    saved: Option<i64>,
    /// Earlier steps may still be in the result.
    leaving: bool,
    /// How many groups to take out at once, if somebody is told of them.
    slice: i64,
}

impl Moved {
    /// A window that begins with this step. `None`: nothing has left it yet.
    pub(super) fn new(steps: Steps, first: Option<i64>) -> Self {
        let first = first.unwrap_or(i64::MIN);
        // When the last server ended, it may not have been through.
        Self { steps, first, saved: None, leaving: true, slice: 1000 }
    }

    /// Whether events of this step are in the window.
    pub(super) fn holds(&self, step: i64) -> bool {
        step >= self.first
    }

    /// Whether the clock was set back, by more than a step: what is in the window again was forgotten.
    fn is_ahead(&self, now: i64) -> bool {
        self.steps.first(now).saturating_add(1) < self.first
    }
}

impl Processes {
    /// How long it is until a window moves on, in microseconds. `None`: there is no window. Processes that
    /// have to be looked up again may have one.
    pub(super) fn next_step(&self, now: i64) -> Option<i64> {
        let Some(loaded) = &self.loaded else { return Some(0) };
        let windows = loaded.values().filter_map(|process| process.moved.as_ref());
        let next = windows.map(|moved| {
            if moved.leaving || moved.is_ahead(now) { now } else { moved.steps.leaves(moved.first) }
        });
        next.min().map(|next| next.saturating_sub(now).max(0))
    }

    /// Has windows forget what has left them by `now`, one slice each.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        let (stats, schedule) = (self.stats.clone(), self.schedule.clone());
        let listener = self.listener.clone();
        self.touched = true;
        for (name, process) in self.all(connection)? {
            let Some(moved) = process.moved.as_mut() else { continue };
            if moved.is_ahead(now) {
                tracing::warn!(process = name, "the clock was set back: a window is filled anew");
                process.start_anew(connection, now)?;
                let filling = Self::filling(connection, process)?;
                stats.note(name, |stats| stats.filling = filling);
                schedule.put(name);
                notices.push(Notice::changed(name, None));
                continue;
            }
            let first = moved.steps.first(now);
            if first > moved.first {
                (moved.first, moved.leaving) = (first, true);
            }
            if !moved.leaving {
                continue;
            }
            let mut changes = ChangeRecords::default();
            let wants_changes = listener.wants_changes(name);
            let forgotten = match process.forget(connection, wants_changes.then_some(&mut changes))
            {
                // Who is told of it comes to nothing, and what has left still goes.
                Err(EngineError::Invalid(why)) => {
                    stats.note(name, |stats| stats.last_error = Some(why));
                    process.forget(connection, None)?;
                    Forgotten::Unseen
                }
                forgotten => forgotten?,
            };
            match forgotten {
                Forgotten::Nothing => {}
                Forgotten::Unseen => notices.push(Notice::changed(name, None)),
                Forgotten::Seen => notices.push(Notice::changed(name, Some(changes))),
            }
        }
        Ok(())
    }
}

/// What became of the rows that had left a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgotten {
    /// There were none.
    Nothing,
    /// They are gone.
    Unseen,
    /// Some of them are, and the changes are noted.
    Seen,
}

impl Process {
    /// The window of a process begins with this step, or has not moved yet.
    pub(super) fn move_to(&mut self, first: Option<i64>) {
        let steps = self.compiled.plan().and_then(Plan::window);
        self.moved = steps.map(|steps| Moved::new(steps, first));
    }

    /// Writes down where the window begins, in the transaction that leaves something out by it. Returns whether that was
    /// not known.
    pub(super) fn save_window(&mut self, connection: &Connection) -> Result<bool, EngineError> {
        let Some(moved) = self.moved.as_mut().filter(|moved| moved.saved != Some(moved.first))
        else {
            return Ok(false);
        };
        let save = "INSERT INTO windows VALUES (?1, ?2) ON CONFLICT DO UPDATE SET first = ?2";
        connection.prepare_cached(save)?.execute([self.number, moved.first])?;
        moved.saved = Some(moved.first);
        Ok(true)
    }

    /// Forgets what has left the window: all of it or, if somebody is told of the changes, that of some groups.
    fn forget(
        &mut self,
        connection: &Connection,
        changes: Option<&mut ChangeRecords>,
    ) -> Result<Forgotten, EngineError> {
        let (Some(mut moved), Some(plan)) = (self.moved, self.compiled.plan().cloned()) else {
            return Ok(Forgotten::Nothing);
        };
        let (table, delta) = (self.table(), self.delta());
        let first = moved.first;
        let forgotten = match changes {
            None => {
                let gone = connection.prepare_cached(&plan.forget(&table))?.execute([first])?;
                moved.leaving = false;
                if gone == 0 { Forgotten::Nothing } else { Forgotten::Unseen }
            }
            Some(changes) => {
                let start = Instant::now();
                connection.prepare_cached(&format!("DELETE FROM {delta}"))?.execute([])?;
                let leaving = plan.leaving(&table, &delta);
                let some = params![first, moved.slice];
                let groups = connection.prepare_cached(&leaving)?.execute(some)?;
                if groups == 0 {
                    moved.leaving = false;
                    Forgotten::Nothing
                } else {
                    let deadline = Some(start + time_for(0));
                    self.note_changes(connection, changes, deadline, || {
                        let forget = plan.forget_groups(&table, &delta);
                        execute(connection, &forget, [first])?;
                        Ok(())
                    })?;
                    moved.slice = match start.elapsed().as_millis() {
                        0..15 => (moved.slice * 2).min(20_000),
                        35.. => (moved.slice / 2).max(50),
                        _ => moved.slice,
                    };
                    Forgotten::Seen
                }
            }
        };
        self.moved = Some(moved);
        if forgotten != Forgotten::Nothing {
            self.save_window(connection)?;
        }
        Ok(forgotten)
    }

    /// Empties the result, to be filled again from what is stored.
    fn start_anew(&mut self, connection: &Connection, now: i64) -> Result<(), EngineError> {
        let (Some(moved), Some(plan)) = (&mut self.moved, self.compiled.plan()) else {
            return Ok(());
        };
        (moved.first, moved.leaving) = (moved.steps.first(now), false);
        self.next = Tables { connection }.places(plan.stream())?.map(|places| places.start);
        connection.execute(&format!("DELETE FROM {}", self.table()), [])?;
        self.save_window(connection)?;
        if let Some(next) = self.next {
            let insert = "INSERT OR REPLACE INTO fills VALUES (?, ?)";
            connection.prepare_cached(insert)?.execute([self.number, next])?;
        }
        Ok(())
    }
}
