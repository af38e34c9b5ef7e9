//! Processes that keep up with every event, with 10,000 groups and 1,000,000 events that are stored: distinct counts, plain
//! rows, and five aggregates over a window of an hour. The limit is SQLite alone, with the statements that a reader of its
//! manual would write.

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

/// In milliseconds. A step of a window of that length is a twentieth of it.
const HOUR: i64 = 3_600_000;

const COUNT: &str = "SELECT user, count(*) AS n FROM mystream GROUP BY user";
const WINDOW: &str =
    "SELECT user, count(*) AS n, sum(x) AS sum, avg(x) AS avg, min(x) AS min, max(x) AS max
    FROM mystream WHERE $timestamp > now() - INTERVAL '1 hour' GROUP BY user";

/// A kind of process.
pub(super) struct Kind {
    query: &'static str,
    /// The tables that keep its result by hand.
    tables: &'static str,
    /// Adds the events from one place up to another to them; what it returns are groups that have one value more.
    merge: &'static str,
    /// Whether each event brings a value that its group has not had.
    is_new: bool,
}

/// What each group whose distinct values became more is given by hand.
const ONE_MORE: &str = "INSERT INTO kept VALUES (?, 1) ON CONFLICT (user) DO UPDATE SET n = n + 1";

pub(super) const OF_WINDOW: Kind = Kind {
    query: WINDOW,
    tables: "CREATE TABLE kept (step, user, n, sum, total, min, max, PRIMARY KEY (step, user)) WITHOUT ROWID",
    merge: r#"INSERT INTO kept
        SELECT json_extract(event, '$."$timestamp"') / 180000, event ->> 'user', count(*), sum(event ->> 'x'),
            total(event ->> 'x'), min(event ->> 'x'), max(event ->> 'x')
        FROM events WHERE place BETWEEN ? AND ? GROUP BY 1, 2
        ON CONFLICT (step, user) DO UPDATE SET n = n + excluded.n, sum = sum + excluded.sum,
            total = total + excluded.total, min = min(min, excluded.min), max = max(max, excluded.max)"#,
    is_new: false,
};

pub(super) const OF_KNOWN_VALUES: Kind = Kind {
    query: "SELECT user, count(DISTINCT v) AS n FROM mystream GROUP BY user",
    tables: "CREATE TABLE seen (user, v, PRIMARY KEY (user, v)) WITHOUT ROWID;
        CREATE TABLE kept (user PRIMARY KEY, n) WITHOUT ROWID",
    merge: "INSERT INTO seen SELECT event ->> 'user', event ->> 'v' FROM events
        WHERE place BETWEEN ? AND ? ON CONFLICT DO NOTHING RETURNING user",
    is_new: false,
};

pub(super) const OF_NEW_VALUES: Kind = Kind { is_new: true, ..OF_KNOWN_VALUES };

pub(super) const OF_ROWS: Kind = Kind {
    query: "SELECT user, x FROM mystream WHERE x >= 0",
    tables: "CREATE TABLE kept (place INTEGER PRIMARY KEY, user, x)",
    merge: "INSERT INTO kept SELECT place, event ->> 'user', event ->> 'x' FROM events
        WHERE place BETWEEN ? AND ? AND event ->> 'x' >= 0",
    is_new: false,
};

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(now.as_millis()).expect("it is before the year 292,278,994")
}

/// Events of all groups in turns, the last of them of now and the first `span` milliseconds before. Their `v` is one of ten
/// values of its group, or begins with `new`.
fn events(count: i64, span: i64, new: Option<i64>) -> impl Iterator<Item = (i64, Value)> {
    let now = now();
    (0..count).map(move |i| {
        let at = now - span + span * i / count;
        let user = format!("user {}", i * 7919 % GROUPS);
        let v = new.map_or(i / GROUPS % 10, |new| new + i);
        (at, json!({"user": user, "x": i % 1000, "v": v, "$timestamp": at}))
    })
}

/// Batches of new events.
fn batches(kind: &Kind, from: &mut i64) -> Vec<Vec<(i64, Value)>> {
    if !kind.is_new {
        return vec![events(BATCH, 0, None).collect(); BATCHES as usize];
    }
    let batch = |_| {
        *from += BATCH;
        events(BATCH, 0, Some(*from)).collect()
    };
    (0..BATCHES).map(batch).collect()
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
        let stored: Vec<_> = events(STORED, HOUR, None).collect();
        for batch in stored.chunks(BATCH as usize) {
            server.send(&body(batch));
        }
        server
    }

    fn send(&self, body: &[u8]) {
        self.client.post(body, true).expect("the server takes everything");
    }

    /// Microseconds per event.
    fn ingest(&self, bodies: &[Vec<u8>]) -> f64 {
        1e6 / per_second((BATCH * BATCHES) as usize, || bodies.iter().for_each(|it| self.send(it)))
    }

    fn read(&self) -> Vec<Value> {
        let query = json!({"query": "SELECT * FROM p"});
        let response = self.stride.post("/analyze", &query).expect("the server responds");
        let response = response.error_for_status().expect("it is a good query");
        response.data().expect("it is JSON").expect("there is a result")
    }
}

fn body(events: &[(i64, Value)]) -> Vec<u8> {
    let events: Vec<&Value> = events.iter().map(|(_, event)| event).collect();
    let json = serde_json::to_vec(&events).expect("it is JSON");
    Gzip::new(GzipLevel::FASTEST).compress([&json[..]]).to_vec()
}

/// A result in tables of SQLite's, kept by hand.
struct ByHand {
    kind: &'static Kind,
    database: Connection,
    place: i64,
    // The folder goes after the connection to what is in it.
    _folder: TempDir,
}

impl ByHand {
    fn new(kind: &'static Kind) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for it");
        let database = Connection::open(folder.path().join("events.db")).expect("it opens");
        for (setting, value) in [("journal_mode", "wal"), ("synchronous", "off")] {
            database.pragma_update(None, setting, value).expect("SQLite has the setting");
        }
        database.pragma_update(None, "cache_size", -32 * 1024).expect("SQLite has the setting");
        let stream = "CREATE TABLE events (place INTEGER PRIMARY KEY, at INTEGER, id, event TEXT)";
        for tables in [stream, kind.tables] {
            database.execute_batch(tables).expect("the tables are made");
        }
        let mut by_hand = Self { kind, database, place: 0, _folder: folder };
        let stored: Vec<_> = events(STORED, HOUR, None).collect();
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
        let mut merge = self.database.prepare_cached(self.kind.merge)?;
        let mut grown = merge.query([first, self.place])?;
        while let Some(group) = grown.next()? {
            let group = group.get_ref(0)?.as_str()?;
            self.database.prepare_cached(ONE_MORE)?.execute([group])?;
        }
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

/// What an event takes, with the process that it is added to.
pub(super) struct Events {
    alone: Server,
    count: Server,
    process: Server,
    by_hand: ByHand,
    new: [i64; 2],
    took: Vec<[f64; 3]>,
}

impl Events {
    pub(super) fn new(kind: &'static Kind) -> Self {
        let [alone, count, process] = [None, Some(COUNT), Some(kind.query)].map(Server::new);
        // Far from all values that are stored.
        let new = [1_000_000_000; 2];
        Self { alone, count, process, by_hand: ByHand::new(kind), new, took: Vec::new() }
    }
}

impl Pair for Events {
    fn ours(&mut self) -> f64 {
        let batches = batches(self.by_hand.kind, &mut self.new[0]);
        let bodies: Vec<_> = batches.iter().map(|batch| body(batch)).collect();
        let took = [&self.alone, &self.count, &self.process].map(|server| server.ingest(&bodies));
        self.took.push(took);
        took[2]
    }

    fn limit(&mut self) -> f64 {
        let batches = batches(self.by_hand.kind, &mut self.new[1]);
        let rate = per_second((BATCH * BATCHES) as usize, || {
            for batch in &batches {
                self.by_hand.add(batch).expect("SQLite takes everything");
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
            "us per event that the server takes on top: {:.2} for a count, {:.2} for this",
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
        Self { window: Server::new(Some(WINDOW)), by_hand: ByHand::new(&OF_WINDOW) }
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
            .map(|user| (old, json!({"user": format!("user {user}"), "x": 1, "$timestamp": old})));
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
