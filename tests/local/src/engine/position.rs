//! Where a reader of a stream stands.

use std::fmt;
use std::str::FromStr;

/// The place between two events of a stream, or at one of its ends. As a text it can stand in a URL and in a header;
/// what it is made of is nobody else's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Drawn when the storage was made, and again when it is a copy that was put back: places are used twice then.
    pub(crate) epoch: u64,
    pub(crate) stream: Which,
    /// How many events of the stream come before, those that it no longer holds included.
    pub(crate) place: u64,
}

/// Which one of the streams that have had a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one with this number. No other is ever given it.
    Number(u64),
    /// There is none yet. The one to come has a number greater than this.
    After(u64),
}

impl Position {
    /// The position so many events later.
    #[must_use]
    pub(crate) fn skip(self, events: u64) -> Self {
        Self { place: self.place.saturating_add(events), ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, stream, place } = self;
        match stream {
            Which::Number(number) => write!(f, "{epoch:x}-{number:x}-{place:x}"),
            Which::After(number) => write!(f, "{epoch:x}-n{number:x}-{place:x}"),
        }
    }
}

/// A text that is not a position.
#[derive(Debug)]
pub(crate) struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let read = || {
            let mut parts = text.split('-');
            let (epoch, stream, place) = (parts.next()?, parts.next()?, parts.next()?);
            let stream = match stream.strip_prefix('n') {
                Some(digits) => Which::After(number(digits)?),
                None => Which::Number(number(stream)?),
            };
            Some(Self { epoch: number(epoch)?, stream, place: number(place)? })
        };
        // As it was written, and in no other way that would be read as the same.
        read().filter(|position| position.to_string() == text).ok_or(NoPosition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_in_no_other_way() {
        for stream in [Which::Number(1), Which::After(0), Which::Number(u64::MAX)] {
            for place in [0, 1, 1 << 40] {
                let position = Position { epoch: 0xfedc_ba98_7654_3210, stream, place };
                let text = position.to_string();
                assert_eq!(text.parse::<Position>().ok(), Some(position), "{text}");
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            }
        }
        for text in [
            "", "1", "1-2", "1-2-3-4", "1-2-+3", "1-2-03", "1-2-", "1-N2-3", "1-2-A", "1-nn2-3",
            " 1-2-3",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
