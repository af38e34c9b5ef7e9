//! The events of one request for one stream: checked, stamped and laid out as they are kept and
//! sent on, before anything is stored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ids::{self, EventId};
use super::keys::{Keys, Kinds};
use super::reserved::{self, Id};
use super::timestamp::{self, Timestamp};
use crate::subscribers::records::DELIMITER;

/// The largest event, in bytes: what a query can still read with room to spare.
pub(crate) const LARGEST_EVENT: usize = 2 * 1024 * 1024;

/// Why events were not taken. `Display` is what the client gets to read.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// The events are not what they should be.
    Bad(String),
    /// They are for a stream that their author may not write to.
    Forbidden(String),
    /// With their stamps they are larger than a request may be.
    TooLarge { limit: usize },
    /// There are more of them than a request may have.
    TooMany { most: usize },
    /// One of them is larger than an event may be.
    LargeEvent { size: usize },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why),
            Self::Forbidden(stream) => write!(f, "the open key may not write to {stream:?}"),
            Self::TooLarge { limit } => write!(f, "the events take more than {limit} bytes"),
            Self::TooMany { most } => write!(f, "there are more than {most} events in the request"),
            Self::LargeEvent { size } => {
                write!(f, "an event has {size} bytes; the most is {LARGEST_EVENT}")
            }
        }
    }
}

/// Where the `$id` of an event stands that was given one: this far before its end, as 32 characters.
/// The engine writes it when it knows the event's place in its stream.
pub(crate) const GIVEN_ID: std::ops::Range<usize> = {
    let after = r#""}"#.len() + DELIMITER.len();
    after..after + ids::ID
};

/// Events in order, each with its delimiter.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) records: Vec<Record>,
    pub(crate) keys: Keys,
}

/// One event of a batch.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where its text ends, delimiter included; it starts where the one before it ends.
    pub(crate) end: usize,
    /// The `$id` that it came with. `None`: it is to be given one, at [`GIVEN_ID`].
    pub(crate) id: Option<EventId>,
    /// Its `$timestamp`, in microseconds since 1970.
    pub(crate) at: i64,
}

impl Batch {
    /// Reads `json`, one event or an array of them, and stamps those that need it. The stamped
    /// text may take `limit` bytes, apart from the limit on what was sent, because `{}` becomes 100 bytes; there
    /// may be `most` events.
    pub(crate) fn read(
        json: &str,
        now: &str,
        limit: usize,
        most: usize,
    ) -> Result<Self, BatchError> {
        let mut batch = Self::default();
        batch.add(json, now, limit, most)?;
        batch.text.shrink_to_fit();
        Ok(batch)
    }

    /// Reads more events into a batch. After an error it is empty.
    pub(crate) fn add(
        &mut self,
        json: &str,
        now: &str,
        limit: usize,
        most: usize,
    ) -> Result<(), BatchError> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        let limit = self.text.len().saturating_add(limit);
        let most = self.records.len().saturating_add(most);
        let now_micros = timestamp::parse(now).map_or(i64::MAX, timestamp::micros);
        let mut draft = Draft { now, now_micros, limit, most, batch: std::mem::take(self) };
        match json.as_bytes().first() {
            Some(b'{') => {
                draft.batch.text.reserve(json.len() + 100);
                draft.push(json, None)?;
            }
            Some(b'[') => {
                draft.batch.text.reserve((4 * json.len()).min(limit));
                draft.read_array(json)?;
            }
            Some(_) => {
                let json = serde_json::from_str::<serde::de::IgnoredAny>(json);
                return Err(BatchError::Bad(match json {
                    Ok(_) => "expected an event, which is an object, or an array of events".into(),
                    Err(error) => format!("bad JSON: {error}"),
                }));
            }
            None => return Err(BatchError::Bad("bad JSON: the body is empty".into())),
        }
        *self = draft.batch;
        Ok(())
    }
}

struct Draft<'a> {
    now: &'a str,
    now_micros: i64,
    limit: usize,
    most: usize,
    batch: Batch,
}

impl Draft<'_> {
    fn read_array(&mut self, json: &str) -> Result<(), BatchError> {
        let mut failed = None;
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = Events { draft: self, failed: &mut failed }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match (failed, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(BatchError::Bad(format!("bad JSON: {error}"))),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Adds one event; `place` is its place in the array it came in.
    fn push(&mut self, event: &str, place: Option<usize>) -> Result<(), BatchError> {
        let at = |why: fmt::Arguments<'_>| {
            BatchError::Bad(place.map_or_else(
                || why.to_string(),
                |place| format!("event {place} of the array: {why}"),
            ))
        };
        if !event.starts_with('{') {
            return Err(at(format_args!("an event must be an object")));
        }
        if self.batch.records.len() >= self.most {
            return Err(BatchError::TooMany { most: self.most });
        }
        if event.len() > LARGEST_EVENT {
            return Err(BatchError::LargeEvent { size: event.len() });
        }
        let Batch { text, records, keys } = &mut self.batch;
        let reserved =
            reserved::read(event, keys).map_err(|error| at(format_args!("bad JSON: {error}")))?;
        let (at_micros, rewritten) = match reserved.timestamp.map(Timestamp::read) {
            Some(None) => {
                return Err(at(format_args!(
                    "$timestamp is not a time as in 2015-05-05T23:40:27Z, nor milliseconds since 1970"
                )));
            }
            Some(Some(Timestamp { at, rewritten })) => (at, reserved.timestamp.zip(rewritten)),
            None => (self.now_micros, None),
        };

        let start = text.len();
        match rewritten {
            Some((sent, utc)) => {
                let from = sent.as_ptr().addr() - event.as_ptr().addr();
                text.extend_from_slice(&event.as_bytes()[..from]);
                for part in ["\"", &utc, "\"", &event[from + sent.len()..event.len() - 1]] {
                    text.extend_from_slice(part.as_bytes());
                }
            }
            None => text.extend_from_slice(&event.as_bytes()[..event.len() - 1]),
        }
        // A line break in JSON can only be white space between tokens: without it every event
        // keeps to its line.
        if memchr::memchr2(b'\r', b'\n', event.as_bytes()).is_some() {
            for byte in &mut text[start..] {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
        let mut comma = if reserved.empty { "" } else { "," };
        if reserved.timestamp.is_none() {
            for part in [comma, r#""$timestamp":""#, self.now, "\""] {
                text.extend_from_slice(part.as_bytes());
            }
            comma = ",";
            let place = keys.place("$timestamp");
            keys.note(place, Kinds::OTHER);
        }
        let id = match reserved.id {
            Some(Id::Text(text)) => Some(EventId::Text(text.into())),
            Some(Id::Unsigned(number)) => Some(EventId::Unsigned(number)),
            Some(Id::Negative(number)) => Some(EventId::Negative(number)),
            None => {
                text.extend_from_slice(comma.as_bytes());
                text.extend_from_slice(br#""$id":""#);
                text.extend_from_slice(&[b'0'; ids::ID]);
                text.push(b'"');
                let place = keys.place("$id");
                keys.note(place, Kinds::OTHER);
                None
            }
        };
        text.push(b'}');
        text.extend_from_slice(DELIMITER);
        if text.len() > self.limit {
            return Err(BatchError::TooLarge { limit: self.limit });
        }
        records.push(Record { end: text.len(), id, at: at_micros });
        Ok(())
    }
}

/// Takes the events of an array one by one, so that a body of millions of tiny ones meets the
/// limit before it has cost a list of them all.
struct Events<'a, 'd> {
    draft: &'a mut Draft<'d>,
    failed: &'a mut Option<BatchError>,
}

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut place = 0;
        while let Some(event) = seq.next_element::<&RawValue>()? {
            if let Err(error) = self.draft.push(event.get(), Some(place)) {
                *self.failed = Some(error);
                return Err(A::Error::custom("an event was refused"));
            }
            place += 1;
        }
        Ok(())
    }
}

/// Reads the body of `POST /collect` and hands over what is under each key, in order: a body of millions of keys
/// must not cost a list of them.
pub(crate) fn read_map(
    json: &str,
    take: impl FnMut(&str, &str) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    struct MapVisitor<'f, F> {
        take: F,
        failed: &'f mut Option<BatchError>,
    }
    impl<'de, F: FnMut(&str, &str) -> Result<(), BatchError>> Visitor<'de> for MapVisitor<'_, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of streams, each with an event or an array of events")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((name, events)) = map.next_entry::<Cow<'de, str>, &RawValue>()? {
                if let Err(error) = (self.take)(&name, events.get()) {
                    *self.failed = Some(error);
                    return Err(A::Error::custom("a stream was refused"));
                }
            }
            Ok(())
        }
    }
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = (&mut deserializer)
        .deserialize_map(MapVisitor { take, failed: &mut failed })
        .and_then(|()| deserializer.end());
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(BatchError::Bad(format!("bad JSON: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2015-05-05T23:40:27.000000Z";

    fn read(json: &str) -> Result<Vec<String>, BatchError> {
        let batch = Batch::read(json, NOW, 10_000, 1000)?;
        let mut start = 0;
        Ok(batch
            .records
            .iter()
            .map(|record| {
                let event = &batch.text[start..record.end];
                start = record.end;
                String::from_utf8(event.strip_suffix(DELIMITER).unwrap().to_vec()).unwrap()
            })
            .collect())
    }

    #[test]
    fn stamps_are_added_where_they_lack_and_nothing_else_changes() {
        let events = read(
            r#" [{"a" : 1.50}, {"$id":"x"}, {"$timestamp":"2015-05-05T23:40:27Z"},
            {}, {"$id":1,"$timestamp":"2015-05-05T23:40:27Z"}] "#,
        )
        .unwrap();
        assert!(
            events[0].starts_with(r#"{"a" : 1.50,"$timestamp":"2015-05-05T23:40:27.000000Z","#)
        );
        assert_eq!(events[1], format!(r#"{{"$id":"x","$timestamp":"{NOW}"}}"#));
        assert!(events[2].starts_with(r#"{"$timestamp":"2015-05-05T23:40:27Z","$id":""#));
        assert!(events[3].starts_with(&format!(r#"{{"$timestamp":"{NOW}","$id":""#)));
        assert_eq!(events[4], r#"{"$id":1,"$timestamp":"2015-05-05T23:40:27Z"}"#);
        for event in events {
            serde_json::from_str::<serde_json::Value>(&event).unwrap();
        }
    }

    #[test]
    fn p1_a_time_in_another_form_is_kept_as_rfc3339() {
        let events = read(
            r#"[{"a":1,"$timestamp": "2015-05-05 23:40:27.123456" ,"b":2},{"$timestamp":1430869227123}]"#,
        )
        .unwrap();
        let first = r#"{"a":1,"$timestamp": "2015-05-05T23:40:27.123456Z" ,"b":2,"$id":""#;
        assert!(events[0].starts_with(first), "{}", events[0]);
        let second = r#"{"$timestamp":"2015-05-05T23:40:27.123000Z","$id":""#;
        assert!(events[1].starts_with(second), "{}", events[1]);
    }

    #[test]
    fn an_event_keeps_to_one_line() {
        let events = read("{\r\n  \"a\":\n 1\n}\n").unwrap();
        assert!(events[0].starts_with(r#"{    "a":  1 ,"#), "{}", events[0]);
        assert!(!events[0].contains(['\r', '\n']));
    }

    #[test]
    fn errors_say_what_and_where() {
        let bad = |json| read(json).unwrap_err().to_string();
        assert_eq!(bad("[{}, 5]"), "event 1 of the array: an event must be an object");
        assert_eq!(bad("5"), "expected an event, which is an object, or an array of events");
        assert!(bad("nope").starts_with("bad JSON: "));
        assert!(bad("[{}").starts_with("bad JSON: "));
        assert!(bad("[{}] x").starts_with("bad JSON: "));
        assert!(bad("").starts_with("bad JSON: "));
        assert!(bad(r#"{"$timestamp": "noon"}"#).starts_with("$timestamp is not a time"));
        let many = format!("[{}{{}}]", "{},".repeat(500));
        assert!(matches!(read(&many), Err(BatchError::TooLarge { limit: 10_000 })));
    }

    #[test]
    fn an_id_that_was_given_stands_where_it_is_said_to() {
        let batch = Batch::read("{}", NOW, 1000, 1).unwrap();
        let end = batch.text.len();
        let id = &batch.text[end - GIVEN_ID.end..end - GIVEN_ID.start];
        assert_eq!(id, [b'0'; ids::ID]);
        assert!(batch.text[..end - GIVEN_ID.end].ends_with(br#""$id":""#));
    }

    #[test]
    fn stamps_are_keys_too() {
        let batch = Batch::read(r#"[{"a": true}, {"b": null, "a": false}]"#, NOW, 1000, 2).unwrap();
        let keys: Vec<_> = batch.keys.iter().collect();
        let expected = [
            ("a", Kinds::BOOLEAN),
            ("$timestamp", Kinds::OTHER),
            ("$id", Kinds::OTHER),
            ("b", Kinds::NULL),
        ];
        assert_eq!(keys, expected);
    }
}
