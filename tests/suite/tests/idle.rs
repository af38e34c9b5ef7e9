//! What waits for something does nothing meanwhile. Alone in its process, whose threads it counts.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::AsyncCollector;
use stride_tests::watchdog;
use stride_tests::wire::{Act, Server};

/// How often each thread but this one gave up the processor, by its number and name.
fn switches() -> BTreeMap<(u64, String), u64> {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let mut switches = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if task.file_name() == own.file_name() {
            continue;
        }
        let number = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let count = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches")).map(count);
        switches.insert((number, name), counts.sum());
    }
    switches
}

/// A subscription's head and its first event, and then nothing more.
fn silent() -> Vec<Act> {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![Act::Request, Act::text(&format!("{head}a\r\n{{\"x\": 1}}\r\n\r\n")), Act::Closed]
}

#[test]
fn silent_subscriptions_and_an_idle_collector_of_tasks_make_no_wake_up() {
    watchdog(|| {
        // No connection is kept, which would be closed after 15 s: that is work to be done.
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let exchanges = (0..200).map(|_| vec![Act::Request, Act::text(response), Act::Close]);
        let server = Server::start([silent()]);
        let async_server = Server::start([silent()]);
        let sink = Server::start(exchanges);

        let (received, is_received) = mpsc::channel();
        let stride = stride_blocking::Stride::builder("key").endpoint(&server.endpoint()).build();
        let events = stride.unwrap().subscribe("/collect/a").data::<Value>().unwrap();
        let stop = events.stop_handle();
        let told = received.clone();
        let blocking = thread::spawn(move || events.for_each(|event| told.send(event).unwrap()));

        let stride =
            stride_async::Stride::builder("key").endpoint(&async_server.endpoint()).build();
        let client =
            stride_async::Stride::builder("key").endpoint(&sink.endpoint()).build().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let collector = AsyncCollector::start(&client).unwrap();
                // It has been at work, with full batches and one that waited for its interval.
                for n in 0..20_001 {
                    collector.collect("a", &json!({"n": n})).unwrap();
                }
                let report = collector.flush().await;
                assert_eq!(report.delivered, 20_001, "{report}");
                let subscription = stride.unwrap().subscribe("/collect/a").data::<Value>();
                let mut events = subscription.await.unwrap();
                received.send(events.next().await.unwrap()).unwrap();
                tokio::select! {
                    event = events.next() => panic!("{event:?}"),
                    _ = ended => {}
                }
                drop(collector);
            });
        });
        for _ in 0..2 {
            assert_eq!(is_received.recv().unwrap().unwrap(), json!({"x": 1}));
        }
        // Until what was at work has settled down.
        thread::sleep(Duration::from_millis(500));
        let before = switches();
        thread::sleep(Duration::from_secs(5));
        assert_eq!(switches(), before);

        stop.stop();
        blocking.join().unwrap();
        drop(end);
        runtime.join().unwrap();
    });
}
