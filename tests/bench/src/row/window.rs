//! A process over a window of an hour, with 10,000 groups, five aggregates and 1,000,000 events that are stored. The limit
//! is SQLite alone, with the statements that a reader of its manual would write.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use stride_blocking::Stride;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_local::Local;
use tempfile::TempDir;

use crate::bare;
use crate::measure::Pair;
use crate::row::per_second;

const STORED: i64 = 1_000_000;
const GROUPS: i64 = 10_000;
const BATCH: i64 = 1000;

/// In one measurement.
const BATCHES: i64 = 50;

/// What the window is cut into, in milliseconds.
const HOUR: i64 = 3_600_000;
const STEP: i64 = HOUR / 20;

const COUNT: &str = "SELECT user, count(*) AS n FROM mystream GROUP BY user";
const WINDOW: &str =
    "SELECT user, count(*) AS n, sum(x) AS sum, avg(x) AS avg, min(x) AS min, max(x) AS max
    FROM mystream WHERE $timestamp > now() - INTERVAL '1 hour' GROUP BY user";

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(now.as_millis()).expect("it is before the year 292,278,994")
}

/// Events of all groups in turns, the last of them of now and the first `span` milliseconds before.
fn events(count: i64, span: i64) -> impl Iterator<Item = (i64, Value)> {
    let now = now();
    (0..count).map(move |i| {
        let at = now - span + span * i / count;
        let user = format!("user {}", i * 7919 % GROUPS);
        (at, json!({"user": user, "x": i % 1000, "$timestamp": at}))
    })
}

/// A server with so many events, which come over one connection.
struct Server {
    stride: Stride,
    client: bare::Blocking,
    // It ends when this goes.
    _local: Local,
}

impl Server {
    fn new(query: Option<&str>) -> Self {
        let builder = Local::builder().secret_key("key").max_events(10 * STORED as usize);
        let local = builder.max_event_bytes(1 << 30).start().expect("there is a port");
        let stride = Stride::builder("key").endpoint(&local.endpoint()).no_proxy().build();
        let stride = stride.expect("the endpoint is good");
        let client = bare::Blocking::new(local.addr().port());
        if let Some(query) = query {
            let process = json!({"query": query, "action": "MATERIALIZE"});
            let made = stride.post("/process/p", &process).expect("the server responds");
            made.error_for_status().expect("it is a good query");
        }
        let server = Self { stride, client, _local: local };
        let stored: Vec<Value> = events(STORED, HOUR).map(|(_, event)| event).collect();
        for batch in stored.chunks(BATCH as usize) {
            server.send(&body(batch));
        }
        server
    }

    fn send(&self, body: &[u8]) {
        self.client.post(body, true).expect("the server takes everything");
    }

    /// Microseconds per event.
    fn ingest(&self, body: &[u8]) -> f64 {
        1e6 / per_second((BATCH * BATCHES) as usize, || (0..BATCHES).for_each(|_| self.send(body)))
    }

    fn read(&self) -> Vec<Value> {
        let query = json!({"query": "SELECT * FROM p"});
        let response = self.stride.post("/analyze", &query).expect("the server responds");
        let response = response.error_for_status().expect("it is a good query");
        response.data().expect("it is JSON").expect("there is a result")
    }
}

fn body(events: &[Value]) -> Vec<u8> {
    let json = serde_json::to_vec(events).expect("it is JSON");
    Gzip::new(GzipLevel::FASTEST).compress([&json[..]]).to_vec()
}

/// A window in tables of SQLite's, kept by hand.
struct ByHand {
    database: Connection,
    place: i64,
    // The folder goes after the connection to what is in it.
    _folder: TempDir,
}

impl ByHand {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is a place for it");
        let database = Connection::open(folder.path().join("events.db")).expect("it opens");
        for (setting, value) in [("journal_mode", "wal"), ("synchronous", "off")] {
            database.pragma_update(None, setting, value).expect("SQLite has the setting");
        }
        database.pragma_update(None, "cache_size", -32 * 1024).expect("SQLite has the setting");
        database
            .execute_batch(
                "CREATE TABLE events (place INTEGER PRIMARY KEY, at INTEGER, id, event TEXT);
                CREATE TABLE kept (step, user, n, sum, total, min, max, PRIMARY KEY (step, user))
                WITHOUT ROWID",
            )
            .expect("the tables are made");
        let mut by_hand = Self { database, place: 0, _folder: folder };
        let stored: Vec<_> = events(STORED, HOUR).collect();
        for batch in stored.chunks(BATCH as usize) {
            by_hand.add(batch).expect("SQLite takes everything");
        }
        by_hand
    }

    fn add(&mut self, batch: &[(i64, Value)]) -> rusqlite::Result<()> {
        self.database.execute_batch("BEGIN IMMEDIATE")?;
        let first = self.place + 1;
        let mut insert = self.database.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?)")?;
        for (at, event) in batch {
            self.place += 1;
            insert.execute(params![self.place, at, None::<String>, event.to_string()])?;
        }
        let merge = format!(
            r#"INSERT INTO kept
            SELECT json_extract(event, '$."$timestamp"') / {STEP}, event ->> 'user', count(*), sum(event ->> 'x'),
                total(event ->> 'x'), min(event ->> 'x'), max(event ->> 'x')
            FROM events WHERE place BETWEEN ? AND ? GROUP BY 1, 2
            ON CONFLICT (step, user) DO UPDATE SET n = n + excluded.n, sum = sum + excluded.sum,
                total = total + excluded.total, min = min(min, excluded.min), max = max(max, excluded.max)"#
        );
        self.database.prepare_cached(&merge)?.execute([first, self.place])?;
        self.database.execute_batch("COMMIT")
    }

    fn read(&self) -> rusqlite::Result<usize> {
        let read = "SELECT json_object('user', user, 'n', sum(n), 'sum', sum(sum),
            'avg', total(total) / sum(n), 'min', min(min), 'max', max(max)) FROM kept GROUP BY user";
        let mut read = self.database.prepare_cached(read)?;
        let mut rows = read.query([])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            bytes += row.get_ref(0)?.as_str()?.len();
        }
        Ok(bytes)
    }
}

/// What a batch of events takes, with the window that they are in.
pub(super) struct Events {
    alone: Server,
    count: Server,
    window: Server,
    by_hand: ByHand,
    took: Vec<[f64; 3]>,
}

impl Events {
    pub(super) fn new() -> Self {
        let [alone, count, window] = [None, Some(COUNT), Some(WINDOW)].map(Server::new);
        Self { alone, count, window, by_hand: ByHand::new(), took: Vec::new() }
    }
}

impl Pair for Events {
    fn ours(&mut self) -> f64 {
        let batch: Vec<Value> = events(BATCH, 0).map(|(_, event)| event).collect();
        let body = body(&batch);
        let took = [&self.alone, &self.count, &self.window].map(|server| server.ingest(&body));
        self.took.push(took);
        took[2]
    }

    fn limit(&mut self) -> f64 {
        let batch: Vec<_> = events(BATCH, 0).collect();
        let rate = per_second((BATCH * BATCHES) as usize, || {
            for _ in 0..BATCHES {
                self.by_hand.add(&batch).expect("SQLite takes everything");
            }
        });
        1e6 / rate
    }

    fn note(&self) -> Option<String> {
        let median = |of: &dyn Fn(&[f64; 3]) -> f64| {
            let mut all: Vec<f64> = self.took.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Some(format!(
            "us per event that the server takes on top: {:.2} for a count, {:.2} for the window",
            median(&|took| took[1] - took[0]),
            median(&|took| took[2] - took[0]),
        ))
    }
}

/// Reading the whole window.
pub(super) struct Read {
    window: Server,
    by_hand: ByHand,
}

impl Read {
    pub(super) fn new() -> Self {
        Self { window: Server::new(Some(WINDOW)), by_hand: ByHand::new() }
    }
}

impl Pair for Read {
    fn ours(&mut self) -> f64 {
        let start = Instant::now();
        assert_eq!(self.window.read().len(), GROUPS as usize);
        start.elapsed().as_secs_f64() * 1e3
    }

    fn limit(&mut self) -> f64 {
        let start = Instant::now();
        assert!(self.by_hand.read().expect("SQLite reads it") > 0);
        start.elapsed().as_secs_f64() * 1e3
    }
}

/// The longest that a small request waits while a step with all groups leaves its window, in milliseconds.
pub(super) struct Step;

impl Pair for Step {
    fn ours(&mut self) -> f64 {
        let local = Local::builder().secret_key("key").start().expect("there is a port");
        let client = bare::Blocking::new(local.addr().port());
        let stride = Stride::builder("key").endpoint(&local.endpoint()).no_proxy().build();
        let window =
            "SELECT user, count(*) AS n, sum(x) AS sum, avg(x) AS avg, min(x) AS min, max(x) AS max
            FROM mystream WHERE $timestamp > now() - INTERVAL '20 seconds' GROUP BY user";
        let process = json!({"query": window, "action": "MATERIALIZE"});
        let stride = stride.expect("the endpoint is good");
        let made = stride.post("/process/p", &process).expect("the server responds");
        made.error_for_status().expect("it is a good query");
        // One step leaves in a second, and the next ones after it.
        let old = now() - 18_000;
        let groups = (0..GROUPS)
            .map(|user| json!({"user": format!("user {user}"), "x": 1, "$timestamp": old}));
        client.post(&body(&groups.collect::<Vec<_>>()), true).expect("the server takes everything");
        let count = || local.rows("p").expect("the storage works").len();
        assert_eq!(count(), GROUPS as usize);
        let mut longest = Duration::ZERO;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(4500) {
            let start = Instant::now();
            client.post(b"{\"x\": 1}", false).expect("the server takes everything");
            longest = longest.max(start.elapsed());
        }
        assert!(count() < 10, "the step is gone");
        longest.as_secs_f64() * 1e3
    }

    fn limit(&mut self) -> f64 {
        20.0
    }
}
