//! The client against servers on loopback that know bytes and no protocol.

mod delivery;
mod limits;
mod requests;
mod secrets;
mod server;
mod settings;
mod stopping;
mod subscribing;
#[cfg(feature = "tls")]
mod tls;
mod tunnels;
