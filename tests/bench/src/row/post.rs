//! One small POST after the other on a kept connection. The limit serialises, too, and sends plain
//! JSON.

use stride_blocking::Stride;
use tokio::runtime::Runtime;

use crate::bare;
use crate::event::{Event as _, Readme};
use crate::measure::Pair;
use crate::row::{async_client, client, per_second, runtime};
use crate::sink::Sink;

const REQUESTS: usize = 100;

const PATH: &str = "/collect/mystream";

/// Over ureq.
pub(super) struct Blocking {
    stride: Stride,
    bare: bare::Blocking,
    _sink: Sink,
}

impl Blocking {
    pub(super) fn new() -> Self {
        let sink = Sink::start();
        Self { stride: client(&sink), bare: bare::Blocking::new(sink.port()), _sink: sink }
    }
}

impl Pair for Blocking {
    fn ours(&mut self) -> f64 {
        per_second(REQUESTS, || {
            for id in 0..REQUESTS as u64 {
                let answer = self.stride.post(PATH, &Readme::new(id)).expect("the sink answers");
                answer.error_for_status().expect("the sink takes everything");
            }
        })
    }

    fn limit(&mut self) -> f64 {
        per_second(REQUESTS, || {
            for id in 0..REQUESTS as u64 {
                self.bare.post(&body(id), false).expect("the sink answers");
            }
        })
    }
}

fn body(id: u64) -> Vec<u8> {
    serde_json::to_vec(&Readme::new(id)).expect("it is JSON")
}

/// Over hyper, on one thread.
pub(super) struct Async {
    stride: stride_async::Stride,
    bare: bare::Async,
    runtime: Runtime,
    _sink: Sink,
}

impl Async {
    pub(super) fn new() -> Self {
        let (sink, runtime) = (Sink::start(), runtime());
        let bare = runtime.block_on(bare::Async::connect(sink.port()));
        let bare = bare.expect("the sink listens");
        Self { stride: async_client(&sink), bare, runtime, _sink: sink }
    }
}

impl Pair for Async {
    fn ours(&mut self) -> f64 {
        let work = async {
            for id in 0..REQUESTS as u64 {
                let answer = self.stride.post(PATH, &Readme::new(id)).await;
                let answer = answer.expect("the sink answers").error_for_status();
                answer.expect("the sink takes everything");
            }
        };
        per_second(REQUESTS, || self.runtime.block_on(work))
    }

    fn limit(&mut self) -> f64 {
        let work = async {
            for id in 0..REQUESTS as u64 {
                self.bare.post(body(id).into(), false).await.expect("the sink answers");
            }
        };
        per_second(REQUESTS, || self.runtime.block_on(work))
    }
}
