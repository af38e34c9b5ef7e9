//! What may be wrong with a frame.

use std::sync::Arc;

use thiserror::Error;

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
    /// A value has a byte that is not UTF-8, or is a NUL, which is not in any JSON text either.
    #[error("not UTF-8, or a NUL, at byte {at} of the value")]
    NotUtf8 {
        /// The place of that byte in the value, in bytes from 0.
        at: usize,
    },
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
            (Self::Mismatch(source), Self::Mismatch(other)) => {
                source.to_string() == other.to_string()
            }
            // The rest is numbers and fixed words, and the message shows them all. No other has a
            // mismatch's.
            _ => self.to_string() == other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_equal_if_they_say_the_same() {
        let mismatch = |text| {
            let error = serde_json::from_str::<u8>(text).unwrap_err();
            FrameError::Mismatch(Arc::new(error))
        };
        let errors = || {
            [
                FrameError::NotJson { reason: "expected a key", at: 1 },
                FrameError::NotJson { reason: "expected a value", at: 1 },
                FrameError::TooDeep { limit: 127 },
                FrameError::TooLarge { limit: 1 },
                FrameError::TooLarge { limit: 2 },
                FrameError::NotUtf8 { at: 1 },
                FrameError::Truncated { length: 1 },
                mismatch("300"),
                mismatch("\"x\""),
            ]
        };
        for (index, error) in errors().iter().enumerate() {
            for (other_index, other) in errors().iter().enumerate() {
                assert_eq!(error == other, index == other_index, "{error:?} and {other:?}");
            }
        }
    }
}
