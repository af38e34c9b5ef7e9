//! N3: what is wrong with an event is an error where it is collected, and what is right is stored
//! with its id.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use stride_blocking::Stride;
use stride_collector::Collector;
use stride_core::Event;
use stride_local::Local;
use stride_tests::watchdog;

#[test]
fn n3_a_bad_event_is_an_error_at_the_call_and_takes_no_other_along() {
    watchdog(|| {
        let local = Local::start().unwrap();
        let stride =
            Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build().unwrap();
        let collector = Collector::start(&stride).unwrap();
        let raw: Box<RawValue> = to_raw_value(&json!({"kind": "raw"})).unwrap();

        collector.collect("a", &Event::new(&raw).id("1")).unwrap();
        collector
            .collect("a", &Event::new(json!({"$id": "other", "kind": "own"})).id("2"))
            .unwrap();
        collector
            .collect("a", &Event::new(json!({"$id": "3", "$timestamp": "2015-05-05T23:40:27Z"})))
            .unwrap();
        collector.collect("a", &Event::new(None::<Value>).id("4")).unwrap_err();
        collector.collect("a", &Event::new(()).id("5")).unwrap_err();
        collector.collect("a", &Event::new(json!({"$id": null}))).unwrap_err();
        collector.collect("a", &Event::new(json!({"$timestamp": "soon"})).id("6")).unwrap_err();
        let report = collector.stop();

        assert_eq!((report.accepted, report.delivered, report.lost()), (3, 3, 0), "{report:?}");
        let mut stored: Vec<(String, Value)> = local
            .events("a")
            .unwrap()
            .iter()
            .map(|event| (event["$id"].as_str().unwrap().to_owned(), event["kind"].clone()))
            .collect();
        stored.sort_by(|(a, _), (b, _)| a.cmp(b));
        let expected = [("1", json!("raw")), ("2", json!("own")), ("3", Value::Null)];
        assert_eq!(stored, expected.map(|(id, kind)| (id.to_owned(), kind)));
    });
}
