//! Processes and analyses over HTTP: what goes in, what comes back, and in which order.

use std::time::Duration;

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Response, WATCHDOG, get, post, request, subscribe_at};

fn put(local: &Local, path: &str, json: &Value) -> Response {
    request(local, "PUT", path).json(json.to_string()).send(local)
}

fn delete(local: &Local, path: &str) -> Response {
    request(local, "DELETE", path).send(local)
}

fn create(local: &Local, name: &str, query: &str) -> Response {
    let process = json!({"query": query, "action": {"type": "MATERIALIZE"}});
    post(local, &format!("/v1/process/{name}"), &process.to_string())
}

/// The rows of an ad hoc query.
fn run(local: &Local, query: &str) -> Value {
    let response = post(local, "/v1/analyze", &json!({ "query": query }).to_string());
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    assert_eq!(response.headers["content-type"], "application/json");
    response.json()
}

#[test]
fn a_process_is_created_shown_changed_and_deleted() {
    let local = Local::start().unwrap();
    assert_eq!(get(&local, "/v1/process").json(), json!([]));
    let created =
        create(&local, "views", "SELECT page, count(*) AS views FROM clicks GROUP BY page");
    assert_eq!((created.status, &created.body[..]), (201, &b""[..]));
    assert_eq!(create(&local, "all", "SELECT count(*) FROM clicks").status, 201);
    assert_eq!(get(&local, "/v1/process").json(), json!(["all", "views"]));
    post(&local, "/v1/collect/clicks", r#"[{"page": "/"}, {"page": "/a"}, {"page": "/"}]"#)
        .assert_stored();
    assert_eq!(
        run(&local, "SELECT * FROM views ORDER BY page"),
        json!([{"page": "/", "views": 2}, {"page": "/a", "views": 1}])
    );
    let stats = get(&local, "/v1/process/views/stats").json();
    assert_eq!((&stats["mode"], &stats["rows"]), (&json!("incremental"), &json!(2)));
    assert_eq!((&stats["events"], &stats["last_error"]), (&json!(3), &Value::Null));

    for (query, mode, why, step, counts) in [
        (
            "SELECT page FROM views LIMIT 1",
            "recomputed",
            json!("it has LIMIT"),
            Value::Null,
            [2, 1],
        ),
        (
            "SELECT count(*) FROM clicks WHERE $timestamp > now() - INTERVAL '1 minute'",
            "incremental",
            Value::Null,
            json!(3000),
            [3, 0],
        ),
    ] {
        assert_eq!(create(&local, "how", query).status, 201);
        let stats = get(&local, "/v1/process/how/stats").json();
        assert_eq!((&stats["mode"], &stats["why"]), (&json!(mode), &why), "{query}");
        assert_eq!((&stats["step_ms"], &stats["filling"]), (&step, &Value::Null), "{query}");
        let figures = String::from_utf8(get(&local, "/metrics").body).unwrap();
        for (mode, count) in ["incremental", "recomputed"].iter().zip(counts) {
            let line = format!("stride_local_processes{{mode=\"{mode}\"}} {count}\n");
            assert!(figures.contains(&line), "{line}");
        }
        delete(&local, "/v1/process/how").assert_stored();
    }

    put(&local, "/v1/process/views", &json!({"query": "SELECT count(*) AS views FROM clicks"}))
        .assert_stored();
    assert_eq!(run(&local, "SELECT * FROM views"), json!([{"views": 3}]), "it starts anew");
    assert_eq!(
        get(&local, "/v1/process/views").json(),
        json!({
            "name": "views",
            "query": "SELECT count(*) AS views FROM clicks",
            "action": {"type": "MATERIALIZE"},
        })
    );
    let nothing = put(&local, "/v1/process/views", &json!({}));
    assert_eq!(nothing.status, 400);
    assert!(nothing.message().contains("query or ttl"));

    delete(&local, "/v1/process/views").assert_stored();
    for response in [
        get(&local, "/v1/process/views"),
        get(&local, "/v1/process/views/stats"),
        get(&local, "/v1/process/views/subscribe"),
        delete(&local, "/v1/process/views"),
        put(&local, "/v1/process/views", &json!({"query": "SELECT 1 AS one FROM clicks"})),
    ] {
        assert_eq!(response.status, 404);
        assert!(response.message().contains("views"));
    }
    assert_eq!(get(&local, "/v1/process").json(), json!(["all"]));
}

#[test]
fn streams_and_processes_share_their_names() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", "{}").assert_stored();
    assert_eq!(create(&local, "s", "SELECT count(*) FROM t").status, 409);
    assert_eq!(create(&local, "p", "SELECT count(*) FROM s").status, 201);
    assert_eq!(create(&local, "p", "SELECT count(*) FROM s").status, 409);
    for (path, body) in [("/v1/collect/p", "{}"), ("/v1/collect", r#"{"s": {}, "p": {}}"#)] {
        let response = post(&local, path, body);
        assert_eq!(response.status, 409);
        assert!(response.message().contains("\"p\""));
    }
    assert_eq!(local.count("s").unwrap(), 1, "all of a request or nothing of it");
}

#[test]
fn changes_come_in_order_and_end_with_their_process() {
    let local = Local::start().unwrap();
    assert_eq!(create(&local, "p", "SELECT count(*) FROM s").status, 201);
    let subscribe = |query: &str| {
        let path = format!("/v1/process/p/subscribe{query}");
        subscribe_at(local.addr(), local.secret_key(), &path)
    };
    let (mut changes, mut sampled) = (subscribe(""), subscribe("?sample=1000"));
    for n in 0..20 {
        post(&local, "/v1/collect/s", "{}").assert_stored();
        let change = json!({"old": {"count": n}, "new": {"count": n + 1}});
        assert_eq!(changes.event(), Some(change.clone()));
        assert_eq!(sampled.event(), Some(change));
    }
    assert_eq!(get(&local, "/v1/process/p/subscribe?sample=0").status, 400);
    delete(&local, "/v1/process/p").assert_stored();
    assert_eq!((changes.event(), sampled.event()), (None, None), "a proper end");
    assert!(local.wait_until(WATCHDOG, |local| local.subscriptions() == 0));
}

#[test]
fn an_analysis_is_saved_shown_run_and_deleted() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", r#"[{"x": 1}, {"x": 2, "deep": {"y": [3]}}]"#).assert_stored();
    let query =
        json!({"query": "SELECT x, deep->'y'->>0 AS y FROM s WHERE x >= :least ORDER BY x"});
    put(&local, "/v1/analyze/a", &query).assert_stored();
    let shown = get(&local, "/v1/analyze/a").json();
    assert_eq!(shown, json!({"name": "a", "query": query["query"]}));
    let both = json!([{"x": 1, "y": null}, {"x": 2, "y": 3}]);
    assert_eq!(get(&local, "/v1/analyze/a/results?least=1").json(), both);
    for body in [r#"{"least": 1}"#, r#"{"least": 1.0, "more": true}"#] {
        assert_eq!(post(&local, "/v1/analyze/a/results", body).json(), both);
    }
    let missing = get(&local, "/v1/analyze/a/results");
    assert_eq!(missing.status, 400);
    assert!(missing.message().contains(":least"));
    for body in ["[]", "7", r#"{"least": [1]}"#, "nonsense"] {
        assert_eq!(post(&local, "/v1/analyze/a/results", body).status, 400, "{body}");
    }
    assert_eq!(post(&local, "/v1/analyze/b", r#"{"query": "SELECT 1 AS one"}"#).status, 201);
    assert_eq!(get(&local, "/v1/analyze").json(), json!(["a", "b"]));
    put(&local, "/v1/analyze/b", &json!({"query": "SELECT 2 AS two"})).assert_stored();
    assert_eq!(get(&local, "/v1/analyze/b/results").json(), json!([{"two": 2}]));
    delete(&local, "/v1/analyze/b").assert_stored();
    for response in [
        get(&local, "/v1/analyze/b"),
        get(&local, "/v1/analyze/b/results"),
        post(&local, "/v1/analyze/b/results", ""),
        delete(&local, "/v1/analyze/b"),
    ] {
        assert_eq!(response.status, 404);
        assert!(response.message().contains("\"b\""));
    }
}

#[test]
fn a_parameter_is_a_number_if_it_is_written_like_one() {
    let local = Local::start().unwrap();
    post(
        &local,
        "/v1/collect/s",
        r#"[{"v": "01234"}, {"v": "+49"}, {"v": 12}, {"v": 1.5}, {"v": "inf"}]"#,
    )
    .assert_stored();
    put(&local, "/v1/analyze/a", &json!({"query": "SELECT v FROM s WHERE v = :v"})).assert_stored();
    for (sent, found) in [
        ("01234", json!("01234")),
        ("%2B49", json!("+49")),
        ("12", json!(12)),
        ("1.5", json!(1.5)),
        ("inf", json!("inf")),
    ] {
        let rows = get(&local, &format!("/v1/analyze/a/results?v={sent}")).json();
        assert_eq!(rows, json!([{ "v": found }]), "{sent}");
    }
}

#[test]
fn q4_parameters_in_a_body_keep_their_json_type() {
    let local = Local::start().unwrap();
    post(&local, "/v1/collect/s", r#"[{"n": 1}, {"n": 2.5}, {"n": "1"}, {"n": 3e21}]"#)
        .assert_stored();
    let saved = json!({"query": "SELECT typeof(:v) AS type, count(*) AS n FROM s WHERE n = :v"});
    put(&local, "/v1/analyze/a", &saved).assert_stored();
    for (value, expected) in [
        ("1", json!({"type": "integer", "n": 1})),
        ("1.0", json!({"type": "real", "n": 1})),
        ("2.5", json!({"type": "real", "n": 1})),
        ("2.0", json!({"type": "real", "n": 0})),
        ("3e21", json!({"type": "real", "n": 1})),
        ("\"1\"", json!({"type": "text", "n": 1})),
        ("\"2.5\"", json!({"type": "text", "n": 0})),
        ("true", json!({"type": "integer", "n": 1})),
        ("null", json!({"type": "null", "n": 0})),
    ] {
        let sent = post(&local, "/v1/analyze/a/results", &format!("{{\"v\": {value}}}"));
        assert_eq!((sent.status, sent.json()), (200, json!([expected])), "{value}");
    }
    let refused = post(&local, "/v1/analyze/a/results", r#"{"v": [1]}"#);
    assert_eq!((refused.status, refused.message().contains("\"v\"")), (400, true));
}

#[test]
fn what_nobody_has_written_is_empty_and_what_no_event_has_is_null() {
    let local = Local::start().unwrap();
    assert_eq!(run(&local, "SELECT * FROM nobody"), json!([]));
    assert_eq!(
        run(&local, "SELECT count(*), max(x) AS x FROM nobody"),
        json!([{"count": 0, "x": null}])
    );
    post(&local, "/v1/collect/s", r#"{"x": 1}"#).assert_stored();
    assert_eq!(run(&local, "SELECT x, y FROM s"), json!([{"x": 1, "y": null}]));
}

#[test]
fn a_slow_query_holds_up_nobody_and_is_told_to_be_quicker() {
    let local = Local::builder().query_time(Duration::from_secs(3)).start().unwrap();
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) AS most FROM c";
    let endless = json!({ "query": endless }).to_string();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| post(&local, "/v1/analyze", &endless));
        assert!(local.wait_until(WATCHDOG, |local| local.requests() == 1));
        // On the one thread that serves connections.
        post(&local, "/v1/collect/s", "{}").assert_stored();
        assert_eq!(run(&local, "SELECT count(*) FROM s"), json!([{"count": 1}]));
        assert!(!slow.is_finished());
        let response = slow.join().unwrap();
        assert_eq!(response.status, 400);
        assert!(response.message().contains("3000 ms"), "{}", response.message());
    });
}

#[test]
fn a_result_of_too_many_rows_is_400() {
    let local = Local::builder().query_rows(10).start().unwrap();
    let numbers = |most: u32| {
        let query = format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {most}) SELECT x FROM c"
        );
        post(&local, "/v1/analyze", &json!({ "query": query }).to_string())
    };
    assert_eq!(numbers(10).json().as_array().unwrap().len(), 10);
    let response = numbers(11);
    assert_eq!(response.status, 400);
    assert!(response.message().contains("more than 10 rows"), "{}", response.message());
}

#[test]
fn metrics_count_queries() {
    let local = Local::start().unwrap();
    drop(run(&local, "SELECT 1 AS one"));
    assert_eq!(post(&local, "/v1/analyze", r#"{"query": "SELECT"}"#).status, 400);
    let page = String::from_utf8(get(&local, "/metrics").body).unwrap();
    for line in ["stride_local_queries_total 2\n", "stride_local_queries_failed_total 1\n"] {
        assert!(page.contains(line), "{page}");
    }
}
