//! The two keys that Stride reserves, and what may be their value.

use jiff::civil::DateTime;
use serde_json::Value;

/// The times between the years 0 and 9999, in milliseconds since 1970.
const MILLIS: std::ops::RangeInclusive<f64> = -62_167_219_200_000.0..=253_402_300_799_999.0;

/// The length of `2015-05-05T23:40:27`.
const SECONDS: usize = 19;

/// One of the reserved keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Id,
    Timestamp,
}

impl Key {
    pub(super) fn of(key: &str) -> Option<Self> {
        match key {
            "$id" => Some(Self::Id),
            "$timestamp" => Some(Self::Timestamp),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Id => "$id",
            Self::Timestamp => "$timestamp",
        }
    }

    /// What is wrong with a value of this key.
    pub(super) fn check(self, value: &Value) -> Result<(), &'static str> {
        match self {
            Self::Id => check_id(value),
            Self::Timestamp => check_timestamp(value),
        }
    }
}

/// What was set explicitly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reserved<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
}

impl<'a> Reserved<'a> {
    pub(super) fn get(self, key: Key) -> Option<&'a str> {
        match key {
            Key::Id => self.id,
            Key::Timestamp => self.timestamp,
        }
    }
}

fn check_id(id: &Value) -> Result<(), &'static str> {
    match id {
        Value::String(id) if id.is_empty() => Err("the $id is empty"),
        Value::String(_) => Ok(()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Ok(()),
        _ => Err("the $id is neither a string nor an integer"),
    }
}

pub(super) fn check_timestamp(timestamp: &Value) -> Result<(), &'static str> {
    let good = match timestamp {
        Value::String(text) => is_time(text),
        Value::Number(millis) => millis.as_f64().is_some_and(|millis| MILLIS.contains(&millis)),
        _ => false,
    };
    if good { Ok(()) } else { Err("the $timestamp is not a time, such as 2015-05-05T23:40:27Z") }
}

/// Whether this is a time as the original clients write one, and thus a server reads it.
fn is_time(text: &str) -> bool {
    let Some((seconds, rest)) = text.split_at_checked(SECONDS) else { return false };
    // Not what else the parser takes, such as times without colons.
    let form = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    seconds.bytes().enumerate().all(form)
        && seconds.parse::<DateTime>().is_ok()
        && is_offset(match rest.strip_prefix('.') {
            Some(fraction) => {
                let offset = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
                if offset.len() == fraction.len() {
                    return false;
                }
                offset
            }
            None => rest,
        })
}

/// Nothing, `Z`, `+02:00`, `+0200` or `+02`.
fn is_offset(text: &str) -> bool {
    let number = |digits: &[u8], below: u8| match digits {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => (tens - b'0') * 10 + (ones - b'0') < below,
        _ => false,
    };
    match text.trim_start_matches(' ').as_bytes() {
        [] => text.is_empty(),
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, rest @ ..] if number(&[*h1, *h2], 24) => match rest {
            [] => true,
            [m1, m2] | [b':', m1, m2] => number(&[*m1, *m2], 60),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn n3_times() {
        for good in [
            json!("2015-05-05T23:40:27Z"),
            json!("2015-05-05t23:40:27z"),
            json!("2015-05-05T23:40:27.123456789+02:00"),
            json!("2015-05-05 23:40:27.123456"),
            json!("2015-05-05 23:40:27"),
            json!("2015-05-05T23:40:27.5"),
            json!("2015-05-05T23:40:27+0000"),
            json!("2015-05-05 23:40:27 -0230"),
            json!("2015-05-05 23:40:27+02"),
            json!("0000-01-01T00:00:00Z"),
            json!(1_430_869_227_123_u64),
            json!(1_430_869_227_123.5),
            json!(-1),
        ] {
            assert_eq!(check_timestamp(&good), Ok(()), "{good}");
        }
        for bad in [
            json!("yesterday"),
            json!("2015-05-05"),
            json!("2015-05-05 23:40"),
            json!("2015-02-30 23:40:27"),
            json!("2015-05-05 24:40:27"),
            json!("2015-05-05T23:40:27."),
            json!("2015-05-05T23:40:27.Z"),
            json!("2015-05-05T23:40:27 "),
            json!("2015-05-05T23:40:27+24:00"),
            json!("2015-05-05T23:40:27+02:60"),
            json!("2015-05-05T23:40:27 UTC"),
            json!("2015-05-05T23:40:27Z[UTC]"),
            json!("20150505T234027Z"),
            json!("-00001-05-05T23:40:27Z"),
            json!("2015-05-05T23:40:2é"),
            json!("1430869227123"),
            json!(""),
            json!(1e300),
            json!(253_402_300_800_000_u64),
            json!(true),
            json!(null),
            json!({}),
        ] {
            assert!(check_timestamp(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn n3_ids() {
        for good in [json!("a"), json!(0), json!(-1), json!(u64::MAX)] {
            assert_eq!(check_id(&good), Ok(()), "{good}");
        }
        for bad in [json!(""), json!(1.5), json!(1e30), json!(null), json!(true), json!(["a"])] {
            assert!(check_id(&bad).is_err(), "{bad}");
        }
    }
}
