//! Stride on one machine, as a library and as a program.
//!
//! Stride was a hosted service that took events into streams, kept continuous SQL queries over them
//! up to date, and sent events and changes to subscribers. The service is gone. This
//! crate speaks its protocol on your own machine: a test, a program under development or a small
//! deployment has a Stride to talk to, without a network, an account or anything to install.
//!
//! # In a test
//!
//! [`Local::start`] starts a server on a free loopback port, with its own thread and runtime:
//! it serves blocking and async tests alike, and is gone when it is dropped. The test talks to
//! it over a socket, as every client does, and then asks what was stored.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! use stride_local::Local;
//!
//! let stride = Local::builder().secret_key("helloworld").start()?;
//! assert_eq!(stride.endpoint(), format!("http://{}/v1", stride.addr()));
//!
//! // Any HTTP client will do; here it is a socket.
//! let event = r#"{"bojack": "horseman"}"#;
//! let mut socket = TcpStream::connect(stride.addr())?;
//! write!(
//!     socket,
//!     "POST /v1/collect/mystream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
//!      Authorization: Basic aGVsbG93b3JsZDo=\r\nContent-Type: application/json\r\n\
//!      Content-Length: {}\r\n\r\n{event}",
//!     event.len(),
//! )?;
//! let mut response = String::new();
//! socket.read_to_string(&mut response)?;
//! assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
//!
//! assert_eq!(stride.streams()?, ["mystream"]);
//! assert_eq!(stride.count("mystream")?, 1);
//! assert_eq!(stride.events("mystream")?[0]["bojack"], "horseman");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # As a program
//!
//! ```sh
//! stride-local --listen 127.0.0.1:8080 --secret-key helloworld --data stride.db
//! ```
//!
//! It prints the endpoint on its first line, which is the value for `STRIDE_ENDPOINT`. On
//! SIGINT, SIGTERM and SIGHUP it lets open requests finish and ends subscriptions cleanly. It logs to
//! standard error, with `--log-format json` one object per line.
//!
//! `stride-local backup --data stride.db copy.db` copies the file while it is served.
//!
//! # What it serves
//!
//! The API is under `/v1`. Names are a letter and then letters, digits and `_`.
//!
//! | | |
//! |---|---|
//! | `POST /collect/NAME` | stores an event (an object) or an array of them; all or none |
//! | `POST /collect` | the same for `{"NAME": event or array, ...}` |
//! | `GET /collect` | the names of the streams, sorted |
//! | `GET /collect/NAME` | `{"name", "count", "first_seen", "last_seen"}` |
//! | `DELETE /collect/NAME` | forgets the stream |
//! | `GET /collect/NAME/subscribe` | the events that are stored from now on; `?sample=N`: at most N in any second; `?after=PLACE&skip=N`: those behind a place |
//! | `POST /process/NAME` | creates a process: `{"query", "action": {"type": "MATERIALIZE"}, "ttl"}`; 201 |
//! | `GET /process` | the names of the processes, sorted |
//! | `GET /process/NAME` | `{"name", "query", "action", "ttl"}` |
//! | `GET /process/NAME/stats` | how it is kept up to date, its rows, what it has cost |
//! | `PUT /process/NAME` | changes the `query`, which starts anew, or the `ttl` |
//! | `DELETE /process/NAME` | forgets the process and ends its subscriptions |
//! | `GET /process/NAME/subscribe` | the changes of its rows, `{"old": ..., "new": ...}`; `sample` as above; `?snapshot=1`: all rows first |
//! | `POST`, `PUT /analyze/NAME` | saves `{"query"}`, in place of an earlier one of that name; 201, 200 |
//! | `GET /analyze` | the names of the saved queries, sorted |
//! | `GET /analyze/NAME` | `{"name", "query"}` |
//! | `DELETE /analyze/NAME` | forgets it |
//! | `GET`, `POST /analyze/NAME/results` | runs it: an array of objects |
//! | `POST /analyze` | runs `{"query"}` once |
//!
//! * **Keys.** The API key is the user name of HTTP Basic, with an empty password. The secret key
//!   may do everything, the open key only `POST` to `/collect`; it can be held to named streams
//!   ([`Builder::open_streams`]).
//! * **Queries** whose client hangs up, or whose time is over, are interrupted.
//! * **Web pages** of any origin may `POST` to `/collect` with the open key. Nothing else is open to them: there are
//!   no other CORS headers, and the secret key is refused from a page of another origin.
//! * **Events** come with `Content-Type: application/json`, without which a body is refused, plain or with
//!   `Content-Encoding: gzip`. One that lacks `$timestamp` or `$id` is given it; one whose `$id` its
//!   stream still remembers is stored once. A `$timestamp` is RFC 3339; `2015-05-05 23:40:27.123456`,
//!   which pystride writes and which is in UTC, an offset such as `+0000` and milliseconds since 1970 are
//!   taken too, and kept as RFC 3339. The text of an event is otherwise kept as it came, on one line.
//! * **Subscriptions** send each event followed by `\r\n`, and an empty line after some seconds
//!   without one. A stream that nobody has written to can be subscribed to. A subscriber that reads
//!   too slowly does not affect the others. Of a stream, what finds no room in its buffer is read from the storage, so it
//!   misses nothing until retention overtakes it, which ends the subscription; of a process without a snapshot, or with a
//!   sample, it loses what finds no room. [`Local::lost`] counts both.
//! * **Positions.** The response to a subscription to a stream, but for a sampled one, has the header `Stride-Position`: the
//!   place before its first event. With `after` the first event is the one behind that place and `skip` more. `after` also takes
//!   the `$id` of an event that is stored, if it does not look like a position, and nothing: then the first is the oldest. If
//!   some of what was asked for is gone by retention, the first is the oldest, and `Stride-Missed` says how many are gone. A
//!   place of a stream that was deleted since, of another storage, of one that was put back from a backup, or of an event
//!   that never was, is a 410. The clients of this workspace do all of this themselves: the page
//!   [`resuming`](https://docs.rs/stride-core/latest/stride_core/subscribe/resuming/) of their core has what they promise.
//! * **Snapshots.** With `?snapshot=1` a subscription to a process begins with all of its rows, each as a change from
//!   nothing, and goes on with what changes after that. `Stride-Snapshot` says how many rows come. Such a subscription
//!   ends when changes find no room in its buffer, or when another query takes the place of the process's: a client comes
//!   again, for another snapshot. Rows that take more than the buffer are a 400.
//! * **Errors** are a status and `{"message": "..."}`: 400 for bad JSON, gzip, names, samples and SQL,
//!   for a query that takes too much, and for a request that is cut short; 401 without a good key, 403
//!   for an open key elsewhere, 404, 405 with `Allow`, 408 for a head or a body that does not arrive, 409
//!   for a name that is taken, 410 for a place that nothing can be gone on from, 413 over a limit, 415 for another type or encoding, 503 when the storage
//!   cannot be used, too much is going on, or a request takes too long, 507 when there is no room for another
//!   stream, or for what the open key writes. After a 503 or a 507 nothing was stored, except by a request that took too long. What is not HTTP
//!   at all gets a 400 without a message.
//!
//! # Queries
//!
//! Queries are SQLite's SQL, one `SELECT` at a time. A stream is a relation: its columns are the
//! top-level keys that its events have had, `"$id"` and `"$timestamp"` among them, and what is nested in
//! one is taken out with `->` and `->>`. A stream that nobody has written to is an empty relation; a
//! column that no event has had is `NULL`. A process is a relation, too. Streams and processes share one
//! namespace.
//!
//! SQLite's SQL is close to PostgreSQL's, in which queries for Stride were written.
//! [What works, what differs and what is refused](coming_from_postgresql) is listed with an example for each.
//!
//! A saved query may name parameters, such as `:start_date`. They come from the query string,
//! `/analyze/NAME/results?start_date=2015-05-05`, or as an object in the body of a `POST`, where they keep their JSON
//! type. In a query string what is written as a number is one (`12`, but not `012`).
//!
//! Times are texts, but are compared as times, whatever their offset and precision: `"$timestamp"`, what `now()`, `date_trunc`,
//! `TIMESTAMP '...'` and `- INTERVAL '5 minutes'` give, the results of queries and processes that are made of these, and what
//! is compared with one of them. Another key is compared as a text, unless it is written `utc(key)`.
//!
//! A process keeps up with every event if it reads one stream, with any `WHERE` on one event: plain rows, `DISTINCT`,
//! or aggregates, with `GROUP BY` or without: `count`, `sum`, `total`, `avg`, `min`, `max` and `count(DISTINCT x)`, with
//! `FILTER` and `HAVING`. What an event costs does not grow with the events before it, and the result is up to date when
//! the response to the event is sent. Plain rows go with their events, when those grow old or their stream is deleted;
//! aggregates and `DISTINCT` keep what is gone. Distinct values are counted exactly, over as many as
//! [`Builder::max_distinct`] allows a process: past it the process stops, shows what it had and says so in its `stats`.
//! `DISTINCT` and aggregates, but for distinct counts, may also be those of a window, which is described below.
//! Every other query (joins, subqueries, `ORDER BY`, `LIMIT`, `*`, other windows, other processes, other functions) is run again
//! when what it reads has changed, or something has left its windows: each once a second at most, and all together for a
//! quarter of the time. A window, as in `WHERE "$timestamp" > now() - INTERVAL '5 minutes'`, costs what is in it.
//! `stats` says which way a process goes, and why. A query that can only fail is refused when it is made: it is
//! planned, and tried over made-up events. An event that it fails at later is left out, and counted as
//! `skipped`. If the query cannot be run at all any more, its rows stay as they were: `stats` says `stale`
//! then, and `stale_since` when that began, and a result that comes from them has a header, `Stride-Stale`, with the names of
//! such processes. A process starts with what is stored, which it is given bit by bit while others write; what is run again
//! sees what remains. A `PUT` of the query and the `ttl` that a process has changes nothing. Another query is filled beside
//! the old one, and takes its place when it is whole: subscribers are told the difference, unless both have more than 100,000
//! rows together. A name in its query that
//! is a key of one of its streams stays that, whatever keys others come to have. `ttl` removes rows:
//! `{"duration": "1 day", "column": "minute"}`; it can be changed, and not taken away.
//!
//! A process keeps up with a window, too: its `WHERE` has `"$timestamp" > now() - INTERVAL '1 hour'`, or `>=`, beside
//! conditions on one event. What leaves the window is forgotten in steps of a twentieth of the window, or
//! of a second if that is longer. Its result thus holds the window and up to one step more, and never less. An event belongs where its
//! `"$timestamp"` says: one that comes late is added unless it is older than the window, and one of a time to come counts
//! from the start and leaves when its time is over. Subscribers are told of each group of a step that leaves, with
//! `new` as `null` after its last event; without `GROUP BY` the row stays. Events that retention takes, or that go with their stream,
//! stay in the window until their time. If the clock is set back by more than a step, the window is filled again from what is
//! stored; its subscribers see the result of that, and not how it came about.
//!
//! `GET /process/NAME/stats` has `mode`, which is `incremental` or `recomputed`, and in the second case `why`; for a window kept in steps,
//! `step_ms`; and while a process is given the events that were stored before it, `filling`, with how many it was `given` of how
//! many. Since the server started: the `events` of its streams, those of them `skipped`, the `steps` of SQLite's machine that its
//! query took, how often it was run (`runs`) and for how long the last time (`last_run_ms`). Then the `rows` that it has now, its
//! `last_error`, and whether it is `stale`.
//!
//! # What is kept
//!
//! Without `--data` ([`Builder::data`]) everything is gone with the server. With it, 200 means committed:
//! the events of a request with that response, their effect on processes, and everything that was defined survive
//! a restart and a kill. What had no response yet when it was killed may be stored or not; give events an `$id`
//! and send them again. A disk that is full and a file that is locked give a 503 for as long as
//! they are; so does a file that is damaged. Only one server at a time can open the file, by whatever name. After a
//! clean end the file alone is everything; before, two more lie beside it, and [`backup`] makes the copy. Files are
//! made so that only their user can read them; those of a server without `--data` have no name.
//!
//! A stream keeps its last events, by [number](Builder::max_events), [size](Builder::max_event_bytes) and
//! [age](Builder::max_age); `count` is all that was ever stored.
//!
//! # Limits
//!
//! Requests, their bodies, queries, connections, subscribers and what is stored are held to limits, each of which has a
//! method of [`Builder`], which says what it is by default, and an option of the program. Others are fixed:
//!
//! * An event is 2 MiB at most. A request with the open key has 100,000 events at most.
//! * 4 queries run at once. One has 10,000 columns in all its parts, and reads 1,000 relations, at most.
//! * There may be 100,000 streams, of which the open key makes 1,000, and 1,000 processes. A stream has 1,000 columns;
//!   a key longer than 256 bytes, or with a NUL in it, is in its event only: it is no column.
//! * Bodies have a bounded amount of memory together, whatever they unpack to: past it requests wait for one another.
//!   What comes with the open key has its own share of it.
//!
//! What the open key writes is bounded over all streams ([`Builder::max_open_bytes`]), which includes the ids of events,
//! the names of keys and the rows of processes; what the secret key writes is bounded for each stream only. There is no
//! TLS: put a proxy in front of what others are to reach.
//!
//! # The page
//!
//! `/ui/` is a page for people: the streams and their rates, the events of one as they come, queries and charts, processes,
//! and the server. `/` sends browsers there. It asks for the secret key once, keeps it in the tab (`sessionStorage`), and
//! sends it in a header to its own server only, never in an address or a cookie. It is three files, all part of the program,
//! that load nothing from elsewhere; its links are relative, so a proxy may serve all of this below a path. A proxy
//! should pass on `Host`, by which the server knows that the page is its own. Where it does not, the browser says so in
//! `Sec-Fetch-Site`, which browsers send over TLS and to their own machine only.
//!
//! `GET /overview` takes the secret key, and responds with everything in one object:
//!
//! | | |
//! |---|---|
//! | `version`, `now` | the server's version and time |
//! | `bytes`, `kept` | what the database takes on the disk, and whether it outlives the server |
//! | `subscribers`, `missed` | subscriptions that are open, and what subscribers have missed since the start |
//! | `streams` | by name, each with `name`, `count`, `first_seen`, `last_seen`, `subscribers`, `missed`, `recent` (its events in the last 120 whole seconds) and, of the 1,000 busiest, `rates` (in each of them, the oldest first) |
//! | `processes` | by name, each with `name`, `query`, `ttl`, `subscribers`, `missed` and what its `stats` say |
//!
//! # Operations
//!
//! `GET /healthz` responds with 200 and `{"status": "ok"}`, or with 503 while the storage cannot be used, for which
//! it writes to it. `GET /metrics` has figures for Prometheus: requests, their responses and how long they took,
//! connections, events, subscribers and what slow ones lost, transactions, queries and their time, events that
//! processes lack, processes by how they are kept and with an old result, storage errors. Both need no key and tell
//! no names, keys or events; by default only this machine reaches them, like the rest.
//!
//! # Another database
//!
//! With the feature `postgres`, `--database URL` keeps everything in PostgreSQL, which any number of servers can share.
//! `src/engine/postgres.rs` says what differs.
//!
//! SQLite sits behind one narrow trait: append events, create, change, show and delete streams, processes
//! and saved queries, run a query, and tell a listener what was committed. A database that keeps
//! continuous views itself, and speaks PostgreSQL's protocol as RisingWave and Materialize do, can take its
//! place when one machine is too small. `src/engine.rs` says how, method by method.
//!
//! # Faults on demand
//!
//! A client shows what it is worth when its server fails. [`Local::fault`] takes a
//! [`Fault`]: a status every nth request, a delay, a port that refuses, a connection that is reset
//! before the request is read or after it was stored, a request without a response, a
//! subscription that breaks off.
//!
//! ```
//! use std::net::TcpStream;
//! use std::time::Duration;
//!
//! use stride_local::{Fault, Local};
//!
//! let stride = Local::start()?;
//! stride.fault(Fault::Refuse);
//! assert!(TcpStream::connect(stride.addr()).is_err());
//! stride.clear_faults();
//! let socket = TcpStream::connect(stride.addr())?;
//! // Instead of sleeping until the server has noticed:
//! assert!(stride.wait_until(Duration::from_secs(10), |stride| stride.connections() == 1));
//! # Ok::<(), std::io::Error>(())
//! ```

mod changes;
pub mod engine;
mod events;
mod http;
mod local;
#[cfg(feature = "postgres")]
mod migrate;
mod pool;
mod rates;
mod settings;
mod shared;
mod sql;
mod subscribers;

#[cfg(doc)]
#[doc = include_str!("../docs/postgresql.md")]
pub mod coming_from_postgresql {}

#[cfg(doc)]
#[doc = include_str!("../docs/servers.md")]
pub mod several_servers {}

#[cfg(feature = "postgres")]
pub use self::engine::postgres::import::Migrated;
pub use self::engine::sqlite::backup::backup;
pub use self::http::faults::Fault;
pub use self::local::{Local, StorageError};
#[cfg(feature = "postgres")]
pub use self::migrate::migrate;
pub use self::settings::{Builder, Limit};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
