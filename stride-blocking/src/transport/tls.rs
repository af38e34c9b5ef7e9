//! TLS by rustls: whom to trust, and a connection inside another.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use stride_core::ConfigError;
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use ureq::Error;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// Whose certificates are trusted, apart from those of the web's authorities.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// PEM or DER.
    pub(crate) further: Vec<Vec<u8>>,
    #[cfg(feature = "platform-verifier")]
    pub(crate) platform: bool,
}

impl Trust {
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let mut further = Vec::new();
        for certificates in &self.further {
            further.extend(parse(certificates)?);
        }
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in &further {
            roots.add(certificate.clone()).map_err(|_| bad_root())?;
        }
        // Passed explicitly: what another part of the program made the default is its own affair.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring knows the default versions of TLS");
        #[cfg(feature = "platform-verifier")]
        if self.platform {
            let verifier =
                rustls_platform_verifier::Verifier::new_with_extra_roots(further, provider)
                    .map_err(|_| ConfigError::Setting {
                        setting: "platform_verifier",
                        reason: "found no certificates that this operating system trusts",
                    })?;
            let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            return Ok(Arc::new(builder.with_no_client_auth()));
        }
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn parse(certificates: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    const PEM: &[u8] = b"-----BEGIN ";
    if !certificates.windows(PEM.len()).any(|window| window == PEM) {
        return Ok(vec![CertificateDer::from(certificates.to_vec())]);
    }
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    parsed.ok().filter(|parsed| !parsed.is_empty()).ok_or_else(bad_root)
}

fn bad_root() -> ConfigError {
    ConfigError::Setting {
        setting: "root_certificate",
        reason: "is no certificate in PEM or DER form",
    }
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
