//! One stream's batches, first in, first out, and what is known of their deliveries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::batch::Batch;
use super::narrow::{self, Narrowing};
use super::retry::Trouble;

/// Where a lane waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it has nothing to send, or waits for something that is under way.
    None,
    /// Among those that may send now, at this turn.
    Ready(u64),
    /// Among those in trouble, until then.
    Delayed(Instant),
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stream: Arc<str>,
    // Most lanes hold one batch at a time: it needs no list.
    first: Option<Box<Batch>>,
    rest: VecDeque<Box<Batch>>,
    /// The position of the first batch. Positions do not change while batches come and go.
    base: i64,
    /// From where on batches may not be compressed yet, and whether one may be there.
    pub(super) uncompressed_from: i64,
    pub(super) is_uncompressed: bool,
    /// How many batches are open, and the place among all open lanes; 0 if it is not there.
    pub(super) open: u32,
    pub(super) opened: u64,
    pub(super) in_flight: u32,
    /// With how many lanes it may share a request, itself included.
    pub(super) share: u32,
    /// How many requests in a row failed that it shared.
    pub(super) shared_failures: u32,
    pub(super) place: Place,
    /// Its entry among those that expire.
    pub(super) expires: Option<Instant>,
    pub(super) trouble: Option<Box<Trouble>>,
    /// A pause that the server asks for because of this lane is this lane's alone.
    pub(super) is_held_alone: bool,
    pub(super) narrowing: Option<Narrowing>,
    /// How many requests the next narrowing may take.
    pub(super) narrowing_limit: u32,
    /// The first batch is being split.
    pub(super) is_splitting: bool,
    /// The longest text that the server takes of it in one request, as far as is known.
    pub(super) longest: usize,
    /// The epoch of the last batch that ended.
    pub(super) last_epoch: u64,
    /// Its owner is asked to give it back; as long as it has not, that epoch is not settled.
    pub(super) retire_asked: Option<u64>,
}

impl Lane {
    pub(super) fn new(stream: Arc<str>) -> Self {
        Self {
            stream,
            first: None,
            rest: VecDeque::new(),
            base: 0,
            uncompressed_from: 0,
            is_uncompressed: false,
            open: 0,
            opened: 0,
            in_flight: 0,
            share: u32::MAX,
            shared_failures: 0,
            place: Place::None,
            expires: None,
            trouble: None,
            is_held_alone: false,
            narrowing: None,
            narrowing_limit: narrow::REQUESTS,
            is_splitting: false,
            longest: usize::MAX,
            last_epoch: 0,
            retire_asked: None,
        }
    }

    /// Whether nothing of it is left anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.open == 0 && self.in_flight == 0 && !self.is_splitting
    }

    pub(super) fn front(&self) -> Option<&Batch> {
        self.first.as_deref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Batch> {
        self.first.as_deref_mut()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Batch> {
        match self.rest.back_mut() {
            Some(batch) => Some(batch),
            None => self.first.as_deref_mut(),
        }
    }

    pub(super) fn push_back(&mut self, batch: Box<Batch>) {
        match self.first {
            None => self.first = Some(batch),
            Some(_) => self.rest.push_back(batch),
        }
    }

    pub(super) fn push_front(&mut self, batch: Box<Batch>) {
        if let Some(first) = self.first.replace(batch) {
            self.rest.push_front(first);
        }
        self.base -= 1;
    }

    pub(super) fn pop_front(&mut self) -> Option<Box<Batch>> {
        let batch = self.first.take()?;
        self.first = self.rest.pop_front();
        self.base += 1;
        if self.rest.is_empty() && self.rest.capacity() > 4 {
            self.rest = VecDeque::new();
        }
        Some(batch)
    }

    /// Puts a batch back that was taken from the front: behind those that were there before it.
    pub(super) fn put_back(&mut self, batch: Box<Batch>) {
        if self.front().is_none_or(|front| front.order >= batch.order) {
            return self.push_front(batch);
        }
        // Several senders each took one: only as many can come before it.
        let index = self.rest.iter().position(|other| other.order >= batch.order);
        let index = index.unwrap_or(self.rest.len());
        self.rest.insert(index, batch);
    }

    pub(super) fn at(&mut self, position: i64) -> Option<&mut Batch> {
        match usize::try_from(position - self.base).ok()? {
            0 => self.first.as_deref_mut(),
            index => self.rest.get_mut(index - 1).map(|batch| &mut **batch),
        }
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// Begins to narrow down a guilty first batch, unless it is a part of one that is.
    pub(super) fn narrow_down(&mut self) {
        let Some(front) = self.first.as_mut().filter(|front| front.part.guilty) else { return };
        front.part.member = true;
        if self.narrowing.is_none() {
            self.narrowing = Some(Narrowing { left: self.narrowing_limit - 1, members: 1 });
        }
    }

    /// Whether it may share a request, with as many lanes as [`share`](Self::share) says.
    pub(super) fn may_share(&self) -> bool {
        self.trouble.is_none() && self.narrowing.is_none()
    }
}
