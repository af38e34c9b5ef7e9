//! The automaton that reads one JSON value and says where it ends, or where it stops being JSON.
//!
//! It knows the whole grammar of RFC 8259 and can be stopped and resumed at any byte, so what it
//! says depends on the bytes alone and not on how they were cut into chunks. It keeps no text: what
//! is open is one bit per level. UTF-8 is left to `std::str::from_utf8`, which is faster at it.

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
    /// Behind a value inside an object or array.
    Comma,
    /// Inside a string, and behind its `\`.
    Text,
    Escape,
    /// Inside `\u`: how many hex digits are still to come.
    Hex(u8),
    /// Inside a number: what came last.
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ExponentSign,
    Exponent,
    /// Inside `true`, `false` or `null`: what is still to come.
    Literal(&'static [u8]),
}

/// Reads one value; for the next one, make a new scanner.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
    /// The string that is open is a key.
    in_key: bool,
    depth: u32,
    /// One bit per open level, the innermost lowest: set for an object, clear for an array.
    objects: u128,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Value, in_key: false, depth: 0, objects: 0 }
    }

    /// Whether the value would be complete if nothing followed: only a number outside every object
    /// and array is open and complete at once.
    pub(super) fn is_complete_at_end(&self) -> bool {
        self.depth == 0
            && matches!(
                self.state,
                State::Zero | State::Integer | State::Fraction | State::Exponent
            )
    }

    /// Reads on through `bytes`, which follow what was read before, and says how many belong to the
    /// value.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (usize, Step) {
        let mut at = 0;
        let step = self.advance(bytes, &mut at);
        (at, step)
    }

    fn advance(&mut self, bytes: &[u8], position: &mut usize) -> Step {
        let mut at = *position;
        let mut state = self.state;
        // Leaves the loop: `at` is where the value's part of `bytes` ends.
        macro_rules! stop {
            ($step:expr) => {{
                self.state = state;
                *position = at;
                return $step;
            }};
        }
        // Behind a value: at the top it was the one asked for.
        macro_rules! value_ended {
            () => {{
                if self.depth == 0 {
                    stop!(Step::Complete);
                }
                state = State::Comma;
            }};
        }
        macro_rules! open {
            ($object:expr, $next:expr) => {{
                if self.depth == MAX_DEPTH {
                    stop!(Step::TooDeep);
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from($object);
                at += 1;
                state = $next;
            }};
        }
        macro_rules! close {
            () => {{
                self.depth -= 1;
                self.objects >>= 1;
                at += 1;
                value_ended!();
            }};
        }

        loop {
            let Some(&byte) = bytes.get(at) else { stop!(Step::Open) };
            match state {
                State::Text => {
                    at = skip_text(bytes, at);
                    match bytes.get(at) {
                        None => stop!(Step::Open),
                        Some(b'"') => {
                            at += 1;
                            if self.in_key {
                                state = State::Colon;
                            } else {
                                value_ended!();
                            }
                        }
                        Some(b'\\') => {
                            at += 1;
                            state = State::Escape;
                        }
                        Some(_) => stop!(Step::NotJson("a control character in a string")),
                    }
                }
                State::Colon => match byte {
                    b':' => {
                        at += 1;
                        state = State::Value;
                    }
                    b' ' | b'\t' | b'\r' | b'\n' => at = skip_white_space(bytes, at),
                    _ => stop!(Step::NotJson("expected `:`")),
                },
                State::Comma => match byte {
                    b',' => {
                        at += 1;
                        state = if self.objects & 1 == 1 { State::Key } else { State::Value };
                    }
                    b'}' if self.objects & 1 == 1 => close!(),
                    b']' if self.objects & 1 == 0 => close!(),
                    b' ' | b'\t' | b'\r' | b'\n' => at = skip_white_space(bytes, at),
                    _ if self.objects & 1 == 1 => stop!(Step::NotJson("expected `,` or `}`")),
                    _ => stop!(Step::NotJson("expected `,` or `]`")),
                },
                State::Key | State::FirstKey => match byte {
                    b'"' => {
                        at += 1;
                        self.in_key = true;
                        state = State::Text;
                    }
                    b'}' if state == State::FirstKey => close!(),
                    b' ' | b'\t' | b'\r' | b'\n' => at = skip_white_space(bytes, at),
                    _ => stop!(Step::NotJson("expected a key")),
                },
                State::Value | State::FirstElement => match byte {
                    b'"' => {
                        at += 1;
                        self.in_key = false;
                        state = State::Text;
                    }
                    b'1'..=b'9' => {
                        at += 1;
                        state = State::Integer;
                    }
                    b' ' | b'\t' | b'\r' | b'\n' => at = skip_white_space(bytes, at),
                    b'{' => open!(true, State::FirstKey),
                    b'[' => open!(false, State::FirstElement),
                    b']' if state == State::FirstElement => close!(),
                    b'0' => {
                        at += 1;
                        state = State::Zero;
                    }
                    b'-' => {
                        at += 1;
                        state = State::Minus;
                    }
                    b't' => {
                        at += 1;
                        state = State::Literal(b"rue");
                    }
                    b'f' => {
                        at += 1;
                        state = State::Literal(b"alse");
                    }
                    b'n' => {
                        at += 1;
                        state = State::Literal(b"ull");
                    }
                    _ => stop!(Step::NotJson("expected a value")),
                },
                State::Escape => {
                    state = match byte {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                        b'u' => State::Hex(4),
                        _ => stop!(Step::NotJson("an unknown escape in a string")),
                    };
                    at += 1;
                }
                State::Hex(left) => {
                    if !byte.is_ascii_hexdigit() {
                        stop!(Step::NotJson("expected four hex digits behind `\\u`"));
                    }
                    at += 1;
                    state = if left == 1 { State::Text } else { State::Hex(left - 1) };
                }
                State::Literal(rest) => match rest {
                    [expected, rest @ ..] if byte == *expected => {
                        at += 1;
                        if rest.is_empty() {
                            value_ended!();
                        } else {
                            state = State::Literal(rest);
                        }
                    }
                    _ => stop!(Step::NotJson("expected `true`, `false` or `null`")),
                },
                State::Integer | State::Fraction | State::Exponent if byte.is_ascii_digit() => {
                    at += 1;
                }
                State::Minus => {
                    state = match byte {
                        b'0' => State::Zero,
                        b'1'..=b'9' => State::Integer,
                        _ => stop!(Step::NotJson(BAD_NUMBER)),
                    };
                    at += 1;
                }
                State::Point => {
                    if !byte.is_ascii_digit() {
                        stop!(Step::NotJson(BAD_NUMBER));
                    }
                    at += 1;
                    state = State::Fraction;
                }
                State::E | State::ExponentSign => {
                    state = match byte {
                        b'0'..=b'9' => State::Exponent,
                        b'+' | b'-' if state == State::E => State::ExponentSign,
                        _ => stop!(Step::NotJson(BAD_NUMBER)),
                    };
                    at += 1;
                }
                State::Zero | State::Integer | State::Fraction | State::Exponent => match byte {
                    b'.' if matches!(state, State::Zero | State::Integer) => {
                        at += 1;
                        state = State::Point;
                    }
                    b'e' | b'E' if state != State::Exponent => {
                        at += 1;
                        state = State::E;
                    }
                    // What only a number goes on with: `01` is not 0 and then 1.
                    b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => {
                        stop!(Step::NotJson(BAD_NUMBER));
                    }
                    _ => value_ended!(),
                },
            }
        }
    }
}

const BAD_NUMBER: &str = "a malformed number";

/// The first white space at or after `at` that is not a space, tab or line break, or the end.
/// `bytes[at]` is one; behind it usually comes a token, or the spaces that indent one.
fn skip_white_space(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The first byte at or after `at` that is not plain text of a string: a quote, a backslash, a
/// control character, or the end.
fn skip_text(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let special = special(u64::from_le_bytes(*eight));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

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
