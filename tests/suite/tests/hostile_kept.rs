//! Kept connections on which a server says something that nobody asked for.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use stride_tests::{Over, suite};

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        n6_a_kept_connection_on_which_a_byte_waits_is_not_used_again,
    ]
}

/// What a server may send on a connection that has nothing to do. The first is what balancers send
/// before they close.
const UNSOLICITED: [&str; 5] = [
    "HTTP/1.1 408 Request Time-out\r\ncontent-length: 4\r\nconnection: close\r\n\r\nslow",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "H",
    "\r\n",
];

fn respond(peer: &mut TcpStream, body: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let length = body.len();
    write!(peer, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
}

fn n6_a_kept_connection_on_which_a_byte_waits_is_not_used_again(over: Over) {
    for unsolicited in UNSOLICITED {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = over.client(&format!("http://{}/v1", listener.local_addr().unwrap()));
        let (answered, is_answered) = mpsc::channel();
        let (written, is_written) = mpsc::channel();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            respond(&mut peer, "first");
            is_answered.recv().unwrap();
            peer.write_all(unsolicited.as_bytes()).unwrap();
            // It is in the client's socket by now, of which its runtime knows nothing.
            written.send(()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            respond(&mut peer, "second");
            respond(&mut peer, "third");
        });
        assert_eq!(client.get("/collect").unwrap().body(), "first");
        answered.send(()).unwrap();
        is_written.recv().unwrap();
        for body in ["second", "third"] {
            let response = client.get("/collect").unwrap();
            assert_eq!((response.status().as_u16(), &response.body()[..]), (200, body.as_bytes()));
        }
        server.join().unwrap();
    }
}
