//! Random queries over random events: two engines give the same rows.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::page::plain;
use super::{Engine as _, Fixture, Subject};
use crate::engine::Mode;

/// Of a number, a text, and what has been several: `k` is any of them, `x` and `y` are numbers, `t` is a text, `b` is a
/// truth value, `m` is a number or a truth value, and `o` an object or something else.
const NUMBERS: [&str; 28] = [
    "x",
    "y",
    "x + 1",
    "s.x * 2 - y",
    "-x",
    "m + x",
    "length(t)",
    "abs(x)",
    "mod(y, 2)",
    "o ->> 'n'",
    "floor(x)",
    "extract(hour FROM at)",
    "trunc(x / 2)",
    "x * 1.0 / 2",
    "y % 2",
    "x % 3",
    "k + 1",
    "-k",
    "t + x",
    "y & 3",
    "k | 4",
    "CAST(k AS INTEGER)",
    "abs(k)",
    "coalesce(x, 0)",
    "coalesce(x, y, 7)",
    "nullif(y, 1)",
    "CASE WHEN x > 0 THEN x ELSE y END",
    "CASE y WHEN 1 THEN 10 WHEN 2 THEN x ELSE 0 END",
];

const TEXTS: [&str; 14] = [
    "t",
    "s.t",
    "lower(t)",
    "upper(k)",
    "coalesce(t, 'none')",
    "t || '-' || t",
    "'<' || k || '>'",
    "substr(t, 1, 1)",
    "substr(t, -1)",
    "substr(k, y, 1)",
    "substr(t, 2, y)",
    "replace(t, 'a', 'é')",
    "CAST(y AS TEXT)",
    "CASE WHEN y > 0 THEN t ELSE 'less' END",
];

const OTHERS: [&str; 15] = [
    "k",
    "b",
    "s.k",
    "o",
    "never_sent",
    "b IS NULL",
    "x > 0",
    "k = 'a'",
    "coalesce(k, 'none')",
    "CASE WHEN k > 0 THEN k ELSE 'less' END",
    "date_trunc('minute', s.$timestamp)",
    "utc(at)",
    "at + INTERVAL '1 month'",
    "CAST(at AS DATE)",
    "date_trunc('hour', at)",
];

const CONDITIONS: [&str; 46] = [
    "x > 0",
    "k > 0",
    "NOT k > 0",
    "k >= 'a'",
    "k = 'a'",
    "NOT k = 'a'",
    "k <> 1",
    "k = 1",
    "1 < k",
    "k BETWEEN 0 AND 2",
    "k BETWEEN 'a' AND 'b'",
    "k IN ('a', 1, 'ab')",
    "k NOT IN ('a', 1)",
    "k IS DISTINCT FROM 'a'",
    "k LIKE 'a%'",
    "t LIKE 'a\\%'",
    "k",
    "t OR k + 1 > 2",
    "CAST(k AS REAL) > 1",
    "k ILIKE 'A%'",
    "k IS NOT NULL",
    "b",
    "NOT b",
    "b IS TRUE",
    "m",
    "m = 1",
    "x = 'a'",
    "t <> 5",
    "t > 5",
    "t = 'a' OR x < 1",
    "b AND x > 0 OR t IS NULL",
    "o ->> 'n' = 1",
    "o ->> 'n' > 0",
    "never_sent > 5",
    "never_sent = 'a' OR y = 1",
    "s.$timestamp > '2015-05-05T12:30:00Z'",
    "s.$timestamp BETWEEN '2015-05-05T14:10:00+02:00' AND '2015-05-05 12:40'",
    "at > s.$timestamp",
    "at = s.$timestamp OR at < now()",
    "utc(at) > '2015-05-05 12:30+0000'",
    "at BETWEEN TIMESTAMP '2015-05-05' AND now()",
    "at IS DISTINCT FROM s.$timestamp",
    "at IS NOT s.$timestamp",
    "coalesce(s.$timestamp, at) > '2015-05-05T12:30:00Z'",
    "CAST(at AS DATE) >= '2015-05'",
    "CAST(s.$timestamp AS DATE) = DATE '2015-05-05'",
];

/// Times in all ways to write them, and what only looks like one.
const TIMES: [&str; 12] = [
    "2015-05-05T12:30:30Z",
    "2015-05-05 14:30:30+0200",
    "2015-05-05T12:30",
    "2015-05-05",
    "2015-05-05 12:30:30.5 +02",
    "2015-05-05t12:30:30.25z",
    "2015-13-05",
    "2015-02-30T12:30:00Z",
    "2015-05-05T24:00:00Z",
    "2015-05-05+02:00",
    "9999-12-31T23:59:59-01:00",
    "soon",
];

struct Maker(Rng);

impl Maker {
    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.0.usize(..of.len())]
    }

    fn any(&mut self) -> &'static str {
        match self.0.u8(..3) {
            0 => self.pick(&NUMBERS),
            1 => self.pick(&TEXTS),
            _ => self.pick(&OTHERS),
        }
    }

    fn aggregate(&mut self) -> String {
        let number = self.pick(&NUMBERS);
        let call = match self.0.u8(..10) {
            0 => "count(*)".to_owned(),
            1 => format!("count({})", self.any()),
            2 => format!("count(DISTINCT {})", self.any()),
            3 => format!("min({})", self.any()),
            4 => format!("max({})", self.any()),
            5 => format!("avg({number})"),
            6 => format!("total({number})"),
            7 => format!("coalesce(sum({number}), -1)"),
            8 => return format!("round(sum({number}) * 2) + count(*)"),
            _ => format!("sum({number})"),
        };
        match self.0.u8(..5) {
            0 if !call.starts_with("coalesce") => {
                format!("{call} FILTER (WHERE {})", self.pick(&CONDITIONS))
            }
            _ => call,
        }
    }

    fn query(&mut self) -> String {
        let (one, two, condition) = (self.any(), self.any(), self.pick(&CONDITIONS));
        let (aggregate, other) = (self.aggregate(), self.aggregate());
        let having = match self.0.u8(..4) {
            0 => "HAVING count(*) > 1",
            1 => "HAVING n > 2",
            _ => "",
        };
        match self.0.u8(..15) {
            0 => format!("SELECT {one} AS p, {two} AS q FROM s WHERE {condition}"),
            1 => format!("SELECT DISTINCT {one} AS p FROM s WHERE {condition}"),
            2 => format!("SELECT {aggregate} AS p, {other} AS q FROM s WHERE {condition}"),
            3 => format!(
                "SELECT {one} AS p, {aggregate} AS v, count(*) AS n FROM s GROUP BY p {having}"
            ),
            4 => format!(
                "SELECT {one} AS p, {two} AS q, {aggregate} AS v FROM s WHERE {condition} GROUP BY 1, 2"
            ),
            5 => format!(
                "WITH p AS (SELECT {one} AS k, {aggregate} AS v FROM s GROUP BY 1) \
                 SELECT count(v) AS n, max(k) AS k FROM p"
            ),
            6 => format!(
                "SELECT {one} AS p, (SELECT count(*) FROM u WHERE u.c = s.k) AS q FROM s WHERE {condition}"
            ),
            7 => format!("SELECT u.c, {aggregate} AS v FROM s JOIN u ON u.c = s.y GROUP BY u.c"),
            8 => format!(
                "SELECT u.c, u.d, {one} AS p FROM s LEFT JOIN u ON u.d = s.k AND u.c > 0 WHERE {condition}"
            ),
            9 => format!("SELECT {one} AS p FROM s WHERE y IN (SELECT c FROM u WHERE c > 0)"),
            // Rows in an order, which is one as long as the event is the last part of it.
            10 => format!("SELECT n, {one} AS p FROM s ORDER BY p DESC, n LIMIT 7"),
            11 => format!("SELECT DISTINCT {one} AS p FROM s WHERE {condition} ORDER BY p DESC"),
            12 => format!(
                "SELECT y AS p FROM s WHERE {condition} UNION SELECT c AS p FROM u ORDER BY p DESC LIMIT 5"
            ),
            13 => format!(
                "SELECT n, {two} AS q FROM s WHERE {condition} ORDER BY q, {one}, n OFFSET 1"
            ),
            _ => format!(
                "SELECT n, sum(y) OVER (PARTITION BY t ORDER BY {one}, n) AS v, \
                 row_number() OVER (ORDER BY {two}, n) AS w FROM s"
            ),
        }
    }

    fn event(&mut self, number: usize) -> Value {
        let random = &mut self.0;
        let texts =
            ["a", "b", "ab", "ba", "", "Äb", "none", "2b", " -1.5e1", "7", "a\\", ".5", "1."];
        let mut event = Map::new();
        let text = |random: &mut Rng| json!(texts[random.usize(..texts.len())]);
        let values = [
            ("x", json!(f64::from(random.i8(-16..16)) / 8.0)),
            ("y", json!(random.i8(-2..4))),
            ("t", text(random)),
            ("b", json!(random.bool())),
            ("m", if random.bool() { json!(random.bool()) } else { json!(random.i8(-1..3)) }),
            ("k", if random.bool() { text(random) } else { json!(random.i8(-1..3)) }),
            (
                "o",
                match random.u8(..4) {
                    0 => json!("a"),
                    1 => json!([random.u8(..2)]),
                    _ => json!({"n": random.u8(..3)}),
                },
            ),
            ("at", json!(TIMES[random.usize(..TIMES.len())])),
        ];
        for (key, value) in values {
            match random.u8(..10) {
                0 => {}
                1 => drop(event.insert(key.to_owned(), Value::Null)),
                _ => drop(event.insert(key.to_owned(), value)),
            }
        }
        let (minute, second) = (random.u8(..60), random.u8(..60));
        let at = match random.bool() {
            true => format!("2015-05-05T12:{minute:02}:{second:02}Z"),
            false => format!("2015-05-05T14:{minute:02}:{second:02}.250+02:00"),
        };
        event.insert("$timestamp".to_owned(), json!(at));
        event.insert("n".to_owned(), json!(number));
        Value::Object(event)
    }
}

/// Rows as one can be compared with another: means in as many digits as both engines have, in one order unless the query
/// has one. A truth value that an expression makes of a number or of several values is 1 or 0 on SQLite.
fn rows(value: &Value, is_ordered: bool) -> Vec<String> {
    fn digits(value: &Value) -> Value {
        match value {
            Value::Bool(truth) => json!(f64::from(u8::from(*truth))).to_string().into(),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default() + 0.0;
                format!("{number:.9}").into()
            }
            Value::Array(values) => values.iter().map(digits).collect(),
            Value::Object(object) => object.values().map(digits).collect(),
            other => other.clone(),
        }
    }
    fn truths(value: &Value) -> Value {
        match value {
            Value::Bool(truth) => json!(f64::from(u8::from(*truth))),
            Value::Array(values) => values.iter().map(truths).collect(),
            Value::Object(object) => {
                Value::Object(object.iter().map(|(key, it)| (key.clone(), truths(it))).collect())
            }
            other => other.clone(),
        }
    }
    let rows = plain(&truths(value));
    let mut rows: Vec<String> =
        rows.as_array().into_iter().flatten().map(|row| digits(row).to_string()).collect();
    if !is_ordered {
        rows.sort();
    }
    rows
}

/// How many processes are kept while the events come.
const PROCESSES: usize = 10;

/// Asks both of `queries` queries over some events for each of `seeds`. Processes that the second keeps up to date while
/// the types of keys change have the rows of their queries.
pub(in crate::engine) fn queries_mean_the_same<A: Subject, B: Subject>(seeds: u64, queries: usize) {
    let (mut wrong, mut incremental) = (Vec::new(), 0);
    for seed in 0..seeds {
        let mut maker = Maker(Rng::with_seed(seed));
        let (one, other) = (Fixture::<A>::new(), Fixture::<B>::new());
        // What a plan is made of.
        let plain = |query: &String| {
            !["SELECT DISTINCT", "WITH", "JOIN", "UNION"].iter().any(|it| query.contains(it))
        };
        let candidates = std::iter::repeat_with(|| maker.query());
        let kept: Vec<String> = candidates.filter(plain).take(PROCESSES).collect();
        for (number, query) in kept.iter().enumerate() {
            if let Err(error) = other.process(&format!("p{number}"), query) {
                wrong.push(format!("seed {seed}: {query}: {error}"));
            }
        }
        for batch in 0..4 {
            let events: Vec<Value> = (0..6).map(|number| maker.event(batch * 6 + number)).collect();
            let joined: Vec<Value> =
                (0..2).map(|_| json!({"c": maker.0.i8(-1..4), "d": maker.event(0)["k"]})).collect();
            let all = json!({"s": events, "u": joined});
            one.collect(&all);
            other.collect(&all);
        }
        for (number, query) in kept.iter().enumerate() {
            let process = format!("p{number}");
            if other.engine.process_stats(&process).is_ok_and(|it| it.mode == Mode::Incremental) {
                incremental += 1;
                let is = other.try_query(&format!("SELECT * FROM {process}"));
                let (is, wanted) = (
                    is.map(|is| rows(&is, false)),
                    other.try_query(query).map(|it| rows(&it, false)),
                );
                if is != wanted {
                    wrong.push(format!(
                        "seed {seed}: the process {query}\n  is {is:?}\n  and not {wanted:?}"
                    ));
                }
            }
        }
        for _ in 0..queries {
            let query = maker.query();
            let ask = |fixture: &dyn Fn(&str) -> Result<Value, String>| {
                fixture(&query).map(|value| {
                    rows(&value, query.contains("ORDER BY p DESC") || query.contains("ORDER BY q,"))
                })
            };
            let one = ask(&|sql| one.try_query(sql).map_err(|error| error.to_string()));
            let other = ask(&|sql| other.try_query(sql).map_err(|error| error.to_string()));
            if one != other || one.is_err() {
                wrong.push(format!(
                    "seed {seed}: {query}\n  {}: {one:?}\n  {}: {other:?}",
                    A::NAME,
                    B::NAME
                ));
            }
        }
    }
    assert!(incremental >= 2 * seeds, "few were kept up to date: {incremental}");
    let count = wrong.len();
    wrong.truncate(12);
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}
