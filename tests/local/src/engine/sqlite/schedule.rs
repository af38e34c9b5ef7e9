//! When the queries of processes are run again: as seldom as may be, and all together within a share of a core.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A query is not run again sooner than this after its last run ended.
const PAUSE: Duration = Duration::from_secs(1);

/// After a run nothing is run for so many times as long as it took: all runs together take a quarter of a core.
const REST: u32 = 3;

/// How long a result is trusted that is to change at some time: clocks are set, and machines sleep.
const LONGEST: Duration = Duration::from_secs(300);

/// When the result of a query changes though nothing comes that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Never,
    Soon,
    In(Duration),
}

/// Which processes are to be computed anew, and when.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Schedule {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this process is to be computed.
    pub(super) fn put(&self, process: &str) {
        self.queue().put(process, Instant::now());
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, process: &str) {
        self.queue().entries.remove(process);
    }

    /// What it reads has changed.
    pub(super) fn outdated(&self, process: &str) {
        if self.queue().outdated(process) {
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.changed.notify_one();
    }

    /// Waits until a process has to be computed and names it; `None` at the end.
    pub(super) fn next(&self) -> Option<String> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            let wait = match queue.next(Instant::now()) {
                Next::Run(process) => return Some(process),
                Next::Wait(wait) => wait,
            };
            queue =
                self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A run is over, which `took` this long.
    pub(super) fn done(&self, process: &str, took: Duration, due: Due) {
        self.queue().done(process, took, due, Instant::now());
    }
}

/// The schedule itself, which is told the time.
#[derive(Debug, Default)]
struct Queue {
    entries: HashMap<String, Entry>,
    /// Nothing is run before this.
    rest: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    /// What it reads has changed since its last run began.
    outdated: bool,
    /// When its result changes anyway.
    due: Option<Instant>,
    not_before: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Run(String),
    Wait(Duration),
}

impl Queue {
    fn put(&mut self, process: &str, now: Instant) {
        let entry = Entry { outdated: true, due: None, not_before: now };
        self.entries.insert(process.to_owned(), entry);
    }

    fn outdated(&mut self, process: &str) -> bool {
        let entry = self.entries.get_mut(process);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.outdated, true))
    }

    fn next(&mut self, now: Instant) -> Next {
        let waiting = self.entries.iter_mut().filter_map(|(name, entry)| {
            let due = if entry.outdated { Some(entry.not_before) } else { entry.due };
            Some((due?.max(entry.not_before), name, entry))
        });
        let Some((at, name, entry)) = waiting.min_by_key(|(at, ..)| *at) else {
            // Nothing to do before somebody says so.
            return Next::Wait(Duration::from_secs(3600));
        };
        let at = self.rest.map_or(at, |rest| rest.max(at));
        if at > now {
            return Next::Wait(at - now);
        }
        (entry.outdated, entry.due) = (false, None);
        Next::Run(name.clone())
    }

    fn done(&mut self, process: &str, took: Duration, due: Due, now: Instant) {
        let rest = took.saturating_mul(REST);
        self.rest = Some(now + rest);
        if let Some(entry) = self.entries.get_mut(process) {
            entry.not_before = now + PAUSE.max(rest);
            entry.due = match due {
                Due::Never => None,
                Due::Soon => Some(now),
                Due::In(time) => Some(now + time.min(LONGEST)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a queue run for `time`, where each run takes as long as `took` says, and returns how often each process was
    /// run and how long all runs took.
    fn run(
        queue: &mut Queue,
        time: Duration,
        took: impl Fn(&str) -> Duration,
        due: Due,
    ) -> (HashMap<String, u32>, Duration) {
        let start = Instant::now();
        let (mut now, mut runs, mut all) = (start, HashMap::<_, u32>::new(), Duration::ZERO);
        while now < start + time {
            match queue.next(now) {
                Next::Wait(wait) => now += wait,
                Next::Run(name) => {
                    let took = took(&name);
                    now += took;
                    all += took;
                    queue.done(&name, took, due, now);
                    *runs.entry(name).or_default() += 1;
                }
            }
        }
        (runs, all)
    }

    fn queue(processes: usize) -> Queue {
        let mut queue = Queue::default();
        for process in 0..processes {
            queue.put(&format!("p{process}"), Instant::now());
        }
        queue
    }

    #[test]
    fn q10_all_runs_together_take_a_quarter_of_a_core() {
        let minute = Duration::from_secs(60);
        let took = |_: &str| Duration::from_millis(5);
        let (runs, all) = run(&mut queue(200), minute, took, Due::Soon);
        assert!((10..=15).contains(&all.as_secs()), "{all:?}");
        // Each in its turn.
        assert!(
            runs.len() == 200 && runs.values().all(|runs| (12..=16).contains(runs)),
            "{runs:?}"
        );
        // A few that cost little are run once a second.
        let (runs, all) = run(&mut queue(5), minute, took, Due::Soon);
        assert!(runs.values().all(|runs| (59..=61).contains(runs)), "{runs:?}");
        assert!(all < Duration::from_secs(2), "{all:?}");
    }

    #[test]
    fn q10_one_that_costs_much_leaves_the_others_their_turn() {
        let took = |name: &str| Duration::from_millis(if name == "p0" { 3000 } else { 1 });
        let (runs, all) = run(&mut queue(20), Duration::from_secs(600), took, Due::Soon);
        assert!(all < Duration::from_secs(160), "{all:?}");
        assert!(runs["p0"] >= 40 && runs["p1"] >= 40, "{runs:?}");
    }

    #[test]
    fn q10_what_cannot_have_changed_is_not_run() {
        let mut queue = queue(200);
        let took = |_: &str| Duration::from_millis(5);
        let hour = Duration::from_secs(3600);
        let (runs, _) = run(&mut queue, hour, took, Due::Never);
        assert!(runs.len() == 200 && runs.values().all(|runs| *runs == 1), "{runs:?}");
        let now = Instant::now() + 2 * hour;
        assert!(queue.outdated("p7") && !queue.outdated("p7") && !queue.outdated("p200"));
        assert_eq!(queue.next(now), Next::Run("p7".to_owned()));
        queue.done("p7", Duration::ZERO, Due::In(Duration::from_secs(20)), now);
        assert_eq!(queue.next(now), Next::Wait(Duration::from_secs(20)));
        let now = now + Duration::from_secs(20);
        assert_eq!(queue.next(now), Next::Run("p7".to_owned()));
    }
}
