//! What waits for one subscriber: bounded, and filled without ever waiting.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::records::Records;
use super::sampler::{self, Sampler};

/// Small runs are put together until they are this long: one chunk costs as much as many events.
const CHUNK: usize = 16 * 1024;

/// How many events a sampled subscriber may have waiting. They go out over the next second, so
/// that a stream that comes in bursts is not cut to one event a burst.
const MOST_SAMPLED: u32 = 1000;

/// What a subscriber is to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Send this: whole events, each with its delimiter.
    Send(Bytes),
    /// Nothing is to be sent before this moment.
    NotBefore(Instant),
    /// The server ends, and everything has been sent.
    End,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// The bound on what waits, in bytes.
    room: usize,
}

#[derive(Debug)]
struct State {
    runs: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    waker: Option<Waker>,
    sample: Option<Sample>,
}

#[derive(Debug)]
struct Sample {
    sampler: Sampler,
    most: usize,
}

impl Mailbox {
    pub(crate) fn new(room: usize, sample: Option<NonZeroU32>) -> Self {
        let sample = sample.map(|per_second| Sample {
            sampler: Sampler::new(per_second),
            most: per_second.get().min(MOST_SAMPLED) as usize,
        });
        let runs = VecDeque::new();
        let state = State { runs, bytes: 0, closed: false, waker: None, sample };
        Self { state: Mutex::new(state), room }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in what there is room for and returns how many events were lost. What sampling leaves
    /// out is not lost.
    pub(crate) fn put(&self, records: &Records) -> u64 {
        if records.ends.is_empty() {
            return 0;
        }
        let mut state = self.state();
        if state.closed {
            return 0;
        }
        let lost = match &state.sample {
            None => state.put_all(records, self.room),
            Some(sample) => {
                let most = sample.most;
                state.put_sample(records, most, self.room);
                0
            }
        };
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        lost
    }

    /// Lets the subscriber have what waits, and then ends it.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>, now: Instant) -> Poll<Next> {
        let mut state = self.state();
        if state.runs.is_empty() {
            if state.closed {
                return Poll::Ready(Next::End);
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(state.take(now))
    }
}

impl State {
    fn put_all(&mut self, records: &Records, room: usize) -> u64 {
        let left = room.saturating_sub(self.bytes);
        let run = if records.text.len() <= left {
            records.text.clone()
        } else {
            // As many as there is room for, as a copy: a slice would keep them all.
            let fitting = records.ends.partition_point(|end| *end <= left);
            if fitting == 0 {
                return records.ends.len() as u64;
            }
            let run = Bytes::copy_from_slice(&records.text[..records.start(fitting)]);
            self.bytes += run.len();
            self.runs.push_back(run);
            return (records.ends.len() - fitting) as u64;
        };
        self.bytes += run.len();
        self.runs.push_back(run);
        0
    }

    /// Takes events spread over the records, and the newest if they are too many.
    fn put_sample(&mut self, records: &Records, most: usize, room: usize) {
        for index in sampler::spread(records.ends.len(), most) {
            let event =
                Bytes::copy_from_slice(&records.text[records.start(index)..records.ends[index]]);
            self.bytes += event.len();
            self.runs.push_back(event);
            while self.runs.len() > most || (self.bytes > room && !self.runs.is_empty()) {
                self.pop();
            }
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let run = self.runs.pop_front()?;
        self.bytes -= run.len();
        Some(run)
    }

    fn take(&mut self, now: Instant) -> Next {
        let alone = self.sample.is_none()
            && (self.runs.len() == 1 || self.runs.front().is_some_and(|run| run.len() >= CHUNK));
        if alone && let Some(run) = self.pop() {
            return Next::Send(run);
        }
        let mut chunk = BytesMut::new();
        let mut not_before = now;
        while chunk.len() < CHUNK && !self.runs.is_empty() {
            if let Some(sample) = &mut self.sample
                && let Err(due) = sample.sampler.admit(now)
            {
                not_before = due;
                break;
            }
            if let Some(run) = self.pop() {
                chunk.extend_from_slice(&run);
            }
        }
        if chunk.is_empty() { Next::NotBefore(not_before) } else { Next::Send(chunk.freeze()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn records(count: usize) -> Records {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for id in 0..count {
            text.push_str(&format!("{{\"$id\":{id}}}\r\n"));
            ends.push(text.len());
        }
        Records { text: text.into(), ends }
    }

    fn next(mailbox: &Mailbox, now: Instant) -> Poll<Next> {
        mailbox.poll_next(&mut Context::from_waker(Waker::noop()), now)
    }

    fn sent(next: Poll<Next>) -> usize {
        match next {
            Poll::Ready(Next::Send(run)) => memchr::memmem::find_iter(&run, b"\r\n").count(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn past_the_bound_events_are_lost_and_counted_one_by_one() {
        let ten = records(10);
        let mailbox = Mailbox::new(2 * ten.text.len() + ten.ends[2], None);
        let now = Instant::now();
        assert_eq!(mailbox.put(&ten), 0);
        assert_eq!(mailbox.put(&ten), 0);
        assert_eq!(mailbox.put(&ten), 7);
        assert_eq!(mailbox.put(&ten), 10);
        assert_eq!(sent(next(&mailbox, now)), 23);
        assert_eq!(next(&mailbox, now), Poll::Pending);
        assert_eq!(mailbox.put(&ten), 0);
    }

    #[test]
    fn a_closed_mailbox_gives_what_it_holds_and_then_ends() {
        let mailbox = Mailbox::new(10_000, None);
        mailbox.put(&records(3));
        mailbox.close();
        mailbox.put(&records(3));
        let now = Instant::now();
        assert_eq!(sent(next(&mailbox, now)), 3);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::End));
    }

    #[test]
    fn a_burst_is_let_out_over_the_next_second() {
        let mailbox = Mailbox::new(1 << 20, NonZeroU32::new(10));
        assert_eq!(mailbox.put(&records(1000)), 0);
        let mut now = Instant::now();
        let start = now;
        let mut events = 0;
        loop {
            match next(&mailbox, now) {
                Poll::Ready(Next::Send(_)) => events += 1,
                Poll::Ready(Next::NotBefore(due)) => {
                    assert!(due > now);
                    now = due;
                }
                _ => break,
            }
        }
        assert_eq!(events, 10);
        assert_eq!(now - start, Duration::from_millis(900));
    }
}
