//! What is added up is what would be computed anew, and costs the same however much there is.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Engine, Fixture, start};
use crate::engine::Mode;

/// Values that are exact in floating point, so that sums do not depend on their order.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-3_i64..3).prop_map(Value::from),
        1 => (-8_i64..8).prop_map(|eighths| json!(eighths as f64 / 8.0)),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => "[ab5]{0,2}".prop_map(Value::from),
        1 => (0_i64..2).prop_map(|n| json!({ "n": n })),
        1 => (0_i64..2).prop_map(|n| json!([n])),
    ]
}

fn event() -> impl Strategy<Value = Value> {
    prop::collection::hash_map(
        prop::sample::select(vec!["a", "b", "x", "X", "odd 'key\""]),
        value(),
        0..5,
    )
    .prop_map(|event| json!(event))
}

fn expression() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(vec![
        "a",
        "b",
        "x",
        r#""X""#,
        r#""odd 'key""""#,
        "s.a",
        "a + 1",
        "lower(a)",
        "coalesce(a, b)",
        "a ->> 'n'",
        "CASE WHEN x > 0 THEN a ELSE b END",
        "x > 1",
        "round(x)",
        "missing",
        "typeof(a)",
        "b IS NULL",
    ])
}

fn query() -> impl Strategy<Value = String> {
    let aggregate =
        (prop::sample::select(vec!["count", "sum", "min", "max", "avg", "total"]), expression());
    let aggregate = prop_oneof![
        Just("count(*)".to_owned()),
        aggregate.clone().prop_map(|(name, of)| format!("{name}({of})")),
        aggregate.clone().prop_map(|(name, of)| format!("{name}({of}) FILTER (WHERE x >= 0)")),
        aggregate.prop_map(|(name, of)| format!("round({name}({of}) * 2) + count(*)")),
    ];
    let keys = prop::collection::vec(expression(), 0..3);
    let condition = prop::option::of(prop::sample::select(vec![
        "x > 0",
        "a IS NOT NULL",
        "b = 'a' OR x < 1",
        "typeof(x) = 'integer'",
        "a BETWEEN -1 AND 1",
    ]));
    (keys, prop::collection::vec(aggregate, 1..4), condition).prop_map(
        |(keys, aggregates, condition)| {
            let results: Vec<String> = keys
                .iter()
                .map(|key| (*key).to_owned())
                .chain(aggregates)
                .enumerate()
                .map(|(place, result)| format!("{result} AS r{place}"))
                .collect();
            let mut query = format!("SELECT {} FROM s", results.join(", "));
            if let Some(condition) = condition {
                query.push_str(&format!(" WHERE {condition}"));
            }
            if !keys.is_empty() {
                query.push_str(&format!(" GROUP BY {}", keys.join(", ")));
            }
            query
        },
    )
}

fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn added_up_is_the_same_as_computed_anew(
        batches in prop::collection::vec(prop::collection::vec(event(), 1..6), 0..6),
        before in 0_usize..3,
        queries in prop::collection::vec(query(), 1..4),
    ) {
        let engine = start();
        let create = || {
            for (number, query) in queries.iter().enumerate() {
                let name = format!("p{number}");
                engine.process(&name, query);
                assert_eq!(engine.stats(&name).mode, Mode::Incremental, "{query}");
            }
        };
        for (number, batch) in batches.iter().enumerate() {
            if number == before {
                create();
            }
            engine.collect("s", &json!(batch).to_string());
        }
        if batches.len() <= before {
            create();
        }
        for (number, query) in queries.iter().enumerate() {
            let kept = engine.query(&format!("SELECT * FROM p{number}"));
            prop_assert_eq!(sorted(&kept), sorted(&engine.query(query)), "{}", query);
            prop_assert_eq!(engine.stats(&format!("p{number}")).skipped, 0);
        }
    }
}

/// Collects `events` events and answers with the steps that the process took for each tenth.
fn steps_by_tenth(engine: &Fixture, events: usize) -> Vec<u64> {
    let batch = 1000.min(events / 20);
    let mut steps = Vec::new();
    let mut before = engine.stats("p").steps;
    for tenth in 0..10 {
        for from in (0..events / 10).step_by(batch) {
            let events: Vec<String> = (from..from + batch)
                .map(|n| format!(r#"{{"user": {}, "x": {}, "k": {tenth}}}"#, n % 97, n % 13))
                .collect();
            engine.collect("s", &format!("[{}]", events.join(",")));
        }
        let now = engine.stats("p").steps;
        steps.push(now - before);
        before = now;
    }
    steps
}

/// Longer than the test, so that all of it is in one step or two.
const WINDOW: &str = "$timestamp > now() - INTERVAL '1 day' AND x > 2";

fn check_cost(condition: &str, events: usize, subscribed: bool) {
    let engine = start();
    engine.process(
        "p",
        &format!(
            "SELECT user, count(*) AS n, sum(x) AS sum, avg(x) AS avg, min(x) AS min, max(x) AS max \
             FROM s WHERE {condition} GROUP BY user"
        ),
    );
    let subscriber = subscribed.then(|| engine.subscribe("p", None));
    let steps = steps_by_tenth(&engine, events);
    // The first tenth makes the groups.
    let (early, late) = (steps[1], steps[9]);
    assert!(early.abs_diff(late) * 20 <= early, "{steps:?}");
    assert!(steps[0].abs_diff(late) * 20 <= late, "{steps:?}");
    assert_eq!(engine.engine.stream("s").unwrap().count, events as u64);
    drop(subscriber);
}

#[test]
fn an_event_costs_the_same_however_many_came_before() {
    for condition in ["x > 2", WINDOW] {
        check_cost(condition, 20_000, false);
        check_cost(condition, 20_000, true);
    }
}

#[test]
#[ignore = "a million events; .ci/run runs it in release"]
fn an_event_costs_the_same_after_a_million() {
    check_cost("x > 2", 1_000_000, false);
    check_cost(WINDOW, 1_000_000, false);
}

#[test]
fn distinct_counts_and_plain_rows_cost_the_same_however_many_events_came_before() {
    for query in [
        "SELECT user, count(DISTINCT x) AS d FROM s GROUP BY user",
        "SELECT DISTINCT user, x FROM s",
        "SELECT user, x FROM s WHERE x > 2",
    ] {
        let engine = start();
        engine.process("p", query);
        let steps = steps_by_tenth(&engine, 20_000);
        // The first tenth brings the values.
        assert!(steps[1].abs_diff(steps[9]) * 20 <= steps[1], "{query}: {steps:?}");
    }
}
