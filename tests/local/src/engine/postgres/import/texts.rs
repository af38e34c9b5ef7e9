//! Values of a file as texts that PostgreSQL reads as values of a type.

use serde_json::Value;

use crate::engine::postgres::storage::doc;
use crate::engine::sqlite::export::Exported;
use crate::events::keys::Kinds;
use crate::sql::times;

/// The text of a value for a column of a type. `kinds`: those of the key whose value it is, if it is one: a file keeps
/// `true` as 1.
pub(in crate::engine::postgres) fn text(
    value: Exported,
    of: &str,
    kinds: Kinds,
) -> Result<Option<String>, String> {
    let text = match (of, value) {
        (_, Exported::Null) => return Ok(None),
        ("bool", Exported::Integer(0)) => "false".to_owned(),
        ("bool", Exported::Integer(1)) => "true".to_owned(),
        ("int4" | "int8" | "numeric" | "float8", Exported::Integer(number)) => number.to_string(),
        ("int4" | "int8" | "numeric" | "float8", Exported::Real(number)) if number.is_finite() => {
            number.to_string()
        }
        ("text", Exported::Text(text)) => without_nul(text),
        ("timestamptz" | "timestamp" | "date", Exported::Text(text)) => {
            // As a key, with what is below a microsecond behind it.
            let time = text.split_inclusive('Z').next().unwrap_or_default();
            let micros = times::micros_of(time).ok_or_else(|| format!("{text:?} is not a time"))?;
            times::text_of(micros)
        }
        ("jsonb", Exported::Integer(number @ (0 | 1))) if are_booleans(kinds) => {
            (number == 1).to_string()
        }
        ("jsonb", Exported::Integer(number)) => number.to_string(),
        ("jsonb", Exported::Real(number)) if number.is_finite() => number.to_string(),
        ("jsonb", Exported::Text(text)) => Value::from(without_nul(text)).to_string(),
        ("jsonb", Exported::Json(json)) => doc(&json).unwrap_or(json),
        (of, value) => {
            let what = match value {
                Exported::Integer(number) => number.to_string(),
                Exported::Real(number) => number.to_string(),
                Exported::Text(_) => "a text".to_owned(),
                _ => "an object or an array".to_owned(),
            };
            return Err(format!("{what} is not of the type {of}, which PostgreSQL has it be of"));
        }
    };
    Ok(Some(text))
}

/// As in what queries read of events.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Whether the whole numbers among the values of a key are `true` and `false`.
fn are_booleans(kinds: Kinds) -> bool {
    let has = |kind: Kinds| kinds.with(kind) == kinds;
    let is_known = has(Kinds::TEXT) || has(Kinds::JSON);
    has(Kinds::BOOLEAN) && is_known && !has(Kinds::NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(value: Exported, of: &str) -> Result<Option<String>, String> {
        text(value, of, Kinds::NULL)
    }

    #[test]
    fn a_value_becomes_one_of_the_type_of_its_column() {
        let ok = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(text_of(Exported::Null, "int8"), Ok(None));
        assert_eq!(text_of(Exported::Integer(1), "bool"), ok("true"));
        assert_eq!(text_of(Exported::Real(0.1 + 0.2), "numeric"), ok("0.30000000000000004"));
        let whole = text_of(Exported::Real(1e300), "numeric").unwrap().unwrap();
        assert_eq!(whole.parse(), Ok(1e300));
        assert_eq!(text_of(Exported::Text("a\0b".to_owned()), "text"), ok("a\u{fffd}b"));
        let time = Exported::Text("2015-05-05T23:40:27.123456789+02:00".to_owned());
        assert_eq!(text_of(time, "timestamptz"), ok("2015-05-05T21:40:27.123456Z"));
        let key = Exported::Text("2015-05-05T21:40:27.123456Z789".to_owned());
        assert_eq!(text_of(key, "timestamptz"), ok("2015-05-05T21:40:27.123456Z"));
        assert_eq!(text_of(Exported::Text("\"\0".to_owned()), "jsonb"), ok("\"\\\"\u{fffd}\""));
        let json = Exported::Json(r#"{"a":"\u0000"}"#.to_owned());
        assert_eq!(text_of(json, "jsonb"), ok("{\"a\":\"\u{fffd}\"}"));
        assert_eq!(text_of(Exported::Integer(1), "jsonb"), ok("1"));
    }

    #[test]
    fn one_is_true_where_a_key_had_no_numbers() {
        let mixed = Kinds::BOOLEAN.with(Kinds::TEXT);
        let text_of = |kinds| text(Exported::Integer(1), "jsonb", kinds).unwrap().unwrap();
        assert_eq!(text_of(mixed), "true");
        assert_eq!(text_of(mixed.with(Kinds::NUMBER)), "1");
        // By an earlier version, which did not tell numbers from texts.
        assert_eq!(text_of(Kinds::BOOLEAN.with(Kinds::OTHER)), "1");
    }

    #[test]
    fn what_is_not_of_the_type_is_an_error() {
        for (value, of) in [
            (Exported::Integer(2), "bool"),
            (Exported::Text("1".to_owned()), "numeric"),
            (Exported::Integer(1), "text"),
            (Exported::Real(f64::INFINITY), "numeric"),
            (Exported::Real(f64::INFINITY), "jsonb"),
            (Exported::Text("noon".to_owned()), "timestamptz"),
            (Exported::Text("1 day".to_owned()), "interval"),
        ] {
            assert!(text_of(value, of).is_err(), "{of}");
        }
    }
}
