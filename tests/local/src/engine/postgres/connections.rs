//! Connections, kept for those who need one next.

use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::config::TargetSessionAttrs;
use postgres::{CancelToken, Client, Config, Statement, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{self, Failure};
use super::tls;
use crate::engine::EngineError;

/// How often a transaction that the database ended is begun anew.
pub(super) const MOST_TRIES: usize = 10;

/// How long to wait for each address of the database.
const CONNECT: Duration = Duration::from_secs(5);

/// How long what was sent may go without being acknowledged by the database's machine.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long a connection is silent before its other end is asked whether it is there, how often it is asked, and how
/// often in vain. By default it would be two hours.
const SILENT: Duration = Duration::from_secs(15);
const ASKED_EVERY: Duration = Duration::from_secs(5);
const ASKED: u32 = 3;

/// For how long nobody tries to connect to a database that could not be reached.
const AWAY: Duration = Duration::from_millis(500);

/// How many statements a connection keeps.
const MOST_PREPARED: usize = 500;

/// A connection, with the statements that were prepared on it.
pub(super) struct Connection {
    client: Client,
    prepared: Prepared,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Statements that one connection knows. To run one takes one round trip; to prepare it each time would take three.
#[derive(Default)]
pub(super) struct Prepared(HashMap<String, Statement>);

impl Prepared {
    /// A statement, ready to be run.
    pub(super) fn of(
        &mut self,
        transaction: &mut Transaction<'_>,
        sql: &str,
    ) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.0.get(sql) {
            return Ok(statement.clone());
        }
        let statement = transaction.prepare(sql)?;
        // Those of processes that are gone are among them.
        if self.0.len() >= MOST_PREPARED {
            self.0.clear();
        }
        self.0.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Connections of one login.
pub(super) struct Connections {
    config: Config,
    tls: MakeRustlsConnect,
    /// What every connection runs first.
    setup: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    away: Option<Away>,
}

/// The database could not be reached.
struct Away {
    why: EngineError,
    /// Until then everybody is told so at once.
    until: Instant,
}

impl Away {
    fn new(why: &EngineError, now: Instant) -> Self {
        Self { why: why.clone(), until: now + AWAY }
    }

    /// Lets one through, for all: the others are told why it is away until that one knows more.
    fn ask(&mut self, now: Instant) -> Result<(), EngineError> {
        if now < self.until {
            return Err(self.why.clone());
        }
        // Far longer than it takes, should it never come back to say so.
        self.until = now + 10 * CONNECT;
        Ok(())
    }
}

impl Connections {
    /// Connections to the database of a connection string.
    pub(super) fn new(database: &str, setup: String) -> io::Result<Self> {
        let (mut config, tls) = tls::read(database)?;
        let default = Config::new();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED);
        }
        if config.get_keepalives_idle() == default.get_keepalives_idle() {
            config.keepalives_idle(SILENT);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(ASKED_EVERY);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(ASKED);
        }
        config.application_name("stride-local");
        Ok(Self { config, tls, setup, state: Mutex::default() })
    }

    /// The same, to whichever of several hosts can be written to.
    pub(super) fn that_write(database: &str, setup: String) -> io::Result<Self> {
        let mut connections = Self::new(database, setup)?;
        connections.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(connections)
    }

    /// The name of the login.
    pub(super) fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection. While the database is away, one at a time tries to make one, and the others are told at once.
    pub(super) fn connect(&self) -> Result<Connection, EngineError> {
        if let Some(away) = &mut self.state().away {
            away.ask(Instant::now())?;
        }
        let connected = self.config.connect(self.tls.clone()).and_then(|mut client| {
            client.batch_execute(&self.setup)?;
            Ok(client)
        });
        match connected {
            Ok(client) => {
                if self.state().away.take().is_some() {
                    tracing::info!("the database can be reached again");
                }
                Ok(Connection { client, prepared: Prepared::default() })
            }
            Err(error) => {
                let why = EngineError::from(error);
                let before = self.state().away.replace(Away::new(&why, Instant::now()));
                if before.is_none_or(|before| before.why != why) {
                    tracing::warn!(%why, "no connection to the database");
                }
                Err(why)
            }
        }
    }

    /// Lends a connection.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, EngineError> {
        let mut connection = self.take()?;
        let result = work(&mut connection);
        self.put_back(connection);
        Ok(result?)
    }

    pub(super) fn take(&self) -> Result<Connection, EngineError> {
        let waiting = self.state().idle.pop();
        match waiting.filter(|connection| !connection.is_closed()) {
            Some(connection) => Ok(connection),
            None => self.connect(),
        }
    }

    /// One that has failed is not lent again, nor are those that waited beside it.
    pub(super) fn put_back(&self, connection: Connection) {
        match connection.is_closed() {
            // The server it was connected to has ended, as likely as not.
            true => self.close(),
            false => self.state().idle.push(connection),
        }
    }

    /// Does `work` in a transaction, again if the database ended it. It is not done again once its commit was
    /// asked for: it may have succeeded.
    pub(super) fn transaction<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        self.prepared_transaction(|transaction, _| work(transaction))
    }

    /// The same, with the statements that the connection knows.
    pub(super) fn prepared_transaction<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>, &mut Prepared) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // Whoever gets none is told at once, and may ask again.
            let mut connection = self.take()?;
            let Connection { client, prepared } = &mut connection;
            let mut attempt = || {
                let mut transaction = client.transaction()?;
                let value = work(&mut transaction, prepared)?;
                transaction.commit().map_err(Failure::of_commit)?;
                Ok(value)
            };
            let done: Result<T, Failure> = attempt();
            match &done {
                // The connection is to a server that was the primary. Another is by now.
                Err(failure) if failure.error == error::standby() => self.close(),
                _ => self.put_back(connection),
            }
            match done {
                Err(Failure { again: true, .. }) if tries < MOST_TRIES => {}
                done => return done.map_err(|failure| failure.error),
            }
        }
    }

    /// Has the database end what it does for a connection.
    pub(super) fn cancel(&self, query: &CancelToken) {
        if let Err(error) = query.cancel_query(self.tls.clone()) {
            tracing::debug!(%error, "a query could not be ended");
        }
    }

    /// Ends those that nobody uses.
    pub(super) fn close(&self) {
        // Not while the lock is held: each says goodbye to its server.
        let idle = std::mem::take(&mut self.state().idle);
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_goes_silent_is_noticed_in_half_a_minute_unless_the_string_says_otherwise() {
        let connections = |url: &str| Connections::new(url, String::new()).unwrap().config;
        let config = connections("postgres://h/d");
        let asked =
            config.get_keepalives_interval().unwrap() * config.get_keepalives_retries().unwrap();
        assert_eq!(config.get_keepalives_idle() + asked, Duration::from_secs(30));
        assert_eq!(config.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
        assert_eq!(config.get_connect_timeout(), Some(&CONNECT));
        let set = "connect_timeout=1&tcp_user_timeout=2&keepalives_idle=3&keepalives_interval=4";
        let config = connections(&format!("postgres://h/d?{set}&keepalives_retries=5"));
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        assert_eq!(seconds(config.get_connect_timeout().copied()), Some(1));
        assert_eq!(seconds(config.get_tcp_user_timeout().copied()), Some(2));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(3));
        assert_eq!(seconds(config.get_keepalives_interval()), Some(4));
        assert_eq!(config.get_keepalives_retries(), Some(5));
    }

    #[test]
    fn one_at_a_time_tries_to_reach_a_database_that_is_away() {
        let (now, later) = (Instant::now(), Instant::now() + CONNECT);
        let why = EngineError::Unavailable("away".to_owned());
        let mut away = Away::new(&why, now);
        assert_eq!(away.ask(now), Err(why.clone()));
        assert_eq!(away.ask(later), Ok(()), "one tries");
        assert_eq!(away.ask(later), Err(why.clone()), "and the others do not wait for it");
        // It was in vain.
        away = Away::new(&why, later);
        assert_eq!(away.ask(later + AWAY / 2), Err(why));
        assert_eq!(away.ask(later + AWAY), Ok(()));
    }
}
