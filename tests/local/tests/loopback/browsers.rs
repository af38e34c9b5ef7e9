//! Web pages: what a browser may do for one of another origin.

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
    assert_eq!(local.count("s"), 2);
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
    assert_eq!(local.count("s"), 0);
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
    assert!(local.streams().is_empty());
    // What has no body needs no type.
    let saved = request(&local, "PUT", "/v1/analyze/a").json(r#"{"query": "SELECT 1 AS x"}"#);
    assert_eq!(saved.send(&local).status, 200);
    assert_eq!(request(&local, "POST", "/v1/analyze/a/results").send(&local).status, 200);
    assert_eq!(request(&local, "DELETE", "/v1/analyze/a").send(&local).status, 200);
}
