//! Bodies of every kind, made from a seed.

use fastrand::Rng;

/// Some records, mostly JSON, with faults or without.
pub(crate) fn body(random: &mut Rng) -> Vec<u8> {
    let mut body = Vec::new();
    if random.u8(0..16) == 0 {
        body.extend_from_slice("\u{feff}".as_bytes());
    }
    let (records, size) = match random.u8(0..20) {
        0 => (1, 20_000),
        1..=4 => (random.usize(0..4), 400),
        _ => (random.usize(0..30), 60),
    };
    for _ in 0..records {
        match random.u8(0..24) {
            0 => pieces(random, &mut body),
            1 => nested(random, &mut body),
            2 => body.extend((0..random.usize(0..8)).map(|_| random.u8(..))),
            _ => {
                let end = body.len() + random.usize(0..size);
                value(random, &mut body, end, 0);
            }
        }
        let separator = SEPARATORS[random.usize(0..SEPARATORS.len())];
        body.extend_from_slice(separator);
    }
    for _ in 0..random.usize(0..4) * usize::from(random.bool()) {
        fault(random, &mut body);
    }
    body
}

/// What may stand between records; the last ones are faults.
const SEPARATORS: [&[u8]; 10] =
    [b"\r\n", b"\n", b"\r", b"", b" ", b"\r\n\r\n", b"\t", b"\n{", b",", b"0"];

/// Bytes that mean something to a reader of JSON.
const SPECIAL: &[u8] = b"\"\\{}[],: \r\n\t01-+.eEtfnu\0\x1f\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\xff";

fn special(random: &mut Rng) -> u8 {
    SPECIAL[random.usize(0..SPECIAL.len())]
}

fn fault(random: &mut Rng, body: &mut Vec<u8>) {
    let at = random.usize(0..=body.len());
    match random.u8(0..5) {
        0 => body.insert(at, special(random)),
        1 if at < body.len() => body[at] = special(random),
        2 if at < body.len() => drop(body.remove(at)),
        3 => body.truncate(at),
        4 if at < body.len() => body[at] = random.u8(..),
        _ => {}
    }
}

/// Tokens in any order.
fn pieces(random: &mut Rng, body: &mut Vec<u8>) {
    const PIECES: [&[u8]; 24] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\"",
        b"\"a\"",
        b"\\",
        b"\\u00e9",
        b"\\u12g",
        b"\\ud800",
        b"1",
        b"-0",
        b"1.5",
        b"1e9",
        b"01",
        b"true",
        b"fals",
        b"null",
        b"\n",
        b"\r\n{",
        b"\xe2\x82\xac",
        b"\xf0\x9f",
    ];
    for _ in 0..random.usize(0..12) {
        body.extend_from_slice(PIECES[random.usize(0..PIECES.len())]);
    }
}

/// About as deep as values may be.
fn nested(random: &mut Rng, body: &mut Vec<u8>) {
    let levels = random.usize(120..135);
    let (open, close): (&[u8], u8) = if random.bool() { (b"[", b']') } else { (b"{\"a\":", b'}') };
    for _ in 0..levels {
        body.extend_from_slice(open);
    }
    body.push(b'1');
    body.resize(body.len() + levels, close);
}

/// A value that ends soon after the body has this length.
fn value(random: &mut Rng, body: &mut Vec<u8>, end: usize, depth: usize) {
    let may_open = depth < 8 && body.len() < end;
    match random.u8(0..10) {
        0..=4 if may_open => members(random, body, end, depth),
        5..=6 if may_open => elements(random, body, end, depth),
        7 => number(random, body),
        8 => {
            let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
            body.extend_from_slice(literals[random.usize(0..3)]);
        }
        _ => string(random, body, end),
    }
}

fn space(random: &mut Rng, body: &mut Vec<u8>) {
    const SPACES: [&[u8]; 8] = [b"", b"", b"", b"", b" ", b"\n  ", b"\r\n", b"\t"];
    body.extend_from_slice(SPACES[random.usize(0..SPACES.len())]);
}

fn members(random: &mut Rng, body: &mut Vec<u8>, end: usize, depth: usize) {
    body.push(b'{');
    let mut is_first = true;
    while body.len() < end {
        if !std::mem::take(&mut is_first) {
            body.push(b',');
        }
        space(random, body);
        string(random, body, body.len() + 8);
        space(random, body);
        body.push(b':');
        space(random, body);
        value(random, body, end, depth + 1);
        space(random, body);
    }
    space(random, body);
    body.push(b'}');
}

fn elements(random: &mut Rng, body: &mut Vec<u8>, end: usize, depth: usize) {
    body.push(b'[');
    let mut is_first = true;
    while body.len() < end {
        if !std::mem::take(&mut is_first) {
            body.push(b',');
        }
        space(random, body);
        value(random, body, end, depth + 1);
        space(random, body);
    }
    body.push(b']');
}

fn number(random: &mut Rng, body: &mut Vec<u8>) {
    let text = match random.u8(0..6) {
        0 => random.u64(..).to_string(),
        1 => random.i16(..).to_string(),
        2 => "-0".to_owned(),
        3 => format!("{}e{}", random.u8(1..9), random.i16(-400..400)),
        _ => random.f64().to_string(),
    };
    body.extend_from_slice(text.as_bytes());
}

fn string(random: &mut Rng, body: &mut Vec<u8>, end: usize) {
    const TEXTS: [&str; 12] = [
        "a",
        "bojack",
        "\u{e9}",
        "\u{20ac}",
        "\u{1f600}",
        "{",
        "}",
        "\\\"",
        "\\\\",
        "\\n",
        "\\u00E9",
        "\\ud83d\\ude00",
    ];
    body.push(b'"');
    let long = random.u8(0..8) == 0;
    for _ in 0..if long { random.usize(0..60) } else { random.usize(0..4) } {
        body.extend_from_slice(TEXTS[random.usize(0..TEXTS.len())].as_bytes());
        if body.len() >= end && !long {
            break;
        }
    }
    body.push(b'"');
}
