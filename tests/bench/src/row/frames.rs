//! The frame decoder, fed chunks of 16 KiB; against `serde_json` on values that somebody separated
//! already.

use std::hint::black_box;

use serde::Deserialize as _;
use serde_json::value::RawValue;
use stride_core::frame::FrameDecoder;

use crate::event::Received;
use crate::measure::Pair;
use crate::row::per_second;
use crate::sink;

/// Half a millisecond of them: whatever else the machine does falls on few rounds.
const EVENTS: usize = 2_000;

const CHUNK: usize = 16 << 10;

/// That many events, one to a line.
#[must_use]
pub fn compact(count: usize) -> String {
    sink::events(count, "\r\n")
}

/// That many events, each over several lines.
///
/// # Panics
///
/// Never: what was written as JSON can be read as such.
#[must_use]
pub fn pretty(count: usize) -> Vec<String> {
    let one = |line: &str| {
        let event: Received = serde_json::from_str(line).expect("it was JSON before");
        serde_json::to_string_pretty(&event).expect("it is JSON")
    };
    compact(count).lines().map(one).collect()
}

/// Decodes a body to typed events, and counts them.
///
/// # Panics
///
/// A frame is bad.
#[must_use]
pub fn typed(body: &[u8]) -> usize {
    let mut decoder = FrameDecoder::new();
    let mut count = 0;
    for chunk in body.chunks(CHUNK) {
        decoder.feed(chunk);
        while let Some(event) = decoder.next_as::<Received>() {
            black_box(event.expect("it is an event"));
            count += 1;
        }
    }
    count
}

/// Frames a body without decoding, and counts the frames.
///
/// # Panics
///
/// A frame is bad.
#[must_use]
pub fn raw(body: &[u8]) -> usize {
    let mut decoder = FrameDecoder::new();
    let mut count = 0;
    for chunk in body.chunks(CHUNK) {
        decoder.feed(chunk);
        while let Some(frame) = decoder.next_frame() {
            black_box(frame.expect("it is a value").as_str());
            count += 1;
        }
    }
    count
}

/// Events to a typed struct.
pub(super) struct Typed {
    body: String,
    values: Vec<String>,
}

impl Typed {
    pub(super) fn new(is_pretty: bool) -> Self {
        let values = if is_pretty {
            pretty(EVENTS)
        } else {
            compact(EVENTS).lines().map(str::to_owned).collect()
        };
        Self { body: values.join("\r\n") + "\r\n", values }
    }
}

impl Pair for Typed {
    fn ours(&mut self) -> f64 {
        per_second(EVENTS, || {
            assert_eq!(typed(self.body.as_bytes()), EVENTS);
        })
    }

    fn limit(&mut self) -> f64 {
        per_second(EVENTS, || {
            for value in &self.values {
                black_box(serde_json::from_str::<Received>(value).expect("it is an event"));
            }
        })
    }
}

/// Framing alone.
pub(super) struct Raw(Typed);

impl Raw {
    pub(super) fn new() -> Self {
        Self(Typed::new(false))
    }

    /// In MB/s, of the events themselves.
    fn rate(&self, work: impl Fn()) -> f64 {
        let bytes: usize = self.0.values.iter().map(String::len).sum();
        per_second(bytes, work) / 1e6
    }
}

impl Pair for Raw {
    fn ours(&mut self) -> f64 {
        self.rate(|| assert_eq!(raw(self.0.body.as_bytes()), EVENTS))
    }

    fn limit(&mut self) -> f64 {
        self.rate(|| {
            for value in &self.0.values {
                let mut value = serde_json::Deserializer::from_str(value);
                let raw = <&RawValue>::deserialize(&mut value).expect("it is a value");
                black_box(raw.get());
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_the_events_that_they_are_said_to_hold() {
        assert_eq!(typed(compact(300).as_bytes()), 300);
        assert_eq!(raw(compact(300).as_bytes()), 300);
        assert_eq!(typed(pretty(300).concat().as_bytes()), 300);
    }
}
