//! The page at `/ui/`, what it is made from, and queries whose clients have gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, Response, WATCHDOG, get, post, request, subscribe};

/// As a browser asks for a page: without a key.
fn browse(local: &Local, path: &str) -> Response {
    let request = request(local, "GET", path).without("Authorization");
    request.header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8").send(local)
}

fn overview(local: &Local) -> Value {
    let response = get(local, "/overview");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    response.json()
}

#[test]
fn the_page_needs_no_key_and_may_do_nothing_unsafe() {
    let local = Local::start().unwrap();
    for (path, kind) in [
        ("/ui/", "text/html; charset=utf-8"),
        ("/ui/style.css", "text/css; charset=utf-8"),
        ("/ui/page.js", "text/javascript; charset=utf-8"),
    ] {
        let page = browse(&local, path);
        assert_eq!((page.status, &*page.headers["content-type"]), (200, kind), "{path}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["cache-control"], "no-cache");
        let policy: HashMap<_, _> = page.headers["content-security-policy"]
            .split("; ")
            .filter_map(|directive| directive.trim().split_once(' '))
            .collect();
        for (directive, value) in [
            ("default-src", "'none'"),
            ("script-src", "'self'"),
            ("style-src", "'self'"),
            ("connect-src", "'self'"),
            ("base-uri", "'none'"),
            ("form-action", "'none'"),
            ("frame-ancestors", "'none'"),
            ("require-trusted-types-for", "'script'"),
        ] {
            assert_eq!(policy[directive], value, "{directive}");
        }
        assert!(!page.headers["content-security-policy"].contains("unsafe"));
        // What is known already is not sent again.
        let again = request(&local, "GET", path).header("If-None-Match", &page.headers["etag"]);
        let mut connection = Connection::open(&local);
        connection.write(&again.bytes()).unwrap();
        assert_eq!(connection.read_head().unwrap().0, 304, "{path}");
    }
    assert_eq!(browse(&local, "/ui/other.js").status, 404);
    assert_eq!(post(&local, "/ui/", "{}").headers["allow"], "GET, HEAD");
}

#[test]
fn browsers_are_sent_to_the_page_and_others_are_not() {
    let local = Local::start().unwrap();
    for path in ["/", "/ui"] {
        let sent = browse(&local, path);
        assert_eq!(sent.status, 307, "{path}");
        // Relative: a proxy may have put a path before it.
        assert_eq!(sent.headers["location"], "ui/", "{path}");
    }
    assert_eq!(get(&local, "/").status, 404);
    let other = request(&local, "GET", "/").header("Accept", "application/json");
    assert_eq!(other.send(&local).status, 404);
    assert_eq!(other.without("Authorization").send(&local).status, 401);
}

#[test]
fn an_overview_tells_how_everything_fares() {
    let local = Local::start().unwrap();
    let empty = overview(&local);
    assert_eq!((&empty["streams"], &empty["processes"]), (&json!([]), &json!([])));
    assert_eq!(empty["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(empty["kept"], false);
    assert!(empty["bytes"].as_u64().unwrap() > 0);

    let _subscription = subscribe(&local, "busy");
    post(&local, "/v1/collect", r#"{"busy": [{"k": 1}, {"k": 1}, {"k": 2}], "calm": {}}"#)
        .assert_stored();
    let process =
        json!({"query": "SELECT k, count(*) AS n FROM busy GROUP BY k", "action": "MATERIALIZE"});
    assert_eq!(post(&local, "/v1/process/p", &process.to_string()).status, 201);
    let mut all = overview(&local);
    let [busy, calm] = &all["streams"].as_array().unwrap()[..] else { panic!("{all}") };
    assert_eq!((&busy["name"], &busy["count"]), (&json!("busy"), &json!(3)));
    assert_eq!((&busy["subscribers"], &busy["missed"]), (&json!(1), &json!(0)));
    assert_eq!(busy["last_seen"], get(&local, "/v1/collect/busy").json()["last_seen"]);
    assert_eq!((&calm["count"], &calm["subscribers"]), (&json!(1), &json!(0)));
    let [process] = &all["processes"].as_array().unwrap()[..] else { panic!("{all}") };
    assert_eq!((&process["name"], &process["mode"]), (&json!("p"), &json!("incremental")));
    assert_eq!((&process["rows"], &process["stale"]), (&json!(2), &json!(false)));
    assert_eq!((&process["stale_since"], &process["last_error"]), (&Value::Null, &Value::Null));
    assert!(process["query"].as_str().unwrap().starts_with("SELECT k"));
    assert_eq!((&all["subscribers"], &all["missed"]), (&json!(1), &json!(0)));

    // A second counts once it has passed.
    let deadline = Instant::now() + WATCHDOG;
    while all["streams"][0]["recent"] != 3 {
        assert!(Instant::now() < deadline, "{all}");
        all = overview(&local);
    }
    let rates: Vec<u64> = serde_json::from_value(all["streams"][0]["rates"].clone()).unwrap();
    assert_eq!((rates.len(), rates.iter().sum::<u64>()), (120, 3), "{rates:?}");
    assert!(rates.contains(&3), "{rates:?}");
}

#[test]
fn an_overview_takes_the_secret_key() {
    let local = Local::builder().secret_key("hush").open_key("open").start().unwrap();
    let ask = request(&local, "GET", "/overview");
    assert_eq!(ask.send(&local).status, 200);
    let open = request(&local, "GET", "/overview").key("open").send(&local);
    assert_eq!(open.status, 403);
    assert!(open.message().starts_with("an open key"), "{}", open.message());
    assert_eq!(request(&local, "GET", "/overview").key("wrong").send(&local).status, 401);
    assert_eq!(ask.without("Authorization").send(&local).status, 401);
    let foreign = |name: &str, value: &str| {
        request(&local, "GET", "/overview").header(name, value).send(&local).status
    };
    assert_eq!(foreign("Origin", "http://elsewhere"), 403);
    assert_eq!(foreign("Origin", "http://localhost"), 200);
}

/// A browser knows what its page's origin is, even if a proxy tells the server another host.
#[test]
fn a_page_behind_a_proxy_may_use_the_secret_key() {
    let local = Local::start().unwrap();
    let ask = |site: &str| {
        let query = request(&local, "POST", "/v1/analyze").json(r#"{"query": "SELECT 1 AS x"}"#);
        let from = query.header("Origin", "https://stride.example");
        from.header("Sec-Fetch-Site", site).send(&local).status
    };
    assert_eq!(ask("same-origin"), 200);
    for foreign in ["same-site", "cross-site", "none", ""] {
        assert_eq!(ask(foreign), 403, "{foreign}");
    }
}

#[test]
fn ten_thousand_streams_are_one_response() {
    let local = Local::start().unwrap();
    let all: serde_json::Map<_, _> = (0..10_000).map(|n| (format!("s{n}"), json!({}))).collect();
    request(&local, "POST", "/v1/collect")
        .gzip(json!(all).to_string())
        .send(&local)
        .assert_stored();
    let busiest: Vec<Value> = (0..1000).map(|_| json!({})).collect();
    post(&local, "/v1/collect/s77", &json!(busiest).to_string()).assert_stored();
    let deadline = Instant::now() + WATCHDOG;
    let told = loop {
        let all = overview(&local);
        let streams = all["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 10_000);
        let sum: u64 = streams.iter().map(|stream| stream["recent"].as_u64().unwrap()).sum();
        if sum == 11_000 {
            break streams.clone();
        }
        assert!(Instant::now() < deadline, "{sum}");
    };
    let with_rates: Vec<&Value> = told.iter().filter(|it| it.get("rates").is_some()).collect();
    assert_eq!(with_rates.len(), 1000);
    assert!(with_rates.iter().any(|stream| stream["name"] == "s77"), "the busiest is among them");
}

#[test]
fn a_query_ends_when_its_client_hangs_up() {
    const LONG: Duration = Duration::from_secs(600);
    let local = Local::builder().query_time(LONG).request_time(LONG).start().unwrap();
    let running = || {
        let metrics = String::from_utf8(get(&local, "/metrics").body).unwrap();
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("stride_local_queries_running "));
        line.unwrap().parse::<u32>().unwrap()
    };
    let until = |count| {
        let deadline = Instant::now() + WATCHDOG;
        while running() != count {
            assert!(Instant::now() < deadline, "{} queries run, not {count}", running());
        }
    };
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";
    let endless = json!({ "query": endless }).to_string();
    let saved = request(&local, "PUT", "/v1/analyze/endless").json(&endless).send(&local);
    assert_eq!(saved.status, 200);
    for asked in [
        request(&local, "POST", "/v1/analyze").json(&endless),
        request(&local, "GET", "/v1/analyze/endless/results"),
    ] {
        // More than run at once: the others wait, and are not run for nobody.
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut client = Connection::open(&local);
            client.write(&asked.bytes()).unwrap();
            clients.push(client);
        }
        until(4);
        let start = Instant::now();
        drop(clients);
        until(0);
        println!("ended {:?} after their clients", start.elapsed());
    }
    assert_eq!(
        post(&local, "/v1/analyze", r#"{"query": "SELECT 1 AS x"}"#).json(),
        json!([{"x": 1}])
    );
}
