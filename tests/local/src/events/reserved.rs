//! Reading one event without building it: is it a whole and sound JSON object, and which of the
//! reserved keys does it have? Which keys does it have at all, and with what kind of value?
//!
//! Events are kept and sent on as text. So that every reader can parse them, the text is
//! checked as strictly as parsing it into a `serde_json::Value` would: strings hold no lone
//! surrogates, numbers are in range, nesting stays below 128.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::keys::{Keys, Kinds};

/// What one event says about itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reserved<'a> {
    pub(crate) id: Option<Id<'a>>,
    /// The `$timestamp` as JSON, which lies in the text of the event. It need not be a time.
    pub(crate) timestamp: Option<&'a str>,
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

/// Reads `text`, which must be one JSON object and nothing else, and notes its keys.
pub(crate) fn read<'a>(text: &'a str, keys: &mut Keys) -> Result<Reserved<'a>, serde_json::Error> {
    keys.start_event();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let reserved = (&mut deserializer).deserialize_map(ReservedVisitor { keys })?;
    deserializer.end()?;
    Ok(reserved)
}

struct ReservedVisitor<'k> {
    keys: &'k mut Keys,
}

impl<'de> Visitor<'de> for ReservedVisitor<'_> {
    type Value = Reserved<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut reserved = Reserved { empty: true, ..Reserved::default() };
        while let Some((key, place)) = map.next_key_seed(KeySeed { keys: &mut *self.keys })? {
            reserved.empty = false;
            let kinds = match key {
                Key::Id if reserved.id.is_some() => return Err(Error::duplicate_field("$id")),
                Key::Id => {
                    let id = reserved.id.insert(map.next_value()?);
                    if matches!(id, Id::Text(_)) { Kinds::TEXT } else { Kinds::NUMBER }
                }
                Key::Timestamp if reserved.timestamp.is_some() => {
                    return Err(Error::duplicate_field("$timestamp"));
                }
                Key::Timestamp => {
                    reserved.timestamp = Some(map.next_value::<&RawValue>()?.get());
                    Kinds::TEXT
                }
                Key::Other => map.next_value::<Sound>()?.0,
            };
            self.keys.note(place, kinds);
        }
        Ok(reserved)
    }
}

enum Key {
    Id,
    Timestamp,
    Other,
}

/// Reads a key, and finds its place among those of the batch.
struct KeySeed<'k> {
    keys: &'k mut Keys,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = (Key, Option<usize>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = (Key, Option<usize>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let place = self.keys.place(key);
        Ok(match key {
            "$id" => (Key::Id, place),
            "$timestamp" => (Key::Timestamp, place),
            _ => (Key::Other, place),
        })
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

/// Any value that could be parsed in full. [`serde::de::IgnoredAny`] only follows the grammar: it takes
/// numbers that no number type can hold, strings that are no Unicode and any depth of nesting.
struct Sound(Kinds);

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
        Ok(Sound(Kinds::NULL))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound(Kinds::BOOLEAN))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound(Kinds::NUMBER))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound(Kinds::NUMBER))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound(Kinds::NUMBER))
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound(Kinds::TEXT))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sound, A::Error> {
        while let Some(Sound(_)) = seq.next_element()? {}
        Ok(Sound(Kinds::JSON))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sound, A::Error> {
        while let Some((Sound(_), Sound(_))) = map.next_entry()? {}
        Ok(Sound(Kinds::JSON))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reserved<'_>, serde_json::Error> {
        super::read(text, &mut Keys::default())
    }

    #[test]
    fn reserved_keys_are_found_wherever_they_stand() {
        let text =
            r#"{"a": {"$id": 1}, "$id": "x\u0041", "b": [1.5, null], "\u0024timestamp": "t"}"#;
        let reserved = read(text).unwrap();
        assert_eq!(reserved.id, Some(Id::Text("xA".into())));
        assert_eq!(reserved.timestamp, Some(r#""t""#));
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
            r#"{"$timestamp": 5, "$timestamp": 6}"#,
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
