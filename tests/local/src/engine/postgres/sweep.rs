//! What goes with time, deleted by one server at a time.

use std::time::{Duration, Instant};

use postgres::Transaction;
use time::OffsetDateTime;

use super::connections::Connection;
use super::inner::{self, Inner};
use super::process;
use super::retention;
use super::schema::{LOCKS, SWEEP};
use crate::engine::EngineError;
use crate::events::timestamp;

/// How often to look for rows of processes that have become too old.
const ROWS: Duration = Duration::from_secs(1);

/// How often to look for events that have, and for changes that everybody has read.
const EVENTS: Duration = Duration::from_secs(20);

/// How long to delete events before others have their turn.
const AT_ONCE: Duration = Duration::from_millis(300);

/// After a sweep nothing is swept for so many times as long as it took: it takes a quarter of a core at most.
const REST: u32 = 3;

/// How long changes of processes are kept for the other servers.
const KEPT: &str = "10 minutes";

/// Sweeps, until the engine has ended, for as long as it holds a lock. That goes with its connection, so another server
/// takes over when this one dies.
#[derive(Default)]
pub(super) struct Sweeper {
    holding: Option<Connection>,
    /// When to look at events next.
    events: Option<Instant>,
}

impl Sweeper {
    pub(super) fn work(mut self, inner: &Inner) {
        while !inner.is_closed() {
            let start = Instant::now();
            if let Err(error) = self.turn(inner) {
                tracing::warn!(%error, "what is too old cannot be deleted now");
                inner.failed(&error);
                self.holding = None;
            }
            inner.pause(ROWS.max(start.elapsed().saturating_mul(REST)));
        }
    }

    fn turn(&mut self, inner: &Inner) -> Result<(), EngineError> {
        if !self.holds(inner)? {
            return Ok(());
        }
        expire(inner)?;
        drop_tables(inner)?;
        let start = Instant::now();
        if self.events.is_some_and(|at| at > start) {
            return Ok(());
        }
        let now = timestamp::micros(OffsetDateTime::now_utc());
        while trim(inner, now)? {
            if start.elapsed() > AT_ONCE || inner.is_closed() {
                return Ok(());
            }
        }
        self.events = Some(Instant::now() + EVENTS);
        Ok(())
    }

    /// Whether this server is the one that sweeps.
    fn holds(&mut self, inner: &Inner) -> Result<bool, EngineError> {
        if let Some(client) = &mut self.holding {
            client.batch_execute("")?;
            return Ok(true);
        }
        let mut client = inner.storage.connect()?;
        let lock = "SELECT pg_try_advisory_lock($1, $2)";
        let holds: bool = client.query_one(lock, &[&LOCKS, &SWEEP])?.get(0);
        self.holding = holds.then_some(client);
        Ok(holds)
    }
}

/// Deletes the rows of processes that have become too old.
fn expire(inner: &Inner) -> Result<(), EngineError> {
    for number in inner.storage.transaction(process::with_ttl)? {
        let expire = || {
            inner.storage.transaction(|transaction| {
                let expired = process::expire(transaction, number)?;
                if expired > 0 {
                    inner::tell(transaction, number)?;
                }
                Ok(expired)
            })
        };
        while !inner.is_closed() {
            match expire() {
                Ok(process::MOST_EXPIRED) => {}
                Ok(_) => break,
                Err(error) if error.is_failure() => return Err(error),
                Err(error) => {
                    tracing::warn!(process = number, %error, "old rows of a process stay");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Drops tables that processes no longer have, but for those that are read just now.
fn drop_tables(inner: &Inner) -> Result<(), EngineError> {
    for table in inner.storage.transaction(process::discarded)? {
        let drop = |transaction: &mut Transaction<'_>| process::drop_table(transaction, &table);
        if let Err(error) = inner.storage.transaction(drop) {
            tracing::debug!(table, %error, "a table cannot be dropped yet");
        }
    }
    Ok(())
}

/// Deletes a slice of the events of each stream that has too many, of what belongs to none, and of changes; returns
/// whether there may be more.
pub(super) fn trim(inner: &Inner, now: i64) -> Result<bool, EngineError> {
    let limits = &inner.limits;
    let overfull =
        inner.storage.transaction(|transaction| retention::overfull(transaction, limits, now))?;
    let mut more = !overfull.is_empty();
    for stream in overfull {
        if inner.is_closed() {
            return Ok(false);
        }
        inner.storage.transaction(|transaction| {
            let changed = retention::trim(transaction, stream, limits, now)?;
            inner::notify(transaction, &[], &changed)
        })?;
    }
    more |= inner.storage.transaction(retention::collect_garbage)?;
    inner.storage.transaction(|transaction| {
        let trim = format!("DELETE FROM stride.changes WHERE at < now() - interval '{KEPT}'");
        transaction.batch_execute(&trim)?;
        Ok(())
    })?;
    // Processes may show less.
    inner.listener.progressed();
    Ok(more)
}
