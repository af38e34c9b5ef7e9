//! What every transport does alike: the mock, ureq and hyper, each scenario over each of them.

use std::time::Duration;

use serde_json::{Value, json};
use stride_core::Error;
use stride_core::api::RequestError;
use stride_core::subscribe::{DisconnectCause, Reconnect, SubscriptionEvent};
use stride_core::transport::{Call, Delivery, Limits, TransportErrorKind as Kind};
use stride_tests::{Ending, Events, Over, Reply, World, suite};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a loaded machine to notice that a byte came.
const SOON: Duration = Duration::from_millis(300);

const SUBSCRIBE: &str = "GET /collect/a/subscribe";

suite! {
    {
        mock: Over::MockBlocking,
        mock_async: Over::MockAsync,
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        data_is_parsed,
        any_status_is_a_response,
        a_redirect_is_not_followed,
        an_error_keeps_its_body_and_its_headers,
        an_empty_body_is_none,
        a_body_that_is_no_json_is_an_error_and_is_kept,
        a_body_over_the_limit_is_an_error,
        a_large_body_in_small_chunks_comes_whole,
        n4_a_response_that_is_encoded_is_an_error_that_says_so,
        requests_carry_the_headers_of_the_protocol,
        pystride_7_a_get_has_no_body,
        a_query_is_passed_on,
        only_collect_is_compressed,
        a_bad_path_is_refused_before_anything_is_sent,
        a_hang_ends_at_the_limit_on_the_head,
        a_hang_ends_at_the_limit_on_the_whole_call,
        a_body_that_stops_ends_at_the_limit_on_the_whole_call,
        a_connection_that_breaks_before_the_answer_may_have_delivered,
        a_body_that_breaks_is_an_error,
        a_subscription_yields_its_events_and_its_end,
        the_sample_is_sent_and_zero_is_refused,
        pystride_8_a_subscription_survives_a_bad_line_and_a_lost_connection,
        pystride_8_a_bare_line_feed_inside_an_object_does_not_split_it,
        gostride_11_events_are_not_overwritten_by_later_reads,
        gostride_12_an_event_over_64_kib_is_an_event,
        gostride_12_a_502_on_a_reconnect_is_not_the_end,
        gostride_13_a_short_session_does_not_reset_the_backoff,
        stride_js_15_frames_may_be_split_over_chunks_at_any_byte,
        stride_js_16_values_that_are_no_objects_do_not_vanish,
        stride_js_16_a_connection_error_is_an_error,
        a_silent_stream_is_a_lost_one,
        a_401_ends_a_subscription_at_once,
        a_401_on_a_reconnect_ends_it,
        a_503_on_the_first_connect_is_tried_again_when_asked,
        data_skips_what_is_malformed_and_ends_at_what_is_no_value,
        a_key_shows_in_no_error,
    ]
}

fn get(over: Over, answer: Reply) -> World {
    over.world([("GET /collect", answer)])
}

/// A call of `GET /collect` with limits of a minute, for the test to shorten.
fn call(world: &World) -> Call {
    let request = world.client.endpoint().get("/collect").unwrap();
    Call::new(request, Limits::for_request().with_total(MINUTE))
}

fn data_is_parsed(over: Over) {
    let world = get(over, Reply::body(r#"["clicks","app_events"]"#));
    let streams: Option<Vec<String>> = world.client.get("/collect").unwrap().data().unwrap();
    assert_eq!(streams.unwrap(), ["clicks", "app_events"]);
}

fn any_status_is_a_response(over: Over) {
    for status in [200, 201, 204, 299, 302, 304, 400, 401, 404, 409, 418, 429, 500, 503, 505] {
        let world = get(over, Reply::status(status));
        assert_eq!(world.client.get("/collect").unwrap().status(), status);
    }
}

fn a_redirect_is_not_followed(over: Over) {
    for status in [301, 302, 303, 307, 308] {
        let world = get(over, Reply::status(status).header("location", "/v1/process"));
        let response = world.client.get("/collect").unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["location"], "/v1/process");
        assert_eq!(world.requests().len(), 1);
    }
}

fn an_error_keeps_its_body_and_its_headers(over: Over) {
    let answer = Reply::status(429).header("retry-after", "7");
    let world = get(over, answer.with_body(r#"{"message":"slow down"}"#));
    let response = world.client.get("/collect").unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.message().as_deref(), Some("slow down"));
    assert_eq!(error.response().body(), r#"{"message":"slow down"}"#);
}

fn an_empty_body_is_none(over: Over) {
    let world = get(over, Reply::status(200));
    assert_eq!(world.client.get("/collect").unwrap().data::<Value>().unwrap(), None);
}

fn a_body_that_is_no_json_is_an_error_and_is_kept(over: Over) {
    let world = get(over, Reply::body("<html>"));
    let response = world.client.get("/collect").unwrap();
    assert!(response.data::<Value>().is_err());
    assert_eq!(response.body(), "<html>");
}

fn a_body_over_the_limit_is_an_error(over: Over) {
    for (length, fits) in [(1000, true), (1001, false)] {
        let world = get(over, Reply::body(vec![b' '; length]).split(100));
        let mut call = call(&world);
        call.limits.max_body = 1000;
        let result = world.client.send(call);
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            assert_eq!(error.kind(), Kind::BodyTooLarge);
        }
    }
}

fn a_large_body_in_small_chunks_comes_whole(over: Over) {
    let body: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let world = get(over, Reply::body(body.clone()).split(1000));
    assert_eq!(world.client.get("/collect").unwrap().body(), &body);
}

fn n4_a_response_that_is_encoded_is_an_error_that_says_so(over: Over) {
    let encoded = || Reply::body("\x1f\u{8}").header("content-encoding", "gzip");
    let world = get(over, encoded());
    let error = world.client.get("/collect").unwrap_err();
    assert!(error.to_string().ends_with("encoded, which was not asked for"), "{error}");
    let world = over.world([("GET /collect/a/subscribe", encoded())]);
    let error = world.client.data::<u64>("/collect/a", Reconnect::Always).unwrap_err();
    assert!(error.to_string().ends_with("encoded, which was not asked for"), "{error}");
}

fn header(world: &World, request: usize, name: &str) -> Option<String> {
    let requests = world.requests();
    let found = requests[request].headers.iter().find(|(given, _)| *given == name);
    found.and_then(|(_, value)| value.clone())
}

fn requests_carry_the_headers_of_the_protocol(over: Over) {
    let world = over.world([("POST /collect/a", Reply::status(200))]);
    let response = world.client.post("/collect/a", &json!({"x": 42})).unwrap();
    assert_eq!(response.status(), 200);
    let of = |name| header(&world, 0, name).unwrap_or_default();
    assert_eq!(of("authorization"), "Basic aGVsbG93b3JsZDo=");
    assert_eq!(of("accept"), "application/json");
    assert_eq!(of("content-type"), "application/json");
    assert_eq!(of("content-encoding"), "gzip");
    assert!(of("user-agent").contains(" (version: "), "{}", of("user-agent"));
    assert_eq!(world.requests()[0].json, Some(json!({"x": 42})));
}

fn pystride_7_a_get_has_no_body(over: Over) {
    let world = over
        .world([("GET /collect", Reply::status(200)), ("DELETE /collect/a", Reply::status(200))]);
    assert_eq!(world.client.get("/collect").unwrap().status(), 200);
    assert_eq!(world.client.delete("/collect/a").unwrap().status(), 200);
    assert_eq!(world.requests().len(), 2);
    for (index, request) in world.requests().iter().enumerate() {
        assert_eq!(request.json, None);
        for name in ["content-length", "content-encoding"] {
            assert_eq!(header(&world, index, name), None, "{name}");
        }
    }
}

fn a_query_is_passed_on(over: Over) {
    let path = "/analyze/a/results?start_date=2015-05-05&end=%20";
    let world = over.world([("GET /analyze/a/results", Reply::body("[]"))]);
    assert_eq!(world.client.get(path).unwrap().status(), 200);
    assert_eq!(world.requests()[0].line, format!("GET {path}"));
}

fn only_collect_is_compressed(over: Over) {
    let world = over.world([
        ("POST /collect", Reply::status(200)),
        ("POST /process/p", Reply::status(201)),
        ("PUT /analyze/q", Reply::status(200)),
    ]);
    let json = json!({"a": [{"b": "é"}]});
    assert_eq!(world.client.post("/collect", &json).unwrap().status(), 200);
    assert_eq!(world.client.post("/process/p", &json).unwrap().status(), 201);
    assert_eq!(world.client.put("/analyze/q", &json).unwrap().status(), 200);
    for (index, request) in world.requests().iter().enumerate() {
        assert_eq!(request.json.as_ref(), Some(&json));
        let gzipped = header(&world, index, "content-encoding").as_deref() == Some("gzip");
        assert_eq!(gzipped, index == 0, "{}", request.line);
    }
}

fn a_bad_path_is_refused_before_anything_is_sent(over: Over) {
    let world = over.world([]);
    for path in ["collect", "/v1/collect", "/collect/9", "/collect/a/subscribe", "/nothing"] {
        let error = world.client.get(path).unwrap_err();
        assert!(matches!(error, Error::Request(RequestError::Path(_))), "{path}");
    }
    assert!(matches!(world.client.put("/collect/a", &json!({})), Err(Error::Request(_))));
    assert_eq!(world.requests(), []);
}

fn a_hang_ends_at_the_limit_on_the_head(over: Over) {
    let world = get(over, Reply::status(200).ending(Ending::Hang));
    let mut call = call(&world);
    call.limits.head = SOON;
    let error = world.client.send(call).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::HeadTimeout, Delivery::MaybeSent));
    assert!(error.is_timeout());
}

fn a_hang_ends_at_the_limit_on_the_whole_call(over: Over) {
    let world = get(over, Reply::status(200).ending(Ending::Hang));
    let mut call = call(&world);
    call.limits.total = Some(SOON);
    let error = world.client.send(call).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn a_body_that_stops_ends_at_the_limit_on_the_whole_call(over: Over) {
    let world = get(over, Reply::body("[1,").ending(Ending::Silent));
    let mut call = call(&world);
    call.limits.total = Some(SOON);
    let error = world.client.send(call).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn a_connection_that_breaks_before_the_answer_may_have_delivered(over: Over) {
    let world = over.world([("POST /collect/a", Reply::status(200).ending(Ending::NoResponse))]);
    let Err(Error::Transport(error)) = world.client.post("/collect/a", &json!({"x": 1})) else {
        panic!("there is no answer")
    };
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
    assert_eq!(world.requests().len(), 1, "it is not sent again");
}

fn a_body_that_breaks_is_an_error(over: Over) {
    let world = get(over, Reply::body("[1,2]").ending(Ending::Broken));
    let Err(Error::Transport(error)) = world.client.get("/collect") else { panic!("it is cut") };
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
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
        Some(Ok(SubscriptionEvent::Connected { gap: None })) => "connected".to_owned(),
        Some(Ok(SubscriptionEvent::Connected { gap: Some(_) })) => "connected again".to_owned(),
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

fn the_sample_is_sent_and_zero_is_refused(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("{}"))]);
    let subscribe =
        |sample| world.client.subscribe("/collect/a", Some(sample), Reconnect::Never, MINUTE);
    assert!(matches!(subscribe(0), Err(Error::Request(RequestError::Sample))));
    assert_eq!(words(&mut subscribe(100).unwrap(), 3), ["connected", "{}", "end"]);
    assert_eq!(world.requests()[0].line, format!("{SUBSCRIBE}?sample=100"));
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

fn stride_js_16_values_that_are_no_objects_do_not_vanish(over: Over) {
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
    let Some(Ok(SubscriptionEvent::Disconnected { cause, .. })) = events.next() else {
        panic!("silence is a loss")
    };
    assert!(
        matches!(&cause, DisconnectCause::Transport(error) if error.kind() == Kind::IdleTimeout),
        "{cause:?}"
    );
    assert_eq!(words(&mut events, 2), ["connected again", "1"]);
}

fn a_401_ends_a_subscription_at_once(over: Over) {
    let answer = Reply::status(401).with_body(r#"{"message":"no such key"}"#);
    let world = over.world([(SUBSCRIBE, answer)]);
    let result = world.client.subscribe("/collect/a", None, Reconnect::Always, MINUTE);
    let Err(Error::Status(error)) = result else { panic!("a 401 is an error") };
    assert_eq!(error.message().as_deref(), Some("no such key"));
    assert_eq!(world.requests().len(), 1);
}

fn a_401_on_a_reconnect_ends_it(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("1\n")), (SUBSCRIBE, Reply::status(401))]);
    let events = words(&mut subscribe(&world), 5);
    let refused = "error: the server responded 401 Unauthorized";
    assert_eq!(events, ["connected", "1", ENDED, refused, "end"]);
}

fn a_503_on_the_first_connect_is_tried_again_when_asked(over: Over) {
    let answers = || [(SUBSCRIBE, Reply::status(503)), (SUBSCRIBE, Reply::body("1\n"))];
    let world = over.world(answers());
    let patient = Reconnect::Always;
    let mut events = world.client.subscribe("/collect/a", None, patient, MINUTE).unwrap();
    let refused = "lost: the server responded 503 Service Unavailable";
    assert_eq!(words(&mut events, 3), [refused, "connected", "1"]);
}

fn data_skips_what_is_malformed_and_ends_at_what_is_no_value(over: Over) {
    let world = over.world([(SUBSCRIBE, Reply::body("1\n\n2\n}\r\n{}\n4\n"))]);
    let mut data = world.client.data::<u64>("/collect/a", Reconnect::Never).unwrap();
    assert_eq!([data.next().unwrap().unwrap(), data.next().unwrap().unwrap()], [1, 2]);
    let error = data.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Data(_)), "{error:?}");
    assert_eq!(data.malformed(), 2, "what is not a number counts, too");
    assert!(data.next().is_none() && data.next().is_none());
}

fn a_key_shows_in_no_error(over: Over) {
    let hidden = |text: String| {
        assert!(!text.contains("helloworld") && !text.contains("aGVsbG93b3JsZDo"), "{text}");
    };
    for ending in [Ending::NoResponse, Ending::Broken] {
        let world = get(over, Reply::body("[").ending(ending));
        hidden(format!("{:?}", world.client));
        let error = world.client.get("/collect").unwrap_err();
        hidden(format!("{error} {error:?}"));
        hidden(format!("{:?}", world.client.get("nothing").unwrap_err()));
    }
    let world = get(over, Reply::status(401));
    let error = world.client.get("/collect").unwrap().error_for_status().unwrap_err();
    hidden(format!("{error} {error:?}"));
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
        let mock = trace(Over::MockBlocking);
        assert_eq!(mock.last().unwrap(), "error: the server responded 404 Not Found: gone");
        for over in [Over::MockAsync, Over::ureq(), Over::hyper()] {
            assert_eq!(trace(over), mock, "{over:?}");
        }
    });
}
