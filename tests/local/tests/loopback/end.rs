//! The end of a server, and what comes before its start.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stride_local::{Fault, Local};

use crate::http::{Connection, WATCHDOG, get, post, request, subscribe};

#[test]
fn stop_lets_open_requests_finish_and_ends_subscriptions_cleanly() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    let mut idle = Connection::open(&local);
    assert_eq!(idle.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    local.fault_times(Fault::Delay(Duration::from_millis(100)), 1);
    let mut open = Connection::open(&local);
    open.write(&request(&local, "POST", "/v1/collect/t").json("{}").bytes()).unwrap();
    assert!(local.wait_until(WATCHDOG, |local| local.requests() == 3));
    post(&local, "/v1/collect/s", r#"{"n": 1}"#).assert_stored();

    let addr = local.addr();
    local.stop_within(WATCHDOG);
    open.read_response().unwrap().assert_stored();
    assert_eq!(subscription.event().unwrap()["n"], 1);
    assert_eq!(subscription.event(), None, "the body has a proper end");
    assert!(idle.is_closed());
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn stop_does_not_wait_longer_than_it_may() {
    let local = Local::start().unwrap();
    local.fault(Fault::Stall);
    let mut stalled = Connection::open(&local);
    stalled.write(&request(&local, "GET", "/v1/collect").bytes()).unwrap();
    assert!(local.wait_until(WATCHDOG, |local| local.requests() == 1));
    let start = Instant::now();
    local.stop_within(Duration::from_millis(50));
    assert!(start.elapsed() < WATCHDOG / 2);
    assert!(stalled.is_closed());
}

#[test]
fn drop_cuts_every_connection_and_frees_the_port() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    let mut idle = Connection::open(&local);
    assert_eq!(idle.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    let addr = local.addr();
    drop(local);
    assert!(subscription.chunk().is_err(), "a cut is no clean end");
    assert!(idle.is_closed());
    // A server that comes up later at the same address.
    let again = Local::builder().listen(addr).start().unwrap();
    assert_eq!(again.addr(), addr);
    assert_eq!(get(&again, "/v1/collect").status, 200);
}

#[test]
fn an_address_in_use_is_an_error_of_the_start() {
    let local = Local::start().unwrap();
    let error = Local::builder().listen(local.addr()).start().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn many_servers_live_side_by_side() {
    let locals: Vec<Local> = (0..5).map(|_| Local::start().unwrap()).collect();
    for (n, local) in locals.iter().enumerate() {
        for _ in 0..n {
            post(local, "/v1/collect/s", "{}").assert_stored();
        }
    }
    for (n, local) in locals.iter().enumerate() {
        assert_eq!(local.count("s").unwrap(), n as u64);
    }
}

#[test]
fn garbage_is_answered_and_leaves_the_server_up() {
    let local = Local::start().unwrap();
    for garbage in
        ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\r\n\r\nx y z\r\n"]
    {
        let mut connection = Connection::open(&local);
        connection.write(garbage.as_bytes()).unwrap();
        assert_eq!(connection.read_head().unwrap().0, 400, "{garbage:?}");
    }
    let mut huge = Connection::open(&local);
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    // Refused half-way, so that writing the rest may fail.
    drop(huge.socket.get_mut().write_all(head.as_bytes()));
    assert_eq!(get(&local, "/v1/collect").status, 200);
}

/// A runtime of one thread, and clients and handle on it: the server must not need it.
#[test]
fn it_can_be_used_from_an_async_test() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let local = Local::start().unwrap();
        post(&local, "/v1/collect/s", "{}").assert_stored();
        local.fault(Fault::Refuse);
        local.clear_faults();
        assert_eq!(local.count("s").unwrap(), 1);
        local.stop();
        drop(Local::start().unwrap());
    });
}
