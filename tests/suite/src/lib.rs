//! What the cross-crate suites share: the clients under test behind one face ([`Client`]), servers
//! for them in one language ([`Answer`], played by a [`World`]), a server that knows bytes and no
//! HTTP library ([`wire`]), and a [`watchdog`] for whatever may hang.
#![expect(clippy::missing_panics_doc, reason = "these are tests: whatever goes wrong panics")]

mod client;
pub mod wire;
mod world;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub use client::{Client, Events};
pub use world::{Answer, Ending, Over, World};

/// How long anything in these suites may take before it counts as hung: far longer than it needs
/// on a loaded machine, shorter than the minute at which limits are set that must not be reached.
const HUNG: Duration = Duration::from_secs(50);

/// Runs a test on a thread of its own and fails when it hangs.
pub fn watchdog(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let runner = thread::spawn(move || {
        test();
        // Nobody listens any more when the watchdog has barked.
        let _ = done.send(());
    });
    match finished.recv_timeout(HUNG) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = runner.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Instantiates scenarios for transports, or whatever else they run over: a test's name carries its
/// transport, as in `ureq::an_empty_body_is_none`. A further transport takes one line.
#[macro_export]
macro_rules! suite {
    ({ $($transport:ident: $over:expr,)+ } $scenarios:tt) => {
        $( $crate::suite!(@ $transport, $over, $scenarios); )+
    };
    (@ $transport:ident, $over:expr, [ $($scenario:ident,)+ ]) => {
        mod $transport {
            use super::*;

            $(
                #[test]
                fn $scenario() {
                    $crate::watchdog(|| super::$scenario($over));
                }
            )+
        }
    };
}

/// The README's examples are compiled, and run where they can.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
