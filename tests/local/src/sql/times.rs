//! Times in SQL: `now()`, `date_trunc`, and `INTERVAL`s.
//!
//! SQLite has no type for them. A time is a text: RFC 3339, or what SQLite's own functions make. The functions here give it as
//! in `2015-05-05T23:40:27.000000Z`; under the collation [`COLLATION`] all texts of one time are equal.

use std::cmp::Ordering::{self, Greater, Less};

use sqlparser::ast::Value;
use time::{OffsetDateTime, UtcOffset};

use crate::engine::EngineError;
use crate::events::timestamp;

/// The names of functions, all of which return a time.
pub(crate) const FUNCTIONS: [&str; 4] = ["now", "utc", "time_add", "date_trunc"];

/// The collation under which texts come in the order of the times that they are; those that are none come after
/// them. It is part of queries only: a table of it could not be read without this program.
pub(crate) const COLLATION: &str = "stride_time";

/// Puts an expression before it under [`COLLATION`].
pub(crate) const COLLATED: &str = " COLLATE stride_time";

/// Microseconds since 1970 as a text.
pub(crate) fn text_of(micros: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
    timestamp::rfc3339(at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// A text as microseconds since 1970.
pub(crate) fn micros_of(text: &str) -> Option<i64> {
    i64::try_from(parse(text)?.unix_timestamp_nanos() / 1000).ok()
}

/// How two texts compare under [`COLLATION`].
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    // Most times are as this program writes them.
    if one.len() == other.len() && is_plain(one) && is_plain(other) {
        return one.cmp(other);
    }
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(_), None) => Less,
        (None, Some(_)) => Greater,
        (None, None) => one.cmp(other),
    }
}

/// Whether a text is surely a time, in UTC and of the usual form: two such of one length compare as texts.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let least = |at: usize, least: &[u8], most: &[u8]| {
        bytes.get(at..at + 2).is_some_and(|digits| (least..=most).contains(&digits))
    };
    let is_digit = |at: usize| bytes[at].is_ascii_digit();
    (20..=30).contains(&bytes.len())
        && [4, 7].iter().all(|at| bytes[*at] == b'-')
        && (bytes[10], bytes[13], bytes[16]) == (b'T', b':', b':')
        && (0..4).chain([6, 9, 12, 15, 18]).all(is_digit)
        && least(5, b"01", b"12")
        && least(8, b"01", b"28")
        && least(11, b"00", b"23")
        && least(14, b"00", b"59")
        && least(17, b"00", b"59")
        && bytes[bytes.len() - 1] == b'Z'
        && (bytes.len() == 20
            || bytes.len() > 21 && bytes[19] == b'.' && (20..bytes.len() - 1).all(is_digit))
}

/// Reads what a `$timestamp` may be, and what SQLite's own functions make, which has parts left out.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    if text.len() > 64 || !text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let at = timestamp::parse(text).or_else(|| {
        let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
        let offset = time.find(|letter: char| !letter.is_ascii_digit() && letter != ':');
        let (minutes, offset) = time.split_at(offset.unwrap_or(time.len()));
        timestamp::parse(&format!("{date}T{minutes}:00{offset}"))
    })?;
    // What has no year of four digits in UTC would not compare as a text.
    at.checked_to_offset(UtcOffset::UTC).filter(|at| (0..=9999).contains(&at.year()))
}

/// How many microseconds `text` is, as in `5 minutes`, `1 day 2 hours` or `01:30:00`.
pub(crate) fn duration(text: &str) -> Result<i64, EngineError> {
    match span(text)? {
        Span { months: 0, micros } => Ok(micros),
        Span { .. } => Err(EngineError::Invalid(format!(
            "{text:?} has no one length, because months have not: write it in days"
        ))),
    }
}

/// A duration as `INTERVAL` has it: months have many lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) months: i64,
    pub(crate) micros: i64,
}

/// A literal in quotes that is used as a time has to be one.
pub(crate) fn check(literal: &Value) -> Result<(), String> {
    match literal {
        Value::SingleQuotedString(text) if parse(text).is_none() => Err(format!(
            "{text:?} is used as a time, and is not one: write it as in '2015-05-05T23:40:27Z'"
        )),
        _ => Ok(()),
    }
}

/// Reads a duration that may be of months and years.
pub(crate) fn span(text: &str) -> Result<Span, EngineError> {
    let bad = || {
        EngineError::Invalid(format!(
            "{text:?} is no duration: write it as in '90 seconds', '5 minutes' or '1 day 12 hours'"
        ))
    };
    let (mut micros, mut months) = (0_f64, 0_f64);
    let mut words = text.split_whitespace();
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.contains(':') {
            let mut unit = 3600e6;
            for part in word.split(':') {
                micros += part.parse::<u32>().map_err(|_| bad())? as f64 * unit;
                unit /= 60.0;
            }
            continue;
        }
        // The number and its unit may be written as one word.
        let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let number: f64 = digits.parse().map_err(|_| bad())?;
        let unit = &word[digits.len()..];
        let unit = if unit.is_empty() { words.next().ok_or_else(bad)? } else { unit };
        match unit.to_ascii_lowercase().as_str() {
            "month" | "months" | "mon" | "mons" => months += number,
            "year" | "years" | "yr" | "yrs" => months += number * 12.0,
            _ => micros += number * unit_micros(unit).ok_or_else(bad)?,
        }
    }
    // A thousand years: what is longer cannot be meant.
    let is_long = micros.abs() > 3.2e16 || months.abs() > 12_000.0;
    if !any || !micros.is_finite() || is_long || months.fract() != 0.0 {
        return Err(bad());
    }
    Ok(Span { months: months as i64, micros: micros as i64 })
}

/// Units of one length only: a month has many.
fn unit_micros(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    Some(match unit.strip_suffix('s').filter(|unit| unit.len() > 1).unwrap_or(&unit) {
        "microsecond" => 1.0,
        "millisecond" | "ms" => 1e3,
        "second" | "sec" | "s" => 1e6,
        "minute" | "min" | "m" => 60e6,
        "hour" | "h" => 3600e6,
        "day" | "d" => 86_400e6,
        "week" | "w" => 604_800e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("1 day", 86_400_000_000),
            ("5 minutes", 300_000_000),
            ("1 minute", 60_000_000),
            ("1 day 2 hours", 93_600_000_000),
            ("90s", 90_000_000),
            ("1.5 hours", 5_400_000_000),
            ("01:30:00", 5_400_000_000),
            ("250 ms", 250_000),
        ];
        for (text, micros) in cases {
            assert_eq!(duration(text), Ok(micros), "{text}");
        }
        for text in [
            "",
            "day",
            "1",
            "1 month",
            "1 year",
            "0.5 months",
            "one day",
            "1 day 2",
            "1e300 days",
            "inf days",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
