//! Reading a subscription's events over loopback, typed.

use std::hint::black_box;
use std::time::Instant;

use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;

use crate::bare;
use crate::event::Received;
use crate::measure::Pair;
use crate::row::{async_client, client, runtime};
use crate::sink::{FIREHOSE, Sink};

/// 4.5 MB.
const EVENTS: usize = 40_000;

/// Read before the clock starts: connections are not what is measured.
const BEFORE: usize = 10_000;

const ALL: usize = BEFORE + EVENTS;

fn path() -> String {
    format!("/collect/{FIREHOSE}")
}

fn parse(line: &[u8]) -> Received {
    let text = str::from_utf8(line).expect("it is text");
    serde_json::from_str(text).expect("it is an event")
}

/// Looks at the clock when an event is the first or the last that counts.
struct Reader {
    seen: usize,
    start: Instant,
    rate: f64,
}

impl Reader {
    fn new() -> Self {
        Self { seen: 0, start: Instant::now(), rate: 0.0 }
    }

    #[inline]
    fn take(&mut self, event: Received) {
        black_box(event);
        self.seen += 1;
        if self.seen == BEFORE {
            self.start = Instant::now();
        } else if self.seen == ALL {
            self.rate = EVENTS as f64 / self.start.elapsed().as_secs_f64();
        }
    }
}

/// Over ureq.
pub(super) struct Blocking {
    sink: Sink,
}

impl Blocking {
    pub(super) fn new() -> Self {
        Self { sink: Sink::start() }
    }
}

impl Pair for Blocking {
    fn ours(&mut self) -> f64 {
        let subscribe = client(&self.sink).subscribe(&path());
        let data = subscribe.data::<Received>().expect("the sink answers");
        let mut reader = Reader::new();
        for event in data.take(ALL) {
            reader.take(event.expect("it is an event"));
        }
        reader.rate
    }

    fn limit(&mut self) -> f64 {
        let client = bare::Blocking::new(self.sink.port());
        let body = client.subscribe().expect("the sink answers");
        let mut reader = Reader::new();
        bare::lines(body, ALL, |line| reader.take(parse(line))).expect("events come");
        reader.rate
    }
}

/// Over hyper, on one thread.
pub(super) struct Async {
    sink: Sink,
    runtime: Runtime,
}

impl Async {
    pub(super) fn new() -> Self {
        Self { sink: Sink::start(), runtime: runtime() }
    }
}

impl Pair for Async {
    fn ours(&mut self) -> f64 {
        let subscribe = async_client(&self.sink).subscribe(&path());
        let mut reader = Reader::new();
        self.runtime.block_on(async {
            let mut data = subscribe.data::<Received>().await.expect("the sink answers");
            for _ in 0..ALL {
                let event = data.next().await.expect("it has no end");
                reader.take(event.expect("it is an event"));
            }
        });
        reader.rate
    }

    fn limit(&mut self) -> f64 {
        let mut reader = Reader::new();
        let mut lines = bare::Lines::default();
        let mut left = ALL;
        self.runtime.block_on(async {
            let client = bare::Async::connect(self.sink.port()).await.expect("the sink listens");
            let mut body = client.subscribe().await.expect("the sink answers");
            while left > 0 {
                let frame = body.frame().await.expect("it has no end").expect("chunks come");
                if let Ok(chunk) = frame.into_data() {
                    lines.split(&chunk, &mut left, |line| reader.take(parse(line)));
                }
            }
        });
        reader.rate
    }
}
