//! What the server gives to events that lack it: a `$timestamp` and an `$id`.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Length of half an id: a 64-bit number in hexadecimal.
const HALF: usize = 16;

/// An `$id` as one stream remembers it. Two ids are the same if their JSON values are: the string
/// `"5"` and the number `5` are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventId {
    /// One that this server gave out. Most ids are of this kind, and so cost no allocation.
    Own(u64),
    Text(Arc<str>),
    Unsigned(u64),
    Negative(i64),
}

/// Gives out ids that are unique over streams and restarts: 16 digits drawn at start, then 16 that
/// count up.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: [u8; HALF],
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        // The standard library seeds every `RandomState` apart, and a start needs but one draw.
        let draw = RandomState::new().build_hasher().finish();
        Self { prefix: hex(draw), next: AtomicU64::new(0) }
    }

    /// Appends a new id, 32 hexadecimal digits, to `out`.
    pub(crate) fn give(&self, out: &mut Vec<u8>) -> EventId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&hex(number));
        EventId::Own(number)
    }

    /// The id that a client sent as `text`, which may be one that this server gave out before.
    pub(crate) fn recognise(&self, text: &str) -> EventId {
        let own = text.as_bytes().strip_prefix(&self.prefix).and_then(|digits| {
            let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            (hex(number) == digits).then_some(number)
        });
        own.map_or_else(|| EventId::Text(text.into()), EventId::Own)
    }
}

fn hex(number: u64) -> [u8; HALF] {
    let mut digits = [0; HALF];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place) & 0xf) as usize];
    }
    digits
}

/// Now, as RFC 3339 in UTC with microseconds, so that the texts sort as the times do.
pub(crate) fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

fn rfc3339(at: OffsetDateTime) -> String {
    let mut text = String::with_capacity(27);
    let (date, time) = (at.date(), at.time());
    let written = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond(),
    );
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    text
}

/// Whether `text` is a time as RFC 3339 writes it, with any offset.
pub(crate) fn is_timestamp(text: &str) -> bool {
    OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_recognised() {
        let ids = Ids::new();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (a, b) = (ids.give(&mut first), ids.give(&mut second));
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
        assert_eq!(ids.recognise(std::str::from_utf8(&first).unwrap()), a);
        assert_eq!(ids.recognise(std::str::from_utf8(&second).unwrap()), b);
    }

    #[test]
    fn an_id_that_only_looks_like_one_of_ours_is_text() {
        let ids = Ids::new();
        let mut given = Vec::new();
        ids.give(&mut given);
        let prefix = String::from_utf8(given[..HALF].to_vec()).unwrap();
        for foreign in
            ["", "a", &prefix, &format!("{prefix}1"), &format!("{prefix}+00000000000000a")]
        {
            assert_eq!(ids.recognise(foreign), EventId::Text((*foreign).into()));
        }
    }

    #[test]
    fn times_are_rfc3339_in_utc() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_430_869_227_000_042_999).unwrap();
        assert_eq!(rfc3339(at), "2015-05-05T23:40:27.000042Z");
        assert!(is_timestamp(&now()));
        assert!(is_timestamp("2015-05-05T23:40:27Z"));
        assert!(is_timestamp("2015-05-05T23:40:27.5+02:00"));
        assert!(!is_timestamp("2015-05-05 23:40"));
        assert!(!is_timestamp("yesterday"));
    }
}
