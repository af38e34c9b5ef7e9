//! What pystride's README shows, for real and in its order, against a Stride on this machine.

use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::{AsyncCollector, Collector, Report};
use stride_core::Response;
use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_local::Local;
use stride_tests::{Client, Events, Over, suite};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        the_readme_runs_in_its_order,
        what_is_refused_says_why,
    ]
}

/// `Response(status_code=…, data=…)`.
fn shown(response: &Response) -> (u16, Option<Value>) {
    (response.status().as_u16(), response.data().unwrap())
}

/// The next event or change of a subscription.
fn next(events: &mut Events<'_>) -> Value {
    loop {
        match events.next() {
            Some(Ok(SubscriptionEvent::Connected { gap: None, .. })) => {}
            Some(Ok(SubscriptionEvent::Data(value))) => return value,
            other => panic!("{other:?}"),
        }
    }
}

fn start(over: Over) -> (Local, Client) {
    let local = Local::builder().secret_key("helloworld").start().unwrap();
    let client = over.client(&local.endpoint());
    (local, client)
}

fn subscribe<'a>(client: &'a Client, path: &str, sample: Option<u32>) -> Events<'a> {
    client.subscribe(path, sample, Reconnect::Never, MINUTE).unwrap()
}

fn the_readme_runs_in_its_order(over: Over) {
    let (local, client) = start(over);

    // stride.post('/collect/mystream', {'bojack': 'horseman'})
    let response = client.post("/collect/mystream", &json!({"bojack": "horseman"})).unwrap();
    assert_eq!(shown(&response), (200, None));
    assert_eq!(local.events("mystream").unwrap()[0]["bojack"], "horseman");

    // stride.get('/collect'), once there are the streams that the README has.
    for stream in ["clicks", "app_events", "web_logs"] {
        let response = client.post(&format!("/collect/{stream}"), &json!({"x": 1})).unwrap();
        assert_eq!(shown(&response), (200, None));
    }
    let streams = json!(["app_events", "clicks", "mystream", "web_logs"]);
    assert_eq!(shown(&client.get("/collect").unwrap()), (200, Some(streams)));

    // stride.post('/process/myproc', process)
    let process = json!({
        "query": "SELECT count(*) FROM app_events",
        "action": {"type": "MATERIALIZE"},
    });
    assert_eq!(shown(&client.post("/process/myproc", &process).unwrap()), (201, None));
    let mut changes = subscribe(&client, "/process/myproc", None);

    // stride.post('/collect/app_events', json={'x': 42})
    let response = client.post("/collect/app_events", &json!({"x": 42})).unwrap();
    assert_eq!(shown(&response), (200, None));
    // A process starts with what is stored, which here is one event.
    assert_eq!(next(&mut changes), json!({"old": {"count": 1}, "new": {"count": 2}}));

    // stride.put('/analyze/myanalyze', analyze)
    let analyze = json!({"query": "SELECT * FROM myproc"});
    assert_eq!(shown(&client.put("/analyze/myanalyze", &analyze).unwrap()), (200, None));
    let results = client.get("/analyze/myanalyze/results").unwrap();
    assert_eq!(shown(&results), (200, Some(json!([{"count": 2}]))));

    // res = stride.subscribe('/collect/app_events')
    let mut events = subscribe(&client, "/collect/app_events", None);
    // res = stride.subscribe('/collect/app_events', sample=100)
    let mut sampled = subscribe(&client, "/collect/app_events", Some(100));
    let burst: Vec<Value> = (0..1000).map(|n| json!({ "n": n })).collect();
    assert_eq!(shown(&client.post("/collect/app_events", &json!(burst)).unwrap()), (200, None));
    for n in 0..1000 {
        assert_eq!(next(&mut events)["n"], n);
    }
    for n in 0..100 {
        assert_eq!(next(&mut sampled)["n"], n * 10, "a tenth of them, spread over the burst");
    }
    assert_eq!(next(&mut changes)["new"], json!({"count": 1002}));

    // stride.delete('/process/myproc')
    assert_eq!(shown(&client.delete("/process/myproc").unwrap()), (200, None));
    assert_eq!(client.get("/process/myproc").unwrap().status(), 404);
    assert!(changes.next().is_none_or(|end| !matches!(end, Ok(SubscriptionEvent::Data(_)))));

    // c = Collector('apikey', flush_interval=0.25, batch_size=1000)
    let count = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    let report = collect(&client, count);
    assert_eq!((report.delivered, report.lost()), (count, 0), "{report}");
    assert_eq!(local.count("mystream").unwrap(), 1 + count);
    let sum = json!({"query": "SELECT count(DISTINCT id) AS ids FROM mystream"});
    let response = client.post("/analyze", &sum).unwrap();
    assert_eq!(shown(&response), (200, Some(json!([{ "ids": count }]))));
}

/// Collects this many events in the background, with the client's own kind of collector.
fn collect(client: &Client, count: u64) -> Report {
    let event = |id: u64| json!({"id": id, "bojack": "horseman"});
    let (interval, batch) = (Duration::from_millis(250), 1000);
    match client {
        Client::Blocking(stride) => {
            let collector = Collector::builder().flush_interval(interval).batch_size(batch);
            let collector = collector.start(stride).unwrap();
            for id in 0..count {
                collector.collect("mystream", &event(id)).unwrap();
            }
            collector.stop()
        }
        Client::Async(stride, runtime) => runtime.block_on(async {
            let collector = AsyncCollector::builder().flush_interval(interval).batch_size(batch);
            let collector = collector.start(stride).unwrap();
            for id in 0..count {
                collector.collect("mystream", &event(id)).unwrap();
            }
            collector.stop().await
        }),
    }
}

fn what_is_refused_says_why(over: Over) {
    let (_local, client) = start(over);
    let message = |response: Response, status: u16, why: &str| {
        let Some(Value::Object(body)) = response.data().unwrap() else { panic!("{response:?}") };
        let message = body["message"].as_str().unwrap();
        assert_eq!(response.status(), status, "{message}");
        assert!(message.contains(why), "{message}");
    };
    let process = |query: &str| json!({"query": query, "action": {"type": "MATERIALIZE"}});
    let post = |query: &str| client.post("/process/p", &process(query)).unwrap();
    message(post("SELEC count(*) FROM s"), 400, "SELEC");
    message(post("DELETE FROM s"), 400, "SELECT");
    assert_eq!(post("SELECT count(*) FROM s").status(), 201);
    message(post("SELECT count(*) FROM s"), 409, "p");
    message(client.post("/collect/p", &json!({"x": 1})).unwrap(), 409, "p");
    message(client.get("/process/nobody").unwrap(), 404, "nobody");
    message(client.get("/process/nobody/stats").unwrap(), 404, "nobody");
    message(client.get("/analyze/nobody/results").unwrap(), 404, "nobody");
    message(client.put("/process/nobody", &process("SELECT 1 FROM s")).unwrap(), 404, "nobody");
    message(client.post("/analyze", &json!({"sql": "SELECT 1"})).unwrap(), 400, "sql");
    let error = client.subscribe("/process/nobody", None, Reconnect::Never, MINUTE).unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}
