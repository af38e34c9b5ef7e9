use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::*;

#[derive(Serialize)]
struct Click {
    x: u32,
}

fn text<T: Serialize>(payload: T) -> Result<String, String> {
    serde_json::to_string(&Event::new(payload).id("a")).map_err(|error| error.to_string())
}

fn bare<T: Serialize>(payload: T) -> Result<String, String> {
    serde_json::to_string(&Event::new(payload)).map_err(|error| error.to_string())
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

#[test]
fn keys_that_are_not_set_are_not_written() {
    assert_eq!(bare(Click { x: 1 }).unwrap(), r#"{"x":1}"#);
    assert_eq!(bare(json!({})).unwrap(), "{}");
    assert_eq!(bare(raw("{}")).unwrap(), "{}");
}

#[test]
fn times_before_1970_and_below_a_second_are_kept() {
    for (time, text) in [
        (UNIX_EPOCH - Duration::from_secs(1), "1969-12-31T23:59:59Z"),
        (UNIX_EPOCH + Duration::from_micros(1_500_000), "1970-01-01T00:00:01.5Z"),
    ] {
        let event = Event::new(json!({})).timestamp(time);
        assert_eq!(serde_json::to_value(&event).unwrap()["$timestamp"], text);
    }
}

#[test]
fn a_time_that_cannot_be_written_is_an_error_and_no_panic() {
    for time in [
        UNIX_EPOCH + Duration::from_secs(1 << 40),
        // The last second before the year 0.
        UNIX_EPOCH - Duration::from_secs(62_167_219_201),
    ] {
        let event = Event::new(json!({})).timestamp(time);
        assert!(serde_json::to_string(&event).is_err());
    }
}

#[test]
fn n3_whatever_is_an_object_is_a_payload() {
    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        click: Click,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }
    #[derive(Serialize)]
    struct Newtype(Click);
    #[derive(Serialize)]
    enum Outside {
        Newtype(Click),
        Struct { x: u32, y: Option<u32> },
        Tuple(u32, u32),
    }
    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Inside {
        Unit,
        Newtype(Click),
        Struct { x: u32 },
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        Newtype(Click),
    }
    #[derive(Serialize)]
    struct Empty {}

    let x = || BTreeMap::from([("x", 1)]);
    let with_id = |fields: &str| Ok(format!("{{{fields},\"$id\":\"a\"}}"));
    assert_eq!(text(Click { x: 1 }), with_id(r#""x":1"#));
    let click: &&Click = &&Click { x: 1 };
    assert_eq!(text(click), with_id(r#""x":1"#));
    assert_eq!(text(Box::new(Click { x: 1 })), with_id(r#""x":1"#));
    assert_eq!(text(Some(Some(Click { x: 1 }))), with_id(r#""x":1"#));
    assert_eq!(text(x()), with_id(r#""x":1"#));
    assert_eq!(text(HashMap::from([(7, 1)])), with_id(r#""7":1"#));
    assert_eq!(text(json!({"x": {"$id": null}})), with_id(r#""x":{"$id":null}"#));
    let flat = Flat { click: Click { x: 1 }, rest: BTreeMap::from([("y".to_owned(), 2)]) };
    assert_eq!(text(flat), with_id(r#""x":1,"y":2"#));
    assert_eq!(text(Newtype(Click { x: 1 })), with_id(r#""x":1"#));
    assert_eq!(text(Outside::Newtype(Click { x: 1 })), with_id(r#""Newtype":{"x":1}"#));
    let fields = Outside::Struct { x: 1, y: None };
    assert_eq!(text(fields), with_id(r#""Struct":{"x":1,"y":null}"#));
    assert_eq!(text(Outside::Tuple(1, 2)), with_id(r#""Tuple":[1,2]"#));
    assert_eq!(text(Inside::Unit), with_id(r#""type":"Unit""#));
    assert_eq!(text(Inside::Newtype(Click { x: 1 })), with_id(r#""type":"Newtype","x":1"#));
    assert_eq!(text(Inside::Struct { x: 1 }), with_id(r#""type":"Struct","x":1"#));
    assert_eq!(text(Untagged::Newtype(Click { x: 1 })), with_id(r#""x":1"#));
    assert_eq!(text(Empty {}), Ok(r#"{"$id":"a"}"#.to_owned()));
    // An event is an object, too; what is outermost counts.
    assert_eq!(text(Event::new(x()).id("b")), with_id(r#""x":1"#));
}

#[test]
fn n3_a_raw_object_gives_its_fields_as_they_are() {
    // What a value would round, reorder or write in another way.
    let fields = r#""z":1.0e2,"a":123456789012345678901234567890,"b":{ "c" : [1, 2] }"#;
    let object = raw(&format!(" {{ {fields} }} "));
    assert_eq!(text(&object), Ok(format!("{{{fields},\"$id\":\"a\"}}")));
    assert_eq!(text(Some(&*object)), Ok(format!("{{{fields},\"$id\":\"a\"}}")));
    assert_eq!(bare(raw(r#"{"\u0061":1,"a":2}"#)).unwrap(), r#"{"a":1,"a":2}"#);
    // By another serializer.
    let value = serde_json::to_value(Event::new(raw(r#"{"x":1}"#)).id("a")).unwrap();
    assert_eq!(value, json!({"x": 1, "$id": "a"}));
    // In an object, a raw value stays what it is.
    let inner = BTreeMap::from([("x", to_raw_value(&[1, 2]).unwrap())]);
    assert_eq!(text(inner).unwrap(), r#"{"x":[1,2],"$id":"a"}"#);
}

#[test]
fn n3_what_is_not_an_object_is_an_error() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Tuple(u32, u32);
    #[derive(Serialize)]
    struct Newtype(u32);
    #[derive(Serialize)]
    enum Kind {
        Unit,
    }

    let not = |what: &str| Err(format!("an event is a JSON object, not {what}"));
    assert_eq!(text(None::<Click>), not("null"));
    assert_eq!(text(Some(None::<Click>)), not("null"));
    assert_eq!(text(()), not("null"));
    assert_eq!(text(Unit), not("null"));
    assert_eq!(text(Kind::Unit), not("a string"));
    assert_eq!(text("{}"), not("a string"));
    assert_eq!(text('a'), not("a string"));
    assert_eq!(text(std::net::Ipv4Addr::LOCALHOST), not("a string"));
    assert_eq!(text(7), not("a number"));
    assert_eq!(text(7_u128), not("a number"));
    assert_eq!(text(7.5), not("a number"));
    assert_eq!(text(json!(7)), not("a number"));
    assert_eq!(text(Newtype(7)), not("a number"));
    assert_eq!(text(true), not("a boolean"));
    assert_eq!(text([Click { x: 1 }]), not("an array"));
    assert_eq!(text(vec![Click { x: 1 }]), not("an array"));
    assert_eq!(text((1, 2)), not("an array"));
    assert_eq!(text(Tuple(1, 2)), not("an array"));
    assert_eq!(text(json!(null)), not("null"));
    for other in ["7", "null", "[]", r#""{}""#] {
        assert!(text(raw(other)).unwrap_err().contains("expected a JSON object"), "{other}");
    }
    // Without an id, too.
    assert_eq!(bare(None::<Click>), not("null"));
}

#[test]
fn n3_an_explicit_key_replaces_that_of_the_payload() {
    #[derive(Serialize)]
    struct Own {
        #[serde(rename = "$id")]
        id: Option<u32>,
        x: u32,
    }
    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    enum Name {
        #[serde(rename = "$id")]
        Id,
    }
    let expected = Ok(r#"{"x":1,"$id":"a"}"#.to_owned());
    assert_eq!(text(Own { id: Some(7), x: 1 }), expected);
    // Even one that would be refused.
    assert_eq!(text(Own { id: None, x: 1 }), expected);
    assert_eq!(text(json!({"$id": 7, "x": 1})), expected);
    assert_eq!(text(raw(r#"{"$id": null, "x":1}"#)), expected);
    assert_eq!(text(raw(r#"{"\u0024id": 1, "x":1}"#)), expected);
    assert_eq!(text(BTreeMap::from([(Name::Id, 1)])).unwrap(), r#"{"$id":"a"}"#);
    let at = UNIX_EPOCH + Duration::from_secs(1);
    let event = Event::new(json!({"$timestamp": "never", "$id": "kept"})).timestamp(at);
    assert_eq!(
        serde_json::to_string(&event).unwrap(),
        r#"{"$id":"kept","$timestamp":"1970-01-01T00:00:01Z"}"#
    );
}

#[test]
fn n3_a_reserved_key_of_the_wrong_kind_is_an_error() {
    for (payload, why) in [
        (json!({"$id": null}), "the $id is neither a string nor an integer"),
        (json!({"$id": 1.5}), "the $id is neither a string nor an integer"),
        (json!({"$id": ""}), "the $id is empty"),
        (json!({"$timestamp": null}), "the $timestamp is not a time"),
        (json!({"$timestamp": "yesterday"}), "the $timestamp is not a time"),
    ] {
        let texts = payload.to_string();
        for result in [bare(&payload), bare(raw(&texts))] {
            let error = result.unwrap_err();
            assert!(error.contains(why), "{payload}: {error}");
        }
    }
    let twice = bare(raw(r#"{"$id": "a", "$id": "b"}"#)).unwrap_err();
    assert!(twice.contains("$id twice"), "{twice}");
    let empty = serde_json::to_string(&Event::new(json!({})).id("")).unwrap_err();
    assert_eq!(empty.to_string(), "the $id is empty");
    // What is right is kept.
    let good = json!({"$id": -7, "$timestamp": "2015-05-05 23:40:27.123456"});
    assert_eq!(bare(&good).unwrap(), good.to_string());
}
