//! HTTP/1.1 as the tests need it: small, and ready to say on the wire what no client would.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use stride_local::Local;

/// What hangs fails after this.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A request that is being put together; by default with the secret key and no body.
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub(crate) fn request(local: &Local, method: &str, path: &str) -> Request {
    Request::new(method, path).key(local.secret_key())
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
            .header("Host", "localhost")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        let credentials = STANDARD.encode(format!("{key}:"));
        self.header("Authorization", &format!("Basic {credentials}"))
    }

    pub(crate) fn json(self, body: impl AsRef<[u8]>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    pub(crate) fn gzip(self, body: impl AsRef<[u8]>) -> Self {
        self.header("Content-Encoding", "gzip").json(gzip(body.as_ref()))
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it on a new connection.
    pub(crate) fn send(&self, local: &Local) -> Response {
        self.try_send(local).unwrap()
    }

    pub(crate) fn try_send(&self, local: &Local) -> io::Result<Response> {
        Connection::open(local).try_exchange(&self.bytes())
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn post(local: &Local, path: &str, json: &str) -> Response {
    request(local, "POST", path).json(json).send(local)
}

pub(crate) fn get(local: &Local, path: &str) -> Response {
    request(local, "GET", path).send(local)
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of an error, which is an object with nothing else in it.
    pub(crate) fn message(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json");
        let Value::Object(object) = self.json() else { panic!("{self:?}") };
        assert_eq!(object.len(), 1, "{object:?}");
        object["message"].as_str().unwrap().to_owned()
    }

    pub(crate) fn assert_stored(&self) {
        assert_eq!((self.status, &self.body[..]), (200, &b""[..]), "{self:?}");
    }
}

/// One connection, kept open over requests.
pub(crate) struct Connection {
    pub(crate) socket: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(local: &Local) -> Self {
        Self::to(local.addr()).unwrap()
    }

    pub(crate) fn to(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket.set_write_timeout(Some(WATCHDOG)).unwrap();
        socket.set_nodelay(true).unwrap();
        Ok(Self { socket: BufReader::new(socket) })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    pub(crate) fn exchange(&mut self, request: &Request) -> Response {
        self.try_exchange(&request.bytes()).unwrap()
    }

    pub(crate) fn try_exchange(&mut self, bytes: &[u8]) -> io::Result<Response> {
        self.write(bytes)?;
        self.read_response()
    }

    pub(crate) fn read_response(&mut self) -> io::Result<Response> {
        let (status, headers) = self.read_head()?;
        // A 204 has no body, and says no length.
        let length = if status == 204 { 0 } else { headers["content-length"].parse().unwrap() };
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body)?;
        Ok(Response { status, headers, body })
    }

    pub(crate) fn read_head(&mut self) -> io::Result<(u16, HashMap<String, String>)> {
        let status = self.read_line()?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HashMap::new();
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok((status, headers))
    }

    pub(crate) fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.socket.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }

    /// Whether the peer has closed, in whatever way.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.socket.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// An open subscription.
pub(crate) struct Subscription {
    pub(crate) connection: Connection,
    pub(crate) headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Returns when the head has come, which is when the server has subscribed it.
pub(crate) fn subscribe(local: &Local, stream_and_query: &str) -> Subscription {
    let (stream, query) = stream_and_query.split_once('?').unwrap_or((stream_and_query, ""));
    let path = format!("/v1/collect/{stream}/subscribe?{query}");
    subscribe_at(local.addr(), local.secret_key(), &path)
}

pub(crate) fn subscribe_at(addr: SocketAddr, key: &str, path: &str) -> Subscription {
    let mut connection = Connection::to(addr).unwrap();
    connection.write(&Request::new("GET", path).key(key).bytes()).unwrap();
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    Subscription { connection, headers, body: Vec::new() }
}

impl Subscription {
    /// The next chunk; `None` is the proper end.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.connection.read_line()?, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.connection.socket.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// The next line, without its `\r\n`; empty is a keep-alive.
    pub(crate) fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.body.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.body[..end].to_vec()).unwrap();
                self.body.drain(..end + 2);
                return Ok(Some(line));
            }
            match self.chunk()? {
                Some(chunk) => self.body.extend(chunk),
                None => return Ok(None),
            }
        }
    }

    /// The next event, past keep-alives; `None` is the proper end.
    pub(crate) fn event(&mut self) -> Option<Value> {
        loop {
            let line = self.line().unwrap()?;
            if !line.is_empty() {
                return Some(serde_json::from_str(&line).unwrap());
            }
        }
    }
}
