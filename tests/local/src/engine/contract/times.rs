//! Times are compared as times, and not as the texts that they are.

use serde_json::json;

use super::{Engine as _, EngineError, Fixture, Subject};

/// Four events, in the order of their times. As texts they come in another one.
fn with_times<S: Subject>() -> Fixture<S> {
    let it = Fixture::<S>::new();
    it.send(
        "s",
        r#"[{"n": 1, "at": "2015-05-05T23:40:27Z", "$timestamp": "2015-05-05T23:40:27Z"},
            {"n": 2, "at": "2015-05-06T01:40:27.000001+02:00", "$timestamp": "2015-05-06T01:40:27.000001+02:00"},
            {"n": 3, "at": "unknown", "$timestamp": "2015-05-05T23:40:27.5Z"},
            {"n": 4, "at": 7, "$timestamp": "2015-05-05T22:41:30-01:00"}]"#,
    );
    it
}

pub(in crate::engine) fn q1_what_is_compared_with_a_timestamp_is_a_time<S: Subject>() {
    let it = with_times::<S>();
    let texts = |condition: &str| {
        let rows = it.query(&format!("SELECT n FROM s WHERE {condition} ORDER BY $timestamp"));
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
        ("$timestamp = (SELECT max($timestamp) FROM s)", "4"),
        ("$timestamp IN (SELECT min($timestamp) FROM s)", "1"),
        ("$timestamp >= TIMESTAMP '2015-05-05T23:40:28Z' - INTERVAL '500 ms'", "34"),
        // Another key is a time where it is compared with one.
        ("at = $timestamp", "12"),
        ("at < now()", "12"),
        ("at BETWEEN TIMESTAMP '2015-05-05' AND now()", "12"),
        ("at IN (SELECT $timestamp FROM s)", "12"),
        ("iif(n > 2, $timestamp, at) = '2015-05-05T23:40:27.500Z'", "3"),
        ("coalesce($timestamp, at) = '2015-05-05T23:40:27.500Z'", "3"),
        ("CASE WHEN n > 2 THEN $timestamp END = '2015-05-05T23:40:27.500Z'", "3"),
        ("CAST($timestamp AS DATE) = '2015-05-05'", "1234"),
        // What is made of a time is a text.
        ("date($timestamp) >= '2015-05'", "1234"),
        ("CAST('2015-05-06T01:40:27.5+02:00' AS TIMESTAMP) = $timestamp", "3"),
    ] {
        assert_eq!(texts(condition), expected, "{condition}");
    }
}

pub(in crate::engine) fn q1_times_stay_times_in_parts_subqueries_and_results<S: Subject>() {
    let it = with_times::<S>();
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
        (
            "SELECT max($timestamp) = '2015-05-05T22:41:30-01:00' AS last FROM s",
            json!([{"last": true}]),
        ),
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
            "SELECT n FROM s JOIN (SELECT TIMESTAMP '2015-05-05T23:40:27.50Z' AS \"$timestamp\") USING ($timestamp)",
            json!([{"n": 3}]),
        ),
        ("SELECT count(*) AS n FROM (SELECT $timestamp FROM s UNION SELECT utc($timestamp) FROM s)", json!([{"n": 4}])),
    ] {
        assert_eq!(it.query(sql), expected, "{sql}");
    }
}

pub(in crate::engine) fn q1_a_text_may_be_called_as_a_time_is_elsewhere<S: Subject>() {
    let it = with_times::<S>();
    it.send("t", r#"[{"minute": "last", "also": "last"}, {"minute": "2015", "also": "last"}]"#);
    let minutes = "SELECT date_trunc('minute', $timestamp) AS minute FROM s";
    for condition in ["minute = also", "minute <= also AND minute > '2016'", "minute = 'last'"] {
        let sql = format!(
            "SELECT count(*) AS n, (SELECT count(DISTINCT minute) FROM ({minutes})) AS m FROM t WHERE {condition}"
        );
        assert_eq!(it.query(&sql), json!([{"n": 1, "m": 2}]), "{condition}");
    }
}

pub(in crate::engine) fn q1_processes_keep_times<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process(
        "minutes",
        "SELECT date_trunc('minute', $timestamp) AS minute, count(*) AS n FROM s GROUP BY minute",
    )
    .unwrap();
    it.process("ends", "SELECT min($timestamp) AS first, max($timestamp) AS last, max($timestamp) > '2015-05-05T23:41:30.0Z' AS late FROM s").unwrap();
    it.process("raw", "SELECT $timestamp AS moment, count(*) AS n FROM s GROUP BY 1").unwrap();
    for (sql, mode) in [("minutes", "incremental"), ("ends", "incremental"), ("raw", "incremental")]
    {
        assert_eq!(json!(it.engine.process_stats(sql).unwrap().mode), mode, "{sql}");
    }
    let events = [
        r#"{"$timestamp": "2015-05-05T22:41:30-01:00"}"#,
        r#"{"$timestamp": "2015-05-05T23:40:27.5Z"}"#,
        r#"{"$timestamp": "2015-05-06T01:40:27+02:00"}"#,
        r#"{"$timestamp": "2015-05-05T23:40:27.000000Z"}"#,
    ];
    for event in events {
        it.send("s", event);
    }
    assert_eq!(
        it.query(
            "SELECT first = '2015-05-06T01:40:27+02:00' AS first, last = '2015-05-05T22:41:30-01:00' AS last, late
             FROM ends"
        ),
        json!([{"first": true, "last": true, "late": false}])
    );
    assert_eq!(
        it.query("SELECT n FROM minutes WHERE minute >= '2015-05-05T23:41:00Z'"),
        json!([{"n": 1}])
    );
    assert_eq!(
        it.query("SELECT n FROM minutes WHERE minute = '2015-05-06 01:40+02:00'"),
        json!([{"n": 3}])
    );
    assert_eq!(
        it.query(
            "SELECT count(*) AS n FROM ends WHERE first = '2015-05-05T23:40:27.0Z' AND last > first"
        ),
        json!([{"n": 1}])
    );
    it.wait_until("SELECT n FROM raw WHERE moment = '2015-05-05T23:40:27.00Z'", &json!([{"n": 2}]));
    // A process over a process knows, too.
    it.process(
        "later",
        "SELECT minute AS since, n FROM minutes WHERE minute > '2015-05-05T23:40:00.0Z'",
    )
    .unwrap();
    assert_eq!(
        it.query("SELECT n FROM later WHERE since = '2015-05-05T23:41Z'"),
        json!([{"n": 1}])
    );
}

pub(in crate::engine) fn q1_what_times_cannot_do_is_refused<S: Subject>() {
    let it = with_times::<S>();
    for (sql, why) in [
        ("SELECT max($timestamp) - min($timestamp) AS took FROM s", "extract(epoch"),
        ("SELECT $timestamp + 5 AS x FROM s", "INTERVAL"),
        ("SELECT extract(epoch FROM now() - $timestamp) AS age FROM s", "extract(epoch"),
        ("SELECT n FROM s WHERE $timestamp > 'yesterday'", "\"yesterday\""),
        ("SELECT n FROM s WHERE date_trunc('hour', $timestamp) IN ('noon')", "\"noon\""),
    ] {
        let refused = it.try_query(sql);
        assert!(
            matches!(&refused, Err(EngineError::Invalid(is)) if is.contains(why)),
            "{sql}: {refused:?}"
        );
        assert!(it.process("p", sql).is_err(), "{sql}");
    }
    assert_eq!(
        it.query("SELECT extract(epoch FROM max($timestamp)) - extract(epoch FROM min($timestamp)) AS took FROM s"),
        json!([{"took": 63}])
    );
}

pub(in crate::engine) fn times_may_stand_wherever_an_expression_may<S: Subject>() {
    let it = with_times::<S>();
    for expressions in [
        "DISTINCT $timestamp",
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
        "EXISTS (SELECT 1 FROM s AS t WHERE t.$timestamp > s.$timestamp) AS x",
        "NOT $timestamp = at OR at LIKE $timestamp AS x",
    ] {
        let sql =
            format!("SELECT {expressions} FROM s WINDOW w AS (ORDER BY $timestamp) ORDER BY 1");
        it.query(&sql);
        it.process("p", &sql).unwrap();
        it.engine.delete_process("p").unwrap();
    }
}
