//! What was not imported: shown, and written to a file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::progress::Progress;
use crate::failure::Failure;

/// How many are shown; the others are only counted and written.
const SHOWN: u64 = 20;

pub(super) struct Rejects {
    /// What is imported.
    label: String,
    progress: Arc<Progress>,
    state: Mutex<State>,
    /// The name of the file for them.
    name: String,
}

#[derive(Default)]
struct State {
    count: u64,
    file: Option<BufWriter<File>>,
    /// Why the file could not be written: told at the end, because a sender cannot stop the import.
    failure: Option<Failure>,
}

impl State {
    fn write(&mut self, name: &str, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            (self.file, self.failure) = (None, Some(Failure::file(name, &error)));
        }
    }
}

impl Rejects {
    pub(super) fn new(
        label: String,
        path: Option<&Path>,
        progress: Arc<Progress>,
    ) -> Result<Self, Failure> {
        let name = path.map_or_else(String::new, |path| path.display().to_string());
        let file = path.map(File::create).transpose();
        let file = file.map_err(|error| Failure::file(&name, &error))?.map(BufWriter::new);
        let state = Mutex::new(State { file, ..State::default() });
        Ok(Self { label, progress, state, name })
    }

    /// What is imported.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Something that starts at a line and is not imported.
    pub(super) fn line(&self, number: u64, bytes: &[u8], why: &str) {
        self.put(&number.to_string(), &[bytes, b"\n"], why);
    }

    /// The beginning of a line that is too long to be held; `more` adds the rest.
    pub(super) fn begin(&self, number: u64, bytes: &[u8], why: &str) {
        self.put(&number.to_string(), &[bytes], why);
    }

    pub(super) fn more(&self, bytes: &[u8]) {
        self.state().write(&self.name, bytes);
    }

    /// An event that was read, and not taken by the server.
    pub(super) fn event(&self, place: &str, event: &str, why: &str) {
        self.put(place, &[event.as_bytes(), b"\n"], why);
    }

    fn put(&self, place: &str, parts: &[&[u8]], why: &str) {
        let mut state = self.state();
        state.count += 1;
        for part in parts {
            state.write(&self.name, part);
        }
        let count = state.count;
        drop(state);
        if count <= SHOWN {
            self.progress.note(&format!("{}:{place}: {why}", self.label));
        } else if count == SHOWN + 1 {
            self.progress.note("there are more, which are not shown");
        }
    }

    /// How many there were.
    pub(super) fn finish(&self) -> Result<u64, Failure> {
        let mut state = self.state();
        if let Some(mut file) = state.file.take() {
            file.flush().map_err(|error| Failure::file(&self.name, &error))?;
        }
        state.failure.take().map_or(Ok(state.count), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
