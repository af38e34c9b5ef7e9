//! How processes fare.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compiled::Compiled;
use super::process::{Added, Process};
use super::recompute::Run;
use crate::engine::{EngineError, ProcessStats};

/// How the processes fare, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats(Arc<AllStats>);

#[derive(Debug, Default)]
struct AllStats {
    processes: Mutex<HashMap<String, Entry>>,
    /// Events that a process lacks, of those that are gone, too.
    skipped: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    stats: ProcessStats,
    /// What the process reads.
    reads: BTreeSet<String>,
    /// A query for how many rows it has.
    count: String,
}

impl Stats {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn skipped(&self) -> u64 {
        self.0.skipped.load(Ordering::Relaxed)
    }

    /// How many processes are so.
    pub(super) fn count(&self, is_so: impl Fn(&ProcessStats) -> bool) -> usize {
        self.all().values().filter(|entry| is_so(&entry.stats)).count()
    }

    /// The processes with an old result that something comes from which reads `reads`.
    pub(super) fn stale_of(&self, reads: BTreeSet<String>) -> Vec<String> {
        let all = self.all();
        let (mut seen, mut left) = (reads.clone(), Vec::from_iter(reads));
        let mut stale = Vec::new();
        while let Some(name) = left.pop() {
            let Some(Entry { stats, reads, .. }) = all.get(&name) else { continue };
            if stats.stale {
                stale.push(name);
            }
            left.extend(reads.iter().filter(|read| seen.insert(String::clone(read))).cloned());
        }
        stale.sort();
        stale
    }

    /// Notes what came of adding some events.
    pub(super) fn added(&self, process: &str, added: Added) {
        let Added { steps, skipped, error, unread, .. } = added;
        self.skip(process, skipped, error.as_deref());
        self.note(process, |stats| {
            stats.steps += steps;
            stats.last_error = error.or(stats.last_error.take());
            stats.set_stale(unread);
        });
    }

    /// Notes what came of a run.
    pub(super) fn ran(&self, process: &str, run: &Run) {
        self.skip(process, run.skipped, run.why.as_deref());
        self.note(process, |stats| {
            stats.steps += run.steps;
            stats.runs += 1;
            stats.last_run_ms = u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX);
            stats.last_error.clone_from(&run.why);
            stats.set_stale(false);
        });
    }

    /// Counts events that a process lacks.
    fn skip(&self, process: &str, events: u64, why: Option<&str>) {
        if events > 0 {
            self.0.skipped.fetch_add(events, Ordering::Relaxed);
            self.note(process, |stats| stats.skipped += events);
            tracing::warn!(process, events, why, "a process lacks events that its query fails at");
        }
    }

    /// A process may keep no more: it shows what it had before.
    pub(super) fn full(&self, process: &str, why: &str) {
        tracing::warn!(process, why, "a process has stopped: it may keep no more");
        self.note(process, |stats| {
            stats.last_error = Some(why.to_owned());
            stats.set_stale(true);
        });
    }

    /// A run came to nothing: the process shows what the one before it gave.
    pub(super) fn failed(&self, process: &str, error: &EngineError) {
        self.note(process, |stats| {
            stats.last_error = Some(error.to_string());
            stats.set_stale(true);
        });
    }

    pub(super) fn of(&self, process: &str) -> Option<ProcessStats> {
        self.all().get(process).map(|entry| entry.stats.clone())
    }

    /// What counts the rows of a process.
    pub(super) fn count_of(&self, process: &str) -> Option<String> {
        self.all().get(process).map(|entry| entry.count.clone())
    }

    pub(super) fn put(&self, name: &str, process: &Process, stats: ProcessStats) {
        let Compiled { reads, .. } = &process.compiled;
        let entry = Entry { stats, reads: reads.clone(), count: process.count() };
        self.all().insert(name.to_owned(), entry);
    }

    pub(super) fn rename(&self, process: &str, name: &str) {
        let mut all = self.all();
        if let Some(entry) = all.remove(process) {
            all.insert(name.to_owned(), entry);
        }
    }

    pub(super) fn remove(&self, process: &str) {
        self.all().remove(process);
    }

    pub(super) fn note(&self, process: &str, note: impl FnOnce(&mut ProcessStats)) {
        if let Some(entry) = self.all().get_mut(process) {
            note(&mut entry.stats);
        }
    }
}
