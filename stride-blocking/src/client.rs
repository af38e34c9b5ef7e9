//! The client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use stride_core::cancel::CancelToken;
use stride_core::client::{self, Client, FromClient, Trust};
use stride_core::proxy::Proxy;
use stride_core::transport::{Target, Transport};
use stride_core::{Api, ApiKey, ConfigError, Error, Response};

use crate::SubscribeBuilder;
use crate::transport::HttpTransport;

/// A client of Stride. Cheap to clone; clones share their connections. It can be used from many
/// threads at once.
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
/// request may have arrived. Nothing is ever sent twice.
#[derive(Debug, Clone)]
pub struct Stride {
    client: Client<dyn Transport>,
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
/// use stride_blocking::Stride;
///
/// let stride = Stride::builder("secret_key")
///     .endpoint("http://127.0.0.1:8080/v1")
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// assert_eq!(stride.api().base(), "http://127.0.0.1:8080/v1");
/// # Ok::<(), stride_blocking::Error>(())
/// ```
pub type StrideBuilder = client::StrideBuilder<Stride, dyn Transport>;

impl FromClient<dyn Transport> for Stride {
    const HTTPS: bool = cfg!(feature = "tls");

    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn transport(proxy: Option<Proxy>, trust: &Trust) -> Result<Arc<dyn Transport>, ConfigError> {
        Ok(Arc::new(HttpTransport::new(proxy, trust)?))
    }

    fn from_client(client: Client<dyn Transport>) -> Self {
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
    /// let stride = stride_blocking::Stride::new("secret_key")?;
    /// # Ok::<(), stride_blocking::Error>(())
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
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// let streams: Option<Vec<String>> = stride.get("/collect")?.error_for_status()?.data()?;
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn get(&self, path: &str) -> Result<Response, Error> {
        self.send(self.api().get(path)?)
    }

    /// Reads `path` with query parameters, which are percent-encoded.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// stride.get_query("/analyze/visits/results", [("start_date", "2015-05-05"), ("page", "/a b")])?;
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn get_query<K: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Response, Error> {
        self.send(self.api().get_query(path, query)?)
    }

    /// Posts `json` to `path`; compressed when the path is under `/collect`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// let event = serde_json::json!({"bojack": "horseman"});
    /// stride.post("/collect/mystream", &event)?.error_for_status()?;
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn post<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> Result<Response, Error> {
        self.send(self.api().post(path, json)?)
    }

    /// Puts `json` to `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub fn put<T: Serialize + ?Sized>(&self, path: &str, json: &T) -> Result<Response, Error> {
        self.send(self.api().put(path, json)?)
    }

    /// Deletes what is at `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub fn delete(&self, path: &str) -> Result<Response, Error> {
        self.send(self.api().delete(path)?)
    }

    /// Subscribes to what happens at `path`: the events of a stream (`/collect/NAME`) or the changes
    /// of a process (`/process/NAME`). Nothing is sent before
    /// [`events`](SubscribeBuilder::events) or [`data`](SubscribeBuilder::data) is called.
    ///
    /// ```no_run
    /// # use serde_json::Value;
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// for event in stride.subscribe("/collect/app_events").sample(100).data::<Value>()? {
    ///     println!("{}", event?);
    /// }
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn subscribe(&self, path: &str) -> SubscribeBuilder {
        SubscribeBuilder::new(&self.client, path)
    }

    /// Where requests go and what sends them, which is what a collector starts from.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { api: self.api().clone(), transport: Arc::clone(self.client.transport()) }
    }

    /// What builds this client's requests.
    #[must_use]
    pub fn api(&self) -> &Api {
        self.client.api()
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response, Error> {
        let (call, exchange) = self.client.begin(request);
        let max_body = call.limits.max_body;
        let result = exchange.span().in_scope(|| {
            let response = self.client.transport().send(call, CancelToken::never())?;
            Response::read(response, max_body)
        });
        Ok(exchange.finish(result)?)
    }
}

impl From<&Stride> for Target {
    fn from(stride: &Stride) -> Self {
        stride.target()
    }
}

impl From<Stride> for Target {
    fn from(stride: Stride) -> Self {
        stride.target()
    }
}
