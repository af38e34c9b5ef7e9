//! Positions, and the events after them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Fixture, PAGE, Subject, is_conflict, is_gone};
use crate::engine::position::Position;
use crate::engine::{Author, Engine as _, Listener, PageLimit, Start};
use crate::events::Collector;
use crate::events::ids::EventId;
use crate::subscribers::records::Records;

pub(in crate::engine) fn places_have_no_holes_over_duplicates_and_restarts<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(
        &json!({"s": [{"$id": "a", "n": 0}, {"$id": "a", "n": 9}, {"n": 1}], "t": {"n": 0}}),
    );
    it.collect(&json!({"s": [{"$id": "a", "n": 9}], "t": [{"n": 1}, {"n": 2}]}));
    it.collect(&json!({"s": [{"$id": "a", "n": 9}, {"$id": "b", "n": 2}, {"$id": "b", "n": 9}]}));
    let oldest = it.position("s", Start::Oldest);
    assert_eq!(it.position("s", Start::Newest), oldest.skip(3));
    assert_eq!(it.after("s", oldest.skip(1)), (vec![1, 2], oldest.skip(3)));
    assert_eq!(it.after("s", oldest.skip(3)), (vec![], oldest.skip(3)));
    // A refused request takes no place.
    it.process("p", "SELECT count(*) AS n FROM t").unwrap();
    assert!(is_conflict(&it.try_collect(&json!({"s": {"n": 9}, "p": {"n": 9}}))));

    let token = oldest.skip(2).to_string();
    let it = it.reopen();
    it.collect(&json!({"s": [{"$id": "b", "n": 9}, {"n": 3}, {"$id": "c", "n": 4}]}));
    assert_eq!(it.after("s", token.parse().unwrap()), (vec![2, 3, 4], oldest.skip(5)));
    let ids: Vec<Value> = it.events("s").into_iter().map(|event| event["$id"].clone()).collect();
    for (place, id) in (1..).zip(ids) {
        let id = EventId::Text(id.as_str().unwrap().into());
        assert_eq!(it.position("s", Start::After(&id)), oldest.skip(place));
    }
    let none = EventId::Text("none".into());
    assert!(is_gone(&it.engine.position("s", Start::After(&none))));
    assert!(is_gone(&it.engine.position("nobody", Start::After(&none))));
}

pub(in crate::engine) fn a_page_is_bounded_by_events_and_bytes<S: Subject>() {
    let it = Fixture::<S>::new();
    let text = "x".repeat(1000);
    let all: Vec<Value> = (0..10).map(|n| json!({"n": n, "text": text})).collect();
    it.collect(&json!({"s": all}));
    let oldest = it.position("s", Start::Oldest);
    let page = |position, events, bytes| {
        let page = it.engine.events_after("s", position, PageLimit { events, bytes }).unwrap();
        assert_eq!(page.end, position.skip(page.events.ends.len() as u64));
        page.events.ends.len()
    };
    assert_eq!(page(oldest, 4, 1 << 20), 4);
    assert_eq!(page(oldest, 100, 1 << 20), 10);
    assert_eq!(page(oldest.skip(8), 4, 1 << 20), 2);
    assert_eq!(page(oldest, 100, 3500), 3);
    assert_eq!(page(oldest, 100, 1), 1, "or there would be no end");
}

pub(in crate::engine) fn a_stream_that_is_deleted_starts_again_as_another<S: Subject>() {
    let it = Fixture::<S>::new();
    let before = it.position("s", Start::Newest);
    assert_eq!((before.place, before), (0, it.position("s", Start::Oldest)));
    assert_eq!(it.after("s", before), (vec![], before), "there is none yet");
    it.collect(&json!({"other": {"n": 0}, "s": [{"n": 0}, {"n": 1}]}));
    // From before the stream came into being, one may read on.
    let (events, end) = it.after("s", before);
    assert_eq!(events, [0, 1]);
    assert_eq!(it.after("s", before.skip(1)), (vec![1], end));

    it.engine.delete_stream("s").unwrap();
    let reads = |position| it.engine.events_after("s", position, PAGE);
    for position in [end, before.skip(1), before] {
        assert!(is_gone(&reads(position)), "{position}");
    }
    let between = it.position("s", Start::Newest);
    it.collect(&json!({"s": [{"n": 2}, {"n": 3}]}));
    for position in [end, before.skip(1), before] {
        assert!(is_gone(&reads(position)), "{position}");
    }
    let (events, end) = it.after("s", between);
    assert_eq!((events, end), (vec![2, 3], it.position("s", Start::Newest)));
    assert_ne!(end.stream, before.stream);
    let it = it.reopen();
    assert!(is_gone(&it.engine.events_after("s", before, PAGE)));
    assert_eq!(it.after("s", between), (vec![2, 3], end));
}

pub(in crate::engine) fn a_position_that_is_none_of_its_own_is_gone<S: Subject>() {
    let (it, other) = (Fixture::<S>::new(), Fixture::<S>::new());
    for it in [&it, &other] {
        it.collect(&json!({"s": [{"n": 0}, {"n": 1}], "t": [{"n": 2}, {"n": 3}]}));
    }
    let newest = it.position("s", Start::Newest);
    for (stream, position) in [
        ("s", newest.skip(1)),
        ("s", newest.skip(u64::MAX)),
        ("s", other.position("s", Start::Newest)),
        ("s", it.position("t", Start::Newest)),
        ("nobody", newest),
        ("nobody", it.position("nobody", Start::Newest).skip(1)),
    ] {
        let page = it.engine.events_after(stream, position, PAGE);
        assert!(is_gone(&page), "{stream}, {position}: {page:?}");
    }
    assert_eq!(it.after("s", newest), (vec![], newest));
}

/// Keeps what it was told of streams: after what events came, and how many.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<(String, Position, usize)>>);

impl Listener for Recorder {
    fn added(&self, _: &str, _: u64) {}

    fn stored(&self, stream: &str, position: Position, events: &Records) {
        self.0.lock().unwrap().push((stream.to_owned(), position, events.ends.len()));
    }

    fn wants_changes(&self, _: &str) -> bool {
        false
    }

    fn changed(&self, _: &str, _: &Records) {}

    fn changed_unseen(&self, _: &str) {}

    fn process_deleted(&self, _: &str) {}

    fn progressed(&self) {}
}

pub(in crate::engine) fn a_listener_is_told_where_events_stand<S: Subject>() {
    let (place, recorder) = (tempfile::tempdir().unwrap(), Arc::new(Recorder::default()));
    let engine = S::open(place.path(), Arc::clone(&recorder) as Arc<dyn Listener>);
    let collect = |events: Value| {
        let may_write = &|_: &str| true;
        let collector =
            Collector { engine: &engine, author: Author::Trusted, limit: 1 << 20, may_write };
        collector.map(&events.to_string()).unwrap().blocking_recv().unwrap().unwrap();
    };
    collect(json!({"s": [{"$id": "a"}, {"$id": "a"}, {}], "t": {}}));
    collect(json!({"s": [{"$id": "a"}]}));
    collect(json!({"s": [{}, {"$id": "a"}, {}]}));
    let [s, t] = ["s", "t"].map(|stream| engine.position(stream, Start::Oldest).unwrap());
    // That they were committed is told by another thread.
    engine.close();
    let told = recorder.0.lock().unwrap().clone();
    // In how many pieces is not said, nor in what order between streams.
    for (stream, start, count) in [("s", s, 4), ("t", t, 1)] {
        let mut at = start;
        for (_, position, events) in told.iter().filter(|(name, ..)| name == stream) {
            assert_eq!(*position, at, "{told:?}");
            at = at.skip(*events as u64);
        }
        assert_eq!(at, start.skip(count), "{told:?}");
    }
}
