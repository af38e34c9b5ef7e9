//! What every transport does alike: the mock, ureq and hyper, each scenario over each of them.

mod resuming;
mod subscriptions;

use std::time::Duration;

use serde_json::{Value, json};
use stride_core::Error;
use stride_core::api::RequestError;
use stride_core::subscribe::Reconnect;
use stride_core::transport::{Call, Delivery, Limits, TransportErrorKind as Kind};
use stride_tests::{Ending, Over, Reply, World, suite};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a loaded machine to notice that a byte came.
const SOON: Duration = Duration::from_millis(300);

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
        a_body_that_is_not_json_is_an_error_and_is_kept,
        a_body_over_the_limit_is_an_error,
        a_large_body_in_small_chunks_comes_whole,
        n4_a_response_that_is_encoded_is_an_error_that_says_so,
        requests_carry_the_headers_of_the_protocol,
        pystride_7_a_get_has_no_body,
        a_query_is_passed_on,
        only_collect_is_compressed,
        a_bad_path_is_refused_before_anything_is_sent,
        a_hang_ends_at_the_limit_on_the_whole_call,
        a_body_that_stops_ends_at_the_limit_on_the_whole_call,
        a_connection_that_breaks_before_the_response_may_have_delivered,
        a_body_that_breaks_is_an_error,
        a_key_shows_in_no_error,
    ]
}

/// A mock that is polled leaves limits to its caller's clock.
mod transports_that_keep_limits {
    use super::a_hang_ends_at_the_limit_on_the_head;
    use super::{Over, suite};

    suite! {
        { mock: Over::MockBlocking, ureq: Over::ureq(), hyper: Over::hyper(), }
        [ a_hang_ends_at_the_limit_on_the_head, ]
    }
}

fn get(over: Over, reply: Reply) -> World {
    over.world([("GET /collect", reply)])
}

/// A call of `GET /collect` with limits of a minute, for the test to shorten.
fn call(world: &World) -> Call {
    let request = world.client.api().get("/collect").unwrap();
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
        for (location, body) in [(true, "moved"), (true, ""), (false, "moved")] {
            let mut reply = Reply::status(status).with_body(body);
            if location {
                reply = reply.header("location", "/v1/process");
            }
            let world = get(over, reply);
            let response = world.client.get("/collect").unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.body()[..]),
                (status, body.as_bytes())
            );
            let given = response.headers().get("location").map(|to| to.to_str().unwrap());
            assert_eq!(given, location.then_some("/v1/process"));
            assert_eq!(world.requests().len(), 1);
        }
    }
}

fn an_error_keeps_its_body_and_its_headers(over: Over) {
    let reply = Reply::status(429).header("retry-after", "7");
    let world = get(over, reply.with_body(r#"{"message":"slow down"}"#));
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

fn a_body_that_is_not_json_is_an_error_and_is_kept(over: Over) {
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
    assert!(error.to_string().ends_with("not asked for: `Content-Encoding: gzip`"), "{error}");
    let world = over.world([("GET /collect/a/subscribe", encoded())]);
    let error = world.client.data::<u64>("/collect/a", Reconnect::Always).unwrap_err();
    assert!(error.to_string().ends_with("not asked for: `Content-Encoding: gzip`"), "{error}");
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
    let Err(Error::Transport(error)) = world.client.get_within("/collect", SOON) else { panic!() };
    assert!(error.is_timeout());
    assert_eq!(error.delivery(), Delivery::MaybeSent);
}

fn a_body_that_stops_ends_at_the_limit_on_the_whole_call(over: Over) {
    let world = get(over, Reply::body("[1,").ending(Ending::Silent));
    let Err(Error::Transport(error)) = world.client.get_within("/collect", SOON) else { panic!() };
    assert_eq!((error.kind(), error.delivery()), (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn a_connection_that_breaks_before_the_response_may_have_delivered(over: Over) {
    let world = over.world([("POST /collect/a", Reply::status(200).ending(Ending::NoResponse))]);
    let Err(Error::Transport(error)) = world.client.post("/collect/a", &json!({"x": 1})) else {
        panic!("there is no response")
    };
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
    assert_eq!(world.requests().len(), 1, "it is not sent again");
}

fn a_body_that_breaks_is_an_error(over: Over) {
    let world = get(over, Reply::body("[1,2]").ending(Ending::Broken));
    let Err(Error::Transport(error)) = world.client.get("/collect") else { panic!("it is cut") };
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
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
