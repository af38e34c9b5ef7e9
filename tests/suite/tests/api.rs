//! What a user of the clients can rely on in their types, errors and traces (A1 to A8).

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use futures_core::FusedStream as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use stride_collector::{AsyncCollector, Collector};
use stride_core::mock::{Fault, Mock, Reply};
use stride_tests::watchdog;

const KEY: &str = "k3y_that_is_secret";

fn blocking(mock: &Mock) -> stride_blocking::Stride {
    stride_blocking::Stride::builder(KEY).transport(mock.transport()).build().unwrap()
}

fn asynchronous(mock: &Mock) -> stride_async::Stride {
    stride_async::Stride::builder(KEY).transport(mock.transport()).build().unwrap()
}

fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn a4_a_collector_starts_from_a_client_by_value_and_by_reference() {
    watchdog(|| {
        let mock = Mock::new();
        mock.accept_events();
        let stride = blocking(&mock);
        for collector in [Collector::start(&stride).unwrap(), Collector::start(stride).unwrap()] {
            collector.collect("clicks", &json!({"x": 1})).unwrap();
            assert_eq!(collector.stop().delivered, 1);
        }
        let stride = asynchronous(&mock);
        paused(async {
            let by_reference = AsyncCollector::start(&stride).unwrap();
            for collector in [by_reference, AsyncCollector::start(stride).unwrap()] {
                collector.collect("clicks", &json!({"x": 1})).unwrap();
                assert_eq!(collector.stop().await.delivered, 1);
            }
        });
        assert_eq!(mock.collected("clicks").len(), 4);
    });
}

/// The blocking crate alone is enough to write a transport.
#[test]
fn a4_a_transport_needs_nothing_but_the_client_crate() {
    use stride_blocking::{Body, Call, CancelToken, Limits, Stride, TransportError, http};
    let teapot = |call: Call, _: CancelToken| -> Result<http::Response<Body>, TransportError> {
        assert_eq!(call.limits, Limits::for_request());
        Ok(http::Response::builder().status(418).body(Body::default()).unwrap())
    };
    let stride = Stride::builder(KEY).transport(teapot).build().unwrap();
    assert_eq!(stride.get("/collect").unwrap().status(), http::StatusCode::IM_A_TEAPOT);
}

/// Serialises from a `Cell`, which is not `Sync`.
struct NotSync(Cell<u32>);

impl Serialize for NotSync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({"x": self.0.get()}).serialize(serializer)
    }
}

#[test]
fn a5_the_future_of_a_verb_is_send_and_borrows_nothing() {
    fn spawnable<F: Future + Send + 'static>(future: F) -> F {
        future
    }
    let mock = Mock::new();
    mock.post("/collect/a").reply(200);
    let response = {
        let (stride, event) = (asynchronous(&mock), NotSync(Cell::new(1)));
        spawnable(stride.post("/collect/a", &event))
    };
    assert!(mock.requests().is_empty(), "nothing is sent before it is awaited");
    assert_eq!(paused(response).unwrap().status(), 200);
    assert_eq!(mock.requests()[0].json(), Some(&json!({"x": 1})));
}

#[test]
fn a5_builders_are_clone() {
    let mock = Mock::new();
    mock.get("/collect").always(200);
    mock.subscribe("/collect/a").always(Reply::status(404));
    let builder = stride_blocking::Stride::builder(KEY).transport(mock.transport());
    for stride in [builder.clone().build().unwrap(), builder.build().unwrap()] {
        assert_eq!(stride.get("/collect").unwrap().status(), 200);
        let subscribe = stride.subscribe("/collect/a").sample(3);
        assert!(subscribe.clone().data::<Value>().is_err());
        assert!(subscribe.data::<Value>().is_err());
    }
    assert_eq!(mock.requests().iter().filter(|it| it.query() == Some("sample=3")).count(), 4);
}

#[test]
fn a5_an_async_subscription_knows_when_it_has_terminated() {
    let mock = Mock::new();
    let body = Reply::status(200).body("1\n2\n");
    mock.subscribe("/collect/a").reply(body);
    mock.subscribe("/collect/a").always(404);
    let stride = asynchronous(&mock);
    paused(async {
        let mut data = stride.subscribe("/collect/a").data::<u32>().await.unwrap();
        for number in [1, 2] {
            assert!(!data.is_terminated());
            assert_eq!(data.next().await.unwrap().unwrap(), number);
        }
        assert!(!data.is_terminated());
        assert!(data.next().await.unwrap().is_err());
        assert!(data.is_terminated());
        assert!(data.next().await.is_none());
    });
}

#[test]
fn a6_a_call_can_have_another_timeout_and_header() {
    let mock = Mock::new();
    mock.get("/collect").always(200);
    let stride = blocking(&mock);
    let traced = stride.with_header("traceparent", "00-1-2-01").unwrap();
    assert_eq!(traced.get("/collect").unwrap().status(), 200);
    assert_eq!(stride.get("/collect").unwrap().status(), 200);
    let headers: Vec<_> =
        mock.requests().iter().map(|it| it.headers().contains_key("traceparent")).collect();
    assert_eq!(headers, [true, false]);
    assert!(stride.with_timeout(Duration::ZERO).is_err());
}

#[test]
fn a8_a_mock_that_hangs_takes_no_real_time_under_a_paused_clock() {
    watchdog(|| {
        let mock = Mock::new();
        mock.get("/collect").always(Fault::Hang);
        mock.subscribe("/collect/a").reply(Fault::Hang);
        let silent = mock.subscribe("/collect/b").live();
        mock.subscribe("/collect/b").reply(404);
        let stride = asynchronous(&mock);
        paused(async {
            let start = tokio::time::Instant::now();
            let error = stride.get("/collect").await.unwrap_err();
            let stride_async::Error::Transport(error) = error else { panic!("{error}") };
            assert!(error.is_timeout());
            assert_eq!(start.elapsed(), Duration::from_secs(30));

            let start = tokio::time::Instant::now();
            let error = stride.subscribe("/collect/a").data::<Value>().await.unwrap_err();
            let stride_async::Error::Transport(error) = error else { panic!("{error}") };
            assert!(error.is_timeout());
            // Connecting and the head, which a mock does not tell apart.
            assert_eq!(start.elapsed(), Duration::from_secs(100));

            let start = tokio::time::Instant::now();
            let mut data = stride.subscribe("/collect/b").data::<Value>().await.unwrap();
            assert!(data.next().await.unwrap().is_err());
            assert!(start.elapsed() >= Duration::from_secs(90), "{:?}", start.elapsed());
            assert!(silent.is_closed());
        });
    });
}

#[test]
fn a7_an_error_names_method_host_and_path_and_never_the_key() {
    let mock = Mock::new();
    mock.post("/process/p").reply(Fault::Refused);
    mock.post("/process/p").reply(Reply::status(409).with_json(&json!({"message": "it exists"})));
    mock.get("/collect").reply(Reply::status(200).body("<html>"));
    let stride = blocking(&mock);
    let post = || stride.post("/process/p", &json!({}));
    assert_eq!(
        post().unwrap_err().to_string(),
        "POST https://api.stride.io/v1/process/p: could not connect to the server"
    );
    assert_eq!(
        post().unwrap().error_for_status().unwrap_err().to_string(),
        "POST https://api.stride.io/v1/process/p: the server responded 409 Conflict: it exists"
    );
    assert_eq!(
        stride.get("/collect").unwrap().data::<Value>().unwrap_err().to_string(),
        "GET https://api.stride.io/v1/collect: the data is not what was asked for"
    );
}
