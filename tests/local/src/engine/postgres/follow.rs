//! What every server committed, told in order.
//!
//! A notification only wakes: what is new is read by position. So nothing is lost with a connection, and each server
//! tells its subscribers of the events and changes of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::Type;

use super::connections::Connection;
use super::error::Failure;
use super::inner::{Inner, Snapshot};
use super::{pages, process};
use crate::engine::{EngineError, PageLimit};
use crate::subscribers::records::Records;

/// Where servers tell each other.
pub(super) const CHANNEL: &str = "stride";

/// Said when there is too much to name.
const EVERYTHING: &str = "*";

/// Said to wake a follower, and no more.
pub(super) const NOTHING: &str = "";

/// How many streams and processes a notification names.
const MOST_NAMED: usize = 200;

/// How long to wait before looking whether the connection is still there, or for another one.
const PAUSE: Duration = Duration::from_secs(1);

/// What is read at once of a stream.
const MOST: PageLimit = PageLimit { events: 10_000, bytes: 4 * 1024 * 1024 };

/// What a notification says: which streams (`s`) and processes (`p`) have news.
pub(super) fn notice(streams: &[i64], processes: &[i64]) -> String {
    if streams.len() + processes.len() > MOST_NAMED {
        return EVERYTHING.to_owned();
    }
    let streams = streams.iter().map(|number| format!("s{number}"));
    let all = streams.chain(processes.iter().map(|number| format!("p{number}")));
    all.collect::<Vec<_>>().join(" ")
}

/// What has news.
#[derive(Debug, Default)]
struct News {
    everything: bool,
    streams: BTreeSet<i64>,
    processes: BTreeSet<i64>,
}

impl News {
    fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    fn add(&mut self, notice: &str) {
        for word in notice.split_terminator(' ') {
            let (kind, number) = word.split_at_checked(1).unwrap_or_default();
            match (kind, number.parse()) {
                ("s", Ok(number)) => drop(self.streams.insert(number)),
                ("p", Ok(number)) => drop(self.processes.insert(number)),
                _ => self.everything = true,
            }
        }
    }
}

/// How far each stream and each process was told, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Follower {
    streams: BTreeMap<i64, i64>,
    processes: BTreeMap<i64, (String, i64)>,
}

impl Follower {
    /// One that tells of what is committed from now on.
    pub(super) fn new(inner: &Inner) -> Result<Self, EngineError> {
        inner.storage.transaction(|transaction| {
            let streams = transaction.query("SELECT number, next FROM stride.streams", &[])?;
            let streams = streams.iter().map(|row| (row.get(0), row.get(1))).collect();
            let processes =
                "SELECT number, name, next FROM stride.processes WHERE successor_of IS NULL";
            let processes = transaction.query(processes, &[])?;
            let processes =
                processes.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
            Ok(Self { streams, processes })
        })
    }

    /// Tells of what is committed, until the engine has ended.
    pub(super) fn work(mut self, inner: &Inner) {
        let mut client = None;
        loop {
            let is_last = inner.is_over();
            if let Err(error) = self.turn(inner, &mut client, is_last) {
                tracing::debug!(error = %error.error, "what others store cannot be followed now");
                client = None;
                // Whoever waits for one holds a thread that others need to be told the same.
                let snapshots = std::mem::take(&mut *inner.snapshots());
                for snapshot in snapshots {
                    drop(snapshot.done.send(Err(error.error.clone())));
                }
                inner.pause(PAUSE);
            }
            inner.listener.progressed();
            if is_last {
                return;
            }
        }
    }

    /// Waits for news, and tells them.
    fn turn(
        &mut self,
        inner: &Inner,
        client: &mut Option<Connection>,
        is_last: bool,
    ) -> Result<(), Failure> {
        let news = match client {
            Some(client) if !is_last => wait(client)?,
            _ => {
                let mut listening = inner.storage.connect()?;
                listening.batch_execute(&format!("LISTEN {CHANNEL}"))?;
                *client = Some(listening);
                // What came before this connection listened is only found by looking.
                News::everything()
            }
        };
        self.tell(inner, &news)?;
        let snapshots = std::mem::take(&mut *inner.snapshots());
        for snapshot in snapshots {
            let done = snapshot.done.clone();
            // The caller waits, but its thread may be gone.
            drop(done.send(self.snapshot(inner, snapshot)));
        }
        Ok(())
    }

    /// Tells what changed before a snapshot, and delivers it.
    fn snapshot(&mut self, inner: &Inner, snapshot: Snapshot) -> Result<(), EngineError> {
        let Snapshot { process, most, deliver, .. } = snapshot;
        let (number, next, rows) = inner
            .storage
            .transaction(|transaction| process::snapshot(transaction, &process, most))?;
        self.tell_changes_of(inner, number, &process, next).map_err(|failure| failure.error)?;
        deliver(rows);
        Ok(())
    }

    fn tell(&mut self, inner: &Inner, news: &News) -> Result<(), Failure> {
        let (all, named) = (news.everything, Vec::from_iter(news.streams.iter().copied()));
        let select = "SELECT number, name, next FROM stride.streams
            WHERE $1 OR number = ANY($2) ORDER BY number";
        let streams = look_up(inner, select, all, &named)?;
        let there: BTreeSet<i64> = streams.iter().map(|(number, ..)| *number).collect();
        if all {
            self.streams.retain(|number, _| there.contains(number));
        }
        for gone in named.iter().filter(|number| !there.contains(number)) {
            self.streams.remove(gone);
        }
        for (number, name, next) in streams {
            let told = self.streams.entry(number).or_insert(1);
            inner.listener.added(&name, (next - *told).max(0).unsigned_abs());
            // Asked after `next` was read: whoever subscribes later begins there or behind it.
            if !inner.listener.wants_events(&name) {
                *told = next.max(*told);
            }
            while *told < next {
                let from = *told;
                let read = inner
                    .storage
                    .transaction(|transaction| pages::read(transaction, number, from, next, MOST));
                let (from, events) = match read {
                    Ok(read) => read,
                    // Whoever reads the stream finds out.
                    Err(EngineError::Damaged(_)) => (next, Records::default()),
                    Err(error) => return Err(error.into()),
                };
                *told = from + i64::try_from(events.ends.len()).unwrap_or(i64::MAX);
                inner.listener.stored(&name, pages::before(inner.drawn, number, from), &events);
            }
        }
        self.tell_changes(inner, news)
    }

    fn tell_changes(&mut self, inner: &Inner, news: &News) -> Result<(), Failure> {
        if !news.everything && news.processes.is_empty() {
            return Ok(());
        }
        let (all, named) = (news.everything, Vec::from_iter(news.processes.iter().copied()));
        let select = "SELECT number, name, next FROM stride.processes
            WHERE successor_of IS NULL AND ($1 OR number = ANY($2))";
        let processes: BTreeMap<i64, (String, i64)> = look_up(inner, select, all, &named)?
            .into_iter()
            .map(|(number, name, next)| (number, (name, next)))
            .collect();
        self.processes.retain(|number, (name, _)| {
            let is_gone = (all || named.contains(number)) && !processes.contains_key(number);
            if is_gone {
                inner.listener.process_deleted(name);
            }
            !is_gone
        });
        for (number, (name, next)) in processes {
            self.tell_changes_of(inner, number, &name, next)?;
        }
        Ok(())
    }

    fn tell_changes_of(
        &mut self,
        inner: &Inner,
        number: i64,
        name: &str,
        next: i64,
    ) -> Result<(), Failure> {
        let (_, told) = self.processes.entry(number).or_insert((name.to_owned(), 1));
        if !inner.listener.wants_changes(name) {
            *told = next.max(*told);
        }
        if *told < next {
            let from = *told;
            let changes = inner
                .storage
                .transaction(|transaction| process::changes(transaction, number, from, next))?;
            *told = next;
            let (changes, is_another) = changes;
            if let Some(changes) = changes {
                inner.listener.changed(name, &changes);
            }
            if is_another {
                inner.listener.changed_unseen(name);
            }
        }
        Ok(())
    }
}

/// The numbers and names of what has news, and what comes next there. Each commit is followed by this, on each server, so
/// it is to be one round trip.
fn look_up(
    inner: &Inner,
    select: &str,
    all: bool,
    named: &Vec<i64>,
) -> Result<Vec<(i64, String, i64)>, Failure> {
    let rows = inner.storage.with(|client| {
        client.query_typed(select, &[(&all, Type::BOOL), (named, Type::INT8_ARRAY)])
    })?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Waits for notifications, but not for ever: a connection that has ended gets none.
fn wait(client: &mut Client) -> Result<News, Failure> {
    let mut news = News::default();
    let first = client.notifications().timeout_iter(PAUSE).next()?;
    let Some(first) = first else {
        client.batch_execute("")?;
        return Ok(news);
    };
    news.add(first.payload());
    let mut notifications = client.notifications();
    let mut waiting = notifications.iter();
    while let Some(next) = waiting.next()? {
        news.add(next.payload());
    }
    Ok(news)
}
