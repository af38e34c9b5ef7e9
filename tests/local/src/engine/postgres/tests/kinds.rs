//! Each kind of query that keeps up with every event has the rows that its query gives, whichever of several servers takes
//! the events, and each server tells its subscribers of all of them.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::{Server, WAIT};
use super::{database, is_there};
pub(super) use crate::engine::contract::kinds::Folded;
use crate::engine::contract::kinds::{KINDS, batch, sorted};
use crate::engine::contract::skipped;
use crate::engine::{Engine as _, Mode};
use crate::settings::Limits;
use crate::subscribers::hub::Source;
use crate::subscribers::mailbox::Want;

impl Folded {
    /// What a server tells of a process that it has told nothing of yet.
    pub(super) fn of(server: &Server, process: &str) -> Self {
        let subscriber = server.subscribers.subscribe(Source::Process, process, Want::Changes);
        Self::new(subscriber, Vec::new())
    }

    /// Waits until what was told adds up to the rows of a query.
    pub(super) fn adds_up_to(&self, server: &Server, query: &str) {
        let expected = rows(server, query);
        let is_told = || self.fold() == expected;
        let has_been = server.changes.wait_until(WAIT, is_told);
        assert!(has_been, "{query}: {:?}, {expected:?}", self.fold());
    }
}

pub(super) fn rows(server: &Server, sql: &str) -> Vec<String> {
    sorted(&server.query(sql))
}

pub(super) fn collect(server: &Server, json: &Value) {
    server.append(json).blocking_recv().unwrap().unwrap();
}

#[test]
fn processes_of_every_kind_are_their_queries_whichever_server_takes_the_events() {
    if !is_there() {
        return skipped(
            "processes_of_every_kind_are_their_queries_whichever_server_takes_the_events",
        );
    }
    let place = TempDir::new().unwrap();
    let url = database(place.path());
    let limits = Limits::default();
    let servers = [(); 2].map(|()| Server::start_with(&url, None, &limits));
    let mut random = fastrand::Rng::with_seed(19);
    collect(&servers[0], &json!({"s": {"a": 1, "n": 1, "$timestamp": "2015-05-05T23:40:00Z"}}));
    let mut all = Vec::new();
    for (number, query) in KINDS.iter().enumerate() {
        let name = format!("p{number}");
        let told = servers.each_ref().map(|server| Folded::of(server, &name));
        servers[number % 2].process(&name, query);
        let stats = servers[0].engine.process_stats(&name).unwrap();
        assert_eq!((stats.mode, stats.why), (Mode::Incremental, None), "{query}");
        if number == 2 {
            // Of no events at all, it has a row already.
            for told in &told {
                told.rows.replace(vec![r#"{"d":0,"f":0}"#.to_owned()]);
            }
        }
        for (server, told) in servers.iter().zip(&told) {
            told.adds_up_to(server, &format!("SELECT * FROM {name}"));
        }
        all.push((name, *query, told));
    }
    for _ in 0..10 {
        let mut commits = Vec::new();
        for round in 0..6 {
            commits.push(servers[round % 2].append(&batch(&mut random)));
        }
        for commit in commits {
            commit.blocking_recv().unwrap().unwrap();
        }
        for (name, query, told) in &all {
            let kept = format!("SELECT * FROM {name}");
            assert_eq!(rows(&servers[1], &kept), rows(&servers[0], query), "{query}");
            for (server, told) in servers.iter().zip(told) {
                told.adds_up_to(server, &kept);
            }
            let stats = servers[0].engine.process_stats(name).unwrap();
            assert_eq!((stats.skipped, stats.stale, stats.last_error), (0, false, None), "{query}");
        }
    }
    // Plain rows go with their events; what was counted stays.
    let counted = rows(&servers[0], "SELECT * FROM p2");
    servers[0].engine.delete_stream("s").unwrap();
    assert_eq!(rows(&servers[1], "SELECT * FROM p0"), Vec::<String>::new());
    all[0].2[1].adds_up_to(&servers[1], "SELECT * FROM p0");
    assert_eq!(rows(&servers[1], "SELECT * FROM p2"), counted);
}
