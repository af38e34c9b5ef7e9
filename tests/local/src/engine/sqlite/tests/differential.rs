//! Random queries over random events, kept in every way that there is, and asked of SQLite alone.

use std::collections::HashSet;
use std::path::Path;

use fastrand::Rng;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};

use super::{Fixture, at};
use crate::engine::Mode;

/// A piece of SQL, and what it is for SQLite alone.
type Pair = (&'static str, &'static str);

const NUMBERS: [Pair; 6] = [
    ("x", "x"),
    ("b", "b"),
    ("x + 1", "x + 1"),
    ("s.x * 2 - b", "s.x * 2 - b"),
    ("length(t)", "length(t)"),
    ("CASE WHEN x > 0 THEN x ELSE b END", "CASE WHEN x > 0 THEN x ELSE b END"),
];

const OTHERS: [Pair; 14] = [
    ("a", "a"),
    ("t", "t"),
    ("s.a", "s.a"),
    ("lower(t)", "lower(t)"),
    ("coalesce(t, 'none')", "coalesce(t, 'none')"),
    ("o ->> 'n'", "o ->> 'n'"),
    ("o", "o"),
    ("round(x)", "round(x)"),
    ("never_sent", "NULL"),
    ("typeof(a)", "typeof(a)"),
    ("b IS NULL", "b IS NULL"),
    ("7", "(SELECT 7)"),
    ("date_trunc('minute', s.$timestamp)", "substr(at, 1, 17) || '00.000000Z'"),
    ("minute(s.$timestamp) > '2015-05-05T12:30:00Z'", "substr(at, 1, 16) > '2015-05-05T12:30'"),
];

const CONDITIONS: [Pair; 9] = [
    ("x > 0", "x > 0"),
    ("a IS NOT NULL", "a IS NOT NULL"),
    ("t = 'a' OR x < 1", "t = 'a' OR x < 1"),
    ("x BETWEEN -1 AND 1", "x BETWEEN -1 AND 1"),
    ("t LIKE 'a%'", "t LIKE 'a%'"),
    ("t ILIKE 'A_%'", "t LIKE 'A_%'"),
    ("t IN ('a', 'ab', 'b')", "t IN ('a', 'ab', 'b')"),
    ("s.$timestamp > '2015-05-05T12:30:00Z'", "at > '2015-05-05T12:30:00.000000Z'"),
    (
        "s.$timestamp BETWEEN '2015-05-05T14:10:00+02:00' AND '2015-05-05 12:40'",
        "at BETWEEN '2015-05-05T12:10:00.000000Z' AND '2015-05-05T12:40:00.000000Z'",
    ),
];

/// A query as the engine and as SQLite reads it.
#[derive(Debug)]
struct Query {
    ours: String,
    plain: String,
    mode: Mode,
}

struct Maker(Rng);

fn pair(ours: &str, plain: &str) -> (String, String) {
    (ours.to_owned(), plain.to_owned())
}

fn distinct((ours, plain): (String, String)) -> (String, String) {
    (format!("DISTINCT {ours}"), format!("DISTINCT {plain}"))
}

impl Maker {
    fn pick(&mut self, of: &[Pair]) -> (String, String) {
        let (ours, plain) = of[self.0.usize(..of.len())];
        (ours.to_owned(), plain.to_owned())
    }

    fn any(&mut self) -> (String, String) {
        if self.0.bool() { self.pick(&NUMBERS) } else { self.pick(&OTHERS) }
    }

    fn aggregate(&mut self) -> (String, String) {
        let (name, of) = match self.0.u8(..10) {
            8 => ("count", distinct(self.any())),
            9 => ("count", distinct(pair("s.$timestamp", "at"))),
            0 => return ("count(*)".to_owned(), "count(*)".to_owned()),
            1 => ("count", self.any()),
            2 => ("min", self.pick(&OTHERS)),
            3 => ("max", self.any()),
            number => {
                (["sum", "avg", "total", "min"][usize::from(number) - 4], self.pick(&NUMBERS))
            }
        };
        let call = |of: &str| format!("{name}({of})");
        let (ours, plain) = (call(&of.0), call(&of.1));
        match self.0.u8(..6) {
            0 => {
                let filter = self.pick(&CONDITIONS);
                let with = |call: &str, filter: &str| format!("{call} FILTER (WHERE {filter})");
                (with(&ours, &filter.0), with(&plain, &filter.1))
            }
            1 if name != "max" && name != "min" => {
                let with = |call: &str| format!("round({call} * 2) + count(*)");
                (with(&ours), with(&plain))
            }
            _ => (ours, plain),
        }
    }

    /// A query that is kept up to date with every event and has no aggregates.
    fn plain(&mut self) -> Query {
        let results: Vec<_> = (0..self.0.usize(1..4)).map(|_| self.any()).collect();
        let condition = self.0.bool().then(|| self.pick(&CONDITIONS));
        let distinct = if self.0.bool() { "DISTINCT " } else { "" };
        let write = |of: fn(&(String, String)) -> &str| {
            let results = results.iter().enumerate();
            let results = results.map(|(place, result)| format!("{} AS r{place}", of(result)));
            let results: Vec<String> = results.collect();
            let condition = condition.iter().map(|condition| format!(" WHERE {}", of(condition)));
            let condition: String = condition.collect();
            format!("SELECT {distinct}{} FROM s{condition}", results.join(", "))
        };
        Query { ours: write(|pair| &pair.0), plain: write(|pair| &pair.1), mode: Mode::Incremental }
    }

    /// An aggregate of one stream. One that is `recomputed` has something in it that cannot be added to.
    fn aggregates(&mut self, recomputed: bool) -> Query {
        let keys: Vec<_> = (0..self.0.usize(..3)).map(|_| self.any()).collect();
        let aggregates: Vec<_> = (0..self.0.usize(1..4)).map(|_| self.aggregate()).collect();
        let condition = self.0.bool().then(|| self.pick(&CONDITIONS));
        let having = match self.0.u8(..6) {
            0 => Some(pair("count(*) > 2", "count(*) > 2")),
            1 => {
                let (ours, plain) = self.aggregate();
                Some((format!("{ours} < 3"), format!("{plain} < 3")))
            }
            2 => Some(pair(
                "max(s.$timestamp) > '2015-05-05T14:40:00+02:00'",
                "max(at) > '2015-05-05T12:40:00.000000Z'",
            )),
            _ => None,
        };
        let by_place = self.0.bool();
        let write = |of: fn(&(String, String)) -> &str| {
            let results = keys.iter().chain(&aggregates).enumerate();
            let results = results.map(|(place, result)| format!("{} AS r{place}", of(result)));
            let results: Vec<String> = results.collect();
            let mut query = format!("SELECT {} FROM s", results.join(", "));
            if let Some(condition) = &condition {
                query.push_str(&format!(" WHERE {}", of(condition)));
            }
            if !keys.is_empty() {
                let place = |place: usize| match by_place {
                    true => (place + 1).to_string(),
                    false => format!("r{place}"),
                };
                let keys: Vec<String> = (0..keys.len()).map(place).collect();
                query.push_str(&format!(" GROUP BY {}", keys.join(", ")));
            }
            if let Some(having) = &having {
                query.push_str(&format!(" HAVING {}", of(having)));
            }
            if recomputed {
                query.push_str(" ORDER BY 1");
            }
            query
        };
        let mode = if recomputed { Mode::Recomputed } else { Mode::Incremental };
        Query { ours: write(|pair| &pair.0), plain: write(|pair| &pair.1), mode }
    }

    /// A query of another kind, which is run again.
    fn other(&mut self) -> Query {
        let (one, two) = (self.any(), self.any());
        let (aggregate, condition) = (self.aggregate(), self.pick(&CONDITIONS));
        let kind = self.0.u8(..7);
        let write = |of: fn(&(String, String)) -> &str| {
            let (one, two) = (of(&one), of(&two));
            let (aggregate, condition) = (of(&aggregate), of(&condition));
            match kind {
                0 => format!(
                    "SELECT DISTINCT {one} AS p, {two} AS q FROM s WHERE {condition} ORDER BY 1, 2"
                ),
                1 => format!(
                    "WITH p AS (SELECT {one} AS k, {aggregate} AS v FROM s GROUP BY 1)
                     SELECT k, count(v) AS n FROM p GROUP BY k"
                ),
                2 => format!(
                    "SELECT {one} AS p, (SELECT count(*) FROM u WHERE u.c = s.b) AS q FROM s WHERE {condition}"
                ),
                3 => {
                    format!("SELECT u.c, {aggregate} AS v FROM s JOIN u ON u.c = s.b GROUP BY u.c")
                }
                4 => {
                    format!("SELECT {one} AS r FROM s WHERE {condition} UNION ALL SELECT c FROM u")
                }
                5 => format!("SELECT {one} AS r FROM s WHERE b IN (SELECT c FROM u WHERE c > 0)"),
                _ => format!(
                    "SELECT count(DISTINCT {one}) AS n, {aggregate} AS v FROM s LEFT JOIN u ON u.c = s.b"
                ),
            }
        };
        let (ours, plain) = (write(|pair| &pair.0), write(|pair| &pair.1));
        Query { ours, plain, mode: Mode::Recomputed }
    }

    /// An event as it is sent, and its time in UTC.
    fn event(&mut self) -> (Value, String) {
        let random = &mut self.0;
        let mut event = Map::new();
        let mut put = |random: &mut Rng, key: &str, value: Value| {
            if random.u8(..5) > 0 {
                event.insert(key.to_owned(), value);
            }
        };
        let texts = ["a", "b", "ab", "ba", "", "none"];
        let value = match random.u8(..3) {
            0 => json!(random.i8(-2..3)),
            1 => json!(texts[random.usize(..texts.len())]),
            _ => Value::Null,
        };
        put(random, "a", value);
        // Sums of these are exact, in whatever order.
        let value = json!(f64::from(random.i8(-16..16)) / 8.0);
        put(random, "x", value);
        let value = if random.bool() { json!(random.bool()) } else { json!(random.i8(-1..3)) };
        put(random, "b", value);
        let value = json!(texts[random.usize(..texts.len())]);
        put(random, "t", value);
        let value =
            if random.bool() { json!({"n": random.u8(..3)}) } else { json!([random.u8(..2)]) };
        put(random, "o", value);
        let (minute, second, form) = (random.u8(..60), random.u8(..60), random.u8(..3));
        let clock = format!("{minute:02}:{second:02}");
        let (sent, fraction) = match form {
            0 => (format!("2015-05-05T12:{clock}Z"), "000000"),
            1 => (format!("2015-05-05T12:{clock}.5Z"), "500000"),
            _ => (format!("2015-05-05T14:{clock}.250+02:00"), "250000"),
        };
        event.insert("$timestamp".to_owned(), json!(sent));
        (Value::Object(event), format!("2015-05-05T12:{clock}.{fraction}Z"))
    }
}

/// SQLite alone, with a column for each key.
struct Plain(Connection);

impl Plain {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE s (a, b, x, t, o, at); CREATE TABLE u (c)").unwrap();
        Self(connection)
    }

    fn add(&self, event: &Value, at: &str) {
        let insert = "INSERT INTO s SELECT jsonb_extract(e, '$.a'), jsonb_extract(e, '$.b'),
            jsonb_extract(e, '$.x'), jsonb_extract(e, '$.t'), jsonb_extract(e, '$.o'), ?2 FROM (SELECT ?1 AS e)";
        self.0.prepare_cached(insert).unwrap().execute([event.to_string(), at.to_owned()]).unwrap();
    }

    fn query(&self, sql: &str) -> Vec<String> {
        let mut statement = self.0.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns).map(|place| Ok(self.json(row.get_ref(place)?))).collect()
        });
        let rows: rusqlite::Result<Vec<Vec<Value>>> = rows.unwrap().collect();
        sorted(rows.unwrap_or_else(|error| panic!("{sql}: {error}")))
    }

    fn json(&self, value: ValueRef<'_>) -> Value {
        match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => json!(number),
            ValueRef::Real(number) => json!(number),
            ValueRef::Text(text) => json!(str::from_utf8(text).unwrap()),
            ValueRef::Blob(blob) => {
                let json: String =
                    self.0.query_row("SELECT json(?)", [blob], |row| row.get(0)).unwrap();
                serde_json::from_str(&json).unwrap()
            }
        }
    }
}

/// Rows in one order, with truth values as SQLite has them. Means may differ in their last digit, because the text of a
/// response is read less exactly than it is written.
fn sorted(rows: Vec<Vec<Value>>) -> Vec<String> {
    let number = |value: Value| match &value {
        Value::Bool(flag) => json!(u8::from(*flag)),
        Value::Number(number) if number.is_f64() => {
            json!(format!("{:.12e}", number.as_f64().unwrap()))
        }
        _ => value,
    };
    let rows = rows.into_iter();
    let rows = rows.map(|row| json!(row.into_iter().map(number).collect::<Vec<_>>()).to_string());
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

fn ask(engine: &Fixture, sql: &str) -> Vec<String> {
    let rows = engine.query(sql);
    let rows = rows.as_array().unwrap().iter();
    sorted(rows.map(|row| row.as_object().unwrap().values().cloned().collect()).collect())
}

/// Keeps `queries` queries, some of them run again, over some batches, and returns how many results were compared.
fn check(seed: u64, folder: &Path, queries: usize) {
    let mut maker = Maker(Rng::with_seed(seed));
    let path = folder.join(format!("{seed}.db"));
    let mut engine = at(&path);
    let plain = Plain::new();
    let queries: Vec<Query> = (0..queries)
        .map(|number| match number % 8 {
            6 => maker.aggregates(true),
            7 => maker.other(),
            5 => maker.plain(),
            _ => maker.aggregates(false),
        })
        .collect();
    let mut known = HashSet::new();
    let batches = 12;
    let created = maker.0.usize(..batches);
    for batch in 0..batches {
        if batch == created {
            for (number, query) in queries.iter().enumerate() {
                engine.process(&format!("p{number}"), &query.ours);
                let stats = engine.stats(&format!("p{number}"));
                assert_eq!(stats.mode, query.mode, "seed {seed}: {}", query.ours);
            }
        }
        let mut events = Vec::new();
        for _ in 0..maker.0.usize(1..9) {
            let (mut event, at) = maker.event();
            // Some come twice, in one batch or later, and count once.
            let id = maker.0.u8(..30);
            if id < 20 {
                event["$id"] = json!(id);
            }
            if id >= 20 || known.insert(id) {
                plain.add(&event, &at);
            }
            events.push(event);
        }
        engine.collect("s", &json!(events).to_string());
        if maker.0.bool() {
            let c = maker.0.i8(-1..4);
            engine.collect("u", &json!({ "c": c }).to_string());
            plain.0.execute("INSERT INTO u VALUES (?)", [c]).unwrap();
        }
        if maker.0.u8(..4) == 0 {
            drop(engine);
            engine = at(&path);
        }
    }
    for (number, query) in queries.iter().enumerate() {
        let expected = plain.query(&query.plain);
        assert_eq!(ask(&engine, &query.ours), expected, "seed {seed}: {}", query.ours);
        let kept = format!("SELECT * FROM p{number}");
        if query.mode == Mode::Recomputed {
            engine.wait_until(|| ask(&engine, &kept) == expected);
        }
        assert_eq!(ask(&engine, &kept), expected, "seed {seed}, kept: {}", query.ours);
        assert_eq!(engine.stats(&format!("p{number}")).skipped, 0, "seed {seed}: {}", query.ours);
    }
}

fn check_all(seeds: std::ops::Range<u64>, queries: usize) {
    let folder = tempfile::tempdir().unwrap();
    let half = seeds.start + (seeds.end - seeds.start) / 2;
    std::thread::scope(|scope| {
        for seeds in [seeds.start..half, half..seeds.end] {
            let folder = folder.path();
            scope.spawn(move || seeds.for_each(|seed| check(seed, folder, queries)));
        }
    });
}

#[test]
fn what_is_kept_is_what_sqlite_alone_would_give() {
    check_all(0..6, 100);
}

#[test]
#[ignore = "six thousand queries; .ci/run runs it in release"]
fn what_is_kept_is_what_sqlite_alone_would_give_for_many_more() {
    check_all(1000..1060, 100);
}
