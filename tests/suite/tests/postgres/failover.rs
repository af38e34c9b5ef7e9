//! The primary is killed under load, and its synchronous standby takes its place.

use std::sync::atomic::Ordering;
use std::time::Duration;

use stride_tests::watchdog_of;

use crate::child::Store;
use crate::cluster::{Programs, Server, url, wait_until};
use crate::load::Load;
use crate::servers::Servers;

/// Events of each phase that got a 200.
const ENOUGH: u64 = 40;

#[test]
#[ignore = "a failover under load"]
fn nothing_with_a_200_is_lost_when_a_standby_takes_over_and_clients_go_on() {
    let test = "nothing_with_a_200_is_lost_when_a_standby_takes_over_and_clients_go_on";
    let Some(programs) = Programs::find(test) else { return };
    watchdog_of(Duration::from_secs(240), move || {
        let mut primary = Server::start(&programs);
        let standby = primary.synchronous_standby();
        let store = Store::Database(url(&[&primary, &standby], "postgres"));
        let servers = Servers::start(store, 2);
        let load = Load::start(&servers.endpoint());
        let stored = || load.acknowledged.load(Ordering::SeqCst);
        wait_until("events are stored", || stored() >= ENOUGH);
        primary.kill();
        standby.promote();
        let before = stored();
        wait_until("events are stored by the standby", || stored() >= before + ENOUGH);
        load.finish();
    });
}
