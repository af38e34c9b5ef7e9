//! The calls that a driver makes for the machine, one at a time.

use std::io;

use bytes::Bytes;

use super::NUMBER_BITS;
use crate::batcher::RecordId;
use crate::spool::disk::Disk;
use crate::spool::record::{State, segment_name};

/// One call of a disk.
#[derive(Debug)]
pub struct DiskCall {
    /// The index of the slot.
    pub slot: usize,
    pub(super) verb: Verb,
}

#[derive(Debug)]
pub(super) enum Verb {
    Create(String),
    Write(String, u64, Bytes),
    Read(String, u64, usize),
    Sync(String),
    SyncFolder,
    Rename(String, String),
    Unlink(String),
}

impl DiskCall {
    /// Runs it. What it gives is empty unless it reads.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn run(&self, disk: &dyn Disk) -> io::Result<Vec<u8>> {
        let done = match &self.verb {
            Verb::Read(name, offset, len) => return disk.read_at(name, *offset, *len),
            Verb::Create(name) => disk.create(name),
            Verb::Write(name, offset, bytes) => disk.write_at(name, *offset, bytes),
            Verb::Sync(name) => disk.sync(name),
            Verb::SyncFolder => disk.sync_folder(),
            Verb::Rename(from, to) => disk.rename(from, to),
            Verb::Unlink(name) => disk.unlink(name),
        };
        done.map(|()| Vec::new())
    }
}

/// Says on disk that a record is about to be sent.
///
/// # Errors
///
/// The disk's.
pub fn mark_sent(record: RecordId, disk: &dyn Disk) -> io::Result<()> {
    let name = segment_name(record.segment & ((1 << NUMBER_BITS) - 1));
    disk.write_at(&name, record.offset, &State::MaybeSent.to_bytes())
}

/// The index of a record's slot.
#[must_use]
pub fn slot_of(record: RecordId) -> usize {
    (record.segment >> NUMBER_BITS) as usize
}
