//! The server's own loop: it accepts connections until it is told to end.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{Ending, Socket};
use super::handlers;
use super::response;
use crate::shared::Shared;

/// How much hyper may buffer of a connection. A subscriber's events wait in its mailbox instead,
/// where they are counted.
const BUFFER: usize = 64 * 1024;

/// How many connections too many are told so at once; the others are closed without a word.
const TURNED_AWAY: usize = 64;

/// How long a response that ends a connection may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the server can be told. The senders are dropped when it is done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Cut every connection.
    Disconnect { done: mpsc::Sender<()> },
    /// Cut every connection and refuse new ones.
    Refuse { done: mpsc::Sender<()> },
    /// Accept connections again.
    Accept { done: mpsc::Sender<()> },
    /// End: open requests and subscriptions have `grace` to finish.
    Stop { grace: Duration },
}

/// Whether connections are accepted.
#[derive(Debug)]
enum Door {
    Open(TcpListener),
    /// Bound but not listening, which refuses and yet keeps the port.
    Shut(TcpSocket),
    /// Neither was possible: another program took the port in between.
    Lost,
}

impl Door {
    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => Ok(listener.accept().await?.0),
            Self::Shut(_) | Self::Lost => future::pending().await,
        }
    }

    fn open(self, at: SocketAddr) -> Self {
        let listening = match self {
            Self::Open(listener) => Ok(listener),
            Self::Shut(socket) => socket.listen(1024),
            Self::Lost => bind(at).and_then(|socket| socket.listen(1024)),
        };
        listening.map_or_else(|error| Self::lost(&error), Self::Open)
    }

    fn shut(self, at: SocketAddr) -> Self {
        drop(self);
        bind(at).map_or_else(|error| Self::lost(&error), Self::Shut)
    }

    fn lost(error: &io::Error) -> Self {
        tracing::error!(%error, "the port could not be taken again");
        Self::Lost
    }
}

fn bind(at: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections that were cut may keep the address for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    Ok(socket)
}

/// Serves until it is told to stop, or until all senders are gone.
pub(crate) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) {
    let at = shared.addr;
    let mut door = Door::Open(listener);
    let mut connections = JoinSet::new();
    let mut turned_away = JoinSet::new();
    let (finish, _) = watch::channel(false);

    let grace = loop {
        tokio::select! {
            accepted = door.accept() => match accepted {
                Ok(tcp) => {
                    let counters = &shared.counters;
                    counters.connections.fetch_add(1, Ordering::Relaxed);
                    if counters.open.load(Ordering::Relaxed) < shared.limits.max_connections {
                        let open = Open::new(&shared);
                        connections.spawn(serve(tcp, open, finish.subscribe()));
                    } else {
                        counters.turned_away.fetch_add(1, Ordering::Relaxed);
                        if turned_away.len() < TURNED_AWAY {
                            turned_away.spawn(turn_away(tcp));
                        }
                    }
                    shared.changes.note();
                }
                Err(error) => {
                    // Out of file descriptors, most likely: only time helps.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            Some(_) = turned_away.join_next() => {}
            command = commands.recv() => match command {
                Some(Command::Disconnect { done }) => {
                    connections.shutdown().await;
                    drop(done);
                }
                Some(Command::Refuse { done }) => {
                    door = door.shut(at);
                    connections.shutdown().await;
                    drop(done);
                }
                Some(Command::Accept { done }) => {
                    door = door.open(at);
                    drop(done);
                }
                Some(Command::Stop { grace }) => break grace,
                None => break Duration::ZERO,
            },
        }
    };

    drop(door);
    if !grace.is_zero() {
        shared.subscribers.close();
        finish.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(grace, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "cut at the end of the grace period");
        }
    }
    connections.shutdown().await;
}

async fn serve(tcp: TcpStream, open: Open, mut finish: watch::Receiver<bool>) {
    let shared = &open.shared;
    // A response is a head and a body; the body must not wait for the client to acknowledge the head.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let ending = Arc::new(Ending::default());
    let socket = TokioIo::new(Socket::new(tcp, Arc::clone(&ending), shared.limits.write_time));
    let service =
        service_fn(|request| handlers::serve(Arc::clone(shared), Arc::clone(&ending), request));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_time)
        .max_buf_size(BUFFER)
        .serve_connection(socket, service);
    let finishing = async { drop(finish.wait_for(|finish| *finish).await) };
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = finishing => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    tracing::debug!(%error, "a connection ended badly");
    let (status, why) = if error.is_timeout() {
        (StatusCode::REQUEST_TIMEOUT, "the head of the request did not come in time")
    } else if error.is_incomplete_message() {
        (StatusCode::BAD_REQUEST, "the head of the request was cut short")
    } else {
        return;
    };
    let parts = connection.into_parts();
    // hyper closes the connection without a word, which is right if the client sent none.
    if !parts.read_buf.is_empty() {
        shared.counters.responded(status);
        end_with(parts.io.into_inner(), &ending, status, why).await;
    }
}

/// Responds to a connection that is one too many.
async fn turn_away(tcp: TcpStream) {
    let ending = Arc::new(Ending::default());
    let socket = Socket::new(tcp, Arc::clone(&ending), LAST_WORDS);
    let why = "too many connections are open";
    end_with(socket, &ending, StatusCode::SERVICE_UNAVAILABLE, why).await;
}

/// Ends a connection with a response to a request that was not read.
async fn end_with(mut socket: Socket, ending: &Ending, status: StatusCode, why: &str) {
    ending.linger();
    let last = async {
        socket.write_all(&response::last_words(status, why)).await?;
        socket.shutdown().await
    };
    if let Ok(Err(error)) = timeout(LAST_WORDS, last).await {
        tracing::debug!(%error, "a connection went before its last response");
    }
}

/// Counts a connection for as long as it is open, however it ends.
struct Open {
    shared: Arc<Shared>,
}

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.counters.open.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.changes.note();
    }
}
