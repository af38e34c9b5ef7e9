//! JSON as it is sent to subscribers.

use bytes::Bytes;

/// What follows every event and every change.
pub(crate) const DELIMITER: &[u8] = b"\r\n";

/// JSON values in order, each followed by [`DELIMITER`], so that a run of them can be sent as it
/// lies in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) text: Bytes,
    /// Where each ends, delimiter included; it starts where the one before it ends.
    pub(crate) ends: Vec<usize>,
}

impl Records {
    /// Each without its delimiter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.iter().enumerate();
        ends.map(|(index, end)| &self.text[self.start(index)..end - DELIMITER.len()])
    }

    pub(crate) fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}
