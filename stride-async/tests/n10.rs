//! A busy subscription lets the other tasks of its thread have their turn, whatever the size of its
//! events and however they come (N10).

use std::io::{BufWriter, Read as _, Write as _};
use std::iter;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde_json::Value;
use stride_async::{AsyncBody, Bytes, Call, Reconnect, Stride, SubscribeBuilder, TransportError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// What a task may decode until it yields, and the piece at hand, in bytes.
const MOST_BYTES: usize = 2 * (64 << 10);

/// Chunks and items take half a unit of tokio's 128.
const MOST_ITEMS: usize = 2 * 128 + 2;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What was done since the other task had its turn, and the most that ever was.
#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Count {
    fn add(&self, count: usize) {
        self.now.fetch_add(count, Ordering::Relaxed);
    }

    fn turn(&self) {
        self.most.fetch_max(self.now.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn most(&self) -> usize {
        self.turn();
        self.most.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Work {
    chunks: Count,
    items: Count,
    bytes: Count,
}

impl Work {
    /// Runs the task, and counts what it does from one turn of the runtime to the next: that is when
    /// timers go off and sockets are looked at.
    async fn watch(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        while !task.is_finished() {
            yield_now().await;
            self.chunks.turn();
            self.items.turn();
            self.bytes.turn();
        }
        task.await.unwrap();
    }
}

/// The chunks of a body.
type Chunks = Box<dyn Iterator<Item = Bytes> + Send>;

/// A body of which every chunk is there already: nothing but the subscription makes a pause.
struct Ready {
    chunks: Chunks,
    work: Arc<Work>,
}

impl Stream for Ready {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.work.chunks.add(1);
        Poll::Ready(self.chunks.next().map(Ok))
    }
}

/// Subscribes to a body of these chunks.
fn subscribe(chunks: Chunks, work: &Arc<Work>) -> SubscribeBuilder {
    let body = Ready { chunks, work: Arc::clone(work) };
    let body = Mutex::new(Some(AsyncBody::new(body)));
    let transport = move |_: Call| {
        let body = body.lock().unwrap().take().expect("there is one connection");
        async { Ok(http::Response::new(body)) }
    };
    let stride = Stride::builder("key").transport(transport).build().unwrap();
    stride.subscribe("/collect/a").reconnect(Reconnect::Never)
}

/// An event of so many bytes, with its line break.
fn event(size: usize) -> String {
    let item = r#"{"page":"/index","n":12345.678,"ok":true},"#;
    let mut text = String::from(r#"{"a":["#);
    while text.len() + item.len() + 8 < size {
        text += item;
    }
    text += r#""x"]}"#;
    text += "\r\n";
    text
}

/// What is done at most in one turn, where events have this length.
fn most_work(chunks: impl Iterator<Item = Bytes> + Send + 'static, length: usize) -> Arc<Work> {
    let work = Arc::<Work>::default();
    let counted = Arc::clone(&work);
    current_thread().block_on(work.watch(async move {
        let mut events = subscribe(Box::new(chunks), &counted).events::<Value>().await.unwrap();
        while let Some(event) = events.next().await {
            event.unwrap();
            counted.items.add(1);
            counted.bytes.add(length);
        }
    }));
    work
}

#[test]
fn n10_events_of_any_size_let_others_have_their_turn() {
    for size in [30, 340, 10_000, 100_000, 1_000_000] {
        let event = event(size);
        let length = event.len();
        let body = Bytes::from(event.repeat(1_500_000 / length));
        for chunk in [1_000, length, body.len()] {
            let mut rest = body.clone();
            let chunks = iter::from_fn(move || {
                let chunk = rest.split_to(chunk.min(rest.len()));
                (!chunk.is_empty()).then_some(chunk)
            });
            let work = most_work(chunks, length);
            let (chunks, items, bytes) = (work.chunks.most(), work.items.most(), work.bytes.most());
            let told = format!("{size} in {chunk}: {chunks} chunks, {items} items, {bytes} bytes");
            assert!(chunks <= MOST_ITEMS && items <= MOST_ITEMS, "{told}");
            assert!(bytes <= MOST_BYTES + length, "{told}");
        }
    }
}

#[test]
fn n10_what_is_not_an_event_lets_others_have_their_turn() {
    for chunk in ["", " ", "\r\n", "x", "\n{"] {
        let chunks = iter::repeat_n(Bytes::from_static(chunk.as_bytes()), 10_000);
        let most = most_work(chunks, 0).chunks.most();
        assert!(most <= MOST_ITEMS, "{chunk:?}: {most} chunks");
    }
}

/// Sends these bytes over and over, for as long as they are read, once a request has come.
fn firehose(head: &'static str, bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(head.as_bytes()).unwrap();
        // In large writes, so that there is always more to read than one read takes.
        let mut writer = BufWriter::with_capacity(1 << 20, stream);
        while writer.write_all(&bytes).is_ok() {}
    });
    base
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const UNTIL_CLOSED: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// HTTP chunks of the transport itself, below a subscription or a verb.
#[test]
fn n10_tiny_chunks_of_a_socket_let_others_have_their_turn() {
    let base = firehose(CHUNKED, b"1\r\n \r\n".repeat(10_000));
    let stride = Stride::builder("key").endpoint(&base).build().unwrap();
    let target = stride.target();
    let request = target.api.subscribe("/collect/a", None).unwrap();
    let work = Arc::<Work>::default();
    let counted = Arc::clone(&work);
    current_thread().block_on(work.watch(async move {
        let call = Call::new(request, stride_async::Limits::for_stream());
        let mut body = target.transport.send(call).await.unwrap().into_body();
        assert_eq!(body.next().await.unwrap().unwrap(), " ");
        // A body wakes its task once, when it takes the connection over from the request.
        yield_now().await;
        for _ in 0..50_000 {
            assert_eq!(body.next().await.unwrap().unwrap(), " ");
            counted.chunks.add(1);
        }
    }));
    let most = work.chunks.most();
    assert!(most <= MOST_ITEMS, "{most} chunks");
}

/// The whole way, from the socket to the value.
#[test]
fn n10_events_of_a_socket_let_others_have_their_turn() {
    for size in [30, 10_000, 200_000] {
        let event = event(size);
        let length = event.len();
        let chunk = format!("{length:x}\r\n{event}\r\n");
        for (head, bytes) in [(UNTIL_CLOSED, event), (CHUNKED, chunk)] {
            let stride = Stride::builder("key").endpoint(&firehose(head, bytes.into())).build();
            let subscribe = stride.unwrap().subscribe("/collect/a");
            let work = Arc::<Work>::default();
            let counted = Arc::clone(&work);
            current_thread().block_on(work.watch(async move {
                let mut events = subscribe.data::<Value>().await.unwrap();
                events.next().await.unwrap().unwrap();
                yield_now().await;
                for _ in 0..1_500_000 / length {
                    events.next().await.unwrap().unwrap();
                    counted.items.add(1);
                    counted.bytes.add(length);
                }
            }));
            let (items, bytes) = (work.items.most(), work.bytes.most());
            assert!(items <= MOST_ITEMS, "{size}: {items} items");
            assert!(bytes <= MOST_BYTES + length, "{size}: {bytes} bytes");
        }
    }
}

/// How long this thread has had a processor, where the system says: what a loaded machine adds to the
/// wall clock is not the subscription's work.
fn processor_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(first.unwrap_or_default())
}

/// How long a 10 ms ticker stands still at most beyond its 10 ms while a subscription runs, by the
/// wall clock and by the processor; and how many events were taken.
fn standstill(base: &str, run: Duration) -> (Duration, Duration, u64) {
    let stride = Stride::builder("key").endpoint(base).build().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let (mut wall, mut processor) = (Duration::ZERO, Duration::ZERO);
    current_thread().block_on(async {
        let mut events = stride.subscribe("/collect/a").events::<Value>().await.unwrap();
        let count = Arc::clone(&taken);
        tokio::spawn(async move {
            while events.next().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let period = Duration::from_millis(10);
        let mut ticker = tokio::time::interval(period);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticker.tick().await;
        let started = Instant::now();
        while started.elapsed() < run {
            let (last, last_processor) = (Instant::now(), processor_time());
            ticker.tick().await;
            wall = wall.max(last.elapsed().saturating_sub(period));
            let took = processor_time().saturating_sub(last_processor);
            processor = processor.max(took.saturating_sub(period));
        }
    });
    (wall, processor, taken.load(Ordering::Relaxed))
}

#[test]
#[ignore = "takes some seconds, and prints figures; .ci/run runs it in release"]
fn n10_figures() {
    let run = Duration::from_millis(500);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let row = |name: &str, head, bytes: Vec<u8>, value: &str| {
        let begun = Instant::now();
        let value = serde_json::from_str::<Value>(value).map(drop);
        let decoding = if value.is_ok() { begun.elapsed() } else { Duration::ZERO };
        let (wall, processor, taken) = standstill(&firehose(head, bytes), run);
        println!(
            "{name:<28} wall {wall:>8.1?}, processor {processor:>8.1?}; one value {decoding:>8.1?}; \
             {taken} taken"
        );
        // By the processor, so a busy machine does not count. It was 10 to 17 s for some of these, and is 0.3 s at most
        // but for what one value takes that is decoded in one piece.
        assert!(processor < Duration::from_secs(2) + 4 * decoding, "{name}: {processor:?}");
    };
    for size in [30, 340, 10_000, 100_000, 1_000_000, 15_000_000] {
        let event = event(size);
        row(&format!("{size} B, a chunk each"), CHUNKED, chunk(&event), &event);
        row(&format!("{size} B, until closed"), UNTIL_CLOSED, event.clone().into(), &event);
        let pieces: Vec<u8> = event
            .as_bytes()
            .chunks(1_000)
            .flat_map(|piece| chunk(std::str::from_utf8(piece).unwrap()))
            .collect();
        row(&format!("{size} B, chunks of 1 kB"), CHUNKED, pieces, &event);
    }
    row("white space, chunks of 1", CHUNKED, chunk(" ").repeat(10_000), "");
    row("white space, chunks of 2", CHUNKED, chunk("\r\n").repeat(10_000), "");
    row("white space, until closed", UNTIL_CLOSED, b"\r\n".repeat(10_000), "");
    row("not JSON, until closed", UNTIL_CLOSED, b"x\n{".repeat(10_000), "");
    row("small numbers, until closed", UNTIL_CLOSED, b"1\n".repeat(10_000), "1");
}
