//! Subscriptions, over every transport.

use std::time::Duration;

use serde_json::Value;
use stride_core::Error;
use stride_core::api::RequestError;
use stride_core::frame::FrameError;
use stride_core::subscribe::{DisconnectCause, Reconnect, SubscriptionEvent};
use stride_core::transport::TransportErrorKind as Kind;
use stride_tests::{Ending, Events, Over, Reply, World, suite};

use crate::{MINUTE, SOON, header};

const SUBSCRIBE: &str = "GET /collect/a/subscribe";

suite! {
    {
        mock: Over::MockBlocking,
        mock_async: Over::MockAsync,
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        a_subscription_yields_its_events_and_its_end,
        among_all_events_what_is_malformed_is_an_item,
        the_request_carries_the_sample,
        what_cannot_be_asked_for_is_not,
        pystride_8_a_subscription_survives_a_bad_line_and_a_lost_connection,
        pystride_8_a_bare_line_feed_inside_an_object_does_not_split_it,
        gostride_11_events_are_not_overwritten_by_later_reads,
        gostride_12_an_event_over_64_kib_is_an_event,
        gostride_12_a_502_on_a_reconnect_is_not_the_end,
        gostride_13_a_short_session_does_not_reset_the_backoff,
        stride_js_15_frames_may_be_split_over_chunks_at_any_byte,
        stride_js_16_values_that_are_not_objects_do_not_vanish,
        stride_js_16_a_connection_error_is_an_error,
        a_silent_stream_is_a_lost_one,
        a_refusal_is_an_error_with_its_message_and_a_401_is_not_tried_again,
        a_401_on_a_reconnect_ends_it,
        a_503_on_the_first_connect_is_tried_again_when_asked,
        a_break_on_the_first_connect_is_tried_again_when_asked,
        a_subscription_that_never_reconnects_ends_with_its_connection,
        data_skips_what_is_malformed_and_ends_at_a_value_of_another_type,
    ]
}

/// An event in words, so that what different transports yield can be compared.
fn word(event: Option<Result<SubscriptionEvent<Value>, Error>>) -> String {
    match event {
        None => "end".to_owned(),
        Some(Err(error)) => {
            // The request comes first, and its port is another one each time.
            let (text, attempt) = (error.to_string(), error.attempt().expect("a request"));
            format!("error: {}", text.strip_prefix(&format!("{attempt}: ")).expect("its text"))
        }
        Some(Ok(SubscriptionEvent::Connected { gap: None, .. })) => "connected".to_owned(),
        Some(Ok(SubscriptionEvent::Connected { gap: Some(_), .. })) => "connected again".to_owned(),
        Some(Ok(SubscriptionEvent::Data(value))) => value.to_string(),
        Some(Ok(SubscriptionEvent::Malformed(_))) => "malformed".to_owned(),
        Some(Ok(SubscriptionEvent::Disconnected { cause, .. })) => format!("lost: {cause}"),
        Some(Ok(other)) => format!("{other:?}"),
    }
}

fn subscribe(world: &World) -> Events<'_> {
    let reconnect = Reconnect::AfterFirstConnect;
    world.client.subscribe("/collect/a", None, reconnect, MINUTE).expect("it is accepted")
}

/// Takes events until this many have come.
fn words(events: &mut Events<'_>, count: usize) -> Vec<String> {
    (0..count).map(|_| word(events.next())).collect()
}

const ENDED: &str = "lost: the server ended the stream";

fn a_subscription_yields_its_events_and_its_end(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("{\"a\":1}\r\n\r\n{\"a\":2}\r\n{\"a\":3}"))]);
    let events = words(&mut subscribe(&world), 5);
    assert_eq!(events, ["connected", r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#, ENDED]);
}

/// Values of another type: all events but the one that fits are malformed, and say how.
fn among_all_events_what_is_malformed_is_an_item(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("{oops}\r\n{}\r\n[2]\r\n"))]);
    let subscribe = world.client.subscribe_as("/collect/a", None, Reconnect::Never, MINUTE);
    let events: Vec<SubscriptionEvent<[u64; 1]>> = subscribe.unwrap().map(Result::unwrap).collect();
    use SubscriptionEvent::{Connected, Data, Malformed};
    let [
        Connected { gap: None, .. },
        Malformed(FrameError::NotJson { .. }),
        Malformed(FrameError::Mismatch(_)),
        Data([2]),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
}

fn the_request_carries_the_sample(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("{}")), (SUBSCRIBE, Reply::body("{}"))]);
    for (index, (sample, query)) in [(Some(100), "?sample=100"), (None, "")].into_iter().enumerate()
    {
        let subscribe = world.client.subscribe("/collect/a", sample, Reconnect::Never, MINUTE);
        assert_eq!(words(&mut subscribe.unwrap(), 4), ["connected", "{}", "end", "end"]);
        assert_eq!(world.requests().len(), index + 1, "one connection is all that was wanted");
        assert_eq!(world.requests()[index].line, format!("{SUBSCRIBE}{query}"));
        assert_eq!(header(&world, index, "content-length"), None);
    }
}

fn what_cannot_be_asked_for_is_not(over: Over) {
    let world = over.world([]);
    let ask = |path, sample, idle| {
        world.client.subscribe(path, sample, Reconnect::Always, idle).unwrap_err()
    };
    let error = ask("/collect/a", Some(0), MINUTE);
    assert!(matches!(error, Error::Request(RequestError::Sample)), "{error:?}");
    let error = ask("/collect/a", None, Duration::ZERO);
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert_eq!(error.to_string(), "idle_timeout is zero");
    for path in ["/collect/a/subscribe", "/analyze/a"] {
        let error = ask(path, None, MINUTE);
        assert!(matches!(error, Error::Request(RequestError::Path(_))), "{error:?}");
    }
    assert_eq!(world.requests(), []);
}

fn pystride_8_a_subscription_survives_a_bad_line_and_a_lost_connection(over: Over) {
    let world = over.world([
        (
            SUBSCRIBE,
            Reply::body("{\"a\":1}\r\n{\"a\":\r\n\r\n]\r\n{\"a\":2}\r\n").ending(Ending::Broken),
        ),
        (SUBSCRIBE, Reply::body("{\"a\":3}\r\n")),
    ]);
    let mut events = subscribe(&world);
    assert_eq!(words(&mut events, 4), ["connected", r#"{"a":1}"#, "malformed", r#"{"a":2}"#]);
    assert_eq!(words(&mut events, 1), ["lost: the connection broke"]);
    assert_eq!(words(&mut events, 2), ["connected again", r#"{"a":3}"#]);
}

fn pystride_8_a_bare_line_feed_inside_an_object_does_not_split_it(over: Over) {
    let pretty = "{\n  \"a\": {\n    \"b\": 1\n  }\n}";
    let world = over.world([(SUBSCRIBE, Reply::body(format!("{pretty}\r\n{pretty}{pretty}\n")))]);
    let event = r#"{"a":{"b":1}}"#;
    assert_eq!(words(&mut subscribe(&world), 5), ["connected", event, event, event, ENDED]);
}

fn gostride_11_events_are_not_overwritten_by_later_reads(over: Over) {
    let body: String = (0..2000).map(|i| format!("{{\"id\":{i}}}\r\n")).collect();
    let world = over.world([(SUBSCRIBE, Reply::body(body).split(700))]);
    let kept: Vec<_> = subscribe(&world).take(2001).collect();
    for (i, event) in kept.into_iter().skip(1).enumerate() {
        assert_eq!(word(Some(event)), format!("{{\"id\":{i}}}"));
    }
}

fn gostride_12_an_event_over_64_kib_is_an_event(over: Over) {
    let text = "x".repeat(1 << 20);
    let world = over.world([(SUBSCRIBE, Reply::body(format!("{{\"a\":\"{text}\"}}\r\n{{}}\r\n")))]);
    let events = words(&mut subscribe(&world), 3);
    assert_eq!(events[1].len(), text.len() + 8);
    assert_eq!(events[2], "{}");
}

fn gostride_12_a_502_on_a_reconnect_is_not_the_end(over: Over) {
    let world = over.world([
        (SUBSCRIBE, Reply::body("1\n")),
        (SUBSCRIBE, Reply::status(502)),
        (SUBSCRIBE, Reply::body("2\n")),
    ]);
    let events = words(&mut subscribe(&world), 6);
    let refused = "lost: the server responded 502 Bad Gateway";
    assert_eq!(events, ["connected", "1", ENDED, refused, "connected again", "2"]);
}

fn gostride_13_a_short_session_does_not_reset_the_backoff(over: Over) {
    let world = over.world([
        (SUBSCRIBE, Reply::body("1\n")),
        (SUBSCRIBE, Reply::body("2\n")),
        (SUBSCRIBE, Reply::body("3\n")),
    ]);
    let mut delays = Vec::new();
    let mut events = subscribe(&world);
    while delays.len() < 3 {
        if let Some(Ok(SubscriptionEvent::Disconnected { delay, .. })) = events.next() {
            delays.push(delay);
        }
    }
    let half = Duration::from_millis(500);
    for (delay, whole) in delays.iter().zip([half, half * 2, half * 4]) {
        assert!(*delay >= whole / 2 && *delay <= whole, "{delays:?}");
    }
}

fn stride_js_15_frames_may_be_split_over_chunks_at_any_byte(over: Over) {
    for chunk in 1..8 {
        let body = "{\"a\":\"é😀\"}\r\n{\"b\":\"\\\"\"}\r\n{\"c\":[1,2]}\n{\"d\":{}}";
        let world = over.world([(SUBSCRIBE, Reply::body(body).split(chunk))]);
        let events = words(&mut subscribe(&world), 6);
        let values = [r#"{"a":"é😀"}"#, r#"{"b":"\""}"#, r#"{"c":[1,2]}"#, r#"{"d":{}}"#];
        assert_eq!(events[1..5], values, "in chunks of {chunk}");
        assert_eq!(events[5], ENDED);
    }
}

fn stride_js_16_values_that_are_not_objects_do_not_vanish(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("[1]\r\n\"a\"\r\nnull\r\n7\r\ntrue\r\n"))]);
    let events = words(&mut subscribe(&world), 6);
    assert_eq!(events, ["connected", "[1]", "\"a\"", "null", "7", "true"]);
}

fn stride_js_16_a_connection_error_is_an_error(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::status(200).ending(Ending::NoResponse))]);
    let result = world.client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, MINUTE);
    let Err(Error::Transport(error)) = result else { panic!("the first connect fails fast") };
    assert_eq!(error.kind(), Kind::Io);
}

fn a_silent_stream_is_a_lost_one(over: Over) {
    let world = over.world([
        (SUBSCRIBE, Reply::body("{}\r\n").ending(Ending::Silent)),
        (SUBSCRIBE, Reply::body("1\n")),
    ]);
    let mut events =
        world.client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, SOON).unwrap();
    assert_eq!(words(&mut events, 2), ["connected", "{}"]);
    let Some(Ok(SubscriptionEvent::Disconnected { cause, delay })) = events.next() else {
        panic!("silence is a loss")
    };
    assert!(delay <= Duration::from_millis(500), "{delay:?}");
    assert!(
        matches!(&cause, DisconnectCause::Transport(error) if error.kind() == Kind::IdleTimeout),
        "{cause:?}"
    );
    assert_eq!(words(&mut events, 2), ["connected again", "1"]);
}

fn a_refusal_is_an_error_with_its_message_and_a_401_is_not_tried_again(over: Over) {
    use Reconnect::{AfterFirstConnect, Always};
    for (status, reconnect) in [
        (401, Always),
        (401, AfterFirstConnect),
        (403, AfterFirstConnect),
        (429, AfterFirstConnect),
        (503, AfterFirstConnect),
    ] {
        let reply = Reply::status(status).with_body(r#"{"message":"go away"}"#);
        let world = over.world([(SUBSCRIBE, reply)]);
        let result = world.client.subscribe("/collect/a", None, reconnect, MINUTE);
        let Err(Error::Status(error)) = result else { panic!("a {status} is an error") };
        assert_eq!(error.status(), status);
        assert_eq!(error.message().as_deref(), Some("go away"));
        assert_eq!(world.requests().len(), 1);
    }
}

fn a_401_on_a_reconnect_ends_it(over: Over) {
    let revoked = Reply::status(401).with_body(r#"{"message":"revoked"}"#);
    let world = over.world([
        (SUBSCRIBE, Reply::body("1\n")),
        (SUBSCRIBE, Reply::status(200)),
        (SUBSCRIBE, revoked),
    ]);
    let mut events = subscribe(&world);
    assert_eq!(words(&mut events, 2), ["connected", "1"]);
    let mut next = || events.next().unwrap().unwrap();
    let SubscriptionEvent::Disconnected { delay, .. } = next() else { panic!("it ended") };
    let SubscriptionEvent::Connected { gap: Some(gap), .. } = next() else { panic!("it is there") };
    assert!(gap >= delay);
    let refused = "error: the server responded 401 Unauthorized: revoked";
    assert_eq!(words(&mut events, 4), [ENDED, refused, "end", "end"]);
    assert_eq!(world.requests().len(), 3);
}

fn a_503_on_the_first_connect_is_tried_again_when_asked(over: Over) {
    let replies = || [(SUBSCRIBE, Reply::status(503)), (SUBSCRIBE, Reply::body("1\n"))];
    let world = over.world(replies());
    let patient = Reconnect::Always;
    let mut events = world.client.subscribe("/collect/a", None, patient, MINUTE).unwrap();
    let refused = "lost: the server responded 503 Service Unavailable";
    assert_eq!(words(&mut events, 3), [refused, "connected", "1"]);
}

fn a_break_on_the_first_connect_is_tried_again_when_asked(over: Over) {
    let replies = [
        (SUBSCRIBE, Reply::status(200).ending(Ending::NoResponse)),
        (SUBSCRIBE, Reply::body("1\n")),
    ];
    let world = over.world(replies);
    let mut events = world.client.subscribe("/collect/a", None, Reconnect::Always, MINUTE).unwrap();
    assert_eq!(words(&mut events, 3), ["lost: the connection broke", "connected", "1"]);
}

fn a_subscription_that_never_reconnects_ends_with_its_connection(over: Over) {
    let world = over.world([
        (SUBSCRIBE, Reply::body("1\n").ending(Ending::Broken)),
        (SUBSCRIBE, Reply::status(200).ending(Ending::NoResponse)),
    ]);
    let mut data = world.client.data::<u64>("/collect/a", Reconnect::Never).unwrap();
    assert_eq!(data.next().unwrap().unwrap(), 1);
    let Some(Err(Error::Transport(error))) = data.next() else { panic!("the connection broke") };
    assert_eq!(error.kind(), Kind::Io);
    assert!(data.next().is_none() && data.next().is_none());
    let Err(Error::Transport(error)) = world.client.data::<u64>("/collect/a", Reconnect::Never)
    else {
        panic!("there is no response")
    };
    assert_eq!(error.kind(), Kind::Io);
    assert_eq!(world.requests().len(), 2);
}

fn data_skips_what_is_malformed_and_ends_at_a_value_of_another_type(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("1\n\n2\n}\r\n{}\n4\n"))]);
    let mut data = world.client.data::<u64>("/collect/a", Reconnect::Never).unwrap();
    assert_eq!([data.next().unwrap().unwrap(), data.next().unwrap().unwrap()], [1, 2]);
    let error = data.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Data(_)), "{error:?}");
    assert_eq!(data.malformed(), 2, "what is not a number counts, too");
    assert!(data.next().is_none() && data.next().is_none());
}

/// What happens, why, and for how long: to the nanosecond, because the seed is the same.
fn trace(over: Over) -> Vec<String> {
    let world = over.world([
        (SUBSCRIBE, Reply::body("{\"a\":1}\r\n{\"a\"").split(3)),
        (SUBSCRIBE, Reply::status(503)),
        (SUBSCRIBE, Reply::body("nonsense\r\n{\"b\":2}\r\n").ending(Ending::Broken)),
        (SUBSCRIBE, Reply::status(200).ending(Ending::NoResponse)),
        (SUBSCRIBE, Reply::status(404).with_body("{\"message\":\"gone\"}")),
    ]);
    let mut events = subscribe(&world);
    let mut trace = Vec::new();
    loop {
        trace.push(match events.next() {
            Some(Ok(SubscriptionEvent::Disconnected { cause, delay })) => {
                format!("{cause} for {delay:?}")
            }
            Some(Ok(SubscriptionEvent::Malformed(error))) => format!("malformed: {error}"),
            None => return trace,
            other => word(other),
        });
    }
}

#[test]
fn the_same_script_gives_the_same_trace_over_every_transport() {
    stride_tests::watchdog(|| {
        // All at once, because each waits for the same delays.
        let traces = [Over::MockBlocking, Over::MockAsync, Over::ureq(), Over::hyper()]
            .map(|over| (over, std::thread::spawn(move || trace(over))));
        let [(_, mock), others @ ..] = traces;
        let mock = mock.join().unwrap();
        assert_eq!(mock.last().unwrap(), "error: the server responded 404 Not Found: gone");
        for (over, trace) in others {
            assert_eq!(trace.join().unwrap(), mock, "{over:?}");
        }
    });
}
