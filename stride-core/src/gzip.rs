//! Compression of request bodies: the only place that does it.
//!
//! flate2's own gzip writer spends a third of its time on the checksum when its back end is
//! zlib-rs. Raw deflate, `crc32fast` and the 18 bytes of the frame (RFC 1952) do the same in
//! three quarters of it.

use std::fmt;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

use crate::config::ConfigError;

/// Magic, deflate, no flags, no time, "fastest", unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];

/// The longest text that is stored in its gzip member as it is: to set up a compressor for it takes
/// half as long as the whole request on a fast network, and would save some hundred bytes.
const STORED: usize = 512;

/// How hard to compress, from 0 (not at all) to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GzipLevel(u32);

impl GzipLevel {
    /// Level 1: nested events become 7 times smaller; level 6 makes them 11 times smaller for six
    /// times the work.
    pub const FASTEST: Self = Self(1);

    /// The given level.
    ///
    /// # Errors
    ///
    /// A level above 9.
    pub fn new(level: u32) -> Result<Self, ConfigError> {
        if level > 9 {
            return Err(ConfigError::Setting { setting: "gzip_level", reason: "is above 9" });
        }
        Ok(Self(level))
    }
}

impl Default for GzipLevel {
    fn default() -> Self {
        Self::FASTEST
    }
}

/// A compressor that is used again and again: its state (some 300 KB) is made once.
///
/// ```
/// use stride_core::gzip::{Gzip, GzipLevel};
///
/// let mut gzip = Gzip::new(GzipLevel::FASTEST);
/// let body = gzip.compress([&b"["[..], br#"{"a":1}"#, b"]"]);
/// assert_eq!(body[..2], [0x1f, 0x8b]);
/// ```
pub struct Gzip {
    deflate: Compress,
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").finish_non_exhaustive()
    }
}

impl Gzip {
    /// A compressor of the given level.
    #[must_use]
    pub fn new(level: GzipLevel) -> Self {
        Self { deflate: Compress::new(Compression::new(level.0), false) }
    }

    /// Compresses the parts, as if they were one text, into one gzip member.
    pub fn compress<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
        let mut member = self.member();
        for part in parts {
            member.write(part);
        }
        member.finish()
    }

    /// Begins a gzip member whose text comes bit by bit, for those who have other things to do in
    /// between. One that is not finished is forgotten.
    pub fn member(&mut self) -> GzipMember<'_> {
        self.deflate.reset();
        let out = HEAD.to_vec();
        let checksum = crc32fast::Hasher::new();
        GzipMember { deflate: &mut self.deflate, out, checksum, length: 0 }
    }
}

/// One gzip member in the making; begun by [`Gzip::member`].
///
/// ```
/// use stride_core::gzip::{Gzip, GzipLevel, gunzip};
///
/// let mut gzip = Gzip::new(GzipLevel::FASTEST);
/// let mut member = gzip.member();
/// member.write(b"[1,");
/// member.write(b"2]");
/// assert_eq!(gunzip(&member.finish())?, b"[1,2]");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a member that is not finished is forgotten"]
pub struct GzipMember<'a> {
    deflate: &'a mut Compress,
    out: Vec<u8>,
    checksum: crc32fast::Hasher,
    length: u32,
}

impl fmt::Debug for GzipMember<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GzipMember").finish_non_exhaustive()
    }
}

impl GzipMember<'_> {
    /// Compresses more of the text.
    pub fn write(&mut self, part: &[u8]) {
        self.checksum.update(part);
        // The format keeps the length modulo 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "the format keeps it modulo 2^32")]
        let part_length = part.len() as u32;
        self.length = self.length.wrapping_add(part_length);
        self.deflate(part, FlushCompress::None);
    }

    /// The whole member.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.deflate(&[], FlushCompress::Finish);
        let mut out = self.out;
        out.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        // Batches wait like this while a server is down: they are counted by their length.
        out.shrink_to_fit();
        out.into()
    }

    fn deflate(&mut self, mut part: &[u8], flush: FlushCompress) {
        let out = &mut self.out;
        loop {
            if out.capacity() - out.len() < 64 {
                // Events shrink five to ten times: mostly one growth is enough.
                out.reserve((part.len() / 4).max(1024));
            }
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(part, out, flush);
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(part.len());
            part = &part[taken..];
            match (flush, status) {
                (FlushCompress::Finish, Ok(Status::StreamEnd)) => return,
                (FlushCompress::Finish, _) => {}
                // All is taken and there was room to spare, so nothing is held back by the output.
                _ if part.is_empty() && out.len() < out.capacity() => return,
                _ => {}
            }
        }
    }
}

/// The gzip member of a single text.
pub(crate) fn gzip(text: &[u8]) -> Bytes {
    let Some(length) = u16::try_from(text.len()).ok().filter(|_| text.len() <= STORED) else {
        return Gzip::new(GzipLevel::FASTEST).compress([text]);
    };
    let mut out = Vec::with_capacity(text.len() + 23);
    out.extend_from_slice(&HEAD);
    // One block, the last and a stored one: its length, and the same with every bit turned over.
    out.push(1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(&crc32fast::hash(text).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out.into()
}

/// The text in one gzip member, such as [`Gzip::compress`] makes.
///
/// # Errors
///
/// The bytes are not a gzip member, or a damaged one.
///
/// ```
/// use stride_core::gzip::{Gzip, GzipLevel, gunzip};
///
/// let body = Gzip::new(GzipLevel::FASTEST).compress([&b"[1]"[..]]);
/// assert_eq!(gunzip(&body)?, b"[1]");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn gunzip(member: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(member).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_above_nine_is_refused() {
        assert!(GzipLevel::new(9).is_ok());
        assert!(GzipLevel::new(10).is_err());
    }

    #[test]
    fn nothing_is_a_member_too() {
        assert_eq!(gunzip(&Gzip::new(GzipLevel::FASTEST).compress([])).unwrap(), b"");
    }

    #[test]
    fn a_text_by_itself_comes_back_stored_or_compressed() {
        for length in [0, 1, STORED, STORED + 1, 100_000] {
            let text = vec![b'x'; length];
            let member = gzip(&text);
            assert_eq!(gunzip(&member).unwrap(), text);
            assert_eq!(member.len() > length, length <= STORED);
        }
    }

    proptest! {
        #[test]
        fn any_parts_at_any_level_come_back(
            level in 0_u32..=9,
            rounds in prop::collection::vec(
                prop::collection::vec((any::<u8>(), 0_usize..70_000), 0..4), 1..3),
            noise in prop::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let mut gzip = Gzip::new(GzipLevel::new(level).unwrap());
            for parts in rounds {
                let mut parts: Vec<Vec<u8>> =
                    parts.into_iter().map(|(byte, count)| vec![byte; count]).collect();
                parts.push(noise.clone());
                let body = gzip.compress(parts.iter().map(Vec::as_slice));
                prop_assert_eq!(gunzip(&body).unwrap(), parts.concat());
            }
        }
    }
}
