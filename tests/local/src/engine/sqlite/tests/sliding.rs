//! Windows that are kept in steps: they hold what plain SQL would give at the step, and tell what leaves them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};

use fastrand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Fixture, limits, open_at, received};
use crate::engine::sqlite::writer::{Job, Task, Writer};
use crate::engine::{Definition, Engine as _, EngineError, Filling, Mode, Ttl};
use crate::settings::Limits;
use crate::sql::times::{micros_of, text_of};
use crate::subscribers::hub::Subscriber;

const SECOND: i64 = 1_000_000;

/// An engine with a clock that stands until it is set.
struct Clocked {
    fixture: Fixture,
    now: Arc<AtomicI64>,
}

/// Holds the writer, and says whether a window is to move.
struct Hold {
    held: Sender<bool>,
    go_on: Receiver<()>,
    now: Arc<AtomicI64>,
}

struct Held {
    is_held: Receiver<bool>,
    goes_on: Sender<()>,
}

impl Task for Hold {
    fn run(&mut self, writer: &mut Writer) -> Result<(), EngineError> {
        self.held.send(writer.processes.next_step(self.now.load(Relaxed)) == Some(0)).unwrap();
        self.go_on.recv().unwrap();
        Ok(())
    }

    fn finish(self: Box<Self>, _: Result<(), EngineError>) {}
}

impl std::ops::Deref for Clocked {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.fixture
    }
}

impl Clocked {
    fn at(path: Option<&Path>, limits: &Limits, now: i64) -> Self {
        let now = Arc::new(AtomicI64::new(now));
        let clock = Arc::clone(&now);
        let clock = Box::new(move || {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(clock.load(Relaxed)) * 1000)
                .unwrap()
        });
        Self { fixture: open_at(path, limits, clock), now }
    }

    fn start(now: &str) -> Self {
        Self::at(None, &limits(), micros_of(now).unwrap())
    }

    fn now(&self) -> i64 {
        self.now.load(Relaxed)
    }

    /// Has the writer wait, once it has come to this.
    fn hold(&self) -> Held {
        let (held, is_held) = mpsc::channel();
        let (goes_on, go_on) = mpsc::channel();
        let hold = Hold { held, go_on, now: Arc::clone(&self.now) };
        self.engine.inner.jobs.send(Job::Run(Box::new(hold))).unwrap();
        Held { is_held, goes_on }
    }

    /// Sets the clock, and does `see` after each commit until all windows have moved.
    fn set(&self, now: i64, mut see: impl FnMut()) {
        let mut held = self.hold();
        held.is_held.recv().unwrap();
        self.now.store(now, Relaxed);
        loop {
            // It is there before the writer goes on, which then comes to it after one commit.
            let next = self.hold();
            held.goes_on.send(()).unwrap();
            held = next;
            let has_more = held.is_held.recv().unwrap();
            see();
            if !has_more {
                return held.goes_on.send(()).unwrap();
            }
        }
    }

    fn pass(&self, seconds: i64) {
        self.set(self.now() + seconds * SECOND, || {});
    }
}

fn rows(engine: &Fixture, sql: &str) -> Vec<String> {
    let rows = engine.query(sql);
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

/// The rows of a process, as far as its changes tell.
struct Told {
    process: String,
    subscriber: Subscriber,
    rows: Vec<String>,
}

impl Told {
    fn new(engine: &Fixture, process: &str) -> Self {
        let subscriber = engine.subscribe(process, None);
        let rows = rows(engine, &format!("SELECT * FROM {process}"));
        Self { process: process.to_owned(), subscriber, rows }
    }

    /// Takes in what has changed, and has to come to what the table has. Returns how many changes that were.
    fn check(&mut self, engine: &Fixture) -> usize {
        let changes = received(&self.subscriber).expect("it goes on");
        for change in &changes {
            if !change["old"].is_null() {
                let old = change["old"].to_string();
                let place = self.rows.iter().position(|row| *row == old);
                self.rows.remove(place.unwrap_or_else(|| panic!("{}: no {old}", self.process)));
            }
            if !change["new"].is_null() {
                self.rows.push(change["new"].to_string());
            }
        }
        self.rows.sort();
        assert_eq!(
            self.rows,
            rows(engine, &format!("SELECT * FROM {}", self.process)),
            "{}",
            self.process
        );
        changes.len()
    }
}

/// What a window of so many seconds begins with at `now`: at most a step earlier.
fn begin(seconds: i64, now: i64) -> String {
    let step = (seconds * SECOND / 20).max(SECOND);
    text_of((now - seconds * SECOND).div_euclid(step) * step)
}

const COMPARED: [&str; 4] = [
    "$timestamp > {begin}",
    "s.$timestamp >= {begin} AND x > 0",
    "a IS NOT NULL AND ({begin} < utc($timestamp))",
    "{begin} <= $timestamp AND (x < 1 OR a = 'a')",
];

const SELECTED: [(&str, &str); 11] = [
    ("count(*) AS n, sum(x) AS s, total(x) AS t, avg(x) AS v, min(a) AS l, max(x) AS m", ""),
    ("a, count(*) AS n, sum(x) AS s, avg(x) AS v, min(x) AS l, max(x) AS m", "GROUP BY a"),
    ("a, b, count(x) AS n, total(x) AS t, max(utc($timestamp)) AS last", "GROUP BY a, b"),
    ("b, sum(x) FILTER (WHERE a = 'a') AS s, min(x) FILTER (WHERE x > 0) AS l", "GROUP BY b"),
    ("minute(s.$timestamp) AS minute, round(avg(x) * 2) + count(*) AS r", "GROUP BY minute"),
    ("coalesce(a, 'none') AS a", "GROUP BY 1"),
    ("a, count(*) AS n, sum(x) AS s", "GROUP BY a HAVING count(*) > 2"),
    ("a, b, max(x) AS m", "GROUP BY a, b HAVING sum(x) > 0 AND count(x) < 4"),
    ("count(*) AS n, sum(x) AS s", "HAVING count(*) > 2"),
    ("DISTINCT a, b", ""),
    ("min(utc($timestamp)) AS first, max(utc($timestamp)) AS last, count(a) AS n", ""),
];

/// A query, as it is kept and as it is asked at a moment.
struct Query {
    seconds: i64,
    sql: String,
}

impl Query {
    fn any(random: &mut Rng) -> Self {
        let seconds = [3, 10, 40, 60, 90, 3600][random.usize(..6)];
        let (selected, grouped) = SELECTED[random.usize(..SELECTED.len())];
        let condition = COMPARED[random.usize(..COMPARED.len())];
        Self { seconds, sql: format!("SELECT {selected} FROM s WHERE {condition} {grouped}") }
    }

    fn kept(&self) -> String {
        self.sql.replace("{begin}", &format!("now() - INTERVAL '{} seconds'", self.seconds))
    }

    fn asked(&self, now: i64) -> String {
        self.sql.replace("{begin}", &format!("'{}'", begin(self.seconds, now)))
    }
}

/// An event of about `now`: most are late, some are early, and some come twice.
fn event(random: &mut Rng, now: i64) -> Value {
    let mut event = json!({});
    let late = match random.u8(..8) {
        0 => -random.i64(0..200 * SECOND),
        1 => random.i64(0..5000 * SECOND),
        2 => random.i64(0..60) * SECOND,
        _ => random.i64(0..60 * SECOND),
    };
    let at = now - late;
    let second = at.div_euclid(SECOND) * SECOND;
    let at = match random.u8(..5) {
        0 => json!(text_of(second)),
        1 => json!(text_of(second + 7_200 * SECOND).replace('Z', "+02:00")),
        2 => json!(text_of(at - 3_600 * SECOND).replace('Z', "-01:00")),
        3 => json!(at.div_euclid(1000)),
        _ => json!(text_of(at)),
    };
    // Without one it is when it came, which is another day here.
    if random.u8(..20) > 0 {
        event["$timestamp"] = at;
    }
    if random.u8(..4) == 0 {
        event["$id"] = json!(random.u8(..40));
    }
    if random.u8(..6) > 0 {
        event["a"] = json!(["a", "b", "c"][random.usize(..3)]);
    }
    if random.u8(..6) > 0 {
        event["x"] = json!(f64::from(random.i8(-16..16)) / 8.0);
    }
    event["b"] = json!(random.u8(..3));
    event
}

/// Keeps some windows while events come and time passes, and compares them at every commit with plain SQL.
fn check(seed: u64, folder: &Path, turns: usize) {
    let mut random = Rng::with_seed(seed);
    let path = folder.join(format!("{seed}.db"));
    let start = micros_of("2015-05-05T23:40:27Z").unwrap();
    let limits = limits();
    let mut engine = Clocked::at(Some(&path), &limits, start);
    let queries: Vec<Query> = (0..6).map(|_| Query::any(&mut random)).collect();
    let mut told: Vec<Told> = Vec::new();
    let made = random.usize(..turns / 2);
    for turn in 0..turns {
        if turn == made {
            for (number, query) in queries.iter().enumerate() {
                engine.process(&format!("p{number}"), &query.kept());
                let mode = engine.stats(&format!("p{number}")).mode;
                assert_eq!(mode, Mode::Incremental, "{}", query.kept());
            }
        }
        if turn >= made && told.is_empty() && random.bool() {
            told = (0..queries.len())
                .map(|number| Told::new(&engine, &format!("p{number}")))
                .collect();
        }
        let events: Vec<Value> =
            (0..random.usize(..12)).map(|_| event(&mut random, engine.now())).collect();
        engine.collect("s", &json!(events).to_string());
        told.iter_mut().for_each(|told| _ = told.check(&engine));
        let pass = match random.u8(..8) {
            0 => random.i64(0..200) * SECOND,
            1 => random.i64(0..4000) * SECOND,
            2 => 0,
            _ => random.i64(0..10 * SECOND),
        };
        engine.set(engine.now() + pass, || {
            told.iter_mut().for_each(|told| _ = told.check(&engine));
        });
        if random.u8(..8) == 0 {
            told.clear();
            let now = engine.now() + random.i64(0..2) * random.i64(0..100) * SECOND;
            drop(engine);
            engine = Clocked::at(Some(&path), &limits, now);
            engine.set(now, || {});
        }
        if turn >= made {
            for (number, query) in queries.iter().enumerate() {
                let now = engine.now();
                let kept = rows(&engine, &format!("SELECT * FROM p{number}"));
                let asked = rows(&engine, &query.asked(now));
                assert_eq!(
                    kept,
                    asked,
                    "seed {seed}, turn {turn}, {}: {}",
                    text_of(now),
                    query.kept()
                );
            }
        }
    }
}

fn check_all(seeds: std::ops::Range<u64>, turns: usize) {
    let folder = tempfile::tempdir().unwrap();
    seeds.for_each(|seed| check(seed, folder.path(), turns));
}

#[test]
fn a_window_is_what_plain_sql_gives_at_its_step() {
    check_all(0..4, 24);
}

#[test]
#[ignore = "many windows; .ci/run runs it in release"]
fn a_window_is_what_plain_sql_gives_at_its_step_for_many_more() {
    check_all(100..160, 60);
}

/// Collects an event for each of these groups.
fn collect(engine: &Clocked, groups: std::ops::Range<u32>) {
    let at = text_of(engine.now());
    let event = |group| json!({"g": group, "x": 1, "$timestamp": at});
    engine.collect("s", &json!(groups.map(event).collect::<Vec<_>>()).to_string());
}

const MINUTE: &str = "$timestamp > now() - INTERVAL '1 minute'";

#[test]
fn without_groups_the_row_stays() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    let select =
        "SELECT count(*) AS n, sum(x) AS s, total(x) AS t, avg(x) AS v, max(x) AS m FROM s";
    engine.process("p", &format!("{select} WHERE {MINUTE}"));
    let nothing = json!({"n": 0, "s": null, "t": 0.0, "v": null, "m": null});
    assert_eq!(engine.query("SELECT * FROM p"), json!([nothing]));
    assert_eq!(engine.stats("p").rows, 1);
    let subscriber = engine.subscribe("p", None);
    collect(&engine, 0..2);
    let two = json!({"n": 2, "s": 2, "t": 2.0, "v": 1.0, "m": 1});
    assert_eq!(received(&subscriber).unwrap(), [json!({"old": nothing, "new": two})]);
    engine.pass(59);
    assert_eq!(engine.query("SELECT * FROM p"), json!([two]));
    assert_eq!(received(&subscriber).unwrap(), [] as [Value; 0]);
    engine.pass(4);
    assert_eq!(engine.query("SELECT * FROM p"), json!([nothing]));
    assert_eq!(received(&subscriber).unwrap(), [json!({"old": two, "new": nothing})]);
    assert_eq!(engine.stats("p").rows, 1);
}

#[test]
fn what_leaves_is_told_once_for_each_group_and_in_slices() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    engine.process("p", &format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g"));
    collect(&engine, 0..3000);
    engine.pass(30);
    collect(&engine, 2000..4000);
    let mut told = Told::new(&engine, "p");
    assert_eq!(told.rows.len(), 4000);
    let mut commits = Vec::new();
    engine.set(engine.now() + 33 * SECOND, || commits.push(told.check(&engine)));
    assert_eq!(commits.iter().sum::<usize>(), 3000);
    // None holds the writer for long.
    assert!(commits.len() >= 3 && commits[0] <= 1000, "{commits:?}");
    assert_eq!(rows(&engine, "SELECT DISTINCT n FROM p"), [r#"{"n":1}"#]);
    assert_eq!(engine.stats("p").rows, 2000);
    // A day of sleep is many steps, and still one change for each group.
    collect(&engine, 3000..3500);
    assert_eq!(told.check(&engine), 500);
    commits.clear();
    engine.set(engine.now() + 86_400 * SECOND, || commits.push(told.check(&engine)));
    assert_eq!(commits.iter().sum::<usize>(), 2000);
    assert!(told.rows.is_empty());
}

#[test]
fn without_subscribers_all_that_has_left_goes_at_once() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    engine.process("p", &format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g"));
    for _ in 0..10 {
        collect(&engine, 0..3000);
        engine.pass(3);
    }
    for (pass, left) in [(36, 3000), (86_400, 0)] {
        let mut commits = 0;
        engine.set(engine.now() + pass * SECOND, || commits += 1);
        assert_eq!((commits, engine.stats("p").rows), (1, left));
    }
    // Nor does the writer wake for what is empty and has no window.
    engine.engine.delete_process("p").unwrap();
    let next = engine.engine.inner.write(|writer| Ok(writer.processes.next_step(0)));
    assert_eq!(next, Ok(None));
}

#[test]
fn what_is_too_old_is_not_added_and_what_is_early_stays_until_its_time() {
    let engine = Clocked::start("2015-05-05T23:40:30Z");
    engine.process("p", &format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g"));
    engine.collect(
        "s",
        r#"[{"g": "old", "$timestamp": "2015-05-05T23:39:30Z"},
            {"g": "late", "$timestamp": "2015-05-05T23:39:30.000001Z"},
            {"g": "early", "$timestamp": "2015-05-06T01:41:31.5+02:00"}]"#,
    );
    let late = r#"{"g":"late","n":1}"#;
    let early = r#"{"g":"early","n":1}"#;
    assert_eq!(rows(&engine, "SELECT * FROM p"), [early, late]);
    engine.pass(3);
    assert_eq!(rows(&engine, "SELECT * FROM p"), [early]);
    engine.pass(118);
    assert_eq!(rows(&engine, "SELECT * FROM p"), [early]);
    engine.pass(3);
    assert_eq!(engine.query("SELECT * FROM p"), json!([]));
}

#[test]
fn a_window_outlasts_the_events_that_its_stream_lets_go_of() {
    let few = Limits { max_events: 10, ..limits() };
    let engine = Clocked::at(None, &few, micros_of("2015-05-05T23:40:27Z").unwrap());
    let window = format!("SELECT count(*) AS n FROM s WHERE {MINUTE}");
    engine.process("p", &window);
    collect(&engine, 0..5);
    engine.pass(30);
    collect(&engine, 0..20);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 25}]));
    engine.engine.delete_stream("s").unwrap();
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 25}]));
    engine.pass(33);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 20}]));
    engine.pass(30);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"n": 0}]));
}

#[test]
fn a_clock_that_is_set_back_has_the_window_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stride.db");
    let start = micros_of("2015-05-05T23:40:27Z").unwrap();
    let mut engine = Clocked::at(Some(&path), &limits(), start);
    let window = format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g");
    engine.process("p", &window);
    collect(&engine, 0..30);
    let (one, all) = (r#"{"g":7,"n":1}"#, 30);
    for restarts in [false, true] {
        engine.pass(86_400);
        assert_eq!(engine.query("SELECT * FROM p"), json!([]));
        // It is left out, and comes back with what it belongs to.
        engine.collect("s", r#"{"g": 7, "$timestamp": "2015-05-05T23:40:28Z"}"#);
        if restarts {
            drop(engine);
            engine = Clocked::at(Some(&path), &limits(), start + SECOND);
        }
        engine.set(start + SECOND, || {});
        engine.wait_until(|| engine.stats("p").filling.is_none() && engine.stats("p").rows == all);
        assert!(!rows(&engine, "SELECT * FROM p").contains(&one.to_owned()));
        collect(&engine, 0..1);
        engine.query("SELECT * FROM p");
    }
    assert_eq!(rows(&engine, "SELECT n FROM p WHERE g = 7"), [r#"{"n":3}"#]);
    assert_eq!(rows(&engine, "SELECT n FROM p WHERE g = 0"), [r#"{"n":3}"#]);
    // A step back is not worth that.
    engine.pass(61);
    let now = engine.now() - SECOND;
    let next = engine.engine.inner.write(move |writer| Ok(writer.processes.next_step(now)));
    assert!(next.unwrap() > Some(0));
}

#[test]
fn those_who_read_a_window_are_told_when_it_moves() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    engine.process("p", &format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g"));
    engine.process("top", "SELECT g, n FROM p ORDER BY n DESC, g LIMIT 1");
    collect(&engine, 5..6);
    engine.wait_until(|| engine.query("SELECT * FROM top") == json!([{"g": 5, "n": 1}]));
    for subscribed in [false, true] {
        let subscriber = subscribed.then(|| engine.subscribe("p", None));
        collect(&engine, 5..7);
        engine.wait_until(|| engine.query("SELECT g FROM top") == json!([{"g": 5}]));
        engine.pass(63);
        engine.wait_until(|| engine.query("SELECT * FROM top") == json!([]));
        drop(subscriber);
    }
}

#[test]
fn rows_of_a_window_may_have_a_time_to_live() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    let hour = "SELECT g, count(*) AS n, max(utc($timestamp)) AS last FROM s
        WHERE $timestamp > now() - INTERVAL '1 hour' GROUP BY g";
    let ttl = Ttl { duration: "1 minute".to_owned(), column: "last".to_owned() };
    let definition = Definition { query: hour.to_owned(), ttl: Some(ttl) };
    engine.engine.create_process("p", &definition).unwrap();
    let subscriber = engine.subscribe("p", None);
    collect(&engine, 0..2);
    engine.pass(50);
    collect(&engine, 1..2);
    assert_eq!(received(&subscriber).unwrap().len(), 3);
    engine.pass(20);
    engine.wait_until(|| engine.stats("p").rows == 1);
    let changes = received(&subscriber).unwrap();
    assert_eq!((&changes[0]["old"]["g"], &changes[0]["new"]), (&json!(0), &Value::Null));
    assert_eq!(engine.query("SELECT g, n FROM p"), json!([{"g": 1, "n": 2}]));
}

#[test]
fn stats_say_how_a_window_is_kept() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    for (window, step) in [("10 seconds", 1000), ("5 minutes", 15_000), ("1 day", 4_320_000)] {
        let condition = format!("$timestamp > now() - INTERVAL '{window}'");
        engine.process("p", &format!("SELECT count(*) AS n FROM s WHERE {condition}"));
        let stats = engine.stats("p");
        assert_eq!(
            (stats.mode, stats.step_ms, stats.filling),
            (Mode::Incremental, Some(step), None)
        );
        engine.engine.delete_process("p").unwrap();
    }
}

#[test]
fn events_of_many_times_to_come_leave_the_others_alone() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    engine.process("p", &format!("SELECT g, h, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g, h"));
    let mut told = Told::new(&engine, "p");
    collect(&engine, 0..400);
    assert_eq!(told.check(&engine), 400);
    let early = (1..5000).map(|step| text_of(engine.now() + step * 3 * SECOND));
    let early: Vec<Value> = early.map(|at| json!({"g": 7, "$timestamp": at})).collect();
    engine.collect("s", &json!(early).to_string());
    assert_eq!(told.check(&engine), 1);
    // What was there before is read once, not looked for in each step for each group: that would take too long, and
    // the events would be left out.
    collect(&engine, 0..400);
    assert_eq!(told.check(&engine), 400);
    assert_eq!(engine.query("SELECT n FROM p WHERE g = 7"), json!([{"n": 5001}]));
    assert_eq!(engine.stats("p").skipped, 0);
    engine.set(engine.now() + 63 * SECOND, || _ = told.check(&engine));
    assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 4998}]));
}

#[test]
fn a_window_moves_while_it_is_filled_and_stats_say_how_far_it_is() {
    let engine = Clocked::start("2015-05-05T23:40:27Z");
    for _ in 0..3 {
        collect(&engine, 0..1000);
        engine.pass(19);
    }
    let query = format!("SELECT g, count(*) AS n FROM s WHERE {MINUTE} GROUP BY g");
    let draft = engine.engine.draft("p", &Definition { query, ttl: None }).unwrap();
    let create = |writer: &mut Writer| {
        let Writer { connection, processes, now, notices, .. } = writer;
        processes.create(connection, draft, now.micros, notices)
    };
    engine.engine.inner.write(create).unwrap();
    let fill = || {
        let fill = |writer: &mut Writer| {
            let Writer { connection, processes, notices, .. } = writer;
            processes.fill(connection, "p", notices).map(drop)
        };
        engine.engine.inner.write(fill).unwrap();
        engine.stats("p").filling
    };
    assert_eq!(engine.stats("p").filling, Some(Filling { given: 0, of: 3000 }));
    assert_eq!(engine.engine.counters().filling_processes, 1);
    assert_eq!(fill(), Some(Filling { given: 1000, of: 3000 }));
    assert_eq!(engine.stats("p").rows, 1000);
    // What it was just given leaves, and what comes waits for its turn.
    engine.pass(3);
    assert_eq!(engine.stats("p").rows, 0);
    collect(&engine, 500..1500);
    assert_eq!(engine.stats("p").rows, 0);
    while fill().is_some() {}
    assert_eq!(engine.engine.counters().filling_processes, 0);
    let plain = format!(
        "SELECT g, count(*) AS n FROM s WHERE $timestamp > '{}' GROUP BY g",
        begin(60, engine.now())
    );
    assert_eq!(rows(&engine, "SELECT * FROM p"), rows(&engine, &plain));
    assert_eq!(engine.stats("p").rows, 1500);
}
