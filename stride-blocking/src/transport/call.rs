//! What the connection that a call runs on has to know of the call.
//!
//! ureq runs a call, and reads its body, on the thread that asks for it, and hands nothing of this
//! through to the connection. So it is kept for the thread.

use std::cell::RefCell;
use std::mem;
use std::ops::Range;
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};

thread_local! {
    static STAGE: RefCell<Stage> = const { RefCell::new(Stage::Idle) };
}

enum Stage {
    Idle,
    /// Until the head of the response is there.
    Sending {
        delivery: Delivery,
        secrets: Vec<Secret>,
    },
    /// While a chunk of the body is being read; `since` the first wait for it.
    Reading {
        chunked: bool,
        since: Option<Instant>,
    },
}

/// A header whose value is hidden from ureq, which logs the head of a request.
pub(super) struct Secret {
    name: HeaderName,
    value: HeaderValue,
}

/// What ureq is given for each byte of a secret.
const HIDDEN: u8 = b'*';

/// Replaces what must not be logged by a placeholder of the same length: the key, and whatever else
/// is marked sensitive.
pub(super) fn hide(headers: &mut HeaderMap) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for (name, value) in headers.iter_mut() {
        if value.is_sensitive() || *name == AUTHORIZATION {
            let placeholder = HeaderValue::from_bytes(&vec![HIDDEN; value.len()])
                .expect("stars may stand in a header");
            let value = mem::replace(value, placeholder);
            secrets.push(Secret { name: name.clone(), value });
        }
    }
    secrets
}

/// Runs a call, and says whether a byte of its request may have left.
pub(super) fn send<T>(secrets: Vec<Secret>, run: impl FnOnce() -> T) -> (T, Delivery) {
    STAGE.set(Stage::Sending { delivery: Delivery::NotSent, secrets });
    let result = run();
    match STAGE.replace(Stage::Idle) {
        Stage::Sending { delivery, .. } => (result, delivery),
        Stage::Idle | Stage::Reading { .. } => (result, Delivery::MaybeSent),
    }
}

/// Reads a chunk of a body that is `chunked` on the wire or not.
pub(super) fn read<T>(chunked: bool, run: impl FnOnce() -> T) -> T {
    STAGE.set(Stage::Reading { chunked, since: None });
    let result = run();
    STAGE.set(Stage::Idle);
    result
}

/// Notes that a byte of the request may leave now, and puts the secrets into its head. What is
/// returned is where, so that they can be wiped out of the buffer.
///
/// The head may come in several pieces, each of which holds whole headers.
pub(super) fn reveal(output: &mut [u8]) -> Result<Vec<Range<usize>>, TransportError> {
    STAGE.with_borrow_mut(|stage| {
        let Stage::Sending { delivery, secrets } = stage else { return Ok(Vec::new()) };
        let mut ranges = Vec::with_capacity(secrets.len());
        secrets.retain(|Secret { name, value }| {
            let Some(range) = place(output, name, value.len()) else { return true };
            output[range.clone()].copy_from_slice(value.as_bytes());
            ranges.push(range);
            false
        });
        if !secrets.is_empty() && output.ends_with(b"\r\n\r\n") {
            ranges.into_iter().for_each(|range| output[range].fill(HIDDEN));
            let reason = "the place of the API key was not found in the request";
            return Err(
                TransportError::new(TransportErrorKind::Unsupported, *delivery).with_source(reason)
            );
        }
        *delivery = Delivery::MaybeSent;
        Ok(ranges)
    })
}

/// Where the placeholder of that length stands as the value of a header.
fn place(output: &[u8], name: &HeaderName, length: usize) -> Option<Range<usize>> {
    let line = [name.as_str().as_bytes(), b": ", &vec![HIDDEN; length], b"\r\n"].concat();
    let is_line = |at: usize| at == 0 || output[..at].ends_with(b"\r\n");
    let found = output.windows(line.len()).position(|window| window == line);
    let start = found.filter(|at| is_line(*at))? + line.len() - 2 - length;
    Some(start..start + length)
}

/// Wipes the secrets out of a buffer that was sent.
pub(super) fn conceal(output: &mut [u8], ranges: Vec<Range<usize>>) {
    for range in ranges {
        output[range].fill(HIDDEN);
    }
}

/// Whether a body is being read whose chunks are framed.
pub(super) fn is_reading_chunked() -> bool {
    STAGE.with_borrow(|stage| matches!(stage, Stage::Reading { chunked: true, .. }))
}

/// Since when the chunk of a body that is being read is awaited; `None` before the body.
pub(super) fn awaits_body_since() -> Option<Instant> {
    STAGE.with_borrow_mut(|stage| match stage {
        Stage::Reading { since, .. } => Some(*since.get_or_insert_with(Instant::now)),
        Stage::Idle | Stage::Sending { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic a2V5Og=="));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let mut token = HeaderValue::from_static("token");
        token.set_sensitive(true);
        headers.insert("x-token", token);
        headers
    }

    const HEAD: &str = "GET / HTTP/1.1\r\naccept: application/json\r\nauthorization: **************\r\n\
         x-token: *****\r\n\r\n";

    #[test]
    fn n2_a_secret_stands_in_the_head_only_while_it_is_sent() {
        let mut headers = headers();
        let secrets = hide(&mut headers);
        assert_eq!(headers[AUTHORIZATION], "**************");
        assert_eq!(
            (&headers["x-token"], &headers["accept"]),
            (&"*****".parse().unwrap(), &"application/json".parse().unwrap())
        );
        let ((), delivery) = send(secrets, || {
            let mut head = HEAD.as_bytes().to_vec();
            let ranges = reveal(&mut head).unwrap();
            let sent = String::from_utf8(head.clone()).unwrap();
            assert!(sent.contains("\r\nauthorization: Basic a2V5Og==\r\nx-token: token\r\n"));
            conceal(&mut head, ranges);
            assert_eq!(head, HEAD.as_bytes());
            // Whatever looks like a header in a body is left alone.
            let mut body = b"\r\nauthorization: **************\r\n\r\n".to_vec();
            assert_eq!(reveal(&mut body).unwrap(), []);
            assert!(body.starts_with(b"\r\nauthorization: ***"));
        });
        assert_eq!(delivery, Delivery::MaybeSent);
    }

    #[test]
    fn n2_a_head_in_pieces_gets_its_secrets() {
        let secrets = hide(&mut headers());
        let ((), delivery) = send(secrets, || {
            let (first, second) = HEAD.split_once("x-token").unwrap();
            // A piece begins with a header, not with the end of the line before.
            let mut first = first.as_bytes().to_vec();
            reveal(&mut first).unwrap();
            assert!(first.ends_with(b"authorization: Basic a2V5Og==\r\n"));
            let mut second = format!("x-token{second}").into_bytes();
            reveal(&mut second).unwrap();
            assert!(second.starts_with(b"x-token: token\r\n"));
        });
        assert_eq!(delivery, Delivery::MaybeSent);
    }

    #[test]
    fn n2_where_the_place_of_a_secret_is_not_found_nothing_is_sent() {
        let secrets = hide(&mut headers());
        let (result, delivery) = send(secrets, || {
            let mut head = HEAD.replace("authorization", "AUTHORIZATION").into_bytes();
            let result = reveal(&mut head);
            assert!(head.ends_with(b"x-token: *****\r\n\r\n"));
            result
        });
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (TransportErrorKind::Unsupported, delivery));
        assert_eq!(delivery, Delivery::NotSent);
    }
}
