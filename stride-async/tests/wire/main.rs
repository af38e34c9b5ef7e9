//! `stride-async` over real sockets, against servers that know bytes and no HTTP.

mod faults;
mod limits;
mod proxies;
mod requests;
mod runtimes;
mod server;
mod subscriptions;
#[cfg(feature = "tls")]
mod tls;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stride_async::{Error, Stride, TransportError};

/// Ends the tests when one of them hangs.
struct Watchdog(#[expect(dead_code, reason = "its drop is what counts")] mpsc::Sender<()>);

fn watchdog() -> Watchdog {
    let (sender, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // A panic of this thread alone would end nothing.
            let _ = std::panic::catch_unwind(|| panic!("{name} hangs"));
            std::process::abort();
        }
    });
    Watchdog(sender)
}

fn client(base: &str) -> Stride {
    Stride::builder("secret_key").endpoint(base).build().unwrap()
}

fn transport_error(error: Error) -> TransportError {
    match error {
        Error::Transport(error) => error,
        other => panic!("{other:?}"),
    }
}

/// The error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
