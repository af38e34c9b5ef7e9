//! Queries: saved ones, and those that are run once.

use std::str::FromStr;
use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::{about, ask_engine, object};
use crate::engine::Wanted;
use crate::http::response::{self, Refusal, Response};
use crate::shared::Shared;

/// The body of `POST /analyze`, and of what saves an analysis.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    query: String,
}

/// What `GET /analyze/NAME` shows.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    query: &'a str,
}

pub(super) async fn show(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let query = about(shared, name, |engine, name| engine.saved_query(name)).await?;
    Ok(response::json(&Shown { name, query: &query }))
}

pub(super) async fn save(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let Query { query } = object::read(shared, request).await?;
    about(shared, name, move |engine, name| engine.save_query(name, &query)).await?;
    Ok(if request.method() == Method::POST { response::created() } else { response::done() })
}

/// `POST /analyze`.
pub(super) async fn once(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<Response, Refusal> {
    let Query { query } = object::read(shared, request).await?;
    let parameters = parameters(request.uri().query());
    let (wanted, _waiting) = wanted();
    let rows =
        ask_engine(shared, move |engine| engine.query_while(&query, &parameters, &wanted)).await?;
    Ok(response::rows(rows))
}

/// `GET` and `POST /analyze/NAME/results`.
pub(super) async fn results(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let mut parameters = parameters(request.uri().query());
    if request.method() == Method::POST {
        parameters.extend(sent_parameters(shared, request).await?);
    }
    let (wanted, _waiting) = wanted();
    let rows = about(shared, name, move |engine, name| {
        let query = engine.saved_query(name)?;
        engine.query_while(&query, &parameters, &wanted)
    })
    .await?;
    Ok(response::rows(rows))
}

/// Waits for the result of a query. Dropped when the result is there, and before that when the client has hung up or its
/// time is over.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

fn wanted() -> (Wanted, Waiting) {
    let wanted = Wanted::default();
    (wanted.clone(), Waiting(wanted))
}

/// What a query string says, as in `?start_date=2015-05-05`. It has no types: what is written as a number is one,
/// because in SQLite every text is greater than every number. `0123` and `+49` are texts.
fn parameters(query: Option<&str>) -> Vec<(String, Value)> {
    fn same<T: FromStr + ToString>(text: &str) -> Option<T> {
        text.parse().ok().filter(|number: &T| number.to_string() == text)
    }
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let typed = pairs.map(|(name, text)| {
        let number = same::<i64>(&text).map(Value::from);
        let number =
            number.or_else(|| same::<f64>(&text).and_then(Number::from_f64).map(Value::Number));
        (name.into_owned(), number.unwrap_or_else(|| text.into()))
    });
    typed.collect()
}

/// What the body of a `POST` says instead; no body and `null`, which clients send, say nothing.
async fn sent_parameters(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<Vec<(String, Value)>, Refusal> {
    let body = object::body(shared, request).await?;
    if body.trim().is_empty() {
        return Ok(Vec::new());
    }
    let sent: Option<Map<String, Value>> =
        serde_json::from_str(&body).map_err(|error| object::bad(&error))?;
    sent.unwrap_or_default()
        .into_iter()
        .map(|(name, value)| match value {
            Value::Array(_) | Value::Object(_) => Err(Refusal::BadRequest(format!(
                "parameter {name:?} must be a text, a number, a truth value or null"
            ))),
            value => Ok((name, value)),
        })
        .collect()
}
