//! What a collector leaves in a log (C15). Alone in its program: its threads log to the one subscriber
//! that a program has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use stride_collector::{Collector, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, Delivery, TransportError, TransportErrorKind};
use stride_tests::Log;

#[test]
fn c15_the_log_tells_what_was_lost_and_why_with_the_servers_message_and_the_errors_sources() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().json().with_writer(move || writer.clone()).init();
    let requests = AtomicU64::new(0);
    let transport = move |_: Call, _: CancelToken| {
        if requests.fetch_add(1, Ordering::Relaxed) == 0 {
            let response = http::Response::builder().status(503);
            return Ok(response.body(Body::from(r#"{"message": "back soon"}"#)).unwrap());
        }
        let refused = io::Error::new(io::ErrorKind::InvalidData, "the certificate has expired");
        let error = TransportError::new(TransportErrorKind::Tls, Delivery::NotSent);
        Err(error.with_source(refused))
    };
    let api = Api::new("k3y_that_is_secret").unwrap();
    let collector = Collector::start(Target { api, transport: Arc::new(transport) }).unwrap();
    collector.collect("clicks", &json!({"bojack": "horseman"})).unwrap();
    assert_eq!(collector.stop().lost(), 1);

    let log = log.text();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost: Vec<&Value> =
        lines.iter().filter(|line| line["fields"]["message"] == "events were lost").collect();
    let [lost] = lost[..] else { panic!("{log}") };
    assert_eq!((&lost["level"], &lost["target"]), (&json!("WARN"), &json!("stride::collector")));
    let expected = json!({
        "message": "events were lost",
        "stream": "clicks",
        "events": 1,
        "reason": "undeliverable",
        "delivery": "MaybeSent",
        "status": 503,
        "server_message": "back soon",
        "error": format!("{}: the certificate has expired", TransportErrorKind::Tls),
    });
    assert_eq!(lost["fields"], expected);
    assert!(!log.contains("horseman") && !log.contains("k3y_that_is_secret"), "{log}");
}
