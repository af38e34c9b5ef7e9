//! `GET /overview`: everything there is and how it fares, in one response, for the page at `/ui/`. It is outside of `/v1`,
//! and takes the secret key, because it tells names.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use serde::Serialize;
use tokio::time::timeout;

use super::{ask_engine, refuse_foreign};
use crate::engine::{Definition, Overview, ProcessStats, Summary, Ttl};
use crate::events::timestamp;
use crate::http::auth::Access;
use crate::http::response::{self, Refusal, Response};
use crate::shared::Shared;
use crate::subscribers::hub::Heard;

/// Of how many streams it tells the rates: the busiest.
const BUSIEST: usize = 1000;

#[derive(Serialize)]
struct Shown {
    version: &'static str,
    now: String,
    /// Whether what is stored outlives the server, and how much it takes on the disk, in bytes.
    kept: bool,
    bytes: u64,
    /// Subscriptions that are open, and what subscribers have missed since the start.
    subscribers: usize,
    missed: u64,
    streams: Vec<ShownStream>,
    processes: Vec<ShownProcess>,
}

#[derive(Serialize)]
struct ShownStream {
    name: String,
    #[serde(flatten)]
    summary: Summary,
    #[serde(flatten)]
    heard: Heard,
    /// How many events came in the last 120 whole seconds, and in each of them, the oldest first; left out if there were
    /// none, and for all but the busiest.
    recent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct ShownProcess {
    name: String,
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Ttl>,
    #[serde(flatten)]
    stats: ProcessStats,
    #[serde(flatten)]
    heard: Heard,
}

pub(super) async fn show(shared: &Arc<Shared>, headers: &HeaderMap) -> Result<Response, Refusal> {
    match shared.keys.access(headers) {
        None => return Err(Refusal::Unauthorized),
        Some(Access::Open) => return Err(Refusal::Forbidden),
        Some(Access::Secret) => refuse_foreign(headers)?,
    }
    let limit = shared.limits.request_time;
    let late = |_| Err(Refusal::Unavailable(format!("there was no overview within {limit:?}")));
    let of = Arc::clone(shared);
    let shown =
        ask_engine(shared, move |engine| Ok(response::json(&shown(&of, engine.overview()?))));
    timeout(limit, shown).await.unwrap_or_else(late).map(response::not_stored)
}

fn shown(shared: &Shared, overview: Overview) -> Shown {
    let Overview { kept, bytes, streams, processes } = overview;
    let mut rates = shared.rates.of_all();
    let mut busiest: Vec<u64> = rates.values().map(|rates| rates.sum).collect();
    busiest.sort_unstable_by(|a, b| b.cmp(a));
    let least = busiest.get(BUSIEST - 1).copied().unwrap_or(1);
    // Of those that are as busy as the last of them, only as many as there is room for.
    let busier = busiest.partition_point(|sum| *sum > least);
    let mut ties = BUSIEST.saturating_sub(busier);
    let (mut of_streams, mut of_processes) = shared.subscribers.heard();
    let heard = |all: &mut HashMap<String, Heard>, name: &str| all.remove(name).unwrap_or_default();
    let streams = streams.into_iter().map(|(name, summary)| {
        let recent = rates.remove(&name);
        let sum = recent.as_ref().map_or(0, |rates| rates.sum);
        let is_tie = sum == least && ties > 0;
        ties -= usize::from(is_tie);
        let rates = recent.filter(|_| sum > least || is_tie).map(|rates| rates.seconds());
        let heard = heard(&mut of_streams, &name);
        ShownStream { heard, summary, name, recent: sum, rates }
    });
    let streams = streams.collect();
    let processes = processes.into_iter().map(|(name, Definition { query, ttl }, stats)| {
        let heard = heard(&mut of_processes, &name);
        ShownProcess { heard, name, query, ttl, stats }
    });
    Shown {
        version: env!("CARGO_PKG_VERSION"),
        now: timestamp::now(),
        kept,
        bytes,
        subscribers: shared.subscribers.count_all(),
        missed: shared.subscribers.all_lost(),
        streams,
        processes: processes.collect(),
    }
}
