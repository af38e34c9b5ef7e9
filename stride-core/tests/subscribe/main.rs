//! The subscription in virtual time: no clock runs here but the one the tests move.
#![expect(
    clippy::disallowed_methods,
    reason = "an instant to count from has to come from somewhere"
)]

mod resuming;
mod snapshot;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, response};
use proptest::prelude::*;
use stride_core::frame::FrameError;
use stride_core::subscribe::{
    DisconnectCause, Position, Reconnect, Resumed, Step, Subscription, SubscriptionEvent,
};
use stride_core::transport::{Delivery, Limits, TransportError, TransportErrorKind};
use stride_core::{Api, Error};

const SECOND: Duration = Duration::from_secs(1);

fn head(status: u16, headers: &[(&'static str, &str)]) -> response::Parts {
    let mut builder = http::Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn broken(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, Delivery::MaybeSent)
}

/// A subscription with the clock it lives by.
struct Bench {
    subscription: Subscription,
    start: Instant,
    now: Instant,
    connects: usize,
    /// What the last connect asked for.
    query: Option<String>,
}

/// What `Bench::run` stopped at.
#[derive(Debug)]
enum Stop {
    /// A connect was given out, so many milliseconds after the start.
    Connect(u128),
    Read,
    Connected(Option<Duration>, Resumed),
    Data(String),
    SnapshotDone,
    Malformed,
    Disconnected(DisconnectCause, Duration),
    Closed(Result<(), Error>),
}

impl Bench {
    fn new(reconnect: Reconnect, seed: u64) -> Self {
        let request = Api::new("key").unwrap().subscribe("/collect/a", None).unwrap();
        let start = Instant::now();
        Self {
            subscription: Subscription::new(request, Limits::for_stream(), reconnect, seed),
            start,
            now: start,
            connects: 0,
            query: None,
        }
    }

    /// One that is connected.
    fn connected() -> Self {
        let mut bench = Self::new(Reconnect::default(), 1);
        assert!(matches!(bench.run(), Stop::Connect(0)));
        bench.accept();
        bench
    }

    fn accept(&mut self) {
        self.accept_with(&[]);
    }

    fn accept_with(&mut self, headers: &[(&'static str, &str)]) -> Resumed {
        self.answer(200, headers);
        match self.run() {
            Stop::Connected(_, resumed) => resumed,
            other => panic!("{other:?} instead of a connection"),
        }
    }

    fn answer(&mut self, status: u16, headers: &[(&'static str, &str)]) {
        self.subscription.handle_head(head(status, headers), self.now);
    }

    fn bytes(&mut self, bytes: &str) {
        self.subscription.handle_bytes(bytes.as_bytes(), self.now);
    }

    fn end(&mut self, end: Result<(), TransportError>) {
        self.subscription.handle_end(end, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Polls on, through waits and closed connections, to the next thing worth looking at.
    fn run(&mut self) -> Stop {
        loop {
            match self.subscription.poll(self.now) {
                Step::Connect(call) => {
                    assert_eq!(call.request.uri().path(), "/v1/collect/a/subscribe");
                    self.connects += 1;
                    self.query = call.request.uri().query().map(str::to_owned);
                    return Stop::Connect((self.now - self.start).as_millis());
                }
                Step::Wait { until } => {
                    assert!(until > self.now, "a wait that is over is no wait");
                    self.now = until;
                }
                Step::Close => {}
                Step::Read { .. } => return Stop::Read,
                Step::AwaitHead => panic!("the head is awaited, and nothing came of it"),
                Step::Closed(result) => return Stop::Closed(result),
                Step::Item(SubscriptionEvent::Connected { gap, resumed }) => {
                    return Stop::Connected(gap, resumed);
                }
                Step::Item(SubscriptionEvent::Data(frame)) => {
                    return Stop::Data(frame.as_str().to_owned());
                }
                Step::Item(SubscriptionEvent::SnapshotDone) => return Stop::SnapshotDone,
                Step::Item(SubscriptionEvent::Malformed(_)) => return Stop::Malformed,
                Step::Item(SubscriptionEvent::Disconnected { cause, delay }) => {
                    return Stop::Disconnected(cause, delay);
                }
                Step::Item(other) => panic!("an event that nobody knows: {other:?}"),
            }
        }
    }

    /// The delay of a disconnect that must come next, before the connect that must follow it.
    fn reconnects(&mut self) -> Duration {
        let Stop::Disconnected(_, delay) = self.run() else { panic!("no disconnect") };
        let lost = self.now;
        assert!(matches!(self.run(), Stop::Connect(_)));
        assert_eq!(self.now - lost, delay, "the delay is kept");
        delay
    }
}

#[test]
fn data_comes_before_the_news_that_the_connection_is_lost() {
    let mut bench = Bench::connected();
    bench.bytes("{\"a\":1}\r\n{\"a\":2}\r\n{\"a\"");
    bench.end(Ok(()));
    assert!(matches!(bench.run(), Stop::Data(text) if text == r#"{"a":1}"#));
    assert!(matches!(bench.run(), Stop::Data(text) if text == r#"{"a":2}"#));
    assert!(matches!(bench.run(), Stop::Malformed), "what was cut off is reported");
    assert!(matches!(bench.run(), Stop::Disconnected(DisconnectCause::Ended, _)));
    assert!(matches!(bench.run(), Stop::Connect(_)));
    assert_eq!(bench.subscription.malformed(), 1);
}

#[test]
fn n8_the_body_of_a_refusal_has_ten_seconds_however_it_drips() {
    for dripped in [true, false] {
        let mut bench = Bench::new(Reconnect::Always, 1);
        assert!(matches!(bench.run(), Stop::Connect(0)));
        let refused = bench.now;
        bench.answer(401, &[]);
        while matches!(bench.run(), Stop::Read) {
            let Step::Read { by } = bench.subscription.poll(bench.now) else { panic!() };
            assert_eq!(by, Some(refused + 10 * SECOND));
            assert!(bench.now < refused + 10 * SECOND, "it is read for too long");
            bench.pass(SECOND);
            if dripped {
                bench.bytes("x");
            }
        }
        bench.subscription.poll(bench.now);
        assert_eq!(bench.now, refused + 10 * SECOND);
    }
}

#[test]
fn n8_a_refusal_that_ran_out_of_time_has_what_was_read() {
    let mut bench = Bench::new(Reconnect::Always, 1);
    assert!(matches!(bench.run(), Stop::Connect(0)));
    bench.answer(401, &[]);
    bench.bytes(r#"{"message": "revoked"}"#);
    bench.pass(11 * SECOND);
    let Stop::Closed(Err(Error::Status(error))) = bench.run() else { panic!() };
    assert_eq!((error.status().as_u16(), error.message().as_deref()), (401, Some("revoked")));
    assert!(matches!(bench.run(), Stop::Closed(Ok(()))));
}

#[test]
fn a_reconnect_tells_of_the_gap() {
    let mut bench = Bench::connected();
    bench.end(Err(broken(TransportErrorKind::Io)));
    let delay = bench.reconnects();
    bench.pass(SECOND);
    bench.answer(200, &[]);
    assert!(
        matches!(bench.run(), Stop::Connected(Some(gap), Resumed::No) if gap == delay + SECOND)
    );
}

#[test]
fn half_a_record_does_not_reach_over_a_reconnect() {
    let mut bench = Bench::connected();
    bench.bytes("{\"a\":");
    bench.end(Err(broken(TransportErrorKind::Io)));
    assert!(matches!(bench.run(), Stop::Malformed));
    bench.reconnects();
    bench.accept();
    bench.bytes("{\"b\":1}");
    assert!(matches!(bench.run(), Stop::Data(text) if text == r#"{"b":1}"#));
}

#[test]
fn a_server_that_accepts_and_closes_for_ten_minutes_is_called_at_most_50_times() {
    for seed in 0..50 {
        let mut bench = Bench::new(Reconnect::default(), seed);
        while bench.now - bench.start < Duration::from_secs(600) {
            assert!(matches!(bench.run(), Stop::Connect(_)));
            bench.accept();
            bench.bytes("\r\n");
            bench.end(Ok(()));
            assert!(matches!(bench.run(), Stop::Disconnected(..)));
        }
        assert!(bench.connects <= 50, "{} calls", bench.connects);
    }
}

#[test]
fn only_a_healthy_session_resets_the_backoff() {
    let mut bench = Bench::connected();
    // Thirty seconds of silence are not health, nor is a byte without them.
    for (lived, bytes) in [(31, ""), (29, "\r\n"), (31, ""), (29, "\r\n"), (31, "")] {
        bench.bytes(bytes);
        bench.pass(SECOND * lived);
        bench.end(Ok(()));
        bench.reconnects();
        bench.accept();
    }
    bench.end(Ok(()));
    assert!(bench.reconnects() >= SECOND * 8, "the sixth delay is at least half of 16 s");
    bench.accept();
    bench.bytes("\r\n");
    bench.pass(SECOND * 30);
    bench.end(Ok(()));
    assert!(bench.reconnects() <= Duration::from_millis(500));
}

#[test]
fn a_401_is_asked_for_once_on_the_first_connect() {
    let mut bench = Bench::new(Reconnect::Always, 1);
    assert!(matches!(bench.run(), Stop::Connect(0)));
    bench.answer(401, &[]);
    assert!(matches!(bench.run(), Stop::Read), "its body is part of the error");
    bench.bytes("{\"message\": ");
    bench.bytes("\"no such key\"}");
    bench.end(Ok(()));
    let Stop::Closed(Err(Error::Status(error))) = bench.run() else { panic!("it is refused") };
    assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(error.message().as_deref(), Some("no such key"));
    assert!(matches!(bench.run(), Stop::Closed(Ok(()))), "for ever");
    assert_eq!(bench.connects, 1);
}

#[test]
fn a_401_is_asked_for_once_on_a_reconnect() {
    let mut bench = Bench::connected();
    bench.end(Ok(()));
    bench.reconnects();
    bench.answer(401, &[]);
    bench.end(Err(broken(TransportErrorKind::Io)));
    let Stop::Closed(Err(Error::Status(error))) = bench.run() else { panic!("it is refused") };
    assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bench.connects, 2);
}

#[test]
fn an_error_body_is_read_up_to_64_kib() {
    let mut bench = Bench::new(Reconnect::default(), 1);
    bench.run();
    bench.answer(404, &[]);
    for _ in 0..15 {
        bench.bytes(&"x".repeat(4096));
        assert!(matches!(bench.run(), Stop::Read));
    }
    bench.bytes(&"x".repeat(10_000));
    let Stop::Closed(Err(Error::Status(error))) = bench.run() else { panic!("it is refused") };
    assert_eq!(error.response().body().len(), 64 << 10);
}

#[test]
fn a_503_with_retry_after_7_is_not_called_before_7_s() {
    for seed in 0..50 {
        let mut bench = Bench::new(Reconnect::Always, seed);
        bench.run();
        bench.answer(503, &[("retry-after", "7")]);
        assert!(bench.reconnects() >= SECOND * 7);
        bench.answer(503, &[("retry-after", "100000")]);
        assert_eq!(bench.reconnects(), SECOND * 300);
        bench.answer(429, &[]);
        assert!(bench.reconnects() >= SECOND * 5);
    }
}

#[test]
fn a_half_open_connection_is_noticed() {
    let mut bench = Bench::connected();
    assert!(matches!(bench.run(), Stop::Read));
    bench.pass(SECOND * 90);
    bench.end(Err(broken(TransportErrorKind::IdleTimeout)));
    let Stop::Disconnected(DisconnectCause::Transport(error), _) = bench.run() else {
        panic!("an idle connection is a lost one")
    };
    assert!(error.is_timeout());
    assert!(matches!(bench.run(), Stop::Connect(_)));
}

#[test]
fn the_first_connect_fails_fast_unless_asked_otherwise() {
    let mut bench = Bench::new(Reconnect::AfterFirstConnect, 1);
    bench.run();
    bench.end(Err(broken(TransportErrorKind::Connect)));
    assert!(matches!(bench.run(), Stop::Closed(Err(Error::Transport(_)))));

    let mut bench = Bench::new(Reconnect::AfterFirstConnect, 1);
    bench.run();
    bench.answer(503, &[]);
    bench.end(Ok(()));
    assert!(matches!(bench.run(), Stop::Closed(Err(Error::Status(_)))));

    let mut bench = Bench::new(Reconnect::Always, 1);
    bench.run();
    bench.end(Err(broken(TransportErrorKind::Connect)));
    bench.reconnects();
    bench.answer(502, &[]);
    bench.reconnects();
    bench.answer(200, &[]);
    assert!(
        matches!(bench.run(), Stop::Connected(None, Resumed::No)),
        "there was no connection to miss"
    );
}

#[test]
fn one_connection_and_no_more_when_asked() {
    let mut bench = Bench::new(Reconnect::Never, 1);
    bench.run();
    bench.accept();
    bench.bytes("{}");
    bench.end(Ok(()));
    assert!(matches!(bench.run(), Stop::Data(_)));
    assert!(matches!(bench.run(), Stop::Closed(Ok(()))));

    let mut bench = Bench::new(Reconnect::Never, 1);
    bench.run();
    bench.accept();
    bench.end(Err(broken(TransportErrorKind::Io)));
    assert!(matches!(bench.run(), Stop::Closed(Err(Error::Transport(_)))));
}

#[test]
fn an_answer_that_is_neither_200_nor_transient_ends_it() {
    for status in [201, 204, 301, 304, 400, 403, 404, 410, 501, 505] {
        let mut bench = Bench::connected();
        bench.end(Ok(()));
        bench.reconnects();
        bench.answer(status, &[]);
        bench.end(Ok(()));
        assert!(matches!(bench.run(), Stop::Closed(Err(Error::Status(_)))), "{status}");
    }
}

#[test]
fn stop_ends_it_from_every_state() {
    let mut unconnected = Bench::new(Reconnect::default(), 1);
    unconnected.subscription.stop();
    assert!(matches!(unconnected.run(), Stop::Closed(Ok(()))));

    let mut streaming = Bench::connected();
    streaming.bytes("{}{}");
    streaming.subscription.stop();
    assert!(matches!(streaming.subscription.poll(streaming.now), Step::Close));
    assert!(matches!(streaming.run(), Stop::Closed(Ok(()))));

    let mut waiting = Bench::connected();
    waiting.end(Ok(()));
    assert!(matches!(waiting.run(), Stop::Disconnected(..)));
    assert!(matches!(waiting.subscription.poll(waiting.now), Step::Wait { .. }));
    waiting.subscription.stop();
    assert!(matches!(waiting.subscription.poll(waiting.now), Step::Closed(Ok(()))));
}

/// What a driver, the world and the user may do at any time.
#[derive(Debug, Clone)]
enum Act {
    Poll,
    Pass(u64),
    Head(u16),
    Resumable,
    Bytes(&'static str),
    End(bool),
    Stop,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Poll),
        2 => (0_u64..100_000).prop_map(Act::Pass),
        1 => Just(Act::Resumable),
        3 => prop::sample::select(vec![200_u16, 200, 200, 401, 404, 410, 410, 429, 503]).prop_map(Act::Head),
        3 => prop::sample::select(vec!["{\"a\":1}\r\n", "{\"a\"", "\r\n", "nonsense\r\n", ""])
            .prop_map(Act::Bytes),
        2 => any::<bool>().prop_map(Act::End),
        1 => Just(Act::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever a driver reports and in whatever order, the steps it is given are legal: one
    /// connection at a time, closed before the next; nothing after the end; no wait that is over.
    #[test]
    fn every_step_is_legal(
        acts in prop::collection::vec(act(), 1..80),
        reconnect in prop::sample::select(vec![
            Reconnect::AfterFirstConnect, Reconnect::Always, Reconnect::Never]),
        seed in any::<u64>(),
        own in any::<bool>(),
    ) {
        let mut bench = Bench::new(reconnect, seed);
        if own {
            bench.subscription = bench.subscription.after(Position::oldest());
        }
        let mut open = false;
        let mut closed = false;
        let mut accepted = false;
        for act in acts {
            match act {
                Act::Pass(millis) => bench.pass(Duration::from_millis(millis)),
                Act::Head(status) => {
                    accepted |= status == 200;
                    bench.answer(status, &[]);
                }
                Act::Resumable => {
                    accepted = true;
                    bench.answer(200, &[("stride-position", "p")]);
                }
                Act::Bytes(bytes) => bench.bytes(bytes),
                Act::End(well) => {
                    bench.end(if well { Ok(()) } else { Err(broken(TransportErrorKind::Io)) });
                }
                Act::Stop => bench.subscription.stop(),
                Act::Poll => match bench.subscription.poll(bench.now) {
                    Step::Connect(_) => {
                        prop_assert!(!open, "a second connection");
                        prop_assert!(!closed, "a connection after the end");
                        open = true;
                    }
                    Step::AwaitHead | Step::Read { .. } => {
                        prop_assert!(open, "nothing to wait for");
                        prop_assert!(!closed);
                    }
                    Step::Wait { until } => {
                        prop_assert!(!open, "waiting with a connection open");
                        prop_assert!(until > bench.now && !closed);
                        prop_assert!(until - bench.now <= SECOND * 300);
                    }
                    Step::Close => {
                        prop_assert!(open, "nothing to close");
                        open = false;
                    }
                    Step::Item(SubscriptionEvent::Connected { .. }) => {
                        prop_assert!(accepted && open && !closed);
                    }
                    Step::Item(_) => prop_assert!(!closed, "an item after the end"),
                    Step::Closed(_) => {
                        prop_assert!(!open, "the end with a connection open");
                        closed = true;
                    }
                },
            }
        }
        // A driver that goes on polling comes to rest: it is not kept busy for ever.
        for _ in 0..200 {
            match bench.subscription.poll(bench.now) {
                Step::Read { .. } | Step::AwaitHead | Step::Wait { .. } | Step::Closed(_) => return Ok(()),
                _ => {}
            }
        }
        prop_assert!(false, "it does not come to rest");
    }
}

#[test]
fn a_key_shows_in_no_debug_text() {
    let request = Api::new("helloworld").unwrap().subscribe("/collect/a", None).unwrap();
    let subscription =
        Subscription::new(request.clone(), Limits::for_stream(), Reconnect::default(), 1);
    let call = stride_core::transport::Call::new(request, Limits::for_request());
    let text = format!("{subscription:?} {call:?} {:?}", Bytes::new());
    assert!(!text.contains("helloworld") && !text.contains("aGVsbG93b3JsZDo"), "{text}");
}

#[test]
fn bad_values_are_counted_and_a_reader_of_data_sees_those_of_another_type_alone() {
    let mut bench = Bench::connected();
    bench.bytes("1\n\"two\"\n3\n}\n");
    let mut data = Vec::new();
    while let Step::Item(item) = bench.subscription.poll_as::<u32>(bench.now) {
        data.extend(item.into_data());
    }
    assert!(matches!(data[..], [Ok(1), Err(FrameError::Mismatch(_)), Ok(3)]), "{data:?}");
    assert_eq!(bench.subscription.malformed(), 2);
}

#[test]
fn what_came_of_sending_is_taken_as_a_whole() {
    let mut bench = Bench::new(Reconnect::Always, 1);
    assert!(matches!(bench.run(), Stop::Connect(0)));
    let refused = broken(TransportErrorKind::Connect);
    assert_eq!(bench.subscription.handle_response::<&str>(Err(refused), bench.now), None);
    let Stop::Disconnected(cause, _) = bench.run() else { panic!("it was not sent") };
    assert_eq!(cause.to_string(), TransportErrorKind::Connect.to_string());
    assert!(matches!(bench.run(), Stop::Connect(_)));
    let response = http::Response::new("the body");
    let body = bench.subscription.handle_response(Ok(response), bench.now);
    assert_eq!(body, Some("the body"));
    assert!(matches!(bench.run(), Stop::Connected(..)));
}

#[test]
fn a_cause_says_what_happened() {
    assert_eq!(DisconnectCause::Ended.to_string(), "the server ended the stream");
    let status = DisconnectCause::Status(StatusCode::BAD_GATEWAY);
    assert_eq!(status.to_string(), "the server responded 502 Bad Gateway");
}
