//! From a request to its response.

use std::fmt;
use std::future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::auth::Access;
use super::body::{self, Encoding, Received};
use super::connection::Ending;
use super::cors;
use super::health;
use super::metrics;
use super::query;
use super::response::{self, Refusal, Response};
use super::router::{self, NoRoute, Route};
use super::subscription::Subscription;
use crate::engine::{Commit, Engine, EngineError, Summary};
use crate::events::Collector;
use crate::events::batch::BatchError;
use crate::fault::{Effects, Outcome};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::subscribers::hub::Source;

/// Instead of a response, the connection is reset.
#[derive(Debug)]
pub(crate) struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reset on demand")
    }
}

impl std::error::Error for Reset {}

/// Serves one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    ending: Arc<Ending>,
    request: Request<Incoming>,
) -> Result<Response, Reset> {
    shared.counters.requests.fetch_add(1, Ordering::Relaxed);
    shared.changes.note();
    let response = match operations(&shared, &request).await {
        Some(response) => response,
        None => {
            let start = Instant::now();
            let response = respond(&shared, &ending, request).await?;
            shared.counters.took(start.elapsed());
            response
        }
    };
    shared.counters.responded(response.status());
    shared.changes.note();
    Ok(response)
}

/// Responds to one request to the API, with what a test wants to go wrong.
async fn respond(
    shared: &Arc<Shared>,
    ending: &Ending,
    mut request: Request<Incoming>,
) -> Result<Response, Reset> {
    let Effects { delay, outcome, cut } =
        shared.faults.next(request.uri().path().ends_with("/subscribe"));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let access = shared.keys.access(request.headers());
    match outcome {
        Outcome::Served => {}
        Outcome::ResetAfterStore => {
            drop(response(shared, &mut request, cut).await);
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
            drop(body::read(request.body_mut(), &shared.limits, shared.rooms.of(access)).await);
            return future::pending().await;
        }
        Outcome::Status { status, retry_after } => {
            drop(body::read(request.body_mut(), &shared.limits, shared.rooms.of(access)).await);
            let mut response = response::message(status, "a fault on demand");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            return Ok(response);
        }
    }

    let mut response = response(shared, &mut request, cut).await;
    if !request.body().is_end_stream() && !body::discard(request.body_mut()).await {
        ending.linger();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    tracing::debug!(
        method = %request.method(),
        path = request.uri().path(),
        status = response.status().as_u16(),
        "responded"
    );
    Ok(response)
}

async fn response(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    cut: Option<usize>,
) -> Response {
    if shared.keys.open.is_some()
        && is_collect(request.uri().path())
        && let Some(allowed) = cors::preflight(request)
    {
        return allowed;
    }
    let limit = shared.limits.request_time;
    let access = shared.keys.access(request.headers());
    let mut response = response_to(shared, request, access, cut, limit).await;
    if access == Some(Access::Open) && may_write(request.method(), request.uri().path()) {
        cors::share(response.headers_mut());
    }
    response
}

async fn response_to(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    access: Option<Access>,
    cut: Option<usize>,
    limit: Duration,
) -> Response {
    let carried_out =
        timeout(limit, carry_out(shared, request, access, cut)).await.unwrap_or_else(|_| {
            Err(Refusal::Unavailable(format!("the request was not carried out within {limit:?}")))
        });
    carried_out.unwrap_or_else(|refusal| refusal.response())
}

/// Responds to what operators ask, which needs no key and meets no fault.
async fn operations(shared: &Arc<Shared>, request: &Request<Incoming>) -> Option<Response> {
    let path = request.uri().path();
    if !matches!(path, "/healthz" | "/metrics") {
        return None;
    }
    Some(if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Refusal::WrongMethod { allow: "GET, HEAD" }.response()
    } else if path == "/metrics" {
        response::metrics(metrics::page(shared))
    } else {
        health::check(shared).await
    })
}

async fn carry_out(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    access: Option<Access>,
    cut: Option<usize>,
) -> Result<Response, Refusal> {
    let access = access.ok_or(Refusal::Unauthorized)?;
    let path = request.uri().path().to_owned();
    let route = router::find(request.method(), &path);
    if access == Access::Open && !may_write(request.method(), &path) {
        return Err(Refusal::Forbidden);
    }
    // A page that anybody can read must not hold the secret key.
    if access == Access::Secret && cors::is_foreign(request.headers()) {
        return Err(Refusal::Foreign);
    }
    let route = route.map_err(|none| match none {
        NoRoute::Unknown => Refusal::Unknown("there is nothing at this path".to_owned()),
        NoRoute::BadName(name) => Refusal::BadRequest(format!(
            "{name:?} cannot be a name: a name is a letter and then letters, digits and _"
        )),
        NoRoute::WrongMethod { allow } => Refusal::WrongMethod { allow },
    })?;
    match route {
        Route::Collect => collect(shared, request, access, None).await,
        Route::CollectInto(name) => collect(shared, request, access, Some(name)).await,
        Route::Streams => Ok(response::json(&ask_engine(shared, |engine| engine.streams()).await?)),
        Route::Stream(name) => {
            let summary = about(shared, name, |engine, name| engine.stream(name)).await?;
            Ok(response::json(&Shown { name, summary }))
        }
        Route::DeleteStream(name) => {
            about(shared, name, |engine, name| engine.delete_stream(name)).await?;
            Ok(response::done())
        }
        Route::Subscribe(name) => {
            let sample = sample(request.uri().query())?;
            let subscriber = shared.subscribers.subscribe(Source::Stream, name, sample);
            Ok(response::events(Subscription::new(shared, subscriber, cut)))
        }
        Route::Processes => {
            Ok(response::json(&ask_engine(shared, |engine| engine.processes()).await?))
        }
        Route::Process(name) => query::show_process(shared, name).await,
        Route::CreateProcess(name) => query::create_process(shared, request, name).await,
        Route::ChangeProcess(name) => query::change_process(shared, request, name).await,
        Route::DeleteProcess(name) => {
            about(shared, name, |engine, name| engine.delete_process(name)).await?;
            Ok(response::done())
        }
        Route::ProcessStats(name) => {
            let stats = about(shared, name, |engine, name| engine.process_stats(name)).await?;
            Ok(response::json(&stats))
        }
        Route::SubscribeToProcess(name) => {
            let sample = sample(request.uri().query())?;
            let subscriber = shared.subscribers.subscribe(Source::Process, name, sample);
            let changes = Subscription::new(shared, subscriber, cut);
            // Asked once it is subscribed: a process that is deleted from now on ends it.
            about(shared, name, |engine, name| engine.process(name)).await?;
            Ok(response::events(changes))
        }
        Route::Analyses => {
            Ok(response::json(&ask_engine(shared, |engine| engine.saved_queries()).await?))
        }
        Route::AnalyzeOnce => query::run(shared, request).await,
        Route::Analysis(name) => query::show_analysis(shared, name).await,
        Route::CreateAnalysis(name) | Route::SaveAnalysis(name) => {
            query::save_analysis(shared, request, name).await
        }
        Route::DeleteAnalysis(name) => {
            about(shared, name, |engine, name| engine.delete_query(name)).await?;
            Ok(response::done())
        }
        Route::Results(name) => query::results(shared, request, name).await,
    }
}

/// Whether a request is of the kind that an open key is for, whatever its name is like.
fn may_write(method: &Method, path: &str) -> bool {
    method == Method::POST && is_collect(path)
}

fn is_collect(path: &str) -> bool {
    let rest = path.strip_prefix("/v1/collect");
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('/').is_some_and(|name| !name.contains('/'))
    })
}

/// What `GET /collect/NAME` shows.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(flatten)]
    summary: Summary,
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

/// Asks the engine where the other connections do not wait for its response.
pub(super) async fn ask_engine<T: Send + 'static>(
    shared: &Arc<Shared>,
    ask: impl FnOnce(&dyn Engine) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, Refusal> {
    let engine = Arc::clone(&shared.engine);
    on_a_thread(move || ask(&*engine).map_err(Refusal::from)).await
}

/// Asks the engine about something of this name.
pub(super) async fn about<T: Send + 'static>(
    shared: &Arc<Shared>,
    name: &str,
    ask: impl FnOnce(&dyn Engine, &str) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, Refusal> {
    let name = name.to_owned();
    ask_engine(shared, move |engine| ask(engine, &name)).await
}

/// Does what may take a while where the other connections do not wait for it.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    // What is begun is finished, although the client may be gone.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be carried out");
        Err(Refusal::Broken)
    })
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
