//! TLS by rustls: a connection inside another.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use stride_core::ConfigError;
#[cfg(feature = "platform-verifier")]
use stride_core::client::PlatformVerifier;
use stride_core::client::Trust;
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use ureq::Error;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// The settings of every connection.
pub(super) fn config(trust: &Trust) -> Result<Arc<ClientConfig>, ConfigError> {
    #[cfg(feature = "platform-verifier")]
    let platform: Option<PlatformVerifier> = Some(|roots, provider| {
        Ok(Arc::new(rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider)?))
    });
    #[cfg(not(feature = "platform-verifier"))]
    let platform = None;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(Arc::new(trust.client_config(provider, platform)?))
}

/// Wraps connections for `https` in TLS.
pub(super) struct TlsConnector(pub(super) Arc<ClientConfig>);

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        match handshake(self.0.clone(), details, transport.boxed()) {
            Ok(stream) => {
                let (input, output) =
                    (details.config.input_buffer_size(), details.config.output_buffer_size());
                let buffers = LazyBuffers::new(input, output);
                Ok(Some(Either::B(TlsTransport { buffers, stream })))
            }
            Err(error) => match Error::from(error) {
                Error::Io(error) => Err(refused(error)),
                error => Err(error),
            },
        }
    }
}

type TlsStream = StreamOwned<ClientConnection, TransportAdapter>;

fn handshake(
    config: Arc<ClientConfig>,
    details: &ConnectionDetails<'_>,
    transport: Box<dyn Transport>,
) -> io::Result<TlsStream> {
    let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut conn = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut sock = TransportAdapter::new(transport, details.current_time.clone());
    sock.set_timeout(left(details));
    conn.complete_io(&mut sock)?;
    Ok(StreamOwned::new(conn, sock))
}

/// What opening the connection below has left of the limit.
fn left(details: &ConnectionDetails<'_>) -> NextTimeout {
    let mut timeout = details.timeout;
    if let (Instant::Exact(started), Duration::Exact(limit)) = (details.now, timeout.after) {
        timeout.after = limit.saturating_sub(started.elapsed()).into();
    }
    timeout
}

fn refused(error: io::Error) -> Error {
    let error = TransportError::new(TransportErrorKind::Tls, Delivery::NotSent).with_source(error);
    Error::Other(error.into())
}

/// A connection inside TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: TlsStream,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("inside", self.stream.sock.inner()).finish()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
