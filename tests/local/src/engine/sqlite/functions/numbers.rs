//! Functions of numbers, which SQLite has only if it is built with them.

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};

type OfOne = fn(f64) -> f64;
type OfTwo = fn(f64, f64) -> f64;

/// What each gives for one number. What is not defined, such as the root of -1, is `NULL`.
const OF_ONE: [(&str, OfOne); 20] = [
    ("acos", f64::acos),
    ("acosh", f64::acosh),
    ("asin", f64::asin),
    ("asinh", f64::asinh),
    ("atan", f64::atan),
    ("atanh", f64::atanh),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    ("degrees", f64::to_degrees),
    ("exp", f64::exp),
    ("ln", f64::ln),
    ("log", f64::log10),
    ("log10", f64::log10),
    ("log2", f64::log2),
    ("radians", f64::to_radians),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
];

/// What each gives for one number that may be whole, and then stays as it is.
const WHOLE: [(&str, OfOne); 4] =
    [("ceil", f64::ceil), ("ceiling", f64::ceil), ("floor", f64::floor), ("trunc", f64::trunc)];

/// What each gives for two numbers.
const OF_TWO: [(&str, OfTwo); 4] = [
    ("atan2", f64::atan2),
    ("log", |base, number| number.ln() / base.ln()),
    ("pow", f64::powf),
    ("power", f64::powf),
];

pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("pi", 0, pure, |_| Ok(std::f64::consts::PI))?;
    for (name, of) in OF_ONE {
        connection.create_scalar_function(name, 1, pure, move |context| {
            Ok(real(context, 0).map(of).filter(|number| !number.is_nan()))
        })?;
    }
    for (name, of) in WHOLE {
        connection.create_scalar_function(name, 1, pure, move |context| {
            Ok(match number(context, 0) {
                Some(Value::Real(number)) => Value::Real(of(number)),
                Some(whole) => whole,
                None => Value::Null,
            })
        })?;
    }
    for (name, of) in OF_TWO {
        connection.create_scalar_function(name, 2, pure, move |context| {
            let numbers = real(context, 0).zip(real(context, 1));
            Ok(numbers.map(|(one, other)| of(one, other)).filter(|number| !number.is_nan()))
        })?;
    }
    connection.create_scalar_function("mod", 2, pure, |context| {
        Ok(match (number(context, 0), number(context, 1)) {
            (Some(Value::Integer(one)), Some(Value::Integer(other))) => match other {
                0 => Value::Null,
                // The least number has no remainder by -1 that can be computed, and needs none.
                other => Value::Integer(one.checked_rem(other).unwrap_or(0)),
            },
            _ => match real(context, 0).zip(real(context, 1)).map(|(one, other)| one % other) {
                Some(rest) if !rest.is_nan() => Value::Real(rest),
                _ => Value::Null,
            },
        })
    })
}

/// An argument that is a number, or a text that is one.
fn number(context: &Context<'_>, argument: usize) -> Option<Value> {
    match context.get_raw(argument) {
        ValueRef::Integer(number) => Some(Value::Integer(number)),
        ValueRef::Real(number) => Some(Value::Real(number)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).ok()?.trim();
            let whole = text.parse().map(Value::Integer);
            whole.or_else(|_| text.parse().map(Value::Real)).ok()
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

pub(super) fn real(context: &Context<'_>, argument: usize) -> Option<f64> {
    match number(context, argument)? {
        Value::Integer(number) => Some(number as f64),
        Value::Real(number) => Some(number),
        _ => None,
    }
}
