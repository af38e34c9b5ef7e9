//! The blocking and the asynchronous client behind one face.

use std::time::Duration;

use serde_json::Value;
use stride_core::cancel::CancelToken;
use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_core::transport::{Call, Target, Transport, TransportError};
use stride_core::{Api, Error, Response};
use tokio::runtime::Runtime;

/// A client under test.
#[derive(Debug)]
pub enum Client {
    /// One that blocks.
    Blocking(stride_blocking::Stride),
    /// One that awaits, with a runtime of its own.
    Async(stride_async::Stride, Runtime),
}

impl Client {
    /// An asynchronous client on a runtime of one thread.
    #[must_use]
    pub fn current_thread(stride: stride_async::Stride) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self::Async(stride, runtime.expect("a runtime starts"))
    }

    /// What `get` gives.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn get(&self, path: &str) -> Result<Response, Error> {
        match self {
            Self::Blocking(stride) => stride.get(path),
            Self::Async(stride, runtime) => runtime.block_on(stride.get(path)),
        }
    }

    /// What `post` gives.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn post(&self, path: &str, json: &Value) -> Result<Response, Error> {
        match self {
            Self::Blocking(stride) => stride.post(path, json),
            Self::Async(stride, runtime) => runtime.block_on(stride.post(path, json)),
        }
    }

    /// What `put` gives.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn put(&self, path: &str, json: &Value) -> Result<Response, Error> {
        match self {
            Self::Blocking(stride) => stride.put(path, json),
            Self::Async(stride, runtime) => runtime.block_on(stride.put(path, json)),
        }
    }

    /// What `delete` gives.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn delete(&self, path: &str) -> Result<Response, Error> {
        match self {
            Self::Blocking(stride) => stride.delete(path),
            Self::Async(stride, runtime) => runtime.block_on(stride.delete(path)),
        }
    }

    /// The endpoint of the client.
    #[must_use]
    pub fn endpoint(&self) -> Api {
        match self {
            Self::Blocking(stride) => stride.target().api,
            Self::Async(stride, _) => stride.target().api,
        }
    }

    /// What the transport alone gives, its body read.
    ///
    /// # Errors
    ///
    /// As the transport under test.
    pub fn send(&self, call: Call) -> Result<Response, TransportError> {
        let max_body = call.limits.max_body;
        match self {
            Self::Blocking(stride) => {
                let Target { transport, .. } = stride.target();
                Response::read(transport.send(call, CancelToken::never())?, max_body)
            }
            Self::Async(stride, runtime) => runtime.block_on(async {
                let transport = stride.target().transport;
                Response::read_async(transport.send(call).await?, max_body).await
            }),
        }
    }

    /// What `subscribe` gives, with every event as it comes.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn subscribe(
        &self,
        path: &str,
        sample: Option<u32>,
        reconnect: Reconnect,
        idle: Duration,
    ) -> Result<Events<'_>, Error> {
        match self {
            Self::Blocking(stride) => {
                let mut subscribe = stride.subscribe(path).reconnect(reconnect).idle_timeout(idle);
                if let Some(sample) = sample {
                    subscribe = subscribe.sample(sample);
                }
                Ok(Events::Blocking(subscribe.jitter_seed(SEED).events()?))
            }
            Self::Async(stride, runtime) => {
                let mut subscribe = stride.subscribe(path).reconnect(reconnect).idle_timeout(idle);
                if let Some(sample) = sample {
                    subscribe = subscribe.sample(sample);
                }
                let events = runtime.block_on(subscribe.jitter_seed(SEED).events())?;
                Ok(Events::Async(events, runtime))
            }
        }
    }

    /// What the values of a subscription are, up to its end or its first error.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn numbers(&self, path: &str, reconnect: Reconnect) -> Result<(Vec<u64>, Error), Error> {
        let mut numbers = Vec::new();
        match self {
            Self::Blocking(stride) => {
                for number in stride.subscribe(path).reconnect(reconnect).data::<u64>()? {
                    match number {
                        Ok(number) => numbers.push(number),
                        Err(error) => return Ok((numbers, error)),
                    }
                }
            }
            Self::Async(stride, runtime) => {
                let subscribe = stride.subscribe(path).reconnect(reconnect);
                let mut data = runtime.block_on(subscribe.data::<u64>())?;
                while let Some(number) = runtime.block_on(data.next()) {
                    match number {
                        Ok(number) => numbers.push(number),
                        Err(error) => return Ok((numbers, error)),
                    }
                }
            }
        }
        panic!("the subscription ended without an error after {numbers:?}");
    }
}

/// The same for every client, so that their delays can be compared.
const SEED: u64 = 7;

/// The events of a subscription under test.
#[derive(Debug)]
pub enum Events<'a> {
    /// Of one that blocks.
    Blocking(stride_blocking::Events<Value>),
    /// Of one that awaits.
    Async(stride_async::Events<Value>, &'a Runtime),
}

impl Iterator for Events<'_> {
    type Item = Result<SubscriptionEvent<Value>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Blocking(events) => events.next(),
            Self::Async(events, runtime) => runtime.block_on(events.next()),
        }
    }
}
