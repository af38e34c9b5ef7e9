//! The blocking and the asynchronous client as one type.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stride_core::cancel::CancelToken;
use stride_core::subscribe::{Position, Reconnect, SubscriptionEvent};
use stride_core::transport::{AsyncBody, Body, Call, Target, Transport, TransportError};
use stride_core::{Api, Bytes, ConfigError, Error, Response};
use tokio::runtime::Runtime;

/// The settings of a client under test.
#[derive(Debug)]
pub enum Builder {
    /// Of one that blocks.
    Blocking(stride_blocking::StrideBuilder),
    /// Of one that awaits.
    Async(stride_async::StrideBuilder),
}

/// Does the same with either builder.
macro_rules! either {
    ($builder:expr, $name:ident => $change:expr) => {
        match $builder {
            Builder::Blocking($name) => Builder::Blocking($change),
            Builder::Async($name) => Builder::Async($change),
        }
    };
}

impl Builder {
    /// The same with another base URL.
    #[must_use]
    pub fn endpoint(self, base: &str) -> Self {
        either!(self, builder => builder.endpoint(base))
    }

    /// The same with a limit on each request as a whole.
    #[must_use]
    pub fn timeout(self, total: Duration) -> Self {
        either!(self, builder => builder.timeout(total))
    }

    /// The same with a limit on connecting.
    #[must_use]
    pub fn connect_timeout(self, connect: Duration) -> Self {
        either!(self, builder => builder.connect_timeout(connect))
    }

    /// The same with a limit on the bytes of a response's body.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        either!(self, builder => builder.max_body(bytes))
    }

    /// The same through a proxy.
    #[must_use]
    pub fn proxy(self, url: &str) -> Self {
        either!(self, builder => builder.proxy(url))
    }

    /// The same without a proxy.
    #[must_use]
    pub fn no_proxy(self) -> Self {
        either!(self, builder => builder.no_proxy())
    }

    /// The same with another certificate that is trusted.
    #[must_use]
    pub fn root_certificate(self, certificate: impl AsRef<[u8]>) -> Self {
        either!(self, builder => builder.root_certificate(certificate))
    }

    /// The same with a certificate and its key, both in PEM form, for servers that ask for one.
    #[must_use]
    pub fn client_certificate(self, chain: &str, private_key: &str) -> Self {
        either!(self, builder => builder.client_certificate(chain, private_key))
    }

    /// The same with the trust of the operating system.
    #[must_use]
    pub fn platform_verifier(self) -> Self {
        either!(self, builder => builder.platform_verifier())
    }

    /// The client; an asynchronous one on a runtime of one thread.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn build(self) -> Result<Client, ConfigError> {
        match self {
            Self::Blocking(builder) => Ok(Client::Blocking(builder.build()?)),
            Self::Async(builder) => Ok(Client::current_thread(builder.build()?)),
        }
    }
}

/// A client under test.
#[derive(Debug)]
pub enum Client {
    /// One that blocks.
    Blocking(stride_blocking::Stride),
    /// One that awaits, and the runtime that it is used in.
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
    pub fn post<T: Serialize + Sync + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Response, Error> {
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
    pub fn put<T: Serialize + Sync + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Response, Error> {
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

    /// The `Api` of the client.
    #[must_use]
    pub fn api(&self) -> Api {
        match self {
            Self::Blocking(stride) => stride.target().api,
            Self::Async(stride, _) => stride.target().api,
        }
    }

    /// What `get` gives with this limit on the whole request.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn get_within(&self, path: &str, total: Duration) -> Result<Response, Error> {
        match self {
            Self::Blocking(stride) => stride.with_timeout(total)?.get(path),
            Self::Async(stride, runtime) => runtime.block_on(stride.with_timeout(total)?.get(path)),
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

    /// What the transport alone gives, its body still to be read.
    ///
    /// # Errors
    ///
    /// As the transport under test.
    pub fn open(&self, call: Call) -> Result<Chunks<'_>, TransportError> {
        match self {
            Self::Blocking(stride) => {
                let response = stride.target().transport.send(call, CancelToken::never())?;
                Ok(Chunks::Blocking(response.into_body()))
            }
            Self::Async(stride, runtime) => {
                let response = runtime.block_on(stride.target().transport.send(call))?;
                Ok(Chunks::Async(response.into_body(), runtime))
            }
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
        self.subscribe_as(path, sample, reconnect, idle)
    }

    /// The same, with values of another type.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn subscribe_as<T: DeserializeOwned>(
        &self,
        path: &str,
        sample: Option<u32>,
        reconnect: Reconnect,
        idle: Duration,
    ) -> Result<Events<'_, T>, Error> {
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

    /// What `subscribe` gives after a position.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn subscribe_after(
        &self,
        path: &str,
        position: Position,
        reconnect: Reconnect,
    ) -> Result<Events<'_>, Error> {
        match self {
            Self::Blocking(stride) => {
                let subscribe = stride.subscribe(path).after(position).reconnect(reconnect);
                Ok(Events::Blocking(subscribe.jitter_seed(SEED).events()?))
            }
            Self::Async(stride, runtime) => {
                let subscribe = stride.subscribe(path).after(position).reconnect(reconnect);
                let events = runtime.block_on(subscribe.jitter_seed(SEED).events())?;
                Ok(Events::Async(events, runtime))
            }
        }
    }

    /// What `subscribe` gives with a snapshot.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn subscribe_with_snapshot(&self, path: &str) -> Result<Events<'_>, Error> {
        match self {
            Self::Blocking(stride) => {
                Ok(Events::Blocking(stride.subscribe(path).snapshot().jitter_seed(SEED).events()?))
            }
            Self::Async(stride, runtime) => {
                let subscribe = stride.subscribe(path).snapshot().jitter_seed(SEED);
                Ok(Events::Async(runtime.block_on(subscribe.events())?, runtime))
            }
        }
    }

    /// What `subscribe` gives, its values alone.
    ///
    /// # Errors
    ///
    /// As the client under test.
    pub fn data<T: DeserializeOwned>(
        &self,
        path: &str,
        reconnect: Reconnect,
    ) -> Result<Data<'_, T>, Error> {
        match self {
            Self::Blocking(stride) => {
                Ok(Data::Blocking(stride.subscribe(path).reconnect(reconnect).data()?))
            }
            Self::Async(stride, runtime) => {
                let subscribe = stride.subscribe(path).reconnect(reconnect);
                Ok(Data::Async(runtime.block_on(subscribe.data())?, runtime))
            }
        }
    }
}

/// The same for every client, so that their delays can be compared.
const SEED: u64 = 7;

/// The chunks of a body under test.
#[derive(Debug)]
pub enum Chunks<'a> {
    /// Of a transport that blocks.
    Blocking(Body),
    /// Of one that awaits.
    Async(AsyncBody, &'a Runtime),
}

impl Iterator for Chunks<'_> {
    type Item = Result<Bytes, TransportError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Blocking(body) => body.next(),
            Self::Async(body, runtime) => runtime.block_on(body.next()),
        }
    }
}

/// The events of a subscription under test.
#[derive(Debug)]
pub enum Events<'a, T = Value> {
    /// Of one that blocks.
    Blocking(stride_blocking::Events<T>),
    /// Of one that awaits.
    Async(stride_async::Events<T>, &'a Runtime),
}

impl<T> Events<'_, T> {
    /// The place behind the last item.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Blocking(events) => events.position(),
            Self::Async(events, _) => events.position(),
        }
    }
}

impl<T: DeserializeOwned> Iterator for Events<'_, T> {
    type Item = Result<SubscriptionEvent<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Blocking(events) => events.next(),
            Self::Async(events, runtime) => runtime.block_on(events.next()),
        }
    }
}

/// The values of a subscription under test.
#[derive(Debug)]
pub enum Data<'a, T = Value> {
    /// Of one that blocks.
    Blocking(stride_blocking::Data<T>),
    /// Of one that awaits.
    Async(stride_async::Data<T>, &'a Runtime),
}

impl<T> Data<'_, T> {
    /// The number of malformed frames so far.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        match self {
            Self::Blocking(data) => data.malformed(),
            Self::Async(data, _) => data.malformed(),
        }
    }

    /// The place behind the last value.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Blocking(data) => data.position(),
            Self::Async(data, _) => data.position(),
        }
    }
}

impl<T: DeserializeOwned> Iterator for Data<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Blocking(data) => data.next(),
            Self::Async(data, runtime) => runtime.block_on(data.next()),
        }
    }
}
