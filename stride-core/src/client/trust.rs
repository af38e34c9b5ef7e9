//! Whom a client trusts, and how it identifies itself.

use std::fmt;
#[cfg(feature = "tls")]
use std::sync::Arc;

#[cfg(feature = "tls")]
use rustls::client::danger::ServerCertVerifier;
#[cfg(feature = "tls")]
use rustls::crypto::CryptoProvider;
#[cfg(feature = "tls")]
use rustls::pki_types::pem::PemObject;
#[cfg(feature = "tls")]
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
#[cfg(feature = "tls")]
use rustls::{ClientConfig, RootCertStore};

#[cfg(feature = "tls")]
use crate::config::ConfigError;

/// The TLS settings of a client. Its `Debug` shows no key.
#[derive(Clone, Default)]
pub struct Trust {
    /// Further roots, each in PEM or DER form.
    roots: Vec<Vec<u8>>,
    /// A chain of certificates and its private key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    platform: bool,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("roots", &self.roots.len())
            .field("has_identity", &self.identity.is_some())
            .field("platform", &self.platform)
            .finish()
    }
}

/// Makes the verifier of the operating system's certificates, which trusts these roots as well.
#[cfg(feature = "tls")]
pub type PlatformVerifier = fn(
    Vec<CertificateDer<'static>>,
    Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error>;

#[cfg(feature = "tls")]
impl Trust {
    pub(super) fn add_root(&mut self, certificate: &[u8]) {
        self.roots.push(certificate.to_owned());
    }

    pub(super) fn identify(&mut self, chain: &[u8], private_key: &[u8]) {
        self.identity = Some((chain.to_owned(), private_key.to_owned()));
    }

    #[cfg(feature = "platform-verifier")]
    pub(super) fn use_platform(&mut self) {
        self.platform = true;
    }

    /// The settings for rustls, with this provider of cryptography. `platform` makes the operating
    /// system's verifier, where the client's crate was compiled with it.
    ///
    /// # Errors
    ///
    /// A certificate or the private key cannot be read, they do not belong together, or the
    /// operating system's verifier cannot be had.
    pub fn client_config(
        &self,
        provider: Arc<CryptoProvider>,
        platform: Option<PlatformVerifier>,
    ) -> Result<ClientConfig, ConfigError> {
        let bad = |setting, reason| ConfigError::Setting { setting, reason };
        let bad_root =
            || bad("root_certificate", "does not hold a valid certificate in PEM or DER form");
        let mut further = Vec::new();
        for certificates in &self.roots {
            further.extend(certificates_in(certificates).ok_or_else(bad_root)?);
        }
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in &further {
            roots.add(certificate.clone()).map_err(|_| bad_root())?;
        }
        // Passed explicitly: what another part of the program made the default is not ours to use.
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| bad("tls", "is not supported by the provider of cryptography"))?;
        let builder = if self.platform {
            let reason = "needs the feature `platform-verifier` of the client's crate";
            let platform = platform.ok_or(bad("platform_verifier", reason))?;
            let reason = "did not find the certificates that the operating system trusts";
            let verifier =
                platform(further, provider).map_err(|_| bad("platform_verifier", reason))?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(roots)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let setting = "client_certificate";
                let chain = certificates_in(chain)
                    .ok_or(bad(setting, "does not hold a valid certificate in PEM or DER form"))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| bad(setting, "has no private key in PEM form"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_| bad(setting, "and its private key do not belong together"))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The certificates of a PEM text, or the one in DER form.
#[cfg(feature = "tls")]
fn certificates_in(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    const PEM: &[u8] = b"-----BEGIN ";
    if !bytes.windows(PEM.len()).any(|window| window == PEM) {
        return Some(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    parsed.ok().filter(|parsed| !parsed.is_empty())
}
