//! Functions that SQLite lacks, and what PostgreSQL and `PipelineDB` write in another way.

use serde_json::{Value, json};

use super::page::plain;
use super::{Engine as _, EngineError, Fixture, Subject};
use crate::engine::Mode;

/// What an expression is of one event.
fn value<S: Subject>(it: &Fixture<S>, expression: &str) -> Value {
    it.query(&format!("SELECT {expression} AS v FROM s"))[0]["v"].clone()
}

fn check<S: Subject>(it: &Fixture<S>, cases: &[(&str, Value)]) {
    for (expression, expected) in cases {
        let got = value(it, expression);
        let close = got.as_f64().zip(expected.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1e-9);
        assert!(got == *expected || close, "{expression}: {got}, not {expected}");
    }
}

pub(in crate::engine) fn q7_functions_of_numbers<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"x": 2.5, "n": 17, "t": "no number", "d": "9"}"#);
    check(
        &it,
        &[
            ("floor(x)", json!(2.0)),
            ("floor(-x)", json!(-3.0)),
            ("ceil(x)", json!(3.0)),
            ("ceiling(n)", json!(17)),
            ("trunc(-x)", json!(-2.0)),
            ("sqrt(d)", json!(3.0)),
            ("sqrt(-1)", json!(null)),
            ("ln(exp(2))", json!(2.0)),
            ("log(1000)", json!(3.0)),
            ("log(2, 8)", json!(3.0)),
            ("pow(2, 10)", json!(1024.0)),
            ("power(x, 2)", json!(6.25)),
            ("mod(n, 5)", json!(2)),
            ("mod(-n, 5)", json!(-2)),
            ("mod(n, 0)", json!(null)),
            ("mod(7.5, 2)", json!(1.5)),
            ("pi()", json!(std::f64::consts::PI)),
            ("floor(t)", json!(null)),
            ("floor(missing)", json!(null)),
        ],
    );
    it.process("p", "SELECT floor(n / 10) AS tens, sum(sqrt(n)) AS s FROM s GROUP BY 1").unwrap();
    assert_eq!(it.engine.process_stats("p").unwrap().mode, Mode::Incremental);
    it.process("means", "SELECT avg(length(t)) AS mean, avg(n / 10) AS tens FROM w").unwrap();
    it.send("w", r#"[{"t": "a", "n": 10}, {"t": "bb", "n": 20}]"#);
    assert_eq!(it.query("SELECT * FROM means"), json!([{"mean": 1.5, "tens": 1.5}]));
}

pub(in crate::engine) fn q7_medians_and_percentiles<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"x": 4}, {"x": 1}, {"x": 3}, {"x": 2}, {"x": null}, {"x": "n/a"}]"#);
    check(
        &it,
        &[
            ("median(x)", json!(2.5)),
            ("percentile_cont(0.25) WITHIN GROUP (ORDER BY x)", json!(1.75)),
            ("percentile_cont(0.25) WITHIN GROUP (ORDER BY x DESC)", json!(3.25)),
            ("percentile_disc(0.5) WITHIN GROUP (ORDER BY x)", json!(2.0)),
            ("percentile_disc(x, 0.51)", json!(3.0)),
            ("percentile_cont(x, 0)", json!(1.0)),
            ("percentile_disc(x, 1)", json!(4.0)),
            ("percentile(x, 50)", json!(2.5)),
            ("median(missing)", json!(null)),
        ],
    );
    it.process("m", "SELECT x % 2 AS odd, median(x) AS m FROM s WHERE x < 9 GROUP BY 1").unwrap();
    assert_eq!(
        plain(&it.query("SELECT * FROM m ORDER BY odd")),
        json!([{"odd": 0.0, "m": 3.0}, {"odd": 1.0, "m": 2.0}])
    );
    it.send("s", r#"{"x": 6}"#);
    it.wait_until("SELECT m = 4 AS m FROM m WHERE odd = 0", &json!([{"m": true}]));
    for (sql, names) in [
        ("SELECT mode() WITHIN GROUP (ORDER BY x) FROM s", "mode WITHIN GROUP"),
        ("SELECT percentile_cont(x, 2) FROM s", "from 0 to 1"),
    ] {
        let why = it.try_query(sql).unwrap_err().to_string();
        assert!(why.contains(names), "{sql}: {why}");
    }
    let refused = it.process("bad", "SELECT percentile_cont(x, 50) FROM s");
    assert!(matches!(refused, Err(EngineError::Invalid(why)) if why.contains("from 0 to 1")));
}

pub(in crate::engine) fn q8_what_postgresql_writes_in_another_way<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send(
        "s",
        r#"{"$timestamp": "2015-05-05T23:40:27.5+02:00", "page": "/About", "n": "12", "x": 2.5, "o": {"a": [1]},
            "at": "2016-01-31T10:00:00Z"}"#,
    );
    check(
        &it,
        &[
            ("n::int + 1", json!(13)),
            ("x::text", json!("2.5")),
            ("n::double precision", json!(12.0)),
            ("page ILIKE '/a%'", json!(true)),
            ("page NOT ILIKE '/a%'", json!(false)),
            ("page ILIKE '/_b%' ESCAPE '_'", json!(false)),
            ("extract(hour FROM \"$timestamp\")", json!(21)),
            ("extract(epoch FROM \"$timestamp\")", json!(1_430_862_027.5)),
            ("extract(second FROM \"$timestamp\")", json!(27.5)),
            ("date_part('dow', \"$timestamp\")", json!(2)),
            ("extract(quarter FROM at)", json!(1)),
            ("extract(week FROM at)", json!(4)),
            ("extract(doy FROM at)", json!(31)),
            ("extract(year FROM missing)", json!(null)),
            ("trim(both '/' from page)", json!("About")),
            ("trim(leading '/' from page)", json!("About")),
            ("trim(trailing 't' from page)", json!("/Abou")),
            ("trim('/t' from page)", json!("Abou")),
            ("position('b' in page)", json!(3)),
            ("substring(page from 2 for 3)", json!("Abo")),
            ("substring(page for 2)", json!("/A")),
            ("minute(\"$timestamp\")", json!("2015-05-05T21:40:00.000000Z")),
            ("year(at)", json!("2016-01-01T00:00:00.000000Z")),
            ("at + INTERVAL '1 month'", json!("2016-02-29T10:00:00.000000Z")),
            ("at - INTERVAL '1' MONTH", json!("2015-12-31T10:00:00.000000Z")),
            ("at - INTERVAL '1 year 2 months 1 day'", json!("2014-11-29T10:00:00.000000Z")),
            ("clock_timestamp() > at AND statement_timestamp() = now()", json!(true)),
            ("at AT TIME ZONE 'UTC'", json!("2016-01-31T10:00:00.000000Z")),
            ("x IS DISTINCT FROM 3", json!(true)),
            ("(x > 9) IS NOT UNKNOWN", json!(true)),
            ("(o::jsonb) ->> '$.a[0]'", json!(1)),
        ],
    );
    it.send("l", r#"[{"a": 1}, {"a": 2}, {"a": 3}]"#);
    let rows = |rest: &str| it.query(&format!("SELECT a FROM l ORDER BY a {rest}"));
    assert_eq!(rows("FETCH FIRST 2 ROWS ONLY"), json!([{"a": 1}, {"a": 2}]));
    assert_eq!(rows("FETCH FIRST ROW ONLY"), json!([{"a": 1}]));
    assert_eq!(rows("OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY"), json!([{"a": 2}]));
    assert_eq!(rows("OFFSET 2"), json!([{"a": 3}]));
    it.process(
        "p",
        "SELECT minute(\"$timestamp\") AS m, count(*) FROM s WHERE page ILIKE '/a%' GROUP BY 1",
    )
    .unwrap();
    assert_eq!(it.engine.process_stats("p").unwrap().mode, Mode::Incremental);
    it.process(
        "w",
        "SELECT count(*) FROM s WHERE \"$timestamp\" > clock_timestamp() - INTERVAL '1 month'",
    )
    .unwrap();
    assert_eq!(it.engine.process_stats("w").unwrap().mode, Mode::Recomputed);
}

pub(in crate::engine) fn q8_what_cannot_be_had_is_refused_by_its_name<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"x": 1, "page": "/"}"#);
    for (expression, names) in [
        ("x::boolean", "cast to BOOLEAN"),
        ("x::interval", "INTERVAL"),
        ("TRY_CAST(x AS int)", "TRY_CAST"),
        ("INTERVAL '5 minutes'", "INTERVAL '5 minutes' can only be added"),
        ("now() - INTERVAL '0.5 months'", "0.5 months"),
        ("extract(fortnight FROM \"$timestamp\")", "fortnight"),
        ("page SIMILAR TO '/%'", "SIMILAR TO"),
        ("overlay(page placing 'x' from 1)", "OVERLAY"),
        ("x AT TIME ZONE 'Europe/Paris'", "AT TIME ZONE"),
        ("substring(page from '/.*')", "SUBSTRING"),
        ("ceil(x TO day)", "CEIL"),
        ("x = ANY(x)", "ANY"),
        ("2 ^ x", "write pow(a, b)"),
        ("page REGEXP '/.*'", "REGEXP"),
    ] {
        let why = it.try_query(&format!("SELECT {expression} AS v FROM s")).unwrap_err();
        assert!(why.to_string().contains(names), "{expression}: {why}");
    }
    for (sql, names) in [
        ("SELECT DISTINCT ON (x) x FROM s", "DISTINCT ON"),
        ("SELECT x FROM s ORDER BY x FETCH FIRST 2 ROWS WITH TIES", "WITH TIES"),
        ("SELECT x FROM s LIMIT 1 FETCH FIRST 2 ROWS ONLY", "not both"),
        ("SELECT x, count(*) FROM s GROUP BY ROLLUP (x)", "ROLLUP"),
    ] {
        let why = it.try_query(sql).unwrap_err();
        assert!(why.to_string().contains(names), "{sql}: {why}");
    }
}
