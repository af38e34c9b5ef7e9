//! Writing events as JSON, into what each thread keeps for itself: so that collecting an event
//! allocates and shares nothing.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use serde::Serialize;
use serde_json::value::RawValue;

use super::stamp::Stamp;
use super::stream::Stream;
use crate::error::CollectError;

/// The streams that a thread named lately.
const RECENT: usize = 16;

/// The buffer that a thread keeps between two events; a larger one is given back.
const KEPT: usize = 64 << 10;

/// A thread's own things.
pub(crate) struct Local {
    scratch: RefCell<Buffer>,
    /// The shard that was free the last time.
    pub(super) shard: Cell<usize>,
    /// Found by a hash of the name.
    pub(super) recent: RefCell<[Option<Arc<Stream>>; RECENT]>,
    /// This thread's number and how many ids it gave out; 0 before the first.
    thread: Cell<u64>,
    ids: Cell<u64>,
}

impl Local {
    const fn new() -> Self {
        Self {
            scratch: RefCell::new(Buffer::new()),
            shard: Cell::new(0),
            recent: RefCell::new([const { None }; RECENT]),
            thread: Cell::new(0),
            ids: Cell::new(0),
        }
    }

    /// Runs `work` with the calling thread's things; with new ones while the thread is ending.
    #[inline(always)]
    pub(crate) fn with<R>(work: impl FnOnce(&Self) -> R) -> R {
        crate::sync::thread_local! {
            static LOCAL: Local = const { Local::new() };
        }
        #[cold]
        fn with_new<R>(work: impl FnOnce(&Local) -> R) -> R {
            work(&Local::new())
        }
        // Asked beforehand, so that `work` is compiled into its caller, not called.
        if LOCAL.try_with(|_| ()).is_err() {
            return with_new(work);
        }
        LOCAL.with(work)
    }

    /// The buffer to write an event into: it holds the comma that stands before the event. An event
    /// that is collected while another is being written gets a buffer of its own.
    #[inline(always)]
    pub(crate) fn scratch(&self) -> Scratch<'_> {
        match self.scratch.try_borrow_mut() {
            Ok(mut kept) => {
                kept.clear();
                kept.push(b',');
                Scratch::Kept(kept)
            }
            Err(_) => {
                let mut new = Buffer::new();
                new.push(b',');
                Scratch::New(new)
            }
        }
    }

    /// Goes on with the longest ids there can be.
    #[cfg(test)]
    pub(crate) fn use_up_ids(&self) {
        self.thread.set(u64::MAX);
        self.ids.set(u64::MAX - 1);
    }

    /// A number of the calling thread and one of its own, which no other call was given.
    pub(crate) fn unique(&self) -> (u64, u64) {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        if self.thread.get() == 0 {
            self.thread.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        self.ids.set(self.ids.get() + 1);
        (self.thread.get(), self.ids.get())
    }
}

/// A buffer for one event.
pub(crate) enum Scratch<'a> {
    Kept(RefMut<'a, Buffer>),
    New(Buffer),
}

impl Scratch<'_> {
    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> &mut Buffer {
        match self {
            Self::Kept(bytes) => bytes,
            Self::New(bytes) => bytes,
        }
    }
}

impl Drop for Scratch<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes().capacity() > KEPT {
            *self.bytes() = Buffer::new();
        }
    }
}

/// Where a stream is among a thread's recent ones.
#[inline]
pub(super) fn slot(collector: u64, name: &str) -> usize {
    let bytes = name.as_bytes();
    let ends = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(7)
        }
        _ => bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    };
    let hash = (ends ^ collector ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 60) as usize % RECENT
}

/// Whether an event was accepted, and nothing else has to be done. Boxed, so that it stays in a
/// register: copying a larger result from call to call takes a fifth of the time that a small event
/// does.
pub(super) type Outcome = Result<(), Box<Unusual>>;

/// What is left to do when no lock and no borrow is held.
#[derive(Debug)]
pub(super) struct Unusual {
    /// Why the event was not accepted, if it was not.
    pub(super) error: Option<CollectError>,
    /// Whom to wake.
    pub(super) waker: Option<Waker>,
}

impl From<CollectError> for Box<Unusual> {
    fn from(error: CollectError) -> Self {
        Self::new(Unusual { error: Some(error), waker: None })
    }
}

/// How events are written.
#[derive(Debug)]
pub(crate) struct Writing {
    limit: usize,
    stamp: Option<Stamp>,
}

impl Writing {
    pub(crate) fn new(limit: usize, stamps: bool) -> Self {
        Self { limit, stamp: stamps.then(Stamp::new) }
    }

    /// Writes an event as JSON, behind the comma; no more than the limit is ever held of it.
    #[inline(always)]
    pub(super) fn encode<T: Serialize + ?Sized>(
        &self,
        event: &T,
        scratch: &mut Buffer,
        local: &Local,
    ) -> Outcome {
        let limit = self.limit;
        let start = scratch.len();
        scratch.end = start + limit;
        serde_json::to_writer(&mut *scratch, event).map_err(|error| match error.classify() {
            serde_json::error::Category::Io => CollectError::TooLarge { limit },
            _ => CollectError::Json(error),
        })?;
        check(&scratch[start..], limit)?;
        self.stamp(scratch, local);
        Ok(())
    }

    /// Copies an event that is JSON already.
    pub(super) fn copy(&self, event: &RawValue, scratch: &mut Vec<u8>, local: &Local) -> Outcome {
        check(event.get().as_bytes(), self.limit)?;
        scratch.extend_from_slice(event.get().as_bytes());
        self.stamp(scratch, local);
        Ok(())
    }

    #[inline]
    fn stamp(&self, scratch: &mut Vec<u8>, local: &Local) {
        if let Some(stamp) = &self.stamp {
            stamp.apply(scratch, 1, local);
        }
    }
}

/// A JSON value is an object if it starts like one.
#[inline(always)]
fn check(event: &[u8], limit: usize) -> Outcome {
    if event.len() > limit {
        return Err(CollectError::TooLarge { limit }.into());
    }
    if event.first() != Some(&b'{') {
        return Err(CollectError::NotAnObject.into());
    }
    Ok(())
}

/// Bytes that are written up to an end, and never beyond it.
///
/// The end lies beside the bytes, not in a writer that refers to them: an event is some dozens of
/// tiny writes, and one more step from each to the length costs half as much as the rest of it.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    end: usize,
}

impl Buffer {
    const fn new() -> Self {
        Self { bytes: Vec::new(), end: 0 }
    }

    /// What there is no room for yet.
    #[cold]
    fn write_growing(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.len() + bytes.len() > self.end {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    #[inline(always)]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl io::Write for Buffer {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            return self.write_growing(bytes);
        }
        if let [byte] = bytes {
            self.bytes.push(*byte);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
