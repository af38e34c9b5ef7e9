//! The way to a server, over ureq. No other part of this crate names it.
//!
//! ureq's own resolver, proxies, sockets and TLS are replaced. [`dial`] looks names up only when a
//! connection is opened, while ureq does it for every request, in a new thread where a limit on the
//! whole call is set; and all of it can be cancelled. [`connection`] puts the key into the head of a
//! request, because ureq logs what it writes.

mod call;
mod chunked;
mod connection;
mod dial;
mod socket;
#[cfg(feature = "tls")]
mod tls;

use std::error::Error as StdError;
use std::io::{self, Read};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use http::{Request, Response};
use stride_core::ConfigError;
use stride_core::cancel::{CancelRegistration, CancelToken};
use stride_core::client::Trust;
use stride_core::proxy::Proxy;
use stride_core::transport::{
    Body, Call, Delivery, KEPT_FOR, LARGEST_CHUNK, LONGEST_LIMIT, Limits, Transport,
    TransportError, TransportErrorKind, is_chunked,
};
use ureq::config::AutoHeaderValue;
use ureq::{Agent, AsSendBody, BodyReader, Timeout};

use dial::{Dial, Dialer};

/// How many connections are kept open for the next requests; more than that many threads that send
/// at once open new ones.
const KEPT_CONNECTIONS: usize = 16;

/// The most headers of a response, as with hyper; ureq takes 128.
const MOST_HEADERS: usize = 100;

/// HTTP/1.1 over ureq.
///
/// Calls that nobody can cancel share a pool of connections. A call that can be cancelled has an
/// agent of its own, because shutting an agent down is what interrupts a blocked read, and that ends
/// every call of the agent.
pub(crate) struct HttpTransport {
    dialer: Dialer,
    shared: Agent,
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
        let shared = agent(&dialer, CancelToken::never());
        Ok(Self { dialer, shared })
    }
}

fn agent(dialer: &Dialer, cancel: CancelToken) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        // The request has the headers it should have.
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        // The buffer is the limit. This one counts what has come of later responses, too.
        .max_response_header_size(usize::MAX)
        .max_idle_connections(KEPT_CONNECTIONS)
        .max_idle_connections_per_host(KEPT_CONNECTIONS)
        .max_idle_age(KEPT_FOR)
        .build();
    Agent::with_parts(config, Dial { dialer: dialer.clone(), cancel }, dial::Unresolved)
}

impl Transport for HttpTransport {
    fn send(&self, call: Call, cancel: CancelToken) -> Result<Response<Body>, TransportError> {
        if cfg!(not(feature = "tls")) && call.request.uri().scheme() == Some(&Scheme::HTTPS) {
            return Err(TransportError::new(TransportErrorKind::Unsupported, Delivery::NotSent)
                .with_source("https needs the feature `tls` of stride-blocking"));
        }
        let (agent, hook) = if cancel.is_never() {
            (self.shared.clone(), None)
        } else {
            let agent = agent(&self.dialer, cancel.clone());
            let interrupted = agent.clone();
            (agent, Some(cancel.on_cancel(move || interrupted.shutdown())))
        };
        let Call { mut request, limits, .. } = call;
        let secrets = call::hide(request.headers_mut());
        let (result, delivery) = call::send(secrets, || run(&agent, request, limits));
        match result {
            Ok(response) => response_with_body(response, cancel, hook),
            Err(error) => Err(failure(error, delivery, &cancel)),
        }
    }
}

fn run(
    agent: &Agent,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Response<ureq::Body>, ureq::Error> {
    let (head, body) = request.into_parts();
    // Of a body that is there but empty ureq tells the server the length, which GET and DELETE
    // have no use for.
    if body.is_empty() && (head.method == http::Method::GET || head.method == http::Method::DELETE)
    {
        run_with_limits(agent, Request::from_parts(head, ()), limits)
    } else {
        run_with_limits(agent, Request::from_parts(head, &body[..]), limits)
    }
}

fn run_with_limits(
    agent: &Agent,
    request: Request<impl AsSendBody>,
    limits: Limits,
) -> Result<Response<ureq::Body>, ureq::Error> {
    let limit = |limit: Duration| limit.min(LONGEST_LIMIT);
    let request = agent
        .configure_request(request)
        .timeout_connect(Some(limit(limits.connect)))
        .timeout_recv_response(Some(limit(limits.head)))
        // A server that takes nothing of the request does not answer it either.
        .timeout_per_write(Some(limit(limits.head)))
        // Applied to the body alone: see `Connection`.
        .timeout_per_read(limits.idle.map(limit))
        .timeout_global(limits.total.map(limit))
        .build();
    agent.run(request)
}

fn response_with_body(
    response: Response<ureq::Body>,
    cancel: CancelToken,
    hook: Option<CancelRegistration>,
) -> Result<Response<Body>, TransportError> {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let chunked = is_chunked(&response)?;
    if response.headers().len() > MOST_HEADERS {
        return Err(TransportError::new(TransportErrorKind::Protocol, Delivery::MaybeSent)
            .with_source("the response has more than 100 headers"));
    }
    Ok(response.map(|body| {
        Body::new(Chunks {
            reader: Some(body.into_reader()),
            // One byte more than the body, so that the read that finds its end has room, too.
            size: length.map_or(LARGEST_CHUNK, |length| length.min(LARGEST_CHUNK - 1) + 1),
            room: BytesMut::new(),
            chunked,
            cancel,
            _hook: hook,
        })
    }))
}

/// The chunks of a body, as they come.
struct Chunks {
    /// Until the body's end: reading that is what gives the connection back to the pool.
    reader: Option<BodyReader<'static>>,
    room: BytesMut,
    /// How much room is made at once. Chunks are parts of it, and are not copied.
    size: usize,
    /// Whether they are framed as chunks on the wire.
    chunked: bool,
    cancel: CancelToken,
    /// Interrupts a blocked read for as long as there may be one.
    _hook: Option<CancelRegistration>,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, TransportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        if self.room.is_empty() {
            self.room = BytesMut::zeroed(self.size);
        }
        let read = loop {
            match call::read(self.chunked, || reader.read(&mut self.room)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let error = match read {
            Ok(length @ 1..) => return Some(Ok(self.room.split_to(length).freeze())),
            // Where only the end of the connection ends the body, a cancelled call looks complete.
            Ok(0) if self.cancel.is_cancelled() => {
                TransportError::new(TransportErrorKind::Cancelled, Delivery::MaybeSent)
            }
            Ok(0) => {
                self.reader = None;
                return None;
            }
            Err(error) => failure(error.into(), Delivery::MaybeSent, &self.cancel),
        };
        self.reader = None;
        Some(Err(error))
    }
}

fn failure(error: ureq::Error, delivery: Delivery, cancel: &CancelToken) -> TransportError {
    use TransportErrorKind::{Cancelled, Io, Protocol, Unsupported};
    if cancel.is_cancelled() {
        return TransportError::new(Cancelled, delivery);
    }
    let (kind, source): (_, Box<dyn StdError + Send + Sync>) = match error {
        ureq::Error::Other(inner) => match inner.downcast::<TransportError>() {
            Ok(dialing) => return *dialing,
            Err(inner) => (Io, inner),
        },
        ureq::Error::Timeout(limit) => return TransportError::new(timeout_kind(limit), delivery),
        ureq::Error::Io(error) => (Io, error.into()),
        // Before the first byte it is the request that ureq finds fault with.
        error if delivery == Delivery::NotSent => (Unsupported, error.into()),
        error => (Protocol, error.into()),
    };
    TransportError::new(kind, delivery).with_source(source)
}

fn timeout_kind(limit: Timeout) -> TransportErrorKind {
    match limit {
        Timeout::Connect | Timeout::Resolve => TransportErrorKind::ConnectTimeout,
        Timeout::Global | Timeout::PerCall => TransportErrorKind::TotalTimeout,
        Timeout::PerRead | Timeout::RecvBody => TransportErrorKind::IdleTimeout,
        _ => TransportErrorKind::HeadTimeout,
    }
}
