//! The `$timestamp` of an event: how clients write one, and what one is given that lacks it.

use std::borrow::Cow;
use std::fmt::Write as _;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Now, as RFC 3339 in UTC with microseconds, so that the texts sort as the times do.
pub(crate) fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
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

/// A time as clients write them: RFC 3339, and what the original clients send besides, a space for the
/// `T`, an offset without its colon or none at all. A time without an offset is in UTC.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(at);
    }
    let (date, time) = text.split_once([' ', 'T', 't'])?;
    let seconds = time.find(|byte: char| !matches!(byte, '0'..='9' | ':' | '.'));
    let (time, offset) = time.split_at(seconds.unwrap_or(time.len()));
    let offset = match offset.trim_start_matches(' ') {
        "" | "z" => "Z".to_owned(),
        offset if !offset.is_ascii() => return None,
        // `+0200` and `+02`.
        offset if offset.len() == 5 => format!("{}:{}", &offset[..3], &offset[3..]),
        offset if offset.len() == 3 => format!("{offset}:00"),
        offset => offset.to_owned(),
    };
    OffsetDateTime::parse(&format!("{date}T{time}{offset}"), &Rfc3339).ok()
}

/// Microseconds since 1970, rounded down.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// What a `$timestamp` is, given as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Timestamp {
    /// In microseconds since 1970. What has no year of four digits in UTC comes after all other times.
    pub(crate) at: i64,
    /// RFC 3339 for it, if it is given in another form. Else it is kept as it is.
    pub(crate) rewritten: Option<String>,
}

impl Timestamp {
    /// Reads a time as a text, or as a number of milliseconds since 1970.
    pub(crate) fn read(json: &str) -> Option<Self> {
        let at = if json.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str::<Text<'_>>(json).ok()?.0;
            if let Ok(at) = OffsetDateTime::parse(&text, &Rfc3339)
                && text.as_bytes()[10] != b' '
            {
                let utc = at.checked_to_offset(UtcOffset::UTC);
                let utc = utc.filter(|utc| (0..=9999).contains(&utc.year()));
                return Some(Self { at: utc.map_or(i64::MAX, micros), rewritten: None });
            }
            parse(&text)?
        } else {
            // A fraction of a millisecond is kept as far as microseconds go.
            let millis: f64 = serde_json::from_str(json).ok()?;
            let micros = millis * 1000.0;
            if micros.abs() > 1e18 {
                return None;
            }
            OffsetDateTime::from_unix_timestamp_nanos(micros.round() as i128 * 1000).ok()?
        };
        let utc = at.checked_to_offset(UtcOffset::UTC)?;
        (0..=9999)
            .contains(&utc.year())
            .then(|| Self { at: micros(utc), rewritten: Some(rfc3339(utc)) })
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_in_utc() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_430_869_227_000_042_999).unwrap();
        assert_eq!(rfc3339(at), "2015-05-05T23:40:27.000042Z");
        for kept in [&*now(), "2015-05-05T23:40:27Z", "2015-05-05T23:40:27.123456789+02:00"] {
            let read = Timestamp::read(&format!("{kept:?}")).unwrap();
            assert_eq!((read.rewritten, read.at), (None, micros(parse(kept).unwrap())), "{kept}");
        }
    }

    #[test]
    fn p1_times_as_the_original_clients_write_them_are_read_as_utc() {
        for (json, utc) in [
            (r#""2015-05-05 23:40:27.123456""#, "2015-05-05T23:40:27.123456Z"),
            (r#""2015-05-05 23:40:27""#, "2015-05-05T23:40:27.000000Z"),
            (r#""2015-05-05T23:40:27.5""#, "2015-05-05T23:40:27.500000Z"),
            (r#""2015-05-05T23:40:27+0000""#, "2015-05-05T23:40:27.000000Z"),
            (r#""2015-05-05 23:40:27 -0230""#, "2015-05-06T02:10:27.000000Z"),
            (r#""2015-05-05 23:40:27+02""#, "2015-05-05T21:40:27.000000Z"),
            (r#""2015-05-05 23:40:27Z""#, "2015-05-05T23:40:27.000000Z"),
            (r#""2015\u002d05-05 23:40:27""#, "2015-05-05T23:40:27.000000Z"),
            ("1430869227123", "2015-05-05T23:40:27.123000Z"),
            ("1430869227123.5", "2015-05-05T23:40:27.123500Z"),
            ("-1", "1969-12-31T23:59:59.999000Z"),
        ] {
            let read = Timestamp::read(json).unwrap();
            let at = micros(parse(utc).unwrap());
            assert_eq!((read.rewritten.as_deref(), read.at), (Some(utc), at), "{json}");
        }
        for json in [
            r#""yesterday""#,
            r#""2015-05-05 23:40""#,
            r#""2015-05-05""#,
            r#""2015-02-30 23:40:27""#,
            r#""2015-05-05 23:40:27 UTC+1""#,
            r#""2015-05-05 23:40:27+0é0""#,
            r#""1430869227123""#,
            r#""\ud800""#,
            "1e300",
            "253402300800000",
            "true",
            "null",
            "{}",
        ] {
            assert_eq!(Timestamp::read(json), None, "{json}");
        }
    }
}
