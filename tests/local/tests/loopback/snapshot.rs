//! Subscriptions to processes that begin with all rows.

use std::collections::HashMap;

use serde_json::{Value, json};
use stride_local::Local;

use crate::http::{Connection, Subscription, get, post, request, subscribe_at};

const PAGES: &str = "SELECT page, count(*) AS views FROM clicks GROUP BY page";

/// The same, run again each time.
const LIST: &str = "SELECT page, count(*) AS views FROM clicks GROUP BY page HAVING count(*) > 0";

fn create(local: &Local, name: &str, query: &str) {
    let process = json!({"query": query, "action": "MATERIALIZE"}).to_string();
    assert_eq!(post(local, &format!("/v1/process/{name}"), &process).status, 201);
}

fn click(local: &Local, pages: &[&str]) {
    let events: Vec<Value> = pages.iter().map(|page| json!({ "page": page })).collect();
    post(local, "/v1/collect/clicks", &json!(events).to_string()).assert_stored();
}

fn snapshot(local: &Local, process: &str) -> Subscription {
    let path = format!("/v1/process/{process}/subscribe?snapshot=1");
    subscribe_at(local.addr(), local.secret_key(), &path)
}

fn rows(subscription: &Subscription) -> u64 {
    subscription.headers["stride-snapshot"].parse().unwrap()
}

/// What somebody knows who applies every change.
#[derive(Default)]
struct Mirror(HashMap<String, Value>);

impl Mirror {
    /// Takes a change, whose old row has to be the one that is known.
    fn apply(&mut self, change: &Value) {
        let row = if change["new"].is_null() { &change["old"] } else { &change["new"] };
        let page = row["page"].as_str().unwrap().to_owned();
        let known = self.0.get(&page).unwrap_or(&Value::Null);
        assert_eq!(&change["old"], known, "{change} came");
        match &change["new"] {
            Value::Null => self.0.remove(&page),
            new => self.0.insert(page, new.clone()),
        };
    }

    fn views(&self) -> u64 {
        self.0.values().map(|row| row["views"].as_u64().unwrap()).sum()
    }
}

#[test]
fn all_rows_come_and_then_what_changes() {
    let local = Local::start().unwrap();
    create(&local, "pages", PAGES);
    let mut early = snapshot(&local, "pages");
    assert_eq!(rows(&early), 0);
    click(&local, &["/", "/a", "/"]);
    let mut late = snapshot(&local, "pages");
    assert_eq!(rows(&late), 2);
    click(&local, &["/b", "/"]);
    for subscription in [&mut early, &mut late] {
        let mut mirror = Mirror::default();
        while mirror.views() < 5 {
            mirror.apply(&subscription.event().unwrap());
        }
        assert_eq!(mirror.0["/"], json!({"page": "/", "views": 3}));
    }
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let local = Local::start().unwrap();
    create(&local, "pages", PAGES);
    for (path, status) in [
        ("pages/subscribe?snapshot=1&sample=5", 400),
        ("pages/subscribe?snapshot=0", 400),
        ("nothing/subscribe?snapshot=1", 404),
    ] {
        assert_eq!(get(&local, &format!("/v1/process/{path}")).status, status, "{path}");
    }
    assert_eq!(local.subscriptions(), 0);
    let plain = subscribe_at(local.addr(), local.secret_key(), "/v1/process/pages/subscribe");
    assert!(!plain.headers.contains_key("stride-snapshot"));
}

#[test]
fn rows_that_take_more_than_may_wait_are_refused() {
    let local = Local::builder().subscriber_buffer(1000).start().unwrap();
    create(&local, "pages", PAGES);
    click(&local, &[&"x".repeat(900), &"y".repeat(900)]);
    let refused = get(&local, "/v1/process/pages/subscribe?snapshot=1");
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("1000"), "{}", refused.message());
    assert_eq!(local.subscriptions(), 0);
}

/// Subscribers come while others write: each change fits on the rows that its subscriber has.
fn nothing_is_missing_between_rows_and_changes(query: &str) {
    const CLICKS: u64 = 400;
    let local = Local::start().unwrap();
    create(&local, "pages", query);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let local = &local;
            scope.spawn(move || {
                let mut connection = Connection::open(local);
                for n in 0..CLICKS / 2 {
                    let event = json!({"page": format!("/{}", (n * 7 + writer) % 20)}).to_string();
                    let request = request(local, "POST", "/v1/collect/clicks").json(event);
                    connection.exchange(&request).assert_stored();
                }
            });
        }
        for _ in 0..20 {
            let local = &local;
            let mut subscription = snapshot(local, "pages");
            scope.spawn(move || {
                let mut mirror = Mirror::default();
                for _ in 0..rows(&subscription) {
                    let row = subscription.event().unwrap();
                    assert!(row["old"].is_null());
                    mirror.apply(&row);
                }
                while mirror.views() < CLICKS {
                    mirror.apply(&subscription.event().unwrap());
                }
                assert_eq!(mirror.views(), CLICKS);
            });
        }
    });
}

#[test]
fn nothing_is_missing_between_the_rows_of_a_count_and_its_changes() {
    nothing_is_missing_between_rows_and_changes(PAGES);
}

#[test]
fn nothing_is_missing_between_the_rows_of_a_query_that_is_run_again_and_its_changes() {
    nothing_is_missing_between_rows_and_changes(LIST);
}

#[test]
fn a_query_that_is_replaced_ends_a_subscription_with_a_snapshot() {
    let local = Local::start().unwrap();
    create(&local, "pages", PAGES);
    click(&local, &["/", "/a"]);
    let mut subscription = snapshot(&local, "pages");
    let other = json!({"query": "SELECT page, count(*) * 2 AS views FROM clicks GROUP BY page"});
    request(&local, "PUT", "/v1/process/pages")
        .json(other.to_string())
        .send(&local)
        .assert_stored();
    // What waited is left out.
    while subscription.event().is_some() {}
    let mut again = snapshot(&local, "pages");
    let mut mirror = Mirror::default();
    for _ in 0..2 {
        mirror.apply(&again.event().unwrap());
    }
    assert_eq!(mirror.0["/"]["views"], 2);
}

#[test]
fn a_subscriber_that_has_no_room_for_changes_ends_and_gets_a_snapshot_again() {
    let local = Local::builder().subscriber_buffer(1 << 20).start().unwrap();
    create(&local, "pages", PAGES);
    let text = "x".repeat(1000);
    let pages: Vec<String> = (0..500).map(|n| format!("{n}{text}")).collect();
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    let mut slow = snapshot(&local, "pages");
    // Far more than waits in its sockets and for it.
    for _ in 0..30 {
        click(&local, &pages);
    }
    let mut mirror = Mirror::default();
    while let Some(change) = slow.event() {
        mirror.apply(&change);
    }
    assert!(mirror.views() < 15_000, "it was ended in the middle");
    let mut again = snapshot(&local, "pages");
    let mut mirror = Mirror::default();
    for _ in 0..rows(&again) {
        mirror.apply(&again.event().unwrap());
    }
    assert_eq!(mirror.views(), 15_000);
}
