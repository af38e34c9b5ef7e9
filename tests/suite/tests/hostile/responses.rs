//! Raw responses to one request, and what every transport makes of them.

use std::time::Duration;

use stride_core::transport::{Call, Delivery, Limits, TransportErrorKind as Kind};
use stride_tests::wire::{Act, Server};
use stride_tests::{Over, suite};

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        every_response_has_its_outcome,
        a_reset_at_each_byte_of_a_response,
        an_end_at_each_byte_of_a_response,
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

/// What the transport makes of it. Where it is an error, the request may have been delivered.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// A response with this status and body.
    Whole(u16, Vec<u8>),
    Fails(Kind),
}

use Outcome::Fails;
use Then::{Close, HalfClose, Reset, Wait};

struct Row {
    name: &'static str,
    raw: Vec<u8>,
    then: Then,
    outcome: Outcome,
}

fn row(name: &'static str, raw: impl Into<Vec<u8>>, then: Then, outcome: Outcome) -> Row {
    Row { name, raw: raw.into(), then, outcome }
}

fn whole(status: u16, body: &str) -> Outcome {
    Outcome::Whole(status, body.into())
}

/// Far longer than any response takes.
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that is reached.
const SOON: Duration = Duration::from_millis(300);

/// What becomes of a request to which a server responds like this.
fn outcome(over: Over, raw: &[u8], then: Then, limits: Limits) -> Outcome {
    let then = match then {
        Close => vec![Act::Close],
        Wait => vec![Act::Closed],
        HalfClose => vec![Act::HalfClose, Act::Closed],
        Reset => vec![Act::Reset],
    };
    let acts = [Act::Request, Act::Write(raw.to_vec())].into_iter().chain(then).collect();
    let server = Server::start([acts]);
    let client = over.client(&server.endpoint());
    match client.send(Call::new(client.api().get("/collect").unwrap(), limits)) {
        Ok(response) => Outcome::Whole(response.status().as_u16(), response.body().to_vec()),
        Err(error) => {
            assert_eq!(error.delivery(), Delivery::MaybeSent, "{error:?}");
            Fails(error.kind())
        }
    }
}

fn long_limits() -> Limits {
    Limits::for_request().with_total(MINUTE)
}

fn every_response_has_its_outcome(over: Over) {
    let mut wrong = Vec::new();
    let rows = rows();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for Row { name, raw, then, outcome: expected } in rows {
        let mut limits = long_limits();
        match expected {
            Fails(Kind::HeadTimeout) => limits.head = SOON,
            Fails(Kind::TotalTimeout) => limits.total = Some(SOON),
            _ => {}
        }
        let outcome = outcome(over, &raw, then, limits);
        if outcome != expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Responses of each framing, and how many bytes of them have to come.
fn framings() -> [(String, usize); 3] {
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[12]".to_owned();
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\n2\r\n2]\r\n0\r\n\r\n";
    let no_body = "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    [length, chunked.to_owned(), no_body].map(|text| {
        let needed = text.len();
        (text, needed)
    })
}

fn cut(over: Over, then: Then) {
    for (text, needed) in framings() {
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        for length in 0..=text.len() {
            let outcome = outcome(over, &text.as_bytes()[..length], then, long_limits());
            let told = format!("{length} of {text:?}: {outcome:?}");
            if length >= needed {
                let expected =
                    if head.contains("204") { whole(204, "") } else { whole(200, "[12]") };
                assert_eq!(outcome, expected, "{told}");
            } else {
                assert_eq!(outcome, Fails(Kind::Io), "{told}");
            }
        }
    }
}

fn a_reset_at_each_byte_of_a_response(over: Over) {
    cut(over, Reset);
}

fn an_end_at_each_byte_of_a_response(over: Over) {
    cut(over, Close);
}

/// With a head of these lines.
fn head(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
}

/// With a body of two bytes behind these lines, which may or may not say so.
fn with(lines: &str) -> String {
    head(lines) + "[]"
}

/// Of chunks.
fn chunks(body: &str) -> String {
    head("transfer-encoding: chunked\r\n") + body
}

fn rows() -> Vec<Row> {
    let ok = || whole(200, "[]");
    let not_http = || Fails(Kind::Protocol);
    let broken = || Fails(Kind::Io);
    let status = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n[]");
    let line = |line: &str| format!("{line}\r\ncontent-length: 2\r\n\r\n[]");
    let length = |value: &str| with(&format!("content-length: {value}\r\n"));
    let encoding =
        |value: &str| head(&format!("transfer-encoding: {value}\r\n")) + "2\r\n[]\r\n0\r\n\r\n";
    let interim = |first: &str| format!("{first}{}", with("content-length: 2\r\n"));
    let headers = |count: usize| {
        let lines: String = (0..count).map(|i| format!("x-{i}: y\r\n")).collect();
        with(&(lines + "content-length: 2\r\n"))
    };
    let long = |length: usize| with(&format!("x: {}\r\ncontent-length: 2\r\n", "y".repeat(length)));
    vec![
        // The status line.
        row("a response", status("200 OK"), Wait, ok()),
        row("no reason", status("200 "), Wait, ok()),
        row("no reason, no space", status("200"), Wait, ok()),
        row("a long reason", status(&format!("200 {}", "x".repeat(4000))), Wait, ok()),
        row(
            "a reason in Latin-1",
            b"HTTP/1.1 200 \xd6K\r\ncontent-length: 2\r\n\r\n[]",
            Wait,
            ok(),
        ),
        row("a NUL in the reason", status("200 O\0K"), Close, not_http()),
        row("two spaces", line("HTTP/1.1  200 OK"), Close, not_http()),
        row("a tab", line("HTTP/1.1\t200 OK"), Close, not_http()),
        row("a space before it", line(" HTTP/1.1 200 OK"), Close, not_http()),
        row("an empty line before it", line("\r\nHTTP/1.1 200 OK"), Wait, ok()),
        row("a byte order mark before it", line("\u{feff}HTTP/1.1 200 OK"), Close, not_http()),
        row("lower case", line("http/1.1 200 OK"), Close, not_http()),
        row("HTTP/1.0", line("HTTP/1.0 200 OK"), Wait, ok()),
        row("HTTP/1.0 until closed", "HTTP/1.0 200 OK\r\n\r\n[]", Close, ok()),
        row(
            "HTTP/1.0 in chunks",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
            Close,
            not_http(),
        ),
        row("HTTP/1.2", line("HTTP/1.2 200 OK"), Close, not_http()),
        row("HTTP/2", line("HTTP/2 200 OK"), Close, not_http()),
        row("HTTP/2.0", line("HTTP/2.0 200 OK"), Close, not_http()),
        row("HTTP/0.9", "[]", Close, not_http()),
        row("HTTP/0.9 of several lines", "[\r\n]\r\n\r\n", Close, not_http()),
        row("a page without a head", "<html>\r\n\r\n</html>", Close, not_http()),
        row("ICY", line("ICY 200 OK"), Close, not_http()),
        row("SSH", "SSH-2.0-OpenSSH_9.6\r\n", Close, not_http()),
        row("an alert of TLS", b"\x15\x03\x01\x00\x02\x02\x46", Close, not_http()),
        row(
            "frames of HTTP/2",
            b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
            Close,
            not_http(),
        ),
        row("NUL bytes", b"\0\0\0\0\r\n\r\n", Close, not_http()),
        row("status 20", status("20 OK"), Close, not_http()),
        row("status 2000", status("2000 OK"), Close, not_http()),
        row("status abc", status("abc OK"), Close, not_http()),
        row("status -20", status("-20 OK"), Close, not_http()),
        row("status 000", status("000 OK"), Close, not_http()),
        row("status 099", status("099 OK"), Close, not_http()),
        row("status 600", status("600 OK"), Wait, whole(600, "[]")),
        row("status 999", status("999 OK"), Wait, whole(999, "[]")),
        // Statuses are nobody's business here.
        row(
            "a redirect",
            "HTTP/1.1 301 Moved\r\nlocation: /b\r\ncontent-length: 2\r\n\r\n[]",
            Wait,
            whole(301, "[]"),
        ),
        row("401", status("401 Unauthorized"), Wait, whole(401, "[]")),
        row("407", status("407 Proxy Authentication Required"), Wait, whole(407, "[]")),
        row("408 and closed", status("408 Request Time-out"), Close, whole(408, "[]")),
        row("503", status("503 Unavailable"), Wait, whole(503, "[]")),
        // Header lines.
        row("bare line feeds", "HTTP/1.1 200 OK\ncontent-length: 2\n\n[]", Wait, ok()),
        row("bare carriage returns", "HTTP/1.1 200 OK\rcontent-length: 2\r\r[]", Close, not_http()),
        row("a line without a colon", with("what\r\ncontent-length: 2\r\n"), Close, not_http()),
        row("a space before the colon", with("content-length : 2\r\n"), Close, not_http()),
        row("an empty name", with(": x\r\ncontent-length: 2\r\n"), Close, not_http()),
        row(
            "a name of other letters",
            with("x\u{e9}: x\r\ncontent-length: 2\r\n"),
            Close,
            not_http(),
        ),
        row("an empty value", with("x:\r\ncontent-length: 2\r\n"), Wait, ok()),
        row("a folded value", with("x: a\r\n b\r\ncontent-length: 2\r\n"), Close, not_http()),
        row("a folded first line", with(" x: a\r\ncontent-length: 2\r\n"), Close, not_http()),
        row("a NUL in a value", with("x: a\0b\r\ncontent-length: 2\r\n"), Close, not_http()),
        row(
            "a carriage return in a value",
            with("x: a\rb\r\ncontent-length: 2\r\n"),
            Close,
            not_http(),
        ),
        row("a value of other letters", with("x: \u{e9}\r\ncontent-length: 2\r\n"), Wait, ok()),
        row("100 headers", headers(99), Wait, ok()),
        row("101 headers", headers(100), Close, not_http()),
        row("a thousand headers", headers(1000), Close, not_http()),
        row("a header of 60,000 bytes", long(60_000), Wait, ok()),
        row("a header of a megabyte", long(1_000_000), Close, not_http()),
        row(
            "a head without an end",
            format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1_000_000)),
            Close,
            not_http(),
        ),
        row("a head that stops", "HTTP/1.1 200 OK\r\ncontent-", Wait, Fails(Kind::HeadTimeout)),
        // Lengths.
        row("until closed", with(""), Close, ok()),
        row("until half closed", with(""), HalfClose, ok()),
        row("until reset", with(""), Reset, broken()),
        row("never closed", with(""), Wait, Fails(Kind::TotalTimeout)),
        row("nothing, until closed", head(""), Close, whole(200, "")),
        row("a length of 0", head("content-length: 0\r\n"), Wait, whole(200, "")),
        row("a length with zeros", length("002"), Wait, ok()),
        row("a length with spaces", length("  2  "), Wait, ok()),
        row("a length too small", length("1"), Wait, whole(200, "[")),
        row("a length too large, closed", length("3"), Close, broken()),
        row("a length too large, half closed", length("3"), HalfClose, broken()),
        row("a length too large, reset", length("3"), Reset, broken()),
        row("a length too large, open", length("3"), Wait, Fails(Kind::TotalTimeout)),
        row(
            "the same length twice",
            with("content-length: 2\r\ncontent-length: 2\r\n"),
            Wait,
            ok(),
        ),
        row("the same length twice in a line", length("2, 2"), Close, ok()),
        row("two lengths", with("content-length: 2\r\ncontent-length: 3\r\n"), Close, not_http()),
        row("two lengths in a line", length("2, 3"), Close, not_http()),
        row("an empty length", length(""), Close, not_http()),
        row("a negative length", length("-1"), Close, not_http()),
        row("a length with a plus", length("+2"), Close, not_http()),
        row("a length in hexadecimal", length("0x2"), Close, not_http()),
        row("a length with a fraction", length("2.0"), Close, not_http()),
        row("a length with a unit", length("2b"), Close, not_http()),
        row("a length beyond 64 bits", length("18446744073709551616"), Close, not_http()),
        row("the largest length, closed", length("9223372036854775807"), Close, broken()),
        // Chunks.
        row("chunks", encoding("chunked"), Wait, ok()),
        row("chunks in capitals", encoding("CHUNKED"), Wait, ok()),
        row(
            "chunks and a length",
            with("content-length: 2\r\n").replacen("[]", "", 1).replacen(
                "\r\n\r\n",
                "\r\ntransfer-encoding: chunked\r\n\r\n",
                1,
            ) + "2\r\n[]\r\n0\r\n\r\n",
            Wait,
            ok(),
        ),
        row("chunks twice", encoding("chunked, chunked"), Close, not_http()),
        row("chunks and then gzip", encoding("chunked, gzip"), Close, not_http()),
        row("gzip and then chunks", encoding("gzip, chunked"), Close, not_http()),
        row("identity", with("transfer-encoding: identity\r\n"), Close, not_http()),
        row("an unknown coding", with("transfer-encoding: xchunked\r\n"), Close, not_http()),
        row("no chunk", chunks("0\r\n\r\n"), Wait, whole(200, "")),
        row(
            "a size in capitals",
            chunks("A\r\n[12345678]\r\n0\r\n\r\n"),
            Wait,
            whole(200, "[12345678]"),
        ),
        row("a size with zeros", chunks("00000002\r\n[]\r\n0\r\n\r\n"), Wait, ok()),
        row("a size with an extension", chunks("2;a=\"b\"\r\n[]\r\n0;c\r\n\r\n"), Wait, ok()),
        row("a size with a space behind it", chunks("2 \r\n[]\r\n0\r\n\r\n"), Wait, ok()),
        row("a size with a space before it", chunks(" 2\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("an empty size", chunks("\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("a size that is not one", chunks("g\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("a negative size", chunks("-2\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("a size with a plus", chunks("+2\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("a size with 0x", chunks("0x2\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row(
            "a size beyond 64 bits",
            chunks("10000000000000002\r\n[]\r\n0\r\n\r\n"),
            Close,
            not_http(),
        ),
        row("a size too large, closed", chunks("7fffffffffffffff\r\n[]"), Close, broken()),
        row("a size too small", chunks("1\r\n[]\r\n0\r\n\r\n"), Close, not_http()),
        row("sizes that end with line feeds", chunks("2\n[]\n0\n\n"), Close, not_http()),
        row("no line end behind a chunk", chunks("2\r\n[]0\r\n\r\n"), Close, not_http()),
        row("no last chunk, closed", chunks("2\r\n[]\r\n"), Close, broken()),
        row("no last chunk, open", chunks("2\r\n[]\r\n"), Wait, Fails(Kind::TotalTimeout)),
        row("no last line, closed", chunks("2\r\n[]\r\n0\r\n"), Close, broken()),
        row("trailers", chunks("2\r\n[]\r\n0\r\nx: y\r\nz: \r\n\r\n"), Wait, ok()),
        row("a trailer that stops, closed", chunks("2\r\n[]\r\n0\r\nx: "), Close, broken()),
        // More and fewer responses than one.
        row("nothing, closed", "", Close, broken()),
        row("nothing, reset", "", Reset, broken()),
        row("nothing, open", "", Wait, Fails(Kind::HeadTimeout)),
        row("continue", interim("HTTP/1.1 100 Continue\r\n\r\n"), Wait, ok()),
        row(
            "continue with headers",
            interim("HTTP/1.1 100 Continue\r\ncontent-length: 7\r\nx: y\r\n\r\n"),
            Wait,
            ok(),
        ),
        row(
            "early hints with a length",
            interim("HTTP/1.1 103 Early Hints\r\ncontent-length: 7\r\n\r\n"),
            Wait,
            ok(),
        ),
        row("processing", interim("HTTP/1.1 102 Processing\r\n\r\n"), Wait, ok()),
        row("early hints", interim("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"), Wait, ok()),
        row("an interim status without a name", interim("HTTP/1.1 199 \r\n\r\n"), Wait, ok()),
        row(
            "a thousand times continue",
            interim(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)),
            Wait,
            ok(),
        ),
        row("continue alone, closed", "HTTP/1.1 100 Continue\r\n\r\n", Close, broken()),
        row(
            "continue alone, open",
            "HTTP/1.1 100 Continue\r\n\r\n",
            Wait,
            Fails(Kind::HeadTimeout),
        ),
        row(
            "another protocol",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Wait,
            whole(101, ""),
        ),
        row(
            "another protocol, spoken",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\nwhat?",
            Wait,
            whole(101, ""),
        ),
        row("two responses", with("content-length: 2\r\n").repeat(2), Wait, ok()),
        row("garbage behind the response", with("content-length: 2\r\n") + "garbage", Wait, ok()),
        row("a response, reset", with("content-length: 2\r\n"), Reset, ok()),
        // Statuses without a body.
        row("204", "HTTP/1.1 204 No Content\r\n\r\n", Wait, whole(204, "")),
        row(
            "204 with a length",
            "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n[]",
            Wait,
            whole(204, ""),
        ),
        row(
            "204 in chunks",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Wait,
            whole(204, ""),
        ),
        row(
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n",
            Wait,
            whole(304, ""),
        ),
        row(
            "205 with a body",
            "HTTP/1.1 205 Reset Content\r\ncontent-length: 2\r\n\r\n[]",
            Wait,
            whole(205, "[]"),
        ),
        // Nothing is decoded here; the client above it refuses what it did not ask for.
        row(
            "said to be gzip",
            with("content-encoding: gzip\r\ncontent-length: 2\r\n"),
            Close,
            Fails(Kind::Encoded),
        ),
        row(
            "said to be identity",
            with("content-encoding: identity\r\ncontent-length: 2\r\n"),
            Wait,
            ok(),
        ),
        row("said to go away", with("connection: close\r\ncontent-length: 2\r\n"), Wait, ok()),
    ]
}
