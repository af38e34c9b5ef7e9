//! The client and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use stride_core::proxy::Proxy;
use stride_core::transport::{AsyncTarget, AsyncTransport, Call, Limits};
use stride_core::{Api, ApiKey, ConfigError, Error, Response};

use crate::SubscribeBuilder;
use crate::transport::HttpTransport;
#[cfg(feature = "tls")]
use crate::transport::tls::Trust;

/// A client of Stride. Cheap to clone; clones share their connections. It can be used from many
/// tasks at once, and from [more than one runtime](crate#runtimes).
///
/// Paths are those of Stride's API without its version: `/collect/mystream`. Every status is a
/// [`Response`], as in pystride: [`error_for_status`](Response::error_for_status) makes an error of
/// one that is not a success. A redirect is such a response and is not followed.
///
/// # Errors
///
/// Each of the four verbs fails with [`Error::Request`] before anything is sent, if the path does
/// not exist for it or the value cannot be written as JSON, and with [`Error::Transport`] if no
/// answer was had. That one's [`delivery`](stride_core::transport::TransportError::delivery) says whether the
/// request may have arrived; nothing is ever sent twice. Dropping the
/// future gives the request up, which may then have arrived or not.
#[derive(Debug, Clone)]
pub struct Stride {
    target: AsyncTarget,
    requests: Limits,
    streams: Limits,
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
    /// ```
    /// let stride = stride_async::Stride::new("secret_key")?;
    /// # Ok::<(), stride_async::Error>(())
    /// ```
    pub fn new(api_key: impl Into<ApiKey>) -> Result<Self, Error> {
        Self::builder(api_key).build()
    }

    /// A client with settings of its own.
    pub fn builder(api_key: impl Into<ApiKey>) -> StrideBuilder {
        StrideBuilder {
            api_key: api_key.into(),
            base: None,
            user_agent: None,
            plain_http: false,
            requests: Limits::for_request(),
            proxy: ProxySetting::Environment,
            #[cfg(feature = "tls")]
            trust: Trust::default(),
            transport: None,
        }
    }

    /// Reads `path`, which may carry a query string.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let response = stride.get("/collect").await?.error_for_status()?;
    /// let streams: Option<Vec<String>> = response.data()?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, path: &str) -> Result<Response, Error> {
        self.send(self.target.api.get(path)?).await
    }

    /// Posts `json` to `path`; compressed when the path is below `/collect`.
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
    pub async fn post<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Response, Error> {
        self.send(self.target.api.post(path, json)?).await
    }

    /// Puts `json` to `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Response, Error> {
        self.send(self.target.api.put(path, json)?).await
    }

    /// Deletes what is at `path`.
    ///
    /// # Errors
    ///
    /// As [above](Self#errors).
    pub async fn delete(&self, path: &str) -> Result<Response, Error> {
        self.send(self.target.api.delete(path)?).await
    }

    /// Subscribes to what happens at `path`: the events of a stream (`/collect/NAME`) or the changes
    /// of a process (`/process/NAME`). Nothing is sent before
    /// [`events`](SubscribeBuilder::events) or [`data`](SubscribeBuilder::data) is awaited.
    ///
    /// ```no_run
    /// # use serde_json::Value;
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let mut data = stride.subscribe("/collect/app_events").sample(100).data::<Value>().await?;
    /// while let Some(event) = data.next().await {
    ///     println!("{}", event?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, path: &str) -> SubscribeBuilder {
        SubscribeBuilder::new(self.target.clone(), path, self.streams)
    }

    /// The endpoint and the way to it, which is what a collector starts from.
    #[must_use]
    pub fn target(&self) -> AsyncTarget {
        self.target.clone()
    }

    /// Where requests go.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.target.api
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response, Error> {
        let call = Call::new(request, self.requests);
        let answer = self.target.transport.send(call).await?;
        Ok(Response::read_async(answer, self.requests.max_body).await?)
    }
}

impl From<&Stride> for AsyncTarget {
    fn from(stride: &Stride) -> Self {
        stride.target()
    }
}

/// Settings of a [`Stride`]. Made by [`Stride::builder`]; nothing is checked before
/// [`build`](Self::build).
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
#[must_use = "a builder does nothing before it builds"]
pub struct StrideBuilder {
    api_key: ApiKey,
    base: Option<String>,
    user_agent: Option<String>,
    plain_http: bool,
    requests: Limits,
    proxy: ProxySetting,
    #[cfg(feature = "tls")]
    trust: Trust,
    transport: Option<Arc<dyn AsyncTransport>>,
}

enum ProxySetting {
    Environment,
    None,
    Url(String),
}

impl fmt::Debug for StrideBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor a proxy's URL, which may hold a password.
        f.debug_struct("StrideBuilder").field("endpoint", &self.base).finish_non_exhaustive()
    }
}

impl StrideBuilder {
    /// The base URL, its version included; `https://api.stride.io/v1` by default. Plain `http` is
    /// for this machine alone, unless [`allow_plain_http`](Self::allow_plain_http) is set.
    pub fn endpoint(mut self, base: &str) -> Self {
        self.base = Some(base.to_owned());
        self
    }

    /// Permits plain `http` to other machines: whoever sees the traffic then sees the key.
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// How long a request may take in total, the body of its answer included; 30 s by default, as in
    /// pystride. A subscription has no such limit.
    pub fn timeout(mut self, total: Duration) -> Self {
        self.requests = self.requests.with_total(total);
        self
    }

    /// How long opening a connection may take: looking up the host, TCP, proxy and TLS together;
    /// 10 s by default.
    pub fn connect_timeout(mut self, connect: Duration) -> Self {
        self.requests.connect = connect;
        self
    }

    /// The longest body of an answer that is read, in bytes; 64 MiB by default. A subscription has
    /// no such limit.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.requests.max_body = bytes;
        self
    }

    /// Names the program in the `User-Agent` header; `stride-rust (version: x.y.z)` by default.
    pub fn user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = Some(user_agent.to_owned());
        self
    }

    /// Goes through the HTTP proxy at `url`, `http://user:password@host:port`, whatever the host:
    /// unlike one of the environment, a proxy that is set here is used for this machine as well.
    /// User and password may be left out. Tunnels (`CONNECT`) are asked of it for `https` and plain
    /// `http` alike.
    ///
    /// By default the environment decides, when the client is built: see
    /// [`Proxy::from_environment`].
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = ProxySetting::Url(url.to_owned());
        self
    }

    /// Goes through no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxySetting::None;
        self
    }

    /// Trusts the certificates that were issued by the holder of this one, too; in PEM form, of which
    /// there may be several after each other, or in DER form. May be called again.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, certificate: impl AsRef<[u8]>) -> Self {
        self.trust.further.push(certificate.as_ref().to_owned());
        self
    }

    /// Trusts what the operating system trusts, instead of the authorities that browsers trust.
    /// Certificates set by [`root_certificate`](Self::root_certificate) are trusted in any case.
    #[cfg(feature = "platform-verifier")]
    pub fn platform_verifier(mut self) -> Self {
        self.trust.platform = true;
        self
    }

    /// Sends requests by other means than this crate's, such as a mock in tests. Settings of proxies
    /// and certificates then have no effect; limits are handed to the transport with each call.
    pub fn transport(mut self, transport: impl AsyncTransport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The client. No connection is opened yet, and no runtime is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] says which setting cannot be used, and never shows the key or a password.
    /// A limit of zero is refused, too.
    pub fn build(self) -> Result<Stride, Error> {
        let mut endpoint = Api::new(self.api_key)?;
        if self.plain_http {
            endpoint = endpoint.allow_plain_http();
        }
        if let Some(base) = &self.base {
            endpoint = endpoint.with_base(base)?;
        }
        if let Some(user_agent) = &self.user_agent {
            endpoint = endpoint.with_user_agent(user_agent)?;
        }
        not_zero("timeout", self.requests.head)?;
        not_zero("connect_timeout", self.requests.connect)?;
        let transport = match self.transport {
            Some(transport) => transport,
            None => {
                let proxy = match &self.proxy {
                    ProxySetting::None => None,
                    ProxySetting::Url(url) => Some(Proxy::parse(url)?),
                    ProxySetting::Environment => {
                        Proxy::from_environment(endpoint.base(), |name| std::env::var(name).ok())?
                    }
                };
                Arc::new(HttpTransport::new(
                    proxy,
                    #[cfg(feature = "tls")]
                    self.trust.config()?,
                ))
            }
        };
        let mut streams = Limits::for_stream();
        streams.connect = self.requests.connect;
        Ok(Stride {
            target: AsyncTarget { api: endpoint, transport },
            requests: self.requests,
            streams,
        })
    }
}

/// Nothing can be done in no time: whoever means no limit has to set a long one.
pub(crate) fn not_zero(setting: &'static str, limit: Duration) -> Result<(), ConfigError> {
    if limit.is_zero() {
        return Err(ConfigError::Setting { setting, reason: "is zero" });
    }
    Ok(())
}
