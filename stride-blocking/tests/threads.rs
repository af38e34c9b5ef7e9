//! Alone in its program, because it counts threads.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use stride_blocking::Stride;

/// The number of a new thread: they are counted up as they are made.
fn thread_number() -> u64 {
    let id = thread::spawn(|| thread::current().id()).join().unwrap();
    let text = format!("{id:?}");
    text.trim_start_matches("ThreadId(").trim_end_matches(')').parse().unwrap()
}

#[test]
fn no_thread_is_made_for_a_request_although_every_limit_is_set() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut chunk = [0; 4096];
            // A GET comes in one piece.
            while stream.read(&mut chunk).is_ok_and(|length| length > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        }
    });
    let before = thread_number();
    for host in ["127.0.0.1", "localhost"] {
        let stride = Stride::builder("key")
            .endpoint(&format!("http://{host}:{port}/v1"))
            .timeout(Duration::from_secs(20))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        for _ in 0..50 {
            assert_eq!(stride.get("/collect").unwrap().status(), 200);
        }
    }
    assert_eq!(thread_number(), before + 1);
    server.join().unwrap();
}
