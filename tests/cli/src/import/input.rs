//! Reading a file in pieces that are one event each.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use csv::{ByteRecord, ErrorKind, StringRecord};

use super::LONGEST;
use super::rejects::Rejects;
use crate::failure::Failure;

/// What a line holds, before anything is known of it.
pub(super) struct Line<'t> {
    /// From 1; that of CSV's first line if there are several.
    pub(super) number: u64,
    /// An event as JSON, it is hoped.
    pub(super) text: &'t str,
}

pub(super) enum Input<R> {
    Lines(Lines<R>),
    Csv(Box<Csv<R>>),
}

impl<R: BufRead> Input<R> {
    /// The next event; what cannot be one is told to `rejects`.
    pub(super) fn next(&mut self, rejects: &Rejects) -> Result<Option<Line<'_>>, Failure> {
        match self {
            Self::Lines(lines) => lines.next(rejects),
            Self::Csv(csv) => csv.next(rejects),
        }
    }
}

/// A JSON object a line.
pub(super) struct Lines<R> {
    read: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, line: Vec::new(), number: 0 }
    }

    fn next(&mut self, rejects: &Rejects) -> Result<Option<Line<'_>>, Failure> {
        let bad = |error| Failure::file(rejects.label(), &error);
        loop {
            self.line.clear();
            // One more than may be, for the line's end.
            let most = LONGEST as u64 + 1;
            let read = (&mut self.read).take(most).read_until(b'\n', &mut self.line);
            if read.map_err(bad)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if self.line.len() as u64 == most && !self.line.ends_with(b"\n") {
                let why = format!("the line is longer than {LONGEST} bytes");
                rejects.begin(self.number, &self.line, &why);
                self.skip_line(rejects)?;
                continue;
            }
            if self.line.ends_with(b"\n") {
                self.line.pop();
            }
            if self.line.ends_with(b"\r") {
                self.line.pop();
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(error) = str::from_utf8(&self.line) {
                let why = format!("not UTF-8 at byte {}", error.valid_up_to() + 1);
                rejects.line(self.number, &self.line, &why);
                continue;
            }
            break;
        }
        // It was checked above.
        let text = str::from_utf8(&self.line).unwrap_or_default();
        Ok(Some(Line { number: self.number, text }))
    }

    /// The rest of a line that is too long goes to the rejects in pieces.
    fn skip_line(&mut self, rejects: &Rejects) -> Result<(), Failure> {
        loop {
            let buffer =
                self.read.fill_buf().map_err(|error| Failure::file(rejects.label(), &error))?;
            let end = memchr::memchr(b'\n', buffer);
            let length = end.unwrap_or(buffer.len());
            rejects.more(&buffer[..length]);
            let is_over = end.is_some() || buffer.is_empty();
            self.read.consume(length + usize::from(end.is_some()));
            if is_over {
                rejects.more(b"\n");
                return Ok(());
            }
        }
    }
}

/// Rows of values below a row of names.
pub(super) struct Csv<R> {
    read: csv::Reader<Limited<R>>,
    /// How much may be read until the record ends.
    room: Rc<Cell<usize>>,
    columns: Vec<Column>,
    event: String,
}

struct Column {
    /// As JSON.
    name: String,
    is_text: bool,
}

impl<R: Read> Csv<R> {
    pub(super) fn new(read: R, texts: &[String]) -> Result<Self, Failure> {
        let room = Rc::new(Cell::new(2 * LONGEST));
        let limited = Limited { read, room: Rc::clone(&room) };
        let mut read = csv::ReaderBuilder::new().flexible(true).from_reader(limited);
        let bad = |error: csv::Error| Failure::Usage(format!("the row of names: {error}"));
        let names = read.headers().map_err(bad)?.clone();
        let mut columns: Vec<Column> = Vec::new();
        for name in &names {
            let is_text = texts.iter().any(|text| text == name);
            let json = serde_json::Value::from(name).to_string();
            if columns.iter().any(|column| column.name == json) {
                return Err(Failure::Usage(format!("there are two columns {name:?}")));
            }
            columns.push(Column { name: json, is_text });
        }
        if let Some(unknown) = texts.iter().find(|text| !names.iter().any(|name| name == **text)) {
            return Err(Failure::Usage(format!("--text: there is no column {unknown:?}")));
        }
        Ok(Self { read, room, columns, event: String::new() })
    }

    fn next(&mut self, rejects: &Rejects) -> Result<Option<Line<'_>>, Failure> {
        let mut bytes = ByteRecord::new();
        loop {
            self.room.set(2 * LONGEST);
            match self.read.read_byte_record(&mut bytes) {
                Ok(false) => return Ok(None),
                Ok(true) => {}
                Err(error) => {
                    let line = self.read.position().line();
                    return Err(match error.kind() {
                        ErrorKind::Io(error) => {
                            Failure::Refused(format!("{}:{line}: {error}", rejects.label()))
                        }
                        _ => Failure::Refused(format!("{}: {error}", rejects.label())),
                    });
                }
            }
            let number = bytes.position().map_or(0, csv::Position::line);
            let (has, names) = (bytes.len(), self.columns.len());
            let why = match StringRecord::from_byte_record(bytes) {
                Ok(record) if has == names => {
                    self.write(&record);
                    return Ok(Some(Line { number, text: &self.event }));
                }
                Ok(record) => {
                    bytes = record.into_byte_record();
                    format!("expected {names} values, found {has}")
                }
                Err(error) => {
                    let why = format!("value {} is not UTF-8", error.utf8_error().field() + 1);
                    bytes = error.into_byte_record();
                    why
                }
            };
            let mut row = csv::Writer::from_writer(Vec::new());
            // Writing to memory cannot fail.
            drop(row.write_byte_record(&bytes));
            let row = row.into_inner().unwrap_or_default();
            rejects.line(number, row.trim_ascii_end(), &why);
        }
    }

    /// Makes an event of the record.
    fn write(&mut self, record: &StringRecord) {
        self.event.clear();
        for (column, value) in self.columns.iter().zip(record) {
            self.event.push(if self.event.is_empty() { '{' } else { ',' });
            self.event.push_str(&column.name);
            self.event.push(':');
            match value {
                _ if column.is_text => {
                    self.event.push_str(&serde_json::Value::from(value).to_string());
                }
                "" => self.event.push_str("null"),
                "true" | "false" => self.event.push_str(value),
                value => match number(value) {
                    Some((sign, digits)) => self.event.extend([sign, digits]),
                    None => self.event.push_str(&serde_json::Value::from(value).to_string()),
                },
            }
        }
        self.event.push('}');
    }
}

/// The sign of a number and the rest, which JSON begins without zeros; `None` if it is something else.
fn number(value: &str) -> Option<(&str, &str)> {
    let (sign, digits) = value.split_at(usize::from(value.starts_with('-')));
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let whole = digits.bytes().take_while(|byte| is_digit(byte)).count();
    if whole == 0 {
        return None;
    }
    let zeros = digits.bytes().take(whole - 1).take_while(|byte| *byte == b'0').count();
    let digits = &digits[zeros..];
    let is_number = serde_json::from_str::<&serde_json::value::RawValue>(digits).is_ok();
    (is_number && !digits.ends_with(char::is_whitespace)).then_some((sign, digits))
}

/// Fails when more is read than there is room for: a quote without an end would take all memory.
struct Limited<R> {
    read: R,
    room: Rc<Cell<usize>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room.get();
        if room == 0 {
            return Err(io::Error::other(format!(
                "a record is longer than {LONGEST} bytes: is there a quote without an end?"
            )));
        }
        let most = buffer.len().min(room);
        let read = self.read.read(&mut buffer[..most])?;
        self.room.set(room - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_but_not_their_zeros() {
        for (value, expected) in [
            ("7", Some(("", "7"))),
            ("007", Some(("", "7"))),
            ("-0.50", Some(("-", "0.50"))),
            ("0", Some(("", "0"))),
            ("00", Some(("", "0"))),
            ("1e5", Some(("", "1e5"))),
            ("12345678901234567890123", Some(("", "12345678901234567890123"))),
            ("+7", None),
            ("1.", None),
            ("1 ", None),
            (".5", None),
            ("-", None),
            ("0x7", None),
            ("2015-05-05", None),
            ("NaN", None),
        ] {
            assert_eq!(number(value), expected, "{value}");
        }
    }
}
