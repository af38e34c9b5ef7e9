//! Every limit ends what it is for, whatever trickles or floods (N7, N9), and a blocking call can be
//! cancelled at any stage.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use serde_json::json;
use stride_core::cancel::CancelToken;
use stride_core::http::Request;
use stride_core::transport::{
    Call, Delivery, Limits, Target, Transport as _, TransportError, TransportErrorKind as Kind,
};
use stride_core::{Api, Bytes, Error, Response};
use stride_tests::wire::tls::Authority;
use stride_tests::wire::{Act, FullBacklog, STREAM, Server};
use stride_tests::{Client, Over, suite, watchdog};

/// Far longer than any of these tests takes: a limit that must not be reached.
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that is reached.
const SOON: Duration = Duration::from_millis(300);

/// Between what trickles, so that no wait for a single byte is long.
const PAUSE: Duration = Duration::from_millis(10);

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        n7_a_proxy_that_drips_ends_at_the_limit_on_connecting,
        n7_a_proxy_that_says_wait_for_ever_ends_at_the_limit_on_connecting,
        n7_a_proxy_that_says_nothing_ends_at_the_limit_on_connecting,
        n7_a_proxy_that_drips_ends_at_the_limit_on_the_call,
        n7_a_proxy_that_floods_is_refused,
        n7_a_handshake_that_drips_ends_at_the_limit_on_connecting,
        n9_a_head_that_drips_ends_at_its_limit,
        n9_a_head_that_does_not_come_ends_at_its_limit_for_a_stream_too,
        n9_interim_responses_end_at_the_limit_on_the_head,
        n9_interim_responses_end_at_the_limit_on_the_call,
        n9_a_body_that_drips_ends_at_the_limit_on_the_call,
        n9_framing_without_a_byte_of_the_body_is_silence,
        n9_a_request_that_is_taken_byte_by_byte_ends_at_the_limit_on_the_call,
    ]
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::for_request().with_total(MINUTE);
    limits.connect = MINUTE;
    change(&mut limits);
    limits
}

fn send(client: &Client, limits: Limits) -> Result<Response, TransportError> {
    client.send(Call::new(client.api().get("/collect").unwrap(), limits))
}

fn ended(result: Result<Response, TransportError>) -> (Kind, Delivery) {
    let error = result.expect_err("it does not end in order");
    (error.kind(), error.delivery())
}

/// A request that is larger than what the sockets hold.
fn large(api: &Api) -> Request<Bytes> {
    let mut request = api.put("/process/p", &json!({})).unwrap();
    *request.body_mut() = vec![b' '; 20_000_000].into();
    request
}

/// How a request ends that goes through this proxy.
fn through(
    over: Over,
    proxy: impl IntoIterator<Item = Act>,
    change: impl FnOnce(&mut Limits),
) -> (Kind, Delivery) {
    let acts = [Act::Request].into_iter().chain(proxy).collect();
    let proxy = Server::start([acts]);
    let builder = over.builder().endpoint("http://127.0.0.1:1/v1");
    let client = builder.proxy(&proxy.address().to_string()).build().unwrap();
    ended(send(&client, limits(change)))
}

fn n7_a_proxy_that_drips_ends_at_the_limit_on_connecting(over: Over) {
    let drip = [Act::text("HTTP/1.1 200 OK\r\nx: "), Act::Pour(b"y".to_vec(), PAUSE)];
    let ended = through(over, drip, |limits| limits.connect = SOON);
    assert_eq!(ended, (Kind::ConnectTimeout, Delivery::NotSent));
}

fn n7_a_proxy_that_says_wait_for_ever_ends_at_the_limit_on_connecting(over: Over) {
    let wait = [Act::Pour(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec(), PAUSE)];
    let ended = through(over, wait, |limits| limits.connect = SOON);
    assert_eq!(ended, (Kind::ConnectTimeout, Delivery::NotSent));
}

fn n7_a_proxy_that_says_nothing_ends_at_the_limit_on_connecting(over: Over) {
    let ended = through(over, [Act::Closed], |limits| limits.connect = SOON);
    assert_eq!(ended, (Kind::ConnectTimeout, Delivery::NotSent));
}

fn n7_a_proxy_that_drips_ends_at_the_limit_on_the_call(over: Over) {
    let drip = [Act::text("HTTP/1.1 200 OK\r\nx: "), Act::Pour(b"y".to_vec(), PAUSE)];
    let ended = through(over, drip, |limits| limits.total = Some(SOON));
    assert_eq!(ended, (Kind::TotalTimeout, Delivery::NotSent));
}

fn n7_a_proxy_that_floods_is_refused(over: Over) {
    let flood = [Act::text("HTTP/1.1 200 OK\r\nx: "), Act::Pour(vec![b'y'; 4096], Duration::ZERO)];
    assert_eq!(through(over, flood, |_| {}), (Kind::Proxy, Delivery::NotSent));
}

fn n7_a_handshake_that_drips_ends_at_the_limit_on_connecting(over: Over) {
    // A record of a handshake that is 16 KiB long, as far as it comes.
    let record = Act::Write(vec![22, 3, 3, 64, 0]);
    let server = Server::start([vec![record, Act::Pour(vec![2], PAUSE)]]);
    let client = over.client(&server.https_endpoint("localhost"));
    let ended = ended(send(&client, limits(|limits| limits.connect = SOON)));
    assert_eq!(ended, (Kind::ConnectTimeout, Delivery::NotSent));
}

/// How a request ends whose server does this with it.
fn with(
    over: Over,
    acts: impl IntoIterator<Item = Act>,
    change: impl FnOnce(&mut Limits),
) -> (Kind, Delivery) {
    let acts = [Act::Request].into_iter().chain(acts).collect();
    let server = Server::start([acts]);
    ended(send(&over.client(&server.endpoint()), limits(change)))
}

fn n9_a_head_that_drips_ends_at_its_limit(over: Over) {
    let drip = || [Act::text("HTTP/1.1 200 OK\r\nx: "), Act::Pour(b"y".to_vec(), PAUSE)];
    let at_head = with(over, drip(), |limits| limits.head = SOON);
    assert_eq!(at_head, (Kind::HeadTimeout, Delivery::MaybeSent));
    let at_total = with(over, drip(), |limits| limits.total = Some(SOON));
    assert_eq!(at_total, (Kind::TotalTimeout, Delivery::MaybeSent));
}

fn n9_a_head_that_does_not_come_ends_at_its_limit_for_a_stream_too(over: Over) {
    let ended = with(over, [Act::Closed], |limits| {
        *limits = Limits::for_stream();
        limits.head = SOON;
    });
    assert_eq!(ended, (Kind::HeadTimeout, Delivery::MaybeSent));
}

const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

fn n9_interim_responses_end_at_the_limit_on_the_head(over: Over) {
    for pause in [PAUSE, Duration::ZERO] {
        let flood = [Act::Pour(INTERIM.into(), pause)];
        let ended = with(over, flood, |limits| limits.head = SOON);
        assert_eq!(ended, (Kind::HeadTimeout, Delivery::MaybeSent));
    }
}

fn n9_interim_responses_end_at_the_limit_on_the_call(over: Over) {
    for pause in [PAUSE, Duration::ZERO] {
        let flood = [Act::Pour(INTERIM.into(), pause)];
        let ended = with(over, flood, |limits| limits.total = Some(SOON));
        assert_eq!(ended, (Kind::TotalTimeout, Delivery::MaybeSent));
    }
}

fn n9_a_body_that_drips_ends_at_the_limit_on_the_call(over: Over) {
    for head in ["content-length: 1000000", "transfer-encoding: chunked", "connection: close"] {
        let head = Act::text(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
        let drip = [head, Act::Pour(b"1\r\n1\r\n".to_vec(), PAUSE)];
        let ended = with(over, drip, |limits| limits.total = Some(SOON));
        assert_eq!(ended, (Kind::TotalTimeout, Delivery::MaybeSent));
    }
}

fn n9_framing_without_a_byte_of_the_body_is_silence(over: Over) {
    // The extension of a chunk, and a trailer.
    for begin in ["5;a=", "0\r\na: "] {
        let drip = [Act::text(STREAM), Act::text(begin), Act::Pour(b"b".to_vec(), PAUSE)];
        let ended = with(over, drip, |limits| {
            *limits = Limits::for_stream();
            limits.idle = Some(SOON);
        });
        assert_eq!(ended, (Kind::IdleTimeout, Delivery::MaybeSent), "{begin:?}");
    }
}

fn n9_a_request_that_is_taken_byte_by_byte_ends_at_the_limit_on_the_call(over: Over) {
    let slow = |peer: &mut stride_tests::wire::Peer| {
        while peer.read(&mut [0]).is_ok_and(|read| read > 0) {
            thread::sleep(PAUSE);
        }
    };
    let server = Server::start([vec![Act::RequestHead, Act::With(Box::new(slow))]]);
    let client = over.client(&server.endpoint());
    let request = large(&client.api());
    let limits = limits(|limits| limits.total = Some(SOON));
    let ended = ended(client.send(Call::new(request, limits)));
    assert_eq!(ended, (Kind::TotalTimeout, Delivery::MaybeSent));
}

/// How a blocking call ends that is cancelled when `reached` says so; every limit is a minute.
fn cancelled(stride: &stride_blocking::Stride, reached: impl FnOnce()) -> (Kind, Delivery) {
    let Target { api, transport } = stride.target();
    let cancel = CancelToken::new();
    let call = Call::new(api.get("/collect").unwrap(), limits(|_| {}));
    let token = cancel.clone();
    let sends = thread::spawn(move || transport.send(call, token).map(|_| ()));
    reached();
    cancel.cancel();
    let error = sends.join().unwrap().expect_err("nobody responds");
    (error.kind(), error.delivery())
}

fn blocking(endpoint: &str) -> stride_blocking::StrideBuilder {
    stride_blocking::Stride::builder("helloworld").endpoint(endpoint)
}

const UNSENT: (Kind, Delivery) = (Kind::Cancelled, Delivery::NotSent);

#[test]
#[cfg(target_os = "linux")]
fn n9_a_call_is_cancelled_while_it_connects() {
    watchdog(|| {
        let backlog = FullBacklog::new();
        let stride = blocking(&backlog.endpoint()).build().unwrap();
        assert_eq!(cancelled(&stride, || {}), UNSENT);
        // When it surely connects, and not before.
        assert_eq!(cancelled(&stride, || thread::sleep(SOON)), UNSENT);
    });
}

#[test]
fn n9_a_call_is_cancelled_in_the_dialogue_with_a_proxy() {
    watchdog(|| {
        let proxy = Server::start([vec![Act::Request, Act::Closed]]);
        let builder = blocking("http://127.0.0.1:1/v1").proxy(&proxy.address().to_string());
        let stride = builder.build().unwrap();
        assert_eq!(cancelled(&stride, || proxy.wait_for_requests(1)), UNSENT);
        proxy.wait_until_closed(1);
    });
}

#[test]
fn n9_a_call_is_cancelled_in_a_handshake() {
    watchdog(|| {
        let (hello, said_hello) = Act::signal();
        let server = Server::start([vec![Act::Read(5), hello, Act::Closed]]);
        let stride = blocking(&server.https_endpoint("localhost")).build().unwrap();
        assert_eq!(cancelled(&stride, || said_hello.recv().unwrap()), UNSENT);
        server.wait_until_closed(1);
    });
}

#[test]
fn n9_a_call_is_cancelled_before_the_head() {
    watchdog(|| {
        let server = Server::start([vec![Act::Request, Act::Closed]]);
        let stride = blocking(&server.endpoint()).build().unwrap();
        let ended = cancelled(&stride, || server.wait_for_requests(1));
        assert_eq!(ended, (Kind::Cancelled, Delivery::MaybeSent));
        server.wait_until_closed(1);
    });
}

#[test]
fn n9_a_call_is_cancelled_while_it_sends() {
    watchdog(|| {
        let (begun, has_begun) = Act::signal();
        let (_stays, gate) = Act::gate();
        let server = Server::start([vec![Act::RequestHead, begun, gate]]);
        let stride = blocking(&server.endpoint()).build().unwrap();
        let Target { api, transport } = stride.target();
        let call = Call::new(large(&api), limits(|_| {}));
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let sends = thread::spawn(move || transport.send(call, token).map(|_| ()));
        has_begun.recv().unwrap();
        cancel.cancel();
        let error = sends.join().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Cancelled, Delivery::MaybeSent));
    });
}

#[test]
fn n9_a_call_that_was_cancelled_before_opens_no_connection() {
    watchdog(|| {
        let authority = Authority::new();
        let server = Server::start_tls(&authority.identity("localhost"), []);
        let stride = blocking(&server.https_endpoint("localhost"));
        let stride = stride.root_certificate(authority.pem()).build().unwrap();
        let Target { api, transport } = stride.target();
        let cancel = CancelToken::new();
        cancel.cancel();
        let call = Call::new(api.get("/collect").unwrap(), limits(|_| {}));
        let error = transport.send(call, cancel).map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), UNSENT);
        assert_eq!(server.connections(), 0);
        // The client is still of use.
        assert!(matches!(stride.get("/collect"), Err(Error::Transport(_))));
    });
}
