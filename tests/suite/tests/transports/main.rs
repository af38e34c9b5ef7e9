//! What only a socket can show, over both transports: slow, broken, kept and stale connections, every
//! way to frame a body, proxies, TLS. The server knows bytes and no HTTP library.

mod connections;
mod delivery;
mod limits;
mod proxies;
mod requests;
mod responses;
mod subscriptions;
mod tls;

use std::time::Duration;

use stride_core::Response;
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind as Kind};
use stride_tests::wire::Server;
use stride_tests::{Client, Over};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a loaded machine to notice that a byte came.
const SOON: Duration = Duration::from_millis(300);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";

fn connect(over: Over, server: &Server) -> Client {
    over.client(&server.endpoint())
}

/// A `GET /collect` with limits of a minute but for what is changed.
fn call(client: &Client, change: impl FnOnce(&mut Limits)) -> Call {
    let mut limits = Limits::for_request().with_total(MINUTE);
    limits.connect = MINUTE;
    change(&mut limits);
    Call::new(client.api().get("/collect").unwrap(), limits)
}

fn send(client: &Client, change: impl FnOnce(&mut Limits)) -> Result<Response, TransportError> {
    client.send(call(client, change))
}

#[track_caller]
fn assert_fault(error: &TransportError, kind: Kind, delivery: Delivery) {
    assert_eq!(
        (error.kind(), error.delivery()),
        (kind, delivery),
        "{}",
        stride_tests::chain(error)
    );
}
