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

use serde_json::json;
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
fn what_was_not_scripted_fails_and_says_what_to_script() {
    let text = panics(|| {
        let mock = Mock::new();
        mock.post("/collect/clicks").always(200);
        let error = send(&mock).unwrap_err();
        assert_eq!(error.delivery(), Delivery::NotSent);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            source,
            "the mock has no reply to GET /collect; it expects POST /collect/clicks: \
             script it with `mock.get(\"/collect\").reply(200)`"
        );
    });
    assert_eq!(text, "asked, but not scripted: GET /collect");
}

#[test]
fn leftovers_fail_on_drop() {
    let text = panics(|| {
        let mock = Mock::new();
        mock.get("/collect").reply(200);
        mock.get("/collect").reply(200);
        assert_eq!(send(&mock).unwrap().status(), 200);
    });
    assert_eq!(text, "scripted, but never asked for: GET /collect (1 answers left)");
}

#[test]
fn faults_have_the_right_kind_and_delivery() {
    for send in [send, send_async] {
        let mock = Mock::new();
        for (fault, kind, delivery) in [
            (Fault::Refused, Kind::Connect, Delivery::NotSent),
            (Fault::ResetBeforeRequest, Kind::Io, Delivery::NotSent),
            (Fault::ResetAfterRequest, Kind::Io, Delivery::MaybeSent),
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
fn a_hang_ends_at_the_limit_in_both_worlds() {
    let mock = Mock::new();
    mock.get("/collect").always(Fault::Hang);
    let mut call = collect_call();
    call.limits.head = Duration::from_millis(20);
    let error = Transport::send(&mock.transport(), call.clone(), CancelToken::never()).unwrap_err();
    assert_eq!(error.kind(), Kind::HeadTimeout);
    let error = block_on(AsyncTransport::send(&mock.transport(), call)).unwrap_err();
    assert_eq!(error.kind(), Kind::HeadTimeout);
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
fn a_silent_live_body_ends_at_the_idle_limit() {
    let mock = Mock::new();
    let mut call = collect_call();
    call.limits.idle = Some(Duration::from_millis(20));
    let _live = mock.get("/collect").live();
    let mut body =
        Transport::send(&mock.transport(), call.clone(), CancelToken::never()).unwrap().into_body();
    assert_eq!(body.next().unwrap().unwrap_err().kind(), Kind::IdleTimeout);
    assert!(body.next().is_none());

    let _live = mock.get("/collect").live();
    let mut body = block_on(AsyncTransport::send(&mock.transport(), call)).unwrap().into_body();
    assert_eq!(block_on(body.next()).unwrap().unwrap_err().kind(), Kind::IdleTimeout);
}
