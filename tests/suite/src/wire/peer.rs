use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and the headers, without the empty line.
    pub head: String,
    /// The body, still compressed.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The method and the path, as in `GET /v1/collect`.
    #[must_use]
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }
}

/// The client, as the server sees it: a connection to read from and write to, with or without TLS.
#[derive(Debug)]
pub struct Peer {
    channel: Channel,
    /// What was read and not yet taken.
    received: Vec<u8>,
}

#[derive(Debug)]
enum Channel {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Peer {
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        let channel = match tls {
            None => Channel::Plain(stream),
            Some(config) => {
                let connection = ServerConnection::new(config).ok()?;
                Channel::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        Some(Self { channel, received: Vec::new() })
    }

    /// The socket below, for its options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.channel {
            Channel::Plain(stream) => stream,
            Channel::Tls(stream) => &stream.sock,
        }
    }

    /// The protocol that was agreed on, if the handshake succeeds.
    #[expect(clippy::option_option, reason = "a handshake may fail, and may agree on no protocol")]
    pub(super) fn handshake(&mut self) -> Option<Option<String>> {
        let Channel::Tls(stream) = &mut self.channel else { return Some(None) };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).ok()?;
        }
        let protocol = stream.conn.alpn_protocol();
        Some(protocol.map(|protocol| String::from_utf8_lossy(protocol).into_owned()))
    }

    pub(super) fn goodbye(&mut self) -> Option<()> {
        if let Channel::Tls(stream) = &mut self.channel {
            stream.conn.send_close_notify();
            stream.flush().ok()?;
        }
        Some(())
    }

    /// Reads until at least a byte was received that is not taken; `false` at the end.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        Ok(!self.received.is_empty() || self.more()?)
    }

    /// Reads once more; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let length = match &mut self.channel {
            Channel::Plain(stream) => stream.read(&mut chunk)?,
            Channel::Tls(stream) => stream.read(&mut chunk)?,
        };
        self.received.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }

    pub(super) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.received.drain(..end + 4).take(end).collect();
                return String::from_utf8(head).ok();
            }
            if !self.more().ok()? {
                return None;
            }
        }
    }

    pub(super) fn request(&mut self) -> Option<Request> {
        let mut request = Request { head: self.head()?, body: Vec::new() };
        let length = request.header("content-length").and_then(|length| length.parse().ok());
        if let Some(length) = length {
            request.body = vec![0; length];
            self.read_exact(&mut request.body).ok()?;
        } else {
            assert!(
                request.header("transfer-encoding").is_none(),
                "bodies of known length are sent with it"
            );
        }
        Some(request)
    }

    /// Opens the tunnel that was asked for, and copies both ways until both sides have ended.
    pub(super) fn tunnel(&mut self, request: &Request) -> Option<()> {
        let target = request.head.split(' ').nth(1)?;
        let host = target.rsplit_once(':').map(|(host, _)| host);
        assert!(
            matches!(host, Some("127.0.0.1" | "[::1]" | "localhost")),
            "{target} is not on this machine"
        );
        let server = TcpStream::connect(target).ok()?;
        self.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").ok()?;
        let (mut up, mut down) = (self.socket().try_clone().ok()?, server.try_clone().ok()?);
        let upwards = thread::spawn(move || forward(&mut up, &mut down));
        forward(&mut { server }, &mut self.socket().try_clone().ok()?);
        upwards.join().ok()
    }
}

fn forward(from: &mut TcpStream, to: &mut TcpStream) {
    // A side that is gone is an end like any other.
    let _ = io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() {
            return match &mut self.channel {
                Channel::Plain(stream) => stream.read(buffer),
                Channel::Tls(stream) => stream.read(buffer),
            };
        }
        let length = buffer.len().min(self.received.len());
        for (to, from) in buffer.iter_mut().zip(self.received.drain(..length)) {
            *to = from;
        }
        Ok(length)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.channel {
            Channel::Plain(stream) => stream.write(bytes),
            Channel::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.channel {
            Channel::Plain(stream) => stream.flush(),
            Channel::Tls(stream) => stream.flush(),
        }
    }
}
