//! The key and a proxy's password show nowhere.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Mutex;

use serde_json::{Value, json};
use stride_blocking::{Stride, Target};

use crate::server::{Server, answer, closed_port, in_time};

/// Everything that is logged by all tests of this program.
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

#[test]
fn neither_the_key_nor_a_password_is_shown() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    // The key, its Basic authentication, and those of the proxy.
    let secrets = ["s3cr3t_key", "czNjcjN0X2tleTo", "passw0rd", "bWU6cGFzc3cwcmQ"];
    let server = Server::answering(answer("401 Unauthorized", r#"{"message": "who?"}"#));
    let tunnel = Server::answering("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    let proxy = format!("http://me:passw0rd@{}", tunnel.address);
    let refused = format!("http://{}/v1", closed_port());
    let shown = in_time(move || {
        let mut shown = String::new();
        for (base, proxy) in [(server.base(), None), (refused, None), (server.base(), Some(proxy))]
        {
            let mut builder = Stride::builder("s3cr3t_key").endpoint(&base);
            if let Some(proxy) = proxy {
                builder = builder.proxy(&proxy);
            }
            write!(shown, "{builder:?}").unwrap();
            let stride = builder.build().unwrap();
            write!(shown, "{stride:?} {:?}", Target::from(&stride)).unwrap();
            write!(shown, "{:?}", stride.subscribe("/collect/a")).unwrap();
            for result in [stride.get("/collect"), stride.post("/collect/a", &json!({}))] {
                write!(shown, "{result:?}").unwrap();
                if let Err(error) = result {
                    write!(shown, "{error} {:?}", error.source()).unwrap();
                }
            }
            let error = stride.subscribe("/collect/a").data::<Value>().unwrap_err();
            write!(shown, "{error:?} {error} {:?}", error.source()).unwrap();
        }
        let bad = Stride::builder("s3cr3t_key").proxy("https://me:passw0rd@127.0.0.1").build();
        write!(shown, "{bad:?}").unwrap();
        shown
    });
    let log = LOG.lock().unwrap();
    assert!(log.contains("ureq"), "nothing was logged");
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} in {shown}");
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
