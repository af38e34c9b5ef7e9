//! Each limit ends what it is for, and nothing else. Servers pause here where slowness is what is
//! tested.

use std::time::{Duration, Instant};

use stride_core::Response;
use stride_core::transport::{Call, Delivery, Limits, TransportErrorKind as Kind};
#[cfg(target_os = "linux")]
use stride_tests::wire::FullBacklog;
use stride_tests::wire::{Act, STREAM, Server, chunk, response};
use stride_tests::{Over, failed, suite};

use crate::{MINUTE, SOON, assert_fault, call, connect, send};

suite! {
    { ureq: Over::ureq(), hyper: Over::hyper(), }
    [
        a_head_that_stops_ends_at_its_limit,
        a_slow_upload_is_not_a_missing_head,
        a_steady_stream_outlives_every_limit_five_times_over,
        a_silent_body_ends_at_the_idle_limit,
        the_idle_limit_is_not_for_the_head,
        the_total_limit_includes_the_body,
        the_timeout_of_a_client_is_the_total_limit,
        a_connection_that_is_never_accepted_ends_at_the_limit_on_connecting,
        limits_that_are_as_good_as_none_are_no_trouble,
        a_chunk_is_handed_out_as_soon_as_it_is_there,
    ]
}

const MOMENT: Duration = Duration::from_millis(20);

fn a_head_that_stops_ends_at_its_limit(over: Over) {
    let head = Act::text("HTTP/1.1 200 OK\r\ncontent-");
    let server = Server::start([vec![Act::Request, head, Act::Closed]]);
    let error = send(&connect(over, &server), |limits| limits.head = SOON).unwrap_err();
    assert_fault(&error, Kind::HeadTimeout, Delivery::MaybeSent);
    server.wait_until_closed(1);
}

/// The limit on the head begins with the last byte of the request, however slowly that is taken.
fn a_slow_upload_is_not_a_missing_head(over: Over) {
    let small = |peer: &mut stride_tests::wire::Peer| {
        socket2::SockRef::from(peer.socket()).set_recv_buffer_size(64 << 10).unwrap();
    };
    // A megabyte and a pause, again and again: 30 pauses are longer than the limit.
    let mut acts = vec![Act::RequestHead, Act::With(Box::new(small))];
    for _ in 0..30 {
        acts.extend([Act::Read(1 << 20), Act::Pause(MOMENT)]);
    }
    // What is left of the body is not of interest.
    acts.extend([Act::text(&response("200 OK", "")), Act::Closed]);
    let server = Server::start([acts]);
    let client = connect(over, &server);
    let request = client.api().put("/process/p", &"x".repeat(31 << 20)).unwrap();
    let mut limits = Limits::for_request().with_total(MINUTE);
    limits.head = MOMENT * 15;
    assert_eq!(client.send(Call::new(request, limits)).unwrap().status(), 200);
}

fn a_steady_stream_outlives_every_limit_five_times_over(over: Over) {
    const LIMIT: Duration = Duration::from_millis(400);
    let mut acts = vec![Act::Request, Act::text(STREAM)];
    for _ in 0..5 * 20 {
        acts.extend([Act::text(&chunk("\r\n")), Act::Pause(LIMIT / 20)]);
    }
    acts.push(Act::text("0\r\n\r\n"));
    let server = Server::start([acts]);
    let client = connect(over, &server);
    let started = Instant::now();
    let mut call = Call::new(client.api().get("/collect").unwrap(), Limits::for_stream());
    (call.limits.connect, call.limits.head, call.limits.idle) = (LIMIT, LIMIT, Some(LIMIT));
    assert_eq!(client.send(call).unwrap().body().len(), 200);
    assert!(started.elapsed() >= LIMIT * 5);
}

fn a_silent_body_ends_at_the_idle_limit(over: Over) {
    let text = Act::text(&format!("{STREAM}{}", chunk("\r\n")));
    let server = Server::start([vec![Act::Request, text, Act::Closed]]);
    let client = connect(over, &server);
    let mut body = client.open(call(&client, |limits| limits.idle = Some(SOON))).unwrap();
    assert_eq!(body.next().unwrap().unwrap(), "\r\n");
    let silent = Instant::now();
    let error = body.next().unwrap().unwrap_err();
    assert_fault(&error, Kind::IdleTimeout, Delivery::MaybeSent);
    assert!(silent.elapsed() >= SOON - MOMENT, "{:?}", silent.elapsed());
    assert!(body.next().is_none(), "an error is the last item");
    // The connection is closed before the body is dropped.
    server.wait_until_closed(1);
    drop(body);
}

fn the_idle_limit_is_not_for_the_head(over: Over) {
    let late = || vec![Act::Request, Act::Pause(SOON), Act::text(&response("200 OK", "late"))];
    let server = Server::always(late);
    let client = connect(over, &server);
    for total in [None, Some(MINUTE)] {
        let change = |limits: &mut Limits| {
            limits.idle = Some(SOON / 6);
            limits.total = total;
        };
        assert_eq!(send(&client, change).unwrap().body(), "late");
    }
}

fn the_total_limit_includes_the_body(over: Over) {
    // One stalls, one drips, one pours: each for ever.
    let pours = [
        Act::Closed,
        Act::Pour(chunk("\r\n").into(), MOMENT / 2),
        Act::Pour(chunk(&"x".repeat(1 << 16)).into(), Duration::ZERO),
    ];
    for pour in pours {
        let server = Server::start([vec![Act::Request, Act::text(STREAM), pour]]);
        let error = send(&connect(over, &server), |limits| {
            limits.total = Some(SOON);
            limits.max_body = usize::MAX;
        });
        assert_fault(&error.unwrap_err(), Kind::TotalTimeout, Delivery::MaybeSent);
        server.wait_until_played(1);
    }
}

fn the_timeout_of_a_client_is_the_total_limit(over: Over) {
    let server = Server::start([vec![Act::Request, Act::Closed]]);
    let builder = over.builder().endpoint(&server.endpoint()).timeout(SOON);
    let error = failed(builder.build().unwrap().get("/collect"));
    assert_fault(&error, Kind::TotalTimeout, Delivery::MaybeSent);
    assert!(error.is_timeout());
}

#[cfg(target_os = "linux")]
fn a_connection_that_is_never_accepted_ends_at_the_limit_on_connecting(over: Over) {
    let full = FullBacklog::new();
    let client = over.client(&full.endpoint());
    let error = send(&client, |limits| limits.connect = SOON).unwrap_err();
    assert_fault(&error, Kind::ConnectTimeout, Delivery::NotSent);
    let error = send(&client, |limits| limits.total = Some(SOON)).unwrap_err();
    assert_fault(&error, Kind::TotalTimeout, Delivery::NotSent);
}

#[cfg(not(target_os = "linux"))]
fn a_connection_that_is_never_accepted_ends_at_the_limit_on_connecting(_: Over) {
    // What a full backlog does differs between systems.
}

fn limits_that_are_as_good_as_none_are_no_trouble(over: Over) {
    let server = Server::responding(response("200 OK", "{}"));
    let response: Response = send(&connect(over, &server), |limits| {
        (limits.connect, limits.head) = (Duration::MAX, Duration::MAX);
        (limits.idle, limits.total) = (Some(Duration::MAX), Some(Duration::MAX));
    })
    .unwrap();
    assert_eq!(response.status(), 200);
}

fn a_chunk_is_handed_out_as_soon_as_it_is_there(over: Over) {
    let mut acts = vec![Act::Request, Act::text(STREAM)];
    let mut gates = Vec::new();
    for text in ["one", "two", "three"] {
        let (open, gate) = Act::gate();
        gates.push((text, open));
        acts.extend([Act::text(&chunk(text)), gate]);
    }
    acts.push(Act::text("0\r\n\r\n"));
    let server = Server::start([acts]);
    let client = connect(over, &server);
    let mut body = client.open(call(&client, |_| {})).unwrap();
    for (text, open) in gates {
        assert_eq!(body.next().unwrap().unwrap(), text);
        drop(open);
    }
    assert!(body.next().is_none());
}
