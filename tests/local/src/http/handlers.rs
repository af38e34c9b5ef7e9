//! From a request to its response.

mod analyze;
mod collect;
mod health;
mod object;
mod overview;
mod process;
mod subscribe;

use std::fmt;
use std::future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::auth::Access;
use super::body;
use super::connection::Ending;
use super::cors;
use super::faults::{Effects, Outcome};
use super::metrics;
use super::response::{self, Refusal, Response};
use super::router::{self, NoRoute, Route};
use super::ui;
use crate::engine::{Engine, EngineError};
use crate::shared::Shared;

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

/// Responds to what operators ask, outside of the API, which meets no fault. Only the overview, which tells names, needs
/// a key.
async fn operations(shared: &Arc<Shared>, request: &Request<Incoming>) -> Option<Response> {
    let (path, headers) = (request.uri().path(), request.headers());
    let is_page = ui::is_at(path, headers);
    if !is_page && !matches!(path, "/healthz" | "/metrics" | "/overview") {
        return None;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(Refusal::WrongMethod { allow: "GET, HEAD" }.response());
    }
    Some(match path {
        _ if is_page => ui::get(path, headers),
        "/metrics" => response::metrics(metrics::page(shared)),
        "/overview" => match overview::show(shared, headers).await {
            Ok(overview) => overview,
            Err(refusal) => refusal.response(),
        },
        _ => health::check(shared).await,
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
    if access == Access::Secret {
        refuse_foreign(request.headers())?;
    }
    let route = route.map_err(|none| match none {
        NoRoute::Unknown => Refusal::Unknown("there is nothing at this path".to_owned()),
        NoRoute::BadName(name) => Refusal::BadRequest(format!(
            "{name:?} cannot be a name: a name is a letter and then letters, digits and _"
        )),
        NoRoute::WrongMethod { allow } => Refusal::WrongMethod { allow },
    })?;
    match route {
        Route::Collect => collect::store(shared, request, access, None).await,
        Route::CollectInto(name) => collect::store(shared, request, access, Some(name)).await,
        Route::Streams => names(shared, |engine| engine.streams()).await,
        Route::Stream(name) => collect::show(shared, name).await,
        Route::DeleteStream(name) => {
            done(shared, name, |engine, name| engine.delete_stream(name)).await
        }
        Route::Subscribe(name) => subscribe::to_stream(shared, request, name, cut).await,
        Route::Processes => names(shared, |engine| engine.processes()).await,
        Route::Process(name) => process::show(shared, name).await,
        Route::CreateProcess(name) => process::create(shared, request, name).await,
        Route::ChangeProcess(name) => process::change(shared, request, name).await,
        Route::DeleteProcess(name) => {
            done(shared, name, |engine, name| engine.delete_process(name)).await
        }
        Route::ProcessStats(name) => process::stats(shared, name).await,
        Route::SubscribeToProcess(name) => subscribe::to_process(shared, request, name, cut).await,
        Route::Analyses => names(shared, |engine| engine.saved_queries()).await,
        Route::AnalyzeOnce => analyze::once(shared, request).await,
        Route::Analysis(name) => analyze::show(shared, name).await,
        Route::CreateAnalysis(name) | Route::SaveAnalysis(name) => {
            analyze::save(shared, request, name).await
        }
        Route::DeleteAnalysis(name) => {
            done(shared, name, |engine, name| engine.delete_query(name)).await
        }
        Route::Results(name) => analyze::results(shared, request, name).await,
    }
}

/// A page that anybody can read must not hold the secret key.
fn refuse_foreign(headers: &HeaderMap) -> Result<(), Refusal> {
    if cors::is_foreign(headers) { Err(Refusal::Foreign) } else { Ok(()) }
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

/// Asks the engine where the other connections do not wait for its response.
async fn ask_engine<T: Send + 'static>(
    shared: &Arc<Shared>,
    ask: impl FnOnce(&dyn Engine) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, Refusal> {
    let engine = Arc::clone(&shared.engine);
    on_a_thread(move || ask(&*engine).map_err(Refusal::from)).await
}

/// Asks the engine about something of this name.
async fn about<T: Send + 'static>(
    shared: &Arc<Shared>,
    name: &str,
    ask: impl FnOnce(&dyn Engine, &str) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, Refusal> {
    let name = name.to_owned();
    ask_engine(shared, move |engine| ask(engine, &name)).await
}

/// Responds with the names of something.
async fn names(
    shared: &Arc<Shared>,
    ask: impl FnOnce(&dyn Engine) -> Result<Vec<String>, EngineError> + Send + 'static,
) -> Result<Response, Refusal> {
    Ok(response::json(&ask_engine(shared, ask).await?))
}

/// Has the engine do something with what has this name.
async fn done(
    shared: &Arc<Shared>,
    name: &str,
    ask: impl FnOnce(&dyn Engine, &str) -> Result<(), EngineError> + Send + 'static,
) -> Result<Response, Refusal> {
    about(shared, name, ask).await.map(|()| response::done())
}

/// Does what may take a while where the other connections do not wait for it.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    // What is begun is finished, although the client may be gone.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be carried out");
        Err(Refusal::Broken)
    })
}
