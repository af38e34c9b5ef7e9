//! A proxy on loopback that troubles the connections through it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

/// Passes bytes on between clients and a server. A seed decides what becomes of each connection: half of them are
/// cut, reset, stalled or throttled after some bytes, in one direction or the other.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    servers: Mutex<Vec<SocketAddr>>,
    calm: AtomicBool,
    ended: AtomicBool,
    troubled: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Both sides see an orderly end.
    Cut,
    /// Both sides see a reset.
    Reset,
    /// Nothing more arrives in this direction, though the sender can go on.
    Stall,
    /// The rest arrives in small pieces.
    Throttle,
}

/// Trouble after so many bytes.
type Plan = Option<(Trouble, usize)>;

impl Proxy {
    /// A proxy before the server at this address.
    #[must_use]
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            seed,
            servers: Mutex::new(vec![server]),
            calm: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            troubled: AtomicU64::new(0),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for number in 0.. {
                    let Ok((client, _)) = listener.accept() else { return };
                    if shared.ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.connect(&client, number));
                }
            })
        };
        Self { shared, address, accepting: Some(accepting) }
    }

    /// The base URL of the API behind it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The server is somewhere else now.
    pub fn redirect(&self, server: SocketAddr) {
        self.balance(&[server]);
    }

    /// There are several servers now, which take turns. One that refuses a connection is passed over.
    pub fn balance(&self, servers: &[SocketAddr]) {
        *self.shared.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }

    /// Lets everything through from now on; a connection that is stalled stays so.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
    }

    /// How many connections have had their trouble so far.
    #[must_use]
    pub fn troubled(&self) -> u64 {
        self.shared.troubled.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It is woken by a last connection.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

impl Shared {
    /// What becomes of a connection: upward, which is to the server, and downward.
    fn plans(&self, connection: u64) -> (Plan, Plan) {
        let mut random = Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(connection));
        let trouble = match random.u8(..8) {
            0 => Trouble::Cut,
            1 => Trouble::Reset,
            2 => Trouble::Stall,
            3 => Trouble::Throttle,
            _ => return (None, None),
        };
        // Heads and small bodies are to be hit as well as large ones.
        let scale = random.u32(1..=14);
        let plan = Some((trouble, random.usize(..1 << scale)));
        if random.bool() { (plan, None) } else { (None, plan) }
    }

    fn connect(&self, client: &TcpStream, connection: u64) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let turn = (connection as usize).checked_rem(servers.len());
        servers.rotate_left(turn.unwrap_or_default());
        // Without a server the client finds its connection closed.
        let Some(server) = servers.iter().find_map(|it| TcpStream::connect(it).ok()) else {
            return;
        };
        for socket in [client, &server] {
            drop(socket.set_nodelay(true));
        }
        let (up, down) = self.plans(connection);
        let is_reset = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(client, &server, up, &is_reset));
            self.pass(&server, client, down, &is_reset);
        });
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, plan: Plan, is_reset: &AtomicBool) {
        let mut buffer = vec![0; 16 * 1024];
        let mut left = plan.map_or(usize::MAX, |(_, after)| after);
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let (before, after) = buffer[..read].split_at(read.min(left));
            if to.write_all(before).is_err() {
                break;
            }
            left -= before.len();
            let Some((trouble, _)) = plan.filter(|_| left == 0) else { continue };
            if self.calm.load(Ordering::SeqCst) {
                if to.write_all(after).is_err() {
                    break;
                }
                continue;
            }
            self.troubled.fetch_add(1, Ordering::SeqCst);
            match trouble {
                Trouble::Cut => {
                    for socket in [from, to] {
                        drop(socket.shutdown(Shutdown::Both));
                    }
                    return;
                }
                Trouble::Reset => {
                    is_reset.store(true, Ordering::SeqCst);
                    for socket in [from, to] {
                        // The reset is sent once both directions are over and the sockets are closed.
                        drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
                        drop(socket.shutdown(Shutdown::Read));
                    }
                    return;
                }
                Trouble::Stall => {
                    while matches!(from.read(&mut buffer), Ok(1..)) {}
                    break;
                }
                Trouble::Throttle => {
                    for piece in after.chunks(256) {
                        if to.write_all(piece).is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
        if !is_reset.load(Ordering::SeqCst) {
            drop(to.shutdown(Shutdown::Write));
        }
    }
}
