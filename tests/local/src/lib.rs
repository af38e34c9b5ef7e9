//! Stride on one machine, as a library and as a program.
//!
//! Stride was a hosted service that took events into streams and sent them on to whoever was
//! subscribed. The service is gone. This crate speaks its protocol on your own machine, so that a
//! test, an example or a program under development has a Stride to talk to, without a network, an
//! account or a thing to install.
//!
//! # In a test
//!
//! [`Local::start`] gives a server on a free loopback port, on a thread and a runtime of its own:
//! it serves blocking tests and async ones alike, and is gone when it is dropped. The test talks to
//! it over a socket, as every client does, and then asks what has been stored.
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
//! let mut answer = String::new();
//! socket.read_to_string(&mut answer)?;
//! assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
//!
//! assert_eq!(stride.streams(), ["mystream"]);
//! assert_eq!(stride.count("mystream"), 1);
//! assert_eq!(stride.events("mystream")[0]["bojack"], "horseman");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # As a program
//!
//! ```sh
//! stride-local --listen 127.0.0.1:8080 --secret-key helloworld
//! ```
//!
//! It prints the endpoint on its first line, which is what `STRIDE_ENDPOINT` wants to hold. On
//! SIGINT and SIGTERM it lets open requests finish and gives subscribers a clean end.
//!
//! # What it serves
//!
//! Everything is under `/v1`.
//!
//! | | |
//! |---|---|
//! | `POST /collect/NAME` | stores an event (an object) or an array of them; all or none |
//! | `POST /collect` | the same for `{"NAME": event or array, ...}` |
//! | `GET /collect` | the names of the streams, sorted |
//! | `GET /collect/NAME` | `{"name", "count", "first_seen", "last_seen"}` |
//! | `DELETE /collect/NAME` | forgets the stream |
//! | `GET /collect/NAME/subscribe` | the events that are stored from now on; `?sample=N`: at most N in any second |
//! | `process`, `analyze` | 501: not built yet |
//!
//! * **Keys.** The API key is the user name of HTTP Basic, with an empty password. The secret key
//!   may do everything, the open key only `POST` to `/collect`.
//! * **Events** come with `Content-Type: application/json`, plain or with
//!   `Content-Encoding: gzip`. One that lacks `$timestamp` or `$id` is given it; one whose `$id` its
//!   stream still remembers is stored once. Its text is otherwise kept as it came, on one line.
//! * **Subscriptions** send each event followed by `\r\n`, and an empty line after some seconds
//!   without one. A stream that nobody has written to can be subscribed to. A subscriber that reads
//!   too slowly holds up nobody: past its buffer it loses events, which [`Local::lost`] counts.
//! * **Errors** are a status and `{"message": "..."}`: 400 for bad JSON, gzip, names and samples,
//!   401 without a good key, 403 for an open key elsewhere, 404, 405 with `Allow`, 408 for a body
//!   that does not arrive, 413 over a limit, 415 for another type or encoding.
//!
//! # Limits
//!
//! Events are in memory and gone with the server. A stream keeps its last 1,000,000 events or
//! 256 MiB of them, a subscriber's buffer 32 MiB, a request 16 MiB, or 64 MiB unpacked; each has its
//! method on [`Builder`]. `count` is all that was ever stored. There is no TLS: put a proxy in front
//! of what others are to reach.
//!
//! # What goes wrong, on demand
//!
//! A client is only as good as what it does when its server is not. [`Local::fault`] takes a
//! [`Fault`]: a status every nth request, a delay, a port that refuses, a connection that is reset
//! before the request is read or after it was stored, a request that is never answered, a
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

mod builder;
mod changes;
pub mod engine;
mod face;
mod fault;
mod local;
mod shared;
mod streams;

pub use self::builder::Builder;
pub use self::fault::Fault;
pub use self::local::Local;
