//! What waits for one subscriber: bounded, and filled without ever waiting.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::place::{Fit, Place};
use super::records::Records;
use super::sampler::{self, Sampler};
use crate::engine::position::Position;

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
    /// Read what comes after this from the storage, and [`go_on`](Mailbox::go_on) with it.
    Behind(Position),
    /// The server ends, and everything has been sent.
    End,
}

/// What a subscriber wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// Every event of a stream.
    Events,
    /// The changes of a process that there is room for.
    Changes,
    /// At most so many in a second.
    Sample(NonZeroU32),
    /// All rows of a process, and then what changes.
    Snapshot,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// The bound on what waits, in bytes.
    room: usize,
}

#[derive(Debug)]
struct State {
    runs: VecDeque<Run>,
    bytes: usize,
    closed: bool,
    waker: Option<Waker>,
    kind: Kind,
}

/// Records that wait.
#[derive(Debug)]
struct Run {
    text: Bytes,
    /// What they follow on, and how many they are, if it matters.
    after: Option<(Position, u64)>,
}

/// What its reader wants.
#[derive(Debug)]
enum Kind {
    /// What there is room for.
    Fitting,
    /// Every event of a stream: what there was no room for is read from the storage.
    Every(Place),
    /// Some of them.
    Sample(Sample),
    /// Every change since a snapshot, once that was taken.
    Snapshot { taken: bool },
}

#[derive(Debug)]
struct Sample {
    sampler: Sampler,
    most: usize,
}

impl Mailbox {
    /// That of a subscriber of this. Of every event of a stream it has none until it is told to
    /// [`go_on`](Self::go_on), and of a process with a snapshot none until that is taken.
    pub(crate) fn new(room: usize, want: Want) -> Self {
        let kind = match want {
            Want::Events => Kind::Every(Place::default()),
            Want::Changes => Kind::Fitting,
            Want::Sample(per_second) => Kind::Sample(Sample {
                sampler: Sampler::new(per_second),
                most: per_second.get().min(MOST_SAMPLED) as usize,
            }),
            Want::Snapshot => Kind::Snapshot { taken: false },
        };
        let runs = VecDeque::new();
        let state = State { runs, bytes: 0, closed: false, waker: None, kind };
        Self { state: Mutex::new(state), room }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in what there is room for and returns how many events were lost. What sampling leaves
    /// out is not lost, nor what the storage has. `after`: what events of a stream follow on.
    pub(crate) fn put(&self, after: Option<Position>, records: &Records) -> u64 {
        if records.ends.is_empty() {
            return 0;
        }
        let mut state = self.state();
        if state.closed {
            return 0;
        }
        let lost = match &state.kind {
            Kind::Fitting => state.put_all(records, self.room),
            Kind::Every(_) => {
                state.put_whole(after, records, self.room);
                0
            }
            Kind::Sample(sample) => {
                let most = sample.most;
                state.put_sample(records, most, self.room);
                0
            }
            Kind::Snapshot { taken } => {
                if *taken {
                    state.put_or_end(records, self.room);
                }
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
        self.change(|state| state.closed = true);
    }

    /// The snapshot that it begins with.
    pub(crate) fn begin(&self, rows: Records) {
        self.change(|state| {
            state.kind = Kind::Snapshot { taken: true };
            if !rows.ends.is_empty() {
                state.push(rows.text);
            }
        });
    }

    /// There were changes which nobody noted: a subscriber with a snapshot needs another one, and comes again.
    pub(crate) fn outdate(&self) {
        self.change(|state| {
            if let Kind::Snapshot { taken: true } = state.kind {
                state.end();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Where the reader of a stream begins, or goes on after what it read from the storage. `behind`: there
    /// may be more to read.
    pub(crate) fn go_on(&self, at: Position, behind: bool) {
        if let Kind::Every(place) = &mut self.state().kind {
            place.go_on(at, behind);
        }
    }

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>, now: Instant) -> Poll<Next> {
        let mut state = self.state();
        if let Some(lacking) = state.lacking() {
            return Poll::Ready(Next::Behind(lacking));
        }
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
    /// Drops what a reader of every event has, and tells what it has to read before what waits.
    fn lacking(&mut self) -> Option<Position> {
        let Kind::Every(place) = &mut self.kind else { return None };
        while let Some(Run { text, after: Some((after, events)) }) = self.runs.front() {
            match place.fit(*after, *events) {
                Fit::Next => return None,
                Fit::Later => return place.catch_up(),
                Fit::Had => {}
                // The rest of them is in the storage, too.
                Fit::Partly => place.behind = true,
            }
            self.bytes -= text.len();
            self.runs.pop_front();
        }
        if place.behind { place.catch_up() } else { None }
    }

    /// Whether what waits is not what a reader of every event has to have next.
    fn lacks(&mut self) -> bool {
        match (&mut self.kind, self.runs.front()) {
            (Kind::Every(place), Some(Run { after: Some((after, events)), .. })) => {
                place.fit(*after, *events) != Fit::Next
            }
            _ => false,
        }
    }

    /// Puts in all or nothing. Where there is no room, what waits goes as well: a reader that is so slow
    /// reads it all from the storage.
    fn put_whole(&mut self, after: Option<Position>, records: &Records, room: usize) {
        let Kind::Every(place) = &mut self.kind else { return };
        let text = &records.text;
        if text.len() > room.saturating_sub(self.bytes) {
            (self.runs, self.bytes) = (VecDeque::new(), 0);
            place.behind = true;
            return;
        }
        self.bytes += text.len();
        let after = after.map(|after| (after, records.ends.len() as u64));
        self.runs.push_back(Run { text: text.clone(), after });
    }

    /// Puts in all. Where there is no room, a new snapshot is less than what changed since.
    fn put_or_end(&mut self, records: &Records, room: usize) {
        if records.text.len() > room.saturating_sub(self.bytes) {
            return self.end();
        }
        self.push(records.text.clone());
    }

    fn end(&mut self) {
        (self.runs, self.bytes, self.closed) = (VecDeque::new(), 0, true);
    }

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
            self.push(run);
            return (records.ends.len() - fitting) as u64;
        };
        self.push(run);
        0
    }

    fn push(&mut self, text: Bytes) {
        self.bytes += text.len();
        self.runs.push_back(Run { text, after: None });
    }

    /// Takes events spread over the records, and the newest if they are too many.
    fn put_sample(&mut self, records: &Records, most: usize, room: usize) {
        for index in sampler::spread(records.ends.len(), most) {
            let event =
                Bytes::copy_from_slice(&records.text[records.start(index)..records.ends[index]]);
            self.push(event);
            while self.runs.len() > most || (self.bytes > room && !self.runs.is_empty()) {
                self.pop();
            }
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let Run { text, after } = self.runs.pop_front()?;
        self.bytes -= text.len();
        if let (Kind::Every(place), Some((_, events))) = (&mut self.kind, after) {
            place.give(events);
        }
        Some(text)
    }

    fn take(&mut self, now: Instant) -> Next {
        let is_long = |run: &Run| run.text.len() >= CHUNK;
        let alone = !matches!(self.kind, Kind::Sample(_))
            && (self.runs.len() == 1 || self.runs.front().is_some_and(is_long));
        if alone && let Some(run) = self.pop() {
            return Next::Send(run);
        }
        let mut chunk = BytesMut::new();
        let mut not_before = now;
        while chunk.len() < CHUNK && !self.runs.is_empty() {
            if let Kind::Sample(sample) = &mut self.kind
                && let Err(due) = sample.sampler.admit(now)
            {
                not_before = due;
                break;
            }
            // Of what was lacking, the first fits.
            if !chunk.is_empty() && self.lacks() {
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
    use crate::engine::position::Which;

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
        let mailbox = Mailbox::new(2 * ten.text.len() + ten.ends[2], Want::Changes);
        let now = Instant::now();
        assert_eq!(mailbox.put(None, &ten), 0);
        assert_eq!(mailbox.put(None, &ten), 0);
        assert_eq!(mailbox.put(None, &ten), 7);
        assert_eq!(mailbox.put(None, &ten), 10);
        assert_eq!(sent(next(&mailbox, now)), 23);
        assert_eq!(next(&mailbox, now), Poll::Pending);
        assert_eq!(mailbox.put(None, &ten), 0);
    }

    fn at(place: u64) -> Position {
        Position { epoch: 1, stream: Which::Number(1), place }
    }

    /// For every event, from the place on.
    fn every(room: usize, place: u64) -> Mailbox {
        let mailbox = Mailbox::new(room, Want::Events);
        mailbox.go_on(at(place), false);
        mailbox
    }

    #[test]
    fn past_the_bound_every_event_is_read_from_the_storage() {
        let ten = records(10);
        let mailbox = every(2 * ten.text.len(), 0);
        let now = Instant::now();
        for place in [0, 10, 20, 30] {
            assert_eq!(mailbox.put(Some(at(place)), &ten), 0);
        }
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::Behind(at(0))));
        // What was read reaches into what waits: the rest of that is in the storage, too.
        mailbox.go_on(at(35), true);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::Behind(at(35))));
        mailbox.put(Some(at(40)), &ten);
        mailbox.go_on(at(40), true);
        assert_eq!(sent(next(&mailbox, now)), 10);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::Behind(at(50))));
        mailbox.go_on(at(50), false);
        assert_eq!(next(&mailbox, now), Poll::Pending);
    }

    #[test]
    fn events_that_were_read_are_not_given_again() {
        let ten = records(10);
        let mailbox = Mailbox::new(10_000, Want::Events);
        for place in [0, 10, 20] {
            mailbox.put(Some(at(place)), &ten);
        }
        mailbox.go_on(at(20), false);
        let now = Instant::now();
        assert_eq!(sent(next(&mailbox, now)), 10);
        assert_eq!(next(&mailbox, now), Poll::Pending);
        // One is missing between them.
        mailbox.put(Some(at(30)), &ten);
        mailbox.put(Some(at(41)), &ten);
        assert_eq!(sent(next(&mailbox, now)), 10);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::Behind(at(40))));
        mailbox.close();
        mailbox.go_on(at(41), false);
        assert_eq!(sent(next(&mailbox, now)), 10);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::End));
    }

    #[test]
    fn changes_follow_on_a_snapshot_or_end_what_has_no_room_for_them() {
        let ten = records(10);
        let mailbox = Mailbox::new(2 * ten.text.len(), Want::Snapshot);
        let now = Instant::now();
        mailbox.outdate();
        mailbox.put(None, &ten);
        assert_eq!(next(&mailbox, now), Poll::Pending, "there is no snapshot yet");
        mailbox.begin(records(3));
        mailbox.put(None, &ten);
        assert_eq!(sent(next(&mailbox, now)), 13);
        for _ in 0..3 {
            assert_eq!(mailbox.put(None, &ten), 0);
        }
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::End));

        let mailbox = Mailbox::new(10_000, Want::Snapshot);
        mailbox.begin(records(3));
        mailbox.outdate();
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::End));
    }

    #[test]
    fn a_closed_mailbox_gives_what_it_holds_and_then_ends() {
        let mailbox = Mailbox::new(10_000, Want::Changes);
        mailbox.put(None, &records(3));
        mailbox.close();
        mailbox.put(None, &records(3));
        let now = Instant::now();
        assert_eq!(sent(next(&mailbox, now)), 3);
        assert_eq!(next(&mailbox, now), Poll::Ready(Next::End));
    }

    #[test]
    fn a_burst_is_let_out_over_the_next_second() {
        let mailbox = Mailbox::new(1 << 20, Want::Sample(10.try_into().unwrap()));
        assert_eq!(mailbox.put(None, &records(1000)), 0);
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
