//! Batches: their text, compressed or not, and what happened to them so far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use stride_core::gzip::{Gzip, gunzip};
use stride_core::transport::{Delivery, TransportError};

/// What an open or closed batch takes of the memory budget beside its text, in bytes: its head, its
/// places in lists, and what the allocator adds. Taken from the memory of a process with 400,000
/// batches.
pub const BATCH_COST: usize = 176;

/// Events of one stream.
#[derive(Debug, Default)]
pub struct Events {
    /// Each event as JSON, with a comma before it: `,{"x":1},{"x":2}`.
    pub text: Vec<u8>,
    /// How many there are.
    pub count: u32,
}

impl Events {
    /// What they take of the memory budget, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.text.capacity() + BATCH_COST
    }
}

/// A response to a request, as the batcher reads it.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers; `Retry-After` and `Date` are read.
    pub headers: HeaderMap,
    /// The `message` in the body of a refusal.
    pub message: Option<Arc<str>>,
}

/// What came of the last attempt to send a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) status: Option<StatusCode>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) error: Option<TransportError>,
}

/// The text of a batch: events with a comma before each.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// As it came; another batch may still be merged into it.
    Growing(Vec<u8>),
    Plain(Bytes),
    /// Compressed as it is sent alone: `[event,event]`.
    Gzipped(Bytes),
}

#[derive(Debug)]
pub(super) struct Batch {
    /// Tells batches apart.
    pub(super) id: u64,
    /// Its place in its lane. The parts of a batch that was split keep it.
    pub(super) order: u64,
    /// How many flushes had been asked for when it was taken in: a later flush waits for it.
    pub(super) epoch: u64,
    pub(super) text: Text,
    pub(super) count: u32,
    /// Of the text before compression, in bytes.
    pub(super) length: usize,
    pub(super) cost: usize,
    /// When the first batch that was merged into it was closed. Only batches of a tenth of `retry_for` are
    /// merged, so that none expires much too late.
    pub(super) first: Instant,
    /// When the last of them was: nothing expires early.
    pub(super) closed: Instant,
    /// The time before it that does not count for its age, see [`Health`](super::retry::Health).
    pub(super) excused: Duration,
    pub(super) delivery: Delivery,
    pub(super) tried: bool,
    pub(super) last: Option<Box<Last>>,
    pub(super) part: Part,
}

/// What is known of a batch that is being narrowed down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// It belongs to the narrowing of its lane.
    pub(super) member: bool,
    /// It holds an event at fault.
    pub(super) guilty: bool,
    /// It holds an event at fault if the part before it does not.
    pub(super) heir: bool,
    /// It is too long for the server.
    pub(super) too_long: bool,
}

impl Batch {
    /// Its text, to be read elsewhere. From now on nothing is merged into it.
    pub(super) fn share(&mut self) -> (Bytes, bool) {
        if let Text::Growing(text) = &mut self.text {
            self.text = Text::Plain(std::mem::take(text).into());
        }
        match &self.text {
            Text::Growing(_) => (Bytes::new(), false),
            Text::Plain(text) => (text.clone(), false),
            Text::Gzipped(text) => (text.clone(), true),
        }
    }

    pub(super) fn is_gzipped(&self) -> bool {
        matches!(self.text, Text::Gzipped(_))
    }

    /// Keeps the compressed text instead, and gives its cost before and after.
    pub(super) fn set_gzipped(&mut self, bytes: Bytes) -> (usize, usize) {
        let cost = BATCH_COST + bytes.len();
        self.text = Text::Gzipped(bytes);
        (std::mem::replace(&mut self.cost, cost), cost)
    }
}

/// One stream's share of a request.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) stream: Arc<str>,
    pub(super) text: Bytes,
    pub(super) gzipped: bool,
}

/// The body of a request: the events of one stream or of several. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Body {
    pub(super) shares: Vec<Share>,
}

impl Body {
    /// Where to post it: `/collect/NAME`, or `/collect` for several streams.
    #[must_use]
    pub fn path(&self) -> String {
        match &self.shares[..] {
            [share] => format!("/collect/{}", share.stream),
            _ => "/collect".to_owned(),
        }
    }

    /// The bytes to send if they were made by an earlier attempt.
    #[must_use]
    pub fn gzipped(&self) -> Option<Bytes> {
        match &self.shares[..] {
            [share] if share.gzipped => Some(share.text.clone()),
            _ => None,
        }
    }

    /// The text to compress, in pieces.
    #[must_use]
    pub fn pieces(&self) -> Vec<Bytes> {
        let bundle = self.shares.len() > 1;
        let mut pieces = Vec::with_capacity(self.shares.len() * 5 + 1);
        for (index, share) in self.shares.iter().enumerate() {
            if bundle {
                let opening: &[u8] = if index == 0 { b"{\"" } else { b",\"" };
                pieces.push(Bytes::from_static(opening));
                pieces.push(Bytes::copy_from_slice(share.stream.as_bytes()));
                pieces.push(Bytes::from_static(b"\":"));
            }
            if share.gzipped {
                pieces.push(array(share));
            } else {
                pieces.push(Bytes::from_static(b"["));
                pieces.push(share.text.slice(1..));
                pieces.push(Bytes::from_static(b"]"));
            }
        }
        if bundle {
            pieces.push(Bytes::from_static(b"}"));
        }
        pieces
    }

    /// The bytes to send.
    #[must_use]
    pub fn gzip(&self, gzip: &mut Gzip) -> Bytes {
        self.gzipped().unwrap_or_else(|| {
            let pieces = self.pieces();
            gzip.compress(pieces.iter().map(|piece| &piece[..]))
        })
    }
}

/// The events of a share as a JSON array.
pub(super) fn array(share: &Share) -> Bytes {
    if share.gzipped {
        // They are our own bytes and were never out of memory: they are whole.
        return gunzip(&share.text).unwrap_or_default().into();
    }
    [b"[", &share.text[1..], b"]"].concat().into()
}

#[cfg(test)]
mod tests {
    use stride_core::gzip::GzipLevel;

    use super::*;

    fn share(stream: &str, text: &'static str) -> Share {
        Share { stream: stream.into(), text: Bytes::from_static(text.as_bytes()), gzipped: false }
    }

    #[test]
    fn one_stream_is_an_array_and_several_are_an_object() {
        let gzip = &mut Gzip::new(GzipLevel::FASTEST);
        let mut body = Body { shares: vec![share("a", ",{},{}")] };
        assert_eq!(body.path(), "/collect/a");
        let bytes = body.gzip(gzip);
        assert_eq!(gunzip(&bytes).unwrap(), b"[{},{}]");
        body.shares[0] = Share { text: bytes.clone(), gzipped: true, ..body.shares[0].clone() };
        assert_eq!(body.gzip(gzip), bytes, "what is compressed is sent as it is");
        assert_eq!(array(&body.shares[0]), "[{},{}]");
        body.shares.extend([share("long_name", ",2,3"), share("b", ",4")]);
        assert_eq!(body.path(), "/collect");
        let text = gunzip(&body.gzip(gzip)).unwrap();
        assert_eq!(text, br#"{"a":[{},{}],"long_name":[2,3],"b":[4]}"#);
    }
}
