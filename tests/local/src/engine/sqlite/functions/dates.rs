//! Parts of times.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use time::OffsetDateTime;

use super::failed;
use crate::sql::times;

/// `date_part(unit, time)`, which is what `extract(unit FROM time)` becomes. All of it is in UTC.
pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("date_part", 2, pure, |context| {
        let unit: String = context.get(0)?;
        let at = match context.get_raw(1) {
            ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(times::parse),
            _ => None,
        };
        // A unit that is none is an error at `NULL`, too.
        let part = part(&unit, at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
            .ok_or_else(|| failed(&format!("date_part knows no {unit:?}")))?;
        Ok(if at.is_some() { part } else { Value::Null })
    })
}

fn part(unit: &str, at: OffsetDateTime) -> Option<Value> {
    let unit = unit.to_ascii_lowercase();
    let date = at.date();
    let whole = |number: i64| Some(Value::Integer(number));
    // In microseconds, of so many to one.
    let fraction = |micros: i64, one: i64| {
        Some(match micros % one {
            0 => Value::Integer(micros / one),
            _ => Value::Real(micros as f64 / one as f64),
        })
    };
    let micros = i64::from(at.second()) * 1_000_000 + i64::from(at.microsecond());
    let year = i64::from(date.year());
    match unit.as_str() {
        "epoch" => fraction(i64::try_from(at.unix_timestamp_nanos() / 1000).ok()?, 1_000_000),
        "century" => whole((year + 99).div_euclid(100)),
        "decade" => whole(year.div_euclid(10)),
        "year" => whole(year),
        "isoyear" => whole(date.to_iso_week_date().0.into()),
        "quarter" => whole(i64::from((u8::from(date.month()) - 1) / 3 + 1)),
        "month" => whole(u8::from(date.month()).into()),
        "week" => whole(date.iso_week().into()),
        "doy" => whole(date.ordinal().into()),
        "day" => whole(date.day().into()),
        "dow" => whole(date.weekday().number_days_from_sunday().into()),
        "isodow" => whole(date.weekday().number_from_monday().into()),
        "hour" => whole(at.hour().into()),
        "minute" => whole(at.minute().into()),
        "second" => fraction(micros, 1_000_000),
        "millisecond" | "milliseconds" => fraction(micros, 1000),
        "microsecond" | "microseconds" => whole(micros),
        _ => None,
    }
}
