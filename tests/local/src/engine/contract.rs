//! What every engine has to do, whatever its database is: a suite that is generic over [`Engine`].
//!
//! It asks nothing of the SQL but what PostgreSQL and SQLite share, and takes no time as given: what is
//! computed in the background is waited for.

pub(super) mod basics;
#[cfg(feature = "postgres")]
pub(super) mod differential;
pub(super) mod functions;
pub(super) mod kinds;
pub(super) mod names;
pub(super) mod page;
pub(super) mod positions;
pub(super) mod processes;
pub(super) mod queries;
pub(super) mod retention;
pub(super) mod times;
pub(super) mod types;

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::position::Position;
use super::{
    Author, Change, Commit, Definition, Engine, EngineError, Listener, Page, PageLimit,
    ProcessStats, Start,
};
use crate::changes::Changes;
use crate::events::Collector;
use crate::rates::Rates;
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::{Hub, Source, Subscriber};
use crate::subscribers::mailbox::{Next, Want};

/// An engine to be tested.
pub(super) trait Subject {
    type Engine: Engine;

    /// The database, as docs call it.
    const NAME: &str;

    /// The functions that a query may call.
    const FUNCTIONS: &[&str];

    /// Opens what is kept at `place`, which may be nothing yet.
    fn open_with(place: &Path, limits: &Limits, listener: Arc<dyn Listener>) -> Self::Engine;

    fn open(place: &Path, listener: Arc<dyn Listener>) -> Self::Engine {
        Self::open_with(place, &Limits::default(), listener)
    }

    /// Whether what it needs is there. Tests are skipped without it, and say so.
    fn is_there() -> bool {
        true
    }
}

/// Runs the suite over a subject, each test as one of its own.
macro_rules! contract {
    ($subject:ty) => {
        $crate::engine::contract::contract!($subject:
            basics::{
                what_is_appended_is_there_in_order,
                a_request_is_stored_in_whole_or_not_at_all,
                an_event_whose_id_is_known_is_stored_once,
                ids_of_any_length_are_told_apart,
                streams_and_processes_share_their_names,
                what_is_not_there_is_said_to_be_missing,
                a_process_has_what_was_stored_before_and_after_it,
                a_process_is_filled_while_its_stream_takes_events,
                a_listener_is_told_what_was_committed,
                a_snapshot_stands_between_the_changes_before_and_after_it,
                a_process_that_others_read_stays,
                a_query_that_makes_no_sense_changes_nothing,
                queries_are_saved_under_their_names,
                parameters_keep_their_type,
                a_query_that_nobody_wants_ends,
                an_overview_tells_of_everything,
                all_of_it_survives_the_end,
                after_the_end_nothing_is_taken,
            },
            positions::{
                places_have_no_holes_over_duplicates_and_restarts,
                a_page_is_bounded_by_events_and_bytes,
                a_stream_that_is_deleted_starts_again_as_another,
                a_position_that_is_none_of_its_own_is_gone,
                a_listener_is_told_where_events_stand,
            },
            retention::{
                events_past_the_bound_go_but_not_what_was_made_of_them,
                what_was_counted_stays_when_a_key_has_values_of_another_type,
                events_past_the_size_go,
                an_id_is_known_for_as_long_as_its_event,
                a_reader_is_told_how_many_events_went_before_it_came,
                a_time_to_live_is_kept,
                rows_go_when_their_time_is_over,
                the_open_key_makes_so_many_streams,
                the_open_key_fills_the_storage_up_to_its_limit,
                what_is_added_is_counted_whoever_listens,
            },
            kinds::{
                changes_add_up_to_the_rows_at_every_commit,
                another_query_tells_the_difference_and_the_same_one_nothing,
                distinct_values_are_bounded_and_what_is_kept_stays_exact,
                groups_that_are_too_old_take_their_values_with_them,
            },
            processes::{
                which_way_a_process_runs_follows_from_its_query,
                others_are_computed_anew_when_what_they_read_has_changed,
                changes_are_one_for_each_row_and_transaction,
                no_process_comes_in_the_place_of_a_stream_that_another_reads,
                a_query_can_be_changed_but_not_into_a_circle,
                the_columns_of_a_star_grow_with_the_stream,
                two_columns_of_one_name_are_told_apart,
                a_process_that_makes_no_sense_any_more_harms_nobody,
                q5_a_result_that_has_become_old_says_so,
            },
            page::{
                every_line_of_the_page_is_true,
            },
            queries::{
                values_come_back_as_the_json_they_were,
                columns_are_the_keys_that_events_have_had,
                a_stream_that_nobody_has_written_to_is_empty,
                nested_values_are_reached_by_operators,
                joins_parts_and_subqueries_find_their_columns,
                a_part_of_the_query_hides_a_stream_of_its_name,
                results_may_be_named_like_keys,
                true_and_false_stay_what_they_are,
                thousands_of_keys_do_no_harm,
                windows_are_about_when_events_happened,
                parameters_stand_for_values,
                saved_queries_are_kept_by_name,
                columns_that_are_joined_by_name_come_once,
                a_condition_is_about_keys_and_not_about_results,
                parts_may_be_called_like_the_engines_own_tables,
                a_part_does_not_see_what_stands_beside_it,
                a_result_of_a_keys_name_hides_it_only_where_sql_lets_it,
                what_is_joined_by_name_comes_first_and_once,
                names_of_the_engine_mean_nothing_in_a_query,
                a_query_in_from_knows_nothing_of_its_neighbours,
                wildcards_are_spelled_out_however_they_are_written,
                keys_may_be_words_of_sql,
                results_and_relations_may_be_called_by_words_of_sql,
            },
            types::{
                q6_where_a_text_is_used_an_object_is_its_json,
                q9_numbers_and_texts_are_not_compared,
                q9_like_tells_letters_apart_and_ilike_does_not,
                q9_what_hands_on_a_truth_value_gives_one,
            },
            functions::{
                q7_functions_of_numbers,
                q7_medians_and_percentiles,
                q8_what_postgresql_writes_in_another_way,
                q8_what_cannot_be_had_is_refused_by_its_name,
            },
            names::{
                q5_the_names_of_a_process_mean_what_they_did_when_it_was_made,
                q5_a_process_that_is_made_before_its_events_learns_what_its_names_mean,
                streams_may_have_the_names_of_the_databases_own_tables,
            },
            times::{
                q1_what_is_compared_with_a_timestamp_is_a_time,
                q1_times_stay_times_in_parts_subqueries_and_results,
                q1_a_text_may_be_called_as_a_time_is_elsewhere,
                q1_processes_keep_times,
                q1_what_times_cannot_do_is_refused,
                times_may_stand_wherever_an_expression_may,
            },
        );
    };
    ($subject:ty: $($module:ident::{$($test:ident),+ $(,)?}),+ $(,)?) => {
        $($(
            #[test]
            fn $test() {
                if !<$subject as $crate::engine::contract::Subject>::is_there() {
                    return $crate::engine::contract::skipped(stringify!($test));
                }
                $crate::engine::contract::$module::$test::<$subject>();
            }
        )+)+
    };
}
pub(super) use contract;

/// Says that a test is skipped, past what the test harness captures.
pub(super) fn skipped(test: &str) {
    drop(writeln!(io::stderr(), "SKIPPED {test}: there is no database for it"));
}

/// How long to wait for what an engine does in the background.
const WAIT: Duration = Duration::from_secs(20);

/// An engine with somebody who listens.
struct Fixture<S: Subject> {
    engine: S::Engine,
    subscribers: Arc<Hub>,
    changes: Arc<Changes>,
    rates: Arc<Rates>,
    limits: Limits,
    place: tempfile::TempDir,
}

impl<S: Subject> Fixture<S> {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::at(tempfile::tempdir().unwrap(), limits)
    }

    fn at(place: tempfile::TempDir, limits: Limits) -> Self {
        let subscribers = Arc::new(Hub::new(1 << 20));
        let changes = Arc::new(Changes::default());
        let rates = Arc::new(Rates::default());
        let announcer = Announcer {
            subscribers: Arc::clone(&subscribers),
            rates: Arc::clone(&rates),
            changes: Arc::clone(&changes),
        };
        let engine = S::open_with(place.path(), &limits, Arc::new(announcer));
        Self { engine, subscribers, changes, rates, limits, place }
    }

    /// Ends the engine and opens what it kept.
    fn reopen(self) -> Self {
        let limits = self.limits;
        self.reopen_with(limits)
    }

    fn reopen_with(self, limits: Limits) -> Self {
        let Self { engine, place, .. } = self;
        engine.close();
        drop(engine);
        Self::at(place, limits)
    }

    fn append(&self, json: &Value) -> Commit {
        self.append_as(Author::Trusted, json)
    }

    fn append_as(&self, author: Author, json: &Value) -> Commit {
        let may_write = &|_: &str| true;
        let collector = Collector { engine: &self.engine, author, limit: 4 << 20, may_write };
        collector.map(&json.to_string()).unwrap()
    }

    fn try_collect(&self, json: &Value) -> Result<(), EngineError> {
        self.append(json).blocking_recv().unwrap()
    }

    fn collect(&self, json: &Value) {
        self.try_collect(json).unwrap();
    }

    /// Sends events to a stream, as they are written.
    fn send(&self, stream: &str, json: &str) {
        let may_write = &|_: &str| true;
        let (author, limit) = (Author::Trusted, 1 << 20);
        let collector = Collector { engine: &self.engine, author, limit, may_write };
        collector.one(stream, json).unwrap().blocking_recv().unwrap().unwrap();
    }

    /// The events that a stream still holds.
    fn events(&self, stream: &str) -> Vec<Value> {
        events(&self.engine, stream)
    }

    fn position(&self, stream: &str, start: Start<'_>) -> Position {
        self.engine.position(stream, start).unwrap()
    }

    /// The `n` of the events after a position, and where they end.
    fn after(&self, stream: &str, position: Position) -> (Vec<u64>, Position) {
        let page = self.engine.events_after(stream, position, PAGE).unwrap();
        assert_eq!(page.missing, 0);
        let events = page.events.iter().map(|event| serde_json::from_slice(event).unwrap());
        (events.map(|event: Value| event["n"].as_u64().unwrap()).collect(), page.end)
    }

    fn query(&self, sql: &str) -> Value {
        let rows = self.engine.query(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(rows.stale, Vec::<String>::new(), "{sql}");
        serde_json::from_slice(&rows.json).unwrap()
    }

    fn try_query(&self, sql: &str) -> Result<Value, EngineError> {
        let rows = self.engine.query(sql, &[])?;
        Ok(serde_json::from_slice(&rows.json).unwrap())
    }

    fn process(&self, name: &str, query: &str) -> Result<(), EngineError> {
        self.engine.create_process(name, &definition(query))
    }

    fn change(&self, name: &str, query: &str) -> Result<(), EngineError> {
        let change = Change { query: Some(query.to_owned()), ttl: None };
        self.engine.change_process(name, &change)
    }

    fn stats(&self, process: &str) -> ProcessStats {
        self.engine.process_stats(process).unwrap()
    }

    /// Somebody who is told what changes in a process from now on.
    fn subscribe(&self, process: &str) -> Subscriber {
        let subscriber = self.subscribers.subscribe(Source::Process, process, Want::Changes);
        // What was committed before is told before the snapshot is.
        self.engine.snapshot(process, 1 << 20, Box::new(|_| {})).unwrap();
        drop(received(&subscriber));
        subscriber
    }

    fn wait_until(&self, sql: &str, expected: &Value) {
        // It may be stale, or about to get other columns, meanwhile.
        let is_there = || self.try_query(sql).is_ok_and(|rows| rows == *expected);
        assert!(self.changes.wait_until(WAIT, is_there), "{sql}: {:?}", self.try_query(sql));
    }

    /// Waits for what is done in the background.
    fn until(&self, what: &str, is_done: impl Fn() -> bool) {
        assert!(self.changes.wait_until(WAIT, is_done), "{what}");
    }
}

/// What waits for a subscriber; `None` once its subscription has ended.
pub(super) fn received(subscriber: &Subscriber) -> Option<Vec<Value>> {
    let mut lines = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match subscriber.mailbox.poll_next(&mut context, Instant::now()) {
            Poll::Ready(Next::Send(run)) => {
                let text = std::str::from_utf8(&run).unwrap().split_terminator("\r\n");
                lines.extend(text.map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
            Poll::Ready(Next::End) if lines.is_empty() => return None,
            _ => return Some(lines),
        }
    }
}

/// Small enough to need many for what a test stores.
const PAGE: PageLimit = PageLimit { events: 3, bytes: 1 << 20 };

/// The events that a stream still holds.
pub(super) fn events(engine: &dyn Engine, stream: &str) -> Vec<Value> {
    let mut position = engine.position(stream, Start::Oldest).unwrap();
    let mut all = Vec::new();
    loop {
        let Page { events, missing, end } = engine.events_after(stream, position, PAGE).unwrap();
        assert_eq!((missing, end), (0, position.skip(events.ends.len() as u64)));
        if events.ends.is_empty() {
            return all;
        }
        all.extend(events.iter().map(|event| serde_json::from_slice::<Value>(event).unwrap()));
        position = end;
    }
}

fn definition(query: &str) -> Definition {
    Definition { query: query.to_owned(), ttl: None }
}

fn is_gone<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Gone(_)))
}

fn is_missing<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::NotFound(_)))
}

fn is_conflict<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Conflict(_)))
}

fn is_invalid<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Invalid(_)))
}
