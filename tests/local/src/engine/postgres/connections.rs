//! Connections, kept for those who need one next.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::config::TargetSessionAttrs;
use postgres::{CancelToken, Client, Config, Transaction};
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
    idle: Vec<Client>,
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
    pub(super) fn connect(&self) -> Result<Client, EngineError> {
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
                Ok(client)
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
        let mut client = self.take()?;
        let result = work(&mut client);
        self.put_back(client);
        Ok(result?)
    }

    pub(super) fn take(&self) -> Result<Client, EngineError> {
        let waiting = self.state().idle.pop();
        match waiting.filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => self.connect(),
        }
    }

    /// One that has failed is not lent again, nor are those that waited beside it.
    pub(super) fn put_back(&self, client: Client) {
        match client.is_closed() {
            // The server it was connected to has ended, as likely as not.
            true => self.close(),
            false => self.state().idle.push(client),
        }
    }

    /// Does `work` in a transaction, again if the database ended it. It is not done again once its commit was
    /// asked for: it may have succeeded.
    pub(super) fn transaction<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // Whoever gets none is told at once, and may ask again.
            let mut client = self.take()?;
            let mut attempt = || {
                let mut transaction = client.transaction()?;
                let value = work(&mut transaction)?;
                transaction.commit().map_err(Failure::of_commit)?;
                Ok(value)
            };
            let done: Result<T, Failure> = attempt();
            match &done {
                // The connection is to a server that was the primary. Another is by now.
                Err(failure) if failure.error == error::standby() => self.close(),
                _ => self.put_back(client),
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
