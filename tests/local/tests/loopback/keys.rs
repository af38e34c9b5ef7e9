//! Who may do what.

use stride_local::Local;

use crate::http::request;

#[test]
fn no_key_or_a_wrong_one_is_401_and_says_how() {
    let local = Local::builder().secret_key("helloworld").start().unwrap();
    let get = || request(&local, "GET", "/v1/collect");
    assert_eq!(get().send(&local).status, 200);
    assert_eq!(get().header("Authorization", "Basic aGVsbG93b3JsZDo=").send(&local).status, 200);
    let wrong = [
        get().without("Authorization"),
        get().key("hello"),
        get().key(""),
        get().header("Authorization", "Bearer helloworld"),
        // The key as the password.
        get().header("Authorization", "Basic OmhlbGxvd29ybGQ="),
        request(&local, "GET", "/nowhere").key("hello"),
    ];
    for request in wrong {
        let response = request.send(&local);
        assert_eq!(response.status, 401);
        assert!(response.headers["www-authenticate"].starts_with("Basic realm="));
        assert!(!response.message().contains("hello"));
    }
}

#[test]
fn an_open_key_may_write_and_nothing_else() {
    let local = Local::builder().secret_key("secret").open_key("open").start().unwrap();
    assert_eq!(local.open_key(), Some("open"));
    let with_open =
        |method, path| request(&local, method, path).json(r#"{"s": {}}"#).key("open").send(&local);
    with_open("POST", "/v1/collect").assert_stored();
    with_open("POST", "/v1/collect/s").assert_stored();
    assert_eq!(with_open("POST", "/v1/collect/no-name").status, 400);
    for (method, path) in [
        ("GET", "/v1/collect"),
        ("GET", "/v1/collect/s"),
        ("DELETE", "/v1/collect/s"),
        ("GET", "/v1/collect/s/subscribe"),
        ("POST", "/v1/collect/s/subscribe"),
        ("POST", "/v1/process/p"),
        ("GET", "/v1/analyze"),
        ("GET", "/v1/nowhere"),
    ] {
        let response = with_open(method, path);
        assert_eq!(response.status, 403, "{method} {path}");
        assert!(response.message().contains("POST to /collect"));
    }
    assert_eq!(local.count("s").unwrap(), 2);
}

#[test]
fn keys_that_cannot_work_are_refused_at_the_start() {
    for (secret, open) in [("", "open"), ("a:b", "open"), ("key", ""), ("key", "a:"), ("k", "k")] {
        let error = Local::builder().secret_key(secret).open_key(open).start().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn debug_shows_no_key() {
    let builder = Local::builder().secret_key("hush").open_key("hushed");
    assert!(!format!("{builder:?}").contains("hush"));
    assert!(!format!("{:?}", builder.start().unwrap()).contains("hush"));
}
