//! A server that is down for long. Alone in its process, whose memory is measured.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use stride_collector::{CollectError, Collector, Delivery, Target};
use stride_core::Api;
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call, TransportError, TransportErrorKind};

const BUDGET: usize = 64 << 20;

/// Text of 210 bytes of which compression makes no less than 160.
fn noise(state: &mut u64) -> String {
    (0..210)
        .map(|_| {
            // Xorshift.
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            char::from(b'0' + (*state % 74) as u8)
        })
        .map(|char| if char == '\\' { 'x' } else { char })
        .collect()
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn memory_stays_within_its_budget_while_the_server_is_down() {
    let transport = |_: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent))
    };
    let endpoint = Api::new("key").unwrap();
    let connection = Target { api: endpoint, transport: Arc::new(transport) };
    let lost = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lost);
    let collector = Collector::builder()
        .memory_budget(BUDGET)
        .request_timeout(Duration::from_secs(60))
        .on_lost(move |lost| {
            counter.fetch_add(lost.count as u64, Ordering::SeqCst);
        })
        .start(connection)
        .unwrap();
    let before = resident();
    let (mut accepted, mut full, mut highest) = (0_u64, 0_u64, 0);
    let mut longest = Duration::ZERO;
    let mut random = 42;
    // 100 MB and more, over streams that fill batches and streams that trickle.
    for n in 0..400_000_u32 {
        let stream = if n % 10 == 0 { format!("s{}", n % 997) } else { format!("s{}", n % 3) };
        let event = json!({"n": n, "text": noise(&mut random)});
        let began = Instant::now();
        match collector.collect(&stream, &event) {
            Ok(()) => accepted += 1,
            Err(CollectError::Full) => full += 1,
            Err(error) => panic!("{error}"),
        }
        longest = longest.max(began.elapsed());
        if n % 1000 == 0 {
            highest = highest.max(resident());
        }
    }
    assert!(full > 0, "100 MB fit into the budget");
    assert!(longest < Duration::from_secs(5), "collect waited {longest:?}");
    let used = highest - before;
    assert!(used <= BUDGET + BUDGET / 5, "{} MiB", used >> 20);
    let began = Instant::now();
    let report = collector.stop_within(Duration::from_secs(1));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!((report.accepted, report.delivered, report.pending), (accepted, 0, 0));
    assert_eq!(report.lost(), accepted);
    // `stop` keeps its deadline; on a slow machine the last losses are handed over after it.
    let patience = Instant::now() + Duration::from_secs(60);
    while lost.load(Ordering::SeqCst) < accepted && Instant::now() < patience {
        std::thread::yield_now();
    }
    assert_eq!(lost.load(Ordering::SeqCst), accepted);
    // Of the text; the buffers have a head and some room to spare.
    assert!(accepted * 230 > (BUDGET / 10 * 8) as u64, "{accepted} events");
    let highest = highest.max(resident());
    assert!(highest - before <= BUDGET + BUDGET / 5, "{} MiB", (highest - before) >> 20);
}
