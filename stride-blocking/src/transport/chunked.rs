//! The framing of a body that comes in chunks (RFC 9112, 7.1), checked before ureq decodes it.
//!
//! ureq forgets the chunks before a broken one when they come at once, takes a body for whole that
//! lacks the empty line at its end, and refuses extensions of more than a few bytes. So it gets
//! nothing but good framing: no extensions, no trailers, and an error of ours where it breaks.

/// The longest that all extensions together, or the trailers, may be.
const LONGEST_EXTRA: usize = 16 << 10;

/// The most digits of a size: those of 64 bits.
const MOST_DIGITS: u32 = 16;

/// Where in the framing a body is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// How many bytes of extensions and trailers came.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: u32,
    },
    /// White space behind a size.
    Blank {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// Behind the last chunk: the empty line, or a trailer.
    EndCr,
    EndLf,
    Trailer,
    TrailerLf,
    Done,
    Broken,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Framing {
    /// Looks at what was received and moves what is good of it to the front. Returns how much that
    /// is.
    pub(super) fn sieve(&mut self, received: &mut [u8]) -> usize {
        let (mut kept, mut at) = (0, 0);
        while at < received.len() {
            let run = match self.state {
                State::Data { left } => {
                    let run = usize::try_from(left).unwrap_or(usize::MAX).min(received.len() - at);
                    let left = left - run as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    run
                }
                // What comes behind the body is for ureq to stumble over.
                State::Done => received.len() - at,
                State::Broken => break,
                _ => match self.step(received[at]) {
                    Some(true) => 1,
                    Some(false) => {
                        at += 1;
                        continue;
                    }
                    None => {
                        self.state = State::Broken;
                        break;
                    }
                },
            };
            if kept != at {
                received.copy_within(at..at + run, kept);
            }
            (kept, at) = (kept + run, at + run);
        }
        kept
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the body may end here.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on by a byte of the framing. Returns whether it is kept; `None` if it must not come here.
    fn step(&mut self, byte: u8) -> Option<bool> {
        use State::{
            Blank, Data, DataCr, DataLf, Done, EndCr, EndLf, Extension, Size, SizeLf, Trailer,
            TrailerLf,
        };
        let (next, keep) = match (self.state, byte) {
            (Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if digits == MOST_DIGITS {
                    return None;
                }
                (Size { size: (size << 4) | digit, digits: digits + 1 }, true)
            }
            (Size { digits: 0, .. }, _) => return None,
            (Size { size, .. } | Blank { size }, b' ' | b'\t') => (Blank { size }, false),
            (Size { size, .. } | Blank { size }, b';') => (Extension { size }, false),
            (Size { size, .. } | Blank { size } | Extension { size }, b'\r') => {
                (SizeLf { size }, true)
            }
            (Extension { .. }, b'\n') => return None,
            (Extension { size }, _) => (Extension { size }, false),
            (SizeLf { size: 0 }, b'\n') => (EndCr, true),
            (SizeLf { size }, b'\n') => (Data { left: size }, true),
            (DataCr, b'\r') => (DataLf, true),
            (DataLf, b'\n') => (State::default(), true),
            (EndCr, b'\r') => (EndLf, true),
            (EndLf, b'\n') => (Done, true),
            (EndCr, _) => (Trailer, false),
            (Trailer, b'\r') => (TrailerLf, false),
            (Trailer, _) => (Trailer, false),
            (TrailerLf, b'\n') => (EndCr, false),
            _ => return None,
        };
        if !keep {
            self.extra += 1;
            if self.extra > LONGEST_EXTRA {
                return None;
            }
        }
        self.state = next;
        Some(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of these pieces, and how it ended.
    fn sieved<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, State) {
        let mut framing = Framing::default();
        let mut kept = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let good = framing.sieve(&mut piece);
            kept.extend_from_slice(&piece[..good]);
        }
        (String::from_utf8(kept).unwrap(), framing.state)
    }

    #[test]
    fn n11_what_is_good_is_kept_however_it_is_cut() {
        use State::{Broken, Data, Done, EndCr};
        let long = format!("5;a={}\r\nhello\r\n0\r\n\r\n", "b".repeat(1000));
        let longest = format!("5;{}\r\nhello", "b".repeat(LONGEST_EXTRA));
        for (body, kept, state) in [
            ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", Done),
            ("0A\r\n0123456789\r\n00\r\n\r\n", "0A\r\n0123456789\r\n00\r\n\r\n", Done),
            ("5 \t;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", Done),
            (&long, "5\r\nhello\r\n0\r\n\r\n", Done),
            (&longest, "5", Broken),
            ("0\r\na: b\r\nc: d\r\n\r\n", "0\r\n\r\n", Done),
            ("0\r\n\r\nHTTP/1.1", "0\r\n\r\nHTTP/1.1", Done),
            ("1\r\na\r\n0\r\n", "1\r\na\r\n0\r\n", EndCr),
            ("3\r\na", "3\r\na", Data { left: 2 }),
            ("1\r\na\r\nzz\r\nb", "1\r\na\r\n", Broken),
            ("1\r\na\r\n1z\r\nb", "1\r\na\r\n1", Broken),
            ("1\r\nab\r\n", "1\r\na", Broken),
            ("1\r\na\rb", "1\r\na\r", Broken),
            ("1\na", "1", Broken),
            ("\r\n", "", Broken),
            (";a\r\n", "", Broken),
            ("-1\r\n", "", Broken),
            ("1 1\r\n", "1", Broken),
            ("1;a\nb\r\n", "1", Broken),
            ("10000000000000000\r\n", "1000000000000000", Broken),
            ("0\r\n\rX", "0\r\n\r", Broken),
            ("0\r\na: b\rX", "0\r\n", Broken),
        ] {
            for size in [1, 2, 3, 7, body.len()] {
                let pieces = body.as_bytes().chunks(size);
                assert_eq!(sieved(pieces), (kept.to_owned(), state), "{body:?} in {size}");
            }
        }
    }
}
