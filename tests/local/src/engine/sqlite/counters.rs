//! What is counted since the start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::engine::EngineError;

/// What [`EngineCounters`](crate::engine::EngineCounters) are read from.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) events: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) storage_errors: AtomicU64,
    pub(super) queries: AtomicU64,
    pub(super) failed_queries: AtomicU64,
    pub(super) query_micros: AtomicU64,
    /// Something that is damaged has been read.
    pub(super) damaged: AtomicBool,
}

impl Counted {
    /// Counts what the storage failed at.
    pub(super) fn failed(&self, error: &EngineError) {
        if error.is_failure() {
            self.storage_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the storage failed");
        }
        if matches!(error, EngineError::Damaged(_)) {
            self.damaged.store(true, Ordering::Relaxed);
        }
    }
}
