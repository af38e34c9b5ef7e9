//! Subscriptions to streams and to processes.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;

use super::about;
use crate::http::response::{self, Refusal, Response};
use crate::http::subscription::Subscription;
use crate::shared::Shared;
use crate::subscribers::hub::Source;

/// `GET /collect/NAME/subscribe`. `cut`: it breaks off after so many bytes.
pub(super) fn to_stream(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    name: &str,
    cut: Option<usize>,
) -> Result<Response, Refusal> {
    let sample = sample(request.uri().query())?;
    let subscriber = shared.subscribers.subscribe(Source::Stream, name, sample);
    Ok(response::events(Subscription::new(shared, subscriber, cut)))
}

/// `GET /process/NAME/subscribe`.
pub(super) async fn to_process(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    name: &str,
    cut: Option<usize>,
) -> Result<Response, Refusal> {
    let sample = sample(request.uri().query())?;
    let subscriber = shared.subscribers.subscribe(Source::Process, name, sample);
    let changes = Subscription::new(shared, subscriber, cut);
    // Asked once it is subscribed: a process that is deleted from now on ends it.
    about(shared, name, |engine, name| engine.process(name)).await?;
    Ok(response::events(changes))
}

fn sample(query: Option<&str>) -> Result<Option<NonZeroU32>, Refusal> {
    let query = query.unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "sample")
        .map(|(_, value)| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| digits).ok_or_else(|| {
                Refusal::BadRequest(
                    "sample is how many events a second to send at most, a whole number from 1"
                        .to_owned(),
                )
            })
        })
        .transpose()
}
