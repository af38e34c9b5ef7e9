//! Functions of SQLite that are made anew here: what its own take grows with both lengths multiplied, and nothing
//! can interrupt them. And those that it lacks.

mod dates;
mod numbers;
mod percentiles;
pub(super) mod times;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Error};
use serde_json::value::RawValue;

use super::objects::kept;
use super::sandbox::{LARGEST_VALUE, Sandbox};

/// How many steps a function takes between two looks at the clock.
const LOOK: u32 = 50_000;

/// How deep objects may be nested that are patched.
const DEEPEST: usize = 100;

/// Puts these functions in the place of SQLite's own.
pub(super) fn install(connection: &Connection, sandbox: &Sandbox) -> rusqlite::Result<()> {
    dates::install(connection)?;
    numbers::install(connection)?;
    percentiles::install(connection)?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let likes = [("like", 2), ("like", 3), ("ilike", 2), ("ilike", 3)];
    for (name, arguments) in likes {
        let clock = sandbox.clone();
        let letter = if name == "like" { Piece::Letter } else { Piece::Folded };
        connection.create_scalar_function(name, arguments, pure, move |context| {
            // `x LIKE y` is `like(y, x)`.
            let (Some(pattern), Some(text)) = (text(context, 0), text(context, 1)) else {
                return Ok(None);
            };
            let escape = if context.len() == 3 {
                let Some(escape) = self::text(context, 2) else { return Ok(None) };
                let mut letters = escape.chars();
                match (letters.next(), letters.next()) {
                    (Some(escape), None) => Some(escape),
                    _ => return Err(failed("ESCAPE expression must be a single character")),
                }
            } else {
                None
            };
            matches(&like(&pattern, escape, letter), &text, &mut Steps::new(&clock)).map(Some)
        })?;
    }
    connection.create_scalar_function("same_type", 2, pure, |context| {
        let kind = |argument| match context.get_raw(argument) {
            ValueRef::Integer(_) | ValueRef::Real(_) => Type::Real,
            other => other.data_type(),
        };
        Ok((kind(0) == kind(1)).then(|| kept(context.get_raw(0))))
    })?;
    let clock = sandbox.clone();
    connection.create_scalar_function("glob", 2, pure, move |context| {
        let (Some(pattern), Some(text)) = (text(context, 0), text(context, 1)) else {
            return Ok(None);
        };
        matches(&glob(&pattern), &text, &mut Steps::new(&clock)).map(Some)
    })?;
    let clock = sandbox.clone();
    connection.create_scalar_function("instr", 2, pure, move |context| {
        read(context, &clock)?;
        Ok(instr(context))
    })?;
    let clock = sandbox.clone();
    connection.create_scalar_function("replace", 3, pure, move |context| {
        read(context, &clock)?;
        Ok(replace(context))
    })?;
    for (name, start, end) in [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)]
    {
        for arguments in [1, 2] {
            let clock = sandbox.clone();
            connection.create_scalar_function(name, arguments, pure, move |context| {
                trim(context, start, end, &mut Steps::new(&clock))
            })?;
        }
    }
    let clock = sandbox.clone();
    connection.create_scalar_function("json_patch", 2, pure, move |context| {
        let (Some(target), Some(patch)) = (text(context, 0), text(context, 1)) else {
            return Ok(None);
        };
        let mut patched = String::with_capacity(target.len() + patch.len());
        merge(Some(&target), &patch, DEEPEST, &mut Steps::new(&clock), &mut patched)?;
        Ok(Some(patched))
    })?;
    Ok(())
}

fn failed(why: &str) -> Error {
    Error::UserFunctionError(why.into())
}

/// Looks at the clock now and then.
struct Steps<'c> {
    clock: &'c Sandbox,
    left: u32,
}

impl<'c> Steps<'c> {
    fn new(clock: &'c Sandbox) -> Self {
        Self { clock, left: LOOK }
    }

    fn take(&mut self, steps: usize) -> rusqlite::Result<()> {
        self.left = self.left.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        if self.left == 0 {
            self.left = LOOK;
            if self.clock.is_late() {
                let interrupted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                return Err(Error::SqliteFailure(interrupted, None));
            }
        }
        Ok(())
    }
}

/// Looks at the clock if the arguments are long.
fn read(context: &Context<'_>, clock: &Sandbox) -> rusqlite::Result<()> {
    let lengths = (0..context.len()).map(|argument| match context.get_raw(argument) {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    });
    Steps::new(clock).take(lengths.sum())
}

/// An argument as a text; `None` if it is `NULL`.
fn text<'c>(context: &'c Context<'_>, argument: usize) -> Option<Cow<'c, str>> {
    match context.get_raw(argument) {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Real(number) => Some(real(number).into()),
        ValueRef::Text(text) | ValueRef::Blob(text) => Some(String::from_utf8_lossy(text)),
    }
}

/// A number as SQLite writes it.
fn real(number: f64) -> String {
    let digits = format!("{number:.14e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !number.is_finite() {
        return if number > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    if (-5..15).contains(&exponent) {
        let places = usize::try_from(14 - exponent).unwrap_or(0);
        let fixed = format!("{number:.places$}");
        let short = if fixed.contains('.') { fixed.trim_end_matches('0') } else { &fixed };
        return if short.ends_with('.') { format!("{short}0") } else { short.to_owned() };
    }
    let short = mantissa.trim_end_matches('0');
    let zero = if short.ends_with('.') { "0" } else { "" };
    format!("{short}{zero}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A piece of a pattern.
#[derive(Debug, PartialEq)]
enum Piece {
    /// Any text.
    Any,
    /// Any letter.
    One,
    Letter(char),
    /// A letter of either case, of those that have two in ASCII.
    Folded(char),
    /// A letter of these ranges, or of none of them.
    Of(Vec<(char, char)>, bool),
    /// No letter: the set before it has no end.
    Nothing,
}

impl Piece {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Any | Self::Nothing => false,
            Self::One => true,
            Self::Letter(wanted) => letter == *wanted,
            Self::Folded(wanted) => letter.eq_ignore_ascii_case(wanted),
            Self::Of(ranges, inside) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&letter)) == *inside
            }
        }
    }
}

fn like(pattern: &str, escape: Option<char>, letter_of: fn(char) -> Piece) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            letter if Some(letter) == escape => match letters.next() {
                Some(letter) => letter_of(letter),
                None => Piece::Nothing,
            },
            '%' => Piece::Any,
            '_' => Piece::One,
            letter => letter_of(letter),
        });
    }
    pieces
}

fn glob(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '*' => Piece::Any,
            '?' => Piece::One,
            '[' => {
                let inside = letters.next_if_eq(&'^').is_none();
                let (mut ranges, mut closed) = (Vec::new(), false);
                // At the start, a bracket is a letter of the set.
                if letters.next_if_eq(&']').is_some() {
                    ranges.push((']', ']'));
                }
                while let Some(letter) = letters.next() {
                    match letter {
                        ']' => {
                            closed = true;
                            break;
                        }
                        '-' if !ranges.is_empty()
                            && letters.peek().is_some_and(|next| *next != ']') =>
                        {
                            if let (Some((_, to)), Some(end)) = (ranges.last_mut(), letters.next())
                            {
                                *to = end;
                            }
                        }
                        letter => ranges.push((letter, letter)),
                    }
                }
                if closed { Piece::Of(ranges, inside) } else { Piece::Nothing }
            }
            letter => Piece::Letter(letter),
        });
    }
    pieces
}

/// Whether a text is as the pattern says. After a failure, only the last `Any` can take more.
fn matches(pattern: &[Piece], text: &str, steps: &mut Steps<'_>) -> rusqlite::Result<bool> {
    let mut letters = text.chars();
    let mut piece = 0;
    let mut retry = None;
    loop {
        steps.take(1)?;
        if let Some(Piece::Any) = pattern.get(piece) {
            piece += 1;
            retry = Some((piece, letters.clone()));
            continue;
        }
        let before = letters.clone();
        let taken = match (pattern.get(piece), letters.next()) {
            (None, None) => return Ok(true),
            (Some(piece), Some(letter)) => piece.takes(letter),
            // The text has ended, and the pattern wants more.
            (Some(_), None) => return Ok(false),
            (None, Some(_)) => false,
        };
        if taken {
            piece += 1;
            continue;
        }
        let Some((after, from)) = &mut retry else { return Ok(false) };
        drop(before);
        if from.next().is_none() {
            return Ok(false);
        }
        piece = *after;
        letters = from.clone();
    }
}

fn instr(context: &Context<'_>) -> Option<i64> {
    let place = |found: usize| i64::try_from(found).unwrap_or(i64::MAX) + 1;
    if let (ValueRef::Blob(all), ValueRef::Blob(part)) = (context.get_raw(0), context.get_raw(1)) {
        return Some(memmem::find(all, part).map_or(0, place));
    }
    let (all, part) = (text(context, 0)?, text(context, 1)?);
    let at = memmem::find(all.as_bytes(), part.as_bytes());
    Some(at.map_or(0, |at| place(all[..at].chars().count())))
}

fn replace(context: &Context<'_>) -> Option<String> {
    let (all, part, by) = (text(context, 0)?, text(context, 1)?, text(context, 2)?);
    if part.is_empty() {
        return Some(all.into_owned());
    }
    let mut replaced = String::with_capacity(all.len());
    let mut from = 0;
    for at in memmem::find_iter(all.as_bytes(), part.as_bytes()) {
        replaced.push_str(&all[from..at]);
        replaced.push_str(&by);
        from = at + part.len();
        // SQLite refuses what is too large, and the rest makes it no smaller.
        if replaced.len() > LARGEST_VALUE {
            return Some(replaced);
        }
    }
    replaced.push_str(&all[from..]);
    Some(replaced)
}

fn trim(
    context: &Context<'_>,
    start: bool,
    end: bool,
    steps: &mut Steps<'_>,
) -> rusqlite::Result<Option<String>> {
    let Some(all) = text(context, 0) else { return Ok(None) };
    let unwanted = match context.len() {
        1 => HashSet::from([' ']),
        _ => match text(context, 1) {
            Some(unwanted) => unwanted.chars().collect(),
            None => return Ok(None),
        },
    };
    let mut left = all.chars();
    if start {
        while left.clone().next().is_some_and(|letter| unwanted.contains(&letter)) {
            left.next();
            steps.take(1)?;
        }
    }
    if end {
        while left.clone().next_back().is_some_and(|letter| unwanted.contains(&letter)) {
            left.next_back();
            steps.take(1)?;
        }
    }
    Ok(Some(left.as_str().to_owned()))
}

type Pairs<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The keys of an object with their values, in order, or nothing if it is none.
fn pairs(json: &str) -> rusqlite::Result<Option<Pairs<'_>>> {
    struct PairsVisitor;
    impl<'de> serde::de::Visitor<'de> for PairsVisitor {
        type Value = Pairs<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    if !json.trim_start().starts_with('{') {
        return Ok(None);
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = serde::Deserializer::deserialize_map(&mut deserializer, PairsVisitor);
    read.and_then(|pairs| deserializer.end().map(|()| Some(pairs)))
        .map_err(|_| failed("malformed JSON"))
}

/// RFC 7396: writes what `patch` makes of `target`.
fn merge(
    target: Option<&str>,
    patch: &str,
    depth: usize,
    steps: &mut Steps<'_>,
    out: &mut String,
) -> rusqlite::Result<()> {
    steps.take(target.map_or(0, str::len) + patch.len())?;
    let Some(patch_pairs) = pairs(patch)? else {
        out.push_str(patch.trim());
        return Ok(());
    };
    let depth = depth.checked_sub(1).ok_or_else(|| failed("JSON nested too deep"))?;
    let target = target.map(pairs).transpose()?.flatten().unwrap_or_default();
    let mut values: Vec<(Cow<'_, str>, Option<&RawValue>, Option<&RawValue>)> =
        target.into_iter().map(|(key, value)| (key, Some(value), None)).collect();
    let mut places: HashMap<Cow<'_, str>, usize> =
        values.iter().enumerate().map(|(place, (key, ..))| (key.clone(), place)).collect();
    for (key, value) in patch_pairs {
        match places.get(&key) {
            Some(place) => values[*place].2 = Some(value),
            None => {
                places.insert(key.clone(), values.len());
                values.push((key, None, Some(value)));
            }
        }
    }
    out.push('{');
    let mut first = true;
    for (key, old, new) in values {
        if new.is_some_and(|new| new.get() == "null") {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(key).to_string());
        out.push(':');
        match new {
            Some(new) => merge(old.map(RawValue::get), new.get(), depth, steps, out)?,
            None => out.push_str(old.map_or("null", RawValue::get)),
        }
    }
    out.push('}');
    Ok(())
}
