//! Opens connections: looks up the host, passes the proxy, agrees upon TLS.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind::WouldBlock};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use stride_core::config::known_addresses;
use stride_core::proxy::{ConnectError, Proxy, Tunnel};
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Origin;
use crate::alarm::{Alarm, Missing, after};

/// How long an address of a host has to accept before the next one is tried, too: the "connection
/// attempt delay" of RFC 8305.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A connection, with or without TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether there is nothing to read, not even the end, as the system knows, though the runtime
    /// may not have been told. With TLS a byte may be of the protocol alone, and counts, too.
    fn is_silent(&self) -> bool;
}

impl Socket for TcpStream {
    fn is_silent(&self) -> bool {
        let peeked = SockRef::from(self).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == WouldBlock)
    }
}

#[cfg(feature = "tls")]
impl Socket for tokio_rustls::client::TlsStream<TcpStream> {
    fn is_silent(&self) -> bool {
        self.get_ref().0.is_silent()
    }
}

pub(super) struct Dialer {
    pub(super) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(super) tls: tokio_rustls::TlsConnector,
}

impl Dialer {
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Box<dyn Socket>, TransportError> {
        if cfg!(not(feature = "tls")) && origin.https {
            return Err(failed(
                TransportErrorKind::Unsupported,
                "https needs the feature `tls` of stride-async",
            ));
        }
        let stream = match &self.proxy {
            None => connect(origin.host(), origin.port()).await,
            // Whatever goes wrong on the way to a proxy, or with it, is the proxy's.
            Some(proxy) => {
                tunnel(proxy, origin).await.map_err(|error| (TransportErrorKind::Proxy, error))
            }
        }
        .map_err(|(kind, error)| {
            let is_missing =
                error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Missing>);
            failed(if is_missing { TransportErrorKind::Unsupported } else { kind }, error)
        })?;
        #[cfg(feature = "tls")]
        if origin.https {
            return Ok(Box::new(super::tls::handshake(&self.tls, origin.host(), stream).await?));
        }
        Ok(Box::new(stream))
    }
}

pub(super) fn failed(
    kind: TransportErrorKind,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> TransportError {
    TransportError::new(kind, Delivery::NotSent).with_source(source)
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, (TransportErrorKind, io::Error)> {
    let addresses = match known_addresses(host, port) {
        Some(known) => known,
        None => {
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|error| (TransportErrorKind::Resolve, error))?.collect()
        }
    };
    let stream = first(addresses).await.map_err(|error| (TransportErrorKind::Connect, error))?;
    // A body whose second piece comes late would wait for the server's acknowledgement.
    stream.set_nodelay(true).map_err(|error| (TransportErrorKind::Connect, error))?;
    Ok(stream)
}

/// The connection to the address that answers first. They are tried in their order, each a moment
/// after the one before, or as soon as that has failed.
async fn first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;
    let mut addresses = addresses.into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut alarm = Alarm::default();
    let mut next_at = None;
    let mut last_error = None;
    poll_fn(|context| {
        loop {
            let mut index = 0;
            while let Some(attempt) = attempts.get_mut(index) {
                let polled = Missing::Io.unless(|| attempt.as_mut().poll(context));
                match polled.unwrap_or_else(|none| Poll::Ready(Err(io::Error::other(none)))) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        last_error = Some(error);
                        drop(attempts.remove(index));
                        next_at = None;
                    }
                    Poll::Pending => index += 1,
                }
            }
            if addresses.len() > 0
                && next_at.is_none_or(|at| alarm.poll(at, context).is_ready())
                && let Some(address) = addresses.next()
            {
                attempts.push(Box::pin(TcpStream::connect(address)));
                next_at = Some(after(NEXT_ADDRESS_AFTER));
            } else if attempts.is_empty() {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                return Poll::Ready(Err(last_error.take().unwrap_or_else(none)));
            } else {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// A connection to `origin` through the proxy.
async fn tunnel(proxy: &Proxy, origin: &Origin) -> io::Result<TcpStream> {
    let mut stream = connect(proxy.host(), proxy.port()).await.map_err(|(_, error)| error)?;
    let mut dialogue = proxy.connect(origin.host(), origin.port());
    stream.write_all(dialogue.request()).await?;
    let mut received = [0; 1024];
    loop {
        let length = stream.read(&mut received).await?;
        if length == 0 {
            return Err(io::Error::other(ConnectError::Closed));
        }
        match dialogue.handle_bytes(&received[..length]).map_err(io::Error::other)? {
            Tunnel::Pending => {}
            Tunnel::Open => return Ok(stream),
        }
    }
}
