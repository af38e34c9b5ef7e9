//! The test kit, which all suites share: the clients under test as one type ([`Client`]), servers whose
//! responses are scripted alike for the mock and for a socket ([`Reply`], played by a [`World`]), a
//! server that knows bytes and no HTTP library ([`wire`]), a [`Proxy`] that troubles connections, a [`Log`]
//! to read, and a [`watchdog`] for whatever may hang.
#![expect(clippy::missing_panics_doc, reason = "these are tests: whatever goes wrong panics")]

mod client;
mod failure;
mod log;
mod proxy;
mod watchdog;
pub mod wire;
mod world;

pub use client::{Builder, Chunks, Client, Data, Events};
pub use failure::{chain, failed};
pub use log::Log;
pub use proxy::Proxy;
pub use watchdog::{watchdog, watchdog_of};
pub use world::{Ending, Over, Received, Reply, World};

/// Instantiates scenarios for transports, or whatever else they run over: a test's name carries its
/// transport, as in `ureq::an_empty_body_is_none`. Another transport takes one line.
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
