//! Web pages: what a browser may do for one of another origin.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Request, Response, get, request};

const PAGE: &str = "http://page.example";

fn with_keys() -> Local {
    Local::builder().secret_key("secret").open_key("open").start().unwrap()
}

/// What a browser asks before it lets a page send a request.
fn preflight(local: &Local, method: &str, path: &str) -> Response {
    Request::new("OPTIONS", path)
        .header("Origin", PAGE)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization,content-type")
        .send(local)
}

#[test]
fn p2_events_can_be_posted_with_the_open_key_from_any_origin() {
    let local = with_keys();
    for path in ["/v1/collect", "/v1/collect/s"] {
        let allowed = preflight(&local, "POST", path);
        assert_eq!((allowed.status, &allowed.body[..]), (204, &b""[..]));
        let header = |name: &str| &*allowed.headers[name];
        assert_eq!(header("access-control-allow-origin"), "*");
        assert_eq!(header("access-control-allow-methods"), "POST");
        for name in ["authorization", "content-type", "content-encoding"] {
            assert!(header("access-control-allow-headers").contains(name));
        }
        let event = request(&local, "POST", path).key("open").header("Origin", PAGE);
        let stored = event.json(r#"{"s": {}}"#).send(&local);
        stored.assert_stored();
        assert_eq!(stored.headers["access-control-allow-origin"], "*");
    }
    // The page learns why an event is refused, and when to try again.
    let bad = request(&local, "POST", "/v1/collect/s").key("open").header("Origin", PAGE);
    let refused = bad.json("nope").send(&local);
    assert_eq!((refused.status, &*refused.headers["access-control-allow-origin"]), (400, "*"));
    assert_eq!(local.count("s").unwrap(), 2);
}

#[test]
fn p2_nothing_else_is_for_a_page_of_another_origin() {
    let local = with_keys();
    let shares = |response: &Response| response.headers.contains_key("access-control-allow-origin");
    for (method, path) in [
        ("GET", "/v1/collect"),
        ("DELETE", "/v1/collect/s"),
        ("PUT", "/v1/collect/s"),
        ("GET", "/v1/collect/s/subscribe"),
        ("POST", "/v1/collect/s/subscribe"),
        ("POST", "/v1/analyze"),
        ("POST", "/v1/process/p"),
        ("GET", "/healthz"),
    ] {
        let refused = preflight(&local, method, path);
        assert!(refused.status >= 400 && !shares(&refused), "{method} {path}: {refused:?}");
    }
    // A browser sends these without asking.
    let simple = request(&local, "POST", "/v1/collect/s").key("open").header("Origin", PAGE);
    assert_eq!(simple.body("{}").send(&local).status, 415);
    let secret = request(&local, "POST", "/v1/collect/s").key("secret").header("Origin", PAGE);
    let refused = secret.json("{}").send(&local);
    assert_eq!((refused.status, shares(&refused)), (403, false));
    assert!(refused.message().contains("secret key"));
    assert_eq!(local.count("s").unwrap(), 0);
    // A page of the server itself has no other origin.
    let own =
        request(&local, "POST", "/v1/collect/s").key("secret").header("Origin", "http://localhost");
    own.json("{}").send(&local).assert_stored();
    // Without an open key there is nothing for pages.
    let closed = Local::start().unwrap();
    assert_eq!(preflight(&closed, "POST", "/v1/collect/s").status, 401);
    assert!(!shares(&get(&local, "/v1/collect")));
}

#[test]
fn s13_a_body_without_a_type_is_refused() {
    let local = with_keys();
    let bare = |path| request(&local, "POST", path).body(r#"{"query": "SELECT 1 AS x"}"#);
    for path in ["/v1/collect/s", "/v1/collect", "/v1/analyze", "/v1/analyze/a", "/v1/process/p"] {
        for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")]
        {
            let sent =
                kind.map_or_else(|| bare(path), |kind| bare(path).header("Content-Type", kind));
            let refused = sent.send(&local);
            assert_eq!(refused.status, 415, "{path} {kind:?}");
            assert!(refused.message().contains("application/json"));
        }
    }
    assert!(local.streams().unwrap().is_empty());
    // What has no body needs no type.
    let saved = request(&local, "PUT", "/v1/analyze/a").json(r#"{"query": "SELECT 1 AS x"}"#);
    assert_eq!(saved.send(&local).status, 200);
    assert_eq!(request(&local, "POST", "/v1/analyze/a/results").send(&local).status, 200);
    assert_eq!(request(&local, "DELETE", "/v1/analyze/a").send(&local).status, 200);
}

/// What the page does, one thing after another. A failure of the network is what a browser makes of everything
/// that it does not let the page see.
const SCRIPT: &str = r#"
const outcomes = {};
const key = (name) => ({Authorization: "Basic " + btoa(name + ":")});
const json = {"Content-Type": "application/json"};
async function attempt(what, path, options) {
    try {
        const response = await fetch(API + path, options);
        outcomes[what] = response.status;
    } catch (error) {
        outcomes[what] = "refused";
    }
}
(async () => {
    const event = JSON.stringify({from: "page"});
    const open = {...key("open"), ...json};
    await attempt("event", "/collect/clicks", {method: "POST", headers: open, body: event});
    await attempt("map", "/collect", {method: "POST", headers: open, body: `{"clicks": [${event}]}`});
    await attempt("bad event", "/collect/clicks", {method: "POST", headers: open, body: "nope"});
    await attempt("list", "/collect", {headers: key("open")});
    await attempt("list, secret", "/collect", {headers: key("secret")});
    await attempt("event, secret", "/collect/clicks",
        {method: "POST", headers: {...key("secret"), ...json}, body: event});
    await attempt("delete", "/collect/clicks", {method: "DELETE", headers: key("secret")});
    await attempt("query", "/analyze", {method: "POST", headers: {...key("secret"), ...json},
        body: `{"query": "SELECT * FROM clicks"}`});
    await attempt("subscribe", "/collect/clicks/subscribe", {headers: key("secret")});
    await attempt("health", "/../healthz", {});
    // These need no leave of the server: it has to refuse them itself.
    await attempt("form", "/collect/clicks", {method: "POST", mode: "no-cors", body: event});
    await attempt("text", "/collect/clicks", {method: "POST", mode: "no-cors",
        headers: {"Content-Type": "text/plain"}, body: event});
    await fetch("/report", {method: "POST", body: JSON.stringify(outcomes)});
})();
"#;

/// Serves the page at another origin until the page has reported what came of it.
fn serve(listener: &TcpListener, page: &str, report: &mpsc::Sender<Value>) {
    let answer = |socket: &mut TcpStream, kind: &str, body: &str| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes()))
    };
    for socket in listener.incoming() {
        let mut socket = BufReader::new(socket.unwrap());
        let (mut line, mut length) = (String::new(), 0);
        if socket.read_line(&mut line).unwrap_or(0) == 0 {
            continue;
        }
        loop {
            let mut header = String::new();
            if socket.read_line(&mut header).unwrap_or(0) <= 2 {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).unwrap();
        let is_report = line.starts_with("POST /report");
        // The browser may be gone before it has read this.
        drop(answer(socket.get_mut(), "text/html", if is_report { "" } else { page }));
        if is_report {
            report.send(serde_json::from_slice(&body).unwrap()).unwrap();
            return;
        }
    }
}

/// Killed even when the test fails.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn installed_browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        version.is_ok_and(|version| version.status.success())
    })
}

#[test]
fn p2_a_browser_lets_a_page_collect_events_and_nothing_else() {
    let Some(browser) = installed_browser() else {
        // Said past the test's captured output: what is skipped should be seen.
        let said =
            std::io::stderr().write_all(b"skipped: there is no Chromium to try a web page in\n");
        return said.unwrap();
    };
    let local = with_keys();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}/", listener.local_addr().unwrap());
    let page = format!(
        "<!doctype html><title>page</title><script>const API = \"{}\";{SCRIPT}</script>",
        local.endpoint()
    );
    let (report, reported) = mpsc::channel();
    std::thread::spawn(move || serve(&listener, &page, &report));
    let profile = tempfile::tempdir().unwrap();
    let child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(&origin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _browser = Browser(child);
    let outcomes = reported.recv_timeout(Duration::from_secs(60)).expect("the page reports");
    let expected = json!({
        "event": 200,
        "map": 200,
        "bad event": 400,
        "list": "refused",
        "list, secret": "refused",
        "event, secret": "refused",
        "delete": "refused",
        "query": "refused",
        "subscribe": "refused",
        "health": "refused",
        // 0 is what a page gets to see of what it sent without leave.
        "form": 0,
        "text": 0,
    });
    assert_eq!(outcomes, expected);
    let events = local.events("clicks").unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|event| event["from"] == "page"));
}
