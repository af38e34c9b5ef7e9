//! Another query for a process: a successor is filled out of sight, and takes the place of the process in one transaction.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::diff::Stored;
use super::objects::ChangeRecords;
use super::process::Process;
use super::processes::{Draft, Processes, no_process};
use super::writer::Notice;
use crate::engine::EngineError;

/// What the name of a successor begins with. No process that somebody makes has such a name.
const MARK: char = '\u{1}';

/// How many rows a process and its successor may have together, so that subscribers are told of the difference.
const MOST_COMPARED: usize = 100_000;

/// The name of the process that is to take the place of this one.
pub(super) fn of(name: &str) -> String {
    format!("{MARK}{name}")
}

/// The name of the process that a name belongs to.
pub(super) fn visible(name: &str) -> &str {
    name.strip_prefix(MARK).unwrap_or(name)
}

impl Processes {
    /// Makes the successor of a process.
    pub(super) fn create_successor(
        &mut self,
        connection: &Connection,
        draft: Draft,
        now: i64,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        let (successor, name) = (draft.name.clone(), visible(&draft.name).to_owned());
        let all = self.all(connection)?;
        if !all.contains_key(&name) {
            return Err(no_process(&name));
        }
        if all.contains_key(&successor) {
            return Err(EngineError::Conflict(format!("{name:?} is being changed already")));
        }
        self.insert(connection, draft, now, notices)?;
        self.check_no_circle(connection, &name, &successor)
    }

    /// Puts a successor in the place of its process, and notes what is different.
    pub(super) fn succeed(
        &mut self,
        connection: &Connection,
        name: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<(), EngineError> {
        self.touched = true;
        let successor = of(name);
        self.check_no_circle(connection, name, &successor)?;
        let listener = self.listener();
        let all = self.all(connection)?;
        let new = all.remove(&successor).ok_or_else(|| no_process(name))?;
        let old = all.remove(name).ok_or_else(|| no_process(name))?;
        let changes = match listener.wants_changes(name) {
            true => difference(connection, &old, &new)?,
            false => None,
        };
        old.drop_tables(connection)?;
        connection.execute("DELETE FROM fills WHERE process = ?", [old.number])?;
        connection.execute("DELETE FROM processes WHERE name = ?", [name])?;
        connection.execute("UPDATE processes SET name = ? WHERE name = ?", [name, &successor])?;
        all.insert(name.to_owned(), new);
        self.stats.rename(&successor, name);
        self.end(&successor);
        notices.push(Notice::changed(name, changes));
        // Subscriptions that began with a snapshot begin again with the new rows, and the new columns.
        notices.push(Notice::changed(name, None));
        notices.push(Notice::Created(name.to_owned()));
        Ok(())
    }

    /// Forgets successors that the last end cut short.
    pub(super) fn forget_successors(&mut self, connection: &Connection) -> Result<(), EngineError> {
        let all = self.all(connection)?;
        let successors: Vec<String> =
            all.keys().filter(|name| name.starts_with(MARK)).cloned().collect();
        for successor in successors {
            self.delete(connection, &successor, &mut Vec::new())?;
        }
        self.touched = false;
        Ok(())
    }
}

/// What is different between the rows of two processes, unless there are too many of them.
fn difference(
    connection: &Connection,
    old: &Process,
    new: &Process,
) -> Result<Option<ChangeRecords>, EngineError> {
    let (Some(before), Some(after)) =
        (old.shown(connection, MOST_COMPARED)?, new.shown(connection, MOST_COMPARED)?)
    else {
        return Ok(None);
    };
    if before.len() + after.len() > MOST_COMPARED {
        return Ok(None);
    }
    let mut changes = ChangeRecords::default();
    // Rows of other columns are other rows, whatever is in them.
    let names = |process: &Process| -> Vec<(String, bool)> {
        let columns = process.compiled.columns.iter();
        columns.map(|column| (column.name.clone(), column.boolean)).collect()
    };
    let is_same = names(old) == names(new);
    let mut stored = Stored::default();
    for (number, row) in (0..).zip(before) {
        stored.put(number, row);
    }
    let new_rows: Vec<Vec<Value>> =
        after.into_iter().filter(|row| !is_same || !stored.take_equal(row)).collect();
    for (_, row) in stored.left(None).rest() {
        changes.push(connection, &old.objects, Some(&row), None)?;
    }
    for row in new_rows {
        changes.push(connection, &new.objects, None, Some(&row))?;
    }
    Ok(Some(changes))
}
