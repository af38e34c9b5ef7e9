//! Where a database is, and how a connection to it is encrypted.

use std::io;
use std::sync::Arc;

use form_urlencoded::parse;
use postgres::Config;
use postgres::config::SslMode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Reads a connection string. No error of it shows a word of it, which could be a password.
pub(super) fn read(text: &str) -> io::Result<(Config, MakeRustlsConnect)> {
    let (known, roots) = take_roots(text);
    let config: Config = known.parse().map_err(|error| bad(&reason(&error)))?;
    let is_verified = config.get_ssl_mode() == SslMode::Require;
    if roots.is_some() && !is_verified {
        return Err(bad("sslrootcert needs sslmode=verify-full"));
    }
    let tls = if is_verified { verifying(roots.as_deref())? } else { encrypting()? };
    Ok((config, tls))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("bad connection string: {why}"))
}

/// Which option has a bad value. Other errors could name a piece of a password with a space in it.
fn reason(error: &postgres::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let of_an_option = source.filter(|source| source.starts_with("invalid value for option"));
    of_an_option.unwrap_or_else(|| "it cannot be understood".to_owned())
}

/// Takes out what libpq understands and the driver does not: `sslrootcert`, and the mode `verify-full`, which
/// the driver's `require` is here.
fn take_roots(text: &str) -> (String, Option<String>) {
    let mut roots = None;
    let mut keep = |word: &str, value: fn(&str) -> String| match word.split_once('=') {
        Some(("sslrootcert", path)) => {
            roots = Some(value(path));
            None
        }
        Some(("sslmode", "verify-full")) => Some("sslmode=require".to_owned()),
        _ => Some(word.to_owned()),
    };
    let kept = match text.rsplit_once('?') {
        Some((start, options)) if is_url(text) => {
            let options = options.split('&').filter_map(|word| keep(word, decoded));
            format!("{start}?{}", options.collect::<Vec<_>>().join("&"))
        }
        _ if is_url(text) => text.to_owned(),
        _ => words(text).filter_map(|word| keep(word, unquoted)).collect::<Vec<_>>().join(" "),
    };
    (kept, roots)
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// A value of a URL. In libpq's, a plus stands for itself.
fn decoded(value: &str) -> String {
    let pair = format!("={}", value.replace('+', "%2B"));
    parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

/// The pairs of a string of `key=value`, whose values may be quoted.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c: char| {
        let was_escaped = is_escaped;
        is_escaped = c == '\\' && !was_escaped;
        is_quoted ^= c == '\'' && !was_escaped;
        c.is_whitespace() && !is_quoted && !was_escaped
    })
}

fn unquoted(value: &str) -> String {
    let mut is_escaped = false;
    let stays = |c: &char| {
        let was_escaped = is_escaped;
        is_escaped = *c == '\\' && !was_escaped;
        was_escaped || !matches!(c, '\\' | '\'')
    };
    value.chars().filter(stays).collect()
}

/// Checks the certificate and its name, by the certificates of a file or by those that the operating system trusts.
fn verifying(roots: Option<&str>) -> io::Result<MakeRustlsConnect> {
    let file = roots.filter(|it| *it != "system");
    with(|provider| match file {
        Some(file) => {
            let failed = |why: String| bad(&format!("the file of sslrootcert, {file:?}, {why}"));
            let mut store = RootCertStore::empty();
            let certificates = CertificateDer::pem_file_iter(file)
                .map_err(|error| failed(format!("cannot be read: {error}")))?;
            for certificate in certificates {
                let bad = |error: &dyn std::fmt::Display| failed(format!("is bad: {error}"));
                let certificate = certificate.map_err(|error| bad(&error))?;
                store.add(certificate).map_err(|error| bad(&error))?;
            }
            if store.is_empty() {
                return Err(failed("holds no certificate".to_owned()));
            }
            let verifier =
                rustls::client::WebPkiServerVerifier::builder_with_provider(store.into(), provider);
            Ok(verifier.build().map_err(io::Error::other)?)
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider);
            let why =
                "there are no certificates that the system trusts: name some with sslrootcert";
            Ok(Arc::new(verifier.map_err(|error| io::Error::other(format!("{why}: {error}")))?))
        }
    })
}

/// Checks nothing.
fn encrypting() -> io::Result<MakeRustlsConnect> {
    with(|provider| Ok(Arc::new(Anyone(provider))))
}

fn with(
    verifier: impl FnOnce(Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>>,
) -> io::Result<MakeRustlsConnect> {
    // Passed explicitly: what another part of the program made the default is not ours to use.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(provider)?)
        .with_no_client_auth();
    // Asked for by a server to which a client speaks TLS from the first byte on.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

/// Takes any certificate, as libpq does with `sslmode=prefer`: whoever only listens reads nothing.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_gets_what_it_understands() {
        for (text, known, roots) in [
            ("postgres://u:p@h/d", "postgres://u:p@h/d", None),
            ("postgres://u:?&@h/d", "postgres://u:?&@h/d", None),
            (
                "postgresql://u@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b+c.pem&user=x",
                "postgresql://u@h/d?sslmode=require&user=x",
                Some("/a b+c.pem"),
            ),
            ("postgres://h?sslrootcert=system", "postgres://h?", Some("system")),
            (
                r"host=h password='a sslrootcert=b\' c' sslrootcert='/x y\'z' sslmode=verify-full",
                r"host=h password='a sslrootcert=b\' c' sslmode=require",
                Some("/x y'z"),
            ),
            (r"password=a\ sslmode=verify-full", r"password=a\ sslmode=verify-full", None),
        ] {
            assert_eq!(take_roots(text), (known.to_owned(), roots.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn an_error_shows_nothing_of_a_password() {
        for (text, why) in [
            ("postgres://u:sesame@h/d?sslmode=verify-ca", "invalid value for option `sslmode`"),
            ("postgres://u:sesame@h:port/d", "invalid value for option `port`"),
            ("postgres://u:sesame@h/d?sslrootcert=x", "sslrootcert needs sslmode=verify-full"),
            ("postgres://u:open&sesame=1@h/?open=1", "it cannot be understood"),
            ("host=h password=open sesame=1", "it cannot be understood"),
            (
                "host=h password=sesame sslmode=require sslrootcert=/nowhere",
                r#"the file of sslrootcert, "/nowhere", cannot be read"#,
            ),
        ] {
            let error = read(text).err().unwrap().to_string();
            assert!(error.starts_with(&format!("bad connection string: {why}")), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn roots_are_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let text = format!("host=h sslmode=verify-full sslrootcert={}", file.display());
        for (pem, why) in [("", "holds no certificate"), (BAD, "is bad: ")] {
            std::fs::write(&file, pem).unwrap();
            let error = read(&text).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    const BAD: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
}
