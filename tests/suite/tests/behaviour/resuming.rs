//! Subscriptions that go on where they were, over every transport.

use serde_json::Value;
use stride_core::Error;
use stride_core::subscribe::{Position, Reconnect, SubscriptionEvent};
use stride_tests::{Ending, Events, Over, Reply, suite};

use crate::MINUTE;

const SUBSCRIBE: &str = "GET /collect/a/subscribe";

const CHANGES: &str = "GET /process/p/subscribe";

const POSITION: &str = "stride-position";

const AGAIN: Reconnect = Reconnect::AfterFirstConnect;

suite! {
    {
        mock: Over::MockBlocking,
        mock_async: Over::MockAsync,
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        a_subscription_goes_on_where_it_was,
        a_position_outlives_its_subscription,
        a_position_that_is_gone_is_an_error_at_first_and_a_gap_later,
        a_reader_of_values_alone_has_a_position,
        each_connection_to_a_process_begins_with_a_snapshot,
    ]
}

/// What comes, with the delays left out.
fn next(events: &mut Events<'_>) -> String {
    loop {
        match events.next().expect("it goes on").expect("nothing ends it") {
            SubscriptionEvent::Connected { gap, resumed } => {
                return format!("connected {} {resumed:?}", gap.is_none());
            }
            SubscriptionEvent::Data(value) => return value.to_string(),
            SubscriptionEvent::Disconnected { .. } => {}
            other => return format!("{other:?}"),
        }
    }
}

fn a_subscription_goes_on_where_it_was(over: Over) {
    let world = over.world([
        // The last event is cut off, and comes again.
        (
            SUBSCRIBE,
            Reply::body("1\r\n{\"a\":2}\r\n{\"a\":").header(POSITION, "p0").ending(Ending::Broken),
        ),
        (SUBSCRIBE, Reply::body("{\"a\":3}\r\n").header(POSITION, "p2")),
        (
            SUBSCRIBE,
            Reply::body("{\"a\":9}\r\n").header(POSITION, "p8").header("stride-missed", "5"),
        ),
    ]);
    let mut events = world.client.subscribe("/collect/a", None, AGAIN, MINUTE).unwrap();
    let expected = [
        "connected true No",
        "1",
        r#"{"a":2}"#,
        "connected false Fully",
        r#"{"a":3}"#,
        "connected false Missing(5)",
        r#"{"a":9}"#,
    ];
    assert_eq!(expected.map(|_| next(&mut events)), expected);
    assert_eq!(events.position().unwrap().to_string(), "1:p8");
    let lines = world.requests().into_iter().map(|request| request.line);
    let asked = ["", "?after=p0&skip=2", "?after=p2&skip=1"];
    assert!(lines.eq(asked.map(|query| format!("{SUBSCRIBE}{query}"))), "{:?}", world.requests());
}

fn a_position_outlives_its_subscription(over: Over) {
    let world = over.world([
        (SUBSCRIBE, Reply::body("1\r\n2\r\n3\r\n").header(POSITION, "p0").ending(Ending::Silent)),
        (SUBSCRIBE, Reply::body("3\r\n").header(POSITION, "p2").ending(Ending::Silent)),
    ]);
    let mut events = world.client.subscribe("/collect/a", None, AGAIN, MINUTE).unwrap();
    for _ in 0..3 {
        next(&mut events);
    }
    let saved = events.position().unwrap().to_string();
    drop(events);
    let mut events =
        world.client.subscribe_after("/collect/a", saved.parse().unwrap(), AGAIN).unwrap();
    assert_eq!([next(&mut events), next(&mut events)], ["connected true Fully", "3"]);
    assert_eq!(world.requests()[1].line, format!("{SUBSCRIBE}?after=p0&skip=2"));
}

fn a_position_that_is_gone_is_an_error_at_first_and_a_gap_later(over: Over) {
    let gone = || Reply::status(410).with_body(r#"{"message":"another epoch"}"#);
    let world = over.world([
        (SUBSCRIBE, gone()),
        (SUBSCRIBE, Reply::body("1\r\n").header(POSITION, "p0")),
        (SUBSCRIBE, gone()),
        (SUBSCRIBE, Reply::body("7\r\n").header(POSITION, "q0").ending(Ending::Silent)),
    ]);
    let old: Position = "5:o".parse().unwrap();
    let Err(Error::Status(error)) = world.client.subscribe_after("/collect/a", old.clone(), AGAIN)
    else {
        panic!("the place is gone")
    };
    assert_eq!((error.status().as_u16(), error.message().as_deref()), (410, Some("another epoch")));
    let mut events = world.client.subscribe_after("/collect/a", old, AGAIN).unwrap();
    let expected = ["connected true Fully", "1", "connected false No", "7"];
    assert_eq!(expected.map(|_| next(&mut events)), expected);
    assert_eq!(world.requests()[3].line, SUBSCRIBE);
}

fn a_reader_of_values_alone_has_a_position(over: Over) {
    let reply = Reply::body("1\r\n2\r\n").header(POSITION, "p0").ending(Ending::Silent);
    let world = over.world([(SUBSCRIBE, reply)]);
    let mut data = world.client.data::<Value>("/collect/a", AGAIN).unwrap();
    data.next().unwrap().unwrap();
    assert_eq!(data.position().unwrap().to_string(), "1:p0");
}

fn each_connection_to_a_process_begins_with_a_snapshot(over: Over) {
    let rows = |count, body: &str| Reply::body(body).header("stride-snapshot", count);
    let world = over.world([
        (CHANGES, rows("2", "1\r\n2\r\n3\r\n{\"ol").ending(Ending::Broken)),
        (CHANGES, rows("0", "4\r\n").ending(Ending::Silent)),
    ]);
    let mut events = world.client.subscribe_with_snapshot("/process/p").unwrap();
    let done = "SnapshotDone";
    let expected = ["connected true No", "1", "2", done, "3", "connected false No", done, "4"];
    assert_eq!(expected.map(|_| next(&mut events)), expected);
    let asked = format!("{CHANGES}?snapshot=1");
    assert!(world.requests().iter().all(|request| request.line == asked));
}
