//! What `stride-local` takes over HTTP, beside what SQLite alone takes of the same rows in the same
//! transactions.

use rusqlite::{Connection, params};
use serde_json::Value;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_local::Local;
use tempfile::TempDir;

use crate::bare;
use crate::event::{Event as _, Readme};
use crate::measure::Pair;
use crate::row::per_second;

/// As a collector sends them.
const BATCH: u64 = 1000;

/// On each of two connections, which is how many a collector has.
const REQUESTS: usize = 50;

/// Microseconds since 1970: when the rows were stored, which makes no difference.
const AT: i64 = 1_430_869_227_000_000;

/// A server, and a database like its own.
pub(super) struct Ingest {
    local: Local,
    clients: [bare::Blocking; 2],
    body: Vec<u8>,
    database: Connection,
    /// The events as the server keeps them.
    rows: Vec<String>,
    place: i64,
    // The folder goes after the connection to what is in it.
    _folder: TempDir,
}

impl Ingest {
    pub(super) fn new() -> Self {
        let local = Local::builder().secret_key("key").start().expect("there is a port");
        let clients = [(); 2].map(|()| bare::Blocking::new(local.addr().port()));
        let events: Vec<Readme> = (0..BATCH).map(Readme::new).collect();
        let json = serde_json::to_vec(&events).expect("it is JSON");
        let body = Gzip::new(GzipLevel::FASTEST).compress([&json[..]]).to_vec();
        clients[0].post(&body, true).expect("the server takes everything");
        let rows = local
            .events("mystream")
            .expect("the storage works")
            .iter()
            .map(Value::to_string)
            .collect();

        let folder = tempfile::tempdir().expect("there is a place for it");
        let database = Connection::open(folder.path().join("events.db")).expect("it opens");
        // The server's settings when it keeps nothing for longer than it runs.
        for (setting, value) in [("journal_mode", "wal"), ("synchronous", "off")] {
            database.pragma_update(None, setting, value).expect("SQLite has the setting");
        }
        database
            .execute_batch(
                "CREATE TABLE events (place INTEGER PRIMARY KEY, at INTEGER, id, event TEXT)",
            )
            .expect("the table is made");
        Self { local, clients, body, database, rows, place: 0, _folder: folder }
    }

    fn insert(&mut self) -> rusqlite::Result<()> {
        let mut insert = self.database.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?)")?;
        for _ in 0..2 * REQUESTS {
            self.database.execute_batch("BEGIN IMMEDIATE")?;
            for row in &self.rows {
                self.place += 1;
                insert.execute(params![self.place, AT, None::<String>, row])?;
            }
            self.database.execute_batch("COMMIT")?;
        }
        Ok(())
    }
}

impl Pair for Ingest {
    fn ours(&mut self) -> f64 {
        let before = self.local.count("mystream").expect("the storage works");
        let events = 2 * REQUESTS * self.rows.len();
        let rate = per_second(events, || {
            std::thread::scope(|scope| {
                for client in &self.clients {
                    scope.spawn(|| {
                        for _ in 0..REQUESTS {
                            client.post(&self.body, true).expect("the server takes everything");
                        }
                    });
                }
            });
        });
        assert_eq!(
            self.local.count("mystream").expect("the storage works") - before,
            events as u64
        );
        rate
    }

    fn limit(&mut self) -> f64 {
        per_second(2 * REQUESTS * self.rows.len(), || {
            self.insert().expect("SQLite takes everything");
        })
    }
}
