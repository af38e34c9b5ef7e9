//! The transport swapped for the mock.

use outside_mocked::record_click;
use serde_json::json;
use stride_blocking::{Error, Stride};
use stride_collector::Collector;
use stride_core::mock::Mock;

#[test]
fn a_click_is_recorded() -> Result<(), Error> {
    let mock = Mock::new();
    mock.post("/collect/clicks").reply(200);
    let stride = Stride::builder("key").transport(mock.transport()).build()?;
    record_click(&stride, 3)?;
    assert_eq!(mock.requests()[0].json(), Some(&json!({"x": 3})));
    Ok(())
}

#[test]
fn a_refusal_is_an_error() -> Result<(), Error> {
    let mock = Mock::new();
    mock.post("/collect/clicks").reply(401);
    let stride = Stride::builder("key").transport(mock.transport()).build()?;
    assert!(record_click(&stride, 3).unwrap_err().to_string().contains("401"));
    Ok(())
}

#[test]
fn a_collector_works_over_it() -> Result<(), Box<dyn std::error::Error>> {
    let mock = Mock::new();
    mock.accept_events();
    let stride = Stride::builder("key").transport(mock.transport()).build()?;
    let collector = Collector::start(&stride)?;
    collector.collect("clicks", &json!({"x": 3}))?;
    let report = collector.stop();
    assert_eq!(report.delivered, 1, "{report}");
    assert_eq!(mock.collected("clicks"), [json!({"x": 3})]);
    Ok(())
}
