//! `GET /healthz`: whether the storage can be used now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::ask_engine;
use crate::http::response::{self, Refusal, Response};
use crate::shared::Shared;

/// How long a healthy storage takes at most to say so.
const HEALTHY: Duration = Duration::from_secs(5);

pub(super) async fn check(shared: &Arc<Shared>) -> Response {
    let healthy = timeout(HEALTHY, ask_engine(shared, |engine| engine.health())).await;
    let slow = |_| Err(Refusal::Unavailable("the storage does not respond".to_owned()));
    match healthy.unwrap_or_else(slow) {
        Ok(()) => response::json(&serde_json::json!({"status": "ok"})),
        Err(refusal) => refusal.response(),
    }
}
