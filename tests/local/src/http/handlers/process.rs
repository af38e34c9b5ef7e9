//! Processes: what their requests say, and what goes back.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{about, object};
use crate::engine::{Change, Definition, Ttl};
use crate::http::response::{self, Refusal, Response};
use crate::shared::Shared;

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

/// What `GET /process/NAME` shows.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    query: &'a str,
    action: Action,
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

pub(super) async fn show(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let Definition { query, ttl } =
        about(shared, name, |engine, name| engine.process(name)).await?;
    let action = Action { r#type: MATERIALIZE };
    Ok(response::json(&Shown { name, query: &query, action, ttl: ttl.as_ref() }))
}

pub(super) async fn create(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let NewProcess { query, ttl, .. } = object::read(shared, request).await?;
    let definition = Definition { query, ttl: ttl.map(Into::into) };
    about(shared, name, move |engine, name| engine.create_process(name, &definition)).await?;
    Ok(response::created())
}

pub(super) async fn change(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
    name: &str,
) -> Result<Response, Refusal> {
    let ProcessChange { query, ttl, .. } = object::read(shared, request).await?;
    if query.is_none() && ttl.is_none() {
        return Err(Refusal::BadRequest("say what to change: query or ttl".to_owned()));
    }
    let change = Change { query, ttl: ttl.map(Into::into) };
    about(shared, name, move |engine, name| engine.change_process(name, &change)).await?;
    Ok(response::done())
}

/// `GET /process/NAME/stats`.
pub(super) async fn stats(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let stats = about(shared, name, |engine, name| engine.process_stats(name)).await?;
    Ok(response::json(&stats))
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
