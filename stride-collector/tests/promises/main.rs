//! What a collector promises, seen from outside, against transports that are closures.

mod accepting;
mod delivery;
mod ending;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stride_collector::{
    Builder, CollectError, Collector, ConfigError, Delivery, LossReason, StartError, Target,
};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::gzip::gunzip;
use stride_core::transport::{Body, Call, TransportError, TransportErrorKind};

/// Far longer than anything here takes, far shorter than any limit that would mask a hang.
const LONG: Duration = Duration::from_secs(20);

/// Runs a test that must not hang.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LONG) {
        panic!("the test hangs");
    }
    thread.join().unwrap();
}

/// A request as a server reads it.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// Its events, with their streams.
    fn events(&self) -> Vec<(String, Value)> {
        let json: Value = serde_json::from_slice(&self.body).unwrap();
        let of = |stream: &str, events: &Value| {
            let events = events.as_array().unwrap().clone();
            events.into_iter().map(|event| (stream.to_owned(), event)).collect::<Vec<_>>()
        };
        match self.path.strip_prefix("/v1/collect/") {
            Some(stream) => of(stream, &json),
            None => {
                let streams = json.as_object().unwrap();
                streams.iter().flat_map(|(stream, events)| of(stream, events)).collect()
            }
        }
    }
}

type Answer = Result<u16, TransportError>;

/// What arrived at a server, which answers as a closure says.
#[derive(Default)]
struct Server {
    requests: Mutex<Vec<Request>>,
    arrived: Condvar,
}

impl Server {
    /// A server, and the way to it. The closure is told how many requests came before.
    fn new(
        answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, Target) {
        let server = Arc::new(Self::default());
        let at_server = Arc::clone(&server);
        let transport = move |call: Call, _: CancelToken| {
            let body = gunzip(call.request.body()).unwrap();
            let request = Request { path: call.request.uri().path().to_owned(), body };
            let before = {
                let mut requests = at_server.requests.lock().unwrap();
                requests.push(request.clone());
                at_server.arrived.notify_all();
                requests.len() - 1
            };
            let status = answer(before, &request)?;
            let response = http::Response::builder().status(status);
            Ok(response.body(Body::from("{}")).unwrap())
        };
        (server, Target { api: Api::new("key").unwrap(), transport: Arc::new(transport) })
    }

    fn working() -> (Arc<Self>, Target) {
        Self::new(|_, _| Ok(200))
    }

    /// Waits until so many requests arrived.
    fn wait_for(&self, requests: usize) {
        let seen = self.requests.lock().unwrap();
        drop(self.arrived.wait_while(seen, |seen| seen.len() < requests).unwrap());
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<(String, Value)> {
        self.requests().iter().flat_map(Request::events).collect()
    }
}

/// A server that answers nothing until the other end is dropped or sends.
fn stalled() -> (Sender<()>, Arc<Server>, Target) {
    let (release, released) = channel();
    let released = Mutex::new(released);
    let (server, connection) = Server::new(move |_, _| {
        let _ = released.lock().unwrap().recv();
        Ok(200)
    });
    (release, server, connection)
}

fn refused() -> TransportError {
    TransportError::new(TransportErrorKind::Connect, Delivery::NotSent)
}

/// Batches that go out only when they are full or flushed.
fn patient() -> Builder {
    Collector::builder().flush_interval(Duration::from_secs(600))
}

#[derive(Debug, Clone, PartialEq)]
struct Loss {
    stream: String,
    events: Vec<Value>,
    reason: LossReason,
    delivery: Delivery,
}

/// Sends each loss to a channel.
fn losses(builder: Builder) -> (Builder, Receiver<Loss>) {
    let (sender, receiver) = channel();
    let builder = builder.on_lost(move |lost| {
        let events: Vec<Value> = serde_json::from_slice(&lost.events).unwrap();
        assert_eq!(events.len(), lost.count);
        let stream = lost.stream.to_string();
        let _ = sender.send(Loss { stream, events, reason: lost.reason, delivery: lost.delivery });
    });
    (builder, receiver)
}
