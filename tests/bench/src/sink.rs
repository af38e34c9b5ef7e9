//! The other end of the loopback: a server that reads requests, counts them and answers 200.
//!
//! It does as little as a server can, because on a small machine it takes its processor time from
//! what is measured. It runs in a process of its own.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use memchr::memchr;
use serde::{Deserialize, Serialize};

use crate::child::Player;
use crate::event::Received;

/// The name of the part, for [`crate::child::play`].
pub const PART: &str = "sink";

/// The stream that sends events without an end to whoever subscribes to it.
pub const FIREHOSE: &str = "firehose";

/// How the firehose's body is cut into HTTP chunks: not where events end.
const CHUNK: usize = 16 << 10;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// What a sink has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests that were answered with 200.
    pub taken: u64,
    /// Requests that were answered with 503.
    pub refused: u64,
    /// Bytes of bodies, as sent.
    pub bytes: u64,
    /// Events in bodies that were taken, where the sink was told how to count them.
    pub events: u64,
}

/// Counts the events of a body, given whether it is gzipped.
pub type Count = fn(body: &[u8], gzipped: bool) -> u64;

/// Serves until the process ends: prints the port first.
///
/// `every` says that every so manyth request is answered with 503 (0: none).
///
/// # Errors
///
/// There is no port.
pub fn serve(every: u64, count: Option<Count>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let state = Arc::new(State { every, count, ..State::default() });
    for socket in listener.incoming() {
        let state = Arc::clone(&state);
        // A client that is gone, or speaks something else, is its own problem.
        thread::spawn(move || state.converse(&socket?));
    }
    Ok(())
}

#[derive(Default)]
struct State {
    every: u64,
    count: Option<Count>,
    posts: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    events: AtomicU64,
}

impl State {
    fn converse(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(64 << 10, socket);
        let mut writer = socket;
        let mut body = Vec::new();
        while let Some(head) = Head::read(&mut reader)? {
            if head.method == "GET" {
                if head.path.ends_with("/stats") {
                    let text = serde_json::to_string(&self.seen())?;
                    let length = text.len();
                    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")?;
                } else {
                    stream(writer, head.path.contains(FIREHOSE))?;
                }
                continue;
            }
            let post = self.posts.fetch_add(1, Ordering::Relaxed) + 1;
            let refuse = self.every > 0 && post.is_multiple_of(self.every);
            let events = match self.count {
                Some(count) => {
                    body.clear();
                    (&mut reader).take(head.length).read_to_end(&mut body)?;
                    count(&body, head.gzipped)
                }
                None => {
                    io::copy(&mut (&mut reader).take(head.length), &mut io::sink())?;
                    0
                }
            };
            self.bytes.fetch_add(head.length, Ordering::Relaxed);
            if refuse {
                self.refused.fetch_add(1, Ordering::Relaxed);
                writer.write_all(UNAVAILABLE)?;
            } else {
                self.taken.fetch_add(1, Ordering::Relaxed);
                self.events.fetch_add(events, Ordering::Relaxed);
                writer.write_all(OK)?;
            }
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Seen {
            taken: read(&self.taken),
            refused: read(&self.refused),
            bytes: read(&self.bytes),
            events: read(&self.events),
        }
    }
}

/// Answers a subscriber, until it goes away.
fn stream(mut socket: &TcpStream, firehose: bool) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    write!(socket, "{head}\r\n\r\n")?;
    if firehose {
        let text = events(CHUNK * 64 / 115, "\r\n");
        let mut block = Vec::new();
        for chunk in text.as_bytes().chunks(CHUNK) {
            write!(block, "{:x}\r\n", chunk.len())?;
            block.extend_from_slice(chunk);
            block.extend_from_slice(b"\r\n");
        }
        loop {
            socket.write_all(&block)?;
        }
    }
    socket.read(&mut [0]).map(drop)
}

/// That many events as a subscriber gets them.
#[must_use]
pub fn events(count: usize, separator: &str) -> String {
    let mut text = String::new();
    for id in 0..count as u64 {
        text += &serde_json::to_string(&Received::new(id)).unwrap_or_default();
        text += separator;
    }
    text
}

/// What a server has to know of a request's head.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    method: String,
    path: String,
    length: u64,
    gzipped: bool,
}

impl Head {
    /// `None`: the client has gone.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut text)? == 0 {
                return Ok(None);
            }
        }
        let head = str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        head.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl FromStr for Head {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut head = Self {
            method: words.next().ok_or(())?.to_owned(),
            path: words.next().ok_or(())?.to_owned(),
            ..Self::default()
        };
        for line in lines {
            let Some(colon) = memchr(b':', line.as_bytes()) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim());
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().map_err(drop)?;
            } else if name.eq_ignore_ascii_case("content-encoding") {
                head.gzipped = value == "gzip";
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                // Nobody here sends a body of unknown length.
                return Err(());
            }
        }
        Ok(head)
    }
}

/// A sink in another process.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    // Ends with it.
    _process: Player,
}

impl Sink {
    /// Starts one that answers 200 and counts no events.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with arguments of its own.
    ///
    /// # Panics
    ///
    /// It did not start.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut process = Player::start(PART, arguments);
        let port = process.line().parse().expect("a sink prints its port");
        Self { port, _process: process }
    }

    /// Where it listens, on the loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL, as a client of Stride wants it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// What it has seen so far.
    ///
    /// # Panics
    ///
    /// It does not answer.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let ask = || -> Result<Seen, ureq::Error> {
            let mut answer = ureq::get(format!("{}/stats", self.endpoint())).call()?;
            Ok(serde_json::from_str(&answer.body_mut().read_to_string()?).expect("it is JSON"))
        };
        ask().expect("a sink answers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read() {
        let text = "POST /v1/collect/a HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\n\
                    Content-Encoding: gzip\r\n\r\n";
        let head = Head {
            method: "POST".to_owned(),
            path: "/v1/collect/a".to_owned(),
            length: 12,
            gzipped: true,
        };
        assert_eq!(text.parse(), Ok(head));
        assert!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".parse::<Head>().is_err());
    }

    #[test]
    fn events_are_what_their_type_reads() {
        let text = events(3, "\r\n");
        let read: Vec<Received> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [0, 1, 2].map(Received::new));
    }
}
