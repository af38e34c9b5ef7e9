//! What the server's thread and the handle to it have in common.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::changes::Changes;
use crate::engine::SharedEngine;
use crate::http::auth::Keys;
use crate::http::faults::Faults;
use crate::http::limits::Rooms;
use crate::http::metrics::Counters;
use crate::rates::Rates;
use crate::settings::Limits;
use crate::subscribers::hub::Hub;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) addr: SocketAddr,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) rooms: Rooms,
    pub(crate) engine: SharedEngine,
    pub(crate) subscribers: Arc<Hub>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// Told of everything that [`Local::wait_until`](crate::Local::wait_until) may wait for.
    pub(crate) changes: Arc<Changes>,
}
