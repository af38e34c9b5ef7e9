//! The automaton that reads one JSON value and says where it ends, or where it stops being JSON.
//!
//! It knows the whole grammar of RFC 8259 and can be stopped and resumed at any byte, so what it
//! says depends on the bytes alone and not on how they were cut into chunks. It keeps no text: what
//! is open is one bit per level. It takes its input to be UTF-8.

/// How deep objects and arrays may be nested: as deep as `serde_json` parses them.
pub(super) const MAX_DEPTH: u32 = 127;

/// What became of the bytes given to [`Scanner::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of them belong to the value, which goes on.
    Open,
    /// The value is complete.
    Complete,
    /// The next byte cannot follow in any JSON text; the reason names no byte of it.
    NotJson(&'static str),
    /// The next byte would open one level too many.
    TooDeep,
}

/// What was read last, and so what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// Behind `[`: a value or `]`.
    FirstElement,
    /// Behind `{`: a key or `}`.
    FirstKey,
    /// Behind the `,` of an object.
    Key,
    /// Behind a key.
    Colon,
    /// Behind a value.
    Behind,
    /// Inside a string; in it behind `\`; and behind `\u`.
    Text,
    Escape,
    Hex,
    /// Inside `true`, `false` or `null`.
    Literal,
    /// Inside a number: what came last.
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ExponentSign,
    Exponent,
}

/// Reads one value; for the next one, make a new scanner.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
    /// The string that is open is a key.
    in_key: bool,
    /// What is still to come of a literal.
    literal: &'static [u8],
    /// How many hex digits are still to come of an escape.
    hex: u8,
    depth: u32,
    /// One bit per open level, the innermost lowest: set for an object, clear for an array.
    objects: u128,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Value, in_key: false, literal: b"", hex: 0, depth: 0, objects: 0 }
    }

    /// Whether the value would be complete if nothing followed: only a number outside every object
    /// and array can be open and complete at once.
    pub(super) fn is_complete_at_end(&self) -> bool {
        use State::{Exponent, Fraction, Integer, Zero};
        self.depth == 0 && matches!(self.state, Zero | Integer | Fraction | Exponent)
    }

    /// Reads on through `bytes`, which follow what was read before, and says how many of them
    /// belong to the value.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (usize, Step) {
        use State::{
            Behind, Colon, E, Escape, Exponent, ExponentSign, FirstElement, FirstKey, Fraction,
            Hex, Integer, Key, Literal, Minus, Point, Text, Value, Zero,
        };
        let mut at = 0;
        let mut state = self.state;
        let step = loop {
            if state == Behind && self.depth == 0 {
                break Step::Complete;
            }
            let Some(&byte) = bytes.get(at) else { break Step::Open };
            let in_object = self.objects & 1 == 1;
            state = match (state, byte) {
                (
                    Value | FirstElement | FirstKey | Key | Colon | Behind,
                    b' ' | b'\t' | b'\r' | b'\n',
                ) => {
                    at = skip_space(bytes, at);
                    continue;
                }

                (FirstKey | Key, b'"') => {
                    (at, state) = self.plain_run::<true>(bytes, at);
                    continue;
                }
                (FirstKey, b'}') => self.close(),
                (FirstKey | Key, _) => break Step::NotJson("expected a key"),
                (Colon, b':') => Value,
                (Colon, _) => break Step::NotJson("expected `:`"),
                (Behind, b',') if in_object => Key,
                (Behind, b'}') if in_object => self.close(),
                (Behind, _) if in_object => break Step::NotJson("expected `,` or `}`"),
                (Behind, b',') => Value,
                (Behind, b']') => self.close(),
                (Behind, _) => break Step::NotJson("expected `,` or `]`"),

                (Value | FirstElement, b'{' | b'[') if self.depth == MAX_DEPTH => {
                    break Step::TooDeep;
                }
                (Value | FirstElement, b'{') => self.open(1, FirstKey),
                (Value | FirstElement, b'[') => self.open(0, FirstElement),
                (FirstElement, b']') => self.close(),
                (Value | FirstElement, b'"' | b'1'..=b'9') if self.depth > 0 && !in_object => {
                    (at, state) = self.plain_run::<false>(bytes, at);
                    continue;
                }
                (Value | FirstElement, b'"') => {
                    self.in_key = false;
                    Text
                }
                (Value | FirstElement, b't') => self.literal(b"rue"),
                (Value | FirstElement, b'f') => self.literal(b"alse"),
                (Value | FirstElement, b'n') => self.literal(b"ull"),
                (Value | FirstElement, b'-') => Minus,
                (Value | FirstElement | Minus, b'0') => Zero,
                (Value | FirstElement | Minus, b'1'..=b'9') => Integer,
                (Value | FirstElement, _) => break Step::NotJson("expected a value"),

                (Text, _) => {
                    at = skip_text(bytes, at);
                    match bytes.get(at) {
                        None => break Step::Open,
                        Some(b'"') if self.in_key => Colon,
                        Some(b'"') => Behind,
                        Some(b'\\') => Escape,
                        Some(_) => break Step::NotJson("a control character in a string"),
                    }
                }
                (Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Text,
                (Escape, b'u') => {
                    self.hex = 4;
                    Hex
                }
                (Escape, _) => break Step::NotJson("an unknown escape in a string"),
                (Hex, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    self.hex -= 1;
                    if self.hex == 0 { Text } else { Hex }
                }
                (Hex, _) => break Step::NotJson("expected four hex digits behind `\\u`"),

                (Literal, _) if self.literal.first() != Some(&byte) => {
                    break Step::NotJson("expected `true`, `false` or `null`");
                }
                (Literal, _) => {
                    self.literal = &self.literal[1..];
                    if self.literal.is_empty() { Behind } else { Literal }
                }

                (Integer, b'0'..=b'9') => Integer,
                (Zero | Integer, b'.') => Point,
                (Point | Fraction, b'0'..=b'9') => Fraction,
                (Zero | Integer | Fraction, b'e' | b'E') => E,
                (E, b'+' | b'-') => ExponentSign,
                (E | ExponentSign | Exponent, b'0'..=b'9') => Exponent,
                // A number ends before a byte that is in no number: `01` is not 0 and then 1.
                (Minus | Point | E | ExponentSign, _)
                | (_, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => {
                    break Step::NotJson("a malformed number");
                }
                (Zero | Integer | Fraction | Exponent, _) => {
                    state = Behind;
                    continue;
                }
            };
            at += 1;
        };
        self.state = state;
        (at, step)
    }

    fn open(&mut self, object: u128, inside: State) -> State {
        self.depth += 1;
        self.objects = self.objects << 1 | object;
        inside
    }

    fn close(&mut self) -> State {
        self.depth -= 1;
        self.objects >>= 1;
        State::Behind
    }

    fn literal(&mut self, rest: &'static [u8]) -> State {
        self.literal = rest;
        State::Literal
    }

    /// Reads on through members of an object, or elements of an array, as long as they are plain
    /// ones, as most are. It adds nothing to what the automaton above can do but speed.
    ///
    /// Begins at the `"` of a key, or at an element that is a string or a number. Returns how far it
    /// came, and the state there.
    fn plain_run<const IN_OBJECT: bool>(&mut self, bytes: &[u8], mut at: usize) -> (usize, State) {
        loop {
            at = skip_space(bytes, at);
            if IN_OBJECT {
                if bytes.get(at) != Some(&b'"') {
                    return (at, State::Key);
                }
                at = skip_text(bytes, at + 1);
                if bytes.get(at) != Some(&b'"') {
                    self.in_key = true;
                    return (at, State::Text);
                }
                at += 1;
                if bytes.get(at) != Some(&b':') {
                    return (at, State::Colon);
                }
                at += 1;
                if bytes.get(at) == Some(&b' ') {
                    at += 1;
                }
            }
            match bytes.get(at) {
                Some(b'"') => {
                    at = skip_text(bytes, at + 1);
                    if bytes.get(at) != Some(&b'"') {
                        self.in_key = false;
                        return (at, State::Text);
                    }
                    at += 1;
                }
                Some(b'1'..=b'9') => {
                    at = skip_digits(bytes, at + 1);
                    let mut number = State::Integer;
                    if bytes.get(at) == Some(&b'.')
                        && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
                    {
                        at = skip_digits(bytes, at + 2);
                        number = State::Fraction;
                    }
                    if !matches!(bytes.get(at), Some(b',' | b'}' | b']' | b'\r' | b'\n')) {
                        return (at, number);
                    }
                }
                Some(b't') if bytes[at..].starts_with(b"true") => at += 4,
                Some(b'f') if bytes[at..].starts_with(b"false") => at += 5,
                Some(b'n') if bytes[at..].starts_with(b"null") => at += 4,
                _ => return (at, State::Value),
            }
            if bytes.get(at) != Some(&b',') {
                return (at, State::Behind);
            }
            at += 1;
        }
    }
}

/// The first byte at or after `at` that is not white space, or the end.
#[inline]
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

fn skip_digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The first byte at or after `at` that is not plain text of a string: a quote, a backslash, a
/// control character, or the end.
#[inline(always)]
fn skip_text(bytes: &[u8], mut at: usize) -> usize {
    // Most strings are short. Where a predicted branch ends the loop, the next token need not wait
    // for the arithmetic below.
    for _ in 0..8 {
        if !bytes.get(at).is_some_and(|&byte| is_plain(byte)) {
            return at;
        }
        at += 1;
    }
    skip_long_text(bytes, at)
}

fn skip_long_text(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let special = special(u64::from_le_bytes(*eight));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| is_plain(byte)) {
        at += 1;
    }
    at
}

fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

/// One look-up for three comparisons.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    plain.split_at_mut(b' ' as usize).0.copy_from_slice(&[false; b' ' as usize]);
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// Marks the special bytes among eight by their highest bit. A subtraction borrows from the bytes
/// above it, so only the lowest mark is sure to be right, and only it is used.
fn special(eight: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    let quotes = eight ^ (ONES * b'"' as u64);
    let backslashes = eight ^ (ONES * b'\\' as u64);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = eight.wrapping_sub(ONES * b' ' as u64) & !eight;
    (zero(quotes) | zero(backslashes) | control) & (ONES << 7)
}
