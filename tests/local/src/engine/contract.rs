//! What every engine has to do, whatever its database is: a suite that is generic over [`Engine`].
//!
//! It asks nothing of the SQL but what PostgreSQL and SQLite share, and takes no time as given: what is
//! computed in the background is waited for.

#[cfg(feature = "postgres")]
mod differential;
mod functions;
pub(super) mod kinds;
mod names;
mod page;
mod positions;
mod processes;
mod queries;
mod retention;
mod times;
mod types;

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[cfg(feature = "postgres")]
pub(super) use self::differential::queries_mean_the_same;
pub(super) use self::functions::{
    q7_functions_of_numbers, q7_medians_and_percentiles,
    q8_what_cannot_be_had_is_refused_by_its_name, q8_what_postgresql_writes_in_another_way,
};
pub(super) use self::kinds::{
    another_query_tells_the_difference_and_the_same_one_nothing,
    changes_add_up_to_the_rows_at_every_commit,
    distinct_values_are_bounded_and_what_is_kept_stays_exact,
    groups_that_are_too_old_take_their_values_with_them,
};
pub(super) use self::names::{
    q5_a_process_that_is_made_before_its_events_learns_what_its_names_mean,
    q5_the_names_of_a_process_mean_what_they_did_when_it_was_made,
    streams_may_have_the_names_of_the_databases_own_tables,
};
pub(super) use self::page::every_line_of_the_page_is_true;
#[cfg(feature = "postgres")]
pub(super) use self::page::functions_of_one_engine_are_in_the_page;
pub(super) use self::positions::{
    a_listener_is_told_where_events_stand, a_page_is_bounded_by_events_and_bytes,
    a_position_that_is_none_of_its_own_is_gone, a_stream_that_is_deleted_starts_again_as_another,
    places_have_no_holes_over_duplicates_and_restarts,
};
pub(super) use self::processes::{
    a_process_that_makes_no_sense_any_more_harms_nobody,
    a_query_can_be_changed_but_not_into_a_circle, changes_are_one_for_each_row_and_transaction,
    no_process_comes_in_the_place_of_a_stream_that_another_reads,
    others_are_computed_anew_when_what_they_read_has_changed,
    q5_a_result_that_has_become_old_says_so, the_columns_of_a_star_grow_with_the_stream,
    two_columns_of_one_name_are_told_apart, which_way_a_process_runs_follows_from_its_query,
};
pub(super) use self::queries::{
    a_condition_is_about_keys_and_not_about_results, a_part_does_not_see_what_stands_beside_it,
    a_part_of_the_query_hides_a_stream_of_its_name,
    a_query_in_from_knows_nothing_of_its_neighbours,
    a_result_of_a_keys_name_hides_it_only_where_sql_lets_it,
    a_stream_that_nobody_has_written_to_is_empty, columns_are_the_keys_that_events_have_had,
    columns_that_are_joined_by_name_come_once, joins_parts_and_subqueries_find_their_columns,
    keys_may_be_words_of_sql, names_of_the_engine_mean_nothing_in_a_query,
    nested_values_are_reached_by_operators, parameters_stand_for_values,
    parts_may_be_called_like_the_engines_own_tables,
    results_and_relations_may_be_called_by_words_of_sql, results_may_be_named_like_keys,
    saved_queries_are_kept_by_name, thousands_of_keys_do_no_harm,
    true_and_false_stay_what_they_are, values_come_back_as_the_json_they_were,
    what_is_joined_by_name_comes_first_and_once,
    wildcards_are_spelled_out_however_they_are_written, windows_are_about_when_events_happened,
};
pub(super) use self::retention::{
    a_reader_is_told_how_many_events_went_before_it_came, a_time_to_live_is_kept,
    an_id_is_known_for_as_long_as_its_event,
    events_past_the_bound_go_but_not_what_was_made_of_them, events_past_the_size_go,
    rows_go_when_their_time_is_over, the_open_key_fills_the_storage_up_to_its_limit,
    the_open_key_makes_so_many_streams, what_is_added_is_counted_whoever_listens,
    what_was_counted_stays_when_a_key_has_values_of_another_type,
};
pub(super) use self::times::{
    q1_a_text_may_be_called_as_a_time_is_elsewhere, q1_processes_keep_times,
    q1_times_stay_times_in_parts_subqueries_and_results,
    q1_what_is_compared_with_a_timestamp_is_a_time, q1_what_times_cannot_do_is_refused,
    times_may_stand_wherever_an_expression_may,
};
pub(super) use self::types::{
    q6_where_a_text_is_used_an_object_is_its_json, q9_like_tells_letters_apart_and_ilike_does_not,
    q9_numbers_and_texts_are_not_compared, q9_what_hands_on_a_truth_value_gives_one,
};
use super::position::Position;
use super::{
    Author, Change, Commit, Definition, Engine, EngineError, Listener, Page, PageLimit,
    ProcessStats, Start, Wanted,
};
use crate::changes::Changes;
use crate::events::Collector;
use crate::events::ids::EventId;
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
            places_have_no_holes_over_duplicates_and_restarts,
            a_page_is_bounded_by_events_and_bytes,
            a_stream_that_is_deleted_starts_again_as_another,
            a_position_that_is_none_of_its_own_is_gone,
            a_listener_is_told_where_events_stand,
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
            changes_add_up_to_the_rows_at_every_commit,
            another_query_tells_the_difference_and_the_same_one_nothing,
            distinct_values_are_bounded_and_what_is_kept_stays_exact,
            groups_that_are_too_old_take_their_values_with_them,
            which_way_a_process_runs_follows_from_its_query,
            others_are_computed_anew_when_what_they_read_has_changed,
            changes_are_one_for_each_row_and_transaction,
            no_process_comes_in_the_place_of_a_stream_that_another_reads,
            a_query_can_be_changed_but_not_into_a_circle,
            the_columns_of_a_star_grow_with_the_stream,
            two_columns_of_one_name_are_told_apart,
            a_process_that_makes_no_sense_any_more_harms_nobody,
            q5_a_result_that_has_become_old_says_so,
            every_line_of_the_page_is_true,
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
            q6_where_a_text_is_used_an_object_is_its_json,
            q9_numbers_and_texts_are_not_compared,
            q9_like_tells_letters_apart_and_ilike_does_not,
            q9_what_hands_on_a_truth_value_gives_one,
            q7_functions_of_numbers,
            q7_medians_and_percentiles,
            q8_what_postgresql_writes_in_another_way,
            q8_what_cannot_be_had_is_refused_by_its_name,
            q5_the_names_of_a_process_mean_what_they_did_when_it_was_made,
            q5_a_process_that_is_made_before_its_events_learns_what_its_names_mean,
            streams_may_have_the_names_of_the_databases_own_tables,
            q1_what_is_compared_with_a_timestamp_is_a_time,
            q1_times_stay_times_in_parts_subqueries_and_results,
            q1_a_text_may_be_called_as_a_time_is_elsewhere,
            q1_processes_keep_times,
            q1_what_times_cannot_do_is_refused,
            times_may_stand_wherever_an_expression_may,
            all_of_it_survives_the_end,
            after_the_end_nothing_is_taken,
        );
    };
    ($subject:ty: $($test:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                if !<$subject as $crate::engine::contract::Subject>::is_there() {
                    return $crate::engine::contract::skipped(stringify!($test));
                }
                $crate::engine::contract::$test::<$subject>();
            }
        )*
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

pub(super) fn what_is_appended_is_there_in_order<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"b": [{"n": 1}, {"n": 2}], "a": {"n": 9}}));
    it.collect(&json!({"b": {"n": 3}}));
    assert_eq!(it.engine.streams().unwrap(), ["a", "b"]);
    let events = it.events("b");
    let numbers: Vec<&Value> = events.iter().map(|event| &event["n"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(events.iter().all(|event| event["$id"].is_string() && event["$timestamp"].is_string()));
    let summary = it.engine.stream("b").unwrap();
    assert_eq!(summary.count, 3);
    assert!(summary.first_seen <= summary.last_seen);
    assert_eq!(it.query("SELECT n FROM b ORDER BY n DESC"), json!([{"n": 3}, {"n": 2}, {"n": 1}]));
    assert_eq!(it.query("SELECT n FROM nobody"), json!([]));
    it.engine.delete_stream("b").unwrap();
    assert_eq!(it.engine.streams().unwrap(), ["a"]);
    assert_eq!(it.query("SELECT count(*) AS n FROM b"), json!([{"n": 0}]));
    it.engine.health().unwrap();
    assert_eq!(it.engine.counters().events, 4);
}

pub(super) fn a_request_is_stored_in_whole_or_not_at_all<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    let refused = it.try_collect(&json!({"other": {"n": 1}, "p": {"n": 1}, "s": {"n": 1}}));
    assert!(is_conflict(&refused));
    assert_eq!(it.engine.streams().unwrap(), Vec::<String>::new());
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 0}]));
    it.collect(&json!({"s": {"n": 1}}));
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 1}]));
}

pub(super) fn an_event_whose_id_is_known_is_stored_once<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    let events = json!({"s": [{"$id": "a"}, {"$id": 5}, {"$id": "a"}, {"$id": "5"}]});
    it.collect(&events);
    it.collect(&events);
    let it = it.reopen();
    it.collect(&events);
    assert_eq!(it.engine.stream("s").unwrap().count, 3);
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 3}]));
    // Another stream has ids of its own.
    it.collect(&json!({"t": {"$id": "a"}}));
    assert_eq!(it.engine.stream("t").unwrap().count, 1);
}

pub(super) fn ids_of_any_length_are_told_apart<S: Subject>() {
    let it = Fixture::<S>::new();
    let ids: Vec<String> = [1, 32, 254, 255, 256, 257, 2704, 10_000]
        .iter()
        .flat_map(|length| ["a", "b"].map(|last| "x".repeat(length - 1) + last))
        .collect();
    let all: Vec<Value> = ids.iter().map(|id| json!({"$id": id})).collect();
    (0..2).for_each(|_| it.collect(&json!({"s": all})));
    assert_eq!(it.engine.stream("s").unwrap().count, ids.len() as u64);
    for (place, id) in (1..).zip(&ids) {
        let id = EventId::Text(id.as_str().into());
        assert_eq!(it.position("s", Start::After(&id)).place, place);
    }
}

pub(super) fn streams_and_processes_share_their_names<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {}}));
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    assert!(is_conflict(&it.process("s", "SELECT count(*) AS n FROM t")));
    assert!(is_conflict(&it.process("p", "SELECT count(*) AS n FROM t")));
    assert!(is_conflict(&it.try_collect(&json!({"p": {}}))));
}

pub(super) fn what_is_not_there_is_said_to_be_missing<S: Subject>() {
    let it = Fixture::<S>::new();
    assert!(is_missing(&it.engine.stream("x")));
    assert!(is_missing(&it.engine.delete_stream("x")));
    assert!(is_missing(&it.engine.process("x")));
    assert!(is_missing(&it.engine.process_stats("x")));
    assert!(is_missing(&it.engine.change_process("x", &Change::default())));
    assert!(is_missing(&it.engine.delete_process("x")));
    assert!(is_missing(&it.engine.saved_query("x")));
    assert!(is_missing(&it.engine.delete_query("x")));
    assert_eq!(it.events("x"), Vec::<Value>::new());
    assert_eq!(it.engine.processes().unwrap(), Vec::<String>::new());
}

pub(super) fn a_process_has_what_was_stored_before_and_after_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"k": "a", "x": 1}, {"k": "b", "x": 2}]}));
    let groups = "SELECT k, count(*) AS n, sum(x) AS sum FROM s GROUP BY k";
    it.process("groups", groups).unwrap();
    it.process("kinds", "SELECT count(DISTINCT k) AS n FROM s").unwrap();
    it.process("of", "SELECT max(n) AS most FROM groups").unwrap();
    it.collect(&json!({"s": [{"k": "a", "x": 3}, {"k": "c", "x": 0.5}]}));
    let rows = json!([{"k": "a", "n": 2, "sum": 4}, {"k": "b", "n": 1, "sum": 2}, {"k": "c", "n": 1, "sum": 0.5}]);
    it.wait_until("SELECT * FROM groups ORDER BY k", &rows);
    assert_eq!(it.query(&format!("{groups} ORDER BY k")), rows);
    it.wait_until("SELECT n FROM kinds", &json!([{"n": 3}]));
    it.wait_until("SELECT most FROM of", &json!([{"most": 2}]));
    assert_eq!(it.engine.processes().unwrap(), ["groups", "kinds", "of"]);
    let stats = it.engine.process_stats("groups").unwrap();
    assert_eq!((stats.rows, stats.skipped, stats.stale), (3, 0, false), "{:?}", stats.last_error);

    let query = Some("SELECT k, min(x) AS n FROM s GROUP BY k".to_owned());
    it.engine.change_process("groups", &Change { query, ttl: None }).unwrap();
    let least = json!([{"k": "a", "n": 1}, {"k": "b", "n": 2}, {"k": "c", "n": 0.5}]);
    it.wait_until("SELECT * FROM groups ORDER BY k", &least);
}

pub(super) fn a_process_is_filled_while_its_stream_takes_events<S: Subject>() {
    let it = Fixture::<S>::new();
    let events = |n: usize| json!({"s": (0..n).map(|n| json!({"k": n % 9})).collect::<Vec<_>>()});
    it.collect(&events(2500));
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                it.collect(&events(10));
            }
        });
        it.process("p", "SELECT k FROM s").unwrap();
        // It is whole by then, and so is what another query makes of it.
        assert_eq!(it.engine.process_stats("p").unwrap().filling, None);
        let changed =
            it.engine.change_process("p", &Change { query: Some(query.to_owned()), ttl: None });
        assert_eq!(it.engine.process_stats("p").unwrap().filling, None);
        it.process("q", "SELECT count(*) AS n FROM s").unwrap();
        it.engine.delete_process("q").unwrap();
        done.store(true, Ordering::Relaxed);
        adding.join().unwrap();
        changed.unwrap();
    });
    assert_eq!(it.engine.processes().unwrap(), ["p"]);
    let rows = it.query(&format!("{query} ORDER BY k"));
    assert_eq!(it.query("SELECT * FROM p ORDER BY k"), rows);
    it.collect(&events(1));
    let count = it.query("SELECT count(*) AS n FROM s");
    assert_eq!(it.query("SELECT sum(n) AS n FROM p"), count);
}

pub(super) fn a_listener_is_told_what_was_committed<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    let stream = it.subscribers.subscribe(Source::Stream, "s", Want::Changes);
    let changes = it.subscribers.subscribe(Source::Process, "p", Want::Changes);
    it.collect(&json!({"s": [{"k": "a"}, {"k": "a"}]}));
    it.collect(&json!({"s": {"k": "a"}}));
    let (events, rows) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let all = || {
        events.borrow_mut().extend(received(&stream).unwrap_or_default());
        rows.borrow_mut().extend(received(&changes).unwrap_or_default());
        (events.borrow().len(), rows.borrow().len()) == (3, 2)
    };
    assert!(it.changes.wait_until(WAIT, all), "{events:?}, {rows:?}");
    assert!(events.borrow().iter().all(|event| event["k"] == "a"));
    assert_eq!(
        rows.into_inner(),
        [
            json!({"old": null, "new": {"k": "a", "n": 2}}),
            json!({"old": {"k": "a", "n": 2}, "new": {"k": "a", "n": 3}}),
        ]
    );
    it.engine.delete_process("p").unwrap();
    assert!(it.changes.wait_until(WAIT, || received(&changes).is_none()), "its subscription ends");
}

pub(super) fn a_snapshot_stands_between_the_changes_before_and_after_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}, {"k": "a"}]}));
    it.wait_until("SELECT count(*) AS n FROM p", &json!([{"n": 2}]));
    let subscriber = it.subscribers.subscribe(Source::Process, "p", Want::Snapshot);
    let take = |most| {
        let mailbox = Arc::clone(&subscriber.mailbox);
        it.engine.snapshot("p", most, Box::new(move |rows| mailbox.begin(rows)))
    };
    assert!(is_invalid(&take(10)), "the rows take more than that");
    take(1000).unwrap();
    it.collect(&json!({"s": {"k": "b"}}));
    let changes = RefCell::new(Vec::new());
    let all = || {
        changes.borrow_mut().extend(received(&subscriber).unwrap_or_default());
        changes.borrow().len() == 3
    };
    assert!(it.changes.wait_until(WAIT, all), "{changes:?}");
    let mut changes = changes.into_inner();
    let last = changes.pop();
    changes.sort_by_key(ToString::to_string);
    let rows = [("a", 2), ("b", 1)].map(|(k, n)| json!({"old": null, "new": {"k": k, "n": n}}));
    assert_eq!(changes, rows);
    let expected = json!({"old": {"k": "b", "n": 1}, "new": {"k": "b", "n": 2}});
    assert_eq!(last, Some(expected));
    let nothing = it.engine.snapshot("nothing", 1000, Box::new(|_| panic!("there is none")));
    assert!(matches!(nothing, Err(EngineError::NotFound(_))));
}

pub(super) fn a_process_that_others_read_stays<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("a", "SELECT count(*) AS n FROM s").unwrap();
    it.process("b", "SELECT max(n) AS n FROM a").unwrap();
    assert!(is_conflict(&it.engine.delete_process("a")));
    let query = Some("SELECT max(n) AS n FROM b".to_owned());
    let change = Change { query, ttl: None };
    assert!(is_invalid(&it.engine.change_process("a", &change)), "it would read itself");
    it.engine.delete_process("b").unwrap();
    it.engine.delete_process("a").unwrap();
    assert_eq!(it.engine.processes().unwrap(), Vec::<String>::new());
}

pub(super) fn a_query_that_makes_no_sense_changes_nothing<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": {"x": 1}}));
    it.process("p", "SELECT count(*) AS n FROM s").unwrap();
    for query in [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "DELETE FROM s",
        "SELECT no_such_function(x) FROM s",
        "SELECT count(*) AS n FROM p, q WHERE",
    ] {
        assert!(is_invalid(&it.engine.query(query, &[])), "{query}");
        assert!(is_invalid(&it.process("bad", query)), "{query}");
        assert!(is_invalid(&it.engine.save_query("bad", query)), "{query}");
        let change = Change { query: Some(query.to_owned()), ttl: None };
        assert!(is_invalid(&it.engine.change_process("p", &change)), "{query}");
    }
    it.collect(&json!({"s": {"x": 1}}));
    assert_eq!(it.query("SELECT n FROM p"), json!([{"n": 2}]));
    assert_eq!(it.engine.saved_queries().unwrap(), Vec::<String>::new());
}

pub(super) fn queries_are_saved_under_their_names<S: Subject>() {
    let it = Fixture::<S>::new();
    it.engine.save_query("b", "SELECT x FROM s").unwrap();
    it.engine.save_query("a", "SELECT x FROM s WHERE x > :least").unwrap();
    it.engine.save_query("b", "SELECT x + 1 AS x FROM s").unwrap();
    assert_eq!(it.engine.saved_queries().unwrap(), ["a", "b"]);
    assert_eq!(it.engine.saved_query("b").unwrap(), "SELECT x + 1 AS x FROM s");
    it.engine.delete_query("b").unwrap();
    assert_eq!(it.engine.saved_queries().unwrap(), ["a"]);
}

pub(super) fn parameters_keep_their_type<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&json!({"s": [{"k": "1", "x": 1}, {"k": "2", "x": 2.5}]}));
    let ask = |sql: &str, value: Value| {
        let rows = it.engine.query(sql, &[("v".to_owned(), value)]).unwrap();
        serde_json::from_slice::<Value>(&rows.json).unwrap()
    };
    assert_eq!(ask("SELECT x FROM s WHERE k = :v", json!("1")), json!([{"x": 1}]));
    assert_eq!(ask("SELECT k FROM s WHERE x > :v", json!(2)), json!([{"k": "2"}]));
    assert_eq!(ask("SELECT k FROM s WHERE x = :v", json!(2.5)), json!([{"k": "2"}]));
    assert!(is_invalid(&it.engine.query("SELECT k FROM s WHERE x = :v", &[])));
}

pub(super) fn a_query_that_nobody_wants_ends<S: Subject>() {
    let it = Fixture::<S>::new();
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";
    let wanted = Wanted::default();
    std::thread::scope(|scope| {
        let query = scope.spawn(|| it.engine.query_while(endless, &[], &wanted));
        while it.engine.counters().running_queries == 0 && !query.is_finished() {
            std::thread::yield_now();
        }
        wanted.give_up();
        assert_eq!(query.join().unwrap().unwrap_err(), EngineError::unwanted());
    });
    let early = it.engine.query_while(endless, &[], &wanted);
    assert_eq!(early.unwrap_err(), EngineError::unwanted());
    assert_eq!(it.query("SELECT 1 AS x"), json!([{"x": 1}]), "the next one is not affected");
}

pub(super) fn an_overview_tells_of_everything<S: Subject>() {
    let it = Fixture::<S>::new();
    let empty = it.engine.overview().unwrap();
    assert!(empty.streams.is_empty() && empty.processes.is_empty(), "{empty:?}");
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}], "r": {}}));
    let query = "SELECT k, count(*) AS n FROM s GROUP BY k";
    it.process("p", query).unwrap();
    let all = it.engine.overview().unwrap();
    let counts: Vec<_> = all.streams.iter().map(|(name, it)| (name.as_str(), it.count)).collect();
    assert_eq!(counts, [("r", 1), ("s", 2)]);
    assert_eq!(all.streams[1].1.last_seen, it.engine.stream("s").unwrap().last_seen);
    let [(name, definition, stats)] = &all.processes[..] else { panic!("{all:?}") };
    assert_eq!((name.as_str(), definition.query.as_str(), stats.rows), ("p", query, 2));
    assert!(all.kept && all.bytes > 0, "{all:?}");
}

pub(super) fn all_of_it_survives_the_end<S: Subject>() {
    let it = Fixture::<S>::new();
    it.process("p", "SELECT k, count(*) AS n FROM s GROUP BY k").unwrap();
    it.process("q", "SELECT count(DISTINCT k) AS n FROM s").unwrap();
    it.engine.save_query("a", "SELECT x FROM s").unwrap();
    it.collect(&json!({"s": [{"k": "a"}, {"k": "b"}]}));
    let it = it.reopen();
    assert_eq!(it.engine.stream("s").unwrap().count, 2);
    assert_eq!(it.engine.processes().unwrap(), ["p", "q"]);
    assert_eq!(it.engine.saved_queries().unwrap(), ["a"]);
    it.collect(&json!({"s": {"k": "a"}}));
    it.wait_until("SELECT n FROM p ORDER BY k", &json!([{"n": 2}, {"n": 1}]));
    it.wait_until("SELECT n FROM q", &json!([{"n": 2}]));
}

pub(super) fn after_the_end_nothing_is_taken<S: Subject>() {
    let it = Fixture::<S>::new();
    let last = it.append(&json!({"s": {}}));
    it.engine.close();
    assert_eq!(last.blocking_recv().unwrap(), Ok(()), "what was appended before is committed");
    let late = it.append(&json!({"s": {}})).blocking_recv().unwrap();
    assert!(matches!(late, Err(EngineError::Unavailable(_))), "{late:?}");
    assert!(matches!(it.engine.streams(), Err(EngineError::Unavailable(_))));
    let it = it.reopen();
    assert_eq!(it.engine.stream("s").unwrap().count, 1);
}
