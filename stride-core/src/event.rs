//! An event with its two reserved keys.

use std::time::SystemTime;

use serde::Serialize;
use serde::ser::{Error as _, Serializer};

/// An event with an id of its own, a time of its own, or both.
///
/// An event may be any value that serialises as a JSON object; this adds the keys that Stride
/// reserves. The payload must not have them itself.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use stride_core::Event;
///
/// let event = Event::new(serde_json::json!({"bojack": "horseman"}))
///     .id("a")
///     .timestamp(UNIX_EPOCH + Duration::from_secs(1_430_869_227));
/// assert_eq!(
///     serde_json::to_string(&event)?,
///     r#"{"bojack":"horseman","$id":"a","$timestamp":"2015-05-05T23:40:27Z"}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Event<T> {
    #[serde(flatten)]
    payload: T,
    #[serde(rename = "$id", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(
        rename = "$timestamp",
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339"
    )]
    timestamp: Option<SystemTime>,
}

impl<T: Serialize> Event<T> {
    /// The payload alone: Stride gives it an id and a time when it arrives.
    pub fn new(payload: T) -> Self {
        Self { payload, id: None, timestamp: None }
    }

    /// Sets `$id`. A stream stores an event once by its id, however often it is sent.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets `$timestamp`, when it happened. A time outside the years -9999 to 9999 cannot be
    /// written, and makes the event an error where it is serialised.
    #[must_use]
    pub fn timestamp(mut self, timestamp: SystemTime) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

fn rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => {
            let time = jiff::Timestamp::try_from(*time).map_err(S::Error::custom)?;
            serializer.collect_str(&time)
        }
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn keys_that_are_not_set_are_not_written() {
        #[derive(Serialize)]
        struct Click {
            x: u32,
        }
        assert_eq!(serde_json::to_string(&Event::new(Click { x: 1 })).unwrap(), r#"{"x":1}"#);
    }

    #[test]
    fn times_before_1970_and_below_a_second_are_kept() {
        for (time, text) in [
            (UNIX_EPOCH - Duration::from_secs(1), "1969-12-31T23:59:59Z"),
            (UNIX_EPOCH + Duration::from_micros(1_500_000), "1970-01-01T00:00:01.5Z"),
        ] {
            let event = Event::new(serde_json::json!({})).timestamp(time);
            assert_eq!(serde_json::to_value(&event).unwrap()["$timestamp"], text);
        }
    }

    #[test]
    fn a_time_that_cannot_be_written_is_an_error_and_no_panic() {
        let time = UNIX_EPOCH + Duration::from_secs(1 << 40);
        let event = Event::new(serde_json::json!({})).timestamp(time);
        assert!(serde_json::to_string(&event).is_err());
    }

    #[test]
    fn a_payload_that_is_no_object_is_an_error() {
        assert!(serde_json::to_string(&Event::new(7).id("a")).is_err());
    }
}
