//! The memory that clients may take with what they send.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Access;
use super::body::Encoding;
use crate::pool::Pool;
use crate::settings::Limits;

/// A body no longer than this is read without asking for room.
const SMALL: usize = 64 * 1024;

/// How much room a body takes at once, in KiB.
const STEP: u32 = 64;

/// One that cannot inflate to more than this is inflated without asking.
const SMALL_INFLATED: usize = 256 * 1024;

/// The most that deflate makes of a byte.
const BOMB: usize = 1032;

/// The memory that bodies may take: what comes with the secret key, and what comes with the open key, which may be
/// from anybody, and is not to crowd the others out.
#[derive(Debug)]
pub(crate) struct Rooms {
    trusted: Room,
    open: Room,
}

impl Rooms {
    pub(crate) fn new(limits: &Limits) -> io::Result<Self> {
        // One large body of the open key at a time waits to be written, and the others wait for no more than that.
        Ok(Self { trusted: Room::new(limits, 4, 4)?, open: Room::new(limits, 2, 1)? })
    }

    /// The room for the bearer of this key; a request without one shares the open key's.
    pub(crate) fn of(&self, access: Option<Access>) -> &Room {
        match access {
            Some(Access::Secret) => &self.trusted,
            Some(Access::Open) | None => &self.open,
        }
    }
}

/// The memory that some bodies may take together: so many of the largest, as sent and inflated. The
/// others wait, so that what hostile clients can cost is bounded.
#[derive(Debug)]
pub(crate) struct Room {
    sent: Memory,
    /// Held by one body that grows though nothing is left, so that bodies that all wait for each other come to
    /// an end one by one.
    last: Arc<Semaphore>,
    inflated: Memory,
    /// Reads those that are inflated in the room: what that takes would else be kept for each thread of the runtime.
    pub(crate) threads: Arc<Pool>,
}

/// How many large bodies with the same key are inflated and read at once.
const READ_AT_ONCE: usize = 2;

/// Their stack, in bytes: JSON is read to a depth of 128.
const BODY_STACK: usize = 2 * 1024 * 1024;

/// A share of the room, given back when dropped.
pub(crate) type Share = Option<OwnedSemaphorePermit>;

/// The share of a body that is coming: it takes room for what has come, whatever was announced.
#[derive(Debug)]
pub(crate) struct Growing {
    room: Arc<Semaphore>,
    last: Arc<Semaphore>,
    held: Share,
    kib: u32,
    is_last: Share,
}

impl Growing {
    /// Waits until there is room for so many bytes in all.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        if bytes <= SMALL || kib <= self.kib || self.is_last.is_some() {
            return;
        }
        // In steps, as a body may come byte by byte.
        let more = (kib - self.kib).max(STEP);
        tokio::select! {
            biased;
            more_held = Arc::clone(&self.room).acquire_many_owned(more) => {
                match (&mut self.held, more_held) {
                    (Some(held), Ok(more)) => held.merge(more),
                    (held, more) => *held = more.ok(),
                }
                self.kib += more;
            }
            last = Arc::clone(&self.last).acquire_owned() => self.is_last = last.ok(),
        }
    }
}

impl Room {
    fn new(limits: &Limits, sent: usize, inflated: usize) -> io::Result<Self> {
        Ok(Self {
            sent: Memory::new(limits.max_body, sent),
            last: Arc::new(Semaphore::new(1)),
            inflated: Memory::new(limits.max_inflated, inflated),
            threads: Arc::new(Pool::start("body", READ_AT_ONCE, BODY_STACK)?),
        })
    }

    /// Room for a body that is about to come.
    pub(crate) fn share(&self) -> Growing {
        Growing {
            room: Arc::clone(&self.sent.permits),
            last: Arc::clone(&self.last),
            held: None,
            kib: 0,
            is_last: None,
        }
    }

    /// Room for what a body of so many bytes may become.
    pub(crate) async fn inflated(&self, bytes: usize, encoding: Encoding) -> Share {
        let bytes = match encoding {
            Encoding::Plain => bytes,
            Encoding::Gzip => bytes.saturating_mul(BOMB),
        };
        // Those that send little are not to wait for those that send much.
        if bytes <= SMALL_INFLATED { None } else { self.inflated.share(bytes).await }
    }
}

/// Memory in KiB, as the number of permits is bounded.
#[derive(Debug)]
struct Memory {
    permits: Arc<Semaphore>,
    largest: u32,
}

impl Memory {
    fn new(largest: usize, bodies: usize) -> Self {
        // The bound keeps four of them below what a semaphore can count.
        let largest = u32::try_from(largest / 1024 + 1).unwrap_or(u32::MAX).min(u32::MAX / 64);
        Self { permits: Arc::new(Semaphore::new(bodies * largest as usize)), largest }
    }

    async fn share(&self, bytes: usize) -> Share {
        let wanted = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.largest);
        // It is never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }
}
