//! How far an import is, for people who wait for it.

use std::io::BufRead;

use indicatif::{ProgressBar, ProgressBarIter, ProgressStyle};

use crate::output::note;

/// A line on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `length` is how many bytes there are to read, if it is known.
    pub(super) fn new(length: Option<u64>) -> Self {
        let (bar, template) = match length {
            Some(length) => (
                ProgressBar::new(length),
                "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Counts what is read.
    pub(super) fn reading<R: BufRead>(&self, read: R) -> ProgressBarIter<R> {
        self.bar.wrap_read(read)
    }

    /// Says something without disturbing the line.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
