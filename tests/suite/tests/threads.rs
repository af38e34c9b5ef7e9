//! No request makes a thread. Alone in its process, because it counts threads.

use std::thread;
use std::time::Duration;

use stride_blocking::Stride;
use stride_tests::watchdog;
use stride_tests::wire::Server;

/// The number of a new thread: they are counted up as they are made.
fn thread_number() -> u64 {
    let id = thread::spawn(|| thread::current().id()).join().unwrap();
    let text = format!("{id:?}");
    text.trim_start_matches("ThreadId(").trim_end_matches(')').parse().unwrap()
}

#[test]
fn no_thread_is_made_for_a_request_although_every_limit_is_set() {
    watchdog(|| {
        let server = Server::responding("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let before = thread_number();
        for host in ["127.0.0.1", "localhost"] {
            let stride = Stride::builder("key")
                .endpoint(&format!("http://{host}:{}/v1", server.address().port()))
                .timeout(Duration::from_secs(20))
                .connect_timeout(Duration::from_secs(10))
                .build()
                .unwrap();
            for _ in 0..50 {
                assert_eq!(stride.get("/collect").unwrap().status(), 200);
            }
        }
        // One for each connection, which the server makes, and the one that counts.
        assert_eq!(server.connections(), 2);
        assert_eq!(thread_number(), before + 2 + 1);
    });
}
