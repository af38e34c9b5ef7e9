//! From the bytes of a subscription's body to its frames.

mod error;
mod scan;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memchr2_iter};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use simdutf8::compat::from_utf8;

pub use error::FrameError;
use scan::{MAX_DEPTH, Scanner, Step, skip_space};

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
/// # use stride_core::frame::{FrameDecoder, FrameError};
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
/// * A value that cannot be JSON is reported once, as soon as the byte is there that shows it. So
///   is a byte that is not UTF-8. Reading goes on at the value's last line break up to there that
///   is directly followed by `{`, or, where there is none, at the next such break. As the grammar
///   is checked at every byte, a record that was cut off swallows at most one of those that follow
///   it on lines of their own.
/// * A value that is larger than the limit is reported once, as soon as it is, and skipped up to
///   its end without being stored. Where it stops being JSON before that, reading goes on at the
///   next line break directly followed by `{`.
/// * A value that is not of the type that was asked for is reported, and reading goes on behind it.
/// * A value that is open at the end of the body is reported as truncated.
///
/// # Memory
///
/// If all items are taken between one chunk and the next, the decoder never holds more than the
/// limit and one chunk; what it needed for a large frame it gives back soon after.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    /// What was fed, checked as UTF-8 a chunk at a time: that is faster than a frame at a time. A
    /// byte that is not UTF-8 is a [`NOT_UTF8`] here. The part before `start` is dealt with.
    buffer: String,
    /// The bytes of a character that is not complete yet.
    character: Vec<u8>,
    start: usize,
    /// The byte before the buffer is a line break.
    after_break: bool,
    place: Place,
    /// The body is over.
    finished: bool,
    /// How many bytes of values are to be scanned before it pays to guess an end again. Says
    /// nothing about what the items are, only about how they are found.
    owed: usize,
    examined: Examined,
}

/// May stand at the start of a body, though it should not.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Stands for a byte that is not UTF-8, because like it, it is nowhere in JSON text.
const NOT_UTF8: char = '\0';

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
            buffer: String::new(),
            character: Vec::new(),
            start: 0,
            after_break: false,
            place: Place::Start,
            finished: false,
            owed: 0,
            examined: Examined::default(),
        }
    }

    /// Takes in the next bytes of the body. What is fed after [`finish`](Self::finish) is ignored.
    pub fn feed(&mut self, mut chunk: &[u8]) {
        if self.finished {
            return;
        }
        // To move what is left costs no more than to read what was dealt with.
        if self.start >= self.buffered() {
            self.drop_consumed();
        }
        self.make_room(self.character.len() + chunk.len());
        while !self.character.is_empty()
            && let Some((&byte, rest)) = chunk.split_first()
        {
            let mut character = std::mem::take(&mut self.character);
            character.push(byte);
            self.push(&character);
            chunk = rest;
        }
        self.push(chunk);
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
        Some(match self.next_value()? {
            Ok(value) => Ok(Frame { text: &self.buffer[value] }),
            Err(error) => Err(error),
        })
    }

    /// The next frame as a `T`, or the next error. `None`: more bytes are needed or, once the body
    /// has ended, nothing is left.
    ///
    /// Gives what [`next_frame`](Self::next_frame) and [`Frame::parse`] give, and is faster where
    /// objects are one to a line or pretty-printed.
    ///
    /// # Errors
    ///
    /// Every [`FrameError`]. None is the end: go on taking items.
    pub fn next_as<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
        if let Some(length) = self.guess() {
            // What parses is one complete value and no more: `from_str` sees to that.
            self.examined.add(length);
            if let Ok(value) = serde_json::from_str(&self.buffer[self.start..][..length]) {
                self.start += length;
                return Some(Ok(value));
            }
            self.owed = length;
        }
        Some(self.next_value()?.and_then(|value| {
            self.owed = self.owed.saturating_sub(value.len());
            Frame { text: &self.buffer[value] }.parse()
        }))
    }

    /// How many of the bytes that were fed are not dealt with yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start + self.character.len()
    }

    /// How many bytes of memory the buffer takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Where the value at hand ends if it is an object written the usual way, as the length of it:
    /// on one line, or pretty-printed up to a `}` that begins a line.
    ///
    /// A guess in vain is followed by none until as many bytes of values have been scanned as were
    /// looked at for it, so all guesses together cost each byte no more than one of them.
    #[inline(always)]
    fn guess(&mut self) -> Option<usize> {
        if self.owed > 0 || !matches!(self.place, Place::Between) {
            return None;
        }
        self.skip_white_space();
        let rest = &self.buffer.as_bytes()[self.start..];
        if rest.first() != Some(&b'{') {
            return None;
        }
        let end = if rest.get(1).is_some_and(is_break) {
            memchr_iter(b'}', rest).find(|&at| is_break(&rest[at - 1])).map(|at| at + 1)
        } else {
            // A `\r` that belongs to the break does not belong to the value.
            let end = memchr(b'\n', rest);
            end.map(|end| if rest[end - 1] == b'\r' { end - 1 } else { end })
        };
        let text = &rest[..end.unwrap_or(rest.len())];
        self.examined.add(text.len());
        if end.is_some()
            && text.ends_with(b"}")
            && text.len() <= self.limit
            && !may_be_too_deep(text)
        {
            return end;
        }
        self.owed = text.len();
        None
    }

    /// The next item; a frame as its place in the buffer.
    fn next_value(&mut self) -> Option<Result<Range<usize>, FrameError>> {
        loop {
            match &mut self.place {
                Place::Start => {
                    if self.buffer.is_empty() && !self.finished {
                        return None;
                    }
                    if self.buffer.starts_with(BYTE_ORDER_MARK) {
                        self.start += BYTE_ORDER_MARK.len_utf8();
                    }
                    self.place = Place::Between;
                }
                Place::Between => {
                    self.skip_white_space();
                    if self.start == self.buffer.len() {
                        if self.finished && !self.character.is_empty() {
                            return Some(Err(self.truncated(0)));
                        }
                        return self.starved();
                    }
                    self.place = Place::Value { scanner: Scanner::new(), scanned: 0 };
                }
                Place::Value { scanner, scanned } => {
                    // One byte more than a frame may have: by then it is complete or too large.
                    let end = self.start.saturating_add(self.limit).saturating_add(1);
                    let mut end = end.min(self.buffer.len());
                    while !self.buffer.is_char_boundary(end) {
                        end += 1;
                    }
                    let value = &self.buffer.as_bytes()[self.start..end];
                    let (read, step) = scanner.scan(&value[*scanned..]);
                    self.examined.add(read);
                    *scanned += read;
                    let length = *scanned;
                    let complete = match step {
                        Step::NotJson(reason) => {
                            let not_utf8 = value[length] == NOT_UTF8 as u8;
                            self.recover(length);
                            return Some(Err(if not_utf8 {
                                FrameError::NotUtf8 { at: length }
                            } else {
                                FrameError::NotJson { reason, at: length }
                            }));
                        }
                        Step::TooDeep => {
                            self.recover(length);
                            return Some(Err(FrameError::TooDeep { limit: MAX_DEPTH }));
                        }
                        Step::Open if length > self.limit => {
                            self.place = Place::TooLarge(scanner.clone());
                            self.start += length;
                            return Some(Err(FrameError::TooLarge { limit: self.limit }));
                        }
                        Step::Open if !self.finished => return self.starved(),
                        Step::Open => scanner.is_complete_at_end(),
                        Step::Complete => true,
                    };
                    let value = self.start..self.start + length;
                    self.place = Place::Between;
                    self.start += length;
                    return Some(if !complete {
                        Err(self.truncated(length))
                    } else if length > self.limit {
                        Err(FrameError::TooLarge { limit: self.limit })
                    } else {
                        Ok(value)
                    });
                }
                Place::TooLarge(scanner) => {
                    let (read, step) = scanner.scan(&self.buffer.as_bytes()[self.start..]);
                    self.examined.add(read);
                    self.start += read;
                    match step {
                        Step::Open if self.finished && scanner.is_complete_at_end() => {
                            self.place = Place::Between;
                        }
                        Step::Open => return self.starved(),
                        Step::Complete => self.place = Place::Between,
                        Step::NotJson(_) | Step::TooDeep => self.place = Place::Lost,
                    }
                }
                Place::Lost => {
                    let rest = &self.buffer.as_bytes()[self.start..];
                    let found = match rest.first() {
                        None => return self.starved(),
                        Some(b'{') if self.is_after_break() => Some(0),
                        Some(_) => memchr2_iter(b'\r', b'\n', rest)
                            .map(|at| at + 1)
                            .find(|&at| rest.get(at) == Some(&b'{')),
                    };
                    let skipped = found.unwrap_or(rest.len());
                    self.examined.add(skipped);
                    self.start += skipped;
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
        let value = &self.buffer.as_bytes()[self.start..];
        // The byte that is wrong is there, and may be the `{` itself.
        let opened = memchr2_iter(b'\r', b'\n', &value[..length])
            .rev()
            .map(|at| at + 1)
            .find(|&at| value[at] == b'{');
        self.examined.add(length - opened.unwrap_or(0));
        self.start += opened.unwrap_or(length);
        self.place = if opened.is_some() { Place::Between } else { Place::Lost };
    }

    /// The body ended after `length` bytes of a value, and perhaps inside a character.
    fn truncated(&mut self, length: usize) -> FrameError {
        FrameError::Truncated { length: length + self.character.drain(..).len() }
    }

    /// Appends text, but for the beginning of a character that is not complete yet.
    fn push(&mut self, mut bytes: &[u8]) {
        loop {
            let error = match from_utf8(bytes) {
                Ok(text) => return self.buffer.push_str(text),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            self.buffer.push_str(from_utf8(valid).unwrap_or_default());
            let Some(length) = error.error_len() else {
                return self.character.extend_from_slice(rest);
            };
            self.buffer.extend(std::iter::repeat_n(NOT_UTF8, length));
            bytes = &rest[length..];
        }
    }

    #[inline]
    fn skip_white_space(&mut self) {
        self.start = skip_space(self.buffer.as_bytes(), self.start);
    }

    /// Every byte there is was looked at. What is left belongs to a value that began in the last
    /// chunk or was kept here before, so moving it costs no more than reading did.
    fn starved<T>(&mut self) -> Option<T> {
        self.drop_consumed();
        if self.finished {
            // The beginning of a character, in what was reported already.
            self.character.clear();
        }
        None
    }

    /// Whether the last byte that was dealt with is a line break.
    fn is_after_break(&self) -> bool {
        self.buffer.as_bytes()[..self.start].last().map_or(self.after_break, is_break)
    }

    fn drop_consumed(&mut self) {
        if self.start == 0 {
            return;
        }
        self.after_break = self.is_after_break();
        self.examined.add(self.buffer.len() - self.start);
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

/// Whether the text may be nested too deeply for a frame. `serde_json` would not always notice: it
/// passes over what no field asks for without counting levels.
#[inline]
fn may_be_too_deep(text: &[u8]) -> bool {
    let limit = MAX_DEPTH as usize;
    text.len() > 2 * limit && memchr2_iter(b'{', b'[', text).nth(limit).is_some()
}

/// Counts the bytes that are looked at or moved, for the test that there is a limit to that.
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

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    /// The most that may be done with a byte, in bytes looked at or moved: searched for a value's
    /// end, parsed in vain, scanned twice, searched for a break twice, moved twice.
    const WORK: usize = 8;

    fn examined(body: &[u8], limit: usize, chunk: usize, typed: bool, drain: bool) -> usize {
        let mut decoder = FrameDecoder::with_limit(limit);
        let take = |decoder: &mut FrameDecoder| match typed {
            true => decoder.next_as::<IgnoredAny>().is_some(),
            false => decoder.next_frame().is_some(),
        };
        for chunk in body.chunks(chunk) {
            decoder.feed(chunk);
            while take(&mut decoder) && drain {}
        }
        decoder.finish();
        while take(&mut decoder) {}
        decoder.examined.bytes
    }

    #[test]
    fn work_is_counted() {
        // Each byte is scanned, and what is open at the end of a chunk is moved.
        assert_eq!(examined(b"[1,2]", 100, usize::MAX, false, true), 5);
        assert_eq!(examined(b"12 [2,3]", 100, 5, false, true), 2 + 2 + 2 + 3);
        // At a fault, what is behind the last break is searched for it and scanned again; there it is
        // a fault once more, and reading goes on two bytes later.
        let body = b"[1,\n{\"a\":2 x\n{}";
        assert_eq!(examined(body, 100, usize::MAX, false, true), 11 + 7 + (7 + 7) + 2 + 2);
    }

    #[test]
    fn work_per_byte_is_bounded_however_the_body_is_chunked() {
        let long = "x".repeat(20_000);
        let bodies = [
            format!("{{\"a\":\"{long}\"}}\n").repeat(3),
            format!("{{\"a\":\n\"{long}\"}}{{\"a\":\"{long}").repeat(3),
            "{\n".repeat(20_000),
            "[\n{\"a\":".repeat(10_000),
            format!("{{\"a\":[{}", "1,\n{},".repeat(10_000)),
            format!("{{\"a\":[{}", "\n{},1,".repeat(10_000)).repeat(2),
            "[".repeat(50_000),
            format!("{}\n{{", "[".repeat(126)).repeat(300),
            "{}".repeat(20_000),
            format!("{{\"a\":\"{}\"}}", &long[..200]).repeat(500),
            // Just over the smaller limit.
            format!("{{\"a\":\"{}\"}}", &long[..93]).repeat(500),
            "{} ".repeat(20_000),
            "{}\n{}{}{}{}{}{}{}{}{}{}{} ".repeat(2_000),
            "{}\n{\"a\":1]}\n".repeat(3_000),
            "{}\n{} {\"a\":1}\n".repeat(3_000),
            "{\n}\n".repeat(10_000),
            "{\n1}\n {".repeat(5_000),
            "{\n\"a\":1}\n ".repeat(5_000),
            "{\n\"a\":[{\n},1]}\n ".repeat(5_000),
            "\r\n".repeat(20_000),
            "x\n".repeat(20_000),
            "\"\n{".repeat(10_000),
            "1\n".repeat(20_000),
            "\u{e9}".repeat(20_000),
        ];
        for body in &bodies {
            let length = body.len();
            for (limit, chunk) in [(100, 1), (100, usize::MAX), (1 << 16, 1), (1 << 16, 7)]
                .into_iter()
                .chain([(1 << 16, 1000), (1 << 16, 16 << 10), (1 << 16, usize::MAX)])
            {
                for (typed, drain) in [(false, true), (true, true), (false, false), (true, false)] {
                    let bytes = examined(body.as_bytes(), limit, chunk, typed, drain);
                    let start = &body[..length.min(30)];
                    assert!(
                        bytes <= WORK * length,
                        "{start:?} in chunks of {chunk} under {limit}: {bytes} for {length}",
                    );
                }
            }
        }
    }
}
