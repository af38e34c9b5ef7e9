//! TLS by rustls: the handshake.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use stride_core::ConfigError;
#[cfg(feature = "platform-verifier")]
use stride_core::client::PlatformVerifier;
use stride_core::client::Trust;
use stride_core::transport::{TransportError, TransportErrorKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::failed;

/// The settings of every connection.
pub(super) fn config(trust: &Trust) -> Result<TlsConnector, ConfigError> {
    #[cfg(feature = "platform-verifier")]
    let platform: Option<PlatformVerifier> = Some(|roots, provider| {
        Ok(Arc::new(rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider)?))
    });
    #[cfg(not(feature = "platform-verifier"))]
    let platform = None;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(Arc::new(trust.client_config(provider, platform)?).into())
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
