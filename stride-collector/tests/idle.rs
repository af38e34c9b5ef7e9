//! A collector that has nothing to do does nothing. Alone in its process, whose threads are looked
//! at by name.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use stride_collector::{Collector, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, TransportError};

/// How often each sender gave up the processor, and for how long it had it, in clock ticks.
fn senders() -> BTreeMap<String, (u64, u64)> {
    let mut senders = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        if !name.starts_with("stride-sender") {
            continue;
        }
        let status = fs::read_to_string(task.join("status")).unwrap();
        let number = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let switches = status.lines().filter(|line| line.contains("ctxt_switches")).map(number);
        let stat = fs::read_to_string(task.join("stat")).unwrap();
        // The fields after the name, which may hold anything: utime is the 12th, stime the 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        senders.insert(name, (switches.sum(), ticks));
    }
    senders
}

#[test]
fn pystride_1_an_idle_collector_does_not_spin() {
    let transport = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::new(Body::default()))
    };
    let endpoint = Api::new("key").unwrap();
    let connection = Target { api: endpoint, transport: Arc::new(transport) };
    let collector = Collector::start(connection).unwrap();
    // It has been at work: 100 full batches, and one that waited for its interval.
    for n in 0..100_001 {
        let event = serde_json::json!({"n": n});
        collector.collect("a", &event).unwrap();
    }
    let _ = collector.flush();
    // Longer than the interval: what the batches before left behind has passed.
    std::thread::sleep(Duration::from_millis(500));
    let before = senders();
    assert_eq!(before.len(), 2);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(senders(), before);
}
