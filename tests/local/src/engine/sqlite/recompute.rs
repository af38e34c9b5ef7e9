//! Processes whose query is run again: how, and what it is run without.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rusqlite::types::Value;

use time::OffsetDateTime;

use super::catalogue::Choice;
use super::objects::kept;
use super::process::MOST_TRIED;
use super::read::{Effort, Failed, Reader, too_large};
use super::schedule::Due;
use crate::engine::EngineError;
use crate::events::timestamp;
use crate::sql::columns::Column;
use crate::sql::windows::{self, Oldest};
use crate::sql::{Parsed, times};

/// How many events a process may be run without.
const MOST_FAILING: usize = 1000;

/// The result of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) steps: u64,
    pub(super) took: Duration,
    /// How many events were found that the query fails at, and what is wrong with those that it lacks.
    pub(super) skipped: u64,
    pub(super) why: Option<String>,
}

/// The events that a query fails at, as far as they are known: it is run without them.
#[derive(Debug, Default)]
pub(super) struct Failing {
    choice: Choice,
    why: Option<String>,
    /// Up to which place of each stream it did well the last time.
    good: BTreeMap<String, i64>,
}

/// Runs a query, without the events that it fails at.
pub(super) fn run(
    reader: &mut Reader,
    parsed: &Parsed,
    failing: &mut Failing,
) -> Result<Run, EngineError> {
    let start = Instant::now();
    let mut skipped = 0;
    loop {
        let streams = reader.streams(parsed)?;
        failing.forget_all_but(&streams);
        match run_once(reader, parsed, &failing.choice) {
            Ok(run) => {
                let ends = streams.into_iter().map(|(stream, places)| (stream, places.end));
                failing.good = ends.collect();
                let why = failing.why.clone();
                return Ok(Run { took: start.elapsed(), skipped, why, ..run });
            }
            Err(Failed { error: EngineError::Invalid(why), at_an_event: true }) => {
                let found = failing.find(reader, parsed, &streams, start)?;
                let count = failing.choice.without.len() + found.len();
                if found.is_empty() || count > MOST_FAILING {
                    return Err(EngineError::Invalid(why));
                }
                skipped += found.len() as u64;
                failing.choice.without.extend(found);
                failing.why = Some(why);
            }
            Err(failed) => return Err(failed.error),
        }
    }
}

impl Failing {
    fn forget_all_but(&mut self, streams: &BTreeMap<String, Range<i64>>) {
        let without = &mut self.choice.without;
        without.retain(|place| streams.values().any(|places| places.contains(place)));
        if without.is_empty() {
            self.why = None;
        }
    }

    /// Finds the events of one stream without which the query goes well. Which stream it is, and which events, can
    /// only be found by trying.
    fn find(
        &self,
        reader: &mut Reader,
        parsed: &Parsed,
        streams: &BTreeMap<String, Range<i64>>,
        start: Instant,
    ) -> Result<Vec<i64>, EngineError> {
        let limit = reader.limits.query_time;
        let mut fewest = Vec::new();
        for (stream, places) in streams {
            let mut fails = |places: Range<i64>| {
                let only = Some((stream.clone(), places));
                let choice = Choice { only, ..self.choice.clone() };
                match reader.run(parsed, &[], &choice, |_, _, _| Ok(())) {
                    Ok(_) => Ok(false),
                    Err(Failed { at_an_event: true, .. }) => Ok(true),
                    Err(failed) => Err(failed.error),
                }
            };
            if fails(places.start..places.start)? {
                // Of another stream.
                continue;
            }
            let good = self.good.get(stream).map_or(places.start, |good| *good);
            let good = good.clamp(places.start, places.end);
            let mut found = Vec::new();
            let suspect =
                if fails(good..places.end)? { good..places.end } else { places.start..good };
            let mut left = Vec::from([suspect]);
            while let Some(places) = left.pop() {
                if found.len() as u64 >= MOST_TRIED || start.elapsed() > limit {
                    found.clear();
                    break;
                }
                if !fails(places.clone())? {
                    continue;
                }
                if places.end - places.start > 1 {
                    let middle = places.start + (places.end - places.start) / 2;
                    left.extend([middle..places.end, places.start..middle]);
                } else {
                    found.push(places.start);
                }
            }
            if !found.is_empty() && (fewest.is_empty() || found.len() < fewest.len()) {
                fewest = found;
            }
        }
        Ok(fewest)
    }
}

fn run_once(reader: &mut Reader, parsed: &Parsed, choice: &Choice) -> Result<Run, Failed> {
    let start = Instant::now();
    let most = reader.limits.query_bytes;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let effort = reader.run(parsed, &[], choice, |_, columns, row| {
        let values: Vec<Value> = (0..columns.len())
            .map(|place| Ok(kept(row.get_ref(place)?)))
            .collect::<rusqlite::Result<_>>()?;
        bytes += values.iter().map(size).sum::<usize>();
        rows.push(values);
        if bytes > most { Err(too_large(most)) } else { Ok(()) }
    })?;
    let Effort { columns, steps, .. } = effort;
    Ok(Run { columns, rows, steps, took: start.elapsed(), skipped: 0, why: None })
}

fn size(value: &Value) -> usize {
    let more = match value {
        Value::Text(text) => text.len(),
        Value::Blob(blob) => blob.len(),
        _ => 0,
    };
    size_of::<Value>() + more
}

/// When the result of a query changes, given that its last run found nothing new: once the oldest row of one of its
/// windows has left it.
pub(super) fn due(reader: &mut Reader, parsed: &Parsed) -> Result<Due, EngineError> {
    let Some(windows) = windows::oldest(parsed) else { return Ok(Due::Soon) };
    let everything = Choice::default();
    let mut first = None;
    for Oldest { query, micros } in windows {
        let mut oldest = None;
        reader.run(&query, &[], &everything, |_, _, row| {
            oldest = row.get::<_, Option<String>>(0)?;
            Ok(())
        })?;
        let leaves =
            oldest.and_then(|at| times::micros_of(&at)).map(|at| at.saturating_add(micros));
        first = leaves.into_iter().chain(first).min();
    }
    Ok(match first {
        Some(first) => {
            let now = timestamp::micros(OffsetDateTime::now_utc());
            Due::In(Duration::from_micros(first.saturating_sub(now).try_into().unwrap_or(0)))
        }
        None => Due::Never,
    })
}
