//! What a request leaves in a log (A7). Alone in its program: `tracing` keeps for all threads who listens.

use std::future::Future;

use stride_core::mock::{Fault, Mock};
use stride_tests::Log;

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

/// What a log shows of something.
fn log_of(run: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    log.text()
}

#[test]
fn a7_a_request_is_a_span_with_its_outcome_and_without_the_key() {
    let script = || {
        let mock = Mock::new();
        mock.get("/analyze/a/results").reply(503);
        mock.get("/analyze/a/results").reply(Fault::ResetAfterRequest);
        mock
    };
    const PATH: &str = "/analyze/a/results?name=bojack";
    let blocking = log_of(|| {
        let mock = script();
        let stride = blocking(&mock);
        assert_eq!(stride.get(PATH).unwrap().status(), 503);
        assert!(stride.get(PATH).is_err());
    });
    let asynchronous = log_of(|| {
        let mock = script();
        let stride = asynchronous(&mock);
        paused(async {
            assert_eq!(stride.get(PATH).await.unwrap().status(), 503);
            assert!(stride.get(PATH).await.is_err());
        });
    });
    for log in [blocking, asynchronous] {
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("stride::request")).collect();
        let [received, failed] = lines[..] else { panic!("{log}") };
        let span =
            r#"request{method="GET" host="api.stride.io" path="/v1/analyze/a/results" status=503}"#;
        assert!(received.contains(span), "{received}");
        assert!(received.contains("response received status=503"), "{received}");
        assert!(failed.contains(r#"path="/v1/analyze/a/results"}"#), "{failed}");
        assert!(failed.contains("request failed error=the connection broke"), "{failed}");
        assert!(failed.contains("delivery=MaybeSent"), "{failed}");
        assert!(!log.contains(KEY) && !log.contains("bojack"), "{log}");
    }
}
