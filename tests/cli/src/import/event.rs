//! What becomes of a line.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::value::RawValue;
use stride_blocking::Event;

use crate::json::Row;

/// Makes the `$id` of events that have none: the same for the same line of the same import.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    prefix: String,
}

impl Ids {
    pub(super) fn new(import: &str) -> Self {
        // FNV-1a, which will be the same in every version of this program.
        let hash = import.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { prefix: format!("import-{hash:016x}-") }
    }

    fn of(&self, line: u64) -> String {
        format!("{}{line}", self.prefix)
    }

    /// The line that an event of this import came from, unless it had an `$id` before.
    pub(super) fn line(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.prefix)?.parse().ok()
    }
}

/// The event in a line, with an `$id`. It may be written to `scratch`. Errors say what is wrong with the line.
pub(super) fn prepare<'t>(
    line: &'t str,
    number: u64,
    ids: &Ids,
    scratch: &'t mut String,
) -> Result<&'t RawValue, String> {
    scratch.clear();
    let Some(rest) = line.trim_start().strip_prefix('{') else {
        let value: Result<&RawValue, _> = serde_json::from_str(line);
        return Err(value.map_or_else(invalid, |_| "an event must be a JSON object".to_owned()));
    };
    // A key may be written with escapes.
    let has_reserved = memchr::memmem::find(rest.as_bytes(), b"\"$").is_some()
        || memchr::memmem::find(rest.as_bytes(), b"\\u0024").is_some();
    if has_reserved {
        return with_reserved(line, number, ids, scratch);
    }
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    // Writing to a string cannot fail.
    let _ = write!(scratch, "{{\"$id\":\"{}{number}\"{comma}{rest}", ids.prefix);
    let event: &RawValue = serde_json::from_str(scratch).map_err(|_| {
        // As it was, so that the column is right.
        serde_json::from_str::<&RawValue>(line).err().map_or_else(String::new, invalid)
    })?;
    Ok(event)
}

/// An event that may have an `$id` or a `$timestamp`: one that is bad would have the server refuse all that are sent
/// with it.
fn with_reserved<'t>(
    line: &'t str,
    number: u64,
    ids: &Ids,
    scratch: &'t mut String,
) -> Result<&'t RawValue, String> {
    let value: &RawValue = serde_json::from_str(line).map_err(invalid)?;
    let Row(row) = serde_json::from_str(line).map_err(invalid)?;
    let event = Event::new(value);
    let event = match row.iter().any(|(key, _): &(Cow<'_, str>, _)| key == "$id") {
        true => event,
        false => event.id(ids.of(number)),
    };
    *scratch = serde_json::to_string(&event).map_err(|error| without_place(&error))?;
    serde_json::from_str(scratch).map_err(invalid)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn invalid(error: serde_json::Error) -> String {
    format!("not valid JSON: {} at column {}", without_place(&error), error.column())
}

/// The line is always the first; that of the file is told besides.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> Result<String, String> {
        let ids = Ids { prefix: "i-".to_owned() };
        prepare(line, 7, &ids, &mut String::new()).map(|event| event.get().to_owned())
    }

    #[test]
    fn an_event_without_an_id_gets_one_and_stays_as_it_is() {
        assert_eq!(
            event(" {\"a\": 12345678901234567890123, \"b\":1.50 } "),
            Ok("{\"$id\":\"i-7\",\"a\": 12345678901234567890123, \"b\":1.50 }".to_owned())
        );
        assert_eq!(event("{ }"), Ok("{\"$id\":\"i-7\" }".to_owned()));
        assert_eq!(
            event("{\"price\":\"$5\"}"),
            Ok("{\"price\":\"$5\",\"$id\":\"i-7\"}".to_owned())
        );
    }

    #[test]
    fn an_id_stays_however_it_is_written() {
        for line in [r#"{"$id":"x","n":1.0}"#, r#"{"n":1.0,"\u0024id":"x"}"#] {
            let event: serde_json::Value = serde_json::from_str(&event(line).unwrap()).unwrap();
            assert_eq!(event, serde_json::json!({"$id": "x", "n": 1.0}), "{line}");
        }
        let inner = event(r#"{"a":{"$id":"x"}}"#).unwrap();
        assert_eq!(inner, r#"{"a":{"$id":"x"},"$id":"i-7"}"#);
    }

    #[test]
    fn a_bad_line_says_where_it_is_bad() {
        for (line, why) in [
            ("{\"a\": tru}", "not valid JSON: expected ident at column 10"),
            ("{\"a\": 1", "not valid JSON: EOF while parsing an object at column 7"),
            ("{\"a\": 1} x", "not valid JSON: trailing characters at column 10"),
            ("[1]", "an event must be a JSON object"),
            ("nul", "not valid JSON: EOF while parsing a value at column 3"),
        ] {
            assert_eq!(event(line), Err(why.to_owned()), "{line}");
        }
        assert!(event(r#"{"$timestamp":"soon"}"#).unwrap_err().contains("$timestamp"));
        assert!(event(r#"{"$id":""}"#).unwrap_err().contains("$id"));
    }

    #[test]
    fn a_line_is_found_by_its_id() {
        let ids = Ids::new("a file");
        assert_eq!(ids.line(&ids.of(42)), Some(42));
        assert_eq!(Ids::new("another").line(&ids.of(42)), None);
        // It must never change: it would import again what is there.
        assert_eq!(ids.of(1), "import-1cdcf958bf579592-1");
    }
}
