//! Going on where a connection ended.

use super::*;

const AT: &str = "stride-position";
const MISSED: &str = "stride-missed";

/// A subscription that is connected to a server that knows positions, behind three events.
fn resumable() -> Bench {
    let mut bench = Bench::new(Reconnect::default(), 1);
    assert!(matches!(bench.run(), Stop::Connect(0)));
    assert_eq!(bench.query, None, "nothing to go on from");
    assert_eq!(bench.accept_with(&[(AT, "a")]), Resumed::No);
    bench.bytes("{\"a\":1}\r\n{\"a\":2}\r\n{\"a\":3}\r\n");
    for _ in 0..3 {
        assert!(matches!(bench.run(), Stop::Data(_)));
    }
    bench
}

/// Loses the connection, and tells what the next one asks for.
fn asks_again(bench: &mut Bench) -> Option<String> {
    bench.end(Err(broken(TransportErrorKind::Io)));
    bench.reconnects();
    bench.query.clone()
}

fn position(bench: &Bench) -> String {
    bench.subscription.position().expect("it has one").to_string()
}

/// One that starts after a position of its own.
fn after(text: &str, reconnect: Reconnect) -> Bench {
    let mut bench = Bench::new(reconnect, 1);
    bench.subscription = bench.subscription.after(text.parse().unwrap());
    assert!(matches!(bench.run(), Stop::Connect(0)));
    bench
}

#[test]
fn a_reconnect_goes_on_behind_what_was_handed_out() {
    let mut bench = resumable();
    assert_eq!(position(&bench), "3:a");
    assert_eq!(asks_again(&mut bench).as_deref(), Some("after=a&skip=3"));
    assert_eq!(bench.accept_with(&[(AT, "b")]), Resumed::Fully);
    assert_eq!(position(&bench), "0:b");
    bench.bytes("{\"a\":4}");
    assert!(matches!(bench.run(), Stop::Data(_)));
    assert_eq!(asks_again(&mut bench).as_deref(), Some("after=b&skip=1"));
}

#[test]
fn what_was_not_taken_yet_does_not_count() {
    let mut bench = resumable();
    bench.bytes("{\"a\":4}\r\n{\"a\":5}\r\n");
    assert_eq!(position(&bench), "3:a");
    assert!(matches!(bench.run(), Stop::Data(_)));
    bench.subscription.stop();
    assert_eq!(position(&bench), "4:a", "what a stop drops comes again in the next subscription");
}

#[test]
fn a_connect_that_fails_asks_for_the_same_again() {
    let mut bench = resumable();
    assert_eq!(asks_again(&mut bench).as_deref(), Some("after=a&skip=3"));
    bench.answer(503, &[]);
    bench.reconnects();
    assert_eq!(bench.query.as_deref(), Some("after=a&skip=3"));
    assert_eq!(position(&bench), "3:a");
}

#[test]
fn what_is_gone_is_counted_by_the_server() {
    for (missed, resumed) in
        [("7", Resumed::Missing(7)), ("0", Resumed::Fully), ("some", Resumed::No)]
    {
        let mut bench = resumable();
        asks_again(&mut bench);
        bench.answer(200, &[(AT, "b"), (MISSED, missed)]);
        assert_eq!(position(&bench), "3:a", "who was not told of a gap is not behind it");
        assert!(matches!(bench.run(), Stop::Connected(Some(_), said) if said == resumed));
        assert_eq!(position(&bench), "0:b");
    }
}

#[test]
fn an_event_that_a_disconnect_cut_off_is_not_malformed() {
    for cut in ["{\"a\":4", "{\"a\":\"\u{e9}", "{\"a\":tru"] {
        let mut bench = resumable();
        bench.subscription.handle_bytes(&cut.as_bytes()[..cut.len() - 1], bench.now);
        assert_eq!(asks_again(&mut bench).as_deref(), Some("after=a&skip=3"));
        assert_eq!(bench.subscription.malformed(), 0);
    }
}

#[test]
fn a_value_of_another_type_is_an_event() {
    let mut bench = resumable();
    bench.bytes("{\"a\":4}\r\n5\r\n");
    let mut poll = || bench.subscription.poll_as::<u8>(bench.now);
    assert!(matches!(poll(), Step::Item(SubscriptionEvent::Malformed(FrameError::Mismatch(_)))));
    assert!(matches!(poll(), Step::Item(SubscriptionEvent::Data(5))));
    assert_eq!(position(&bench), "5:a");
}

#[test]
fn behind_broken_text_the_position_stays_until_the_next_connection() {
    let mut bench = resumable();
    bench.bytes("{\"a\":4}\r\n{oops}\r\n{\"a\":6}\r\n{again}\r\n{\"a\":8}\r\n");
    for expected in [true, false, true, false, true] {
        assert_eq!(matches!(bench.run(), Stop::Data(_)), expected);
    }
    assert_eq!(position(&bench), "4:a");
    assert_eq!(asks_again(&mut bench).as_deref(), Some("after=a&skip=4"));
    assert_eq!(bench.accept_with(&[(AT, "b")]), Resumed::Fully);
    bench.bytes("{\"a\":5}\r\n");
    assert!(matches!(bench.run(), Stop::Data(_)));
    assert_eq!(position(&bench), "1:b");
}

#[test]
fn a_server_that_knows_no_positions_is_asked_for_none() {
    let mut bench = Bench::connected();
    bench.bytes("{\"a\":1}");
    assert!(matches!(bench.run(), Stop::Data(_)));
    assert!(bench.subscription.position().is_none());
    assert_eq!(asks_again(&mut bench), None);
}

#[test]
fn an_empty_200_of_a_server_that_forgot_positions_is_no_resuming() {
    let mut bench = resumable();
    asks_again(&mut bench);
    assert_eq!(bench.accept_with(&[]), Resumed::No);
    assert!(bench.subscription.position().is_none());
    assert_eq!(asks_again(&mut bench), None);
}

#[test]
fn a_token_that_cannot_be_sent_back_is_none() {
    for token in [&"x".repeat(1025), "", "\u{e9}"] {
        let mut bench = Bench::new(Reconnect::default(), 1);
        bench.run();
        bench.accept_with(&[(AT, token)]);
        assert!(bench.subscription.position().is_none(), "{token}");
    }
}

#[test]
fn with_a_sample_nothing_is_counted() {
    let request = Api::new("key").unwrap().subscribe("/collect/a", 5.try_into().ok()).unwrap();
    let mut bench = Bench::new(Reconnect::default(), 1);
    bench.subscription = Subscription::new(request, Limits::for_stream(), Reconnect::default(), 1);
    bench.run();
    assert_eq!(bench.accept_with(&[(AT, "a")]), Resumed::No);
    assert!(bench.subscription.position().is_none());
    assert_eq!(asks_again(&mut bench).as_deref(), Some("sample=5"));
}

#[test]
fn a_410_on_a_reconnect_leads_to_one_attempt_without_a_position() {
    let mut bench = resumable();
    asks_again(&mut bench);
    let refused = bench.now;
    bench.answer(410, &[]);
    assert!(matches!(bench.subscription.poll(bench.now), Step::Close));
    assert!(matches!(bench.run(), Stop::Connect(_)));
    assert_eq!((bench.now, bench.query.as_deref()), (refused, None), "at once");
    assert!(bench.subscription.position().is_none());
    // What passes is waited for, and nothing is asked for meanwhile.
    bench.answer(503, &[]);
    bench.reconnects();
    assert_eq!(bench.query, None);
    assert_eq!(bench.accept_with(&[(AT, "b")]), Resumed::No);
    assert_eq!(position(&bench), "0:b");
}

#[test]
fn a_server_that_always_says_410_is_not_asked_for_ever() {
    let mut bench = resumable();
    asks_again(&mut bench);
    bench.answer(410, &[]);
    assert!(matches!(bench.run(), Stop::Connect(_)));
    bench.answer(410, &[]);
    bench.end(Ok(()));
    assert!(
        matches!(bench.run(), Stop::Closed(Err(Error::Status(error))) if error.status() == 410)
    );
    assert_eq!(bench.connects, 3);
}

#[test]
fn a_server_that_refuses_every_position_and_accepts_without_is_called_with_growing_delays() {
    let mut bench = resumable();
    while bench.now - bench.start < Duration::from_secs(600) {
        assert!(asks_again(&mut bench).is_some());
        bench.answer(410, &[]);
        assert!(matches!(bench.run(), Stop::Connect(_)));
        bench.accept_with(&[(AT, "a")]);
    }
    assert!(bench.connects <= 100, "{} calls", bench.connects);
}

#[test]
fn a_position_of_ones_own_is_where_the_first_connection_begins() {
    let mut bench = after("3:a b", Reconnect::default());
    assert_eq!(bench.query.as_deref(), Some("after=a+b&skip=3"));
    assert_eq!(position(&bench), "3:a b");
    assert_eq!(bench.accept_with(&[(AT, "c")]), Resumed::Fully);
    assert_eq!(asks_again(&mut bench).as_deref(), Some("after=c&skip=0"));
}

#[test]
fn a_410_for_a_position_of_ones_own_is_an_error() {
    for reconnect in [Reconnect::AfterFirstConnect, Reconnect::Always, Reconnect::Never] {
        let mut bench = after("3:a", reconnect);
        if reconnect == Reconnect::Always {
            bench.answer(503, &[]);
            bench.reconnects();
        }
        bench.answer(410, &[]);
        bench.end(Ok(()));
        let Stop::Closed(Err(Error::Status(error))) = bench.run() else { panic!("it goes on") };
        assert_eq!(error.status(), StatusCode::GONE);
    }
}

#[test]
fn once_a_position_of_ones_own_was_accepted_a_410_is_like_any_other() {
    let mut bench = after("3:a", Reconnect::default());
    bench.accept_with(&[(AT, "a")]);
    asks_again(&mut bench);
    bench.answer(410, &[]);
    assert!(matches!(bench.run(), Stop::Connect(_)));
    assert_eq!(bench.accept_with(&[(AT, "b")]), Resumed::No);
}

#[test]
fn a_position_of_ones_own_for_a_server_that_knows_none_is_not_resumed() {
    let mut bench = after("3:a", Reconnect::default());
    assert_eq!(bench.accept_with(&[]), Resumed::No);
    assert!(bench.subscription.position().is_none());
}

#[test]
fn a_position_is_saved_as_the_string_that_it_is_as_text() {
    let position = Position::of_event("a \"quoted\" id").unwrap();
    let saved = serde_json::to_string(&position).unwrap();
    assert_eq!(saved, serde_json::to_string(&position.to_string()).unwrap());
    assert_eq!(serde_json::from_str::<Position>(&saved).unwrap(), position);
    let error = serde_json::from_str::<Position>("\"+3:a\"").unwrap_err();
    let Err(why) = "+3:a".parse::<Position>() else { panic!("it is not a number") };
    assert!(error.to_string().starts_with(&why.to_string()), "{error}");
}
