//! Collectors, programs that send without a retry, and subscribers, all at once; and a check of what became of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::Collector;
use stride_core::subscribe::{Position, Reconnect, Resumed, SubscriptionEvent};
use stride_tests::{Client, Over};

use crate::child::KEY;

const STREAMS: [&str; 2] = ["s", "t"];
const COLLECTORS: u64 = 6;
/// Of each collector and stream, and how long it pauses then: some 1,000 events a second over all.
const AT_ONCE: u64 = 2;
const PAUSE: Duration = Duration::from_millis(20);
/// Programs that send each event once, and note what got a 200.
const SENDERS: u64 = 2;
const PAGES: u64 = 20;

/// One process that is kept incrementally, and one that is run again. Each shows the last event.
const PROCESSES: [(&str, &str); 2] = [
    (
        "views",
        "SELECT page, count(*) AS views, sum(n) AS total, max(last) AS last FROM s GROUP BY page",
    ),
    (
        "both",
        "SELECT 's' AS stream, count(*) AS n, max(last) AS last FROM s
         UNION ALL SELECT 't' AS stream, count(*) AS n, max(last) AS last FROM t",
    ),
];

/// Who collected an event, and its number there.
type Event = (u64, u64);

/// The rows of a process, and how often each is there.
type Rows = BTreeMap<String, u64>;

/// What goes on while servers come and go.
#[derive(Debug)]
pub(crate) struct Load {
    endpoint: String,
    over: Arc<AtomicBool>,
    /// How many events the senders know to be stored.
    pub(crate) acknowledged: Arc<AtomicU64>,
    collecting: Vec<JoinHandle<u64>>,
    sending: Vec<JoinHandle<Vec<HashSet<u64>>>>,
    reading: Vec<(&'static str, JoinHandle<Vec<Event>>)>,
    watching: Vec<(&'static str, JoinHandle<Rows>)>,
}

impl Load {
    pub(crate) fn start(endpoint: &str) -> Self {
        let client = Over::ureq().client(endpoint);
        for (name, query) in PROCESSES {
            let process = json!({"query": query, "action": "MATERIALIZE"});
            let response = client.post(&format!("/process/{name}"), &process).unwrap();
            assert_eq!(response.status(), 201, "{name}: {response:?}");
        }
        let over = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (mut reading, mut watching) = (Vec::new(), Vec::new());
        // Three of each, twelve in all, over both clients.
        for number in 0..3 {
            for stream in STREAMS {
                let client = some_client(endpoint, number);
                reading.push((stream, thread::spawn(move || read(&client, stream))));
            }
            for (process, _) in PROCESSES {
                let client = some_client(endpoint, number);
                watching.push((process, thread::spawn(move || watch(&client, process))));
            }
        }
        let collecting = (0..COLLECTORS).map(|number| {
            let (endpoint, over) = (endpoint.to_owned(), Arc::clone(&over));
            thread::spawn(move || collect(&endpoint, number, &over))
        });
        let sending = (0..SENDERS).map(|number| {
            let (client, over) = (Over::ureq().client(endpoint), Arc::clone(&over));
            let acknowledged = Arc::clone(&acknowledged);
            thread::spawn(move || send(&client, COLLECTORS + number, &over, &acknowledged))
        });
        Self {
            endpoint: endpoint.to_owned(),
            collecting: collecting.collect(),
            sending: sending.collect(),
            over,
            acknowledged,
            reading,
            watching,
        }
    }

    /// Ends it, over servers that now stay, and checks everything.
    pub(crate) fn finish(self) {
        self.over.store(true, Ordering::SeqCst);
        let accepted: Vec<u64> = joined(self.collecting);
        let acknowledged: Vec<_> = joined(self.sending);
        let client = Over::ureq().client(&self.endpoint);
        for stream in STREAMS {
            // By now everything else is stored. Subscribers end with it.
            let last = json!({"$id": "last", "last": 1, "page": "last", "c": 0, "n": u32::MAX});
            while client.post(&format!("/collect/{stream}"), &last).map_or(0, status) != 200 {
                thread::sleep(PAUSE);
            }
        }

        let mut orders: BTreeMap<&str, Vec<Vec<Event>>> = BTreeMap::new();
        for (stream, thread) in self.reading {
            orders.entry(stream).or_default().push(thread.join().unwrap());
        }
        for (place, stream) in STREAMS.into_iter().enumerate() {
            let orders = &orders[stream];
            assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "one order for all");
            let events = &orders[0];
            let distinct: HashSet<_> = events.iter().collect();
            assert_eq!(distinct.len(), events.len(), "an event is stored twice");
            let stored = r#"SELECT count(*) AS n, count(DISTINCT "$id") AS ids FROM "#;
            let count = events.len() + 1;
            let rows = query(&client, &format!("{stored}{stream}"));
            assert_eq!(rows, json!([{"n": count, "ids": count}]), "{stream}");
            for (number, accepted) in (0..).zip(&accepted) {
                let own = events.iter().filter(|it| it.0 == number).map(|it| it.1);
                assert!(own.eq(0..*accepted), "collector {number} is in order, and whole");
            }
            for (number, acknowledged) in (COLLECTORS..).zip(&acknowledged) {
                let mut missing =
                    acknowledged[place].iter().filter(|n| !distinct.contains(&(number, **n)));
                assert_eq!(missing.next(), None, "it got a 200, and is missing in {stream}");
            }
        }
        for (process, thread) in self.watching {
            let (_, text) = PROCESSES.into_iter().find(|it| it.0 == process).unwrap();
            // It ends once the last event is in them.
            let copy = thread.join().unwrap();
            let recomputed = rows(&query(&client, text));
            assert_eq!(copy, recomputed, "what a subscriber of {process} has");
            assert_eq!(rows(&query(&client, &format!("SELECT * FROM {process}"))), recomputed);
        }
        let events: usize = orders.values().map(|it| it[0].len()).sum();
        assert!(
            accepted.iter().all(|it| *it > 0) && acknowledged.iter().all(|it| !it[0].is_empty())
        );
        drop(self.endpoint);
        #[expect(clippy::print_stdout, reason = "how much of it there was")]
        {
            println!("{events} events");
        }
    }
}

fn joined<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|it| it.join().unwrap()).collect()
}

fn some_client(endpoint: &str, number: u64) -> Client {
    if number.is_multiple_of(2) { Over::ureq() } else { Over::hyper() }.client(endpoint)
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_or` gives")]
fn status(response: stride_core::Response) -> u16 {
    response.status().as_u16()
}

fn event(number: u64, n: u64) -> Value {
    json!({"c": number, "n": n, "page": format!("p{}", n % PAGES)})
}

/// Collects until it is over, and returns how many events of each stream: none is lost.
fn collect(endpoint: &str, number: u64, over: &AtomicBool) -> u64 {
    let stride = stride_blocking::Stride::builder(KEY).endpoint(endpoint).build().unwrap();
    let builder = Collector::builder().stamp(true).ordered(true);
    let collector = builder.flush_interval(PAUSE).batch_size(100).start(&stride).unwrap();
    let mut collected = 0;
    while !over.load(Ordering::SeqCst) {
        for n in collected..collected + AT_ONCE {
            for stream in STREAMS {
                collector.collect(stream, &event(number, n)).unwrap();
            }
        }
        collected += AT_ONCE;
        thread::sleep(PAUSE);
    }
    // Far longer than it takes.
    let report = collector.stop_within(Duration::from_secs(90));
    let all = collected * STREAMS.len() as u64;
    assert_eq!((report.delivered, report.lost(), report.pending), (all, 0, 0), "{report}");
    collected
}

/// Sends until it is over, each event once, and returns which of each stream got a 200.
fn send(client: &Client, number: u64, over: &AtomicBool, count: &AtomicU64) -> Vec<HashSet<u64>> {
    let mut stored = vec![HashSet::new(); STREAMS.len()];
    for n in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        for (place, stream) in STREAMS.into_iter().enumerate() {
            let sent = client.post(&format!("/collect/{stream}"), &event(number, n));
            if sent.map_or(0, status) == 200 {
                stored[place].insert(n);
                count.fetch_add(1, Ordering::SeqCst);
            } else {
                thread::sleep(PAUSE);
            }
        }
    }
    stored
}

/// All events of a stream up to the last, in the order in which they come.
fn read(client: &Client, stream: &str) -> Vec<Event> {
    let path = format!("/collect/{stream}");
    let events = client.subscribe_after(&path, Position::oldest(), Reconnect::Always).unwrap();
    let mut read = Vec::new();
    for event in events {
        match event.unwrap() {
            SubscriptionEvent::Data(event) if event["last"] == 1 => break,
            SubscriptionEvent::Data(event) => {
                read.push((event["c"].as_u64().unwrap(), event["n"].as_u64().unwrap()));
            }
            SubscriptionEvent::Connected { resumed: Resumed::Fully, .. }
            | SubscriptionEvent::Disconnected { .. } => {}
            other => panic!("a gap in {stream}: {other:?}"),
        }
    }
    read
}

/// A copy of a process's rows once the last event is in them. Every change has to fit to the copy.
fn watch(client: &Client, process: &str) -> Rows {
    let path = format!("/process/{process}");
    let mut rows = Rows::new();
    let is_last = |rows: &Rows| {
        let last = rows.iter().filter(|(row, _)| row.contains(r#""last":1"#)).count();
        // What takes the place of a row may come before its end.
        if process == "both" { rows.len() == last && last == STREAMS.len() } else { last == 1 }
    };
    let mut all = false;
    for event in client.subscribe_with_snapshot(&path).unwrap() {
        match event.unwrap() {
            SubscriptionEvent::Data(change) => {
                for (row, is_there) in [(&change["old"], false), (&change["new"], true)] {
                    if !row.is_null() {
                        note(&mut rows, row, is_there);
                    }
                }
            }
            SubscriptionEvent::Connected { .. } => {
                rows.clear();
                all = false;
            }
            SubscriptionEvent::SnapshotDone => all = true,
            SubscriptionEvent::Disconnected { .. } => {}
            other => panic!("{process}: {other:?}"),
        }
        if all && is_last(&rows) {
            break;
        }
    }
    rows
}

fn note(rows: &mut Rows, row: &Value, is_there: bool) {
    let count = rows.entry(row.to_string()).or_default();
    if is_there {
        *count += 1;
    } else {
        *count = count.checked_sub(1).unwrap_or_else(|| panic!("a change is missing before {row}"));
        rows.retain(|_, count| *count > 0);
    }
}

fn rows(result: &Value) -> Rows {
    let mut rows = Rows::new();
    for row in result.as_array().unwrap() {
        note(&mut rows, row, true);
    }
    rows
}

fn query(client: &Client, sql: &str) -> Value {
    loop {
        let response = client.post("/analyze", &json!({"query": sql})).unwrap();
        // A server may find only now that the database it was connected to has ended.
        if response.status() != 503 {
            return response.error_for_status().unwrap().data().unwrap().unwrap();
        }
        thread::sleep(PAUSE);
    }
}
