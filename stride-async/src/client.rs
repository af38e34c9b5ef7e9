//! The client, its verbs, and the future of a response.

use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use stride_core::api::RequestError;
use stride_core::client::{self, Client, FromClient, Trust};
use stride_core::proxy::Proxy;
use stride_core::transport::{
    AsyncTarget, AsyncTransport, BoxFuture, Delivery, TransportError, TransportErrorKind,
};
use stride_core::{Api, ApiKey, ConfigError, Error, Response};
use tracing::Instrument as _;

use crate::SubscribeBuilder;
use crate::alarm::{Alarm, after};
use crate::transport::HttpTransport;

/// A client for tasks of tokio. Cheap to clone; clones share their connections. Many tasks can use one
/// at once, in [more than one runtime](crate#runtimes).
///
/// A path has no version: `/collect/mystream`. A redirect is a [`Response`] like any other status and is
/// not followed. A request that cannot be built is [`Error::Request`] when it is awaited, and nothing is
/// sent; without a response it is [`Error::Transport`], whose
/// [`delivery`](crate::TransportError::delivery) tells whether the request may have arrived. Nothing is
/// ever sent twice. Dropping the future cancels the request, which may then have arrived or not.
#[derive(Debug, Clone)]
pub struct Stride {
    client: Client<dyn AsyncTransport>,
}

/// The builder of a [`Stride`]; its settings are those of [`client::StrideBuilder`].
///
/// ```
/// let builder = stride_async::Stride::builder("secret_key");
/// let stride = builder.endpoint("http://127.0.0.1:8080/v1").max_body(1 << 20).build()?;
/// # Ok::<(), stride_async::Error>(())
/// ```
pub type StrideBuilder = client::StrideBuilder<Stride, dyn AsyncTransport>;

impl FromClient<dyn AsyncTransport> for Stride {
    const HTTPS: bool = cfg!(feature = "tls");

    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn transport(
        proxy: Option<Proxy>,
        trust: &Trust,
    ) -> Result<Arc<dyn AsyncTransport>, ConfigError> {
        Ok(Arc::new(HttpTransport::new(proxy, trust)?))
    }

    fn from_client(client: Client<dyn AsyncTransport>) -> Self {
        Self { client }
    }
}

impl Stride {
    /// With every setting at its default; see [`builder`](Self::builder) for the others.
    ///
    /// # Errors
    ///
    /// The key or a proxy of the environment cannot be used.
    pub fn new(api_key: impl Into<ApiKey>) -> Result<Self, ConfigError> {
        Self::builder(api_key).build()
    }

    /// With key and endpoint from the environment: `STRIDE_API_KEY` and, optionally, `STRIDE_ENDPOINT`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and the key is not set.
    pub fn from_env() -> Result<Self, ConfigError> {
        StrideBuilder::from_env()?.build()
    }

    /// For other settings than the defaults.
    pub fn builder(api_key: impl Into<ApiKey>) -> StrideBuilder {
        StrideBuilder::new(api_key)
    }

    /// This client with `total` as the limit of a whole request.
    ///
    /// # Errors
    ///
    /// `total` is zero.
    pub fn with_timeout(&self, total: Duration) -> Result<Self, ConfigError> {
        Ok(Self { client: self.client.with_timeout(total)? })
    }

    /// This client with one more header on its requests.
    ///
    /// # Errors
    ///
    /// As [`Api::with_header`].
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self, ConfigError> {
        Ok(Self { client: self.client.with_header(name, value)? })
    }

    /// Reads `path`, whose query is percent-encoded if it has one.
    pub fn get(&self, path: &str) -> ResponseFuture {
        self.send(self.api().get(path))
    }

    /// Reads `path` with these parameters, and encodes them.
    pub fn get_query<K: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (K, V)>,
    ) -> ResponseFuture {
        self.send(self.api().get_query(path, query))
    }

    /// Posts a value, compressed if it goes to `/collect` or a stream.
    pub fn post<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> ResponseFuture {
        self.send(self.api().post(path, json))
    }

    /// Puts a value.
    pub fn put<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> ResponseFuture {
        self.send(self.api().put(path, json))
    }

    /// Deletes a stream, a process or a saved query.
    pub fn delete(&self, path: &str) -> ResponseFuture {
        self.send(self.api().delete(path))
    }

    /// Subscribes to a stream (`/collect/NAME`) or to the changes of a process (`/process/NAME`), once
    /// [`events`](SubscribeBuilder::events) or [`data`](SubscribeBuilder::data) is awaited.
    pub fn subscribe(&self, path: &str) -> SubscribeBuilder {
        SubscribeBuilder::new(&self.client, path)
    }

    /// What an `AsyncCollector` starts from.
    #[must_use]
    pub fn target(&self) -> AsyncTarget {
        AsyncTarget { api: self.api().clone(), transport: Arc::clone(self.client.transport()) }
    }

    /// The requests of this client.
    #[must_use]
    pub fn api(&self) -> &Api {
        self.client.api()
    }

    fn send(&self, request: Result<Request<Bytes>, RequestError>) -> ResponseFuture {
        let request = match request {
            Ok(request) => request,
            Err(error) => return ResponseFuture(Box::pin(ready(Err(error.into())))),
        };
        let (call, exchange) = self.client.begin(request);
        let (limits, span) = (call.limits, exchange.span());
        let transport = Arc::clone(self.client.transport());
        ResponseFuture(Box::pin(async move {
            let read = async {
                let response = transport.send(call).await?;
                Response::read_async(response, limits.max_body).await
            };
            let result = within(limits.total, read).instrument(span).await;
            Ok(exchange.finish(result)?)
        }))
    }
}

/// The response to a request, once it is awaited. Nothing is sent before that.
///
/// It borrows nothing, so it can be spawned as a task.
#[must_use = "nothing is sent before it is awaited"]
pub struct ResponseFuture(BoxFuture<Result<Response, Error>>);

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Holds any transport to the limit on a whole call, also one that keeps no limits itself, such as a
/// mock that hangs. Without a runtime there is no clock to hold it by.
async fn within(
    total: Option<Duration>,
    read: impl Future<Output = Result<Response, TransportError>>,
) -> Result<Response, TransportError> {
    let mut read = pin!(read);
    let mut alarm = Alarm::default();
    let until = total.map(after);
    poll_fn(|context| match (read.as_mut().poll(context), until) {
        (Poll::Pending, Some(until)) => match alarm.poll(until, context) {
            Poll::Ready(Ok(())) => {
                let kind = TransportErrorKind::TotalTimeout;
                Poll::Ready(Err(TransportError::new(kind, Delivery::MaybeSent)))
            }
            _ => Poll::Pending,
        },
        (poll, _) => poll,
    })
    .await
}

impl From<&Stride> for AsyncTarget {
    fn from(stride: &Stride) -> Self {
        stride.target()
    }
}

impl From<Stride> for AsyncTarget {
    fn from(stride: Stride) -> Self {
        stride.target()
    }
}
