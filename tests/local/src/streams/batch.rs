//! The events of one request for one stream: checked, stamped and laid out as they are kept and
//! sent on, before anything is stored.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::event::{self, Id};
use super::stamp::{self, EventId, Ids};

/// What follows every event.
pub(crate) const DELIMITER: &[u8] = b"\r\n";

/// Why events were not taken. `Display` is what the client gets to read.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// The events are not what they should be.
    Bad(String),
    /// With their stamps they are larger than a request may be.
    TooLarge { limit: usize },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why),
            Self::TooLarge { limit } => write!(f, "the events take more than {limit} bytes"),
        }
    }
}

/// One event of a batch.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where its text ends, delimiter included; it starts where the one before it ends.
    pub(crate) end: usize,
    pub(crate) id: EventId,
}

/// Events in order. The text of each is followed by [`DELIMITER`], so that a run of events can be
/// sent to a subscriber as it lies in memory.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) text: Bytes,
    pub(crate) records: Vec<Record>,
}

impl Batch {
    /// Reads `json`, one event or an array of them, and stamps those that need it. The stamped
    /// text may take `limit` bytes: it is a bound of its own, because `{}` becomes 100 bytes.
    pub(crate) fn read(json: &str, ids: &Ids, now: &str, limit: usize) -> Result<Self, BatchError> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        let mut draft = Draft { ids, now, limit, text: Vec::new(), records: Vec::new() };
        match json.as_bytes().first() {
            Some(b'{') => {
                draft.text.reserve(json.len() + 100);
                draft.push(json, None)?;
            }
            Some(b'[') => {
                draft.text.reserve((4 * json.len()).min(limit));
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
        draft.text.shrink_to_fit();
        Ok(Self { text: draft.text.into(), records: draft.records })
    }

    pub(crate) fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.records[before].end)
    }

    /// The text of event `index`, without its delimiter.
    pub(crate) fn event(&self, index: usize) -> &[u8] {
        &self.text[self.start(index)..self.records[index].end - DELIMITER.len()]
    }

    /// The same batch without the events that `keep` answers `false` to, asked in order.
    pub(crate) fn retain(self, mut keep: impl FnMut(&Record) -> bool) -> Self {
        let kept: Vec<bool> = self.records.iter().map(&mut keep).collect();
        if kept.iter().all(|kept| *kept) {
            return self;
        }
        // The text is copied, so that a batch of many known events does not keep them all.
        let (mut text, mut records, mut start) = (Vec::new(), Vec::new(), 0);
        for (record, kept) in self.records.into_iter().zip(kept) {
            let end = record.end;
            if kept {
                text.extend_from_slice(&self.text[start..end]);
                records.push(Record { end: text.len(), id: record.id });
            }
            start = end;
        }
        Self { text: text.into(), records }
    }
}

struct Draft<'a> {
    ids: &'a Ids,
    now: &'a str,
    limit: usize,
    text: Vec<u8>,
    records: Vec<Record>,
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
        let reserved = event::read(event).map_err(|error| at(format_args!("bad JSON: {error}")))?;
        if let Some(timestamp) = &reserved.timestamp
            && !stamp::is_timestamp(timestamp)
        {
            return Err(at(format_args!("$timestamp is not a time as in 2015-05-05T23:40:27Z")));
        }

        let start = self.text.len();
        self.text.extend_from_slice(&event.as_bytes()[..event.len() - 1]);
        // A line break in JSON can only be white space between tokens: without it every event
        // keeps to its line.
        if memchr::memchr2(b'\r', b'\n', event.as_bytes()).is_some() {
            for byte in &mut self.text[start..] {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
        let mut comma = if reserved.empty { "" } else { "," };
        if reserved.timestamp.is_none() {
            for part in [comma, r#""$timestamp":""#, self.now, "\""] {
                self.text.extend_from_slice(part.as_bytes());
            }
            comma = ",";
        }
        let id = match reserved.id {
            Some(Id::Text(text)) => self.ids.recognise(&text),
            Some(Id::Unsigned(number)) => EventId::Unsigned(number),
            Some(Id::Negative(number)) => EventId::Negative(number),
            None => {
                self.text.extend_from_slice(comma.as_bytes());
                self.text.extend_from_slice(br#""$id":""#);
                let id = self.ids.give(&mut self.text);
                self.text.push(b'"');
                id
            }
        };
        self.text.push(b'}');
        self.text.extend_from_slice(DELIMITER);
        if self.text.len() > self.limit {
            return Err(BatchError::TooLarge { limit: self.limit });
        }
        self.records.push(Record { end: self.text.len(), id });
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

/// Reads the body of `POST /collect`: what is under each key, in order.
pub(crate) fn read_map(json: &str) -> Result<Vec<(String, &RawValue)>, BatchError> {
    struct MapVisitor;
    impl<'de> Visitor<'de> for MapVisitor {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of streams, each with an event or an array of events")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    (&mut deserializer)
        .deserialize_map(MapVisitor)
        .and_then(|entries| deserializer.end().map(|()| entries))
        .map_err(|error| BatchError::Bad(format!("bad JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2015-05-05T23:40:27.000000Z";

    fn read(json: &str) -> Result<Vec<String>, BatchError> {
        let batch = Batch::read(json, &Ids::new(), NOW, 10_000)?;
        Ok((0..batch.records.len())
            .map(|index| String::from_utf8(batch.event(index).to_vec()).unwrap())
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
    fn retaining_some_leaves_their_text_as_it_was() {
        let ids = Ids::new();
        let json = r#"[{"$id":1},{"$id":2},{"$id":3}]"#;
        let batch = Batch::read(json, &ids, NOW, 1000).unwrap();
        let (first, last) = (batch.event(0).to_vec(), batch.event(2).to_vec());
        let batch = batch.retain(|record| record.id != EventId::Unsigned(2));
        assert_eq!(batch.records.len(), 2);
        assert_eq!((batch.event(0), batch.event(1)), (&first[..], &last[..]));
    }
}
