//! An event with its two reserved keys.

mod object;
mod reserved;

use std::time::SystemTime;

use serde::Serialize;
use serde::ser::{Error as _, Serializer};

use self::object::Object;
use self::reserved::Reserved;

/// An event with an explicit `$id`, `$timestamp`, or both.
///
/// The payload may be any value that serialises as a JSON object: a map, a struct, an enum whose
/// variant becomes a key, a [`RawValue`](serde_json::value::RawValue) that holds one. This adds the
/// keys that Stride reserves. Where the payload has one of them already, the explicit one replaces it,
/// as in pystride.
///
/// # Errors
///
/// Serialising it fails, and so does collecting it, for anything that the server would refuse a whole
/// batch for:
///
/// * a payload that is not an object, such as `None`, `()` or a variant without fields;
/// * an `$id` that is not an integer or a string that is not empty;
/// * a `$timestamp` that is not a time: RFC 3339, of which the `T` may be a space and the offset may
///   lack its colon or be left out (UTC), or a number of milliseconds since 1970; between the years 0
///   and 9999;
/// * one of them twice.
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
/// assert!(serde_json::to_string(&Event::new(7)).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Event<T> {
    payload: T,
    id: Option<String>,
    timestamp: Option<SystemTime>,
}

impl<T: Serialize> Event<T> {
    /// The payload alone: Stride gives it an id and a time when it arrives, unless it has them.
    pub fn new(payload: T) -> Self {
        Self { payload, id: None, timestamp: None }
    }

    /// Sets `$id`, which must not be empty. A stream stores an event once by its id, however often it
    /// is sent.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets `$timestamp`, when it happened. A time outside the years 0 to 9999 cannot be written, and
    /// makes the event an error where it is serialised.
    #[must_use]
    pub fn timestamp(mut self, timestamp: SystemTime) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

impl<T: Serialize> Serialize for Event<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = match self.timestamp {
            None => None,
            Some(at) => {
                let at = jiff::Timestamp::try_from(at).map_err(S::Error::custom)?;
                let text = at.to_string();
                // Before the year 0, it begins with a sign.
                reserved::check_timestamp(&text.as_str().into()).map_err(S::Error::custom)?;
                Some(text)
            }
        };
        if self.id.as_deref() == Some("") {
            return Err(S::Error::custom("the $id is empty"));
        }
        let explicit = Reserved { id: self.id.as_deref(), timestamp: timestamp.as_deref() };
        self.payload.serialize(Object::new(serializer, explicit))
    }
}

#[cfg(test)]
mod tests;
