//! What subscriptions add to Stride's protocol: they go on where they were.
//!
//! The original protocol has no cursor: what a stream is sent while a subscriber is away is gone for it,
//! although the server may still have it. A server that knows *positions* lets a client of this workspace
//! go on, and every other client notices nothing: what is added are response headers, and parameters of a
//! query that the original clients never send. With a server that knows none, everything is as it always was.
//! `stride-local`, in this repository, knows them for streams, and makes snapshots of processes.
//!
//! # On the wire
//!
//! | | |
//! |---|---|
//! | `GET /collect/NAME/subscribe`, without `sample` | the response has the header `Stride-Position: TOKEN`: the place in the stream before the first event of its body |
//! | `?after=TOKEN&skip=N` | the body begins `N` events behind that place |
//! | `?after=ID` | the body begins behind the stored event with that `$id` |
//! | `?after=` | the body begins with the oldest event that is left |
//! | 200 with `Stride-Missed: N` | `N` of the events that were asked for are gone; the body begins with the oldest that is left |
//! | 410 | the place is not one of this stream as it is: the stream was deleted, the server was set back to an older state, or it has lost events |
//! | 400 | `sample` with `after` or `snapshot` |
//! | `GET /process/NAME/subscribe?snapshot=1` | the body begins with every row of the process, as `{"old": null, "new": ..}`, and goes on with what changed after that moment; the response has the header `Stride-Snapshot: ROWS` |
//!
//! The body does not change. A stream's places have no holes, and a value of the body is an event: so
//! a client counts values, and never looks into them for where it is. A token is 1 to 1024 visible ASCII
//! characters. It is opaque, and names the stream and the history that its place belongs to.
//!
//! # What the client does
//!
//! * It counts the values that it hands out, those that are not of the type asked for included. On a
//!   reconnect it asks to go on behind them.
//! * [`Connected`](super::SubscriptionEvent::Connected) says what came of it:
//!   [`Fully`](super::Resumed::Fully), [`Missing`](super::Resumed::Missing) with how many events are gone, or
//!   [`No`](super::Resumed::No).
//! * A 410 on a reconnect leads to one attempt without a position, at once. If that is accepted, `Connected`
//!   says `No`. With a position of the user's own, on the first connection, a 410 is an error.
//! * An event that a disconnect cut off is not reported: it comes again.
//! * Behind text that is not valid JSON, the position stays where it was until the next connection. Nobody
//!   knows how many events such text was, so those behind it may come twice. A server does not send any
//!   unless something between it and the client breaks it.
//! * Whatever is between two connections that are accepted, the delays are those of
//!   [`Subscription`](super::Subscription).
//!
//! # Processes
//!
//! The changes of a process have no places: what matters are its rows. A subscription with
//! [`snapshot`](super::SubscribeOptions::snapshot) begins with all of them, so does every reconnect, and
//! [`SnapshotDone`](super::SubscriptionEvent::SnapshotDone) tells where the rows end and the changes begin. Who keeps a
//! copy of the rows empties it at `Connected`, and applies everything that follows.
//!
//! # What is promised
//!
//! With a server that keeps to the above:
//!
//! * Within a subscription each event comes exactly once and in order, however often the connection breaks,
//!   as long as `Connected` says `Fully`.
//! * Across restarts of the program the same holds if [`position()`](super::Subscription::position) is saved in one
//!   step with what the event led to, such as in one transaction of a database, and the next subscription
//!   starts [`after`](super::SubscribeOptions::after) it. If the effect is saved first and the position later,
//!   an event may come twice; the other way round, one may be lost.
//! * What is missing is said: `Missing` says how much, and `No` says that it is not known.
//!
//! The tests are in this crate, in `tests/sim`, `tests/local` and `tests/suite` of the repository:
//!
//! | promise | test |
//! |---|---|
//! | a reconnect goes on behind what was handed out | `a_reconnect_goes_on_behind_what_was_handed_out`, `a_subscription_goes_on_where_it_was` |
//! | each event comes once, whatever the server does: it trims, restores, deletes, forgets | `seeds_find_nothing` |
//! | each event has its effect once, although server and program are killed | `every_event_is_consumed_once_over_250_kills_with_ureq`, `every_event_is_consumed_once_over_250_kills_with_hyper` |
//! | what is missing is said | `what_is_gone_is_counted_by_the_server`, `what_is_gone_by_retention_is_counted` |
//! | a 410 leads to one attempt without a position | `a_410_on_a_reconnect_leads_to_one_attempt_without_a_position`, `a_server_that_always_says_410_is_not_asked_for_ever` |
//! | a slow subscriber misses nothing | `a_slow_subscriber_misses_nothing_and_holds_up_nobody` |
//! | the changes that follow on a snapshot are all that came after it | `nothing_is_missing_between_the_rows_of_a_count_and_its_changes`, `nothing_is_missing_between_the_rows_of_a_query_that_is_run_again_and_its_changes` |
//! | an original client notices nothing | `what_the_original_clients_ask_for_looks_as_it_always_did` |
