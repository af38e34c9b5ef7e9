//! Connections, kept for those who need one next.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres::{Client, Config, NoTls, Transaction};

use super::error::Failure;
use crate::engine::EngineError;

/// How often a transaction that the database ended is begun anew.
const MOST_TRIES: usize = 10;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Connections of one login.
pub(super) struct Connections {
    config: Config,
    /// What every connection runs first.
    setup: String,
    idle: Mutex<Vec<Client>>,
}

impl Connections {
    pub(super) fn new(mut config: Config, setup: String) -> Self {
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        config.application_name("stride-local");
        Self { config, setup, idle: Mutex::default() }
    }

    pub(super) fn connect(&self) -> Result<Client, postgres::Error> {
        let mut client = self.config.connect(NoTls)?;
        client.batch_execute(&self.setup)?;
        Ok(client)
    }

    /// Lends a connection.
    pub(super) fn with<T, E: From<postgres::Error>>(
        &self,
        work: impl FnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut client = self.take()?;
        let result = work(&mut client);
        self.put_back(client);
        result
    }

    fn take(&self) -> Result<Client, postgres::Error> {
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match waiting.filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => self.connect(),
        }
    }

    /// One that has failed is not lent again, nor are those that waited beside it.
    fn put_back(&self, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match client.is_closed() {
            // The server it was connected to has ended, as likely as not.
            true => idle.clear(),
            false => idle.push(client),
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
                transaction.commit().map_err(|error| {
                    // Of any other error nobody can say whether it is committed.
                    let again = error.code().is_some_and(|code| code.code().starts_with("40"));
                    Failure { error: error.into(), again }
                })?;
                Ok(value)
            };
            let done = attempt();
            self.put_back(client);
            match done {
                Err(Failure { again: true, .. }) if tries < MOST_TRIES => {}
                done => return done.map_err(|failure| failure.error),
            }
        }
    }

    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
