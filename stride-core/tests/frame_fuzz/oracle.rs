//! A second reading of a body, for comparison: the whole of it at once, by `serde_json`.
//!
//! It knows nothing of chunks, of buffers or of an automaton. What is left to compare is what
//! `serde_json` does not decide: where reading goes on behind what is not JSON, and what is too large.

use serde::Deserialize as _;
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;
use stride_core::frame::{FrameDecoder, FrameError};

/// An item, without the words of its error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Frame(String),
    NotJson(usize),
    NotUtf8(usize),
    TooDeep,
    TooLarge,
    Truncated(usize),
    /// Only in typed reading.
    Mismatch(String),
}

/// The levels that `serde_json` parses.
const DEEPEST: usize = 127;

/// How the value at the start of a text goes on.
enum Start {
    Complete(usize),
    /// The byte there cannot follow.
    Wrong(usize),
    TooDeep(usize),
    /// Nothing is wrong up to the end of the body.
    Open,
}

/// All items of the body, by a limit to the size of a frame.
pub(crate) fn read(body: &[u8], limit: usize) -> Vec<Item> {
    let (text, tail) = as_text(body);
    let bytes = text.as_bytes();
    let is_break = |at: usize| matches!(bytes[at], b'\r' | b'\n');
    let opens = |at: usize| at > 0 && is_break(at - 1) && bytes.get(at) == Some(&b'{');
    let mut items = Vec::new();
    let mut at = if text.starts_with('\u{feff}') { 3 } else { 0 };
    loop {
        at += bytes[at..].iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        if at == bytes.len() {
            if tail > 0 {
                items.push(Item::Truncated(tail));
            }
            return items;
        }
        let (wrong, item) = match first_value(&text[at..]) {
            Start::Complete(length) => {
                let frame = Item::Frame(text[at..at + length].to_owned());
                items.push(if length > limit { Item::TooLarge } else { frame });
                at += length;
                continue;
            }
            Start::Open => {
                let length = bytes.len() - at;
                items.push(if length > limit {
                    Item::TooLarge
                } else {
                    Item::Truncated(length + tail)
                });
                return items;
            }
            Start::TooDeep(wrong) => (wrong, Item::TooDeep),
            Start::Wrong(wrong) if bytes[at + wrong] == 0 => (wrong, Item::NotUtf8(wrong)),
            Start::Wrong(wrong) => (wrong, Item::NotJson(wrong)),
        };
        let is_too_large = wrong > limit;
        items.push(if is_too_large { Item::TooLarge } else { item });
        let wrong = at + wrong;
        // Back to the last record that began inside, unless all of it was given up already.
        let inside = (at + 1..=wrong).rev().find(|&start| opens(start));
        let next = inside.filter(|_| !is_too_large);
        match next.or_else(|| (wrong..bytes.len()).find(|&start| opens(start))) {
            Some(next) => at = next,
            None => return items,
        }
    }
}

/// The same with each frame parsed.
pub(crate) fn typed(items: &[Item]) -> Vec<Item> {
    let parse = |item: &Item| match item {
        Item::Frame(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => Item::Frame(value.to_string()),
            Err(error) => Item::Mismatch(error.to_string()),
        },
        other => other.clone(),
    };
    items.iter().map(parse).collect()
}

/// A NUL, which is in no JSON text, for each byte that is not UTF-8; and how many bytes of a character
/// there are at the end that has not come whole.
fn as_text(body: &[u8]) -> (String, usize) {
    let mut text = String::new();
    let mut chunks = body.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text += chunk.valid();
        let invalid = chunk.invalid();
        let is_cut_off =
            std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if chunks.peek().is_none() && is_cut_off {
            return (text, invalid.len());
        }
        text.extend(invalid.iter().map(|_| '\0'));
    }
    (text, 0)
}

fn parse(text: &str) -> Result<&RawValue, serde_json::Error> {
    <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// Whether some JSON text begins like this, as far as `serde_json` can tell.
fn is_viable(text: &str) -> bool {
    let ends_in_eof = |text: &str| match parse(text) {
        Ok(_) => true,
        Err(error) => error.classify() == Category::Eof,
    };
    // It calls a number malformed whose next digit is still to come.
    ends_in_eof(text)
        || (text.ends_with(['-', '+', '.', 'e', 'E']) && ends_in_eof(&format!("{text}0")))
}

fn first_value(text: &str) -> Start {
    let bytes = text.as_bytes();
    let (grammar, length) = match parse(text) {
        Ok(value) => {
            let length = value.get().len();
            // A number goes on for as long as bytes of numbers come.
            let is_number = matches!(bytes[0], b'-' | b'0'..=b'9');
            let goes_on = bytes.get(length).is_some_and(|byte| b"0123456789.eE+-".contains(byte));
            if is_number && goes_on {
                return Start::Wrong(length);
            }
            (Start::Complete(length), length)
        }
        Err(error) if error.classify() == Category::Eof => match unfinished_escape(text) {
            Some(wrong) => (Start::Wrong(wrong), wrong),
            None => (Start::Open, bytes.len()),
        },
        Err(_) if is_viable(text) => (Start::Open, bytes.len()),
        Err(_) => {
            let wrong = first_wrong(text);
            (Start::Wrong(wrong), wrong)
        }
    };
    match too_deep(&bytes[..length]) {
        Some(at) => Start::TooDeep(at),
        None => grammar,
    }
}

/// The first byte with which the text stops being the beginning of a JSON text.
fn first_wrong(text: &str) -> usize {
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at += 1;
        }
        at
    };
    let mut end = 1;
    while end < text.len() && is_viable(&text[..boundary(end)]) {
        end *= 2;
    }
    // The shortest beginning that is wrong has between `viable` and `wrong` bytes.
    let (mut viable, mut wrong) = (0, boundary(end.min(text.len())));
    loop {
        let middle = boundary(viable + (wrong - viable) / 2);
        if middle == wrong || middle == viable {
            break;
        }
        if is_viable(&text[..middle]) {
            viable = middle;
        } else {
            wrong = middle;
        }
    }
    // Between the two, there may be a character's bytes.
    let wrong =
        (viable + 1..=wrong).find(|&end| text.is_char_boundary(end) && !is_viable(&text[..end]));
    let wrong = wrong.map_or(text.len() - 1, |end| {
        let last = text[..end].char_indices().next_back();
        last.map_or(0, |(at, _)| at)
    });
    // `serde_json` looks at the digits of an escape only when there are four.
    let digits = wrong.saturating_sub(3)..=wrong;
    let escape = digits.clone().find(|&start| opens_escape(&text.as_bytes()[..start]));
    match escape {
        Some(start) if is_invalid_escape(&text[..=last_of(text, wrong)]) => {
            (start..=wrong).find(|&at| !text.as_bytes()[at].is_ascii_hexdigit()).unwrap_or(wrong)
        }
        _ => wrong,
    }
}

/// The last byte of the character that begins there.
fn last_of(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8) - 1
}

/// Whether the text ends with `\u`, of which the backslash is not escaped itself.
fn opens_escape(text: &[u8]) -> bool {
    let Some(before) = text.strip_suffix(b"u") else { return false };
    before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

fn is_invalid_escape(text: &str) -> bool {
    parse(text).is_err_and(|error| error.to_string().starts_with("invalid escape"))
}

/// Where the text ends inside an escape that is wrong already.
fn unfinished_escape(text: &str) -> Option<usize> {
    let start = (text.len().saturating_sub(3)..=text.len())
        .find(|&start| opens_escape(&text.as_bytes()[..start]))?;
    let wrong = text.as_bytes()[start..].iter().position(|byte| !byte.is_ascii_hexdigit())?;
    is_invalid_escape(&format!("{text}0000")).then_some(start + wrong)
}

/// Where a level too many is opened, in what is the beginning of a JSON text.
fn too_deep(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string && depth == DEEPEST => return Some(at),
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    None
}

/// How items are taken from the decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Take {
    Raw,
    Typed,
    /// One way or the other: this many raw, and one typed.
    Mixed(usize),
}

/// What the decoder makes of chunks of these sizes, over and over; and whether its items are taken
/// after each of them, or only at the end.
pub(crate) fn decode(
    body: &[u8],
    limit: usize,
    sizes: &[usize],
    take: Take,
    at_once: bool,
) -> Vec<Item> {
    let mut decoder = FrameDecoder::with_limit(limit);
    let mut items = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = body;
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |&size| size.max(1)).min(rest.len());
        let (chunk, behind) = rest.split_at(size);
        rest = behind;
        decoder.feed(chunk);
        while at_once && next(&mut decoder, take, &mut items) {}
    }
    decoder.finish();
    while next(&mut decoder, take, &mut items) {}
    items
}

fn next(decoder: &mut FrameDecoder, take: Take, items: &mut Vec<Item>) -> bool {
    let is_typed = match take {
        Take::Raw => false,
        Take::Typed => true,
        Take::Mixed(every) => items.len() % (every + 1) == every,
    };
    let item = if is_typed {
        decoder.next_as::<Value>().map(|item| item.map(|value| value.to_string()))
    } else {
        decoder.next_frame().map(|item| item.map(|frame| frame.as_str().to_owned()))
    };
    let Some(item) = item else { return false };
    items.push(match item {
        Ok(text) => Item::Frame(text),
        Err(FrameError::NotJson { at, .. }) => Item::NotJson(at),
        Err(FrameError::NotUtf8 { at }) => Item::NotUtf8(at),
        Err(FrameError::TooDeep { .. }) => Item::TooDeep,
        Err(FrameError::TooLarge { .. }) => Item::TooLarge,
        Err(FrameError::Truncated { length }) => Item::Truncated(length),
        Err(FrameError::Mismatch(error)) => Item::Mismatch(error.to_string()),
        Err(other) => panic!("{other:?}"),
    });
    true
}

/// Compares both readings, and panics where they differ.
pub(crate) fn check(body: &[u8], limit: usize, sizes: &[usize], take: Take, at_once: bool) {
    let mut expected = read(body, limit);
    match take {
        Take::Raw => {}
        Take::Typed => expected = typed(&expected),
        Take::Mixed(every) => {
            let typed = typed(&expected);
            for (index, item) in expected.iter_mut().enumerate() {
                if index % (every + 1) == every {
                    item.clone_from(&typed[index]);
                }
            }
        }
    }
    let items = decode(body, limit, sizes, take, at_once);
    let same = items.iter().zip(&expected).take_while(|(item, expected)| item == expected).count();
    assert!(
        items == expected,
        "{take:?}, at once {at_once}, limit {limit}, chunks {sizes:?}\n\
         body \"{}\"\nitem {same} is\n{:?}\nand should be\n{:?}",
        body.escape_ascii(),
        items.get(same),
        expected.get(same),
    );
}
