//! A collector's streams, by name and by number.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use stride_core::api::is_name;

use super::stream::{Held, Stream};
use crate::batcher::{LaneId, Retire};
use crate::error::CollectError;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many streams are looked at under one lock.
const SLICE: usize = 256;

/// The streams. Its lock comes before a stream's.
#[derive(Debug)]
pub(crate) struct Table {
    collector: u64,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashSet<ByName>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    stream: Option<Arc<Stream>>,
    /// What the streams accepted that were here before.
    accepted: u64,
    /// How many batches they sealed, modulo 2³².
    sealed: u32,
}

#[derive(Debug)]
struct ByName(Arc<Stream>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl Table {
    pub(crate) fn new(collector: u64) -> Self {
        Self { collector, inner: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of that name, and whether it is new. A new one takes its place in the budget.
    pub(crate) fn find(
        &self,
        name: &str,
        held: &Held,
        grant: &mut usize,
    ) -> Result<(Arc<Stream>, bool), CollectError> {
        if let Some(ByName(stream)) = self.read().names.get(name) {
            return Ok((Arc::clone(stream), false));
        }
        if !is_name(name) {
            return Err(CollectError::Name { name: name.to_owned() });
        }
        if held.inbox.is_closed() {
            return Err(CollectError::Stopped);
        }
        let mut inner = self.write();
        if let Some(ByName(stream)) = inner.names.get(name) {
            return Ok((Arc::clone(stream), false));
        }
        if !held.budget.try_reserve(Stream::cost(name), grant) {
            return Err(CollectError::Full);
        }
        Ok((inner.add(self.collector, name, true), true))
    }

    /// The stream of that name, which stays until it is unpinned as often.
    pub(crate) fn pin(&self, name: &str) -> Result<Arc<Stream>, CollectError> {
        if !is_name(name) {
            return Err(CollectError::Name { name: name.to_owned() });
        }
        let mut inner = self.write();
        let known = inner.names.get(name).map(|ByName(stream)| Arc::clone(stream));
        // It takes nothing of the budget before its first event.
        let stream = known.unwrap_or_else(|| inner.add(self.collector, name, false));
        stream.pins.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    pub(crate) fn unpin(&self, stream: &Arc<Stream>, held: &Held) {
        let mut inner = self.write();
        if stream.pins.fetch_sub(1, Ordering::Relaxed) == 1 && stream.retire(None, held) {
            inner.remove(stream);
        }
    }

    /// Gives back a stream that the batcher has not heard of, if it is still so.
    pub(crate) fn retire_unused(&self, stream: &Arc<Stream>, held: &Held) {
        let mut inner = self.write();
        if stream.retire(None, held) {
            inner.remove(stream);
        }
    }

    /// Gives back the streams that hold nothing any longer.
    pub(crate) fn retire(&self, lanes: &[Retire], held: &Held) {
        for lanes in lanes.chunks(SLICE / 8) {
            let mut inner = self.write();
            for Retire { lane, sealed } in lanes {
                let stream = inner.slots.get(lane.0 as usize).and_then(|slot| slot.stream.clone());
                if let Some(stream) = stream
                    && stream.retire(Some(*sealed), held)
                {
                    inner.remove(&stream);
                }
            }
        }
    }

    /// The streams of these lanes.
    pub(crate) fn streams(&self, lanes: &[LaneId]) -> Vec<Arc<Stream>> {
        let inner = self.read();
        let stream = |lane: &LaneId| inner.slots.get(lane.0 as usize)?.stream.clone();
        lanes.iter().filter_map(stream).collect()
    }

    /// How many events were accepted: no fewer than when this began, and no more than when it ends.
    pub(crate) fn accepted(&self) -> u64 {
        let (mut sum, mut from) = (0, 0);
        loop {
            let inner = self.read();
            let slots = inner.slots.get(from..).unwrap_or_default();
            let accepted = |slot: &Slot| {
                slot.accepted + slot.stream.as_ref().map_or(0, |stream| stream.accepted())
            };
            sum += slots.iter().take(SLICE).map(accepted).sum::<u64>();
            if slots.len() <= SLICE {
                return sum;
            }
            from += SLICE;
        }
    }
}

impl Inner {
    fn add(&mut self, collector: u64, name: &str, charged: bool) -> Arc<Stream> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let sealed = self.slots[slot as usize].sealed;
        let stream = Arc::new(Stream::new(collector, LaneId(slot), name, charged, sealed));
        self.slots[slot as usize].stream = Some(Arc::clone(&stream));
        self.names.insert(ByName(Arc::clone(&stream)));
        stream
    }

    fn remove(&mut self, stream: &Arc<Stream>) {
        self.names.remove(&*stream.name);
        let slot = &mut self.slots[stream.lane.0 as usize];
        slot.stream = None;
        slot.accepted += stream.accepted();
        slot.sealed = stream.given_back();
        self.free.push(stream.lane.0);
        if self.names.is_empty() {
            self.names.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::batcher::Input;
    use crate::intake::stream::{Appended, BatchLimits};

    #[test]
    fn an_order_to_give_a_lane_back_that_comes_late_does_nothing_to_who_has_it_by_then() {
        let limits = BatchLimits { events: 1, bytes: 1 << 16, ordered: false };
        let (table, held) = (Table::new(0), Held::new(limits, 1 << 20));
        // One event is one batch.
        let seal = |name: &str| {
            let (stream, _) = table.find(name, &held, &mut 0).unwrap();
            let appended = stream.append(b",{}", &Cell::new(0), &held, &mut 0);
            assert!(matches!(appended, Appended::Accepted), "{appended:?}");
            stream.lane
        };
        let lane = seal("first");
        let late = Retire { lane, sealed: 1 };
        assert_eq!(seal("first"), lane);
        // The batcher has seen both by now, and says so once more.
        table.retire(&[Retire { lane, sealed: 2 }], &held);
        assert_eq!(seal("second"), lane, "its number is given to another");
        held.inbox.lock().inputs.clear();
        table.retire(&[late], &held);
        let is_told = |input: &Input| matches!(input, Input::Retired(_));
        assert!(!held.inbox.lock().inputs.iter().any(is_told));
        assert_eq!(seal("second"), lane, "it is still there");
        table.retire(&[Retire { lane, sealed: 4 }], &held);
        assert!(held.inbox.lock().inputs.iter().any(is_told));
    }
}
