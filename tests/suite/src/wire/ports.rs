use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    (socket, address.expect("a bound socket has an address"))
}

/// A port that refuses connections, and that nobody else is given meanwhile.
#[derive(Debug)]
pub struct RefusingPort {
    // Bound, and never listened to.
    _socket: Socket,
    address: SocketAddr,
}

impl RefusingPort {
    /// Takes a free port of the loopback.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes a port, which may fail")]
    pub fn new() -> Self {
        let (socket, address) = bound();
        Self { _socket: socket, address }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of an API that would be there.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// A listener whose backlog is full: the system drops new attempts to connect without a word. So
/// does Linux, at least.
#[derive(Debug)]
pub struct FullBacklog {
    _listener: Socket,
    _waiting: Vec<Socket>,
    address: SocketAddr,
}

impl FullBacklog {
    /// Takes a free port of the loopback, and fills its backlog.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes a port, which may fail")]
    pub fn new() -> Self {
        let (listener, address) = bound();
        listener.listen(0).expect("a bound socket listens");
        let mut waiting = Vec::new();
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // What succeeds does so at once on the loopback.
            if socket.connect_timeout(&address.into(), Duration::from_millis(200)).is_err() {
                return Self { _listener: listener, _waiting: waiting, address };
            }
            waiting.push(socket);
        }
    }

    /// The base URL of an API that would be there.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}
