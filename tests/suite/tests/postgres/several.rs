//! Servers that are killed and started while others collect and subscribe.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use stride_tests::watchdog_of;

use crate::child::Store;
use crate::cluster::{Programs, Server};
use crate::load::Load;
use crate::servers::Servers;

/// Under load, kills and starts servers for a while.
fn nothing_is_lost(store: Store, count: usize, time: Duration) {
    let mut random = Rng::with_seed(count as u64);
    let mut servers = Servers::start(store, count);
    let load = Load::start(&servers.endpoint());
    let end = Instant::now() + time;
    let mut toggles = 0;
    while Instant::now() < end {
        // Random moments; nothing is waited for.
        thread::sleep(Duration::from_millis(random.u64(100..1500)));
        servers.toggle(random.usize(..count));
        toggles += 1;
    }
    assert!(toggles > 3);
    servers.start_all();
    load.finish();
}

#[test]
#[ignore = "thirty seconds under load"]
fn one_server_on_a_file_that_is_killed_again_and_again_loses_nothing() {
    watchdog_of(Duration::from_secs(240), || {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::File(folder.path().join("stride.db"));
        nothing_is_lost(store, 1, Duration::from_secs(10));
    });
}

#[test]
#[ignore = "thirty seconds under load"]
fn three_servers_that_are_killed_again_and_again_lose_nothing() {
    let test = "three_servers_that_are_killed_again_and_again_lose_nothing";
    let Some(programs) = Programs::find(test) else { return };
    watchdog_of(Duration::from_secs(240), move || {
        let database = Server::start(&programs);
        let store = Store::Database(database.url("postgres"));
        nothing_is_lost(store, 3, Duration::from_secs(30));
    });
}
