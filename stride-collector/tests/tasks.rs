//! What an `AsyncCollector` promises beside the promises it shares with a `Collector`: in tokio's
//! paused clock, against transports that are closures.

use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stride_collector::{
    AsyncCollector, AsyncTarget, Builder, CollectError, Delivery, LossReason, StartError,
};
use stride_core::Api;
use stride_core::gzip::gunzip;
use stride_core::transport::{AsyncBody, Call, TransportError, TransportErrorKind};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

type Answer = Result<http::Response<AsyncBody>, TransportError>;

/// A way to a server that answers as the closure says; it is told how many requests came before.
fn server<F, R>(answer: F) -> AsyncTarget
where
    F: Fn(usize, Call) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let before = AtomicUsize::new(0);
    let transport = move |call: Call| answer(before.fetch_add(1, Ordering::Relaxed), call);
    AsyncTarget { api: Api::new("key").unwrap(), transport: Arc::new(transport) }
}

fn status(status: u16) -> Answer {
    Ok(http::Response::builder().status(status).body(AsyncBody::from("{}")).unwrap())
}

fn working() -> AsyncTarget {
    server(|_, _| async { status(200) })
}

/// A server that never answers.
fn stalled() -> AsyncTarget {
    server(|_, _| pending())
}

fn count(call: &Call) -> usize {
    let events: Value = serde_json::from_slice(&gunzip(call.request.body()).unwrap()).unwrap();
    events.as_array().unwrap().len()
}

/// Counts the events that are handed over as lost.
fn losses(builder: Builder<AsyncCollector>) -> (Builder<AsyncCollector>, Arc<AtomicU64>) {
    let lost = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&lost);
    let builder = builder.on_lost(move |lost| {
        told.fetch_add(lost.count as u64, Ordering::Relaxed);
    });
    (builder, lost)
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_sent_when_its_first_event_has_waited_for_the_interval() {
    let start = Instant::now();
    let arrivals: Arc<Mutex<Vec<(Duration, usize)>>> = Arc::default();
    let seen = Arc::clone(&arrivals);
    let connection = server(move |_, call| {
        seen.lock().unwrap().push((start.elapsed(), count(&call)));
        async { status(200) }
    });
    let collector = AsyncCollector::start(connection).unwrap();
    for n in 0..10 {
        collector.collect("a", &json!({"n": n})).unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let _ = collector.stop().await;
    let arrivals = arrivals.lock().unwrap();
    // The timer's grain is a millisecond.
    let first = arrivals[0].0;
    assert!(first >= Duration::from_millis(250) && first < Duration::from_millis(255), "{first:?}");
    let counts: Vec<usize> = arrivals.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [3, 3, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_now_is_sent_again_after_a_pause() {
    let connection = server(|before, _| async move {
        match before {
            0 => status(503),
            1 => Err(TransportError::new(TransportErrorKind::Connect, Delivery::NotSent)),
            2 => status(429),
            _ => status(200),
        }
    });
    let start = Instant::now();
    let collector = AsyncCollector::start(connection).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let report = collector.flush().await;
    assert_eq!((report.delivered, report.pending), (1, 0));
    // A 429 that does not say for how long waits 5 s; the others at most 100 and 200 ms.
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_lost_after_120_s_and_handed_over() {
    let connection = server(|_, _| async { status(503) });
    let (builder, lost) = losses(AsyncCollector::builder());
    let collector = builder.start(connection).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let report = collector.flush_within(Duration::from_secs(119)).await;
    assert_eq!((report.lost(), report.pending), (0, 1));
    let report = collector.flush_within(Duration::from_secs(20)).await;
    assert_eq!(report.lost_by(LossReason::Expired, Delivery::MaybeSent), 1);
    assert_eq!(lost.load(Ordering::Relaxed), 1, "a flush waits until losses are handed over");
}

#[tokio::test(start_paused = true)]
async fn flush_and_stop_return_by_their_deadline_though_the_server_never_answers() {
    let (builder, lost) = losses(AsyncCollector::builder().batch_size(10).concurrency(2));
    let collector = builder.start(stalled()).unwrap();
    for n in 0..50 {
        collector.collect("a", &json!({"n": n})).unwrap();
    }
    let start = Instant::now();
    let report = collector.flush_within(Duration::from_secs(7)).await;
    assert_eq!(start.elapsed().as_secs(), 7);
    assert_eq!((report.accepted, report.pending), (50, 50));
    let report = collector.stop_within(Duration::from_secs(3)).await;
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!((report.accepted, report.lost(), report.pending), (50, 50, 0));
    assert_eq!(report.lost_by(LossReason::Stopped, Delivery::MaybeSent), 20);
    assert_eq!(lost.load(Ordering::Relaxed), 50);
    assert!(matches!(collector.collect("a", &json!({})), Err(CollectError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_ends_when_there_is_some_and_accepts_nothing_when_it_is_given_up() {
    let answers = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&answers);
    let connection = server(move |_, _| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            status(200)
        }
    });
    let collector = AsyncCollector::builder()
        .memory_budget(64 << 10)
        .max_event(1 << 10)
        .request_timeout(Duration::from_secs(3600))
        .start(connection)
        .unwrap();
    let event = json!({"text": "x".repeat(500)});
    // What is in flight is compressed, which makes room once more.
    while collector.collect("a", &event).is_ok() {
        while collector.collect("a", &event).is_ok() {}
        sleep(Duration::from_secs(1)).await;
    }
    let stream = collector.stream("a").unwrap();
    let accepted = collector.stats().accepted;

    let long = Duration::from_secs(20);
    assert!(timeout(long, collector.collect_wait("a", &event)).await.is_err());
    assert!(timeout(long, stream.collect_wait(&event)).await.is_err());
    assert_eq!(collector.stats().accepted, accepted, "what was given up is not accepted");
    let bad = collector.collect_wait("no name", &event).await;
    assert!(matches!(bad, Err(CollectError::Name { .. })), "an error needs no room");

    let waiting = tokio::spawn({
        let collector = collector.clone();
        async move { collector.collect_wait("a", &event).await }
    });
    answers.add_permits(1000);
    waiting.await.unwrap().unwrap();
    let report = collector.stop().await;
    assert_eq!((report.delivered, report.pending), (accepted + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_when_compressing_a_batch_makes_some() {
    let connection = server(|before, _| async move {
        let mut answer = status(if before == 0 { 429 } else { 200 })?;
        answer.headers_mut().insert("retry-after", "100".parse().unwrap());
        Ok(answer)
    });
    let collector = AsyncCollector::builder()
        .flush_interval(Duration::from_secs(2))
        .memory_budget(64 << 10)
        .max_event(20 << 10)
        .start(connection)
        .unwrap();
    collector.collect("first", &json!({})).unwrap();
    let _ = collector.flush_within(Duration::from_secs(1)).await;
    // Nothing is sent for the next 100 s, but what waits becomes smaller when it is compressed.
    while collector.collect("a", &json!({"text": "x".repeat(1000)})).is_ok() {}
    let large = json!({"text": "x".repeat(19 << 10)});
    assert!(matches!(collector.collect("b", &large), Err(CollectError::Full)));
    timeout(Duration::from_secs(3), collector.collect_wait("b", &large)).await.unwrap().unwrap();
}

/// Unparks its thread: no runtime is behind it.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[tokio::test]
async fn waiting_for_room_needs_no_runtime() {
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(tokio::sync::Mutex::new(Some(released)));
    let connection = server(move |_, _| {
        let released = Arc::clone(&released);
        async move {
            if let Some(released) = released.lock().await.take() {
                let _ = released.await;
            }
            status(200)
        }
    });
    let collector = AsyncCollector::builder()
        .memory_budget(8 << 10)
        .max_event(1 << 10)
        .concurrency(1)
        .start(connection)
        .unwrap();
    let event = json!({"text": "x".repeat(500)});
    while collector.collect("a", &event).is_ok() {}
    let accepted = collector.stats().accepted;
    let waiter = collector.clone();
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut waiting = std::pin::pin!(waiter.collect_wait("a", &event));
        loop {
            if let std::task::Poll::Ready(result) = waiting.as_mut().poll(&mut context) {
                return result.unwrap();
            }
            // Nobody listens any more from the second time on.
            let _ = waits.send(());
            std::thread::park();
        }
    });
    // Nothing is sent meanwhile, as this keeps the runtime's only thread: it does have to wait.
    is_waiting.recv().unwrap();
    drop((release, is_waiting));
    let joined = tokio::task::spawn_blocking(move || thread.join().unwrap());
    joined.await.unwrap();
    assert_eq!(collector.stop().await.delivered, accepted + 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_a_stop() {
    let collector =
        AsyncCollector::builder().memory_budget(8 << 10).max_event(1 << 10).start(stalled());
    let collector = collector.unwrap();
    let event = json!({"text": "x".repeat(500)});
    while collector.collect("a", &event).is_ok() {}
    let waiting = collector.collect_wait("a", &event);
    let (waited, report) = tokio::join!(waiting, collector.stop_within(Duration::from_secs(1)));
    assert!(matches!(waited, Err(CollectError::Stopped)), "{waited:?}");
    assert_eq!((report.pending, report.lost()), (0, report.accepted));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_is_a_signal_and_the_tasks_end_after_what_was_accepted() {
    let (done, mut is_done) = tokio::sync::mpsc::channel::<usize>(10);
    let connection = server(move |_, call| {
        let done = done.clone();
        async move {
            sleep(Duration::from_secs(1)).await;
            done.send(count(&call)).await.unwrap();
            status(200)
        }
    });
    let collector = AsyncCollector::start(connection).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let stream = collector.stream("a").unwrap();
    drop(collector);
    // A handle to a stream is one, too.
    stream.collect(&json!({})).unwrap();
    drop(stream);
    assert_eq!(is_done.recv().await, Some(2));
    // The transport, and with it the channel, goes when the last task does.
    assert_eq!(is_done.recv().await, None);
}

#[tokio::test]
async fn a_stop_returns_when_what_is_lost_by_it_was_handed_over() {
    let (first, is_first) = std::sync::mpsc::channel();
    let (told, count) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let tell = Arc::clone(&told);
    let builder = AsyncCollector::builder().batch_size(1).on_lost(move |lost| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            first.send(()).unwrap();
        } else {
            // Slower than whoever hands over another one at the same time.
            std::thread::sleep(Duration::from_millis(50));
        }
        tell.fetch_add(lost.count as u64, Ordering::SeqCst);
    });
    // The senders are not stuck in a request but waiting to send again.
    let collector = builder.start(server(|_, _| async { status(429) })).unwrap();
    for n in 0..5 {
        collector.collect("a", &json!({"n": n})).unwrap();
    }
    while collector.flush_within(Duration::ZERO).await.accepted < 5 {}
    let report = collector.stop_within(Duration::from_millis(20)).await;
    assert_eq!((report.lost(), told.load(Ordering::SeqCst)), (5, 5));
    is_first.try_recv().unwrap();
}

#[test]
fn a_stop_keeps_its_limit_though_all_threads_for_blocking_work_are_taken() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        drop(tokio::task::spawn_blocking(move || released.recv()));
        let collector = AsyncCollector::start(stalled()).unwrap();
        // Long enough to be compressed in slices, which needs no such thread either.
        let event = json!({"text": "x".repeat(300)});
        for _ in 0..2000 {
            collector.collect("a", &event).unwrap();
        }
        let report = collector.stop_within(Duration::from_millis(100)).await;
        assert_eq!((report.lost(), report.pending), (2000, 0));
    });
    drop(release);
}

#[test]
fn a_loss_that_waits_to_be_handed_over_when_the_runtime_ends_is_handed_over() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (builder, lost) = losses(AsyncCollector::builder().batch_size(1));
    let collector = runtime.block_on(async {
        drop(tokio::task::spawn_blocking(move || released.recv()));
        let collector = builder.start(server(|_, _| async { status(400) })).unwrap();
        for _ in 0..10 {
            collector.collect("a", &json!({})).unwrap();
        }
        while collector.stats().lost() == 0 {
            tokio::task::yield_now().await;
        }
        collector
    });
    assert_eq!(lost.load(Ordering::SeqCst), 0, "no thread was free for it");
    drop(release);
    drop(runtime);
    let report = collector.stats();
    assert_eq!((report.lost(), report.pending, lost.load(Ordering::SeqCst)), (10, 0, 10));
}

#[test]
fn a_runtime_that_stands_still_holds_up_no_stop_that_is_awaited_in_another() {
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let collector = own.block_on(async { AsyncCollector::start(working()) }).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let another = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let report = another.block_on(async {
        let limit = Duration::from_millis(50);
        let (first, second) = tokio::join!(collector.stop_within(limit), collector.stop());
        assert_eq!(first, second, "the one whose limit is reached first gives up for all");
        first
    });
    assert_eq!(report.lost_by(LossReason::Stopped, Delivery::NotSent), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_given_up_still_stops_and_sends() {
    let connection = server(|_, _| async {
        sleep(Duration::from_secs(1)).await;
        status(200)
    });
    let collector = AsyncCollector::start(connection).unwrap();
    collector.collect("a", &json!({})).unwrap();
    assert!(timeout(Duration::from_millis(10), collector.stop()).await.is_err());
    assert!(matches!(collector.collect("a", &json!({})), Err(CollectError::Stopped)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(collector.stats().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn on_lost_may_collect() {
    let own: Arc<std::sync::OnceLock<stride_collector::StreamHandle>> = Arc::default();
    let told = Arc::clone(&own);
    let refused = |_: usize, call: Call| async move {
        status(if call.request.uri().path().ends_with("/dead") { 400 } else { 200 })
    };
    let builder = AsyncCollector::builder().on_lost(move |lost| {
        let event = json!({"lost": lost.count});
        told.get().unwrap().collect(&event).unwrap();
    });
    let collector = builder.start(server(refused)).unwrap();
    let _ = own.set(collector.stream("losses").unwrap());
    collector.collect("dead", &json!({})).unwrap();
    let _ = collector.flush().await;
    let report = collector.stop().await;
    assert_eq!((report.accepted, report.lost(), report.delivered), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_costs_one_attempt() {
    let connection = server(|before, _| async move {
        assert!(before > 0, "a panic on purpose");
        status(200)
    });
    let collector = AsyncCollector::start(connection).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let report = collector.flush().await;
    assert_eq!((report.delivered, report.lost()), (1, 0));
}

#[tokio::test]
async fn on_lost_may_block_and_the_runtime_goes_on() {
    let (release, released) = oneshot::channel::<()>();
    let released = Mutex::new(Some(released));
    let builder = AsyncCollector::builder().on_lost(move |_| {
        // Blocks its thread until a task of the only other one comes to run.
        let released = released.lock().unwrap().take().unwrap();
        released.blocking_recv().unwrap();
    });
    let collector = builder.start(server(|_, _| async { status(400) })).unwrap();
    collector.collect("a", &json!({})).unwrap();
    let release = async move {
        tokio::task::yield_now().await;
        release.send(()).unwrap();
    };
    let (report, ()) = tokio::join!(collector.flush(), release);
    assert_eq!(report.lost_by(LossReason::Rejected, Delivery::MaybeSent), 1);
}

#[tokio::test]
async fn a_transport_that_never_waits_lets_other_tasks_run() {
    let collector =
        AsyncCollector::builder().batch_size(1).concurrency(1).start(working()).unwrap();
    for n in 0..10_000 {
        collector.collect("a", &json!({"n": n})).unwrap();
    }
    tokio::task::yield_now().await;
    assert!(collector.stats().pending > 0, "the sender had the thread until it was done");
    assert_eq!(collector.stop().await.delivered, 10_000);
}

#[tokio::test]
async fn long_batches_are_compressed_on_threads_for_blocking_work() {
    let sent = Arc::new(AtomicUsize::new(0));
    let arrived = Arc::clone(&sent);
    let connection = server(move |_, call| {
        arrived.fetch_add(count(&call), Ordering::Relaxed);
        async { status(200) }
    });
    let collector = AsyncCollector::start(connection).unwrap();
    let event = json!({"text": "x".repeat(300)});
    for _ in 0..5000 {
        collector.collect("a", &event).unwrap();
    }
    assert_eq!(collector.stop().await.delivered, 5000);
    assert_eq!(sent.load(Ordering::Relaxed), 5000);
}

#[test]
fn outside_of_a_runtime_there_is_no_collector() {
    let error = AsyncCollector::start(working()).unwrap_err();
    assert!(matches!(error, StartError::NoRuntime), "{error}");
}

#[test]
fn the_end_of_the_runtime_ends_the_collector_and_loses_nothing_unseen() {
    for workers in [0, 1, 4] {
        let runtime = match workers {
            0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            _ => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(workers).enable_all().build().unwrap()
            }
        };
        let (arrived, mut has_arrived) = tokio::sync::mpsc::channel::<()>(100);
        let connection = server(move |_, _| {
            let arrived = arrived.clone();
            async move {
                arrived.send(()).await.unwrap();
                pending().await
            }
        });
        let (builder, lost) = losses(AsyncCollector::builder().batch_size(10).concurrency(2));
        let collector = runtime.block_on(async { builder.start(connection) }).unwrap();
        for n in 0..55 {
            collector.collect("a", &json!({"n": n})).unwrap();
        }
        for _ in 0..2 {
            runtime.block_on(has_arrived.recv()).unwrap();
        }
        drop(runtime);
        let report = collector.stats();
        assert_eq!((report.accepted, report.lost(), report.pending), (55, 55, 0), "{workers}");
        assert_eq!(report.lost_by(LossReason::Stopped, Delivery::MaybeSent), 20, "{workers}");
        assert_eq!(lost.load(Ordering::Relaxed), 55, "{workers}");
        assert!(matches!(collector.collect("a", &json!({})), Err(CollectError::Stopped)));
        // In another runtime: nothing is left to wait for.
        let another = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(another.block_on(collector.flush()), *report);
        assert_eq!(another.block_on(collector.stop()), *report);
    }
}
