//! The only place that compresses.
//!
//! flate2's own gzip writer spends a third of its time on the checksum when its back end is
//! zlib-rs. Raw deflate, `crc32fast` and the 18 bytes of the frame (RFC 1952) do the same in
//! three quarters of it.

use std::fmt;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

use crate::EndpointError;

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
    pub fn new(level: u32) -> Result<Self, EndpointError> {
        if level > 9 {
            return Err(EndpointError::Setting { setting: "gzip_level", reason: "is above 9" });
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
/// use stride_core::{Gzip, GzipLevel};
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
        // Magic, deflate, no flags, no time, "fastest", unknown system.
        let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];
        let mut checksum = crc32fast::Hasher::new();
        let mut length = 0_u32;
        self.deflate.reset();
        for part in parts {
            checksum.update(part);
            // The format keeps the length modulo 2^32.
            #[expect(clippy::cast_possible_truncation, reason = "the format keeps it modulo 2^32")]
            let part_length = part.len() as u32;
            length = length.wrapping_add(part_length);
            self.write(part, &mut out, FlushCompress::None);
        }
        self.write(&[], &mut out, FlushCompress::Finish);
        out.extend_from_slice(&checksum.finalize().to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        // Batches wait like this while a server is down: they are counted by their length.
        out.shrink_to_fit();
        out.into()
    }

    fn write(&mut self, mut part: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
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

/// The text in one gzip member, such as [`Gzip::compress`] makes.
///
/// # Errors
///
/// It is no gzip member, or a damaged one.
///
/// ```
/// use stride_core::{Gzip, GzipLevel, gunzip};
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
