//! The format of a segment, version 1: how records are written, and what a reader makes of any bytes.
//! Nothing here does IO. The [guide](crate::guide::spool_format) specifies it.
//!
//! The checksums of records cover the segment's salt, so that what an earlier file left in the same place
//! on disk is never taken for a record.

use std::ops::Range;
use std::sync::Arc;

/// The length of a segment's header, in bytes.
pub const HEADER: usize = 64;

/// The length of a record's header, with its state, in bytes.
pub const RECORD_HEADER: usize = 56;

/// The longest name of a stream in a record, in bytes.
pub const MAX_STREAM: usize = 64 << 10;

/// The longest payload of a record, in bytes: a batch is at most 1 GiB of JSON and one event more, and
/// gzip makes little longer what it cannot compress.
pub const MAX_PAYLOAD: usize = (2 << 30) + (1 << 20);

/// Where records begin is a multiple of this, so that no sector ends inside of a state.
const ALIGNMENT: usize = 8;

const MAGIC: &[u8; 8] = b"strdspl\n";
const VERSION: u32 = 1;
const SUFFIX: &str = ".segment";

/// The name of the file of this segment.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number of the segment that has this name; `None` of any other file.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

/// What a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number in the file's name.
    pub number: u64,
    /// Random, another for each file.
    pub salt: u64,
    /// The hash of the base URL that the events are for.
    pub endpoint: u64,
    /// The hash of what names this start of the machine; 0 if that is unknown.
    pub boot: u64,
}

/// Why a file has no header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHeader {
    /// Something else than this library wrote it.
    #[error("the file is not a segment of a spool")]
    NotASegment,
    /// A later version of this library wrote it.
    #[error("the segment has version {0} of the format, which is unknown")]
    Version(u32),
    /// It was not written completely, or changed since.
    #[error("the header of the segment is damaged")]
    Damaged,
}

impl SegmentHeader {
    /// The bytes of it.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.number, self.salt, self.endpoint, self.boot];
        for (place, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the first [`HEADER`] bytes of a file; there may be more, or fewer.
    ///
    /// # Errors
    ///
    /// [`BadHeader`], if they are not a header of this version. All versions have the same length,
    /// and the first 16 bytes in common, so that a damaged one is not taken for another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(BadHeader::Damaged);
        };
        if u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            // A file that was created, and whose bytes never reached the disk, is zeros.
            let is_ours = bytes.starts_with(MAGIC) || bytes.iter().all(|byte| *byte == 0);
            return Err(if is_ours { BadHeader::Damaged } else { BadHeader::NotASegment });
        }
        match u32_at(bytes, 12) {
            VERSION => Ok(Self {
                number: u64_at(bytes, 16),
                salt: u64_at(bytes, 24),
                endpoint: u64_at(bytes, 32),
                boot: u64_at(bytes, 40),
            }),
            other => Err(BadHeader::Version(other)),
        }
    }
}

/// How far a record has come. It is overwritten in place, outside of all checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is on disk, and was not sent by this process.
    Written,
    /// The server may have it.
    MaybeSent,
    /// It is delivered, or was reported as lost.
    Done,
}

impl State {
    /// What is written at the start of the record. Between any two of them at least 22 bits differ.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        match self {
            Self::Written => *b"written:",
            Self::MaybeSent => *b"MAYBSENT",
            Self::Done => *b"[[DONE]]",
        }
    }

    /// What these bytes mean. What is unknown is [`MaybeSent`](Self::MaybeSent): sent again rather than
    /// lost, and never called unsent.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        [Self::Written, Self::Done]
            .into_iter()
            .find(|state| state.to_bytes() == bytes)
            .unwrap_or(Self::MaybeSent)
    }
}

/// A batch of one stream, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Counts the records of a spool.
    pub sequence: u64,
    /// The stream's name.
    pub stream: &'a str,
    /// How many events are in it.
    pub count: u32,
    /// The length of the JSON before it was compressed, in bytes.
    pub length: u32,
    /// When the batch was sealed, in ms since 1970.
    pub time: u64,
    /// The events: a JSON array, compressed.
    pub gzipped: &'a [u8],
}

/// How long the record of such a batch is, in bytes.
#[must_use]
pub fn record_len(stream_len: usize, payload_len: usize) -> usize {
    (RECORD_HEADER + stream_len + payload_len).next_multiple_of(ALIGNMENT)
}

/// Appends the record to `out`, in the state [`Written`](State::Written).
///
/// # Panics
///
/// If the name is longer than [`MAX_STREAM`], or the payload than [`MAX_PAYLOAD`].
pub fn encode(record: &Record<'_>, salt: u64, out: &mut Vec<u8>) {
    let header = Header {
        sequence: record.sequence,
        time: record.time,
        count: record.count,
        length: record.length,
        payload_len: record.gzipped.len(),
        stream_len: record.stream.len(),
        body_checksum: checksum(salt, &[record.stream.as_bytes(), record.gzipped]),
    };
    assert!(header.is_within_bounds(), "a record is too long");
    let begin = out.len();
    out.reserve(header.record_len());
    out.extend_from_slice(&State::Written.to_bytes());
    out.extend_from_slice(&header.encode(salt));
    out.extend_from_slice(record.stream.as_bytes());
    out.extend_from_slice(record.gzipped);
    out.resize(begin + header.record_len(), 0);
}

/// A record that was read, and is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many bytes it takes in the file.
    pub len: usize,
    /// How far it has come.
    pub state: State,
    /// Counts the records of a spool.
    pub sequence: u64,
    /// The stream's name.
    pub stream: Arc<str>,
    /// How many events are in it.
    pub count: u32,
    /// The length of the JSON before it was compressed, in bytes.
    pub length: u32,
    /// When the batch was sealed, in ms since 1970.
    pub time: u64,
    /// Where the compressed events are in the window.
    pub payload: Range<usize>,
}

/// What is next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A whole record.
    Found(Found),
    /// Records that cannot be read: they are skipped, and lost.
    Damage {
        /// How many bytes to skip: 1 at least.
        len: usize,
        /// How many records there were: 1 at least. It is exact unless neighbouring headers are lost;
        /// then a gap in the sequence tells.
        records: u64,
        /// How many events were in them, if their header is whole.
        events: Option<u64>,
    },
    /// The window has to hold so many bytes: more than it does. Never at the end of the file.
    More(usize),
    /// Nothing. What is left, if anything, was never written completely, so nobody was told that it is
    /// safe.
    End,
}

/// Reads what is at the start of `window`, which begins behind the segment's header or where the last
/// record or damage ended. `at_end_of_file` says that nothing follows the window.
///
/// Reading always ends: each result but the last skips a byte at least, or asks for a longer window.
#[must_use]
pub fn next(window: &[u8], at_end_of_file: bool, salt: u64) -> Next {
    if window.len() < RECORD_HEADER {
        return if at_end_of_file { Next::End } else { Next::More(RECORD_HEADER) };
    }
    let Some(header) = Header::decode(window, salt) else {
        return after_damaged_header(window, at_end_of_file, salt);
    };
    let len = header.record_len();
    let Some(bytes) = window.get(..len) else {
        return if at_end_of_file { Next::End } else { Next::More(len) };
    };
    let payload_at = RECORD_HEADER + header.stream_len;
    let payload = payload_at..payload_at + header.payload_len;
    let (stream, events) = (&bytes[RECORD_HEADER..payload_at], &bytes[payload.clone()]);
    match (str::from_utf8(stream), checksum(salt, &[stream, events]) == header.body_checksum) {
        (Ok(stream), true) => Next::Found(Found {
            len,
            state: State::from_bytes(u64_at(bytes, 0).to_le_bytes()),
            sequence: header.sequence,
            stream: stream.into(),
            count: header.count,
            length: header.length,
            time: header.time,
            payload,
        }),
        _ => Next::Damage { len, records: 1, events: Some(header.count.into()) },
    }
}

/// Looks for the next header that is whole.
fn after_damaged_header(window: &[u8], at_end_of_file: bool, salt: u64) -> Next {
    let mut records = 1;
    for at in (ALIGNMENT..=window.len() - RECORD_HEADER).step_by(ALIGNMENT) {
        let place = &window[at..at + RECORD_HEADER];
        if !Header::is_likely(place, salt) {
            continue;
        }
        if Header::decode(place, salt).is_some() {
            return Next::Damage { len: at, records, events: None };
        }
        records += 1;
    }
    if !at_end_of_file {
        return Next::More(window.len().saturating_mul(2));
    }
    // Of a record that was torn, the sector with the state or half of the header may have been written.
    match window.iter().rposition(|byte| *byte != 0) {
        Some(last) if last >= RECORD_HEADER => {
            let len = (last + 1).next_multiple_of(ALIGNMENT).min(window.len());
            Next::Damage { len, records, events: None }
        }
        _ => Next::End,
    }
}

/// The header of a record, behind its state.
struct Header {
    sequence: u64,
    time: u64,
    count: u32,
    length: u32,
    payload_len: usize,
    stream_len: usize,
    body_checksum: u32,
}

impl Header {
    fn encode(&self, salt: u64) -> [u8; RECORD_HEADER - 8] {
        let mut bytes = [0; RECORD_HEADER - 8];
        bytes[..4].copy_from_slice(&marker(salt).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.to_le_bytes());
        let (payload_len, stream_len) = (self.payload_len as u32, self.stream_len as u32);
        let numbers = [self.count, self.length, payload_len, stream_len, self.body_checksum];
        for (place, number) in bytes[24..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let header_checksum = checksum(salt, &[&bytes[8..]]);
        bytes[4..8].copy_from_slice(&header_checksum.to_le_bytes());
        bytes
    }

    /// Whether a record may begin with these bytes: at most one bit of the marker is wrong.
    fn is_likely(record: &[u8], salt: u64) -> bool {
        (u32_at(record, 8) ^ marker(salt)).count_ones() <= 1
    }

    fn decode(record: &[u8], salt: u64) -> Option<Self> {
        let header = Self {
            sequence: u64_at(record, 16),
            time: u64_at(record, 24),
            count: u32_at(record, 32),
            length: u32_at(record, 36),
            payload_len: u32_at(record, 40) as usize,
            stream_len: u32_at(record, 44) as usize,
            body_checksum: u32_at(record, 48),
        };
        let is_whole = u32_at(record, 8) == marker(salt)
            && u32_at(record, 12) == checksum(salt, &[&record[16..RECORD_HEADER]])
            && header.is_within_bounds();
        is_whole.then_some(header)
    }

    /// Before anything is allocated.
    fn is_within_bounds(&self) -> bool {
        self.stream_len <= MAX_STREAM && self.payload_len <= MAX_PAYLOAD
    }

    fn record_len(&self) -> usize {
        record_len(self.stream_len, self.payload_len)
    }
}

/// What tells where a record begins. It depends on the salt, so that no payload can hold it on purpose.
fn marker(salt: u64) -> u32 {
    checksum(salt, &[b"record"])
}

fn checksum(salt: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
