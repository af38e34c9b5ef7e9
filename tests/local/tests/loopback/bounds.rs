//! What one client can take of the server: never so much that the others notice.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use stride_local::Local;

use crate::http::{Connection, Request, Response, WATCHDOG, gzip, post, request};
use crate::program::{Running, program};

/// How long the other clients may wait for their response meanwhile: it takes milliseconds, unless the machine is busy
/// with other things, too.
const SOON: Duration = Duration::from_secs(5);

fn with_keys() -> Local {
    Local::builder().secret_key("secret").open_key("open").start().unwrap()
}

#[test]
fn s3_a_long_key_stays_in_its_event() {
    let local = with_keys();
    let long = "k".repeat(1_900_000);
    let event = json!({&long: 1, "k": 2}).to_string();
    let open = request(&local, "POST", "/v1/collect/s").key("open").gzip(event);
    open.send(&local).assert_stored();
    assert_eq!(local.events("s").unwrap()[0][&long], 1);
    let all = post(&local, "/v1/analyze", r#"{"query": "SELECT * FROM s"}"#);
    let keys: Vec<String> = all.json()[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["$id", "$timestamp", "k"]);
}

#[test]
fn s3_the_open_key_fills_the_disk_up_to_its_limit() {
    let local =
        Local::builder().open_key("open").max_open_bytes(8 << 20).max_events(1).start().unwrap();
    // The stream keeps one event of these; the process keeps a row of each.
    let process =
        r#"{"query": "SELECT page, count(*) FROM s GROUP BY page", "action": "MATERIALIZE"}"#;
    assert_eq!(post(&local, "/v1/process/pages", process).status, 201);
    let long = "x".repeat(250_000);
    let send = |key: &str, n: usize| {
        let event = json!({"page": format!("{n}{long}")}).to_string();
        request(&local, "POST", "/v1/collect/s").key(key).json(event).send(&local)
    };
    let stored = (0..100).take_while(|n| send("open", *n).status == 200).count();
    assert!((10..50).contains(&stored), "{stored}");
    let refused = send("open", 100);
    assert_eq!(refused.status, 507);
    assert!(refused.message().contains("past 8 MiB"), "{}", refused.message());
    send(local.secret_key(), 100).assert_stored();
    assert_eq!(local.rows("pages").unwrap().len(), stored + 1);
    // What is deleted makes room.
    assert_eq!(request(&local, "DELETE", "/v1/process/pages").send(&local).status, 200);
    send("open", 101).assert_stored();
}

#[test]
fn s9_a_key_with_a_nul_breaks_no_query() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let file = folder.path().join("stride.db");
        Local::builder().open_key("open").data(file).start().unwrap()
    };
    let check = |local: &Local, events: usize| {
        let query = json!({"query": "SELECT * FROM s ORDER BY n"}).to_string();
        let all = post(local, "/v1/analyze", &query).json();
        let mut all = all.as_array().unwrap().clone();
        for row in &mut all {
            let row = row.as_object_mut().unwrap();
            row.retain(|key, _| !key.starts_with('$'));
        }
        let rows = [
            json!({"n": 1, "o": null}),
            json!({"n": 2, "o": {"c\u{0}d": 1}}),
            json!({"n": 3, "o": "e\u{0}f"}),
        ];
        assert_eq!(all, rows[..events]);
        let stored = local.events("s").unwrap();
        assert_eq!(stored[0]["a\u{0}b"], 1, "the event itself is whole");
        assert_eq!(local.rows("p").unwrap(), [json!({"count": events, "sum": 1})]);
    };
    let process =
        json!({"query": "SELECT count(*), sum(n = 1) AS sum FROM s", "action": "MATERIALIZE"});
    let local = start();
    assert_eq!(post(&local, "/v1/process/p", &process.to_string()).status, 201);
    let open = |local: &Local, body: &str| {
        request(local, "POST", "/v1/collect/s").key("open").json(body).send(local).assert_stored();
    };
    open(&local, r#"{"n": 1, "o": null, "a\u0000b": 1}"#);
    check(&local, 1);
    open(&local, r#"[{"n": 2, "o": {"c\u0000d": 1}}, {"n": 3, "o": "e\u0000f"}]"#);
    check(&local, 3);
    local.stop();
    check(&start(), 3);
}

#[test]
fn s10_the_open_key_leaves_names_to_others() {
    let local = with_keys();
    let names = |from: usize| -> String {
        let streams: serde_json::Map<_, _> =
            (from..from + 1000).map(|n| (format!("s{n}"), json!({}))).collect();
        json!(streams).to_string()
    };
    let open = |body: String| request(&local, "POST", "/v1/collect").key("open").gzip(body);
    open(names(0)).send(&local).assert_stored();
    // All or nothing, and nothing that a client takes for its own fault.
    let refused = open(names(1000)).send(&local);
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(refused.message().contains("open key"), "{}", refused.message());
    assert_eq!(local.streams().unwrap().len(), 1000);
    // What is there can be written to, and the secret key can go on.
    open(r#"{"s1": {}}"#.to_owned()).send(&local).assert_stored();
    post(&local, "/v1/collect", &names(1000)).assert_stored();
    // A stream that is gone makes room.
    assert_eq!(request(&local, "DELETE", "/v1/collect/s7").send(&local).status, 200);
    open(r#"{"new": {}}"#.to_owned()).send(&local).assert_stored();
    assert_eq!(open(r#"{"newer": {}}"#.to_owned()).send(&local).status, 507);
}

#[test]
fn s4_the_open_key_sends_so_many_events_at_once() {
    let local = with_keys();
    let open = |body: String| request(&local, "POST", "/v1/collect").key("open").gzip(body);
    let refused = open(format!("{{{}\"s\":{{}}}}", "\"s\":{},".repeat(100_000))).send(&local);
    assert_eq!(refused.status, 413, "what clients that batch send again in halves");
    assert!(refused.message().contains("100000"), "{}", refused.message());
    // A stream that is named again and again is one stream.
    open("{\"s\":{\"n\":0},\"t\":[],\"s\":[{\"n\":1}]}".to_owned()).send(&local).assert_stored();
    assert_eq!((local.count("s").unwrap(), local.streams().unwrap()), (2, vec!["s".to_owned()]));
}

#[test]
fn s10_the_open_key_can_be_held_to_named_streams() {
    let local = Local::builder().open_key("open").open_streams(["clicks"]).start().unwrap();
    let open = |path, body| request(&local, "POST", path).key("open").json(body).send(&local);
    open("/v1/collect/clicks", "{}").assert_stored();
    open("/v1/collect", r#"{"clicks": [{}]}"#).assert_stored();
    for (path, body) in [("/v1/collect/other", "{}"), ("/v1/collect", r#"{"clicks": {}, "b": {}}"#)]
    {
        let refused = open(path, body);
        assert_eq!(refused.status, 403);
        assert!(refused.message().contains("open key"), "{}", refused.message());
    }
    post(&local, "/v1/collect/other", "{}").assert_stored();
    assert_eq!(
        (local.count("clicks").unwrap(), local.count("other").unwrap(), local.count("b").unwrap()),
        (2, 1, 0)
    );
}

#[test]
fn s11_uploads_that_send_nothing_hold_up_nobody() {
    let local = Local::builder()
        .secret_key("secret")
        .open_key("open")
        .max_body(1 << 20)
        .body_time(WATCHDOG)
        .start()
        .unwrap();
    let idle = |length: (&str, &str)| {
        let mut connection = Connection::open(&local);
        let head = request(&local, "POST", "/v1/collect/s").key("open").json("");
        let head = head.without("Content-Length").header(length.0, length.1);
        connection.write(&head.bytes()).unwrap();
        connection
    };
    let mut held: Vec<Connection> =
        (0..8).map(|_| idle(("Transfer-Encoding", "chunked"))).collect();
    held.extend((0..8).map(|_| idle(("Content-Length", "1000000"))));
    assert!(local.wait_until(WATCHDOG, |local| local.requests() == 16));
    let start = Instant::now();
    let large = format!("[{{\"text\": \"{}\"}}]", "x".repeat((1 << 20) - 20));
    for _ in 0..3 {
        post(&local, "/v1/collect/s", &large).assert_stored();
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(local.count("s").unwrap(), 3);
}

#[test]
fn uploads_that_wait_for_each_other_come_to_an_end() {
    let local = Local::builder().threads(2).max_body(1 << 20).start().unwrap();
    let body = format!("[{{\"text\": \"{}\"}}]", "x".repeat((1 << 20) - 20));
    let bytes = request(&local, "POST", "/v1/collect/s").json(&body).bytes();
    // All of them have come half before the first is whole: together they want twice what there is.
    let mut halves: Vec<Connection> = (0..16).map(|_| Connection::open(&local)).collect();
    std::thread::scope(|scope| {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for connection in &mut halves {
            connection.write(first).unwrap();
        }
        for mut connection in halves {
            scope.spawn(move || connection.try_exchange(second).unwrap().assert_stored());
        }
    });
    assert_eq!(local.count("s").unwrap(), 16);
}

/// The program, and what it has in memory.
struct Measured {
    running: Running,
    addr: SocketAddr,
}

impl Measured {
    fn start() -> Self {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--secret-key", "secret", "--open-key", "open"]);
        command.args(["--query-time", "1", "--log", "off"]);
        let (running, addr) = Running::start(command.stderr(Stdio::inherit()));
        Self { running, addr }
    }

    /// The resident size in MiB, if the system tells.
    fn resident(&self) -> Option<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.running.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
    }

    fn send(&self, request: &Request) -> Response {
        Connection::to(self.addr).unwrap().try_exchange(&request.bytes()).unwrap()
    }

    fn event(&self) -> Response {
        self.send(&Request::new("POST", "/v1/collect/others").key("secret").json(r#"{"n": 1}"#))
    }
}

/// What may be left of hostile requests, in MiB.
const MOST: u64 = 64;

/// Sends `times` requests of a kind from four clients, while another one goes on posting, and checks what is left
/// of them.
fn leaves_little(times: usize, statuses: &[u16], hostile: impl Fn(&Measured) -> Response + Sync) {
    const CLIENTS: usize = 4;
    let server = Measured::start();
    let attack = |times: usize| {
        for _ in 0..times {
            let response = hostile(&server);
            assert!(statuses.contains(&response.status), "{response:?}");
        }
    };
    // As many again come first: they fill the cache of the database, and grow the stacks and the heaps of the few
    // threads that do such work. What a request leaves for good shows in the second lot.
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| attack(times.div_ceil(CLIENTS)));
        }
    });
    server.event().assert_stored();
    let before = server.resident();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                server.event().assert_stored();
                slowest = slowest.max(start.elapsed());
            }
            slowest
        });
        let attackers: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| attack(times.div_ceil(CLIENTS)))).collect();
        let ends: Vec<_> = attackers.into_iter().map(ScopedJoinHandle::join).collect();
        // First, so that the other client comes to an end though an attacker failed.
        done.store(true, Ordering::Relaxed);
        for end in ends {
            end.unwrap();
        }
        let slowest = other.join().unwrap();
        assert!(slowest < SOON, "another client waited for {slowest:?}");
    });
    if let (Some(before), Some(after)) = (before, server.resident()) {
        assert!(after <= before + MOST, "{before} MiB became {after} MiB");
    }
}

/// How large the hostile bodies are once inflated, in MiB: without optimisation they take their time.
const SIZE: usize = if cfg!(debug_assertions) { 6 } else { 60 };

fn events_with_long_keys() -> Vec<u8> {
    let events: Vec<_> =
        (0..SIZE / 2).map(|n| json!({format!("{n}{}", "k".repeat(1_900_000)): n})).collect();
    gzip(json!(events).to_string().as_bytes())
}

/// One stream again and again.
fn streams(entry: &str) -> Vec<u8> {
    let body = format!("{{{}\"s\":[]}}", entry.repeat((SIZE << 20) / entry.len()));
    gzip(body.as_bytes())
}

fn to_collect(server: &Measured, path: &str, gzipped: &[u8]) -> Response {
    let open = Request::new("POST", path).key("open").header("Content-Encoding", "gzip");
    server.send(&open.json(gzipped))
}

fn s3(times: usize) {
    let keys = events_with_long_keys();
    leaves_little(times, &[200], |server| to_collect(server, "/v1/collect/long", &keys));
}

fn s4(times: usize) {
    let empty = streams("\"s\":[],");
    leaves_little(times, &[200], |server| to_collect(server, "/v1/collect", &empty));
    let tiny = streams("\"s\":{\"a\":1},");
    leaves_little(times, &[200, 413], |server| to_collect(server, "/v1/collect", &tiny));
}

fn query(server: &Measured, sql: &str) -> Response {
    let body = json!({ "query": sql }).to_string();
    server.send(&Request::new("POST", "/v1/analyze").key("secret").json(body))
}

/// Makes a process; returns its path, too.
fn define(server: &Measured, query: &str) -> (String, Response) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/v1/process/p{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let body = json!({"query": query, "action": "MATERIALIZE"}).to_string();
    let made = server.send(&Request::new("POST", &path).key("secret").json(body));
    (path, made)
}

/// Makes a process and deletes it.
fn process(server: &Measured, query: &str) -> Response {
    let (path, made) = define(server, query);
    server.send(&Request::new("DELETE", &path).key("secret"));
    made
}

#[test]
fn s3_long_keys_leave_nothing_behind() {
    s3(4);
}

#[test]
fn s4_a_body_of_millions_of_streams_leaves_nothing_behind() {
    s4(4);
}

#[test]
#[ignore = "it takes some minutes in release; .ci/run runs it"]
fn hostile_requests_of_each_kind_leave_little_behind() {
    const TIMES: usize = 40;
    /// Of those that take a second or so each.
    const LARGE: usize = 8;
    let literal = r"SELECT * FROM others WHERE n = '\'' OR 1=1 --'";
    leaves_little(TIMES, &[200], |server| query(server, literal));
    let unions = vec!["SELECT n FROM others"; 475].join(" UNION ALL ");
    leaves_little(TIMES, &[201, 400], |server| process(server, &unions));
    // These stay, and read what nobody writes to meanwhile.
    let unions = unions.replace("others", "quiet");
    leaves_little(LARGE, &[201], |server| define(server, &unions).1);
    s3(LARGE);
    s4(LARGE);
    let events: Vec<_> = (0..5000).map(|n| json!({"n": n, "t": format!("{n:0>200}")})).collect();
    let events = gzip(json!(events).to_string().as_bytes());
    let slow = "SELECT count(*) AS n, sum(t LIKE '%0%0%0%0%9%9%8%1%7%') AS m FROM filled";
    leaves_little(LARGE, &[201, 400], |server| {
        to_collect(server, "/v1/collect/filled", &events);
        process(server, slow)
    });
    let endless = [
        "SELECT sum(printf('%.*c', 3000000, 'a') LIKE '%a%a%a%a%a%b%' || n) AS x FROM others",
        "SELECT length(\"trim\"(printf('%.*c', 3000000, 'a'), printf('%.*c', 90000, 'b') || 'a')) AS x",
        "SELECT instr(printf('%.*c', 3000000, 'a'), printf('%.*c', 1500000, 'a') || 'b') AS x",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) AS x FROM c",
        "SELECT json_group_array(x) AS x FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL
         SELECT x + 1 FROM c) SELECT printf('%1000d', x) AS x FROM c)",
    ];
    let next = AtomicUsize::new(0);
    leaves_little(LARGE, &[200, 400, 503], |server| {
        query(server, endless[next.fetch_add(1, Ordering::Relaxed) % endless.len()])
    });
    let keys: serde_json::Map<_, _> = (0..998).map(|n| (format!("k{n}"), json!(n))).collect();
    let wide = gzip(json!(keys).to_string().as_bytes());
    let all = vec!["SELECT * FROM wide"; 400].join(" UNION ALL ");
    leaves_little(TIMES, &[400], |server| {
        to_collect(server, "/v1/collect/wide", &wide);
        query(server, &all)
    });
    let nul = gzip(br#"{"a\u0000b": 1}"#);
    leaves_little(TIMES, &[200], |server| to_collect(server, "/v1/collect/nul", &nul));
    let started = AtomicUsize::new(0);
    leaves_little(TIMES, &[200, 507], |server| {
        let from = started.fetch_add(10_000, Ordering::Relaxed);
        let names: serde_json::Map<_, _> =
            (from..from + 10_000).map(|n| (format!("s{n}"), json!({}))).collect();
        to_collect(server, "/v1/collect", &gzip(json!(names).to_string().as_bytes()))
    });
    let head = Request::new("POST", "/v1/collect/s").key("open").json("").without("Content-Length");
    let idle = head.header("Transfer-Encoding", "chunked").bytes();
    leaves_little(TIMES, &[200], |server| {
        let mut idles: Vec<_> = (0..4).map(|_| Connection::to(server.addr).unwrap()).collect();
        for idle_one in &mut idles {
            idle_one.write(&idle).unwrap();
        }
        let large = format!("[{{\"text\": \"{}\"}}]", "x".repeat(1 << 20));
        server.send(&Request::new("POST", "/v1/collect/large").key("secret").json(large))
    });
}
