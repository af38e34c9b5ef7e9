//! Faults on demand.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stride_local::{Fault, Local};

use crate::http::{Connection, WATCHDOG, get, post, request, subscribe};

#[test]
fn a_status_every_nth_request_keeps_the_connection() {
    let local = Local::start().unwrap();
    let retry_after = Some(Duration::from_secs(7));
    local.fault(Fault::Status { every: 3, status: 503, retry_after });
    let mut connection = Connection::open(&local);
    let body = "[{}, {}]".replace("{}", &format!("{{\"a\": \"{}\"}}", "x".repeat(90_000)));
    for n in 1..=9 {
        let response = connection.exchange(&request(&local, "POST", "/v1/collect/s").json(&body));
        if n % 3 == 0 {
            assert_eq!((response.status, &*response.headers["retry-after"]), (503, "7"));
            drop(response.message());
        } else {
            response.assert_stored();
        }
    }
    assert_eq!((local.count("s").unwrap(), local.requests(), local.connections()), (12, 9, 1));
    local.clear_faults();
    for _ in 0..6 {
        post(&local, "/v1/collect/s", "{}").assert_stored();
    }
}

#[test]
fn a_fault_so_many_times() {
    let local = Local::start().unwrap();
    local.fault_times(Fault::Status { every: 1, status: 429, retry_after: None }, 2);
    let statuses: Vec<u16> = (0..4).map(|_| get(&local, "/v1/collect").status).collect();
    assert_eq!(statuses, [429, 429, 200, 200]);
}

#[test]
fn a_delay_comes_before_the_answer() {
    let local = Local::start().unwrap();
    local.fault_times(Fault::Delay(Duration::from_millis(100)), 1);
    let start = Instant::now();
    assert_eq!(get(&local, "/v1/collect").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn refuse_is_a_server_that_is_down() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    let mut idle = Connection::open(&local);
    assert_eq!(idle.exchange(&request(&local, "GET", "/v1/collect")).status, 200);
    local.fault(Fault::Refuse);
    assert!(subscription.chunk().is_err());
    assert!(idle.is_closed());
    for _ in 0..3 {
        let error = TcpStream::connect(local.addr()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
    // Twice the same changes nothing.
    local.fault(Fault::Refuse);
    assert!(TcpStream::connect(local.addr()).is_err());
    local.clear_faults();
    local.clear_faults();
    assert_eq!(get(&local, "/v1/collect").status, 200);
    // A server that is down can be stopped.
    local.fault(Fault::Refuse);
    local.stop();
}

#[test]
fn a_reset_before_the_request_is_read_stores_nothing() {
    let local = Local::start().unwrap();
    local.fault_times(Fault::ResetBeforeRead, 1);
    let error = request(&local, "POST", "/v1/collect/s").json("{}").try_send(&local).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((local.count("s").unwrap(), local.requests()), (0, 1));
    post(&local, "/v1/collect/s", "{}").assert_stored();
}

#[test]
fn a_reset_after_the_store_has_stored() {
    let local = Local::start().unwrap();
    local.fault_times(Fault::ResetAfterStore, 1);
    let request = request(&local, "POST", "/v1/collect/s").gzip(r#"[{"$id": "a"}, {"$id": "b"}]"#);
    let error = request.try_send(&local).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(local.count("s").unwrap(), 2);
    // What a client does then, and why events have ids.
    request.send(&local).assert_stored();
    assert_eq!(local.count("s").unwrap(), 2);
}

#[test]
fn a_stalled_request_is_never_answered_and_stores_nothing() {
    let local = Local::start().unwrap();
    local.fault_times(Fault::Stall, 1);
    let mut stalled = Connection::open(&local);
    stalled.write(&request(&local, "POST", "/v1/collect/s").json("{}").bytes()).unwrap();
    assert!(local.wait_until(WATCHDOG, |local| local.requests() == 1));
    // Others are served meanwhile.
    post(&local, "/v1/collect/s", "{}").assert_stored();
    stalled.socket.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stalled.read_response().is_err());
    assert_eq!(local.count("s").unwrap(), 1);
    // The server notices that the client has given up.
    drop(stalled);
    assert!(local.wait_until(WATCHDOG, |local| local.open_connections() == 0));
}

#[test]
fn a_subscription_is_cut_at_the_byte() {
    let local = Local::builder().keep_alive(Duration::from_secs(3600)).start().unwrap();
    for at in [0, 1, 30, 57, 500] {
        local.fault_times(Fault::CutSubscription { at }, 1);
        assert_eq!(get(&local, "/v1/collect").status, 200, "only subscriptions are cut");
        let mut subscription = subscribe(&local, "s");
        for n in 0..5 {
            post(
                &local,
                "/v1/collect/s",
                &format!("{{\"n\": {n}, \"text\": \"{}\"}}", "x".repeat(99)),
            )
            .assert_stored();
        }
        let mut received = Vec::new();
        let error = loop {
            match subscription.chunk() {
                Ok(chunk) => received.extend(chunk.expect("a cut is no clean end")),
                Err(error) => break error,
            }
        };
        assert_eq!(received.len(), at);
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let mut whole = subscribe(&local, "s");
    post(&local, "/v1/collect/s", "{}").assert_stored();
    assert!(whole.event().is_some());
}

#[test]
fn disconnect_cuts_what_is_open_and_nothing_else() {
    let local = Local::start().unwrap();
    let mut subscription = subscribe(&local, "s");
    local.disconnect();
    assert_eq!((local.open_connections(), local.subscriptions()), (0, 0));
    assert!(subscription.chunk().is_err());
    assert_eq!(get(&local, "/v1/collect").status, 200);
}

#[test]
#[should_panic(expected = "99 is not a status of a response")]
fn a_status_that_is_none_is_noticed_at_once() {
    let local = Local::start().unwrap();
    local.fault(Fault::Status { every: 1, status: 99, retry_after: None });
}

#[test]
fn waiting_in_vain_ends() {
    let local = Local::start().unwrap();
    assert!(!local.wait_until(Duration::from_millis(20), |local| local.count("s").unwrap() > 0));
}
