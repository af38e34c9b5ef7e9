//! Gives events an id and a time of their own, once, where they are collected.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::encode::Local;

/// How much longer a stamp makes an event at most, in bytes: some 75 for the id and 50 for the time.
pub(crate) const LONGEST: usize = 128;

/// What ids of one collector begin with.
#[derive(Debug)]
pub(crate) struct Stamp {
    prefix: [u64; 2],
}

impl Stamp {
    pub(crate) fn new() -> Self {
        Self { prefix: [random(), random()] }
    }

    /// Adds `$id` and `$timestamp` to the object that `bytes` end with and that starts at `start`,
    /// unless it has them.
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>, start: usize, local: &Local) {
        let event = &bytes[start..];
        // Few events hold either byte, and without it no key can be one of the two.
        let reserved = if event.contains(&b'$') || event.contains(&b'\\') {
            serde_json::from_slice(event).unwrap_or_default()
        } else {
            Reserved::default()
        };
        bytes.truncate(bytes.trim_ascii_end().len() - 1);
        bytes.truncate(bytes.trim_ascii_end().len());
        let mut comma = if bytes.len() == start + 1 { "" } else { "," };
        // Writing to a vector does not fail.
        if !reserved.id {
            let [a, b] = self.prefix;
            let (thread, number) = local.unique();
            let _ = write!(bytes, "{comma}\"$id\":\"{a:016x}{b:016x}-{thread:x}-{number:x}\"");
            comma = ",";
        }
        if !reserved.timestamp
            && let Ok(now) = jiff::Timestamp::try_from(SystemTime::now())
        {
            let _ = write!(bytes, "{comma}\"$timestamp\":\"{now}\"");
        }
        bytes.push(b'}');
    }
}

/// A number that nobody else has: the keys of `RandomState` come from the operating system, and the
/// process and the time tell a process from its fork.
pub(crate) fn random() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    RandomState::new().hash_one((process::id(), SystemTime::now(), call))
}

/// Which of the reserved keys an event has.
#[derive(Default)]
struct Reserved {
    id: bool,
    timestamp: bool,
}

impl<'de> Deserialize<'de> for Reserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Reserved;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reserved, A::Error> {
        let mut found = Reserved::default();
        while let Some(key) = map.next_key::<Key>()? {
            found.id |= matches!(key, Key::Id);
            found.timestamp |= matches!(key, Key::Timestamp);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(found)
    }
}

#[derive(serde::Deserialize)]
enum Key {
    #[serde(rename = "$id")]
    Id,
    #[serde(rename = "$timestamp")]
    Timestamp,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn stamped(event: &str) -> Value {
        stamped_by(&Stamp::new(), event)
    }

    fn stamped_by(stamp: &Stamp, event: &str) -> Value {
        Local::with(|local| {
            let mut bytes = format!(",{event}").into_bytes();
            stamp.apply(&mut bytes, 1, local);
            serde_json::from_slice(&bytes[1..]).unwrap()
        })
    }

    #[test]
    fn any_object_is_stamped() {
        for event in ["{}", "{ }", r#"{"a":1}"#, "{\"a\": {\"$id\": 1} \n}", r#"{"a":"\\$id"}"#] {
            let stamped = stamped(event);
            let original: Value = serde_json::from_str(event).unwrap();
            let mut rest = stamped.as_object().unwrap().clone();
            assert!(rest.remove("$id").unwrap().is_string(), "{event}");
            let time = rest.remove("$timestamp").unwrap();
            assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{event}");
            assert_eq!(Value::Object(rest), original);
        }
    }

    #[test]
    fn what_is_there_is_kept() {
        assert_eq!(stamped(r#"{"$id":7}"#)["$id"], 7);
        assert!(stamped(r#"{"$id":7}"#)["$timestamp"].is_string());
        let both = r#"{"\u0024id":7,"$timestamp":null}"#;
        assert_eq!(stamped(both), serde_json::from_str::<Value>(both).unwrap());
    }

    #[test]
    fn a_stamp_is_no_longer_than_the_longest() {
        let stamp = Stamp { prefix: [u64::MAX; 2] };
        Local::with(|local| {
            local.use_up_ids();
            let mut bytes = b",{}".to_vec();
            stamp.apply(&mut bytes, 1, local);
            assert!(bytes.len() <= ",{}".len() + LONGEST, "{}", bytes.len());
        });
    }

    #[test]
    fn ids_differ() {
        let stamps = [Stamp::new(), Stamp::new()];
        let mut ids = std::collections::HashSet::new();
        for round in 0..100 {
            let stamp = &stamps[round % 2];
            let event = if round % 3 == 0 {
                std::thread::scope(|scope| scope.spawn(|| stamped_by(stamp, "{}")).join().unwrap())
            } else {
                stamped_by(stamp, "{}")
            };
            assert!(ids.insert(event["$id"].to_string()));
        }
    }
}
