//! Reading the body of a request, within limits.

use std::future::poll_fn;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http::{Request, header};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::limits::{Growing, Room};
use super::response::Refusal;
use crate::settings::Limits;

/// A body that is not going to be used and is no longer than this is still read, which
/// costs less than a new connection.
const WORTH_READING: u64 = 64 * 1024;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
}

/// Checks that the headers announce JSON, plain or compressed.
///
/// A body without a type is refused: a web page can have any browser send one, without asking.
pub(crate) fn encoding(request: &Request<Incoming>) -> Result<Encoding, Refusal> {
    let headers = request.headers();
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_some() || !request.body().is_end_stream() {
        let essence = content_type.and_then(|it| it.to_str().ok()).unwrap_or_default().split(';');
        let essence = essence.into_iter().next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::WrongType);
        }
    }
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    match (encodings.next().map(|encoding| encoding.to_str()), encodings.next()) {
        (None, _) => Ok(Encoding::Plain),
        (Some(Ok(one)), None) if one.eq_ignore_ascii_case("identity") => Ok(Encoding::Plain),
        (Some(Ok(one)), None)
            if one.eq_ignore_ascii_case("gzip") || one.eq_ignore_ascii_case("x-gzip") =>
        {
            Ok(Encoding::Gzip)
        }
        _ => Err(Refusal::WrongEncoding),
    }
}

/// A body that has arrived, and the room it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Growing,
}

/// Reads the whole body.
pub(crate) async fn read(
    body: &mut Incoming,
    limits: &Limits,
    room: &Room,
) -> Result<Received, Refusal> {
    let too_large =
        || Refusal::TooLarge(format!("the body is larger than {} bytes", limits.max_body));
    if body.size_hint().lower() > limits.max_body as u64 {
        return Err(too_large());
    }
    let mut share = room.share();
    let mut waits_for_room = false;
    let read = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(chunk) = next_chunk(body).await? {
            let size = first.len() + all.len() + chunk.len();
            if size > limits.max_body {
                return Err(too_large());
            }
            waits_for_room = true;
            share.grow(size).await;
            waits_for_room = false;
            // Most bodies come in one piece, which is then not copied.
            if first.is_empty() && all.is_empty() {
                first = chunk;
                continue;
            }
            if all.is_empty() {
                all.reserve(4 * first.len());
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    match timeout(limits.body_time, read).await {
        Ok(bytes) => Ok(Received { bytes: bytes?, _share: share }),
        Err(_) if waits_for_room => {
            Err(Refusal::Unavailable("too many large bodies at once".to_owned()))
        }
        Err(_) => Err(Refusal::SlowBody),
    }
}

/// Reads and forgets a body that is not worth a new connection, and says whether it came to its end.
pub(crate) async fn discard(body: &mut Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if body.size_hint().lower() > WORTH_READING {
        return false;
    }
    let all = async {
        let mut read = 0;
        // A body in chunks does not say that it was read to its end until it is asked once more.
        while let Ok(chunk) = next_chunk(body).await {
            let Some(chunk) = chunk else { return true };
            read += chunk.len() as u64;
            if read > WORTH_READING {
                break;
            }
        }
        false
    };
    timeout(Duration::from_secs(1), all).await.unwrap_or(false)
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
            // The client has gone or broke the framing; if it still listens, it should know.
            Some(Err(_)) => return Err(Refusal::BadRequest("the body was cut short".to_owned())),
        }
    }
}

/// Undoes the encoding, stopping at `limit` however much more there is.
pub(crate) fn decode(body: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::TooLarge(format!("the body inflates to more than {limit} bytes"));
    match encoding {
        Encoding::Plain if body.len() > limit => Err(too_large()),
        Encoding::Plain => Ok(body),
        Encoding::Gzip => {
            // What events usually inflate to; a bomb gets no more room than it fills.
            let mut inflated = Vec::with_capacity(body.len().saturating_mul(8).min(limit) + 1);
            let most = (limit as u64).saturating_add(1);
            MultiGzDecoder::new(&body[..])
                .take(most)
                .read_to_end(&mut inflated)
                .map_err(|error| Refusal::BadRequest(bad_gzip(&error)))?;
            if inflated.len() > limit { Err(too_large()) } else { Ok(inflated.into()) }
        }
    }
}

fn bad_gzip(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "bad gzip: it ends too early".to_owned(),
        _ => format!("bad gzip: {error}"),
    }
}
