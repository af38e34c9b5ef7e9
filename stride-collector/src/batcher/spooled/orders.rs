//! What the batcher and a spool tell each other.

use std::sync::Arc;

use bytes::Bytes;
use stride_core::gzip::Gzip;
use stride_core::transport::Delivery;

use crate::batcher::batch::{BATCH_COST, Body};
use crate::batcher::step::{LaneId, RecordId};
use crate::report::LossReason;

/// Which batches go to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolMode {
    /// Those that memory cannot hold, or that would be lost otherwise.
    Overflow,
    /// Every one, before it is sent.
    WriteAhead,
}

/// What the spool has to do, in this order.
#[derive(Debug)]
pub enum SpoolOrder {
    /// Write this batch, and say what came of it with
    /// [`handle_stored`](crate::batcher::Batcher::handle_stored).
    Store(Store),
    /// The events of this record are delivered, or were reported as lost.
    Settled(RecordId),
    /// The events of this record are on disk only from now on.
    Evicted {
        /// Which one.
        record: RecordId,
        /// How many events are in it.
        count: u32,
        /// Whether the server may have them.
        delivery: Delivery,
    },
}

/// A batch to be written.
#[derive(Debug)]
pub struct Store {
    /// Whose it is.
    pub lane: LaneId,
    /// The batch's number.
    pub batch: u64,
    /// The stream's name.
    pub stream: Arc<str>,
    /// How many events there are.
    pub count: u32,
    /// Their length before compression, in bytes.
    pub length: usize,
    /// The events as they are sent alone.
    pub gzipped: Bytes,
    /// Whether the server may have them.
    pub delivery: Delivery,
}

impl Store {
    /// What [`handle_stored`](crate::batcher::Batcher::handle_stored) has to know of it.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored { lane: self.lane, batch: self.batch, count: self.count }
    }
}

/// A batch that was to be written.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    pub(super) lane: LaneId,
    pub(super) batch: u64,
    pub(super) count: u32,
}

impl Stored {
    /// The batch's number.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Whose it is.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.lane
    }
}

/// A record that was read from disk.
#[derive(Debug)]
pub struct Replay {
    /// Where it lies.
    pub record: RecordId,
    /// Its events as they are sent alone.
    pub gzipped: Bytes,
    /// How many there are.
    pub count: u32,
    /// Their length before compression, in bytes.
    pub length: usize,
    /// Whether the server may have them.
    pub delivery: Delivery,
    /// It was left by an earlier process, and is seen for the first time.
    pub recovered: bool,
    /// It is not to be sent, but to be lost for this reason.
    pub lost: Option<LossReason>,
}

impl Replay {
    /// What it takes of the memory budget, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.gzipped.len() + BATCH_COST
    }
}

/// A batch that leaves, and has to be compressed before.
#[derive(Debug)]
pub struct Leaving {
    pub(super) id: u64,
    pub(super) body: Body,
}

impl Leaving {
    /// What to compress.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The bytes that [`handle_leaving`](crate::batcher::Batcher::handle_leaving) takes.
    #[must_use]
    pub fn run(&self, gzip: &mut Gzip) -> Bytes {
        self.body.gzip(gzip)
    }
}
