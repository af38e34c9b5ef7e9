//! A server that knows bytes: a script on a thread, with a listener.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A script that runs, and where it listens.
pub(crate) struct Server<R = ()> {
    pub(crate) address: SocketAddr,
    script: JoinHandle<R>,
}

impl<R: Send + 'static> Server<R> {
    pub(crate) fn run(script: impl FnOnce(TcpListener) -> R + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, script: thread::spawn(move || script(listener)) }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Waits for the end of the script, and fails if it did.
    pub(crate) fn join(self) -> R {
        match self.script.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The same, while the runtime goes on.
    pub(crate) async fn joined(self) -> R {
        tokio::task::spawn_blocking(|| self.join()).await.unwrap()
    }
}

/// A connection that was accepted, with or without TLS.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
}

impl Peer {
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Closes the connection so that the client sees a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl<S: Read + Write> Peer<S> {
    /// Reads one request: its head in lower case, and its body.
    pub(crate) fn request(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a whole request head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).expect("a whole request body");
        (head, body)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Answers with a head and a body of that length.
    pub(crate) fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.write(&format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"));
    }

    /// The head of a stream that ends with its connection.
    pub(crate) fn open_stream(&mut self) {
        self.request();
        self.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n");
    }

    /// Waits until the client closes the connection.
    pub(crate) fn expect_close(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
                "the client does not close: {error}"
            ),
        }
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

/// Fails if somebody has connected.
pub(crate) fn expect_nobody(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}
