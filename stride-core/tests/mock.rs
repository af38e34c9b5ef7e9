//! The mock keeps what its page promises, in both worlds and without a runtime.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of something that waits need threads and a clock"
)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use stride_core::api::RequestError;
use stride_core::cancel::CancelToken;
use stride_core::mock::{Fault, Mock, Reply};
use stride_core::transport::{
    AsyncTransport, Call, Delivery, Limits, Transport, TransportError, TransportErrorKind as Kind,
};
use stride_core::{Api, Response};

fn collect_call() -> Call {
    Call::new(Api::new("key").unwrap().get("/collect").unwrap(), Limits::for_request())
}

fn send(mock: &Mock) -> Result<Response, TransportError> {
    let response = Transport::send(&mock.transport(), collect_call(), CancelToken::never())?;
    Response::read(response, 1000)
}

fn send_async(mock: &Mock) -> Result<Response, TransportError> {
    block_on(async {
        let response = AsyncTransport::send(&mock.transport(), collect_call()).await?;
        Response::read_async(response, 1000).await
    })
}

/// The smallest of runtimes.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn panics(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    payload.downcast_ref::<String>().expect("with a text").clone()
}

#[test]
fn answers_come_in_the_order_in_which_they_were_scripted() {
    for send in [send, send_async] {
        let mock = Mock::new();
        mock.get("/collect").reply(Reply::json(&["clicks"]).header("x-a", "b"));
        mock.get("/collect").reply(503);
        mock.get("/collect").always(204);
        let first = send(&mock).unwrap();
        assert_eq!(first.data::<Vec<String>>().unwrap().unwrap(), ["clicks"]);
        assert_eq!(first.headers()["x-a"], "b");
        assert_eq!(send(&mock).unwrap().status(), 503);
        assert_eq!(send(&mock).unwrap().status(), 204);
        assert_eq!(send(&mock).unwrap().status(), 204);
        assert_eq!(mock.requests().len(), 4);
    }
}

#[test]
fn requests_are_recorded_decoded_and_show_no_key() {
    let mock = Mock::new();
    mock.post("/collect/clicks").reply(200);
    mock.subscribe("/collect/clicks").reply(200);
    let endpoint = Api::new("helloworld").unwrap().with_base("http://[::1]/a/v2").unwrap();
    for request in [
        endpoint.post("/collect/clicks", &json!({"x": 3})).unwrap(),
        endpoint.subscribe("/collect/clicks", std::num::NonZero::new(100)).unwrap(),
    ] {
        let call = Call::new(request, Limits::for_request());
        Transport::send(&mock.transport(), call, CancelToken::never()).unwrap();
    }
    let requests = mock.requests();
    assert_eq!(requests[0].json(), Some(&json!({"x": 3})));
    assert_eq!(requests[0].api_key(), Some("helloworld"));
    assert_eq!(requests[0].path(), "/collect/clicks");
    assert_eq!(requests[1].path(), "/collect/clicks/subscribe");
    assert_eq!(requests[1].query(), Some("sample=100"));
    assert!(!format!("{requests:?} {mock:?}").contains("helloworld"));
}

#[test]
fn a8_what_was_not_scripted_fails_and_says_what_to_script() {
    let text = panics(|| {
        let mock = Mock::new();
        mock.post("/collect/clicks").always(200);
        let error = send(&mock).unwrap_err();
        assert_eq!(error.delivery(), Delivery::NotSent);
        assert_eq!(
            error.to_string(),
            "this transport cannot send such a request: the mock has no reply to GET /collect; it expects POST /collect/clicks: \
             script it with `mock.get(\"/collect\").reply(200)`"
        );
    });
    assert_eq!(text, "requested, but not scripted: GET /collect");
}

#[test]
fn leftovers_fail_on_drop() {
    let text = panics(|| {
        let mock = Mock::new();
        mock.get("/collect").reply(200);
        mock.get("/collect").reply(200);
        assert_eq!(send(&mock).unwrap().status(), 200);
    });
    assert_eq!(text, "scripted, but never requested: GET /collect (1 replies left)");
}

#[test]
fn faults_have_the_right_kind_and_delivery() {
    for send in [send, send_async] {
        let mock = Mock::new();
        for (fault, kind, delivery) in [
            (Fault::Refused, Kind::Connect, Delivery::NotSent),
            (Fault::ResetBeforeRequest, Kind::Io, Delivery::NotSent),
            (Fault::ResetAfterRequest, Kind::Io, Delivery::MaybeSent),
            (Fault::Timeout, Kind::HeadTimeout, Delivery::MaybeSent),
        ] {
            mock.get("/collect").reply(fault);
            let error = send(&mock).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{fault:?}");
        }
        mock.get("/collect").reply(Reply::status(200).body("[1,2]").cut_at(3));
        assert_eq!(send(&mock).unwrap_err().kind(), Kind::Io);
    }
}

#[test]
fn a_body_in_chunks_and_a_cut_one() {
    let mock = Mock::new();
    mock.get("/collect").reply(Reply::status(200).body("abcde").split(2).cut_at(5));
    let response =
        Transport::send(&mock.transport(), collect_call(), CancelToken::never()).unwrap();
    let chunks: Vec<_> = response.into_body().map(|chunk| chunk.map_err(|e| e.kind())).collect();
    assert_eq!(chunks, [Ok("ab".into()), Ok("cd".into()), Ok("e".into()), Err(Kind::Io)]);
}

#[test]
fn a8_a_hang_ends_at_the_limit_of_a_blocking_caller_and_never_for_one_that_polls() {
    let mock = Mock::new();
    mock.get("/collect").always(Fault::Hang);
    let mut call = collect_call();
    call.limits.head = Duration::from_millis(20);
    let error = Transport::send(&mock.transport(), call.clone(), CancelToken::never()).unwrap_err();
    assert_eq!(error.kind(), Kind::HeadTimeout);
    // Whose clock it would be is for the caller to say.
    let mut response = AsyncTransport::send(&mock.transport(), call);
    let mut context = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut context).is_pending());
}

#[test]
fn a_hang_ends_when_it_is_cancelled() {
    let mock = Mock::new();
    mock.get("/collect").reply(Fault::Hang);
    let cancel = CancelToken::new();
    let transport = mock.transport();
    let call = thread::spawn({
        let cancel = cancel.clone();
        move || Transport::send(&transport, collect_call(), cancel).unwrap_err().kind()
    });
    while mock.requests().is_empty() {
        thread::yield_now();
    }
    cancel.cancel();
    assert_eq!(call.join().unwrap(), Kind::Cancelled);
}

#[test]
fn a_live_body_is_read_as_it_is_written_in_both_worlds() {
    let mock = Mock::new();
    let live = mock.get("/collect").live();
    let mut body = Transport::send(&mock.transport(), collect_call(), CancelToken::never())
        .unwrap()
        .into_body();
    for text in ["a", "b"] {
        live.write(text);
        assert_eq!(body.next().unwrap().unwrap(), text);
    }
    let writer = live.clone();
    let thread = thread::spawn(move || writer.write("c"));
    assert_eq!(body.next().unwrap().unwrap(), "c");
    thread.join().unwrap();
    live.reset();
    assert!(body.next().unwrap().is_err() && body.next().is_none());
    assert!(!live.is_closed());
    drop(body);
    assert!(live.is_closed());

    let live = mock.get("/collect").live();
    let response = block_on(AsyncTransport::send(&mock.transport(), collect_call())).unwrap();
    let mut body = response.into_body();
    let writer = live.clone();
    let thread = thread::spawn(move || writer.write("d"));
    assert_eq!(block_on(body.next()).unwrap().unwrap(), "d");
    thread.join().unwrap();
    live.end();
    assert!(block_on(body.next()).is_none());
}

#[test]
fn a_silent_live_body_ends_at_the_idle_limit_of_a_blocking_caller() {
    let mock = Mock::new();
    let mut call = collect_call();
    call.limits.idle = Some(Duration::from_millis(20));
    let _live = mock.get("/collect").live();
    let mut body =
        Transport::send(&mock.transport(), call.clone(), CancelToken::never()).unwrap().into_body();
    assert_eq!(body.next().unwrap().unwrap_err().kind(), Kind::IdleTimeout);
    assert!(body.next().is_none());
}

fn ask(mock: &Mock, request: Result<http::Request<Bytes>, RequestError>) -> u16 {
    let call = Call::new(request.unwrap(), Limits::for_request());
    Transport::send(&mock.transport(), call, CancelToken::never()).unwrap().status().as_u16()
}

#[test]
fn a8_events_are_collected_however_they_were_batched() {
    let api = Api::new("key").unwrap();
    let mock = Mock::new();
    mock.accept_events();
    mock.post("/collect/clicks").reply(503);
    mock.post("/collect/clicks").reply(Fault::ResetAfterRequest);
    assert_eq!(ask(&mock, api.post("/collect/clicks", &json!({"x": 1}))), 503);
    let call =
        Call::new(api.post("/collect/clicks", &json!({"x": 1})).unwrap(), Limits::for_request());
    assert!(Transport::send(&mock.transport(), call, CancelToken::never()).is_err());
    assert_eq!(mock.collected("clicks"), [json!(null); 0]);

    assert_eq!(ask(&mock, api.post("/collect/clicks", &json!({"x": 1}))), 200);
    assert_eq!(ask(&mock, api.post("/collect/clicks", &json!([{"x": 2}, {"x": 3}]))), 200);
    let both = json!({"clicks": [{"x": 4}], "visits": {"page": "/"}});
    assert_eq!(ask(&mock, api.post("/collect", &both)), 200);
    let numbers: Vec<_> = mock.collected("clicks").iter().map(|it| it["x"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(mock.collected("visits"), [json!({"page": "/"})]);
    assert!(mock.collected("nothing").is_empty());
    assert_eq!(mock.requests().len(), 5);
}

#[test]
fn a8_a_query_can_be_scripted_by_its_parameters_or_its_text() {
    let api = Api::new("key").unwrap();
    let mock = Mock::new();
    mock.get("/analyze/a/results?x=1&y=a%20b").always(201);
    mock.get("/analyze/a/results").always(202);
    mock.post("/analyze").with_json(&json!({"query": "SELECT 1"})).always(203);
    mock.post("/analyze").always(Reply::status(400).with_json(&json!({"message": "no"})));
    let get = |query: &[(&str, &str)]| {
        ask(&mock, api.get_query("/analyze/a/results", query.iter().copied()))
    };
    assert_eq!(get(&[("y", "a b"), ("x", "1")]), 201);
    assert_eq!(get(&[("x", "2")]), 202);
    assert_eq!(get(&[]), 202);
    assert_eq!(ask(&mock, api.post("/analyze", &json!({"query": "SELECT 1"}))), 203);
    assert_eq!(ask(&mock, api.post("/analyze", &json!({"query": "SELECT 2"}))), 400);
}
