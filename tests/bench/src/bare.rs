//! The bare HTTP clients, used the plainest way that is not slow.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::sink::FIREHOSE;

/// `key` without a password, as HTTP Basic.
const AUTHORIZATION: &str = "Basic a2V5Og==";

const JSON: &str = "application/json";

/// The same headers as a client of Stride sends, so that the same bytes go over the wire.
const USER_AGENT: &str = concat!("stride-rust (version: ", env!("CARGO_PKG_VERSION"), ")");

/// ureq with its defaults: no limits on time.
#[derive(Debug)]
pub struct Blocking {
    agent: ureq::Agent,
    base: String,
}

impl Blocking {
    /// A client of the sink at this port.
    #[must_use]
    pub fn new(port: u16) -> Self {
        let base = format!("http://127.0.0.1:{port}/v1/collect");
        Self { agent: ureq::Agent::new_with_defaults(), base }
    }

    /// Posts a body, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// No answer, or not a success.
    pub fn post(&self, body: &[u8], gzipped: bool) -> Result<(), ureq::Error> {
        let mut request = self
            .agent
            .post(format!("{}/mystream", self.base))
            .header("authorization", AUTHORIZATION)
            .header("accept", JSON)
            .header("user-agent", USER_AGENT)
            .header("content-type", JSON);
        if gzipped {
            request = request.header("content-encoding", "gzip");
        }
        let mut answer = request.send(body)?.into_body().into_reader();
        io::copy(&mut answer, &mut io::sink())?;
        Ok(())
    }

    /// The body of the firehose.
    ///
    /// # Errors
    ///
    /// No answer, or not a success.
    pub fn subscribe(&self) -> Result<impl io::Read, ureq::Error> {
        let path = format!("{}/{FIREHOSE}/subscribe", self.base);
        let answer = self.agent.get(path).header("authorization", AUTHORIZATION).call()?;
        Ok(answer.into_body().into_reader())
    }
}

/// One connection of hyper's, without a pool.
#[derive(Debug)]
pub struct Async {
    requests: SendRequest<Full<Bytes>>,
    host: String,
}

impl Async {
    /// Connects to the sink at this port; the connection is driven by a task of its own.
    ///
    /// # Errors
    ///
    /// There is no connection.
    pub async fn connect(port: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self { requests, host: format!("127.0.0.1:{port}") })
    }

    /// Posts a body, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// No answer.
    pub async fn post(
        &mut self,
        body: Bytes,
        gzipped: bool,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut request = self.request("POST", "mystream").header("content-type", JSON);
        if gzipped {
            request = request.header("content-encoding", "gzip");
        }
        self.requests.ready().await?;
        let answer = self.requests.send_request(request.body(Full::new(body))?).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    /// The body of the firehose.
    ///
    /// # Errors
    ///
    /// No answer.
    pub async fn subscribe(mut self) -> Result<Incoming, Box<dyn std::error::Error>> {
        let request = self.request("GET", &format!("{FIREHOSE}/subscribe"));
        let request = request.body(Full::default())?;
        Ok(self.requests.send_request(request).await?.into_body())
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("/v1/collect/{path}"))
            .header("host", &self.host)
            .header("authorization", AUTHORIZATION)
            .header("accept", JSON)
            .header("user-agent", USER_AGENT)
    }
}

/// Reads `left` lines of a body and parses each. What else was read with the last of them is dropped.
///
/// # Errors
///
/// What reading gives.
pub fn lines(
    mut body: impl io::Read,
    mut left: usize,
    mut parse: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut room = vec![0; 64 << 10];
    while left > 0 {
        let length = body.read(&mut room)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lines.split(&room[..length], &mut left, &mut parse);
    }
    Ok(())
}

/// Splits chunks at line breaks, with memchr. Only a line that is cut is copied.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Parses the lines that end in this chunk, while there are some `left` to be parsed.
    pub fn split(&mut self, chunk: &[u8], left: &mut usize, mut parse: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            if *left == 0 {
                return;
            }
            *left -= 1;
            if self.rest.is_empty() {
                parse(&chunk[start..end]);
            } else {
                self.rest.extend_from_slice(&chunk[start..end]);
                parse(&self.rest);
                self.rest.clear();
            }
            start = end + 1;
        }
        self.rest.extend_from_slice(&chunk[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = b"one\ntwo\nthree\nfour\n";
        for size in 1..text.len() {
            let (mut lines, mut left, mut seen) = (Lines::default(), 3, Vec::new());
            for chunk in text.chunks(size) {
                lines.split(chunk, &mut left, |line| seen.push(line.to_vec()));
            }
            assert_eq!(seen.concat(), b"onetwothree");
        }
    }
}
