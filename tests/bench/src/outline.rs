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
use stride_core::gzip::{Gzip, GzipLevel};

use crate::bare;

/// Events of a batch, as a collector's.
const BATCH: usize = 1000;

/// Bytes that are held at most, as a collector's.
const BUDGET: usize = 64 << 20;

/// Requests in flight, as a collector's.
const SENDERS: usize = 2;

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
    fn is_full(&self) -> bool {
        self.held > BUDGET
    }

    /// Gives whether a batch was filled.
    fn add(&mut self, event: &impl Serialize) -> bool {
        let separator = if self.events == 0 { b'[' } else { b',' };
        self.open.push(separator);
        serde_json::to_writer(&mut self.open, event).expect("the event is JSON");
        self.events += 1;
        let filled = self.events == BATCH;
        if filled {
            self.close();
        }
        filled
    }

    fn close(&mut self) {
        if self.events > 0 {
            self.open.push(b']');
            self.held += self.open.len();
            let spare = self.spares.pop().unwrap_or_default();
            self.full.push_back(std::mem::replace(&mut self.open, spare));
            self.events = 0;
        }
    }

    fn give_back(&mut self, mut batch: Vec<u8>) {
        self.held -= batch.len();
        batch.clear();
        if self.spares.len() < 2 * SENDERS {
            self.spares.push(batch);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buffer between callers and threads.
#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    filled: Condvar,
    sent: Condvar,
}

impl Buffer {
    /// Waits until somebody sent something, for as long as that is said to be needed.
    fn wait(&self, is_needed: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.sent.wait_while(lock(&self.state), |state| is_needed(state));
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The next full batch; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let waiting = |state: &mut State| state.full.is_empty() && !state.stopped;
        let state = self.filled.wait_while(lock(&self.state), waiting);
        state.unwrap_or_else(PoisonError::into_inner).full.pop_front()
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
                    lock(&buffer.state).give_back(batch);
                    buffer.sent.notify_all();
                }
            })
        };
        let senders = (0..SENDERS).map(sender).collect();
        Self { buffer, senders }
    }

    /// Takes an event.
    #[inline]
    pub fn collect<T: Serialize>(&self, event: &T) {
        let mut state = lock(&self.buffer.state);
        if state.is_full() {
            drop(state);
            state = self.buffer.wait(State::is_full);
        }
        if state.add(event) {
            drop(state);
            self.buffer.filled.notify_one();
        }
    }

    /// Returns when all is sent and answered.
    pub fn flush(&self) {
        lock(&self.buffer.state).close();
        self.buffer.filled.notify_one();
        drop(self.buffer.wait(|state| state.held > 0));
    }

    /// Ends the senders.
    ///
    /// # Errors
    ///
    /// One of them failed.
    pub fn stop(self) -> io::Result<()> {
        lock(&self.buffer.state).stopped = true;
        self.buffer.filled.notify_all();
        for sender in self.senders {
            sender.join().map_err(|_| io::Error::other("a sender failed"))?;
        }
        Ok(())
    }
}
