//! A server that knows bytes: it plays what a test scripts, exchange by exchange.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does, step by step, once it has a connection.
#[derive(Debug)]
pub enum Act {
    /// Reads a whole request and records it.
    Request,
    /// Reads the head of a request, and leaves its body.
    RequestHead,
    /// Writes these bytes at once.
    Write(Vec<u8>),
    /// Writes these bytes one by one, each in a packet of its own.
    Trickle(Vec<u8>),
    /// Goes on when the test says so, or has dropped its end.
    Await(Receiver<()>),
    /// Waits until the client has closed the connection.
    Closed,
    /// Closes the sending direction only.
    HalfClose,
    /// Breaks the connection.
    Reset,
    /// Closes it in order.
    Close,
}

impl Act {
    /// Writes this text at once.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Write(text.as_bytes().to_vec())
    }

    /// A wait that ends when what is returned is used or dropped.
    #[must_use]
    pub fn gate() -> (mpsc::Sender<()>, Self) {
        let (open, gate) = mpsc::channel();
        (open, Self::Await(gate))
    }
}

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

/// A server on a free port of the loopback. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    exchanges: Mutex<VecDeque<Vec<Act>>>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    /// How many connections the client was seen to close.
    closed: Mutex<usize>,
    closing: Condvar,
    stopped: AtomicBool,
}

impl Server {
    /// Starts one that plays an exchange after the other. One that starts with [`Act::Request`] may
    /// be played on a connection that is kept; a connection without an exchange left is closed.
    #[must_use]
    pub fn start(exchanges: impl IntoIterator<Item = Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        lock(&shared.exchanges).extend(exchanges);
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                server.connections.fetch_add(1, Ordering::SeqCst);
                let server = Arc::clone(&server);
                thread::spawn(move || server.play(stream));
            }
        });
        Self { address, shared }
    }

    /// The base URL of the API.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far that was read whole.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Waits until the client has closed this many connections, seen by [`Act::Closed`].
    pub fn wait_until_closed(&self, count: usize) {
        let closed = lock(&self.shared.closed);
        drop(self.shared.closing.wait_while(closed, |closed| *closed < count));
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    fn play(&self, mut stream: TcpStream) {
        // A client that is gone ends the play, whatever the script says.
        while let Some(exchange) = self.next(&mut stream) {
            for act in exchange {
                if self.act(act, &mut stream).is_none() {
                    return;
                }
            }
        }
    }

    /// The next exchange, once the client wants one: that is, has sent a byte or wants none sent.
    fn next(&self, stream: &mut TcpStream) -> Option<Vec<Act>> {
        let waits = matches!(
            lock(&self.exchanges).front().and_then(|exchange| exchange.first()),
            Some(Act::Request | Act::RequestHead)
        );
        if waits && stream.peek(&mut [0]).ok()? == 0 {
            return None;
        }
        lock(&self.exchanges).pop_front()
    }

    fn act(&self, act: Act, stream: &mut TcpStream) -> Option<()> {
        match act {
            Act::Request => {
                let request = read_request(stream)?;
                lock(&self.requests).push(request);
            }
            Act::RequestHead => drop(read_head(stream)?),
            Act::Write(bytes) => stream.write_all(&bytes).ok()?,
            Act::Trickle(bytes) => {
                stream.set_nodelay(true).ok()?;
                for byte in bytes {
                    stream.write_all(&[byte]).ok()?;
                    thread::yield_now();
                }
            }
            // Dropped by the test or told: either way it goes on.
            Act::Await(gate) => drop(gate.recv()),
            Act::Closed => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
                *lock(&self.closed) += 1;
                self.closing.notify_all();
                return None;
            }
            Act::HalfClose => stream.shutdown(Shutdown::Write).ok()?,
            Act::Reset => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                return None;
            }
            Act::Close => return None,
        }
        Some(())
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    head.truncate(head.len() - 4);
    String::from_utf8(head).ok()
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut request = Request { head: read_head(stream)?, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok());
    if let Some(length) = length {
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).ok()?;
    } else if request.header("transfer-encoding").is_some() {
        panic!("bodies of known length are sent with it");
    }
    Some(request)
}
