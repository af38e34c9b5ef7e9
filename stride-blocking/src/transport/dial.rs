//! Opens connections: looks up the host, passes the proxy, agrees upon TLS. All of it together ends
//! by one limit, and at once when the call is cancelled.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;

use http::Uri;
use stride_core::cancel::CancelToken;
use stride_core::config::known_addresses;
use stride_core::proxy::{ConnectError, Proxy, Tunnel};
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use super::connection::Connection;
use super::socket::{Deadline, Socket};
use super::timeout_kind;

/// Leaves looking up the host to [`Dial`]: ureq resolves for every request, and most find an open
/// connection.
#[derive(Debug)]
pub(super) struct Unresolved;

impl Resolver for Unresolved {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(super) tls: std::sync::Arc<rustls::ClientConfig>,
}

/// Opens the connections of an agent.
pub(super) struct Dial {
    pub(super) dialer: Dialer,
    /// Ends what is under way.
    pub(super) cancel: CancelToken,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").finish_non_exhaustive()
    }
}

impl Connector for Dial {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        self.open(details).map(Some).map_err(|error| Error::Other(error.into()))
    }
}

impl Dial {
    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Connection, TransportError> {
        use TransportErrorKind::Connect;
        let deadline = Deadline::new(details.timeout);
        let host = details.uri.host().unwrap_or_default();
        let port = details.uri.port_u16().unwrap_or(if details.needs_tls() { 443 } else { 80 });
        let mut socket = match &self.dialer.proxy {
            None => self.dial(host, port, deadline),
            // Whatever goes wrong on the way to a proxy is the proxy's.
            Some(proxy) => self
                .dial(proxy.host(), proxy.port(), deadline)
                .map_err(|(_, error)| (TransportErrorKind::Proxy, error)),
        }
        .and_then(|stream| Socket::new(stream).map_err(|error| (Connect, error.into())))
        .map_err(|(kind, error)| failed(kind, error))?;
        // From here on, shutting the agent down interrupts every wait.
        (details.register_shutdown)(socket.shutdown_handle())
            .map_err(|error| failed(Connect, error))?;
        if let Some(proxy) = &self.dialer.proxy {
            tunnel(proxy, host, port, &mut socket, deadline)
                .map_err(|error| failed(TransportErrorKind::Proxy, error))?;
        }
        #[cfg(feature = "tls")]
        {
            let tls = details.needs_tls().then(|| {
                let config = self.dialer.tls.clone();
                super::tls::handshake(config, host, &mut socket, deadline)
                    .map_err(|error| failed(TransportErrorKind::Tls, error))
            });
            Ok(Connection::new(socket, tls.transpose()?))
        }
        #[cfg(not(feature = "tls"))]
        Ok(Connection::new(socket))
    }

    fn dial(&self, host: &str, port: u16, deadline: Deadline) -> Result<TcpStream, Failure> {
        match known_addresses(host, port) {
            Some(addresses) if self.cancel.is_never() => first(&addresses, deadline),
            known => self.dial_aside(host.to_owned(), port, known, deadline),
        }
    }

    /// Dials on a thread, which may outlive the call: the operating system's look-up has no limit,
    /// and neither that nor opening a connection can be interrupted. There is one per connection,
    /// not per request.
    fn dial_aside(
        &self,
        host: String,
        port: u16,
        known: Option<Vec<SocketAddr>>,
        deadline: Deadline,
    ) -> Result<TcpStream, Failure> {
        let (result, results) = mpsc::channel();
        let cancelled: Sender<Result<TcpStream, Failure>> = result.clone();
        let _hook = self.cancel.on_cancel(move || {
            let error = Error::Io(io::ErrorKind::Interrupted.into());
            // The call may have ended otherwise.
            drop(cancelled.send(Err((TransportErrorKind::Cancelled, error))));
        });
        thread::Builder::new()
            .name("stride-dial".to_owned())
            .spawn(move || {
                let addresses = match known {
                    Some(addresses) => Ok(addresses),
                    None => (host.as_str(), port).to_socket_addrs().map(Iterator::collect),
                };
                let opened = addresses
                    .map_err(|error| (TransportErrorKind::Resolve, error.into()))
                    .and_then(|addresses| first(&addresses, deadline));
                // Nobody listens if it took too long.
                drop(result.send(opened));
            })
            .map_err(|error| (TransportErrorKind::Connect, error.into()))?;
        let connect = |error| (TransportErrorKind::Connect, error);
        let received = match deadline.left().map_err(connect)? {
            Some(left) => results.recv_timeout(left),
            None => results.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        received.unwrap_or_else(|_| {
            // Either the time is over, or the thread is gone, which it does not do.
            deadline.left().map_err(connect)?;
            Err(connect(Error::ConnectionFailed))
        })
    }
}

/// The stage that went wrong, and how.
type Failure = (TransportErrorKind, Error);

/// A connection to the first of these addresses that takes one. Each but the last may take half of
/// the time that is left.
fn first(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpStream, Failure> {
    let connect = |error| (TransportErrorKind::Connect, error);
    let mut result = Err(connect(Error::HostNotFound));
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        let opened = match deadline.left().map_err(connect)? {
            None => TcpStream::connect(address),
            Some(left) => {
                TcpStream::connect_timeout(address, if is_last { left } else { left / 2 })
            }
        };
        match opened {
            Ok(stream) => return Ok(stream),
            Err(error) => result = Err(connect(error.into())),
        }
    }
    // What the last address failed with may be the limit.
    deadline.left().map_err(connect)?;
    result
}

/// Has the proxy open a tunnel.
fn tunnel(
    proxy: &Proxy,
    host: &str,
    port: u16,
    socket: &mut Socket,
    deadline: Deadline,
) -> Result<(), Error> {
    let mut connect = proxy.connect(host, port);
    socket.write_all(connect.request(), deadline)?;
    let mut received = [0; 1024];
    loop {
        let progress = match socket.read(&mut received, deadline)? {
            0 => Err(ConnectError::Closed),
            amount => connect.handle_bytes(&received[..amount]),
        };
        match progress {
            Ok(Tunnel::Pending) => {}
            Ok(Tunnel::Open) => return Ok(()),
            Err(error) => return Err(Error::Other(error.into())),
        }
    }
}

fn failed(kind: TransportErrorKind, error: Error) -> TransportError {
    let source: Box<dyn StdError + Send + Sync> = match error {
        Error::Timeout(limit) => {
            return TransportError::new(timeout_kind(limit), Delivery::NotSent);
        }
        Error::Io(error) => error.into(),
        Error::Other(error) => error,
        error => error.into(),
    };
    TransportError::new(kind, Delivery::NotSent).with_source(source)
}
