//! Reading one event without building it: is it a whole and sound JSON object, and which of the
//! reserved keys does it have?
//!
//! Events are kept and sent on as text. So that nobody downstream stumbles over one, the text is
//! checked as strictly as parsing it into a `serde_json::Value` would: strings hold no lone
//! surrogates, numbers are in range, nesting stays below 128.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What one event says about itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reserved<'a> {
    pub(crate) id: Option<Id<'a>>,
    pub(crate) timestamp: Option<Cow<'a, str>>,
    /// It has no key at all, so the first one that is added needs no comma.
    pub(crate) empty: bool,
}

/// An `$id` as it was sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Id<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Negative(i64),
}

/// Reads `text`, which must be one JSON object and nothing else.
pub(crate) fn read(text: &str) -> Result<Reserved<'_>, serde_json::Error> {
    serde_json::from_str(text)
}

impl<'de> Deserialize<'de> for Reserved<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReservedVisitor)
    }
}

struct ReservedVisitor;

impl<'de> Visitor<'de> for ReservedVisitor {
    type Value = Reserved<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut reserved = Reserved { empty: true, ..Reserved::default() };
        while let Some(key) = map.next_key()? {
            reserved.empty = false;
            match key {
                Key::Id if reserved.id.is_some() => return Err(Error::duplicate_field("$id")),
                Key::Id => reserved.id = Some(map.next_value()?),
                Key::Timestamp if reserved.timestamp.is_some() => {
                    return Err(Error::duplicate_field("$timestamp"));
                }
                Key::Timestamp => reserved.timestamp = Some(map.next_value::<Text<'de>>()?.0),
                Key::Other => {
                    map.next_value::<Sound>()?;
                }
            }
        }
        Ok(reserved)
    }
}

enum Key {
    Id,
    Timestamp,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "$id" => Key::Id,
                    "$timestamp" => Key::Timestamp,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Id<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl<'de> Visitor<'de> for IdVisitor {
            type Value = Id<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string that is not empty or an integer as $id")
            }

            fn visit_borrowed_str<E: Error>(self, id: &'de str) -> Result<Id<'de>, E> {
                text_id(Cow::Borrowed(id))
            }

            fn visit_str<E: Error>(self, id: &str) -> Result<Id<'de>, E> {
                text_id(Cow::Owned(id.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Id<'de>, E> {
                Ok(Id::Unsigned(id))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Id<'de>, E> {
                Ok(Id::Negative(id))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

fn text_id<E: Error>(id: Cow<'_, str>) -> Result<Id<'_>, E> {
    // Every event of a program that forgot to fill its ids in would count as the same one.
    if id.is_empty() { Err(E::custom("$id is empty")) } else { Ok(Id::Text(id)) }
}

struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string as $timestamp")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Any value that could be parsed in full. [`serde::de::IgnoredAny`] only follows the grammar: it takes
/// numbers that no number type can hold, strings that are no Unicode and any depth of nesting.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SoundVisitor)
    }
}

struct SoundVisitor;

impl<'de> Visitor<'de> for SoundVisitor {
    type Value = Sound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sound, A::Error> {
        while let Some(Sound) = seq.next_element()? {}
        Ok(Sound)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sound, A::Error> {
        while let Some((Sound, Sound)) = map.next_entry()? {}
        Ok(Sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_found_wherever_they_stand() {
        let text =
            r#"{"a": {"$id": 1}, "$id": "x\u0041", "b": [1.5, null], "\u0024timestamp": "t"}"#;
        let reserved = read(text).unwrap();
        assert_eq!(reserved.id, Some(Id::Text("xA".into())));
        assert_eq!(reserved.timestamp.as_deref(), Some("t"));
        assert!(!reserved.empty);
        assert_eq!(read(r#"{"$id": 7}"#).unwrap().id, Some(Id::Unsigned(7)));
        assert_eq!(read(r#"{"$id": -7}"#).unwrap().id, Some(Id::Negative(-7)));
        assert!(read("{ }").unwrap().empty);
    }

    #[test]
    fn what_no_reader_could_parse_is_refused() {
        let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
        for bad in [
            r#"{"a": "\ud800"}"#,
            r#"{"a": 1e999}"#,
            r#"{"a": 01}"#,
            r#"{"a": [1,]}"#,
            r#"{"a": 1} x"#,
            r#"{"$id": null}"#,
            r#"{"$id": ""}"#,
            r#"{"$id": 1.5}"#,
            r#"{"$id": 1, "$id": 2}"#,
            r#"{"$timestamp": 5}"#,
            "[1]",
            "",
            &deep,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_serde_json_can_hold_is_taken() {
        for good in [
            "{}",
            r#"{"a": "\ud83d\ude00 ü"}"#,
            r#"{"a": [[], {}, [{"b": -1.5e-7}], true, false, null, 18446744073709551615]}"#,
        ] {
            assert!(read(good).is_ok(), "{good}");
            assert!(serde_json::from_str::<serde_json::Value>(good).is_ok());
        }
    }
}
