//! TLS by rustls: whom to trust, and the handshake.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use stride_core::ConfigError;
use stride_core::transport::{TransportError, TransportErrorKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::failed;

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
            return Ok(http1_only(builder.with_no_client_auth()));
        }
        Ok(http1_only(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn http1_only(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
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

/// Wraps a connection in TLS.
pub(super) async fn handshake(
    tls: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TransportError> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    let refused = |error| failed(TransportErrorKind::Tls, error);
    let name = ServerName::try_from(bare).map_err(|error| refused(io::Error::other(error)))?;
    tls.connect(name, stream).await.map_err(refused)
}
