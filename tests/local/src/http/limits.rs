//! What clients may take of the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Encoding;

/// The limits of connections and requests, each set by the method of that name of
/// [`Builder`](crate::Builder), which says what they are by default.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Connections that are open at once.
    pub(crate) max_connections: usize,
    /// Time for the head of a request, the silence before it included.
    pub(crate) head_time: Duration,
    /// Time for the body of a request.
    pub(crate) body_time: Duration,
    /// Time from the head of a request to that of its response.
    pub(crate) request_time: Duration,
    /// Time in which a client takes nothing of what it is sent.
    pub(crate) write_time: Duration,
    /// Bytes of a body as sent.
    pub(crate) max_body: usize,
    /// Bytes of a body after gunzip.
    pub(crate) max_inflated: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_connections: 512,
            head_time: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            request_time: Duration::from_secs(120),
            write_time: Duration::from_secs(300),
            max_body: 16 * MIB,
            max_inflated: 64 * MIB,
        }
    }
}

/// A body no longer than this is read without asking for room.
const SMALL: u64 = 64 * 1024;

/// The most that deflate makes of a byte.
const BOMB: usize = 1032;

/// The memory that all bodies may take together: four of the largest, as sent and inflated. The
/// others wait, so that what hostile clients can cost is bounded.
#[derive(Debug)]
pub(crate) struct Room {
    sent: Pool,
    inflated: Pool,
}

/// A share of the room, given back when dropped.
pub(crate) type Share = Option<OwnedSemaphorePermit>;

impl Room {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { sent: Pool::new(limits.max_body), inflated: Pool::new(limits.max_inflated) }
    }

    /// Room for a body that is announced with this many bytes, or with no number at all.
    pub(crate) async fn sent(&self, announced: Option<u64>) -> Share {
        match announced {
            Some(bytes) if bytes <= SMALL => None,
            Some(bytes) => self.sent.share(usize::try_from(bytes).unwrap_or(usize::MAX)).await,
            None => self.sent.share(usize::MAX).await,
        }
    }

    /// Room for what a body of so many bytes may become.
    pub(crate) async fn inflated(&self, bytes: usize, encoding: Encoding) -> Share {
        match encoding {
            Encoding::Plain => self.inflated.share(bytes).await,
            Encoding::Gzip => self.inflated.share(bytes.saturating_mul(BOMB)).await,
        }
    }
}

/// Memory in KiB, as the number of permits is bounded.
#[derive(Debug)]
struct Pool {
    permits: Arc<Semaphore>,
    largest: u32,
}

impl Pool {
    fn new(largest: usize) -> Self {
        // The bound keeps four of them below what a semaphore can count.
        let largest = u32::try_from(largest / 1024 + 1).unwrap_or(u32::MAX).min(u32::MAX / 64);
        Self { permits: Arc::new(Semaphore::new(4 * largest as usize)), largest }
    }

    async fn share(&self, bytes: usize) -> Share {
        let wanted = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.largest);
        // It is never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }
}
