//! What the collector's types offer to the programs that use them.

use std::sync::{Arc, Mutex};

use serde_json::json;
use stride_collector::{
    Collector, Delivery, Intake, LossReason, LostBatch, Report, Target, TransportError, http,
};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, TransportErrorKind};

/// A server that gives every request this response.
fn responds(status: u16, body: &'static str) -> Target {
    let transport =
        move |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
            let response = http::Response::builder().status(status);
            Ok(response.body(Body::from(body)).unwrap())
        };
    Target { api: Api::new("key").unwrap(), transport: Arc::new(transport) }
}

/// A program's own function, for collectors of either kind.
fn collects(intake: &Intake) -> Result<(), stride_core::Error> {
    intake.collect("clicks", &json!({"x": 3}))?;
    intake.stream("clicks")?.collect(&json!({"x": 4}))?;
    Ok(())
}

#[test]
fn a4_a_collector_is_used_through_its_intake_and_one_error_serves_all() {
    fn program() -> Result<Report, stride_core::Error> {
        let collector = Collector::start(responds(200, ""))?;
        collects(&collector)?;
        assert_eq!(collector.stats().accepted, 2);
        let report = collector.stop();
        let error = collects(&collector).unwrap_err();
        assert_eq!(error.to_string(), "the collector was stopped");
        Ok(report)
    }
    assert_eq!(program().unwrap(), Report::default().with_delivered(2));
}

#[test]
fn a5_a_builder_can_be_cloned_and_its_collectors_share_on_lost() {
    let lost: Arc<Mutex<Vec<LostBatch>>> = Arc::default();
    let told = Arc::clone(&lost);
    let builder = Collector::builder().on_lost(move |lost| told.lock().unwrap().push(lost.clone()));
    for stream in ["a", "b"] {
        let collector = builder.clone().start(responds(404, "")).unwrap();
        collector.collect(stream, &json!({})).unwrap();
        let report = collector.stop();
        let expected = Report::default().with_lost(LossReason::Refused, Delivery::MaybeSent, 1);
        assert_eq!(report, expected);
    }
    let lost = lost.lock().unwrap();
    let streams: Vec<&str> = lost.iter().map(|lost| &*lost.stream).collect();
    assert_eq!(streams, ["a", "b"]);
}

#[test]
fn c15_a_lost_batch_holds_the_servers_status_and_message() {
    let (sender, lost) = std::sync::mpsc::channel();
    let builder = Collector::builder().on_lost(move |lost| sender.send(lost.clone()).unwrap());
    let target = responds(409, r#"{"message": "the stream is closed"}"#);
    let collector = builder.start(target).unwrap();
    collector.collect("clicks", &json!({"x": 3})).unwrap();
    assert_eq!(collector.stop().lost(), 1);
    let lost = lost.recv().unwrap();
    assert_eq!((&*lost.stream, &lost.events[..], lost.count), ("clicks", &b"[{\"x\":3}]"[..], 1));
    assert_eq!((lost.reason, lost.delivery), (LossReason::Refused, Delivery::MaybeSent));
    assert_eq!(lost.status.unwrap(), 409);
    assert_eq!(lost.message.as_deref(), Some("the stream is closed"));
    assert!(lost.error.is_none());
}

#[test]
fn c15_a_lost_batch_holds_the_transports_error_with_its_sources() {
    let (sender, lost) = std::sync::mpsc::channel();
    let builder = Collector::builder().on_lost(move |lost| sender.send(lost.clone()).unwrap());
    let (attempt, attempts) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let state = Mutex::new((0, released));
    let transport =
        move |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
            let mut state = state.lock().unwrap();
            state.0 += 1;
            attempt.send(state.0).unwrap();
            if state.0 > 1 {
                let _ = state.1.recv();
            }
            let error = TransportError::new(TransportErrorKind::Connect, Delivery::NotSent);
            Err(error.with_source("no route to host"))
        };
    let target = Target { api: Api::new("key").unwrap(), transport: Arc::new(transport) };
    let collector = builder.start(target).unwrap();
    collector.collect("clicks", &json!({})).unwrap();
    // When there is a second one, the first has come to an end.
    while attempts.recv().unwrap() < 2 {}
    assert_eq!(collector.stop_within(std::time::Duration::ZERO).lost(), 1);
    let lost = lost.recv().unwrap();
    assert_eq!((lost.reason, lost.delivery), (LossReason::Stopped, Delivery::MaybeSent));
    assert_eq!((lost.status, lost.message), (None, None));
    let error = lost.error.expect("the attempt failed");
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "no route to host");
    drop(release);
}
