//! Thousands of bad requests, each with its clear error, while the server stays up and nothing
//! changes. They come from a generator with a fixed seed: a failure is found again.

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, Request, get, gzip, post, request};

/// A bad request.
struct Bad {
    bytes: Vec<u8>,
    /// The client says no more after it, in the middle of a request.
    cut: bool,
    statuses: &'static [u16],
}

impl From<(Request, &'static [u16])> for Bad {
    fn from((request, statuses): (Request, &'static [u16])) -> Self {
        Self { bytes: request.bytes(), cut: false, statuses }
    }
}

/// What is no `SELECT`, or reaches for what is not the client's.
const FORBIDDEN: &[&str] = &[
    "",
    ";",
    "nonsense",
    "SELECT",
    "SELECT * FROM",
    "SELECT 1 FROM s WHERE",
    "SELECT 'open",
    "INSERT INTO s VALUES (1)",
    "INSERT INTO s SELECT * FROM s RETURNING *",
    "UPDATE s SET x = 2",
    "DELETE FROM s",
    "REPLACE INTO s VALUES (1)",
    "WITH gone AS (SELECT 1) DELETE FROM s",
    "DROP TABLE s",
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON s BEGIN SELECT 1; END",
    "ALTER TABLE s RENAME TO t",
    "ATTACH 'stolen.db' AS stolen",
    "ATTACH DATABASE ':memory:' AS m",
    "DETACH main",
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = DELETE",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN EXCLUSIVE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT here",
    "EXPLAIN SELECT 1",
    "SELECT 1; DROP TABLE s",
    "SELECT 1; SELECT 2",
    "SELECT load_extension('evil')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('evil', 'x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT no_such_function(1)",
];

/// What runs for ever, and what fills the memory.
const ENDLESS: &[&str] = &[
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c ORDER BY -x",
    "SELECT count(*) FROM s a, s b, s c, s d, s e, s f, s g, s h, s i, s j, s k, s l",
    "SELECT group_concat(a.text) FROM s a, s b, s c, s d, s e, s f, s g, s h",
];
const GREEDY: &[&str] = &[
    "SELECT randomblob(2000000000)",
    "SELECT hex(zeroblob(900000000))",
    "SELECT printf('%.*c', 1500000000, 'x')",
    "SELECT replace(hex(zeroblob(100000)), '0', hex(zeroblob(100000)))",
    "WITH RECURSIVE c(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM c LIMIT 40) SELECT x FROM c",
];

/// What the parser and the database would have to descend into.
fn deep(random: &mut Rng) -> String {
    // Deeper than the database goes, and as often within what is parsed as beyond.
    let depth =
        if random.bool() { random.usize(1_100..5_000) } else { random.usize(5_000..40_000) };
    match random.usize(0..10) {
        0 => format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)),
        1 => format!("SELECT {}1", "NOT ".repeat(depth)),
        2 => format!("SELECT 1{}", " + 1".repeat(depth)),
        3 => format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(depth)),
        4 => format!("SELECT 1{}", " AND 1".repeat(depth)),
        5 => format!("SELECT 1{}", " BETWEEN 1 AND 2".repeat(depth)),
        6 => format!("SELECT x{} FROM s", " -> 'a'".repeat(depth)),
        7 => format!("SELECT {}1{}", "abs(".repeat(depth), ")".repeat(depth)),
        8 => format!("SELECT 1 FROM {}s{}", "(SELECT 1 FROM ".repeat(depth), ")".repeat(depth)),
        _ => format!("SELECT {}1{}", "CASE WHEN ".repeat(depth), " THEN 1 END".repeat(depth)),
    }
}

fn choose<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn sql(local: &Local, random: &mut Rng) -> Bad {
    let query = match random.usize(0..100) {
        0..4 => choose(random, ENDLESS).to_owned(),
        4..10 => choose(random, GREEDY).to_owned(),
        10..20 => deep(random),
        _ => choose(random, FORBIDDEN).to_owned(),
    };
    let body = json!({ "query": query }).to_string();
    (request(local, "POST", "/v1/analyze").json(body), &[400][..]).into()
}

fn definition(local: &Local, random: &mut Rng) -> Bad {
    let name = format!("h{}", random.u16(..));
    let query = choose(random, FORBIDDEN);
    let process = format!("/v1/process/{name}");
    let analyze = format!("/v1/analyze/{name}");
    let (method, path, body) = match random.usize(0..8) {
        0 => ("POST", &process, json!({"query": query, "action": "MATERIALIZE"})),
        1 => ("PUT", &analyze, json!({ "query": query })),
        2 => ("POST", &process, json!({"query": "SELECT count(*) FROM s"})),
        3 => ("POST", &process, json!({"query": "SELECT count(*) FROM s", "action": "WEBHOOK"})),
        4 => ("POST", &process, json!(["SELECT count(*) FROM s", "MATERIALIZE"])),
        5 => ("PUT", &analyze, json!({"query": "SELECT 1", "more": random.u32(..)})),
        6 => ("PUT", &analyze, json!({"query": random.u32(..)})),
        _ => ("POST", &analyze, json!(null)),
    };
    (request(local, method, path).json(body.to_string()), &[400][..]).into()
}

fn path(local: &Local, random: &mut Rng) -> Bad {
    const PIECES: &[&str] = &[
        "..", ".", "%2e%2e", "%00", "%2f", "collect", "process", "v1", "", "etc", "passwd", "~",
        "*", "a-b", "9", "%ff", "a%20b", "results", "stats", "\\..", "';--", "s;x", "{}",
    ];
    let mut path =
        choose(random, &["", "/v1", "/v1/collect", "/v1/process/p", "/v1/../v1"]).to_owned();
    for _ in 0..random.usize(2..9) {
        path.push('/');
        path.push_str(choose(random, PIECES));
    }
    let method = choose(random, &["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"]);
    (request(local, method, &path).json("{}"), &[400, 404, 405][..]).into()
}

fn key(local: &Local, random: &mut Rng) -> Bad {
    let secret = local.secret_key();
    let wrong = match random.usize(0..5) {
        0 => String::new(),
        1 => "x".repeat(random.usize(1..30_000)),
        2 => secret[..random.usize(..secret.len())].to_owned(),
        3 => secret.to_uppercase(),
        _ => format!("{secret}{}", random.alphanumeric()),
    };
    let path = choose(random, &["/v1/collect/s", "/v1/analyze", "/v1/nowhere", "/../.."]);
    (request(local, "POST", path).json("{}").key(&wrong), &[401][..]).into()
}

fn events(local: &Local, random: &mut Rng) -> Bad {
    let depth = random.usize(200..50_000);
    let body = match random.usize(0..10) {
        0 => format!("{{\"a\": {}1{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes(),
        1 => "{\"a\":".repeat(depth).into_bytes(),
        2 => b"{\"a\": \"\xff\xfe\"}".to_vec(),
        3 => br#"{"$id": {}}"#.to_vec(),
        4 => br#"{"$timestamp": "tomorrow"}"#.to_vec(),
        5 => br#"[{"x": 1}, {"x": 2}, 3]"#.to_vec(),
        6 => br#"{"a": 1e99999}"#.to_vec(),
        7 => br#"{"a": "\ud800"}"#.to_vec(),
        8 => (0..random.usize(1..500)).map(|_| random.u8(..)).collect(),
        _ => br#"{"x": 1}{"x": 2}"#.to_vec(),
    };
    let path = choose(random, &["/v1/collect/s", "/v1/collect"]);
    let request = request(local, "POST", path);
    let request = if random.bool() { request.gzip(body) } else { request.json(body) };
    (request, &[400][..]).into()
}

fn size(local: &Local, random: &mut Rng) -> Bad {
    let request = request(local, "POST", "/v1/collect/s");
    let bomb = [&gzip(b"{}")[..], &gzip(&vec![b' '; 1 << 20]).repeat(100)].concat();
    let request = match random.usize(0..3) {
        0 => request.header("Content-Encoding", "gzip").json(bomb),
        1 => request.json(vec![b' '; (1 << 20) + random.usize(1..100_000)]),
        _ => request.json("{}").header("Content-Length", &random.u64(1 << 32..).to_string()),
    };
    (request, &[413][..]).into()
}

fn encoding(local: &Local, random: &mut Rng) -> Bad {
    let good = gzip(br#"{"x": 1}"#);
    let mut broken = good.clone();
    let request = request(local, "POST", "/v1/collect/s");
    match random.usize(0..4) {
        0 => {
            // The checksum and the length.
            let place = random.usize(good.len() - 8..good.len());
            broken[place] ^= 1 << random.u8(..8);
            let request = request.header("Content-Encoding", "gzip").json(broken);
            (request, &[400][..]).into()
        }
        1 => {
            broken.truncate(random.usize(..good.len()));
            (request.header("Content-Encoding", "gzip").json(broken), &[400][..]).into()
        }
        2 => {
            let encoding = choose(random, &["br", "deflate", "zstd", "gzip, gzip", "../gzip"]);
            (request.json("{}").header("Content-Encoding", encoding), &[415][..]).into()
        }
        _ => {
            let kind = choose(random, &["text/html", "application/xml", "multipart/form-data"]);
            (request.json("{}").header("Content-Type", kind), &[415][..]).into()
        }
    }
}

/// A good request that ends somewhere in its middle.
fn truncated(local: &Local, random: &mut Rng) -> Bad {
    let mut bytes = request(local, "POST", "/v1/collect/s").json(r#"{"x": 1}"#).bytes();
    bytes.truncate(random.usize(1..bytes.len()));
    Bad { bytes, cut: true, statuses: &[400] }
}

/// What is no HTTP, or not quite.
fn malformed(local: &Local, random: &mut Rng) -> Bad {
    const HEADS: &[&str] = &[
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /v1/collect HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /v1/collect HTTP/1.1\r\na\0b: c\r\n\r\n",
        "GET /v1/collect HTTP/1.1\r\n: empty\r\n\r\n",
        "POST /v1/collect/s HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
        "POST /v1/collect/s HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "POST /v1/collect/s HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    ];
    let statuses = &[400, 414, 431][..];
    let bytes = match random.usize(0..6) {
        0 => format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)).into_bytes(),
        1 => format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)).into_bytes(),
        2 => format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(200_000)).into_bytes(),
        3 => {
            let request =
                request(local, "POST", "/v1/collect/s").json("").without("Content-Length");
            let mut bytes = request.header("Transfer-Encoding", "chunked").bytes();
            bytes.extend(
                choose(random, &["zz\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n", "2\r\n{}x\r\n"]).bytes(),
            );
            bytes
        }
        _ => choose(random, HEADS).as_bytes().to_vec(),
    };
    Bad { bytes, cut: false, statuses }
}

fn bad(local: &Local, random: &mut Rng) -> Bad {
    match random.usize(0..18) {
        0..4 => sql(local, random),
        4..6 => definition(local, random),
        6..8 => path(local, random),
        8..9 => key(local, random),
        9..11 => events(local, random),
        11..12 => size(local, random),
        12..14 => encoding(local, random),
        14..16 => truncated(local, random),
        _ => malformed(local, random),
    }
}

fn check(local: &Local, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let Bad { bytes, cut, statuses } = bad(local, &mut random);
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
    let mut connection = Connection::open(local);
    // The response may come, and the connection be closed, before it is written to its end.
    let _ = connection.write(&bytes);
    if cut {
        connection.socket.get_ref().shutdown(Shutdown::Write).unwrap();
    }
    let response = connection
        .read_response()
        .unwrap_or_else(|error| panic!("seed {seed} got no response: {error}\n{start}"));
    assert!(statuses.contains(&response.status), "seed {seed}: {response:?}\n{start}");
    // hyper itself responds to what is not HTTP, with the status alone.
    if !response.body.is_empty() {
        assert!(!response.message().is_empty());
    }
}

/// All that a client can see of what is stored.
fn visible(local: &Local) -> Vec<Value> {
    let paths = [
        "/v1/collect",
        "/v1/collect/s",
        "/v1/process",
        "/v1/process/p",
        "/v1/analyze",
        "/v1/analyze/a",
        "/v1/analyze/a/results",
    ];
    let mut visible: Vec<Value> = paths.map(|path| get(local, path).json()).to_vec();
    visible.extend(local.events("s").unwrap());
    visible
}

fn nothing_changes(requests: u64) {
    const CLIENTS: u64 = 4;
    let local = Local::builder()
        .threads(2)
        .max_body(1 << 20)
        .max_inflated(4 << 20)
        .head_time(Duration::from_secs(3))
        .query_time(Duration::from_millis(100))
        .start()
        .unwrap();
    let events: Vec<Value> = (0..50).map(|x| json!({"x": x, "text": "x".repeat(1000)})).collect();
    post(&local, "/v1/collect/s", &json!(events).to_string()).assert_stored();
    let process = json!({"query": "SELECT count(*) FROM s", "action": "MATERIALIZE"}).to_string();
    assert_eq!(post(&local, "/v1/process/p", &process).status, 201);
    let analysis = json!({"query": "SELECT * FROM p"}).to_string();
    assert_eq!(post(&local, "/v1/analyze/a", &analysis).status, 201);
    let before = visible(&local);

    // These say half a head and then nothing, all along.
    let mut slow: Vec<Connection> = (0..20).map(|_| Connection::open(&local)).collect();
    for (bytes, slow) in slow.iter_mut().enumerate() {
        let head = request(&local, "GET", "/v1/collect").bytes();
        slow.write(&head[..1 + 3 * bytes]).unwrap();
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= requests {
                        break;
                    }
                    check(&local, seed);
                }
            });
        }
    });
    for mut slow in slow {
        let response = slow.read_response().unwrap();
        assert_eq!(response.status, 408);
        assert!(response.message().contains("head"));
    }
    assert_eq!(visible(&local), before);
    // What there is of the database itself is no relation of the client's.
    for relation in ["sqlite_master", "sqlite_schema", "pragma_database_list", "sqlite_sequence"] {
        let query = json!({"query": format!("SELECT * FROM {relation}")}).to_string();
        let response = post(&local, "/v1/analyze", &query);
        assert!(response.status == 400 || response.body == b"[]", "{relation}: {response:?}");
    }
    post(&local, "/v1/collect/s", "{}").assert_stored();
}

#[test]
fn a_thousand_bad_requests_get_their_errors_and_change_nothing() {
    nothing_changes(1000);
}

#[test]
#[ignore = "ten thousand requests"]
fn ten_thousand_bad_requests_get_their_errors_and_change_nothing() {
    nothing_changes(10_000);
}
