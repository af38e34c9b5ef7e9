//! Streams: what is stored in them, and what they are.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::oneshot;

use super::{about, on_a_thread};
use crate::engine::{Commit, Summary};
use crate::events::Collector;
use crate::events::batch::BatchError;
use crate::http::auth::Access;
use crate::http::body::{self, Encoding, Received};
use crate::http::response::{self, Refusal, Response};
use crate::pool::Pool;
use crate::shared::Shared;

/// What `GET /collect/NAME` shows.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(flatten)]
    summary: Summary,
}

/// `GET /collect/NAME`.
pub(super) async fn show(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let summary = about(shared, name, |engine, name| engine.stream(name)).await?;
    Ok(response::json(&Shown { name, summary }))
}

/// `POST /collect` and `POST /collect/NAME`.
pub(super) async fn store(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    access: Access,
    name: Option<&str>,
) -> Result<Response, Refusal> {
    let encoding = body::encoding(request)?;
    let room = shared.rooms.of(Some(access));
    let body = body::read(request.body_mut(), &shared.limits, room).await?;
    let threads = Arc::clone(&room.threads);
    let inflated = room.inflated(body.bytes.len(), encoding).await;
    let (shared, name) = (Arc::clone(shared), name.map(str::to_owned));
    // A separate task, which keeps the room until the events are out of memory, although the client
    // may have hung up.
    let stored = tokio::spawn(async move {
        let is_large = inflated.is_some();
        let _inflated = inflated;
        let append = move || append(&shared, access, name.as_deref(), body, encoding);
        let commit =
            if is_large { in_pool(&threads, append).await } else { on_a_thread(append).await }?;
        Ok(commit.await.map_err(|_| Refusal::Broken)??)
    });
    stored.await.unwrap_or(Err(Refusal::Broken)).map(|()| response::done())
}

async fn in_pool<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (done, is_done) = oneshot::channel();
    // The waiting task may be gone.
    pool.run(move || drop(done.send(work())));
    is_done.await.unwrap_or(Err(Refusal::Broken))
}

fn append(
    shared: &Shared,
    access: Access,
    name: Option<&str>,
    body: Received,
    encoding: Encoding,
) -> Result<Commit, Refusal> {
    let json = body::decode(body.bytes, encoding, shared.limits.max_inflated)?;
    let json = std::str::from_utf8(&json)
        .map_err(|error| Refusal::BadRequest(format!("bad JSON: {error}")))?;
    // Stamps may double small events; the result has its own limit.
    let limit = shared.limits.max_inflated.saturating_mul(2);
    let collector = Collector {
        engine: &*shared.engine,
        author: access.into(),
        limit,
        may_write: &|stream| access == Access::Secret || shared.keys.opens(stream),
    };
    match name {
        Some(name) => collector.one(name, json),
        None => collector.map(json),
    }
    .map_err(|error| match error {
        BatchError::Bad(why) => Refusal::BadRequest(why),
        BatchError::Forbidden(_) => Refusal::NotOpen(error.to_string()),
        BatchError::TooLarge { .. }
        | BatchError::TooMany { .. }
        | BatchError::LargeEvent { .. } => Refusal::TooLarge(error.to_string()),
    })
}
