//! What is known of a segment, and what is appended to one.

use std::collections::HashSet;
use std::sync::Arc;

use stride_core::transport::Delivery;

use crate::batcher::{RecordId, Replay, Store};
use crate::spool::record::{self, Record, SegmentHeader, State, segment_name};

#[derive(Debug)]
pub(in crate::spool) struct Segment {
    pub(super) slot: usize,
    pub(super) name: String,
    /// This process made it.
    pub(in crate::spool) own: bool,
    /// As far as it is written.
    pub(in crate::spool) len: u64,
    /// Known once the file was read.
    pub(in crate::spool) header: Option<SegmentHeader>,
    /// What lies before is counted. Of our own it is all.
    pub(in crate::spool) counted_to: u64,
    /// The records that are not done, as far as they are counted, and their bytes.
    pub(in crate::spool) live: u64,
    pub(in crate::spool) live_bytes: u64,
    /// Those of them that are on disk only, and their events.
    pub(in crate::spool) out: u64,
    pub(in crate::spool) out_events: u64,
    /// The time of the last one, in ms since 1970.
    pub(in crate::spool) newest: u64,
    /// Records that are not what the file says of them: they were not stored, or are done.
    pub(in crate::spool) void: HashSet<u64>,
    /// It is kept aside rather than removed.
    pub(in crate::spool) damaged: bool,
}

impl Segment {
    pub(super) fn new(slot: usize, number: u64, len: u64) -> Self {
        Self {
            slot,
            name: segment_name(number),
            own: false,
            len,
            header: None,
            counted_to: 0,
            live: 0,
            live_bytes: 0,
            out: 0,
            out_events: 0,
            newest: 0,
            void: HashSet::new(),
            damaged: false,
        }
    }

    pub(in crate::spool) fn is_counted(&self) -> bool {
        self.counted_to >= self.len
    }

    /// Whether something in it is on disk only, as far as is known.
    pub(in crate::spool) fn has_more(&self) -> bool {
        self.out > 0 || !self.is_counted()
    }

    /// Whether nothing of it is in memory.
    pub(in crate::spool) fn is_out(&self) -> bool {
        self.live == self.out
    }
}

/// What is to be written.
#[derive(Debug)]
pub(in crate::spool) enum Append {
    Batch(Store),
    /// A record of another segment.
    Forward {
        from: RecordId,
        len: u64,
        stream: Arc<str>,
        replay: Replay,
        time: u64,
    },
}

/// Something that was written: what, where, and how long it is there.
pub(super) type Appended = (Append, RecordId, u64);

impl Append {
    /// How long it will be on disk, in bytes.
    pub(super) fn len(&self) -> u64 {
        let (stream, gzipped) = match self {
            Self::Batch(store) => (&store.stream, &store.gzipped),
            Self::Forward { stream, replay, .. } => (stream, &replay.gzipped),
        };
        record::record_len(stream.len(), gzipped.len()) as u64
    }

    /// Writes its record, and gives the time of it.
    pub(super) fn encode(&self, sequence: u64, now: u64, salt: u64, out: &mut Vec<u8>) -> u64 {
        let (stream, count, length, delivery, gzipped, time) = match self {
            Self::Batch(it) => (&it.stream, it.count, it.length, it.delivery, &it.gzipped, now),
            Self::Forward { stream, replay, time, .. } => {
                (stream, replay.count, replay.length, replay.delivery, &replay.gzipped, *time)
            }
        };
        let from = out.len();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        record::encode(&Record { sequence, stream, count, length, time, gzipped }, salt, out);
        if delivery == Delivery::MaybeSent {
            out[from..from + 8].copy_from_slice(&State::MaybeSent.to_bytes());
        }
        time
    }
}
