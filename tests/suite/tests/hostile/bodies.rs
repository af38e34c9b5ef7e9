//! Raw responses to a subscription, and what every transport makes of them.

use std::time::Duration;

use stride_core::Error;
use stride_core::subscribe::{Reconnect, SubscriptionEvent};
use stride_core::transport::{Delivery, TransportErrorKind as Kind};
use stride_tests::wire::{Act, Server};
use stride_tests::{Over, suite};

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        every_body_has_its_outcome,
        a_reset_at_each_byte_of_a_body,
        an_end_at_each_byte_of_a_body,
    ]
}

/// What the server does behind its bytes.
#[derive(Debug, Clone, Copy)]
enum Then {
    Close,
    /// Leaves the connection open, and sends nothing more.
    Wait,
    /// Closes its direction, and goes on reading.
    HalfClose,
    Reset,
}

/// How a subscription ends that does not connect again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// In order, as far as one can tell.
    Ended,
    /// With such an error; the request may have been delivered.
    Fails(Kind),
    /// With such a status.
    Refused(u16),
}

use End::{Ended, Fails, Refused};
use Then::{Close, HalfClose, Reset, Wait};

/// Everything that happens on a subscription: values as compact text, `?` for what is malformed, each
/// followed by a space; and the end.
type Outcome = (String, End);

/// Far longer than any body takes.
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that is reached.
const SOON: Duration = Duration::from_millis(300);

fn outcome(over: Over, raw: &[u8], then: Then, idle: Duration) -> Outcome {
    let then = match then {
        Close => vec![Act::Close],
        Wait => vec![Act::Closed],
        HalfClose => vec![Act::HalfClose, Act::Closed],
        Reset => vec![Act::Reset],
    };
    let acts = [Act::Request, Act::Write(raw.to_vec())].into_iter().chain(then).collect();
    let server = Server::start([acts]);
    let client = over.client(&server.endpoint());
    let end = |error: Error| match error {
        Error::Transport(error) => {
            assert_eq!(error.delivery(), Delivery::MaybeSent, "{error:?}");
            Fails(error.kind())
        }
        Error::Status(error) => Refused(error.status().as_u16()),
        other => panic!("{other:?}"),
    };
    let mut seen = String::new();
    let events = match client.subscribe("/collect/a", None, Reconnect::Never, idle) {
        Ok(events) => events,
        Err(error) => return (seen, end(error)),
    };
    for event in events {
        match event {
            Ok(SubscriptionEvent::Connected { .. }) => {}
            Ok(SubscriptionEvent::Data(value)) => seen += &format!("{value} "),
            Ok(SubscriptionEvent::Malformed(_)) => seen += "? ",
            Ok(other) => panic!("{other:?}"),
            Err(error) => return (seen, end(error)),
        }
    }
    (seen, Ended)
}

struct Row {
    name: &'static str,
    raw: Vec<u8>,
    then: Then,
    outcome: Outcome,
}

fn row(name: &'static str, raw: impl Into<Vec<u8>>, then: Then, seen: &str, end: End) -> Row {
    Row { name, raw: raw.into(), then, outcome: (seen.to_owned(), end) }
}

fn every_body_has_its_outcome(over: Over) {
    let mut wrong = Vec::new();
    let rows = rows();
    assert!(rows.len() >= 30, "{} rows", rows.len());
    for Row { name, raw, then, outcome: expected } in rows {
        let idle = if expected.1 == Fails(Kind::IdleTimeout) { SOON } else { MINUTE };
        let outcome = outcome(over, &raw, then, idle);
        if outcome != expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

fn head(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
}

/// A body that ends with its connection.
fn until_closed(body: &str) -> Vec<u8> {
    (head("") + body).into()
}

/// The chunks of a body as they are written.
fn chunks(chunks: &str) -> Vec<u8> {
    (head("transfer-encoding: chunked\r\n") + chunks).into()
}

/// A chunk.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Cuts a body of two events at each byte: the events that came whole are there, whatever comes next.
fn cut(over: Over, then: Then) {
    let events = ["{\"a\":1}", "{\"b\":[2]}"];
    let first = chunk(events[0]);
    let second = chunk(&format!("\r\n{}", events[1]));
    let whole = chunks(&(first.clone() + &second + "0\r\n\r\n"));
    let start = head("transfer-encoding: chunked\r\n").len();
    // Where the last byte of each event is.
    let complete =
        [start + first.len() - "\r\n".len(), start + first.len() + second.len() - "\r\n".len()];
    for length in start..=whole.len() {
        let outcome = outcome(over, &whole[..length], then, MINUTE);
        let seen: String = events
            .iter()
            .zip(complete)
            .filter(|(_, complete)| length >= *complete)
            .map(|(event, _)| format!("{event} "))
            .collect();
        // An event that is cut off is reported as such.
        let inside = |event: usize, begin: usize| length > begin && length < complete[event];
        let open =
            inside(0, complete[0] - events[0].len()) || inside(1, complete[1] - events[1].len());
        let seen = if open { seen + "? " } else { seen };
        let end = if length == whole.len() { Ended } else { Fails(Kind::Io) };
        assert_eq!(outcome, (seen, end), "{length}");
    }
}

fn a_reset_at_each_byte_of_a_body(over: Over) {
    cut(over, Reset);
}

fn an_end_at_each_byte_of_a_body(over: Over) {
    cut(over, Close);
}

fn rows() -> Vec<Row> {
    let broken = Fails(Kind::Io);
    let not_http = Fails(Kind::Protocol);
    let silent = Fails(Kind::IdleTimeout);
    let events = chunk("{\"a\":1}\r\n").repeat(50);
    let fifty = "{\"a\":1} ".repeat(50);
    let with = |lines: &str, body: &str| head(lines) + body;
    vec![
        // Ends.
        row("events, the last chunk", chunks(&(events.clone() + "0\r\n\r\n")), Wait, &fifty, Ended),
        row(
            "events, closed",
            until_closed("{\"a\":1}\r\n{\"a\":2}\r\n"),
            Close,
            "{\"a\":1} {\"a\":2} ",
            Ended,
        ),
        row("events, half closed", until_closed("{\"a\":1}\r\n"), HalfClose, "{\"a\":1} ", Ended),
        row("events, reset", until_closed("{\"a\":1}\r\n"), Reset, "{\"a\":1} ", broken),
        row("events, silence", chunks(&chunk("{\"a\":1}")), Wait, "{\"a\":1} ", silent),
        row("events, no last chunk", chunks(&events), Close, &fifty, broken),
        row(
            "events, half a last chunk",
            chunks(&(events.clone() + "0\r\n")),
            Close,
            &fifty,
            broken,
        ),
        row("nothing, closed", until_closed(""), Close, "", Ended),
        row("nothing, silence", until_closed(""), Wait, "", silent),
        row("nothing, the last chunk", chunks("0\r\n\r\n"), Wait, "", Ended),
        row(
            "half an event, closed",
            until_closed("{\"a\":1}{\"a\":"),
            Close,
            "{\"a\":1} ? ",
            Ended,
        ),
        row("half a character, closed", b"HTTP/1.1 200 OK\r\n\r\n\"\xe2\x82", Close, "? ", Ended),
        row("a number, closed", until_closed("12"), Close, "12 ", Ended),
        // Frames.
        row(
            "bare line feeds",
            until_closed("{\"a\":1}\n{\"a\":2}\n"),
            Close,
            "{\"a\":1} {\"a\":2} ",
            Ended,
        ),
        row(
            "no separators",
            until_closed("{\"a\":1}{\"a\":2}[]1"),
            Close,
            "{\"a\":1} {\"a\":2} [] 1 ",
            Ended,
        ),
        row(
            "pretty-printed",
            until_closed("{\n  \"a\": [\n    1\n  ]\n}\r\n"),
            Close,
            "{\"a\":[1]} ",
            Ended,
        ),
        row(
            "keep-alives",
            chunks(&(chunk("\r\n").repeat(100) + &chunk("{}") + "0\r\n\r\n")),
            Wait,
            "{} ",
            Ended,
        ),
        row("a byte order mark", until_closed("\u{feff}{\"a\":1}"), Close, "{\"a\":1} ", Ended),
        row(
            "not JSON between events",
            until_closed("{\"a\":1}\r\noops\r\n{\"a\":2}"),
            Close,
            "{\"a\":1} ? {\"a\":2} ",
            Ended,
        ),
        row(
            "a record cut off",
            until_closed("{\"a\":1\r\n{\"a\":2}\r\n{\"a\":3}"),
            Close,
            "? {\"a\":2} {\"a\":3} ",
            Ended,
        ),
        row("a NUL", until_closed("{\"a\":\"\0\"}\r\n{\"a\":2}"), Close, "? {\"a\":2} ", Ended),
        row("not UTF-8", b"HTTP/1.1 200 OK\r\n\r\n{\"a\":\"\xff\"}\r\n{}", Close, "? {} ", Ended),
        row("nested too deeply", until_closed(&("[".repeat(200) + "\n{}")), Close, "? {} ", Ended),
        row("a page", until_closed("<html><body>\r\n</body></html>"), Close, "? ", Ended),
        row(
            "server-sent events",
            until_closed("data: {\"a\":1}\n\ndata: {\"a\":2}\n\n"),
            Close,
            "? ",
            Ended,
        ),
        row(
            "an event over many chunks",
            chunks(
                &("{\"a\":\"xyz\"}".chars().map(|c| chunk(&c.to_string())).collect::<String>()
                    + "0\r\n\r\n"),
            ),
            Wait,
            "{\"a\":\"xyz\"} ",
            Ended,
        ),
        row(
            "many events in a chunk",
            chunks(&(chunk(&"{\"a\":1}\r\n".repeat(50)) + "0\r\n\r\n")),
            Wait,
            &fifty,
            Ended,
        ),
        // Chunks.
        row(
            "a broken size behind events",
            chunks(&(events.clone() + "zz\r\n{}\r\n0\r\n\r\n")),
            Close,
            &fifty,
            not_http,
        ),
        row(
            "a negative size behind events",
            chunks(&(events.clone() + "-1\r\n{}\r\n0\r\n\r\n")),
            Close,
            &fifty,
            not_http,
        ),
        row(
            "an empty size behind events",
            chunks(&(events.clone() + "\r\n{}\r\n")),
            Close,
            &fifty,
            not_http,
        ),
        row(
            "a size beyond 64 bits",
            chunks(&(events.clone() + "fffffffffffffffff\r\n{}\r\n")),
            Close,
            &fifty,
            not_http,
        ),
        row(
            "a size too small",
            chunks(&(events.clone() + "1\r\n{}\r\n0\r\n\r\n")),
            Close,
            &(fifty.clone() + "? "),
            not_http,
        ),
        row(
            "a size too large",
            chunks(&(events.clone() + "ff\r\n{\"a\":1}")),
            Close,
            &(fifty.clone() + "{\"a\":1} "),
            broken,
        ),
        row("a size too large, silence", chunks("ff\r\n{\"a\":1}"), Wait, "{\"a\":1} ", silent),
        row(
            "framing without a byte",
            chunks(&("2;".to_owned() + &"x".repeat(1000))),
            Wait,
            "",
            silent,
        ),
        row("extensions", chunks("2;a=b\r\n{}\r\n2;c\r\n[]\r\n0;d\r\n\r\n"), Wait, "{} [] ", Ended),
        row("trailers", chunks(&(events.clone() + "0\r\nx: y\r\n\r\n")), Wait, &fifty, Ended),
        row(
            "bytes behind the last chunk",
            chunks(&(events.clone() + "0\r\n\r\n{\"b\":1}")),
            Wait,
            &fifty,
            Ended,
        ),
        row(
            "another response behind it",
            chunks(&("2\r\n{}\r\n0\r\n\r\n".to_owned() + "HTTP/1.1 200 OK\r\n\r\n{\"b\":1}")),
            Wait,
            "{} ",
            Ended,
        ),
        // Heads.
        row("a length", with("content-length: 7\r\n", "{\"a\":1}"), Wait, "{\"a\":1} ", Ended),
        row(
            "a length too large",
            with("content-length: 9\r\n", "{\"a\":1}"),
            Close,
            "{\"a\":1} ",
            broken,
        ),
        row("a length too small", with("content-length: 6\r\n", "{\"a\":1}"), Close, "? ", Ended),
        row(
            "two lengths",
            with("content-length: 7\r\ncontent-length: 8\r\n", "{\"a\":1}"),
            Close,
            "",
            not_http,
        ),
        row("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n{\"a\":1}", Close, "{\"a\":1} ", Ended),
        row("HTTP/0.9", b"{\"a\":1}\r\n", Close, "", not_http),
        row(
            "early hints",
            "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned() + &with("", "{\"a\":1}"),
            Close,
            "{\"a\":1} ",
            Ended,
        ),
        row(
            "in gzip",
            with("content-encoding: gzip\r\n", "\x1f\u{8b}"),
            Close,
            "",
            Fails(Kind::Encoded),
        ),
        row(
            "in gzip and silent",
            with("content-encoding: gzip\r\n", ""),
            Wait,
            "",
            Fails(Kind::Encoded),
        ),
        row(
            "in Brotli and chunks",
            with("content-encoding: br\r\ntransfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Wait,
            "",
            Fails(Kind::Encoded),
        ),
        row(
            "said to be identity",
            with("content-encoding: identity\r\n", "{}"),
            Close,
            "{} ",
            Ended,
        ),
        row(
            "chunks in gzip",
            with("transfer-encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Close,
            "",
            not_http,
        ),
        row("201", b"HTTP/1.1 201 Created\r\n\r\n{}", Close, "", Refused(201)),
        row("204", b"HTTP/1.1 204 No Content\r\n\r\n", Wait, "", Refused(204)),
        row(
            "301",
            b"HTTP/1.1 301 Moved\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n",
            Wait,
            "",
            Refused(301),
        ),
        row(
            "401, its body cut off",
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\n{",
            Close,
            "",
            Refused(401),
        ),
        row(
            "404 in broken chunks",
            b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\nzz",
            Close,
            "",
            Refused(404),
        ),
        row("nothing at all", "", Close, "", broken),
        row("half a head", "HTTP/1.1 200 OK\r\ncontent-", Reset, "", broken),
    ]
}
