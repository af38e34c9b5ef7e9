//! TLS by rustls: its settings, and how bytes get through it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use stride_core::ConfigError;
#[cfg(feature = "platform-verifier")]
use stride_core::client::PlatformVerifier;
use stride_core::client::Trust;
use ureq::Error;

use super::socket::{Deadline, Socket, Timed};

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

/// Agrees upon TLS with `host`, on a connection to it.
pub(super) fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    socket: &mut Socket,
    deadline: Deadline,
) -> Result<Box<ClientConnection>, Error> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while tls.is_handshaking() || tls.wants_write() {
        match tls.complete_io(&mut Timed { socket, deadline }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => drop(result?),
        }
    }
    Ok(Box::new(tls))
}

/// Sends all of it. `false` if the server responds instead of taking it.
pub(super) fn send(
    tls: &mut ClientConnection,
    socket: &mut Socket,
    mut bytes: &[u8],
    deadline: Deadline,
) -> Result<bool, Error> {
    loop {
        if !tls.wants_write() {
            if bytes.is_empty() {
                return Ok(true);
            }
            let taken = tls.writer().write(bytes)?;
            bytes = &bytes[taken..];
        }
        match tls.write_tls(&mut Timed { socket, deadline }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let read = socket.without_waiting(|mut stream| tls.read_tls(&mut stream));
                if read.is_ok_and(|read| read > 0) && has_received(tls) {
                    return Ok(false);
                }
            }
            result => drop(result?),
        }
    }
}

/// Receives what is there, or waits for it. 0 is the end in order, with a farewell.
pub(super) fn receive(
    tls: &mut ClientConnection,
    socket: &mut Socket,
    room: &mut [u8],
    deadline: Deadline,
) -> Result<usize, Error> {
    loop {
        match tls.reader().read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Ok(result?),
        }
        // What TLS has to say about it goes out before the next request.
        tls.read_tls(&mut Timed { socket, deadline })?;
        tls.process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

/// Whether anything has come that was not taken yet, be it an error.
pub(super) fn has_received(tls: &mut ClientConnection) -> bool {
    tls.process_new_packets().map_or(true, |state| state.plaintext_bytes_to_read() > 0)
}
