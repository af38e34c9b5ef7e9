//! The way to a server, over hyper. No other part of this crate names it.
//!
//! Every connection is polled by the call that uses it, and by nobody in between: there is no task
//! for it that another runtime would have to drive, nothing is read that was not asked for, and
//! dropping a call closes its socket at once. That is also why hyper-util's pool, which keeps a task
//! per connection, is not used.

mod bell;
mod dial;
mod pool;
#[cfg(feature = "tls")]
mod tls;

use std::error::Error as StdError;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use stride_core::ConfigError;
use stride_core::client::Trust;
use stride_core::proxy::Proxy;
use stride_core::transport::{
    AsyncBody, AsyncTransport, BoxFuture, Call, Delivery, LARGEST_CHUNK, TransportError,
    TransportErrorKind, is_chunked,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Id;
use tokio::time::Instant;

use self::bell::Bell;
use self::dial::{Dialer, Socket, failed};
use self::pool::Pool;
use crate::alarm::{Alarm, Limit, after, current_runtime, earlier, within};
use crate::turn::Turn;

/// How many bytes are read, and informational responses among them passed over, in the time in which
/// one is decoded as JSON.
const READ_FOR_DECODED: usize = 16;

/// HTTP/1.1 over hyper.
///
/// A call with a limit on its total takes a kept connection if there is one, and keeps its own when
/// it is done. A call without one is a stream, and has a connection to itself.
#[derive(Clone)]
pub(crate) struct HttpTransport {
    dialer: Arc<Dialer>,
    pool: Arc<Pool>,
}

impl HttpTransport {
    pub(crate) fn new(proxy: Option<Proxy>, trust: &Trust) -> Result<Self, ConfigError> {
        #[cfg(not(feature = "tls"))]
        let _ = trust;
        let dialer = Dialer {
            proxy,
            #[cfg(feature = "tls")]
            tls: tls::config(trust)?,
        };
        Ok(Self { dialer: Arc::new(dialer), pool: Arc::default() })
    }

    async fn exchange(self, call: Call) -> Result<Response<AsyncBody>, TransportError> {
        let runtime = current_runtime().map_err(|none| none.with(Delivery::NotSent))?;
        let limits = call.limits;
        let total = limits.total.map(after);
        let (origin, mut request) = Origin::split(call.request)?;
        loop {
            let kept = total.and_then(|_| self.pool.take(runtime, &origin));
            let is_kept = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                None => {
                    let connect = (after(limits.connect), TransportErrorKind::ConnectTimeout);
                    let link = Link::open(&self.dialer, origin.clone(), runtime);
                    within(earlier(total, connect), link).await?
                }
            };
            match link.send(request, limits.head, total).await {
                Ok(response) => {
                    is_chunked(&response)?;
                    return Ok(response.map(|body| {
                        AsyncBody::new(Chunks {
                            body,
                            link: Some(link),
                            total,
                            idle: limits.idle,
                            idle_until: None,
                            alarm: Alarm::default(),
                            turn: Turn::default(),
                            pool: total.map(|_| self.pool),
                        })
                    }));
                }
                // A kept connection was closed meanwhile.
                Err(NoAnswer { unsent: Some(unsent), .. }) if is_kept => request = *unsent,
                Err(NoAnswer { error, .. }) => return Err(error),
            }
        }
    }
}

impl AsyncTransport for HttpTransport {
    fn send(&self, call: Call) -> BoxFuture<Result<Response<AsyncBody>, TransportError>> {
        Box::pin(self.clone().exchange(call))
    }
}

/// Where a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    authority: Authority,
}

impl Origin {
    /// The origin of a request, and the request as it is written to there.
    fn split(request: Request<Bytes>) -> Result<(Self, Request<Full<Bytes>>), TransportError> {
        let unsupported = |source| failed(TransportErrorKind::Unsupported, source);
        let (mut head, body) = request.into_parts();
        let uri = head.uri.into_parts();
        let https = uri.scheme == Some(Scheme::HTTPS);
        let Some(authority) = uri.authority.filter(|_| https || uri.scheme == Some(Scheme::HTTP))
        else {
            return Err(unsupported("the request's URL does not start with http:// or https://"));
        };
        let path = uri.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        head.uri = path.into();
        let origin = Self { https, authority };
        // As the URL has it, but for a user's name.
        let host = origin.authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::try_from(host);
        head.headers.insert(HOST, host.map_err(|_| unsupported("the request's host is no name"))?);
        Ok((origin, Request::from_parts(head, Full::new(body))))
    }

    /// The host, an IPv6 address in brackets.
    fn host(&self) -> &str {
        self.authority.host()
    }

    fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.https { 443 } else { 80 })
    }
}

type HttpConnection = Connection<TokioIo<Wire>, Full<Bytes>>;

/// A connection. It moves only while it is polled.
struct Link {
    /// The runtime whose socket it is.
    runtime: Id,
    origin: Origin,
    requests: SendRequest<Full<Bytes>>,
    /// Until it is closed.
    connection: Option<HttpConnection>,
    bell: Bell,
    notes: Arc<Notes>,
}

/// What a connection and its socket tell each other, with hyper in between.
#[derive(Default)]
struct Notes {
    /// How many bytes were written so far.
    written: AtomicU64,
    /// It was not looked at for a while: the server may have closed it, or sent what nobody asked
    /// for.
    is_suspect: AtomicBool,
}

/// Why a request has no answer.
struct NoAnswer {
    error: TransportError,
    /// The request, if the connection was closed before it was even looked at.
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

impl Link {
    async fn open(dialer: &Dialer, origin: Origin, runtime: Id) -> Result<Self, TransportError> {
        let socket = dialer.dial(&origin).await?;
        let notes = Arc::<Notes>::default();
        let turn = Turn::default();
        let wire = Wire { socket, notes: Arc::clone(&notes), turn, is_broken: false };
        let (requests, connection) = http1::Builder::new()
            .max_buf_size(LARGEST_CHUNK)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| failed(TransportErrorKind::Connect, error))?;
        let (connection, bell) = (Some(connection), Bell::default());
        Ok(Self { runtime, origin, requests, connection, bell, notes })
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        head: Duration,
        total: Option<Instant>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let before = self.written();
        let mut written = before;
        let mut head_until = after(head);
        let mut alarm = Alarm::default();
        let mut answer = pin!(self.requests.try_send_request(request));
        poll_fn(|context| {
            advance(&mut self.connection, context);
            let answer = answer.as_mut().poll(context);
            // The limit on the head begins with the last byte of the request.
            if self.written() != written {
                written = self.written();
                head_until = after(head);
            }
            let delivery = if written == before { Delivery::NotSent } else { Delivery::MaybeSent };
            match answer {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(|mut error| {
                    let unsent = error.take_message().map(Box::new);
                    NoAnswer { error: failure(error.into_error(), delivery), unsent }
                })),
                Poll::Pending => {
                    let limit = earlier(total, (head_until, TransportErrorKind::HeadTimeout));
                    alarm
                        .poll_limit(limit, delivery, context)
                        .map(|error| Err(NoAnswer { error, unsent: None }))
                }
            }
        })
        .await
    }

    fn written(&self) -> u64 {
        self.notes.written.load(Ordering::Relaxed)
    }
}

/// Moves bytes as far as they go. What goes wrong is told to the request or the body it goes wrong for.
fn advance(connection: &mut Option<HttpConnection>, context: &mut Context<'_>) {
    if let Some(open) = connection
        && Pin::new(open).poll(context).is_ready()
    {
        *connection = None;
    }
}

/// The chunks of a body, as they come.
struct Chunks {
    body: Incoming,
    /// Until the body is over.
    link: Option<Link>,
    total: Option<Instant>,
    idle: Option<Duration>,
    /// While a chunk is waited for.
    idle_until: Option<Instant>,
    alarm: Alarm,
    turn: Turn,
    /// Where the connection goes at the end, if it may.
    pool: Option<Arc<Pool>>,
}

impl Chunks {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        let frame =
            link.bell.poll(context, |context| match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => {
                    advance(&mut link.connection, context);
                    Pin::new(&mut self.body).poll_frame(context)
                }
                ready => ready,
            });
        frame.map_err(|error| failure(error, Delivery::MaybeSent))
    }

    /// Whether a limit was reached while there is no chunk.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<TransportError> {
        if self.idle_until.is_none() {
            self.idle_until = self.idle.map(after);
        }
        let idle = self.idle_until.map(|until| (until, TransportErrorKind::IdleTimeout));
        let total = self.total.map(|until| (until, TransportErrorKind::TotalTimeout));
        let limit: Option<Limit> = match idle {
            Some(idle) => Some(earlier(self.total, idle)),
            None => total,
        };
        match limit {
            Some(limit) => self.alarm.poll_limit(limit, Delivery::MaybeSent, context),
            None => Poll::Pending,
        }
    }

    /// Keeps the connection, if it is ready for another request.
    fn finish(&mut self) {
        let (Some(mut link), Some(pool)) = (self.link.take(), self.pool.take()) else { return };
        // Nobody is to be woken for it from now on.
        advance(&mut link.connection, &mut Context::from_waker(Waker::noop()));
        link.notes.is_suspect.store(true, Ordering::Relaxed);
        if link.requests.is_ready() {
            pool.keep(link);
        }
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.link.is_none() {
            return Poll::Ready(None);
        }
        let error = loop {
            // A body that comes without a pause meets the limit, too.
            if self.total.is_some_and(|total| total <= Instant::now()) {
                break TransportError::new(TransportErrorKind::TotalTimeout, Delivery::MaybeSent);
            }
            // Many chunks may come of one read.
            ready!(self.turn.poll(context));
            match self.poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.turn.did(0);
                    self.idle_until = None;
                    // Trailers are passed over.
                    if let Ok(chunk) = frame.into_data() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
                Poll::Ready(Some(Err(error))) => break error,
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Pending => break ready!(self.poll_limits(context)),
            }
        };
        self.link = None;
        Poll::Ready(Some(Err(error)))
    }
}

/// A socket that counts what is written to it, and leaves it to the reading side to tell how it
/// ended.
struct Wire {
    socket: Box<dyn Socket>,
    notes: Arc<Notes>,
    turn: Turn,
    is_broken: bool,
}

impl Wire {
    /// A server that has heard enough answers and closes. hyper would drop that answer with the rest
    /// of the request; so the rest is taken and lost instead, and the answer read, or the error.
    fn taken(&mut self, written: Option<usize>, length: usize) -> usize {
        match written {
            Some(written) => {
                self.notes.written.fetch_add(written as u64, Ordering::Relaxed);
                written
            }
            None => {
                self.is_broken = true;
                length
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.turn.poll(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.socket).poll_read(context, buffer);
        // tokio learns of what waits only when its runtime has nothing else to do. What was sent
        // before the request is not the response to it: to hyper, the connection has ended.
        if read.is_pending()
            && self.notes.is_suspect.swap(false, Ordering::Relaxed)
            && !self.socket.is_silent()
        {
            return Poll::Ready(Ok(()));
        }
        if read.is_ready() {
            self.turn.did((buffer.filled().len() - before) / READ_FOR_DECODED);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut *self.socket).poll_write(context, bytes));
        Poll::Ready(Ok(self.taken(result.ok(), bytes.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(length));
        }
        let result = ready!(Pin::new(&mut *self.socket).poll_write_vectored(context, slices));
        Poll::Ready(Ok(self.taken(result.ok(), length)))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut *self.socket).poll_flush(context));
        self.is_broken = result.is_err();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(context)
    }
}

fn failure(error: hyper::Error, delivery: Delivery) -> TransportError {
    let kind = if is_of_tls(&error) {
        TransportErrorKind::Tls
    } else if error.is_parse() || is_nonsense(&error) {
        TransportErrorKind::Protocol
    } else if error.is_user() {
        TransportErrorKind::Unsupported
    } else {
        TransportErrorKind::Io
    };
    TransportError::new(kind, delivery).with_source(error)
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}

/// Whether TLS failed behind the handshake, as it does when the server refuses the client's
/// certificate.
#[cfg(feature = "tls")]
fn is_of_tls(error: &hyper::Error) -> bool {
    let inside = io_cause(error).and_then(io::Error::get_ref);
    inside.is_some_and(<dyn StdError + Send + Sync>::is::<rustls::Error>)
}

#[cfg(not(feature = "tls"))]
fn is_of_tls(_: &hyper::Error) -> bool {
    false
}

/// Whether the body is not in chunks although it should be.
fn is_nonsense(error: &hyper::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    io_cause(error).is_some_and(|cause| matches!(cause.kind(), InvalidData | InvalidInput))
}
