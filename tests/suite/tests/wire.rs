//! What only a socket can show: slow, broken, kept and stale connections, and every way to frame a
//! body. The server knows bytes and no HTTP library.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_core::transport::{Call, Delivery, Limits, TransportError, TransportErrorKind as Kind};
use stride_core::{Error, Response};
use stride_tests::wire::{Act, Server};
use stride_tests::{Client, Over, suite};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a loaded machine to notice that a byte came.
const SOON: Duration = Duration::from_millis(300);

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        a_head_that_trickles_is_a_head,
        a_body_that_trickles_is_a_body,
        a_head_that_stops_ends_at_its_limit,
        a_refused_connection_is_not_sent,
        a_connection_that_is_never_accepted_ends_at_its_limit,
        a_reset_at_any_stage_may_have_delivered,
        a_close_at_any_stage_may_have_delivered,
        a_connection_is_used_again,
        a_connection_is_used_again_after_an_error_body,
        a_stale_connection_is_replaced,
        a_connection_that_closes_on_the_request_may_have_delivered,
        informational_answers_are_passed_over,
        an_early_answer_to_a_big_post_is_read,
        a_chunked_body_with_extensions_and_trailers,
        a_body_of_known_length,
        a_body_that_ends_with_the_connection,
        an_answer_of_http_1_0,
        a_truncated_body_is_an_error,
        a_truncated_chunked_body_is_an_error,
        what_is_no_http_is_an_error,
        a_subscription_delivers_an_event_at_its_last_byte,
        a_subscription_that_is_dropped_closes_its_connection,
        a_subscription_survives_a_reset,
    ]
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";

fn connect(over: Over, server: &Server) -> Client {
    over.client(&server.endpoint())
}

fn send(client: &Client, change: impl FnOnce(&mut Limits)) -> Result<Response, TransportError> {
    let mut limits = Limits::for_request().with_total(MINUTE);
    limits.connect = MINUTE;
    change(&mut limits);
    client.send(Call::new(client.endpoint().get("/collect").unwrap(), limits))
}

/// A server whose answer to one request is this text, after which it closes.
fn says(text: &str) -> Server {
    Server::start([vec![Act::Request, Act::text(text), Act::Close]])
}

fn body(over: Over, text: &str) -> Result<String, TransportError> {
    let server = says(text);
    let response = send(&connect(over, &server), |_| {})?;
    Ok(String::from_utf8(response.body().to_vec()).unwrap())
}

fn a_head_that_trickles_is_a_head(over: Over) {
    let server = Server::start([vec![Act::Request, Act::Trickle(OK.into())]]);
    assert_eq!(send(&connect(over, &server), |_| {}).unwrap().body(), "[]");
}

fn a_body_that_trickles_is_a_body(over: Over) {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n";
    let server = Server::start([vec![Act::Request, Act::Trickle(chunked.into())]]);
    assert_eq!(send(&connect(over, &server), |_| {}).unwrap().body(), "[1,2]");
}

fn a_head_that_stops_ends_at_its_limit(over: Over) {
    let head = Act::text("HTTP/1.1 200 OK\r\ncontent-");
    let server = Server::start([vec![Act::Request, head, Act::Closed]]);
    let error = send(&connect(over, &server), |limits| limits.head = SOON).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::HeadTimeout, Delivery::MaybeSent));
}

fn a_refused_connection_is_not_sent(over: Over) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let error = send(&over.client(&endpoint), |_| {}).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Connect, Delivery::NotSent));
}

#[cfg(target_os = "linux")]
fn a_connection_that_is_never_accepted_ends_at_its_limit(over: Over) {
    // A listener whose backlog is full: the system drops further attempts without a word.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if socket.connect_timeout(&address, SOON).is_err() {
            break;
        }
        waiting.push(socket);
    }
    let endpoint = format!("http://{}/v1", address.as_socket().unwrap());
    let error = send(&over.client(&endpoint), |limits| limits.connect = SOON).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::ConnectTimeout, Delivery::NotSent));
}

#[cfg(not(target_os = "linux"))]
fn a_connection_that_is_never_accepted_ends_at_its_limit(_: Over) {
    // What a full backlog does differs between systems.
}

/// Plays a break at every stage of an exchange. Only that the kind is no time-out and that the
/// delivery is honest can be said of all of them.
fn breaks(over: Over, how: fn() -> Act) {
    for stage in 0..5 {
        let mut acts = vec![
            Act::RequestHead,
            Act::text("HTTP/1.1 200 OK\r\n"),
            Act::text("content-length: 10\r\n\r\n"),
            Act::text("[1,2"),
        ];
        acts.truncate(stage);
        acts.push(how());
        let server = Server::start([acts]);
        let client = connect(over, &server);
        let Err(Error::Transport(error)) = client.post("/collect/a", &json!({"x": 1})) else {
            panic!("the answer is not whole at stage {stage}")
        };
        assert!(matches!(error.kind(), Kind::Io | Kind::Protocol), "{stage}: {error:?}");
        if stage > 0 {
            assert_eq!(error.delivery(), Delivery::MaybeSent, "{stage}");
        }
    }
}

fn a_reset_at_any_stage_may_have_delivered(over: Over) {
    breaks(over, || Act::Reset);
}

fn a_close_at_any_stage_may_have_delivered(over: Over) {
    breaks(over, || Act::Close);
}

fn a_connection_is_used_again(over: Over) {
    let server = Server::start((0..5).map(|_| vec![Act::Request, Act::text(OK)]));
    let client = connect(over, &server);
    for _ in 0..5 {
        assert_eq!(client.get("/collect").unwrap().status(), 200);
    }
    assert_eq!(server.connections(), 1);
}

fn a_connection_is_used_again_after_an_error_body(over: Over) {
    let error = "HTTP/1.1 429 Slow Down\r\ncontent-length: 4\r\n\r\nslow";
    let server = Server::start([error, OK].map(|text| vec![Act::Request, Act::text(text)]));
    let client = connect(over, &server);
    assert_eq!(client.get("/collect").unwrap().body(), "slow");
    assert_eq!(client.get("/collect").unwrap().status(), 200);
    assert_eq!(server.connections(), 1);
}

fn a_stale_connection_is_replaced(over: Over) {
    let (closed, gate) = Act::gate();
    let server = Server::start([
        vec![Act::Request, Act::text(OK), gate, Act::Close],
        vec![Act::Request, Act::text(OK)],
        vec![Act::Request, Act::text(OK)],
    ]);
    let client = connect(over, &server);
    assert_eq!(client.get("/collect").unwrap().status(), 200);
    drop(closed);
    // The close may not have arrived when the next request goes out. That one may fail, honestly,
    // but the one after it finds a server.
    match client.get("/collect") {
        Ok(response) => assert_eq!(response.status(), 200),
        Err(Error::Transport(error)) => assert_eq!(error.kind(), Kind::Io),
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(client.get("/collect").unwrap().status(), 200);
}

fn a_connection_that_closes_on_the_request_may_have_delivered(over: Over) {
    let server = Server::start([vec![Act::Request, Act::text(OK)], vec![Act::Request, Act::Close]]);
    let client = connect(over, &server);
    assert_eq!(client.get("/collect").unwrap().status(), 200);
    let Err(Error::Transport(error)) = client.post("/collect/a", &json!({"x": 1})) else {
        panic!("there is no answer")
    };
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
    assert_eq!(server.requests().len(), 2, "it is not sent again");
}

fn informational_answers_are_passed_over(over: Over) {
    let text = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}");
    assert_eq!(body(over, &text).unwrap(), "[]");
}

fn an_early_answer_to_a_big_post_is_read(over: Over) {
    // The body is larger than the sockets hold, so the answer comes while it is being written.
    let large: String = (0..4_000_000_u32)
        .map(|i| char::from(b'!' + (i.wrapping_mul(2_654_435_761) >> 26) as u8))
        .filter(|c| *c != '"' && *c != '\\')
        .collect();
    let too_large = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = Server::start([vec![Act::RequestHead, Act::text(too_large), Act::Closed]]);
    let client = connect(over, &server);
    let response = client.post("/process/p", &json!({"query": large})).unwrap();
    assert_eq!(response.status(), 413);
}

fn a_chunked_body_with_extensions_and_trailers(over: Over) {
    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                2;a=b\r\n[1\r\n1\r\n]\r\n0\r\nx-trailer: y\r\n\r\n";
    assert_eq!(body(over, text).unwrap(), "[1]");
}

fn a_body_of_known_length(over: Over) {
    assert_eq!(body(over, OK).unwrap(), "[]");
}

fn a_body_that_ends_with_the_connection(over: Over) {
    assert_eq!(body(over, "HTTP/1.1 200 OK\r\n\r\n[1,2]").unwrap(), "[1,2]");
}

fn an_answer_of_http_1_0(over: Over) {
    assert_eq!(body(over, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n[]").unwrap(), "[]");
}

fn a_truncated_body_is_an_error(over: Over) {
    let error = body(over, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,").unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Io, Delivery::MaybeSent));
}

fn a_truncated_chunked_body_is_an_error(over: Over) {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    // Behind the last chunk only trailers are missing, which some take and some do not.
    for cut in ["", "5", "5\r\n[1,", "3\r\n[1]", "3\r\n[1]\r\n"] {
        let error = body(over, &format!("{head}{cut}")).unwrap_err();
        assert_eq!(error.delivery(), Delivery::MaybeSent, "{cut:?}");
        assert!(matches!(error.kind(), Kind::Io | Kind::Protocol), "{cut:?}: {error:?}");
    }
}

fn what_is_no_http_is_an_error(over: Over) {
    for text in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n"] {
        let error = body(over, text).unwrap_err();
        assert_eq!(error.delivery(), Delivery::MaybeSent);
        assert!(matches!(error.kind(), Kind::Io | Kind::Protocol), "{text:?}: {error:?}");
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn value(event: Option<Result<SubscriptionEvent<Value>, Error>>) -> Value {
    match event {
        Some(Ok(SubscriptionEvent::Data(value))) => value,
        other => panic!("no value: {other:?}"),
    }
}

fn a_subscription_delivers_an_event_at_its_last_byte(over: Over) {
    // Nothing follows the closing brace until the event was seen.
    let (seen, gate) = Act::gate();
    let server = Server::start([vec![
        Act::Request,
        Act::text(STREAM),
        Act::text("7\r\n{\"a\":1}\r\n"),
        gate,
        Act::text("7\r\n{\"a\":2}\r\n"),
        Act::Closed,
    ]]);
    let client = connect(over, &server);
    let mut events =
        client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, MINUTE).unwrap();
    assert!(matches!(events.next(), Some(Ok(SubscriptionEvent::Connected { .. }))));
    assert_eq!(value(events.next()), json!({"a": 1}));
    seen.send(()).unwrap();
    assert_eq!(value(events.next()), json!({"a": 2}));
}

fn a_subscription_that_is_dropped_closes_its_connection(over: Over) {
    let (subscribed, gate) = Act::gate();
    let server = Server::start([
        vec![Act::Request, Act::text(STREAM), gate, Act::Closed],
        vec![Act::Request, Act::text(STREAM), Act::text("2\r\n{}\r\n"), Act::Closed],
    ]);
    let client = connect(over, &server);
    let events =
        client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, MINUTE).unwrap();
    drop(subscribed);
    drop(events);
    // The server goes on to its next exchange on another connection: it is not held up.
    let mut events =
        client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, MINUTE).unwrap();
    assert!(matches!(events.next(), Some(Ok(SubscriptionEvent::Connected { .. }))));
    assert_eq!(value(events.next()), json!({}));
    server.wait_until_closed(1);
}

fn a_subscription_survives_a_reset(over: Over) {
    let event = "9\r\n{\"a\":1}\r\n\r\n";
    let server = Server::start([
        vec![Act::Request, Act::text(STREAM), Act::text(event), Act::Reset],
        vec![Act::Request, Act::text(STREAM), Act::text(event), Act::Closed],
    ]);
    let client = connect(over, &server);
    let events =
        client.subscribe("/collect/a", None, Reconnect::AfterFirstConnect, MINUTE).unwrap();
    let connected = events
        .map(|event| event.expect("a reset is not the end"))
        .filter(|event| matches!(event, SubscriptionEvent::Connected { .. }))
        .take(2);
    assert_eq!(connected.count(), 2);
}

#[test]
fn gostride_14_stop_returns_while_a_connect_is_under_way() {
    stride_tests::watchdog(|| {
        let server = Server::start([
            vec![Act::Request, Act::text(STREAM), Act::Reset],
            // The second connection is never answered; its limit on the head is 90 s.
            vec![Act::Request, Act::Closed],
        ]);
        let stride = stride_blocking::Stride::builder("key").endpoint(&server.endpoint());
        let events = stride.build().unwrap().subscribe("/collect/a").events::<Value>().unwrap();
        let handle = events.stop_handle();
        let reader = std::thread::spawn(move || events.filter(Result::is_err).count());
        while server.requests().len() < 2 {
            std::thread::yield_now();
        }
        handle.stop();
        assert_eq!(reader.join().unwrap(), 0, "a stop is no error");
        server.wait_until_closed(1);
    });
}
