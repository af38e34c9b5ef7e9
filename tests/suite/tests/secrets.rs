//! Neither the key nor a proxy's password is shown anywhere. Alone in its process, because it reads
//! all that is logged.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use stride_core::subscribe::Reconnect;
use stride_tests::wire::{RefusingPort, Server, response};
use stride_tests::{Builder, watchdog};

/// Everything that is logged.
static LOG: Mutex<String> = Mutex::new(String::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(LOG.lock().unwrap(), "{}: {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

const KEY: &str = "s3cr3t_key";

/// The key, its Basic authentication, and those of the proxy.
const SECRETS: [&str; 4] = [KEY, "czNjcjN0X2tleTo", "passw0rd", "bWU6cGFzc3cwcmQ"];

/// All that can be printed of a client, its responses and its errors.
fn shown(builder: fn() -> Builder) -> String {
    let server = Server::responding(response("401 Unauthorized", r#"{"message": "who?"}"#));
    let tunnel = Server::responding("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    let refused = RefusingPort::new();
    let proxy = format!("http://me:passw0rd@{}", tunnel.address());
    let mut shown = String::new();
    for (endpoint, proxy) in
        [(server.endpoint(), None), (refused.endpoint(), None), (server.endpoint(), Some(proxy))]
    {
        let mut builder = builder().endpoint(&endpoint);
        if let Some(proxy) = proxy {
            builder = builder.proxy(&proxy);
        }
        write!(shown, "{builder:?}").unwrap();
        let client = builder.build().unwrap();
        write!(shown, "{client:?} {:?}", client.endpoint()).unwrap();
        for result in [client.get("/collect"), client.post("/collect/a", &json!({}))] {
            write!(shown, "{result:?}").unwrap();
            if let Err(error) = result {
                write!(shown, "{error} {:?}", error.source()).unwrap();
            }
        }
        let idle = Duration::from_secs(60);
        let subscribe = client.subscribe("/collect/a", None, Reconnect::Never, idle);
        let error = subscribe.unwrap_err();
        write!(shown, "{error:?} {error} {:?}", error.source()).unwrap();
    }
    let bad = builder().proxy("https://me:passw0rd@127.0.0.1").build();
    write!(shown, "{bad:?}").unwrap();
    shown
}

#[test]
fn neither_the_key_nor_a_password_is_shown() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let shown = watchdog(|| {
        let blocking = || Builder::Blocking(stride_blocking::Stride::builder(KEY));
        let awaiting = || Builder::Async(stride_async::Stride::builder(KEY));
        // The options of a subscription differ in type, and show no more than their client.
        let subscriptions = format!(
            "{:?} {:?}",
            stride_blocking::Stride::new(KEY).unwrap().subscribe("/collect/a"),
            stride_async::Stride::new(KEY).unwrap().subscribe("/collect/a"),
        );
        [shown(blocking), shown(awaiting), subscriptions].concat()
    });
    let log = LOG.lock().unwrap();
    assert!(log.contains("ureq"), "nothing was logged");
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
