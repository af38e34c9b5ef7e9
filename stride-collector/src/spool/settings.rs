//! The settings of a spool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stride_core::ConfigError;

use super::machine::{SEGMENT_BYTES, WhenFull};
use crate::batcher::SpoolMode;

/// A folder on disk for events that memory cannot hold, or that must survive the end of the process: see
/// [`Builder::spool`](crate::Builder::spool) and the [guide](crate::guide::spool).
///
/// Any number of processes may share the folder: each has a folder inside of it, and takes over what dead ones
/// left for the same base URL. It has to be on a local file system.
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

    /// Only events that would be lost otherwise go to disk: those that the memory budget has no room for, those
    /// that could not be delivered for [`retry_for`](crate::Builder::retry_for), and those that are left at the
    /// end of a `stop`. While the server keeps up, nothing is read or written. Events in memory are lost when the
    /// process is killed.
    pub fn overflow(dir: impl AsRef<Path>) -> Self {
        Self::new(dir.as_ref(), SpoolMode::Overflow)
    }

    /// Every batch is on disk before it is sent. A kill of the process loses only events whose batch was not
    /// closed and written yet, which is done after the [`flush_interval`](crate::Builder::flush_interval) at the
    /// latest. Events are [stamped](crate::Builder::stamp), so that what is sent again after a kill is stored
    /// once. When the disk takes nothing, events are sent without it: `stats().spool.failing` tells.
    pub fn write_ahead(dir: impl AsRef<Path>) -> Self {
        Self::new(dir.as_ref(), SpoolMode::WriteAhead)
    }

    /// The most that this collector's files take on disk, in bytes, with those that it took over; damaged files
    /// that are kept aside take up to a quarter of it more. 512 MiB by default; at least 64 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long events are kept on disk, by the system's clock. Then they are lost as
    /// [`Expired`](crate::LossReason::Expired). 7 days by default; at least a minute.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// What happens when [`max_bytes`](Self::max_bytes) is reached. [`WhenFull::DropOldest`] by default.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether each batch is synced before it counts as safe and is sent. `true` by default. With `false` it
    /// survives a kill of the process, but a sudden stop of the machine only if the system has written it by then
    /// (Linux does within some 30 s).
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
