//! `now()`, `utc`, `time_add`, `time_step` and `date_trunc`, and the order in which times come.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error};
use time::{Duration, OffsetDateTime};

use crate::engine::sqlite::objects::kept;
use crate::events::timestamp;
use crate::sql::{times, windows};

/// What `now()` is to a connection, in microseconds since 1970: one moment for a whole statement.
#[derive(Clone, Debug, Default)]
pub(in crate::engine::sqlite) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(in crate::engine::sqlite) fn set(&self, micros: i64) {
        self.0.store(micros, Relaxed);
    }

    pub(in crate::engine::sqlite) fn set_now(&self) {
        let micros = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
        self.set(i64::try_from(micros).unwrap_or(i64::MAX));
    }

    fn text(&self) -> String {
        times::text_of(self.0.load(Relaxed))
    }
}

/// Teaches a connection the functions that queries are written with.
pub(in crate::engine::sqlite) fn install(connection: &Connection) -> rusqlite::Result<Clock> {
    let clock = Clock::default();
    connection.create_collation(times::COLLATION, times::compare)?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let of_statement = clock.clone();
    connection.create_scalar_function("now", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(of_statement.text())
    })?;
    connection.create_scalar_function("utc", 1, pure, |context| Ok(time(context, 0).map(text)))?;
    // Of all texts of one time the same one, to the nanosecond; anything else as it is.
    connection.create_scalar_function("time_key", 1, pure, |context| {
        let at = time(context, 0).map(|at| format!("{}{:03}", text(at), at.nanosecond() % 1000));
        Ok(at.map_or_else(|| kept(context.get_raw(0)), Value::Text))
    })?;
    connection.create_scalar_function("time_or_null", 1, pure, |context| {
        let is_time = time(context, 0).is_some();
        Ok(is_time.then(|| context.get_raw(0).as_str().unwrap_or_default().to_owned()))
    })?;
    for arguments in [2, 3] {
        connection.create_scalar_function("time_add", arguments, pure, move |context| {
            let micros = Duration::microseconds(context.get(1)?);
            let months: i64 = if arguments == 3 { context.get(2)? } else { 0 };
            let at = time(context, 0).and_then(|at| add_months(at, months));
            let at = at.and_then(|at| at.checked_add(micros));
            Ok(at.filter(|at| (0..=9999).contains(&at.year())).map(text))
        })?;
    }
    connection.create_scalar_function("time_step", 3, pure, |context| {
        Ok(match (context.get_raw(0), time(context, 0)) {
            (_, Some(at)) => Some(windows::step_of(at, context.get(1)?, context.get(2)?)),
            // As in a comparison with a time: what is not a time comes after all of them, and numbers before.
            (ValueRef::Text(_) | ValueRef::Blob(_), None) => Some(i64::MAX),
            _ => None,
        })
    })?;
    connection.create_scalar_function("date_trunc", 2, pure, |context| {
        let unit: String = context.get(0)?;
        // A unit that is none is an error at `NULL`, too: it is found when the query is tried out.
        let at = time(context, 1);
        let truncated = truncate(&unit, at.unwrap_or(OffsetDateTime::UNIX_EPOCH))?;
        Ok(at.map(|_| text(truncated)))
    })?;
    Ok(clock)
}

/// An argument as a time; anything that is none is `NULL`.
fn time(context: &Context<'_>, argument: usize) -> Option<OffsetDateTime> {
    let ValueRef::Text(text) = context.get_raw(argument) else { return None };
    times::parse(std::str::from_utf8(text).ok()?)
}

fn text(at: OffsetDateTime) -> String {
    timestamp::rfc3339(at)
}

fn truncate(unit: &str, at: OffsetDateTime) -> rusqlite::Result<OffsetDateTime> {
    let midnight = at.replace_time(time::Time::MIDNIGHT);
    let first = |at: OffsetDateTime| at.replace_day(1).unwrap_or(at);
    Ok(match unit.to_ascii_lowercase().as_str() {
        "second" => at.truncate_to_second(),
        "minute" => at.truncate_to_minute(),
        "hour" => at.truncate_to_hour(),
        "day" => midnight,
        "week" => midnight - Duration::days(at.weekday().number_days_from_monday().into()),
        "month" => first(midnight),
        "year" => first(midnight.replace_month(time::Month::January).unwrap_or(midnight)),
        _ => {
            return Err(Error::UserFunctionError(
                format!("date_trunc knows no {unit:?}: it truncates to second, minute, hour, day, week, month or year").into(),
            ));
        }
    })
}

/// The same day and time so many months later, or the last day of that month if it has no such day.
fn add_months(at: OffsetDateTime, months: i64) -> Option<OffsetDateTime> {
    if months == 0 {
        return Some(at);
    }
    let date = at.date();
    let month = i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1;
    let month = month.checked_add(months)?;
    let year = i32::try_from(month.div_euclid(12)).ok().filter(|year| (0..=9999).contains(year))?;
    let month = time::Month::try_from(u8::try_from(month.rem_euclid(12) + 1).ok()?).ok()?;
    let day = date.day().min(month.length(year));
    Some(at.replace_date(time::Date::from_calendar_date(year, month, day).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(sql: &str) -> Option<String> {
        let connection = Connection::open_in_memory().unwrap();
        install(&connection).unwrap().set(1_430_869_227_000_042);
        connection.query_row(&format!("SELECT {sql}"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn times_of_any_offset_are_one_text() {
        let utc = Some("2015-05-05T21:40:27.500000Z".to_owned());
        assert_eq!(ask("utc('2015-05-05T23:40:27.5+02:00')"), utc);
        assert_eq!(ask("utc('2015-05-05T21:40:27.500Z')"), utc);
        let midnight = Some("2015-05-05T00:00:00.000000Z".to_owned());
        for text in ["2015-05-05", "2015-05-05 00:00", "2015-05-05T00:00:00"] {
            assert_eq!(ask(&format!("utc('{text}')")), midnight);
        }
        assert_eq!(ask("utc('9999-12-31T23:59:59-23:00')"), None);
        assert_eq!(ask("time_add('9999-12-31T23:59:59Z', 1000000000)"), None);
        assert_eq!(ask("utc('noon')"), None);
        assert_eq!(ask("utc(5)"), None);
        assert_eq!(ask("now()").as_deref(), Some("2015-05-05T23:40:27.000042Z"));
        for (at, step) in [
            ("utc(now())", Some(1_430_869_227)),
            ("'noon'", Some(i64::MAX)),
            ("x'00'", Some(i64::MAX)),
            ("5", None),
            ("NULL", None),
        ] {
            let step = step.map(|step| step.to_string());
            assert_eq!(ask(&format!("CAST(time_step({at}, 1000000, 0) AS TEXT)")), step, "{at}");
        }
        assert_eq!(ask("time_add(now(), -42)").as_deref(), Some("2015-05-05T23:40:27.000000Z"));
    }

    #[test]
    fn times_are_truncated_in_utc() {
        let at = |unit| ask(&format!("date_trunc('{unit}', '2015-05-05T23:40:27.5-02:00')"));
        assert_eq!(at("minute").as_deref(), Some("2015-05-06T01:40:00.000000Z"));
        assert_eq!(at("week").as_deref(), Some("2015-05-04T00:00:00.000000Z"));
        assert_eq!(at("month").as_deref(), Some("2015-05-01T00:00:00.000000Z"));
        assert_eq!(at("year").as_deref(), Some("2015-01-01T00:00:00.000000Z"));
    }
}
