//! What all clients have in common: their settings, and the state behind their calls.
//!
//! `stride-blocking` and `stride-async` are a [`Client`] with a transport and a way to wait. A client
//! over another transport can be made of the same parts: it implements [`FromClient`], and
//! [`StrideBuilder`] builds it.

mod trust;

use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tracing::Span;

#[cfg(feature = "tls")]
pub use self::trust::PlatformVerifier;
pub use self::trust::Trust;
use crate::api::{Api, ApiKey};
use crate::config::{ConfigError, not_zero};
use crate::proxy::Proxy;
use crate::response::Response;
use crate::transport::{AsyncTransport, Attempt, Call, Limits, Transport, TransportError};

/// Where a client's requests go, and how long they may take.
pub struct Client<T: ?Sized> {
    api: Api,
    transport: Arc<T>,
    requests: Limits,
    streams: Limits,
}

impl<T: ?Sized> Clone for Client<T> {
    fn clone(&self) -> Self {
        let (api, transport) = (self.api.clone(), Arc::clone(&self.transport));
        Self { api, transport, requests: self.requests, streams: self.streams }
    }
}

impl<T: ?Sized> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("api", &self.api)
            .field("requests", &self.requests)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized> Client<T> {
    /// Builds and signs the requests.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Sends them.
    #[must_use]
    pub fn transport(&self) -> &Arc<T> {
        &self.transport
    }

    /// The limits of a request.
    #[must_use]
    pub fn requests(&self) -> Limits {
        self.requests
    }

    /// The limits of a subscription.
    #[must_use]
    pub fn streams(&self) -> Limits {
        self.streams
    }

    /// The same client with another limit on a whole request.
    ///
    /// # Errors
    ///
    /// The limit is zero.
    pub fn with_timeout(&self, total: Duration) -> Result<Self, ConfigError> {
        not_zero("timeout", total)?;
        Ok(Self { requests: self.requests.with_total(total), ..self.clone() })
    }

    /// The same client with another header on every request.
    ///
    /// # Errors
    ///
    /// As [`Api::with_header`].
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self, ConfigError> {
        Ok(Self { api: self.api.clone().with_header(name, value)?, ..self.clone() })
    }

    /// Begins a request: what to send, and a span for the time that it takes.
    #[must_use]
    pub fn begin(&self, request: Request<Bytes>) -> (Call, Exchange) {
        let attempt = Attempt::of(&request);
        let span = attempt.span();
        (Call::new(request, self.requests), Exchange { attempt, span })
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct Exchange {
    attempt: Attempt,
    span: Span,
}

impl Exchange {
    /// The span of the request, to send it in.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends the request: notes the outcome in the span and in the log, and names the request in the
    /// response or the error.
    ///
    /// # Errors
    ///
    /// The one that it is given.
    pub fn finish(
        self,
        result: Result<Response, TransportError>,
    ) -> Result<Response, TransportError> {
        let Self { attempt, span } = self;
        span.in_scope(|| match &result {
            Ok(response) => {
                let status = response.status().as_u16();
                span.record("status", status);
                tracing::debug!(target: "stride::request", status, "response received");
            }
            Err(error) => {
                let delivery = error.delivery();
                let error: &(dyn StdError + 'static) = error;
                tracing::debug!(target: "stride::request", error, ?delivery, "request failed");
            }
        });
        match result {
            Ok(response) => Ok(response.with_attempt(attempt)),
            Err(error) => Err(error.with_attempt(attempt)),
        }
    }
}

/// A client that [`StrideBuilder`] can build. `T` is its kind of transport: `dyn Transport` or
/// `dyn AsyncTransport`.
pub trait FromClient<T: ?Sized>: Sized {
    /// Whether the client's own transport speaks `https`.
    const HTTPS: bool;

    /// The value of an environment variable, if it is set and valid Unicode.
    fn variable(name: &str) -> Option<String>;

    /// The client's own transport.
    ///
    /// # Errors
    ///
    /// A certificate or a key cannot be used.
    fn transport(proxy: Option<Proxy>, trust: &Trust) -> Result<Arc<T>, ConfigError>;

    /// The client itself.
    fn from_client(client: Client<T>) -> Self;
}

/// Settings of a client. Made by `Stride::builder`; nothing is checked before
/// [`build`](Self::build).
///
/// `C` is the client that it builds, and `T` the client's kind of transport.
#[must_use = "a builder does nothing before `build`"]
pub struct StrideBuilder<C, T: ?Sized> {
    api_key: ApiKey,
    base: Option<String>,
    user_agent: Option<String>,
    headers: Vec<(String, String)>,
    plain_http: bool,
    requests: Limits,
    proxy: ProxySetting,
    trust: Trust,
    transport: Option<Arc<T>>,
    builds: PhantomData<fn() -> C>,
}

#[derive(Clone)]
enum ProxySetting {
    Environment,
    None,
    Url(String),
}

impl<C, T: ?Sized> Clone for StrideBuilder<C, T> {
    fn clone(&self) -> Self {
        Self {
            api_key: self.api_key.clone(),
            base: self.base.clone(),
            user_agent: self.user_agent.clone(),
            headers: self.headers.clone(),
            plain_http: self.plain_http,
            requests: self.requests,
            proxy: self.proxy.clone(),
            trust: self.trust.clone(),
            transport: self.transport.clone(),
            builds: PhantomData,
        }
    }
}

impl<C, T: ?Sized> fmt::Debug for StrideBuilder<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor a proxy's URL, which may hold a password.
        f.debug_struct("StrideBuilder").field("endpoint", &self.base).finish_non_exhaustive()
    }
}

impl<C: FromClient<T>, T: ?Sized> StrideBuilder<C, T> {
    /// Every setting at its default, for the holder of `api_key`.
    pub fn new(api_key: impl Into<ApiKey>) -> Self {
        Self {
            api_key: api_key.into(),
            base: None,
            user_agent: None,
            headers: Vec::new(),
            plain_http: false,
            requests: Limits::for_request(),
            proxy: ProxySetting::Environment,
            trust: Trust::default(),
            transport: None,
            builds: PhantomData,
        }
    }

    /// The key from the environment variable `STRIDE_API_KEY`, and the base URL from
    /// `STRIDE_ENDPOINT`, if that is set and not empty.
    ///
    /// # Errors
    ///
    /// `STRIDE_API_KEY` is not set.
    pub fn from_env() -> Result<Self, ConfigError> {
        let missing =
            ConfigError::Setting { setting: "STRIDE_API_KEY", reason: "is not set or not Unicode" };
        let builder = Self::new(C::variable("STRIDE_API_KEY").ok_or(missing)?);
        Ok(match C::variable("STRIDE_ENDPOINT").filter(|base| !base.is_empty()) {
            Some(base) => builder.endpoint(&base),
            None => builder,
        })
    }

    /// The base URL, its version included; `https://api.stride.io/v1` by default. Plain `http` is
    /// for this machine alone, unless [`allow_plain_http`](Self::allow_plain_http) is set.
    pub fn endpoint(mut self, base: &str) -> Self {
        self.base = Some(base.to_owned());
        self
    }

    /// Permits plain `http` to other machines: anyone who sees the traffic then sees the key.
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// How long a request may take in total, the body of its response included; 30 s by default, as
    /// in pystride. A subscription has no such limit.
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

    /// The longest body of a response that is read, in bytes; 64 MiB by default. A subscription has
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

    /// Adds a header to every request, subscriptions included. May be called again.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Goes through the HTTP proxy at `url`, `http://user:password@host:port`, whatever the host:
    /// unlike a proxy from the environment, one that is set here is used for this machine as well.
    /// User and password may be left out. Tunnels (`CONNECT`) are requested for `https` and plain
    /// `http` alike.
    ///
    /// By default the environment decides, when the client is built: see
    /// [`Proxy::from_environment`].
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = ProxySetting::Url(url.to_owned());
        self
    }

    /// Uses no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxySetting::None;
        self
    }

    /// Also trusts certificates that this authority issued: one or more certificates in PEM form, or
    /// one in DER form. May be called again.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, certificate: impl AsRef<[u8]>) -> Self {
        self.trust.add_root(certificate.as_ref());
        self
    }

    /// Identifies this client to servers that ask for a certificate: a chain of certificates in PEM
    /// form, the client's own first, and its private key, in PEM form, too.
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        chain: impl AsRef<[u8]>,
        private_key: impl AsRef<[u8]>,
    ) -> Self {
        self.trust.identify(chain.as_ref(), private_key.as_ref());
        self
    }

    /// Trusts what the operating system trusts, instead of the web's authorities. Certificates that
    /// [`root_certificate`](Self::root_certificate) adds are trusted in any case.
    #[cfg(feature = "platform-verifier")]
    pub fn platform_verifier(mut self) -> Self {
        self.trust.use_platform();
        self
    }

    /// The client. No connection is opened yet.
    ///
    /// # Errors
    ///
    /// A setting cannot be used. The error says which, and never shows the key or a password. A
    /// time-out of zero is refused, too, and so is an `https` endpoint where the client's crate has
    /// been compiled without its feature `tls`.
    pub fn build(self) -> Result<C, ConfigError> {
        let mut api = Api::new(self.api_key)?;
        if self.plain_http {
            api = api.allow_plain_http();
        }
        if let Some(base) = &self.base {
            api = api.with_base(base)?;
        }
        if let Some(user_agent) = &self.user_agent {
            api = api.with_user_agent(user_agent)?;
        }
        for (name, value) in &self.headers {
            api = api.with_header(name, value)?;
        }
        not_zero("timeout", self.requests.head)?;
        not_zero("connect_timeout", self.requests.connect)?;
        let transport = match self.transport {
            Some(transport) => transport,
            None if api.is_https() && !C::HTTPS => {
                let reason = "is https, which needs the feature `tls` of the client's crate";
                return Err(ConfigError::Setting { setting: "endpoint", reason });
            }
            None => {
                let proxy = match &self.proxy {
                    ProxySetting::None => None,
                    ProxySetting::Url(url) => Some(Proxy::parse(url)?),
                    ProxySetting::Environment => Proxy::from_environment(api.base(), C::variable)?,
                };
                C::transport(proxy, &self.trust)?
            }
        };
        let mut streams = Limits::for_stream();
        streams.connect = self.requests.connect;
        Ok(C::from_client(Client { api, transport, requests: self.requests, streams }))
    }
}

impl<C> StrideBuilder<C, dyn Transport> {
    /// Uses a custom transport, for example a mock in tests. Settings of proxies and certificates
    /// then have no effect; time-outs are handed to the transport with each call.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }
}

impl<C> StrideBuilder<C, dyn AsyncTransport> {
    /// Uses a custom transport, for example a mock in tests. Settings of proxies and certificates
    /// then have no effect; time-outs are handed to the transport with each call.
    pub fn transport(mut self, transport: impl AsyncTransport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }
}

#[cfg(test)]
mod tests;
