//! Certificates for servers, from an authority that nobody else trusts.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

/// What a server shows to its clients: a key, and a certificate for it. It offers `h2` and
/// `http/1.1`, in this order.
#[derive(Debug)]
pub struct Identity {
    pub(super) config: Arc<ServerConfig>,
}

impl Authority {
    /// A new one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one has another key")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a new key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its certificate, as text.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate, as bytes.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// An identity for this host.
    #[must_use]
    pub fn identity(&self, host: &str) -> Identity {
        self.serving(&params(host), None)
    }

    /// An identity for this host that has expired.
    #[must_use]
    pub fn expired_identity(&self, host: &str) -> Identity {
        let mut params = params(host);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.serving(&params, None)
    }

    /// An identity for this host that speaks only to clients with a certificate of `clients`.
    #[must_use]
    pub fn asking_identity(&self, host: &str, clients: &Self) -> Identity {
        let mut roots = RootCertStore::empty();
        roots.add(clients.0.der().clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        self.serving(&params(host), Some(verifier.build().expect("a root is there")))
    }

    /// A certificate for a client, and its key, both as text.
    #[must_use]
    pub fn client(&self) -> (String, String) {
        self.pair("client")
    }

    /// A certificate for this host, and its key, both as text.
    #[must_use]
    pub fn pair(&self, host: &str) -> (String, String) {
        let (certificate, key) = self.sign(&params(host));
        (certificate.pem(), key.serialize_pem())
    }

    fn sign(&self, params: &CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a new key");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    fn serving(
        &self,
        params: &CertificateParams,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Identity {
        let (certificate, key) = self.sign(params);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("the certificate is for the key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Identity { config: Arc::new(config) }
    }
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new([host.to_owned()]).expect("a good name")
}
