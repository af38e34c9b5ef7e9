//! A file of what was consumed. Each line holds an event and the position behind it, so the two are saved in one
//! step: there is never one without the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or makes the file, and tells the last position in it. What was killed in the middle of writing left
    /// a line that does not end; its event comes again, so it is cut off.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<String>)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = fs::read(path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let text = String::from_utf8_lossy(&text[..whole]);
        let last = text.lines().next_back().map(line).transpose()?;
        let position = last.and_then(|last| last["position"].as_str().map(str::to_owned));
        Ok((Self { file }, position))
    }

    /// Saves what came of an event, which here is the event, and where it was.
    pub(crate) fn add(&mut self, event: &Value, position: &str) -> io::Result<()> {
        // One call, so that a kill leaves the line as a whole, or a part that shows. To survive a power loss
        // as well it would take `sync_data`, or a transaction of a database.
        let line = format!("{}\n", json!({"position": position, "event": event}));
        self.file.write_all(line.as_bytes())
    }
}

/// The events in the file.
pub(crate) fn events(path: &Path) -> io::Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    text.lines().map(|text| Ok(line(text)?["event"].take())).collect()
}

fn line(text: &str) -> io::Result<Value> {
    serde_json::from_str(text).map_err(io::Error::from)
}
