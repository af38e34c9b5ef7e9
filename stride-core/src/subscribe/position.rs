//! Where a subscription is in its stream, and how it asks to go on from there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use form_urlencoded::byte_serialize;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::event::Resumed;
use crate::api::RequestError;

/// Names the place in the stream before the first event of a response.
const POSITION: &str = "stride-position";

/// How many events were asked for and are gone.
const MISSED: &str = "stride-missed";

/// How long the text that a server names a place by may be, in bytes: far longer than any needs, and
/// short enough for a request line.
const MAX_TOKEN: usize = 1024;

/// A place in a stream: behind the last item that a subscription handed out. A subscription that starts
/// [`after`](super::SubscribeOptions::after) it goes on there, also in another process.
///
/// Save it as text, together with what the item led to; serde takes it for a string. The text is for
/// the server that it came from, and for nothing else to read.
///
/// ```
/// # use stride_core::subscribe::Position;
/// let position = Position::oldest();
/// let saved = position.to_string();
/// assert_eq!(saved.parse::<Position>()?, position);
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    token: Arc<str>,
    /// Events behind the place that the token names.
    skip: u64,
}

impl Position {
    /// The beginning: before the oldest event that the stream still has.
    #[must_use]
    pub fn oldest() -> Self {
        Self { token: "".into(), skip: 0 }
    }

    /// Behind the event of the stream that has this `$id`.
    ///
    /// # Errors
    ///
    /// The id is empty, or longer than 1024 bytes.
    pub fn of_event(id: &str) -> Result<Self, RequestError> {
        match id.len() {
            1..=MAX_TOKEN => Ok(Self { token: id.into(), skip: 0 }),
            _ => Err(RequestError::Position),
        }
    }

    /// The place that the head of a response names.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let token = headers.get(POSITION)?.to_str().ok()?;
        (1..=MAX_TOKEN).contains(&token.len()).then(|| Self { token: token.into(), skip: 0 })
    }

    fn ask(&self, uri: &Uri) -> Option<Uri> {
        let token: String = byte_serialize(self.token.as_bytes()).collect();
        with_query(uri, &format!("after={token}&skip={}", self.skip))
    }
}

/// The URL with this at the end of its query; `None` if it has no room for it.
pub(super) fn with_query(uri: &Uri, more: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref()?.as_str();
    let mark = if uri.query().is_some() { '&' } else { '?' };
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{mark}{more}")).ok()?);
    Uri::from_parts(parts).ok()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.skip, self.token)
    }
}

impl FromStr for Position {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let (skip, token) = text.split_once(':').ok_or(RequestError::Position)?;
        let is_number = skip.bytes().all(|byte| byte.is_ascii_digit());
        let skip = skip.parse().ok().filter(|_| is_number && token.len() <= MAX_TOKEN);
        Ok(Self { token: token.into(), skip: skip.ok_or(RequestError::Position)? })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How far a subscription has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the connection began, or where the next one is to: without it there is no resuming.
    start: Option<Position>,
    /// Values that were handed out since.
    values: u64,
    /// How many of them came before the first text that was broken. Nobody knows how many events that
    /// was, so those behind it do not count.
    certain: Option<u64>,
}

impl Progress {
    pub(super) fn after(position: Position) -> Self {
        Self { start: Some(position), ..Self::default() }
    }

    /// That of a connection whose head has these headers, and how it relates to what was before.
    pub(super) fn of_connection(&self, headers: &HeaderMap) -> (Self, Resumed) {
        let start = Position::of(headers);
        let missed = headers.get(MISSED).map(|it| it.to_str().ok()?.parse::<u64>().ok());
        let resumed = match (&self.start, &start, missed.unwrap_or(Some(0))) {
            (Some(_), Some(_), Some(0)) => Resumed::Fully,
            (Some(_), Some(_), Some(missing)) => Resumed::Missing(missing),
            // Nothing was asked for, the server knows no positions, or what is gone is not a number.
            _ => Resumed::No,
        };
        (Self { start, ..Self::default() }, resumed)
    }

    /// A value is handed out: how many there are now.
    #[inline(always)]
    pub(super) fn count(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// Text that is not a value is handed out.
    pub(super) fn doubt(&mut self) {
        self.certain.get_or_insert(self.values);
    }

    pub(super) fn is_known(&self) -> bool {
        self.start.is_some()
    }

    pub(super) fn position(&self) -> Option<Position> {
        let Position { token, skip } = self.start.as_ref()?;
        let skip = skip.saturating_add(self.certain.unwrap_or(self.values));
        Some(Position { token: Arc::clone(token), skip })
    }

    /// The request that goes on from here; the same one if nothing is known.
    pub(super) fn ask(&mut self, request: &Request<Bytes>) -> Request<Bytes> {
        let mut request = request.clone();
        if let Some(position) = self.position() {
            match position.ask(request.uri()) {
                Some(uri) => *request.uri_mut() = uri,
                // No room in the URL: then nothing is asked for, and nothing may be taken as resumed.
                None => *self = Self::default(),
            }
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_text_and_back() {
        for token in ["", "~a.1.5", "a:b", "\u{e9} &"] {
            let position = Position { token: token.into(), skip: 7 };
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
        let long = format!("0:{}", "x".repeat(1025));
        for text in ["", "7", ":a", "+7:a", "-1:a", "99999999999999999999:a", &long] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        assert!(Position::of_event("").is_err() && Position::of_event(&long).is_err());
    }

    #[test]
    fn a_place_is_asked_for_in_the_query() {
        for (uri, asked) in [
            ("http://h/v1/a/subscribe", "http://h/v1/a/subscribe?after=%C3%A9+%26&skip=7"),
            ("http://h/a?sample=1", "http://h/a?sample=1&after=%C3%A9+%26&skip=7"),
        ] {
            let position = Position { token: "\u{e9} &".into(), skip: 7 };
            assert_eq!(position.ask(&Uri::from_static(uri)).unwrap(), asked);
        }
    }

    #[test]
    fn where_the_url_has_no_room_nothing_is_asked_for() {
        let uri = format!("http://h/{}", "x".repeat(65_500));
        let request = Request::get(uri).body(Bytes::new()).unwrap();
        let mut progress = Progress::after(Position::of_event(&"y".repeat(1000)).unwrap());
        assert_eq!(progress.ask(&request).uri(), request.uri());
        assert!(!progress.is_known());
    }
}
