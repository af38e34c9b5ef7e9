//! A collector by hand, on smol: the batcher decides what is sent when, and this only does what it says.
//!
//!     cargo run --example by_hand_collector
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` (plain `http` only) with the key in
//! `STRIDE_API_KEY`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "by_hand/smol.rs"]
mod transport;

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use smol::Timer;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;
use stride_collector::batcher::{
    BATCH_COST, Batcher, Budget, Events, Input, LaneId, Policy, Response, Retire, Step,
};
use stride_collector::{Report, TransportError};
use stride_core::Api;
use stride_core::gzip::{Gzip, GzipLevel};
use stride_core::transport::{AsyncTransport, Call, Limits};
use stride_local::Local;

use self::transport::Smol;

const SENDERS: usize = 2;

/// Open batches, the batcher, and what wakes the senders.
struct Collector {
    state: Mutex<State>,
    budget: Budget,
    wakers: Vec<Sender<()>>,
}

struct State {
    batcher: Batcher,
    policy: Policy,
    /// Never shorter: a stream keeps its number, and so its lane.
    streams: Vec<Stream>,
    numbers: HashMap<String, usize>,
}

struct Stream {
    name: Arc<str>,
    open: Events,
    /// How many batches were ever sealed.
    sealed: u32,
}

impl Collector {
    /// A collector, and what each of its senders waits for.
    fn new(policy: Policy, memory: usize) -> (Self, Vec<Receiver<()>>) {
        let batcher = Batcher::new(policy, Instant::now());
        let state = State { batcher, policy, streams: Vec::new(), numbers: HashMap::new() };
        let (wakers, wakes) = (0..policy.senders).map(|_| bounded(1)).unzip();
        (Self { state: Mutex::new(state), budget: Budget::new(memory), wakers }, wakes)
    }

    /// Changes something, gives back the memory that became free, and wakes whom the batcher names.
    fn with<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state, Instant::now());
        let (freed, grown) = state.batcher.take_freed();
        self.budget.adjust(freed, grown);
        if let Some(sender) = state.batcher.wake() {
            // If it is full, the sender is awake already.
            let _ = self.wakers[sender].try_send(());
        }
        result
    }

    /// Accepts an event; `false` if there is no memory for it.
    fn collect(&self, stream: &str, event: &Value) -> bool {
        let event = format!(",{event}");
        if !self.budget.try_reserve(event.len() + BATCH_COST, &mut 0) {
            self.with(|state, now| state.batcher.handle(Input::Press, now));
            return false;
        }
        self.with(|state, now| {
            let known = state.numbers.get(stream).copied();
            let number = known.unwrap_or_else(|| state.add(stream));
            let Stream { name, open, .. } = &mut state.streams[number];
            let lane = LaneId(number as u32);
            open.text.extend_from_slice(event.as_bytes());
            open.count += 1;
            if open.count == 1 {
                let stream = Arc::clone(name);
                state.batcher.handle(Input::Opened { lane, stream }, now);
            }
            if open.count as usize == state.policy.batch_size
                || open.text.len() >= state.policy.batch_bytes
            {
                self.seal(state, lane, now);
            }
        });
        true
    }

    fn seal(&self, state: &mut State, lane: LaneId, now: Instant) {
        let Some(stream) = state.streams.get_mut(lane.0 as usize) else { return };
        if stream.open.count == 0 {
            return;
        }
        let events = std::mem::take(&mut stream.open);
        stream.sealed = stream.sealed.wrapping_add(1);
        // What was reserved event by event, against what the batch takes.
        let reserved = events.text.len() + events.count as usize * BATCH_COST;
        self.budget.adjust(reserved, events.cost());
        let stream = Arc::clone(&stream.name);
        state.batcher.handle(Input::Sealed { lane, stream, events, opened: true }, now);
    }

    /// A sender: does what the batcher says, until there is nothing left to do.
    async fn run(&self, sender: usize, wake: Receiver<()>, api: &Api) {
        let mut gzip = Gzip::new(GzipLevel::FASTEST);
        loop {
            match self.with(|state, now| state.batcher.poll(sender, now)) {
                Step::Send(request) => {
                    let (id, bytes) = (request.id(), request.body().gzip(&mut gzip));
                    self.with(|state, _| state.batcher.handle_gzipped_request(id, &bytes));
                    let result = post(api, &request.body().path(), bytes).await;
                    self.with(|state, now| state.batcher.handle_result(id, result, now));
                }
                Step::Compress(waiting) => {
                    let bytes = waiting.run(&mut gzip);
                    self.with(|state, _| state.batcher.handle_gzipped(&waiting, bytes));
                }
                // For a disk, which this collector does not have.
                Step::Store(_) => {}
                Step::Split(split) => {
                    let parts = split.run();
                    self.with(|state, now| state.batcher.handle_split(parts, now));
                }
                Step::Lost(loss) => {
                    println!("{:?}", loss.to_lost_batch());
                    self.with(|state, _| state.batcher.handle_reported(&loss));
                }
                Step::Seal(seal) => self.with(|state, now| {
                    for lane in seal.lanes() {
                        self.seal(state, *lane, now);
                    }
                    state.batcher.handle(Input::SealsDone(seal.ticket()), now);
                }),
                Step::Retire(lanes) => self.with(|state, now| {
                    for Retire { lane, sealed } in lanes {
                        let stream = &mut state.streams[lane.0 as usize];
                        // Nothing has come for it meanwhile.
                        if stream.open.count == 0 && stream.sealed == sealed {
                            state.batcher.handle(Input::Retired(lane), now);
                        }
                    }
                }),
                Step::Wait(until) => {
                    let timer = async {
                        Timer::at(until).await;
                        Ok(())
                    };
                    let _ = or(timer, wake.recv()).await;
                }
                Step::Idle => {
                    let _ = wake.recv().await;
                }
                Step::Finished => return,
            }
        }
    }

    fn totals(&self) -> Report {
        self.with(|state, _| state.batcher.totals())
    }
}

impl State {
    fn add(&mut self, name: &str) -> usize {
        let number = self.streams.len();
        self.streams.push(Stream { name: name.into(), open: Events::default(), sealed: 0 });
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// Sends compressed events.
async fn post(api: &Api, path: &str, gzipped: Bytes) -> Result<Response, TransportError> {
    use stride_core::transport::{Delivery, TransportErrorKind};

    let request = api.collect(path, gzipped).map_err(|error| {
        TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent).with_source(error)
    })?;
    let response = Smol.send(Call::new(request, Limits::for_request())).await?;
    let (head, mut body) = response.into_parts();
    while let Some(Ok(_)) = body.next().await {}
    Ok(Response { status: head.status, headers: head.headers, message: None })
}

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let base = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let api = Api::new(key)?.with_base(&base)?;

    // Differs between processes, so that they do not all retry at once.
    let seed = u64::from(std::process::id());
    let policy = Policy { senders: SENDERS, seed, ..Policy::default() };
    let (collector, wakes) = Collector::new(policy, 16 << 20);
    smol::block_on(async {
        let senders = smol::Executor::new();
        let running: Vec<_> = wakes
            .into_iter()
            .enumerate()
            .map(|(sender, wake)| senders.spawn(collector.run(sender, wake, &api)))
            .collect();
        let program = async {
            for id in 0..10_000 {
                let stream = ["clicks", "views", "orders"][id % 3];
                while !collector.collect(stream, &json!({"id": id, "bojack": "horseman"})) {
                    smol::future::yield_now().await;
                }
            }
            collector.with(|state, now| state.batcher.handle(Input::Stop, now));
            for sender in running {
                sender.await;
            }
        };
        senders.run(program).await;
    });
    let report = collector.totals();
    println!("{report}, {} bytes are held", collector.budget.used());
    assert_eq!((report.delivered, report.pending, collector.budget.used()), (10_000, 0, 0));
    Ok(())
}
