//! Times are compared as times, and not as the texts that they are.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Fixture, start};

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
fn q1_a_time_is_the_text_that_came_where_a_text_is_used() {
    let engine = with_times();
    let texts = |condition: &str| {
        let rows = engine.query(&format!("SELECT n FROM s WHERE {condition} ORDER BY $timestamp"));
        rows.as_array().unwrap().iter().map(|row| row["n"].to_string()).collect::<String>()
    };
    for (condition, expected) in [
        ("$timestamp > datetime('2015-05-06', '-19 minutes')", "4"),
        ("min(n || at, $timestamp) = '2015-05-05T23:40:27.500Z'", "3"),
        ("strftime('%Y-%m-%d', $timestamp) > '2015-05'", "1234"),
        ("'' || $timestamp = '2015-05-05T23:40:27.5Z'", "3"),
        ("substr($timestamp, 1, 10) < '2015-05-06'", "134"),
    ] {
        assert_eq!(texts(condition), expected, "{condition}");
    }
    let ends = "SELECT max($timestamp) AS last FROM s";
    let last = "2015-05-05T22:41:30-01:00";
    assert_eq!(engine.query(ends), json!([{ "last": last }]));
    engine.process("p", ends);
    assert_eq!(engine.query("SELECT * FROM p"), json!([{ "last": last }]));
    for expression in
        ["$timestamp COLLATE NOCASE", "json_object('at', $timestamp)", "time_add($timestamp, 5)"]
    {
        let rows = engine.query(&format!("SELECT {expression} AS x FROM s WHERE n = 1"));
        assert!(rows[0]["x"].is_string(), "{expression}");
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
