//! Subscriptions to streams and to processes.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, mpsc};

use http::Request;
use hyper::body::Incoming;

use super::about;
use crate::engine::position::Position;
use crate::engine::{Engine, EngineError, Page, PageLimit, Start};
use crate::events::ids::EventId;
use crate::http::response::{self, Refusal, Response};
use crate::http::subscription::Subscription;
use crate::shared::Shared;
use crate::subscribers::hub::Source;
use crate::subscribers::mailbox::Want;
use crate::subscribers::records::Records;

/// `GET /collect/NAME/subscribe`. `cut`: it breaks off after so many bytes.
pub(super) async fn to_stream(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    name: &str,
    cut: Option<usize>,
) -> Result<Response, Refusal> {
    let query = request.uri().query();
    let (sample, after) = (sample(query)?, after(query)?);
    if sample.is_some() && after.is_some() {
        return Err(Refusal::BadRequest(
            "a sample leaves events out, so there is none after a position".to_owned(),
        ));
    }
    // Before the place is read: what is stored from now on waits, and what of it was read is left out.
    let want = sample.map_or(Want::Events, Want::Sample);
    let subscriber = shared.subscribers.subscribe(Source::Stream, name, want);
    let mut subscription = Subscription::new(shared, subscriber, cut);
    if sample.is_some() {
        return Ok(response::events(subscription));
    }
    let most = subscription.most();
    let page =
        about(shared, name, move |engine, name| first_page(engine, name, after, most)).await?;
    let events = page.events.ends.len() as u64;
    let at = Position { place: page.end.place.saturating_sub(events), ..page.end };
    let missing = page.missing;
    subscription.begin(page);
    Ok(response::events_after(at, missing, subscription))
}

/// Where a client goes on.
struct After {
    /// A position or the `$id` of an event; empty for the oldest that is left.
    place: String,
    /// Events behind it.
    skip: u64,
}

/// What a subscription begins with: nothing that is stored, unless it is asked for.
fn first_page(
    engine: &dyn Engine,
    stream: &str,
    after: Option<After>,
    most: PageLimit,
) -> Result<Page, EngineError> {
    let Some(After { place, skip }) = after else {
        let end = engine.position(stream, Start::Newest)?;
        return Ok(Page { events: Records::default(), missing: 0, end });
    };
    let at = if place.is_empty() {
        engine.position(stream, Start::Oldest)?
    } else if let Ok(position) = place.parse() {
        position
    } else {
        let text = EventId::Text(place.as_str().into());
        match (engine.position(stream, Start::After(&text)), place.parse().map(EventId::Unsigned)) {
            (Err(EngineError::Gone(_)), Ok(number)) => {
                engine.position(stream, Start::After(&number))?
            }
            (found, _) => found?,
        }
    };
    engine.events_after(stream, at.skip(skip), most)
}

/// `GET /process/NAME/subscribe`.
pub(super) async fn to_process(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    name: &str,
    cut: Option<usize>,
) -> Result<Response, Refusal> {
    let query = request.uri().query();
    let sample = sample(query)?;
    let want = match (sample, snapshot(query)?) {
        (None, true) => Want::Snapshot,
        (Some(sample), false) => Want::Sample(sample),
        (None, false) => Want::Changes,
        (Some(_), true) => {
            return Err(Refusal::BadRequest(
                "a sample leaves changes out, which a snapshot is to be kept up to date with"
                    .to_owned(),
            ));
        }
    };
    let subscriber = shared.subscribers.subscribe(Source::Process, name, want);
    let changes = Subscription::new(shared, subscriber, cut);
    if let Want::Snapshot = want {
        let (mailbox, most) = (changes.mailbox(), shared.subscribers.room());
        let rows = about(shared, name, move |engine, name| {
            let (counted, count) = mpsc::sync_channel(1);
            let deliver = move |rows: Records| {
                // There is room for one, and somebody waits for it.
                let _ = counted.send(rows.ends.len() as u64);
                mailbox.begin(rows);
            };
            engine.snapshot(name, most, Box::new(deliver))?;
            Ok(count.recv().unwrap_or_default())
        });
        return Ok(response::snapshot(rows.await?, changes));
    }
    // Asked once it is subscribed: a process that is deleted from now on ends it.
    about(shared, name, |engine, name| engine.process(name)).await?;
    Ok(response::events(changes))
}

/// The value of a parameter of the query.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A whole number, and nothing else that would be read as one.
fn whole<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()))
}

fn sample(query: Option<&str>) -> Result<Option<NonZeroU32>, Refusal> {
    let why = "sample is how many events a second to send at most, a whole number from 1";
    parameter(query, "sample")
        .map(|value| whole(&value).ok_or_else(|| Refusal::BadRequest(why.to_owned())))
        .transpose()
}

fn snapshot(query: Option<&str>) -> Result<bool, Refusal> {
    match parameter(query, "snapshot").as_deref() {
        None => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(Refusal::BadRequest("snapshot is 1, or left out".to_owned())),
    }
}

fn after(query: Option<&str>) -> Result<Option<After>, Refusal> {
    let why = "skip is how many events to leave out behind the place, a whole number";
    let Some(place) = parameter(query, "after") else { return Ok(None) };
    let skip = parameter(query, "skip").map_or(Some(0), |value| whole(&value));
    let skip = skip.ok_or_else(|| Refusal::BadRequest(why.to_owned()))?;
    Ok(Some(After { place: place.into_owned(), skip }))
}
