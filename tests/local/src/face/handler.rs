//! From a request to its answer.

use std::fmt;
use std::future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;

use super::answer::{self, Answer, Refusal};
use super::auth::Access;
use super::connection::Ending;
use super::intake::{self, Encoding};
use super::route::{self, NoRoute, Route};
use super::subscription::Subscription;
use crate::engine::Commit;
use crate::fault::{Effects, Outcome};
use crate::shared::Shared;
use crate::streams;
use crate::streams::audience::Source;
use crate::streams::batch::BatchError;

/// A body no longer than this is decoded and stored right away. For a longer one, which may
/// inflate to a great deal more, the wait for another thread is worth it, so that the other
/// connections do not wait.
const SMALL: usize = 16 * 1024;

/// Instead of an answer, the connection is reset.
#[derive(Debug)]
pub(crate) struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reset on demand")
    }
}

impl std::error::Error for Reset {}

/// Serves one request, with what a test wants to go wrong.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    ending: Arc<Ending>,
    mut request: Request<Incoming>,
) -> Result<Answer, Reset> {
    shared.counters.requests.fetch_add(1, Ordering::Relaxed);
    shared.changes.note();
    let Effects { delay, outcome, cut } =
        shared.faults.next(request.uri().path().ends_with("/subscribe"));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match outcome {
        Outcome::Served => {}
        Outcome::ResetAfterStore => {
            drop(answer(&shared, &mut request, cut).await);
            shared.changes.note();
            ending.reset();
            return Err(Reset);
        }
        Outcome::ResetBeforeRead => {
            ending.reset();
            return Err(Reset);
        }
        Outcome::Stall => {
            // Read, so that hyper notices when the client gives up and hangs up.
            drop(intake::read(request.body_mut(), &shared.limits).await);
            return future::pending().await;
        }
        Outcome::Status { status, retry_after } => {
            drop(intake::read(request.body_mut(), &shared.limits).await);
            let mut answer = answer::message(status, "a fault on demand");
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            return Ok(answer);
        }
    }

    let mut answer = answer(&shared, &mut request, cut).await;
    if !request.body().is_end_stream() && !intake::discard(request.body_mut()).await {
        ending.linger();
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    tracing::debug!(
        method = %request.method(),
        path = request.uri().path(),
        status = answer.status().as_u16(),
        "answered"
    );
    shared.changes.note();
    Ok(answer)
}

async fn answer(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    cut: Option<usize>,
) -> Answer {
    match carry_out(shared, request, cut).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.answer(),
    }
}

async fn carry_out(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    cut: Option<usize>,
) -> Result<Answer, Refusal> {
    let access = shared.keys.access(request.headers()).ok_or(Refusal::Unauthorized)?;
    let path = request.uri().path().to_owned();
    let route = route::find(request.method(), &path);
    if access == Access::Open && !may_write(request.method(), &path) {
        return Err(Refusal::Forbidden);
    }
    let route = route.map_err(|none| match none {
        NoRoute::Unknown => Refusal::Unknown("there is nothing at this path".to_owned()),
        NoRoute::BadName(name) => Refusal::BadRequest(format!(
            "{name:?} cannot be a name: a name is a letter and then letters, digits and _"
        )),
        NoRoute::WrongMethod { allow } => Refusal::WrongMethod { allow },
    })?;

    match route {
        Route::Streams => Ok(answer::json(&shared.engine.streams()?)),
        Route::Stream(name) => {
            let summary = shared.engine.stream(name)?;
            Ok(answer::json(&Shown {
                name,
                count: summary.count,
                first_seen: &summary.first_seen,
                last_seen: &summary.last_seen,
            }))
        }
        Route::DeleteStream(name) => {
            shared.engine.delete_stream(name)?;
            Ok(answer::done())
        }
        Route::Collect => collect(shared, request, None).await,
        Route::CollectInto(name) => collect(shared, request, Some(name)).await,
        Route::Subscribe(name) => {
            let sample = sample(request.uri().query())?;
            let subscriber = shared.audiences.subscribe(Source::Stream, name, sample);
            Ok(answer::events(Subscription::new(
                Arc::clone(shared),
                subscriber,
                shared.keep_alive,
                cut,
            )))
        }
        Route::Process => Err(Refusal::NotYet("process")),
        Route::Analyze => Err(Refusal::NotYet("analyze")),
    }
}

/// Whether a request is of the kind that an open key is for, whatever its name is like.
fn may_write(method: &Method, path: &str) -> bool {
    let rest = path.strip_prefix("/v1/collect");
    method == Method::POST
        && rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('/').is_some_and(|name| !name.contains('/'))
        })
}

/// What `GET /collect/NAME` shows.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    count: u64,
    first_seen: &'a str,
    last_seen: &'a str,
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

async fn collect(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: Option<&str>,
) -> Result<Answer, Refusal> {
    let encoding = intake::encoding(request.headers())?;
    let body = intake::read(request.body_mut(), &shared.limits).await?;
    let commit = if body.len() <= SMALL {
        store(shared, name, body, encoding)?
    } else {
        let (shared, name) = (Arc::clone(shared), name.map(str::to_owned));
        let store = move || store(&shared, name.as_deref(), body, encoding);
        tokio::task::spawn_blocking(store).await.map_err(|_| Refusal::Broken)??
    };
    commit.await.map_err(|_| Refusal::Broken)??;
    Ok(answer::done())
}

fn store(
    shared: &Shared,
    name: Option<&str>,
    body: Bytes,
    encoding: Encoding,
) -> Result<Commit, Refusal> {
    let body = intake::decode(body, encoding, shared.limits.inflated)?;
    let json = std::str::from_utf8(&body)
        .map_err(|error| Refusal::BadRequest(format!("bad JSON: {error}")))?;
    match name {
        Some(name) => streams::collect(&*shared.engine, name, json, shared.limits.stamped),
        None => streams::collect_map(&*shared.engine, json, shared.limits.stamped),
    }
    .map_err(|error| match error {
        BatchError::Bad(why) => Refusal::BadRequest(why),
        BatchError::TooLarge { .. } => Refusal::TooLarge(error.to_string()),
    })
}
