//! What the batcher decides, one decision at a time: driven by hand in virtual time.

mod ending;
mod expiring;
mod lanes;
mod leaving;
mod memory;
mod narrowing;
mod outcomes;
mod retrying;
mod sharing;
mod waking;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stride_collector::batcher::{Batcher, Events, Input, LaneId, Policy, Request, Response, Step};
use stride_collector::{Activity, Delivery, TransportError, http};
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::TransportErrorKind;

/// A batcher and the hand that drives it.
struct Hand {
    batcher: Batcher,
    now: Instant,
}

impl Hand {
    fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self { batcher: Batcher::new(policy, now), now }
    }

    fn with_senders(senders: usize) -> Self {
        Self::new(Policy { senders, ..Policy::default() })
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn tell(&mut self, input: Input) {
        self.batcher.handle(input, self.now);
    }

    fn open(&mut self, lane: u32) {
        self.tell(Input::Opened { lane: LaneId(lane), stream: name(lane) });
    }

    fn sealed(&mut self, lane: u32, text: Vec<u8>, count: u32, opened: bool) {
        let events = Events { text, count };
        self.tell(Input::Sealed { lane: LaneId(lane), stream: name(lane), events, opened });
    }

    /// A batch of so many short events, which was never open.
    fn seal(&mut self, lane: u32, count: u32) {
        self.sealed(lane, ",1".repeat(count as usize).into_bytes(), count, false);
    }

    /// A batch of one event, of which the text has this length.
    fn seal_long(&mut self, lane: u32, length: usize) {
        let text = format!(",\"{}\"", "x".repeat(length - 3)).into_bytes();
        self.sealed(lane, text.into_boxed_slice().into_vec(), 1, false);
    }

    fn poll(&mut self, sender: usize) -> Step {
        self.batcher.poll(sender, self.now)
    }

    fn request(&mut self, sender: usize) -> Request {
        match self.poll(sender) {
            Step::Send(request) => request,
            step => panic!("{step:?} instead of a request"),
        }
    }

    fn respond(&mut self, request: &Request, status: u16) -> Vec<Activity> {
        self.respond_asking(request, status, None)
    }

    /// Responds, and asks for a pause of so many seconds.
    fn respond_asking(
        &mut self,
        request: &Request,
        status: u16,
        pause: Option<u64>,
    ) -> Vec<Activity> {
        let mut headers = http::HeaderMap::new();
        headers.extend(pause.map(|seconds| (http::header::RETRY_AFTER, seconds.into())));
        let status = http::StatusCode::from_u16(status).unwrap();
        let response = Response { status, headers, message: None };
        self.batcher.handle_result(request.id(), Ok(response), self.now)
    }

    /// Sends a batch of each of these lanes alone, and loses it with a 404.
    fn lose(&mut self, lanes: impl IntoIterator<Item = u32>) {
        let mut requests = Vec::new();
        for lane in lanes {
            self.seal(lane, 1);
            requests.push(self.request(0));
        }
        for request in requests {
            self.respond(&request, 404);
        }
    }

    /// No connection.
    fn refuse(&mut self, request: &Request) -> Vec<Activity> {
        self.fail(request, TransportError::new(TransportErrorKind::Connect, Delivery::NotSent))
    }

    fn fail(&mut self, request: &Request, error: TransportError) -> Vec<Activity> {
        self.batcher.handle_result(request.id(), Err(error), self.now)
    }

    /// Does all that there is to do but to send and to seal, and gives the step at which it ends.
    fn tidy(&mut self, sender: usize) -> Step {
        loop {
            match self.poll(sender) {
                Step::Lost(loss) => self.batcher.handle_reported(&loss),
                Step::Retire(lanes) => {
                    lanes.iter().for_each(|it| self.tell(Input::Retired(it.lane)));
                }
                Step::Split(split) => self.batcher.handle_split(split.run(), self.now),
                Step::Compress(waiting) => {
                    let bytes = waiting.run(&mut Gzip::new(GzipLevel::FASTEST));
                    self.batcher.handle_gzipped(&waiting, bytes);
                }
                step => return step,
            }
        }
    }

    /// Polls, and finds nothing to do for now.
    fn sleeps(&mut self, sender: usize) -> bool {
        matches!(self.poll(sender), Step::Wait(until) if until > self.now) || self.is_idle(sender)
    }

    fn is_idle(&mut self, sender: usize) -> bool {
        matches!(self.poll(sender), Step::Idle)
    }
}

/// How many events a request of [`Hand::seal`]'s batches has.
fn events(request: &Request) -> usize {
    request
        .body()
        .pieces()
        .concat()
        .split(|byte| b",[]".contains(byte))
        .filter(|it| *it == b"1")
        .count()
}

/// The streams whose events a request has.
fn streams(request: &Request) -> Vec<String> {
    match request.body().path().strip_prefix("/collect/") {
        Some(stream) => vec![stream.to_owned()],
        None => {
            let text = String::from_utf8(request.body().pieces().concat()).unwrap();
            text.split('"').filter(|it| it.starts_with('s')).map(str::to_owned).collect()
        }
    }
}

fn name(lane: u32) -> Arc<str> {
    Arc::from(format!("s{lane}"))
}
