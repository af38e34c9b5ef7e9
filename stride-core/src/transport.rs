//! The way to a server: two small traits, and what goes over them.
//!
//! A transport moves one request and one response. It never retries, redirects, decodes or reads a
//! status: all of that is decided elsewhere. It must keep the [`Limits`], and report for each failure
//! whether a byte of the request may have reached the server ([`Delivery`]).
//!
//! # Middleware
//!
//! A closure is a transport, so one that calls another transport is a middleware: for headers, trace
//! context, metrics or recorded traffic.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use stride_core::cancel::CancelToken;
//! use stride_core::transport::{Body, Call, Transport, TransportError};
//!
//! fn counted(
//!     inner: Arc<dyn Transport>,
//!     failures: Arc<AtomicU64>,
//! ) -> impl Transport {
//!     move |mut call: Call, cancel: CancelToken| -> Result<http::Response<Body>, TransportError> {
//!         call.request.headers_mut().insert("x-tenant", http::HeaderValue::from_static("a"));
//!         let response = inner.send(call, cancel);
//!         if response.as_ref().map_or(true, |response| response.status().is_server_error()) {
//!             failures.fetch_add(1, Ordering::Relaxed);
//!         }
//!         response
//!     }
//! }
//! ```
//!
//! The clients' own transport is `stride.target().transport`, and the builder of a second client takes
//! the wrapped one: `Stride::builder(key).transport(counted(..)).build()`.

mod attempt;
mod body;
mod error;
mod limits;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

pub use self::attempt::Attempt;
pub use self::body::{AsyncBody, Body, is_chunked};
pub use self::error::{Delivery, TransportError, TransportErrorKind};
pub use self::limits::{KEPT_FOR, LARGEST_CHUNK, LONGEST_LIMIT, Limits};
use crate::api::Api;
use crate::cancel::CancelToken;

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

/// Sends requests and waits for their responses on the calling thread.
///
/// A closure `Fn(Call, CancelToken) -> Result<Response<Body>, TransportError>` is one, too, and so is
/// an `Arc` of one:
///
/// ```
/// use stride_core::cancel::CancelToken;
/// use stride_core::transport::{Body, Call, Limits, Transport, TransportError};
///
/// let empty = |_call: Call, _cancel: CancelToken| -> Result<http::Response<Body>, TransportError> {
///     Ok(http::Response::new(Body::default()))
/// };
/// let request = stride_core::Api::new("key")?.get("/collect")?;
/// let response = empty.send(Call::new(request, Limits::for_request()), CancelToken::never())?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), stride_core::Error>(())
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and waits for the head of the response. The body is read as it is iterated.
    ///
    /// When `cancel` is raised, the call ends soon, whatever it is waiting for, with an error of kind
    /// [`TransportErrorKind::Cancelled`].
    ///
    /// # Errors
    ///
    /// No response was received. Its status is never an error here.
    fn send(&self, call: Call, cancel: CancelToken) -> Result<Response<Body>, TransportError>;
}

impl<F> Transport for F
where
    F: Fn(Call, CancelToken) -> Result<Response<Body>, TransportError> + Send + Sync + 'static,
{
    fn send(&self, call: Call, cancel: CancelToken) -> Result<Response<Body>, TransportError> {
        self(call, cancel)
    }
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn send(&self, call: Call, cancel: CancelToken) -> Result<Response<Body>, TransportError> {
        (**self).send(call, cancel)
    }
}

/// A future in a box, as the methods of a trait object return it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Sends requests and waits for their responses without blocking a thread.
///
/// A closure `Fn(Call) -> impl Future` is one, too, and so is an `Arc` of one.
pub trait AsyncTransport: Send + Sync + 'static {
    /// Sends the request and waits for the head of the response. Dropping the future, or the body
    /// later, cancels the call.
    ///
    /// # Errors
    ///
    /// No response was received. Its status is never an error here.
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

/// Where requests go and what sends them: what a collector starts from.
///
/// A client converts into one (`&stride`, or the client itself). Made by hand, it takes any
/// [`Transport`].
#[derive(Clone)]
pub struct Target {
    /// Builds and signs the requests.
    pub api: Api,
    /// Sends them.
    pub transport: Arc<dyn Transport>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("api", &self.api).finish_non_exhaustive()
    }
}

/// Where requests go and what sends them without blocking a thread: a [`Target`] for an
/// [`AsyncTransport`].
#[derive(Clone)]
pub struct AsyncTarget {
    /// Builds and signs the requests.
    pub api: Api,
    /// Sends them.
    pub transport: Arc<dyn AsyncTransport>,
}

impl fmt::Debug for AsyncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTarget").field("api", &self.api).finish_non_exhaustive()
    }
}
