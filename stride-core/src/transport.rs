//! The way to a server: two small traits, and what goes over them.
//!
//! A transport moves one request and one answer. It never retries, redirects, decodes or reads a
//! status: all of that is decided elsewhere. What it must do is keep the [`Limits`] and say of each
//! failure whether a byte of the request may have arrived ([`Delivery`]).

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Request, Response};

use crate::{Cancel, Endpoint};

/// One request, and how long it may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// What to send.
    pub request: Request<Bytes>,
    /// How long to wait for what.
    pub limits: Limits,
}

impl Call {
    /// A request with its limits.
    #[must_use]
    pub fn new(request: Request<Bytes>, limits: Limits) -> Self {
        Self { request, limits }
    }
}

/// How long a transport waits for each stage of a call. A limit that is reached is a
/// [`TransportErrorKind`] of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Until a connection is open: looking up the host and shaking hands included. 10 s.
    pub connect: Duration,
    /// From the request's last byte to the answer's head. 30 s; 90 s for a stream, because some
    /// proxies hold the head back until the first byte of the body.
    pub head: Duration,
    /// The whole call, its body included. 30 s, as pystride; a stream has no such limit.
    pub total: Option<Duration>,
    /// Between two chunks of the body, while the transport is being asked for one. 90 s for a
    /// stream: several keep-alives long. A request has no such limit, it has `total`.
    pub idle: Option<Duration>,
    /// The longest body, in bytes, that the caller reads: 64 MiB. A stream's has no bound.
    pub max_body: usize,
}

impl Limits {
    /// The limits of a request.
    #[must_use]
    pub const fn for_request() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            total: Some(Duration::from_secs(30)),
            idle: None,
            max_body: 64 << 20,
        }
    }

    /// The limits of a subscription.
    #[must_use]
    pub const fn for_stream() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(90),
            total: None,
            idle: Some(Duration::from_secs(90)),
            max_body: usize::MAX,
        }
    }

    /// The same limits with another `total`; `head` is never longer than it.
    #[must_use]
    pub fn with_total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self.head = total;
        self
    }
}

/// Sends requests and waits for their answers on the calling thread.
///
/// A closure `Fn(Call, Cancel) -> Result<Response<Body>, TransportError>` is one, too, and so is an
/// `Arc` of one:
///
/// ```
/// use stride_core::{Body, Call, Cancel, Limits, Transport, TransportError};
///
/// let empty = |_call: Call, _cancel: Cancel| -> Result<http::Response<Body>, TransportError> {
///     Ok(http::Response::new(Body::default()))
/// };
/// let request = stride_core::Endpoint::new("key")?.get("/collect")?;
/// let response = empty.send(Call::new(request, Limits::for_request()), Cancel::never())?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), stride_core::Error>(())
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and waits for the head of the answer. The body is read as it is iterated.
    ///
    /// When `cancel` is raised, a wait for the head or for a chunk ends soon, with an error of kind
    /// [`TransportErrorKind::Cancelled`]; opening a connection may go on up to its limit.
    ///
    /// # Errors
    ///
    /// No answer was had. Its status is never an error here.
    fn send(&self, call: Call, cancel: Cancel) -> Result<Response<Body>, TransportError>;
}

impl<F> Transport for F
where
    F: Fn(Call, Cancel) -> Result<Response<Body>, TransportError> + Send + Sync + 'static,
{
    fn send(&self, call: Call, cancel: Cancel) -> Result<Response<Body>, TransportError> {
        self(call, cancel)
    }
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn send(&self, call: Call, cancel: Cancel) -> Result<Response<Body>, TransportError> {
        (**self).send(call, cancel)
    }
}

/// A future in a box, as the methods of a trait that is used as an object return it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Sends requests and waits for their answers without holding up a thread.
///
/// A closure `Fn(Call) -> impl Future` is one, too, and so is an `Arc` of one.
pub trait AsyncTransport: Send + Sync + 'static {
    /// Sends the request and waits for the head of the answer. Dropping the future, or the body
    /// later, gives the call up.
    ///
    /// # Errors
    ///
    /// No answer was had. Its status is never an error here.
    fn send(&self, call: Call) -> BoxFuture<Result<Response<AsyncBody>, TransportError>>;
}

impl<F, R> AsyncTransport for F
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response<AsyncBody>, TransportError>> + Send + 'static,
{
    fn send(&self, call: Call) -> BoxFuture<Result<Response<AsyncBody>, TransportError>> {
        Box::pin(self(call))
    }
}

impl<T: AsyncTransport + ?Sized> AsyncTransport for Arc<T> {
    fn send(&self, call: Call) -> BoxFuture<Result<Response<AsyncBody>, TransportError>> {
        (**self).send(call)
    }
}

/// The body of an answer: an iterator over its chunks. Its first error is its last item.
pub struct Body(Box<dyn Iterator<Item = Result<Bytes, TransportError>> + Send>);

impl Body {
    /// A body of these chunks.
    pub fn new(
        chunks: impl Iterator<Item = Result<Bytes, TransportError>> + Send + 'static,
    ) -> Self {
        Self(Box::new(chunks))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::new(std::iter::once(Ok(bytes.into())))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Iterator for Body {
    type Item = Result<Bytes, TransportError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The body of an answer: a stream of its chunks. Its first error is its last item.
pub struct AsyncBody(Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>);

impl AsyncBody {
    /// A body of these chunks.
    pub fn new(chunks: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static) -> Self {
        Self(Box::pin(chunks))
    }

    /// Waits for the next chunk; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, TransportError>> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }
}

impl Default for AsyncBody {
    fn default() -> Self {
        Body::default().into()
    }
}

impl<B: Into<Bytes>> From<B> for AsyncBody {
    fn from(bytes: B) -> Self {
        Body::from(bytes).into()
    }
}

/// A body whose chunks are all there already: taking the next one must not block.
impl From<Body> for AsyncBody {
    fn from(body: Body) -> Self {
        struct Ready(Body);
        impl Stream for Ready {
            type Item = Result<Bytes, TransportError>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                Poll::Ready(self.0.next())
            }
        }
        // `Body` is no `Sync`, and a stream need not be.
        Self::new(Ready(body))
    }
}

impl fmt::Debug for AsyncBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncBody").finish_non_exhaustive()
    }
}

impl Stream for AsyncBody {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Whether a byte of the request may have reached the server, which is what makes sending it again
/// safe or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Surely not.
    NotSent,
    /// It may have: the server may even have done what was asked.
    MaybeSent,
}

/// The stage at which a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// No connection could be opened.
    Connect,
    /// The host name could not be looked up.
    Resolve,
    /// TLS could not be agreed upon; most often the server's certificate is not trusted.
    Tls,
    /// The proxy did not open the way.
    Proxy,
    /// Opening the connection took longer than [`Limits::connect`].
    ConnectTimeout,
    /// The head of the answer took longer than [`Limits::head`].
    HeadTimeout,
    /// No chunk of the body came for [`Limits::idle`].
    IdleTimeout,
    /// The call took longer than [`Limits::total`].
    TotalTimeout,
    /// The connection broke.
    Io,
    /// What came is no HTTP.
    Protocol,
    /// The body is longer than [`Limits::max_body`].
    BodyTooLarge,
    /// The call was given up from this side.
    Cancelled,
    /// This transport cannot do what was asked, such as `https` without its feature `tls`.
    Unsupported,
}

impl fmt::Display for TransportErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not connect to the server",
            Self::Resolve => "could not look up the server's name",
            Self::Tls => "could not agree upon TLS with the server",
            Self::Proxy => "the proxy did not open the way",
            Self::ConnectTimeout => "connecting took too long",
            Self::HeadTimeout => "the server did not answer in time",
            Self::IdleTimeout => "the server sent nothing for too long",
            Self::TotalTimeout => "the request took too long",
            Self::Io => "the connection broke",
            Self::Protocol => "the server's answer is no HTTP",
            Self::BodyTooLarge => "the body of the answer is too large",
            Self::Cancelled => "the request was cancelled",
            Self::Unsupported => "this transport cannot send such a request",
        })
    }
}

/// Why no answer, or not all of it, was had.
#[derive(Debug, Clone)]
pub struct TransportError {
    kind: TransportErrorKind,
    delivery: Delivery,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: TransportErrorKind, delivery: Delivery) -> Self {
        Self { kind, delivery, source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The stage at which the call failed.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the request may have arrived.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether one of the [`Limits`] on time was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        use TransportErrorKind::{ConnectTimeout, HeadTimeout, IdleTimeout, TotalTimeout};
        matches!(self.kind, ConnectTimeout | HeadTimeout | IdleTimeout | TotalTimeout)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An endpoint and the way to it: what a client gives and a collector starts from.
#[derive(Clone)]
pub struct Connection {
    /// Builds and signs the requests.
    pub endpoint: Endpoint,
    /// Sends them.
    pub transport: Arc<dyn Transport>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An endpoint and the asynchronous way to it.
#[derive(Clone)]
pub struct AsyncConnection {
    /// Builds and signs the requests.
    pub endpoint: Endpoint,
    /// Sends them.
    pub transport: Arc<dyn AsyncTransport>,
}

impl fmt::Debug for AsyncConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncConnection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
