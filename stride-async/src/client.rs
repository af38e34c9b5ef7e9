//! The client.

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

/// A client of Stride. Cheap to clone; clones share their connections. It can be used from many
/// tasks at once, and from [more than one runtime](crate#runtimes).
///
/// Paths are those of Stride's API without its version: `/collect/mystream`. Every status is a
/// [`Response`], as in pystride; [`error_for_status`](Response::error_for_status) turns a
/// non-success response into an [`Error`] that still holds it. A redirect is such a response and is
/// not followed.
///
/// # Errors
///
/// The verbs fail with [`Error::Request`] before anything is sent if the path does not exist for
/// them or the value cannot be written as JSON, and with [`Error::Transport`] if no response was
/// received; its [`delivery`](stride_core::transport::TransportError::delivery) tells whether the
/// request may have arrived. Nothing is ever sent twice. Dropping the future cancels the request,
/// which may then have arrived or not.
#[derive(Debug, Clone)]
pub struct Stride {
    client: Client<dyn AsyncTransport>,
}

/// Settings of a [`Stride`]: [`endpoint`](StrideBuilder::endpoint),
/// [`timeout`](StrideBuilder::timeout), [`connect_timeout`](StrideBuilder::connect_timeout),
/// [`max_body`](StrideBuilder::max_body), [`header`](StrideBuilder::header),
/// [`user_agent`](StrideBuilder::user_agent), [`proxy`](StrideBuilder::proxy),
/// [`no_proxy`](StrideBuilder::no_proxy), [`allow_plain_http`](StrideBuilder::allow_plain_http),
/// `root_certificate` and `client_certificate` (feature `tls`), `platform_verifier` (feature of that
/// name) and [`transport`](StrideBuilder::transport); then [`build`](StrideBuilder::build).
///
/// ```
/// use std::time::Duration;
/// use stride_async::Stride;
///
/// let stride = Stride::builder("secret_key")
///     .endpoint("http://127.0.0.1:8080/v1")
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// assert_eq!(stride.api().base(), "http://127.0.0.1:8080/v1");
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
    /// A client of the hosted service, `https://api.stride.io/v1`, with every setting at its
    /// default. [`builder`](Self::builder) has the settings.
    ///
    /// # Errors
    ///
    /// The key is empty, or holds a colon or a control character; or the environment names a proxy
    /// that cannot be used.
    ///
    /// ```no_run
    /// let stride = stride_async::Stride::new("secret_key")?;
    /// # Ok::<(), stride_async::Error>(())
    /// ```
    pub fn new(api_key: impl Into<ApiKey>) -> Result<Self, ConfigError> {
        Self::builder(api_key).build()
    }

    /// A client for the key in the environment variable `STRIDE_API_KEY`, and the base URL in
    /// `STRIDE_ENDPOINT`, if that is set.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and `STRIDE_API_KEY` is not set.
    pub fn from_env() -> Result<Self, ConfigError> {
        StrideBuilder::from_env()?.build()
    }

    /// The settings of a client.
    pub fn builder(api_key: impl Into<ApiKey>) -> StrideBuilder {
        StrideBuilder::new(api_key)
    }

    /// The same client with another limit on a whole request, for some calls:
    /// `stride.with_timeout(Duration::from_secs(2))?.get("/collect")`.
    ///
    /// # Errors
    ///
    /// The limit is zero.
    pub fn with_timeout(&self, total: Duration) -> Result<Self, ConfigError> {
        Ok(Self { client: self.client.with_timeout(total)? })
    }

    /// The same client with another header on its requests, such as a trace context.
    ///
    /// # Errors
    ///
    /// The name or the value is invalid, or the header is one that the client sets itself.
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self, ConfigError> {
        Ok(Self { client: self.client.with_header(name, value)? })
    }

    /// Reads `path`. A query string in it must be encoded; see [`get_query`](Self::get_query).
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let streams: Option<Vec<String>> = stride.get("/collect").await?.error_for_status()?.data()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, path: &str) -> ResponseFuture {
        self.send(self.api().get(path))
    }

    /// Reads `path` with query parameters, which are percent-encoded.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// stride.get_query("/analyze/visits/results", [("start_date", "2015-05-05"), ("page", "/a b")]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_query<K: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (K, V)>,
    ) -> ResponseFuture {
        self.send(self.api().get_query(path, query))
    }

    /// Posts `json` to `path`; compressed when the path is under `/collect`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let event = serde_json::json!({"bojack": "horseman"});
    /// stride.post("/collect/mystream", &event).await?.error_for_status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn post<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> ResponseFuture {
        self.send(self.api().post(path, json))
    }

    /// Puts `json` to `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub fn put<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> ResponseFuture {
        self.send(self.api().put(path, json))
    }

    /// Deletes what is at `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub fn delete(&self, path: &str) -> ResponseFuture {
        self.send(self.api().delete(path))
    }

    /// Subscribes to what happens at `path`: the events of a stream (`/collect/NAME`) or the changes
    /// of a process (`/process/NAME`). Nothing is sent before
    /// [`events`](SubscribeBuilder::events) or [`data`](SubscribeBuilder::data) is awaited.
    ///
    /// ```no_run
    /// # use serde_json::Value;
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let mut events = stride.subscribe("/collect/app_events").sample(100).data::<Value>().await?;
    /// while let Some(event) = events.next().await {
    ///     println!("{}", event?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, path: &str) -> SubscribeBuilder {
        SubscribeBuilder::new(&self.client, path)
    }

    /// Where requests go and what sends them, which is what a collector starts from.
    #[must_use]
    pub fn target(&self) -> AsyncTarget {
        AsyncTarget { api: self.api().clone(), transport: Arc::clone(self.client.transport()) }
    }

    /// What builds this client's requests.
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
