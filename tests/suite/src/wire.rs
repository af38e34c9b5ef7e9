//! A server that knows bytes and no HTTP library. It plays what a test scripts, exchange by
//! exchange; so it can be a proxy, speak TLS ([`tls`]), be slow, or break off anywhere.

mod peer;
mod ports;
pub mod tls;

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use peer::{Peer, Request};
pub use ports::{FullBacklog, RefusingPort};

/// The head of a response whose body comes in chunks.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A response with this status, as in `200 OK`, whose head tells the length of its body.
#[must_use]
pub fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A chunk of a body.
#[must_use]
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// What the server does, step by step, once it has a connection.
pub enum Act {
    /// Reads a whole request and records it.
    Request,
    /// Reads the head of a request, and leaves its body.
    RequestHead,
    /// Reads this many bytes, of whatever there is.
    Read(usize),
    /// Writes these bytes at once.
    Write(Vec<u8>),
    /// Writes these bytes one by one, each in another packet.
    Trickle(Vec<u8>),
    /// Writes these bytes again and again, with a pause between, until the client is gone.
    Pour(Vec<u8>, Duration),
    /// Does nothing for this long. For a server that is slow, not for waiting for anything.
    Pause(Duration),
    /// Tells the test that the script has come this far.
    Tell(Sender<()>),
    /// Goes on when the test says so, or has dropped its end.
    Await(Receiver<()>),
    /// Connects to the address that the last request asked for, says so, and is a tunnel from then
    /// on. Only for addresses of this machine.
    Tunnel,
    /// Does with the connection whatever no other act does.
    With(Box<dyn FnOnce(&mut Peer) + Send>),
    /// Waits until the client has closed the connection.
    Closed,
    /// Closes the sending direction only.
    HalfClose,
    /// Says goodbye as TLS does, which without TLS is nothing.
    Goodbye,
    /// Breaks the connection.
    Reset,
    /// Closes it in order, though without a goodbye.
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
    pub fn gate() -> (Sender<()>, Self) {
        let (open, gate) = mpsc::channel();
        (open, Self::Await(gate))
    }

    /// An act that tells when it is reached.
    #[must_use]
    pub fn signal() -> (Self, Receiver<()>) {
        let (reached, is_reached) = mpsc::channel();
        (Self::Tell(reached), is_reached)
    }
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("Request"),
            Self::RequestHead => f.write_str("RequestHead"),
            Self::Read(length) => write!(f, "Read({length})"),
            Self::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            Self::Trickle(bytes) => write!(f, "Trickle({} bytes)", bytes.len()),
            Self::Pour(bytes, pause) => write!(f, "Pour({} bytes, {pause:?})", bytes.len()),
            Self::Pause(pause) => write!(f, "Pause({pause:?})"),
            Self::Tell(_) => f.write_str("Tell"),
            Self::Await(_) => f.write_str("Await"),
            Self::Tunnel => f.write_str("Tunnel"),
            Self::With(_) => f.write_str("With"),
            Self::Closed => f.write_str("Closed"),
            Self::HalfClose => f.write_str("HalfClose"),
            Self::Goodbye => f.write_str("Goodbye"),
            Self::Reset => f.write_str("Reset"),
            Self::Close => f.write_str("Close"),
        }
    }
}

/// A server on a free port of the loopback. It stops when it is dropped, and fails the test if a
/// part of its script panicked.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    tls: Option<Arc<rustls::ServerConfig>>,
    seen: Mutex<Seen>,
    changed: Condvar,
    stopped: AtomicBool,
}

enum Script {
    Once(VecDeque<Vec<Act>>),
    Always(Box<dyn Fn() -> Vec<Act> + Send>),
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once(exchanges) => f.debug_tuple("Once").field(exchanges).finish(),
            Self::Always(_) => f.write_str("Always"),
        }
    }
}

/// What the server has seen so far.
#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    connections: usize,
    /// How many connections the client was seen to close, by [`Act::Closed`].
    closed: usize,
    /// How many exchanges were played to their end.
    played: usize,
    /// The protocol that each TLS handshake agreed on.
    protocols: Vec<Option<String>>,
    /// Whether a part of the script panicked.
    failed: bool,
}

/// What comes after an act.
enum After {
    Next,
    /// The connection has ended as the script says.
    End,
}

impl Server {
    /// Starts one that plays an exchange after the other. One that starts with [`Act::Request`] or
    /// [`Act::RequestHead`] may be played on a connection that is kept; a connection without an
    /// exchange left is closed.
    #[must_use]
    pub fn start(exchanges: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Self::listen(None, Script::Once(exchanges.into_iter().collect()))
    }

    /// The same over TLS.
    #[must_use]
    pub fn start_tls(
        identity: &tls::Identity,
        exchanges: impl IntoIterator<Item = Vec<Act>>,
    ) -> Self {
        let script = Script::Once(exchanges.into_iter().collect());
        Self::listen(Some(Arc::clone(&identity.config)), script)
    }

    /// Starts one that plays the same exchange as often as it is asked for.
    #[must_use]
    pub fn always(exchange: impl Fn() -> Vec<Act> + Send + 'static) -> Self {
        Self::listen(None, Script::Always(Box::new(exchange)))
    }

    /// The same over TLS.
    #[must_use]
    pub fn always_tls(
        identity: &tls::Identity,
        exchange: impl Fn() -> Vec<Act> + Send + 'static,
    ) -> Self {
        Self::listen(Some(Arc::clone(&identity.config)), Script::Always(Box::new(exchange)))
    }

    /// Starts one that gives every request the same response.
    #[must_use]
    pub fn responding(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::always(move || vec![Act::Request, Act::Write(response.clone())])
    }

    /// Starts a proxy that opens every tunnel it is asked for, to addresses of this machine.
    #[must_use]
    pub fn proxy() -> Self {
        Self::always(|| vec![Act::Request, Act::Tunnel])
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            tls,
            seen: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                server.see(|seen| seen.connections += 1);
                let server = Arc::clone(&server);
                thread::spawn(move || {
                    let play = AssertUnwindSafe(|| server.play(stream));
                    if catch_unwind(play).is_err() {
                        server.see(|seen| seen.failed = true);
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of the API.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL of the API over TLS, by this name of the loopback.
    #[must_use]
    pub fn https_endpoint(&self, host: &str) -> String {
        format!("https://{host}:{}/v1", self.address.port())
    }

    /// Every request so far that was read whole.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.seen().requests.clone()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.seen().connections
    }

    /// The protocol that each TLS handshake so far has agreed on.
    #[must_use]
    pub fn protocols(&self) -> Vec<Option<String>> {
        self.shared.seen().protocols.clone()
    }

    /// Waits until this many requests were read whole.
    pub fn wait_for_requests(&self, count: usize) {
        self.wait_until(|seen| seen.requests.len() >= count);
    }

    /// Waits until the client has closed this many connections, seen by [`Act::Closed`].
    pub fn wait_until_closed(&self, count: usize) {
        self.wait_until(|seen| seen.closed >= count);
    }

    /// Waits until this many exchanges were played to their end.
    pub fn wait_until_played(&self, count: usize) {
        self.wait_until(|seen| seen.played >= count);
    }

    fn wait_until(&self, enough: impl Fn(&Seen) -> bool) {
        let seen = self.shared.seen();
        let waits = |seen: &mut Seen| !seen.failed && !enough(seen);
        let seen = self.shared.changed.wait_while(seen, waits);
        let failed = seen.unwrap_or_else(PoisonError::into_inner).failed;
        assert!(!failed, "the server's script failed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        let failed = self.shared.seen().failed;
        assert!(!failed || thread::panicking(), "the server's script failed");
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.changed.notify_all();
    }

    /// Plays exchanges until the connection ends. A client that is gone ends the play, whatever the
    /// script says.
    fn play(&self, stream: TcpStream) -> Option<()> {
        let mut peer = Peer::new(stream, self.tls.clone())?;
        if self.tls.is_some() {
            let protocol = peer.handshake()?;
            self.see(|seen| seen.protocols.push(protocol));
        }
        while let Some(exchange) = self.next(&mut peer) {
            for act in exchange {
                if let After::End = self.act(act, &mut peer)? {
                    // Whoever waits for this finds the connection closed.
                    drop(peer);
                    self.see(|seen| seen.played += 1);
                    return Some(());
                }
            }
            self.see(|seen| seen.played += 1);
        }
        Some(())
    }

    /// The next exchange, once the client wants one: that is, has sent a byte or wants none sent.
    fn next(&self, peer: &mut Peer) -> Option<Vec<Act>> {
        let script = || self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, waits) = match &*script() {
            Script::Once(exchanges) => (None, waits(exchanges.front()?)),
            Script::Always(exchange) => {
                let exchange = exchange();
                let waits = waits(&exchange);
                (Some(exchange), waits)
            }
        };
        if waits && !peer.fill().ok()? {
            return None;
        }
        first.or_else(|| match &mut *script() {
            Script::Once(exchanges) => exchanges.pop_front(),
            Script::Always(exchange) => Some(exchange()),
        })
    }

    fn act(&self, act: Act, peer: &mut Peer) -> Option<After> {
        match act {
            Act::Request => {
                let request = peer.request()?;
                self.see(|seen| seen.requests.push(request));
            }
            Act::RequestHead => drop(peer.head()?),
            Act::Read(length) => peer.read_exact(&mut vec![0; length]).ok()?,
            Act::Write(bytes) => peer.write_all(&bytes).ok()?,
            Act::Trickle(bytes) => {
                for byte in bytes {
                    peer.write_all(&[byte]).ok()?;
                    thread::yield_now();
                }
            }
            Act::Pour(bytes, pause) => {
                while peer.write_all(&bytes).is_ok() {
                    thread::sleep(pause);
                }
                return Some(After::End);
            }
            Act::Pause(pause) => thread::sleep(pause),
            // A test that no longer listens has seen enough.
            Act::Tell(reached) => drop(reached.send(())),
            // Dropped by the test or told: either way it goes on.
            Act::Await(gate) => drop(gate.recv()),
            Act::Tunnel => {
                let target = self.seen().requests.last().cloned()?;
                peer.tunnel(&target)?;
                return Some(After::End);
            }
            Act::With(act) => act(peer),
            Act::Closed => {
                let mut rest = [0; 1 << 16];
                while peer.read(&mut rest).is_ok_and(|read| read > 0) {}
                self.see(|seen| seen.closed += 1);
                return Some(After::End);
            }
            Act::HalfClose => peer.socket().shutdown(Shutdown::Write).ok()?,
            Act::Goodbye => peer.goodbye()?,
            Act::Reset => {
                let socket = socket2::SockRef::from(peer.socket());
                socket.set_linger(Some(Duration::ZERO)).ok()?;
                return Some(After::End);
            }
            Act::Close => return Some(After::End),
        }
        Some(After::Next)
    }
}

/// Whether an exchange begins with what the client sends.
fn waits(exchange: &[Act]) -> bool {
    matches!(exchange.first(), Some(Act::Request | Act::RequestHead | Act::Read(_)))
}
