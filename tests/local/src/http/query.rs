//! Processes and analyses: what their requests say, and what goes back.

use std::str::FromStr;
use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use super::auth::Access;
use super::body;
use super::handler::{about, ask_engine, on_a_thread};
use super::response::{self, Refusal, Response};
use crate::engine::{Change, Definition, Ttl};
use crate::shared::Shared;

/// Bytes of a query with all that is said about it, inflated. More than anybody writes by hand.
const LONGEST: usize = 1024 * 1024;

/// The body of `POST /process/NAME`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProcess {
    query: String,
    #[serde(deserialize_with = "materialize", rename = "action")]
    _action: (),
    #[serde(default)]
    ttl: Option<TtlBody>,
}

/// The body of `PUT /process/NAME`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessChange {
    query: Option<String>,
    #[serde(default, deserialize_with = "materialize", rename = "action")]
    _action: (),
    ttl: Option<TtlBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TtlBody {
    duration: String,
    column: String,
}

impl From<TtlBody> for Ttl {
    fn from(TtlBody { duration, column }: TtlBody) -> Self {
        Self { duration, column }
    }
}

/// The body of `POST /analyze`, and of what saves an analysis.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    query: String,
}

/// What `GET /process/NAME` and `GET /analyze/NAME` show.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a Ttl>,
}

#[derive(Serialize)]
struct Action {
    r#type: &'static str,
}

const MATERIALIZE: &str = "MATERIALIZE";

/// Takes an action, an object with a type or, as gostride has it, the type alone.
fn materialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    let action = Value::deserialize(deserializer)?;
    let kind = match &action {
        Value::String(kind) => Some(kind.as_str()),
        Value::Object(action) => action.get("type").and_then(Value::as_str),
        _ => None,
    };
    let Some(kind) = kind else {
        return Err(D::Error::custom("action must be an object with a type, or its type"));
    };
    if !kind.eq_ignore_ascii_case(MATERIALIZE) {
        return Err(D::Error::custom(format_args!(
            "there is no action {kind:?}: a process can only {MATERIALIZE:?}, as {{\"type\": {MATERIALIZE:?}}}"
        )));
    }
    // Said only of an action that there is.
    let mut fields = action.as_object().into_iter().flat_map(Map::keys);
    match fields.find(|field| *field != "type") {
        Some(more) => Err(D::Error::custom(format_args!("an action has no {more:?}, only a type"))),
        None => Ok(()),
    }
}

pub(super) async fn show_process(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let Definition { query, ttl } =
        about(shared, name, |engine, name| engine.process(name)).await?;
    let action = Some(Action { r#type: MATERIALIZE });
    Ok(response::json(&Shown { name, query: &query, action, ttl: ttl.as_ref() }))
}

pub(super) async fn create_process(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let NewProcess { query, ttl, .. } = read(shared, request).await?;
    let definition = Definition { query, ttl: ttl.map(Into::into) };
    about(shared, name, move |engine, name| engine.create_process(name, &definition)).await?;
    Ok(response::created())
}

pub(super) async fn change_process(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let ProcessChange { query, ttl, .. } = read(shared, request).await?;
    if query.is_none() && ttl.is_none() {
        return Err(Refusal::BadRequest("say what to change: query or ttl".to_owned()));
    }
    let change = Change { query, ttl: ttl.map(Into::into) };
    about(shared, name, move |engine, name| engine.change_process(name, &change)).await?;
    Ok(response::done())
}

pub(super) async fn show_analysis(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let query = about(shared, name, |engine, name| engine.saved_query(name)).await?;
    Ok(response::json(&Shown { name, query: &query, action: None, ttl: None }))
}

pub(super) async fn save_analysis(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let Query { query } = read(shared, request).await?;
    about(shared, name, move |engine, name| engine.save_query(name, &query)).await?;
    Ok(if request.method() == Method::POST { response::created() } else { response::done() })
}

/// `POST /analyze`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<Response, Refusal> {
    let Query { query } = read(shared, request).await?;
    let parameters = parameters(request.uri().query());
    let rows = ask_engine(shared, move |engine| engine.query(&query, &parameters)).await?;
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
    let rows = about(shared, name, move |engine, name| {
        let query = engine.saved_query(name)?;
        engine.query(&query, &parameters)
    })
    .await?;
    Ok(response::rows(rows))
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
    let body = body(shared, request).await?;
    if body.trim().is_empty() {
        return Ok(Vec::new());
    }
    let sent: Option<Map<String, Value>> =
        serde_json::from_str(&body).map_err(|error| bad(&error))?;
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

/// Reads a body that is an object of this kind.
async fn read<T: DeserializeOwned>(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<T, Refusal> {
    let body = body(shared, request).await?;
    // By way of an object, as an array would do for a struct, too.
    let object: Map<String, Value> = serde_json::from_str(&body).map_err(|error| bad(&error))?;
    serde_json::from_value(object.into()).map_err(|error| bad(&error))
}

fn bad(error: &serde_json::Error) -> Refusal {
    Refusal::BadRequest(if error.is_data() {
        error.to_string()
    } else {
        format!("bad JSON: {error}")
    })
}

async fn body(shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Result<String, Refusal> {
    let encoding = body::encoding(request)?;
    let body =
        body::read(request.body_mut(), &shared.limits, shared.rooms.of(Some(Access::Secret)))
            .await?;
    let limit = LONGEST.min(shared.limits.max_inflated);
    let body = on_a_thread(move || body::decode(body.bytes, encoding, limit)).await?;
    String::from_utf8(body.into())
        .map_err(|error| Refusal::BadRequest(format!("bad JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Result<NewProcess, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_action_is_an_object_or_its_type() {
        for action in [r#"{"type": "MATERIALIZE"}"#, r#""MATERIALIZE""#, r#""materialize""#] {
            let json = format!(r#"{{"query": "SELECT 1", "action": {action}}}"#);
            assert_eq!(process(&json).unwrap().query, "SELECT 1");
        }
        for (action, why) in [
            (r#""WEBHOOK""#, "there is no action \"WEBHOOK\""),
            (r#"{"type": "WEBHOOK"}"#, "there is no action \"WEBHOOK\""),
            (r#"{"type": "MATERIALIZE", "url": "x"}"#, "has no \"url\""),
            ("{}", "action must be"),
            ("7", "action must be"),
            ("null", "action must be"),
        ] {
            let json = format!(r#"{{"query": "SELECT 1", "action": {action}}}"#);
            let error = process(&json).err().unwrap();
            assert!(error.contains(why), "{action}: {error}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (json, why) in [
            (r#"{"action": "MATERIALIZE"}"#, "missing field `query`"),
            (r#"{"query": "SELECT 1"}"#, "missing field `action`"),
            (r#"{"query": 7, "action": "MATERIALIZE"}"#, "expected a string"),
            (r#"{"query": "", "action": "MATERIALIZE", "Ttl": 1}"#, "unknown field `Ttl`"),
            (r#"{"query": "", "action": "MATERIALIZE", "ttl": {}}"#, "missing field `duration`"),
        ] {
            let error = process(json).err().unwrap();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
