//! From the bytes of a subscription's body to its frames.

mod scan;

use std::fmt;
use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;

use memchr::{memchr2, memchr2_iter};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use scan::{MAX_DEPTH, Scanner, Step};

/// The size a frame may have unless [`FrameDecoder::with_limit`] says otherwise: 16 MiB, far above
/// any event and small enough to hold a few.
const DEFAULT_LIMIT: usize = 16 << 20;

/// The memory the buffer keeps after a larger frame; a few chunks of the usual 16 KiB.
const KEPT: usize = 64 << 10;

/// Divides the body of a subscription into frames, each the text of one JSON value.
///
/// Feed it the body's chunks as they come, and after each take items until there are none. The
/// items depend on the bytes alone, never on how they were cut into chunks. When the body has
/// ended, say so with [`finish`](Self::finish) and take the items that are left. A decoder reads
/// one body; the next connection needs a new one.
///
/// ```
/// # use stride_core::{FrameDecoder, FrameError};
/// # #[derive(serde::Deserialize, Debug, PartialEq)]
/// # struct Count { count: u64 }
/// let mut decoder = FrameDecoder::new();
/// decoder.feed(b"{\"count\": 3}\r\n{\"cou");
/// assert_eq!(decoder.next_as::<Count>(), Some(Ok(Count { count: 3 })));
/// assert_eq!(decoder.next_as::<Count>(), None); // feed more
///
/// decoder.feed(b"nt\": 4}");
/// let frame = decoder.next_frame().expect("the value is complete").expect("and it is JSON");
/// assert_eq!(frame.as_str(), r#"{"count": 4}"#);
///
/// decoder.feed(b"{\"count\": 5\r\n{\"count\": 6}"); // a record was cut off
/// let item = decoder.next_as::<Count>();
/// assert_eq!(item, Some(Err(FrameError::NotJson { reason: "expected `,` or `}`", at: 13 })));
/// assert_eq!(decoder.next_as::<Count>(), Some(Ok(Count { count: 6 })));
///
/// decoder.finish();
/// assert_eq!(decoder.next_as::<Count>(), None);
/// ```
///
/// # Where a frame ends
///
/// Where its value ends: at the closing byte, and not at what may separate it from the next one. So
/// a frame is there as soon as its last byte is, and it makes no difference whether values stand on
/// a line each, are spread over many lines or follow each other without any separator. White space
/// between values, such as empty lines as keep-alives, is skipped, and so is a byte order mark at
/// the start of the body. A value may be of any kind. Only a number that is not inside an object or
/// array ends at the byte that follows it, or at the end of the body.
///
/// # What is not a frame
///
/// is an item, too, and never the end: a [`FrameError`], after which the decoder goes on.
///
/// * A value that cannot be JSON is reported once, as soon as the byte is there that shows it.
///   Reading goes on at the last line break inside the value (up to and including that byte) that
///   is directly followed by `{`, or, where there is none, at the next such break. Since the
///   grammar is checked at every byte, a record that was cut off swallows at most one of those
///   that follow it on lines of their own.
/// * A value that is larger than the limit is reported once, as soon as it is, and skipped up to
///   its end without being stored. Where it stops being JSON before that, reading goes on at the
///   next line break directly followed by `{`.
/// * A value that is not UTF-8, or not of the type that was asked for, is reported, and reading
///   goes on behind it.
/// * A value that is open at the end of the body is reported as truncated.
///
/// # Memory
///
/// If all items are taken between one chunk and the next, the decoder never holds more than the
/// limit and one chunk; what it needed for a large frame it gives back soon after.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    /// What was fed; the part before `start` has been dealt with.
    buffer: Vec<u8>,
    start: usize,
    /// The byte before `start` is a line break.
    after_break: bool,
    place: Place,
    /// The body is over.
    finished: bool,
    /// Values have been one to a line, so it pays to parse a line before looking for its value's
    /// end. Says nothing about what the items are, only about how they are found.
    lines: bool,
    examined: Examined,
}

/// What lies at `start`.
#[derive(Debug)]
enum Place {
    /// The start of the body, where a byte order mark may be.
    Start,
    /// White space, or the start of a value.
    Between,
    /// A value of which the scanner has read `scanned` bytes.
    Value { scanner: Scanner, scanned: usize },
    /// The rest of a value that was reported as too large.
    TooLarge(Scanner),
    /// The place where a value stopped being JSON. The next one starts at a `{` behind a line break.
    Lost,
}

impl FrameDecoder {
    /// A decoder for one body, with a limit of 16 MiB to the size of a frame.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
    }

    /// A decoder for one body, with another limit to the size of a frame, in bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            start: 0,
            after_break: false,
            place: Place::Start,
            finished: false,
            lines: true,
            examined: Examined::default(),
        }
    }

    /// Takes in the next bytes of the body. What is fed after [`finish`](Self::finish) is ignored.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.finished {
            return;
        }
        // To move what is left costs no more than to read what was dealt with.
        if self.start >= self.buffered() {
            self.drop_consumed();
        }
        self.make_room(chunk.len());
        self.buffer.extend_from_slice(chunk);
    }

    /// Says that the body has ended, so that an open value is known to be truncated and a number to
    /// be complete. Take items until there are none.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next frame as text, or the next error. `None`: more bytes are needed or, once the body
    /// has ended, nothing is left.
    ///
    /// # Errors
    ///
    /// Every [`FrameError`] but [`FrameError::Mismatch`]. None is the end: go on taking items.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        let value = match self.next_value()? {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        let text = std::str::from_utf8(&self.buffer[value]);
        Some(text.map(|text| Frame { text }).map_err(FrameError::NotUtf8))
    }

    /// The next frame as a `T`, or the next error. `None`: more bytes are needed or, once the body
    /// has ended, nothing is left.
    ///
    /// Gives what [`next_frame`](Self::next_frame) and [`Frame::parse`] give, faster where values
    /// are one to a line.
    ///
    /// # Errors
    ///
    /// Every [`FrameError`]. None is the end: go on taking items.
    pub fn next_as<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
        if let Some(length) = self.line_to_try() {
            // A line that parses is one complete value and no more: `from_str` sees to that.
            let text = std::str::from_utf8(&self.buffer[self.start..self.start + length]);
            if let Some(value) = text.ok().and_then(|text| serde_json::from_str(text).ok()) {
                self.consume(length);
                self.lines = true;
                return Some(Ok(value));
            }
        }
        Some(self.next_frame()?.and_then(|frame| frame.parse()))
    }

    /// How many of the bytes that were fed are not dealt with yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// How many bytes of memory the buffer takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The length of the line at hand, if it may be one value and it pays to try.
    ///
    /// One futile try ends the tries until a value is seen to end with its line. That value lies
    /// behind all that was searched or parsed in vain, so no byte is tried twice.
    fn line_to_try(&mut self) -> Option<usize> {
        if !self.lines || !matches!(self.place, Place::Between) {
            return None;
        }
        self.skip_white_space();
        let rest = &self.buffer[self.start..];
        if rest.first() != Some(&b'{') {
            return None;
        }
        self.lines = false;
        let length = memchr2(b'\r', b'\n', rest);
        self.examined.add(length.unwrap_or(rest.len()));
        let line = &rest[..length?];
        let promising = line.ends_with(b"}") && line.len() <= self.limit && !may_be_too_deep(line);
        promising.then_some(line.len())
    }

    /// The next item; a frame as its place in the buffer.
    fn next_value(&mut self) -> Option<Result<Range<usize>, FrameError>> {
        loop {
            match &mut self.place {
                Place::Start => {
                    const MARK: &[u8] = "\u{feff}".as_bytes();
                    if self.buffer.starts_with(MARK) {
                        self.consume(MARK.len());
                    } else if MARK.starts_with(&self.buffer) && !self.finished {
                        return None;
                    }
                    self.place = Place::Between;
                }
                Place::Between => {
                    self.skip_white_space();
                    if self.buffered() == 0 {
                        return self.starved();
                    }
                    self.place = Place::Value { scanner: Scanner::new(), scanned: 0 };
                }
                Place::Value { scanner, scanned } => {
                    // One byte more than a frame may have: by then it is complete or too large.
                    let end = self.start.saturating_add(self.limit).saturating_add(1);
                    let end = end.min(self.buffer.len());
                    let (read, step) = scanner.scan(&self.buffer[self.start + *scanned..end]);
                    self.examined.add(read);
                    *scanned += read;
                    let length = *scanned;
                    let complete = match step {
                        Step::NotJson(reason) => {
                            self.recover(length);
                            return Some(Err(FrameError::NotJson { reason, at: length }));
                        }
                        Step::TooDeep => {
                            self.recover(length);
                            return Some(Err(FrameError::TooDeep { limit: MAX_DEPTH }));
                        }
                        Step::Open if length > self.limit => {
                            self.place = Place::TooLarge(scanner.clone());
                            self.consume(length);
                            return Some(Err(FrameError::TooLarge { limit: self.limit }));
                        }
                        Step::Open if !self.finished => return self.starved(),
                        Step::Open => scanner.is_complete_at_end(),
                        Step::Complete => true,
                    };
                    let value = self.start..self.start + length;
                    self.place = Place::Between;
                    self.consume(length);
                    self.lines = self.buffer.get(self.start).is_some_and(is_break);
                    return Some(if !complete {
                        Err(FrameError::Truncated { length })
                    } else if length > self.limit {
                        Err(FrameError::TooLarge { limit: self.limit })
                    } else {
                        Ok(value)
                    });
                }
                Place::TooLarge(scanner) => {
                    let (read, step) = scanner.scan(&self.buffer[self.start..]);
                    self.examined.add(read);
                    self.consume(read);
                    match step {
                        Step::Open => return self.starved(),
                        Step::Complete => self.place = Place::Between,
                        Step::NotJson(_) | Step::TooDeep => self.place = Place::Lost,
                    }
                }
                Place::Lost => {
                    let rest = &self.buffer[self.start..];
                    let found = match rest.first() {
                        None => return self.starved(),
                        Some(b'{') if self.after_break => Some(0),
                        Some(_) => memchr2_iter(b'\r', b'\n', rest)
                            .map(|at| at + 1)
                            .find(|&at| rest.get(at) == Some(&b'{')),
                    };
                    let skipped = found.unwrap_or(rest.len());
                    self.examined.add(skipped);
                    self.consume(skipped);
                    if found.is_some() {
                        self.place = Place::Between;
                    }
                }
            }
        }
    }

    /// Goes to where reading goes on when the value at hand stopped being JSON after `length`
    /// bytes.
    ///
    /// Bytes behind the last break are read again, and only once again: there is no further break
    /// among them to go back to. So a byte is scanned at most twice, whatever the input.
    fn recover(&mut self, length: usize) {
        let value = &self.buffer[self.start..];
        // The byte that is wrong is there, and may be the `{` itself.
        let opened = memchr2_iter(b'\r', b'\n', &value[..length])
            .rev()
            .map(|at| at + 1)
            .find(|&at| value[at] == b'{');
        self.examined.add(length - opened.unwrap_or(0));
        self.consume(opened.unwrap_or(length));
        self.place = if opened.is_some() { Place::Between } else { Place::Lost };
    }

    fn skip_white_space(&mut self) {
        let rest = &self.buffer[self.start..];
        let length = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        self.consume(length.unwrap_or(rest.len()));
    }

    /// Every byte there is was looked at. What is left belongs to a value that began in the last
    /// chunk or was kept here before, so moving it costs no more than reading did.
    fn starved<T>(&mut self) -> Option<T> {
        self.drop_consumed();
        None
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
        if length > 0 {
            self.after_break = is_break(&self.buffer[self.start - 1]);
        }
    }

    fn drop_consumed(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
    }

    /// Makes room for a chunk of so many bytes: grows by doubling, but not past the limit and one
    /// chunk, and gives back what only a large frame needed.
    fn make_room(&mut self, chunk: usize) {
        let (held, capacity) = (self.buffer.len(), self.buffer.capacity());
        let needed = held.saturating_add(chunk);
        if held > self.limit {
            // Only where items were not taken. What they need has no bound but what was fed.
            self.buffer.reserve(chunk);
        } else if needed > capacity {
            let most = self.limit.saturating_add(chunk);
            let target = capacity.saturating_mul(2).min(most).max(needed);
            self.buffer.reserve_exact(target - held);
        } else if capacity > KEPT && needed <= capacity / 4 {
            self.buffer.shrink_to(KEPT.max(2 * needed));
        }
    }
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

fn is_break(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether the line may be nested too deeply for a frame. `serde_json` would not always notice: it
/// passes over what no field asks for without counting levels.
fn may_be_too_deep(line: &[u8]) -> bool {
    let limit = MAX_DEPTH as usize;
    line.len() > 2 * limit && memchr2_iter(b'{', b'[', line).nth(limit).is_some()
}

/// Counts the bytes that are looked at, for the test that there is a limit to that.
#[derive(Debug, Default)]
struct Examined {
    #[cfg(test)]
    bytes: usize,
}

impl Examined {
    fn add(&mut self, bytes: usize) {
        #[cfg(test)]
        {
            self.bytes += bytes;
        }
        #[cfg(not(test))]
        let _ = bytes;
    }
}

/// A frame: the text of one complete JSON value, without white space around it.
///
/// The text was checked: it is UTF-8, it has the grammar of RFC 8259, and it is nested no deeper
/// than `serde_json` parses, 127 levels. [`parse`](Self::parse) therefore fails only when the value
/// is not one of the type that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    text: &'a str,
}

impl<'a> Frame<'a> {
    /// The text of the value, as it was received.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The value as a `T`, which may borrow from the frame.
    ///
    /// # Errors
    ///
    /// [`FrameError::Mismatch`] if the value is not a `T`.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, FrameError> {
        serde_json::from_str(self.text).map_err(|error| FrameError::Mismatch(Arc::new(error)))
    }
}

/// Shows the size only: logs must not get to see what a frame says.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// Why the next item of a body is not a frame. The messages hold nothing of what was received,
/// except for those of a mismatch's source, which may quote the value at fault.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A value cannot be JSON.
    #[error("not JSON: {reason} at byte {at} of the value")]
    NotJson {
        /// What is wrong at that byte.
        reason: &'static str,
        /// The place in the value of the first byte that is wrong, in bytes from 0.
        at: usize,
    },
    /// A value is nested more deeply than `serde_json` parses.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// The deepest that a frame may be nested, in levels: 127.
        limit: u32,
    },
    /// A value is larger than a frame may be.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The largest that a frame may be, in bytes.
        limit: usize,
    },
    /// A complete value is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8(#[source] Utf8Error),
    /// The body ended inside a value.
    #[error("truncated after {length} bytes by the end of the body")]
    Truncated {
        /// How much of the value there is, in bytes.
        length: usize,
    },
    /// A JSON value is not one of the type that was asked for. This includes what JSON allows and
    /// the type does not: half a surrogate pair in a `String`, a number that is out of range.
    #[error("not a value of the type asked for")]
    Mismatch(#[source] Arc<serde_json::Error>),
}

/// Mismatches are equal if their messages are: `serde_json` does not compare its errors.
impl PartialEq for FrameError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NotJson { reason, at }, Self::NotJson { reason: r, at: a }) => {
                (reason, at) == (r, a)
            }
            (Self::TooDeep { limit }, Self::TooDeep { limit: other }) => limit == other,
            (Self::TooLarge { limit }, Self::TooLarge { limit: other }) => limit == other,
            (Self::NotUtf8(source), Self::NotUtf8(other)) => source == other,
            (Self::Truncated { length }, Self::Truncated { length: other }) => length == other,
            (Self::Mismatch(source), Self::Mismatch(other)) => {
                source.to_string() == other.to_string()
            }
            _ => false,
        }
    }
}
