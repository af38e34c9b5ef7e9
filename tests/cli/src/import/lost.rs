//! Events that the server did not take.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use stride_collector::{LossReason, LostBatch};

use super::event::Ids;
use super::rejects::Rejects;

#[derive(Deserialize)]
struct Identified<'t> {
    #[serde(borrow, rename = "$id", default)]
    id: Option<&'t RawValue>,
}

/// Shows each with its line, and why.
pub(super) fn refused(lost: &LostBatch, ids: &Ids, rejects: &Rejects) {
    let why = why(lost);
    let events: Vec<&RawValue> = serde_json::from_slice(&lost.events).unwrap_or_default();
    for event in events {
        let id = serde_json::from_str::<Identified<'_>>(event.get()).ok().and_then(|it| it.id);
        let text: Option<Cow<'_, str>> = id.and_then(|id| serde_json::from_str(id.get()).ok());
        let place = match text.and_then(|id| ids.line(&id)) {
            Some(line) => line.to_string(),
            None => format!("the event with $id {}", id.map_or("?", |id| id.get())),
        };
        rejects.event(&place, event.get(), &why);
    }
}

fn why(lost: &LostBatch) -> String {
    let reason = match lost.reason {
        LossReason::Expired => "the server was away for too long".to_owned(),
        LossReason::Stopped => "there was no time left to send it".to_owned(),
        LossReason::Unauthorized => "the key may not write to the stream".to_owned(),
        reason => format!("refused by the server ({reason})"),
    };
    match &lost.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason,
    }
}
