//! The settings of a spool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stride_core::ConfigError;

use super::machine::{SEGMENT_BYTES, WhenFull};
use crate::batcher::SpoolMode;

/// A folder on disk for events that memory cannot hold, or that must survive the end of the process: see
/// [`Builder::spool`](crate::Builder::spool) and the [guide](crate::guide::spool).
///
/// Any number of processes may share the folder: each takes one of its own in it, and takes over what dead
/// ones left for the same server.
#[derive(Debug, Clone)]
#[must_use = "a spool does nothing until a collector is built with it"]
pub struct Spool {
    pub(crate) dir: PathBuf,
    pub(crate) mode: SpoolMode,
    pub(crate) max_bytes: u64,
    pub(crate) max_age: Duration,
    pub(crate) when_full: WhenFull,
    pub(crate) sync: bool,
}

impl Spool {
    fn new(dir: &Path, mode: SpoolMode) -> Self {
        Self {
            dir: dir.to_owned(),
            mode,
            max_bytes: 512 << 20,
            max_age: Duration::from_secs(7 * 24 * 3600),
            when_full: WhenFull::default(),
            sync: true,
        }
    }

    /// Only what would be lost otherwise goes to disk: when the memory budget is used up, when events could
    /// not be delivered for [`retry_for`](crate::Builder::retry_for), and what is left at the end of a `stop`.
    /// In good times nothing is read or written. Events in memory are lost with the process.
    pub fn overflow(dir: impl AsRef<Path>) -> Self {
        Self::new(dir.as_ref(), SpoolMode::Overflow)
    }

    /// Every batch is on disk before it is sent, so that a kill of the process loses only what was not in a
    /// closed batch yet: at most the [`flush_interval`](crate::Builder::flush_interval). Events are
    /// [stamped](crate::Builder::stamp), so that what is sent again after a kill is stored once.
    pub fn write_ahead(dir: impl AsRef<Path>) -> Self {
        Self::new(dir.as_ref(), SpoolMode::WriteAhead)
    }

    /// The most that this collector's files take, in bytes. 512 MiB by default; at least 64 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long events are kept on disk. Then they are lost as [`Expired`](crate::LossReason::Expired). 7
    /// days by default; at least a minute. It is counted in the time of the system's clock.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// What happens when [`max_bytes`](Self::max_bytes) is reached. [`WhenFull::DropOldest`] by default.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether each batch is synced before it counts as safe. It does by default; without, a batch survives
    /// the end of the process, and the end of the machine only when the system has written it by then (on
    /// Linux within some 30 s).
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    pub(crate) fn check(&self, ordered: bool) -> Result<(), ConfigError> {
        let wrong = |reason| Err(ConfigError::Setting { setting: "spool", reason });
        if self.max_bytes < 4 * SEGMENT_BYTES {
            return wrong("has a max_bytes of less than 64 MiB");
        }
        if self.max_age < Duration::from_secs(60) {
            return wrong("has a max_age of less than a minute");
        }
        if ordered {
            return wrong("does not keep the order of events: it cannot be combined with ordered");
        }
        Ok(())
    }
}
