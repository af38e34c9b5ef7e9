//! Opens connections: looks up the host, passes the proxy, agrees upon TLS; and notes whether a
//! request has begun to leave.

use std::cell::Cell;
use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use http::Uri;
use stride_core::config::is_loopback;
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, TcpConnector,
    Transport,
};

use super::timeout_kind;

/// The most addresses of a host that are tried; ureq has room for 16.
const MOST_ADDRESSES: usize = 16;

thread_local! {
    /// Whether the call that this thread is sending may have reached the server; `None` once it has
    /// the head of its answer. ureq runs a call on its caller's thread and says of no error which
    /// connection it belongs to, so this is how the connection tells the call.
    static SENDING: Cell<Option<Delivery>> = const { Cell::new(None) };
}

/// Runs a call, and says whether a byte of its request may have left.
pub(super) fn noting_delivery<T>(run: impl FnOnce() -> T) -> (T, Delivery) {
    SENDING.set(Some(Delivery::NotSent));
    let result = run();
    (result, SENDING.take().unwrap_or(Delivery::MaybeSent))
}

/// Leaves looking up the host to [`Dial`]: ureq resolves for every request, and most find an open
/// connection.
#[derive(Debug)]
pub(super) struct Unresolved;

impl Resolver for Unresolved {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// What every agent's connector is made from.
pub(super) struct Dialer {
    pub(super) proxied: bool,
    #[cfg(feature = "tls")]
    pub(super) tls: std::sync::Arc<rustls::ClientConfig>,
}

impl Dialer {
    pub(super) fn connector(&self) -> impl Connector + use<> {
        let chain = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
        #[cfg(feature = "tls")]
        let chain = chain.chain(super::tls::TlsConnector(self.tls.clone()));
        Dial { chain, proxied: self.proxied }
    }
}

/// Opens a connection within one limit, whatever it takes.
#[derive(Debug)]
struct Dial<C> {
    chain: C,
    proxied: bool,
}

impl<C: Connector> Connector for Dial<C> {
    type Out = Noted<C::Out>;

    /// On the way through a proxy, ureq comes here a second time, for the connection to the proxy.
    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let opened = self.open(details);
        // What a proxy was sent is no part of the request.
        SENDING.set(Some(Delivery::NotSent));
        match opened {
            Ok(transport) => Ok(transport.map(Noted)),
            Err(error) => Err(Error::Other(error.into())),
        }
    }
}

impl<C: Connector> Dial<C> {
    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Option<C::Out>, TransportError> {
        let started = Instant::now();
        let addrs = if details.config.proxy().is_some() {
            details.resolver.empty()
        } else {
            self.resolve(details)?
        };
        // The limit on silence is for bodies.
        let mut timeout = NextTimeout { per_read: None, ..details.timeout };
        if !timeout.after.is_not_happening() {
            timeout.after = timeout.after.saturating_sub(started.elapsed()).into();
        }
        if timeout.after.is_zero() {
            return Err(timed_out(timeout));
        }
        let inner = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: (details.current_time)(),
            timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.chain.connect(&inner, None).map_err(|error| match error {
            Error::Timeout(_) => timed_out(timeout),
            Error::Other(inner) => match inner.downcast::<TransportError>() {
                Ok(known) => *known,
                Err(inner) => self.failed(TransportErrorKind::Connect, inner),
            },
            Error::Io(error) => self.failed(TransportErrorKind::Connect, error),
            error => self.failed(TransportErrorKind::Connect, error),
        })
    }

    fn resolve(
        &self,
        details: &ConnectionDetails<'_>,
    ) -> Result<ResolvedSocketAddrs, TransportError> {
        let host = details.uri.host().unwrap_or_default();
        let port = details.uri.port_u16().unwrap_or(if details.needs_tls() { 443 } else { 80 });
        let bare = host.trim_matches(['[', ']']);
        let found = if let Ok(address) = bare.parse::<IpAddr>() {
            vec![SocketAddr::new(address, port)]
        } else if is_loopback(host) {
            // Never asked for on the network: such a host may be sent the key by plain `http`.
            vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
        } else {
            match look_up(host, port, &details.timeout) {
                Ok(found) => found.map_err(|error| self.failed(TransportErrorKind::Resolve, error)),
                Err(RecvTimeoutError::Timeout) => Err(timed_out(details.timeout)),
                Err(error) => Err(self.failed(TransportErrorKind::Resolve, error)),
            }?
        };
        let mut addrs = details.resolver.empty();
        found.into_iter().take(MOST_ADDRESSES).for_each(|address| addrs.push(address));
        Ok(addrs)
    }

    /// Where there is a proxy, it is the proxy that connections are opened to.
    fn failed(
        &self,
        kind: TransportErrorKind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> TransportError {
        let kind = if self.proxied { TransportErrorKind::Proxy } else { kind };
        TransportError::new(kind, Delivery::NotSent).with_source(source)
    }
}

fn timed_out(timeout: NextTimeout) -> TransportError {
    TransportError::new(timeout_kind(timeout.reason), Delivery::NotSent)
}

/// Asks the operating system, which has no limit of its own: hence the thread, which may outlive
/// the call. There is one per connection that is opened by name, not per request.
fn look_up(
    host: &str,
    port: u16,
    timeout: &NextTimeout,
) -> Result<io::Result<Vec<SocketAddr>>, RecvTimeoutError> {
    let host = host.to_owned();
    let (answer, answered) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("stride-resolve".to_owned()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more if it took too long.
        drop(answer.send(found));
    });
    match spawned {
        Ok(_) => answered.recv_timeout(*timeout.after),
        Err(error) => Ok(Err(error)),
    }
}

/// A connection that tells [`SENDING`] of the first byte, and is honest about how it ended.
#[derive(Debug)]
pub(super) struct Noted<T>(T);

impl<T: Transport> Transport for Noted<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        SENDING.set(Some(Delivery::MaybeSent));
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        if SENDING.get().is_some() {
            // ureq would apply the limit on silence to the wait for the head as well.
            timeout.per_read = None;
        }
        self.0.await_input(timeout).map_err(|error| match error {
            // ureq takes some of these for the end of a body that ends with its connection.
            Error::Io(error) if error.kind() != io::ErrorKind::Interrupted => {
                Error::Other(error.into())
            }
            error => error,
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
