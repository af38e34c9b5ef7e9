//! Times are compared as times, and not as the texts that they are.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{EngineError, Fixture, start};

/// Four events, in the order of their times. As texts they come in another one.
fn with_times() -> Fixture {
    let engine = start();
    engine.collect(
        "s",
        r#"[{"n": 1, "at": "2015-05-05T23:40:27Z", "$timestamp": "2015-05-05T23:40:27Z"},
            {"n": 2, "at": "2015-05-06T01:40:27.000001+02:00", "$timestamp": "2015-05-06T01:40:27.000001+02:00"},
            {"n": 3, "at": "unknown", "$timestamp": "2015-05-05T23:40:27.5Z"},
            {"n": 4, "at": 7, "$timestamp": "2015-05-05T22:41:30-01:00"}]"#,
    );
    engine
}

#[test]
fn q1_what_is_compared_with_a_timestamp_is_a_time() {
    let engine = with_times();
    let texts = |condition: &str| {
        let rows = engine.query(&format!("SELECT n FROM s WHERE {condition} ORDER BY $timestamp"));
        rows.as_array().unwrap().iter().map(|row| row["n"].to_string()).collect::<String>()
    };
    for (condition, expected) in [
        ("$timestamp > '2015-05-05T23:40:27Z'", "234"),
        ("'2015-05-05T23:40:27.0Z' < $timestamp", "234"),
        ("$timestamp = '2015-05-05T23:40:27.500Z'", "3"),
        ("$timestamp <> '2015-05-05T23:40:27.500Z'", "124"),
        ("$timestamp IN ('2015-05-05T23:40:27.500+00:00', '2015-05-06T00:41:30+01:00')", "34"),
        ("$timestamp NOT IN ('2015-05-05T23:40:27.500+00:00', '2015-05-06T00:41:30+01:00')", "12"),
        ("'2015-05-05T23:40:27.500+00:00' IN ($timestamp)", "3"),
        ("$timestamp BETWEEN '2015-05-05T23:40:27.0Z' AND '2015-05-05 23:40:27.5'", "123"),
        ("$timestamp >= '2015-05-05 23:41'", "4"),
        ("$timestamp < '2015-05-06'", "1234"),
        ("date_trunc('minute', $timestamp) >= '2015-05-05T23:41:00Z'", "4"),
        ("$timestamp > datetime('2015-05-06', '-19 minutes')", "4"),
        ("$timestamp = (SELECT max($timestamp) FROM s)", "4"),
        ("$timestamp IN (SELECT min($timestamp) FROM s)", "1"),
        ("$timestamp >= TIMESTAMP '2015-05-05T23:40:28Z' - INTERVAL '500 ms'", "34"),
        // Another key is a time where it is compared with one.
        ("at = $timestamp", "12"),
        ("at < now()", "12"),
        ("at BETWEEN TIMESTAMP '2015-05-05' AND now()", "12"),
        ("at IN (SELECT $timestamp FROM s)", "12"),
        ("min(n || at, $timestamp) = '2015-05-05T23:40:27.500Z'", "3"),
        ("iif(n > 2, $timestamp, at) = '2015-05-05T23:40:27.500Z'", "3"),
        ("coalesce($timestamp, at) = '2015-05-05T23:40:27.500Z'", "3"),
        ("CASE WHEN n > 2 THEN $timestamp END = '2015-05-05T23:40:27.500Z'", "3"),
        ("CAST($timestamp AS DATE) = '2015-05-05'", "1234"),
        // What is made of a time is a text.
        ("date($timestamp) >= '2015-05'", "1234"),
        ("strftime('%Y-%m-%d', $timestamp) > '2015-05'", "1234"),
        ("'' || $timestamp = '2015-05-05T23:40:27.5Z'", "3"),
        ("substr($timestamp, 1, 10) < '2015-05-06'", "134"),
        ("CAST('2015-05-06T01:40:27.5+02:00' AS TIMESTAMP) = $timestamp", "3"),
    ] {
        assert_eq!(texts(condition), expected, "{condition}");
    }
}

#[test]
fn q1_times_stay_times_in_parts_subqueries_and_results() {
    let engine = with_times();
    for (sql, expected) in [
        (
            "SELECT n FROM (SELECT n, date_trunc('minute', $timestamp) AS minute FROM s) WHERE minute >= '2015-05-05T23:41:00Z'",
            json!([{"n": 4}]),
        ),
        (
            "WITH t AS (SELECT n, $timestamp AS moment FROM s) SELECT n FROM t WHERE moment = '2015-05-05T23:40:27.500Z'",
            json!([{"n": 3}]),
        ),
        (
            "WITH t(k, moment) AS (SELECT n, max($timestamp) OVER () FROM s), u AS (SELECT k, moment AS latest FROM t)
             SELECT k FROM u WHERE latest = '2015-05-05T23:41:30.0Z' ORDER BY k DESC LIMIT 1",
            json!([{"k": 4}]),
        ),
        ("SELECT max($timestamp) AS last FROM s", json!([{"last": "2015-05-05T22:41:30-01:00"}])),
        (
            "SELECT n FROM s GROUP BY n HAVING max($timestamp) > '2015-05-05T23:40:27.5Z'",
            json!([{"n": 4}]),
        ),
        (
            "SELECT latest > '2015-05-05T23:41:30Z' AS later FROM (SELECT max(moment) AS latest FROM (SELECT $timestamp AS moment FROM s))",
            json!([{"later": false}]),
        ),
        (
            "SELECT a.n AS a, b.n AS b FROM s a JOIN s b ON a.at = b.$timestamp ORDER BY 1",
            json!([{"a": 1, "b": 1}, {"a": 2, "b": 2}]),
        ),
        (
            "SELECT n FROM s JOIN (SELECT '2015-05-05T23:40:27.50Z' AS \"$timestamp\") USING ($timestamp)",
            json!([{"n": 3}]),
        ),
        ("SELECT count(*) AS n FROM (SELECT $timestamp FROM s UNION SELECT utc($timestamp) FROM s)", json!([{"n": 4}])),
    ] {
        assert_eq!(engine.query(sql), expected, "{sql}");
    }
}

#[test]
fn q1_a_text_may_be_called_as_a_time_is_elsewhere() {
    let engine = with_times();
    engine.collect(
        "t",
        r#"[{"minute": "last", "also": "last"}, {"minute": "2015", "also": "last"}]"#,
    );
    let minutes = "SELECT date_trunc('minute', $timestamp) AS minute FROM s";
    for condition in ["minute = also", "minute <= also AND minute > '2016'", "minute = 'last'"] {
        let sql = format!(
            "SELECT count(*) AS n, (SELECT count(DISTINCT minute) FROM ({minutes})) AS m FROM t WHERE {condition}"
        );
        assert_eq!(engine.query(&sql), json!([{"n": 1, "m": 2}]), "{condition}");
    }
}

#[test]
fn q1_processes_keep_times() {
    let engine = start();
    engine.process(
        "minutes",
        "SELECT date_trunc('minute', $timestamp) AS minute, count(*) AS n FROM s GROUP BY minute",
    );
    engine.process("ends", "SELECT min($timestamp) AS first, max($timestamp) AS last, max($timestamp) > '2015-05-05T23:41:30.0Z' AS late FROM s");
    engine.process("raw", "SELECT $timestamp AS moment, count(*) AS n FROM s GROUP BY 1");
    for (sql, mode) in [("minutes", "incremental"), ("ends", "incremental"), ("raw", "incremental")]
    {
        assert_eq!(json!(engine.stats(sql).mode), mode, "{sql}");
    }
    let events = [
        r#"{"$timestamp": "2015-05-05T22:41:30-01:00"}"#,
        r#"{"$timestamp": "2015-05-05T23:40:27.5Z"}"#,
        r#"{"$timestamp": "2015-05-06T01:40:27+02:00"}"#,
        r#"{"$timestamp": "2015-05-05T23:40:27.000000Z"}"#,
    ];
    for event in events {
        engine.collect("s", event);
    }
    assert_eq!(
        engine.query("SELECT * FROM ends"),
        json!([{"first": "2015-05-06T01:40:27+02:00", "last": "2015-05-05T22:41:30-01:00", "late": false}])
    );
    assert_eq!(
        engine.query("SELECT n FROM minutes WHERE minute >= '2015-05-05T23:41:00Z'"),
        json!([{"n": 1}])
    );
    assert_eq!(
        engine.query("SELECT n FROM minutes WHERE minute = '2015-05-06 01:40+02:00'"),
        json!([{"n": 3}])
    );
    assert_eq!(
        engine.query(
            "SELECT count(*) AS n FROM ends WHERE first = '2015-05-05T23:40:27.0Z' AND last > first"
        ),
        json!([{"n": 1}])
    );
    let rows = || engine.query("SELECT n FROM raw WHERE moment = '2015-05-05T23:40:27.00Z'");
    engine.wait_until(|| rows() == json!([{"n": 2}]));
    // A process over a process knows, too.
    engine.process(
        "later",
        "SELECT minute AS since, n FROM minutes WHERE minute > '2015-05-05T23:40:00.0Z'",
    );
    assert_eq!(
        engine.query("SELECT n FROM later WHERE since = '2015-05-05T23:41Z'"),
        json!([{"n": 1}])
    );
}

#[test]
fn q1_what_times_cannot_do_is_refused() {
    let engine = with_times();
    for (sql, why) in [
        ("SELECT max($timestamp) - min($timestamp) AS took FROM s", "extract(epoch"),
        ("SELECT $timestamp + 5 AS x FROM s", "INTERVAL"),
        ("SELECT extract(epoch FROM now() - $timestamp) AS age FROM s", "extract(epoch"),
        ("SELECT n FROM s WHERE $timestamp > 'yesterday'", "\"yesterday\""),
        ("SELECT n FROM s WHERE date_trunc('hour', $timestamp) IN ('noon')", "\"noon\""),
    ] {
        let refused = engine.try_query(sql);
        assert!(
            matches!(&refused, Err(EngineError::Invalid(is)) if is.contains(why)),
            "{sql}: {refused:?}"
        );
        assert!(engine.try_process("p", sql).is_err(), "{sql}");
    }
    assert_eq!(
        engine.query("SELECT extract(epoch FROM max($timestamp)) - extract(epoch FROM min($timestamp)) AS took FROM s"),
        json!([{"took": 63}])
    );
}

#[test]
fn times_may_stand_wherever_an_expression_may() {
    let engine = with_times();
    for expressions in [
        "$timestamp COLLATE NOCASE AS x",
        "DISTINCT $timestamp",
        "count(*) FILTER (WHERE $timestamp > now() - INTERVAL '1 day') AS x",
        "count(DISTINCT $timestamp) AS x",
        "row_number() OVER (PARTITION BY date_trunc('day', $timestamp) ORDER BY $timestamp DESC) AS x",
        "lag($timestamp) OVER w AS x, first_value($timestamp) OVER w > '2015-05-05' AS y",
        "CASE $timestamp WHEN '2015-05-05T23:40:27Z' THEN 1 END AS x",
        "CASE WHEN $timestamp IS NOT NULL THEN $timestamp ELSE now() END AS x",
        "($timestamp, n) IN (SELECT $timestamp, n FROM s) AS x",
        "($timestamp, n) > ('2015-05-05', 1) AS x",
        "$timestamp NOT BETWEEN at AND now() AS x",
        "$timestamp ->> 'a' AS x",
        "$timestamp IS NOT DISTINCT FROM at AS x",
        "coalesce($timestamp, at, 'never') AS x",
        "-n + length($timestamp) * 2 AS x",
        "json_object('at', $timestamp) AS x",
        "EXISTS (SELECT 1 FROM s AS t WHERE t.$timestamp > s.$timestamp) AS x",
        "max($timestamp, (SELECT min($timestamp) FROM s)) AS x",
        "NOT $timestamp = at OR at LIKE $timestamp AS x",
        "time_add($timestamp, 5) AS x",
    ] {
        let sql =
            format!("SELECT {expressions} FROM s WINDOW w AS (ORDER BY $timestamp) ORDER BY 1");
        engine.query(&sql);
        engine.process("p", &sql);
        super::Engine::delete_process(&engine.engine, "p").unwrap();
    }
}

/// A time in one of the ways to write it, some of which are the same time. `kept`: as an event may have it.
fn written(kept: bool) -> impl Strategy<Value = String> {
    let fractions = prop::sample::select(vec![
        "",
        ".0",
        ".5",
        ".500",
        ".500000",
        ".000001",
        ".0000005",
        ".999999999",
    ]);
    let offsets = match kept {
        true => vec!["Z", "+00:00", "+02:00", "-01:30"],
        false => vec!["Z", "+00:00", "+02:00", "-01:30", "+0200", ""],
    };
    let letters = if kept { vec!["T"] } else { vec!["T", " "] };
    let (offsets, letters) = (prop::sample::select(offsets), prop::sample::select(letters));
    (1_430_869_220_i64..1_430_869_224, fractions, offsets, letters).prop_map(
        |(second, fraction, offset, letter)| {
            let seconds = match offset {
                "+02:00" | "+0200" => 7200,
                "-01:30" => -5400,
                _ => 0,
            };
            let offset_by = Offset::from_seconds(seconds).unwrap();
            let local = offset_by.to_datetime(Timestamp::from_second(second).unwrap());
            let local = local.strftime(&format!("%Y-%m-%d{letter}%H:%M:%S")).to_string();
            format!("{local}{fraction}{offset}")
        },
    )
}

/// The time that a text is, read by others.
fn instant(text: &str) -> Timestamp {
    let in_utc = || Offset::UTC.to_timestamp(text.parse::<DateTime>().unwrap()).unwrap();
    text.parse().unwrap_or_else(|_| in_utc())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn q1_times_are_what_others_make_of_them(
        events in prop::collection::vec(written(true), 1..12), one in written(false), other in written(false),
    ) {
        let engine = start();
        let stored: Vec<Value> =
            events.iter().enumerate().map(|(n, at)| json!({"n": n, "$timestamp": at})).collect();
        engine.process("ends", "SELECT min($timestamp) AS first, max($timestamp) AS last FROM s");
        engine.collect("s", &json!(stored).to_string());
        let (low, high) = (instant(&one), instant(&other));
        let numbers = |sql: &str| -> Vec<usize> {
            let rows = engine.query(sql);
            let numbers = rows.as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap());
            numbers.map(|n| usize::try_from(n).unwrap()).collect()
        };
        let minute = |at: Timestamp| SignedDuration::from_secs(at.as_second().div_euclid(60) * 60);
        let micros = |at: Timestamp| at.as_microsecond();
        let conditions: [(String, &dyn Fn(Timestamp) -> bool); 10] = [
            (format!("$timestamp > '{one}'"), &|at| at > low),
            (format!("'{one}' > $timestamp"), &|at| low > at),
            (format!("$timestamp <= '{one}'"), &|at| at <= low),
            (format!("$timestamp = '{one}'"), &|at| at == low),
            (format!("NOT $timestamp <> '{one}'"), &|at| at == low),
            (format!("$timestamp BETWEEN '{one}' AND '{other}'"), &|at| (low..=high).contains(&at)),
            (format!("$timestamp IN ('{one}', '{other}')"), &|at| at == low || at == high),
            (format!("date_trunc('minute', $timestamp) < '{one}'"), &|at| minute(at) < low.as_duration()),
            (format!("$timestamp + INTERVAL '1 second' > TIMESTAMP '{one}'"), &|at| micros(at) + 1_000_000 > micros(low)),
            (format!("$timestamp <= (SELECT max(at) FROM (SELECT $timestamp AS at FROM s WHERE n = 0 UNION SELECT '{one}'))"),
             &|at| at <= low.max(instant(&events[0]))),
        ];
        for (condition, is) in conditions {
            let expected: Vec<usize> = (0..events.len()).filter(|n| is(instant(&events[*n]))).collect();
            prop_assert_eq!(numbers(&format!("SELECT n FROM s WHERE {condition} ORDER BY n")), expected, "{}", condition);
        }
        let mut sorted: Vec<usize> = (0..events.len()).collect();
        sorted.sort_by_key(|n| (instant(&events[*n]), *n));
        prop_assert_eq!(numbers("SELECT n FROM s ORDER BY $timestamp, n"), sorted.clone());
        let (first, last) = (instant(&events[sorted[0]]), instant(&events[sorted[sorted.len() - 1]]));
        for sql in ["SELECT min($timestamp) AS first, max($timestamp) AS last FROM s", "SELECT first, last FROM ends"] {
            let row = &engine.query(sql)[0];
            prop_assert_eq!(instant(row["first"].as_str().unwrap()), first, "{}", sql);
            prop_assert_eq!(instant(row["last"].as_str().unwrap()), last, "{}", sql);
        }
        let mut groups: Vec<usize> = Vec::new();
        for (place, n) in sorted.iter().enumerate() {
            match groups.last_mut() {
                Some(count) if instant(&events[*n]) == instant(&events[sorted[place - 1]]) => *count += 1,
                _ => groups.push(1),
            }
        }
        prop_assert_eq!(numbers("SELECT count(*) AS n FROM s GROUP BY $timestamp ORDER BY $timestamp"), groups);
    }

    #[test]
    fn literals_are_what_they_say(integer in any::<i64>(), real in prop::num::f64::NORMAL, small in -1e6..1e6_f64, text in any::<String>()) {
        let engine = start();
        prop_assume!(integer != i64::MIN && (1e-250..1e250).contains(&real.abs()));
        let text = text.replace('\0', "");
        for (literal, expected) in [
            (integer.to_string(), json!(integer)),
            (format!("{real:e}"), json!(real)),
            (format!("{small:?}"), json!(small)),
            (format!("'{}'", text.replace('\'', "''")), json!(text)),
            (format!("0x{:x}", integer.unsigned_abs()), json!(integer.unsigned_abs())),
        ] {
            let read = engine.query(&format!("SELECT {literal} AS x"));
            match expected.as_f64() {
                // SQLite may be off by one in the last place.
                Some(number) if expected.is_f64() => {
                    let off = (read[0]["x"].as_f64().unwrap() - number).abs();
                    prop_assert!(off <= number.abs() * 1e-15, "{}: {}", literal, read);
                }
                _ => prop_assert_eq!(read, json!([{"x": expected}]), "{}", literal),
            }
        }
    }
}
