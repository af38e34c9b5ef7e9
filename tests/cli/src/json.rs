//! JSON as text: values keep every digit, and keys their order.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The keys and values of an object, in their order.
#[derive(Debug)]
pub(crate) struct Row<'t>(pub(crate) Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Row<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row<'de>, A::Error> {
                let mut row = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    row.push((key, map.next_value()?));
                }
                Ok(Row(row))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'t>(#[serde(borrow)] Cow<'t, str>);

/// The same value without line breaks, which JSON has only between its tokens.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

/// A value in a table: texts without quotes and escapes, and nothing for `null`.
pub(crate) fn for_people(value: &str) -> Cow<'_, str> {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map_or(value.into(), Cow::<str>::Owned),
        Some(b'n') => "".into(),
        _ => on_one_line(value),
    }
}

/// Colours keys and strings of a JSON text, for a terminal.
pub(crate) fn coloured(text: &str) -> String {
    const KEY: &str = "\x1b[36m";
    const STRING: &str = "\x1b[32m";
    const END: &str = "\x1b[0m";
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let (before, string) = rest.split_at(start);
        let mut is_escaped = false;
        let end = string[1..].find(|c: char| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        let (string, after) = string.split_at(end.map_or(string.len(), |end| end + 2));
        let is_key = after.trim_start().starts_with(':');
        out.extend([before, if is_key { KEY } else { STRING }, string, END]);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_order_and_digits() {
        let row: Row<'_> =
            serde_json::from_str(r#"{"b":12345678901234567890123,"a\u0041":1.50}"#).unwrap();
        let row: Vec<_> = row.0.iter().map(|(key, value)| (&**key, value.get())).collect();
        assert_eq!(row, [("b", "12345678901234567890123"), ("aA", "1.50")]);
    }

    #[test]
    fn keys_and_strings_have_colours() {
        assert_eq!(
            coloured(r#"{"a\"": "b\\", "c": 1}"#),
            "{\x1b[36m\"a\\\"\"\x1b[0m: \x1b[32m\"b\\\\\"\x1b[0m, \x1b[36m\"c\"\x1b[0m: 1}"
        );
        assert_eq!(coloured("[\"cut"), "[\x1b[32m\"cut\x1b[0m");
    }

    #[test]
    fn a_table_shows_texts_as_they_are() {
        assert_eq!(for_people(r#""a\"b""#), "a\"b");
        assert_eq!(for_people("null"), "");
        assert_eq!(for_people("{\n\"a\": 1}"), "{ \"a\": 1}");
    }
}
