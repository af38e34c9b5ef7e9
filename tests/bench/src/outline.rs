//! What the machine can do with nothing but `serde_json`, deflate and a socket: a mutexed buffer and
//! two senders that compress and POST. No retry, no timer, no shards, no accounts.
//!
//! It holds as much at most as a collector does, and fills buffers again that were sent, so that it
//! does what can be done plainly.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::Serialize;
use stride_core::{Gzip, GzipLevel};

use crate::bare;

/// Events of a batch, as a collector's.
const BATCH: usize = 1000;

/// Bytes that are held at most, as a collector's.
const BUDGET: usize = 64 << 20;

/// Requests in flight, as a collector's.
const SENDERS: usize = 2;

/// The buffer between callers and senders.
#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    filled: Condvar,
    sent: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<u8>,
    events: usize,
    full: VecDeque<Vec<u8>>,
    /// Bytes in full batches and those in flight.
    held: usize,
    spares: Vec<Vec<u8>>,
    stopped: bool,
}

impl State {
    fn close(&mut self) {
        self.open.push(b']');
        self.held += self.open.len();
        let spare = self.spares.pop().unwrap_or_default();
        self.full.push_back(std::mem::replace(&mut self.open, spare));
        self.events = 0;
    }
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn add<T: Serialize>(&self, event: &T) {
        let mut state = self.state();
        while state.held > BUDGET {
            state = self.sent.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let separator = if state.events == 0 { b'[' } else { b',' };
        state.open.push(separator);
        serde_json::to_writer(&mut state.open, event).expect("the event is JSON");
        state.events += 1;
        if state.events == BATCH {
            state.close();
            drop(state);
            self.filled.notify_one();
        }
    }

    fn flush(&self) {
        let mut state = self.state();
        if state.events > 0 {
            state.close();
            self.filled.notify_one();
        }
        while state.held > 0 {
            state = self.sent.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next full batch; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        loop {
            if let Some(batch) = state.full.pop_front() {
                return Some(batch);
            }
            if state.stopped {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, mut batch: Vec<u8>) {
        let mut state = self.state();
        state.held -= batch.len();
        batch.clear();
        if state.spares.len() < 2 * SENDERS {
            state.spares.push(batch);
        }
        drop(state);
        self.sent.notify_all();
    }
}

/// The outline with two threads and bare ureq.
#[derive(Debug)]
pub struct Outline {
    buffer: Arc<Buffer>,
    senders: Vec<thread::JoinHandle<()>>,
}

impl Outline {
    /// Starts it: it sends to the sink at this port.
    ///
    /// # Panics
    ///
    /// A sender, when the sink does not take a batch.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let buffer = Arc::<Buffer>::default();
        let sender = |_| {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                let mut gzip = Gzip::new(GzipLevel::FASTEST);
                let client = bare::Blocking::new(port);
                while let Some(batch) = buffer.take() {
                    let body = gzip.compress([&batch[..]]);
                    client.post(&body, true).expect("the sink takes it");
                    buffer.give_back(batch);
                }
            })
        };
        let senders = (0..SENDERS).map(sender).collect();
        Self { buffer, senders }
    }

    /// Takes an event.
    #[inline]
    pub fn collect<T: Serialize>(&self, event: &T) {
        self.buffer.add(event);
    }

    /// Returns when all is sent and answered.
    pub fn flush(&self) {
        self.buffer.flush();
    }

    /// Ends the senders.
    ///
    /// # Errors
    ///
    /// One of them failed.
    pub fn stop(self) -> io::Result<()> {
        self.buffer.state().stopped = true;
        self.buffer.filled.notify_all();
        for sender in self.senders {
            sender.join().map_err(|_| io::Error::other("a sender failed"))?;
        }
        Ok(())
    }
}
