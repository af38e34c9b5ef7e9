//! Several servers on one store, and a proxy before them.

use std::net::SocketAddr;

use stride_tests::Proxy;

use crate::child::{Running, Store};

/// So many servers on one store, and a proxy before them.
#[derive(Debug)]
pub(crate) struct Servers {
    store: Store,
    running: Vec<Option<Running>>,
    proxy: Proxy,
}

impl Servers {
    pub(crate) fn start(store: Store, count: usize) -> Self {
        let running: Vec<_> = (0..count).map(|_| Some(Running::start(&store))).collect();
        let first = running[0].as_ref().expect("it was just started").address;
        let servers = Self { store, running, proxy: Proxy::start(first, 0) };
        servers.proxy.calm();
        servers.balance();
        servers
    }

    /// What clients connect to.
    pub(crate) fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    /// The servers themselves, without the proxy.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.running.iter().flatten().map(|it| format!("http://{}/v1", it.address)).collect()
    }

    /// Starts those that do not run.
    pub(crate) fn start_all(&mut self) {
        for number in 0..self.running.len() {
            if self.running[number].is_none() {
                self.toggle(number);
            }
        }
    }

    fn balance(&self) {
        let addresses: Vec<SocketAddr> =
            self.running.iter().flatten().map(|it| it.address).collect();
        self.proxy.balance(&addresses);
    }

    /// Kills a server, or starts it if it does not run. The proxy goes on sending to one that was killed until it
    /// is told of another.
    pub(crate) fn toggle(&mut self, number: usize) {
        match self.running[number].take() {
            Some(running) => drop(running),
            None => {
                self.running[number] = Some(Running::start(&self.store));
                self.balance();
            }
        }
    }
}
