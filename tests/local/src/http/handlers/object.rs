//! Bodies that are an object of JSON: all but events.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::on_a_thread;
use crate::http::auth::Access;
use crate::http::body;
use crate::http::response::Refusal;
use crate::shared::Shared;

/// Bytes of a query with all that is said about it, inflated. More than anybody writes by hand.
const LONGEST: usize = 1024 * 1024;

/// Reads a body that is an object of this kind.
pub(super) async fn read<T: DeserializeOwned>(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<T, Refusal> {
    let body = body(shared, request).await?;
    // By way of an object, as an array would do for a struct, too.
    let object: Map<String, Value> = serde_json::from_str(&body).map_err(|error| bad(&error))?;
    serde_json::from_value(object.into()).map_err(|error| bad(&error))
}

/// Says what is wrong with a body.
pub(super) fn bad(error: &serde_json::Error) -> Refusal {
    Refusal::BadRequest(if error.is_data() {
        error.to_string()
    } else {
        format!("bad JSON: {error}")
    })
}

/// The text of a body.
pub(super) async fn body(
    shared: &Arc<Shared>,
    request: &mut Request<Incoming>,
) -> Result<String, Refusal> {
    let encoding = body::encoding(request)?;
    let body =
        body::read(request.body_mut(), &shared.limits, shared.rooms.of(Some(Access::Secret)))
            .await?;
    let limit = LONGEST.min(shared.limits.max_inflated);
    let body = on_a_thread(move || body::decode(body.bytes, encoding, limit)).await?;
    String::from_utf8(body.into())
        .map_err(|error| Refusal::BadRequest(format!("bad JSON: {error}")))
}
