//! What the batcher is told, and what it asks its driver to do.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use stride_core::gzip::{Gzip, gunzip};
use stride_core::transport::{Delivery, TransportError};

use super::batch::{Body, Events, Last, Share, array};
use super::narrow;
use super::spooled::{Leaving, Replay};
use crate::report::{LossReason, LostBatch};

/// The number of a lane, which its owner gives it: small, and used again only after
/// [`Input::Retired`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

/// Where a record of the spool lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// The number of its segment.
    pub segment: u64,
    /// Where it begins in the segment, in bytes from the start of the file.
    pub offset: u64,
}

/// What happened outside of the batcher, in the order in which it happened.
#[derive(Debug)]
pub enum Input {
    /// A stream has an open batch that waits for more events: it will be sealed when it is full, or
    /// when the batcher asks for it.
    Opened {
        /// Whose it is.
        lane: LaneId,
        /// The stream's name.
        stream: Arc<str>,
    },
    /// A batch is complete.
    Sealed {
        /// Whose it is.
        lane: LaneId,
        /// The stream's name.
        stream: Arc<str>,
        /// What is in it: one event at least.
        events: Events,
        /// Whether it was told as [`Opened`](Self::Opened) before.
        opened: bool,
    },
    /// A record was read from disk.
    Replayed {
        /// Whose it is.
        lane: LaneId,
        /// The stream's name.
        stream: Arc<str>,
        /// What was read.
        replay: Replay,
    },
    /// What [`Step::Seal`] asked for was done: the batches came before this.
    SealsDone(u64),
    /// The lane was given back, as [`Step::Retire`] asked.
    Retired(LaneId),
    /// Memory has run out: what is open should be sent.
    Press,
    /// The next flush: everything that came before it is to be sent and settled.
    Flush,
    /// Nothing is opened from now on.
    Stop,
}

/// What the driver has to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this, then call [`handle_result`](super::Batcher::handle_result).
    Send(Request),
    /// Compress this batch, which has to wait, then call
    /// [`handle_gzipped`](super::Batcher::handle_gzipped).
    Compress(Waiting),
    /// Compress this batch, which leaves memory for the disk, then call
    /// [`handle_leaving`](super::Batcher::handle_leaving).
    Store(Leaving),
    /// Split this batch, then call [`handle_split`](super::Batcher::handle_split).
    Split(Split),
    /// Report this loss, then call [`handle_reported`](super::Batcher::handle_reported).
    Lost(Loss),
    /// Seal the open batches of these lanes, then say [`Input::SealsDone`].
    Seal(Seal),
    /// Give back these lanes if nothing has come for them meanwhile, and say [`Input::Retired`].
    Retire(Vec<Retire>),
    /// Do nothing before that time, or until something happens. It is past when a slice of much work
    /// was done: the next is done then.
    Wait(Instant),
    /// Do nothing until something happens.
    Idle,
    /// Do nothing ever again.
    Finished,
}

/// One attempt to deliver batches.
#[derive(Debug)]
pub struct Request {
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) records: Vec<RecordId>,
}

impl Request {
    /// Tells requests apart.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What to send.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The records on disk of what is sent for the first time: they have to say so before it is.
    #[must_use]
    pub fn records(&self) -> &[RecordId] {
        &self.records
    }

    /// The buffer of its text, to be used again: once it was compressed nobody else needs it. `None`
    /// if it is not the text of a single stream.
    #[must_use]
    pub fn into_buffer(mut self) -> Option<Vec<u8>> {
        let share = self.body.shares.pop().filter(|share| !share.gzipped)?;
        (self.body.shares.is_empty() && share.text.is_unique()).then(|| share.text.into())
    }
}

/// A batch that waits, and takes less room compressed.
#[derive(Debug)]
pub struct Waiting {
    pub(super) lane: LaneId,
    pub(super) position: i64,
    pub(super) id: u64,
    pub(super) body: Body,
}

impl Waiting {
    /// What to compress.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }
}

/// A batch that is to be sent in two parts.
#[derive(Debug)]
pub struct Split {
    pub(super) lane: LaneId,
    pub(super) id: u64,
    pub(super) share: Share,
    pub(super) at: u32,
}

/// The two parts of a batch.
#[derive(Debug)]
pub struct Parts {
    pub(super) lane: LaneId,
    pub(super) id: u64,
    pub(super) left: Bytes,
    pub(super) right: Bytes,
}

impl Split {
    /// Finds where the events end, and splits between two of them. It takes as long as the batch is.
    #[must_use]
    pub fn run(self) -> Parts {
        let Self { lane, id, share, at } = self;
        let text: Bytes = if share.gzipped {
            let mut text = gunzip(&share.text).unwrap_or_default();
            // From an array to events with a comma before each.
            text.pop();
            if let Some(first) = text.first_mut() {
                *first = b',';
            }
            text.into()
        } else {
            share.text
        };
        let end = narrow::end_of_events(&text, at);
        // Each in its own memory, so that one can be given back without the other.
        let copy = |part: &[u8]| Bytes::from(part.to_vec());
        Parts { lane, id, left: copy(&text[..end]), right: copy(&text[end..]) }
    }
}

/// Lanes whose open batches are to be sealed.
#[derive(Debug)]
pub struct Seal {
    pub(super) ticket: u64,
    pub(super) lanes: Vec<LaneId>,
}

impl Seal {
    /// What [`Input::SealsDone`] is to name.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The lanes.
    #[must_use]
    pub fn lanes(&self) -> &[LaneId] {
        &self.lanes
    }
}

/// A lane that holds nothing, as far as the batcher knows.
#[derive(Debug, Clone, Copy)]
pub struct Retire {
    /// Which one.
    pub lane: LaneId,
    /// How many sealed batches the batcher has seen of it, modulo 2³²: if there are more, the lane
    /// stays. Those count that came before the lane was last given back, so that an old step does
    /// nothing to whoever has its number by now.
    pub sealed: u32,
}

/// Events of one stream that were given up.
#[derive(Debug)]
pub struct Loss {
    pub(super) batch: u64,
    pub(super) epoch: u64,
    pub(super) cost: usize,
    pub(super) share: Share,
    pub(super) count: u32,
    pub(super) reason: LossReason,
    pub(super) delivery: Delivery,
    pub(super) last: Option<Box<Last>>,
}

impl Loss {
    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &Arc<str> {
        &self.share.stream
    }

    /// How many events there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Why they were given up.
    #[must_use]
    pub fn reason(&self) -> LossReason {
        self.reason
    }

    /// Whether the server may have them.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The status of the last response to them.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.last.as_ref().and_then(|last| last.status)
    }

    /// The server's message in that response.
    #[must_use]
    pub fn message(&self) -> Option<&Arc<str>> {
        self.last.as_ref().and_then(|last| last.message.as_ref())
    }

    /// Why the last attempt got no response.
    #[must_use]
    pub fn error(&self) -> Option<&TransportError> {
        self.last.as_ref().and_then(|last| last.error.as_ref())
    }

    /// What the user is given.
    #[must_use]
    pub fn to_lost_batch(&self) -> LostBatch {
        let (stream, events) = (Arc::clone(self.stream()), array(&self.share));
        let count = self.count as usize;
        let mut lost = LostBatch::new(stream, events, count, self.reason, self.delivery);
        lost.status = self.status();
        lost.message = self.message().cloned();
        lost.error = self.error().cloned();
        lost
    }
}

impl Waiting {
    /// The bytes that [`handle_gzipped`](super::Batcher::handle_gzipped) takes.
    #[must_use]
    pub fn run(&self, gzip: &mut Gzip) -> Bytes {
        self.body.gzip(gzip)
    }
}
