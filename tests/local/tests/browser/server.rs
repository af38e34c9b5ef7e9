//! What stands behind the page: the program, and a proxy that serves it below a path.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::http::{Connection, Request, Response};

pub(crate) const KEY: &str = "a-key-that-nobody-may-see";
/// How the key looks in a header.
pub(crate) const ENCODED: &str = "YS1rZXktdGhhdC1ub2JvZHktbWF5LXNlZTo";
pub(crate) const OPEN_KEY: &str = "an-open-key";

/// The program, which is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    log: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts the program on this file, with all that it can log.
    pub(crate) fn start(file: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stride-local"));
        command.args(["--listen", "127.0.0.1:0", "--log", "trace", "--data"]).arg(file);
        command.args(["--secret-key", KEY, "--open-key", OPEN_KEY]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        let addr = endpoint_of(&mut child);
        Self { child, addr, log: Some(log) }
    }

    /// A program that listens there.
    pub(crate) fn of(child: Child, addr: SocketAddr) -> Self {
        Self { child, addr, log: None }
    }

    pub(crate) fn page(&self) -> String {
        format!("http://{}/ui/", self.addr)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Response {
        let request = Request::new(method, path).key(KEY);
        let request = if body.is_null() { request } else { request.json(body.to_string()) };
        Connection::to(self.addr).unwrap().exchange(&request)
    }

    pub(crate) fn collect(&self, stream: &str, events: &Value) {
        self.ask("POST", &format!("/v1/collect/{stream}"), events).assert_stored();
    }

    /// How many subscriptions are open.
    pub(crate) fn subscribers(&self) -> u64 {
        self.ask("GET", "/overview", &Value::Null).json()["subscribers"].as_u64().unwrap()
    }

    /// Kills it, and returns what it has logged.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.log.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the program says that it listens, which is the first thing that it says.
pub(crate) fn endpoint_of(child: &mut Child) -> SocketAddr {
    let mut endpoint = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    let addr = endpoint.trim().strip_prefix("http://").and_then(|it| it.strip_suffix("/v1"));
    addr.unwrap_or_else(|| panic!("it did not start: {endpoint:?}")).parse().unwrap()
}

/// Where the proxy serves the program.
pub(crate) const PREFIX: &str = "/deep/prefix";

/// A proxy that serves a server below [`PREFIX`], and keeps the head of each request. It has an address of its own, so the
/// server can be another one after a restart.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Arc::new(Mutex::new(server));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { addr, server: Arc::clone(&server), heads: Arc::clone(&heads) };
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, heads) = (Arc::clone(&server), Arc::clone(&heads));
                thread::spawn(move || {
                    let to = *server.lock().unwrap();
                    // A browser that is gone, or a server, is no failure of the proxy.
                    let _ = pass(&client, to, &heads);
                });
            }
        });
        proxy
    }

    pub(crate) fn page(&self) -> String {
        format!("http://{}{PREFIX}/ui/", self.addr)
    }

    pub(crate) fn redirect(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Passes one request on, and its response back. Both end with their connection.
fn pass(client: &TcpStream, to: SocketAddr, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&line);
        }
    }
    heads.lock().unwrap().push(head.clone());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let below = format!(" {PREFIX}/");
    if !head.lines().next().is_some_and(|line| line.contains(&below)) {
        let refused = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let mut client = client;
        return client.write_all(refused.as_bytes());
    }
    let mut server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    let head = format!("{}Connection: close\r\n\r\n", head.replacen(&below, " /", 1));
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    let (mut from, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to_client);
        to_client.shutdown(Shutdown::Both)
    });
    // The client sends nothing more: this ends when it has gone.
    let _ = std::io::copy(&mut reader, &mut server);
    server.shutdown(Shutdown::Both)?;
    let _ = back.join();
    Ok(())
}
