//! N2: neither the key nor a proxy's password reaches a log, at any level, of any dependency.
//!
//! Alone in its program, because it collects what the whole process logs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use stride_collector::{AsyncCollector, Collector};
use stride_core::subscribe::Reconnect;
use stride_tests::wire::tls::Authority;
use stride_tests::wire::{Act, RefusingPort, Server, response};
use stride_tests::{Builder, Client, watchdog};
use tracing::field::{Field, Visit};
use tracing::span;

const KEY: &str = "s3cr3t_key/of+some~length";
const USER: &str = "me-myself";
const PASSWORD: &str = "p4ssw0rd_0f-s0me-length";
const MINUTE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// What was logged, by thread: the rows of a dump follow each other there.
static LOG: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

fn log() -> MutexGuard<'static, BTreeMap<String, Vec<String>>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(text: String) {
    let thread: ThreadId = thread::current().id();
    log().entry(format!("{thread:?}")).or_default().push(text);
}

/// Takes everything that goes through the `log` crate.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, entry: &log::Record<'_>) {
        record(entry.args().to_string());
    }

    fn flush(&self) {}
}

/// Takes everything that goes through the `tracing` crate, each field as a row.
struct Tracer;

impl Visit for Tracer {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        record(format!("{value:?}"));
    }
}

impl tracing::Subscriber for Tracer {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut Self);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Self);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Self);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The ways in which a secret may show: as it is, in base64 wherever it begins in a group of three
/// bytes, and each of these as the numbers of its bytes.
fn shapes(secret: &str) -> Vec<String> {
    let mut shapes = vec![secret.to_owned()];
    for before in 0..3 {
        let encoded = BASE64.encode([&vec![0; before], secret.as_bytes()].concat());
        // What belongs to the bytes around it may look different.
        let first = (before * 8).div_ceil(6);
        let last = (before + secret.len()) * 8 / 6;
        shapes.push(encoded[first..last].to_owned());
    }
    let numbers = |shape: &String| format!("{:?}", shape.as_bytes()).replace(['[', ']'], "");
    let numbers: Vec<String> = shapes.iter().map(numbers).collect();
    shapes.extend(numbers);
    shapes
}

/// All that was logged, as texts in which no row ends: the rows as they are; as dumps of text, with
/// and without a part in front of a gap; and what hexadecimal digits in them mean.
fn texts() -> Vec<String> {
    let log = log();
    log.values()
        .flat_map(|rows| {
            let columns = rows.iter().map(|row| row.split_once("  ").unwrap_or(("", row)));
            let hex: String = columns
                .clone()
                .filter(|(hex, _)| hex.chars().all(|c| c.is_ascii_hexdigit() || "- ".contains(c)))
                .map(|(hex, _)| hex.replace([' ', '-'], ""))
                .collect();
            let bytes: Vec<u8> = hex
                .as_bytes()
                .chunks(2)
                .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap_or(0))
                .collect();
            [
                rows.join("\n"),
                rows.concat(),
                columns.map(|(_, text)| text).collect(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ]
        })
        .collect()
}

/// A server for everything here: the response is a good one to every verb, to a collector, and to a
/// subscription, which then ends.
fn exchange() -> Vec<Act> {
    vec![Act::Request, Act::text(&response("200 OK", "{}"))]
}

/// Does everything that sends a request; errors are formatted, as a program would that logs them.
fn use_all(client: &Client, stop_within: Duration) -> String {
    let mut shown = format!("{client:?}");
    let event = json!({"a": 1});
    for result in [
        client.get("/collect"),
        client.post("/collect/a", &event),
        client.put("/process/a", &event),
        client.delete("/collect/a"),
    ] {
        let _ = write!(shown, "{result:?}");
    }
    let _ = match client.subscribe("/collect/a", None, Reconnect::Never, MINUTE) {
        Ok(events) => write!(shown, "{:?}", events.collect::<Vec<_>>()),
        Err(error) => write!(shown, "{error:?} {error}"),
    };
    match client {
        Client::Blocking(stride) => {
            let collector = Collector::start(stride.target()).unwrap();
            collector.collect("a", &event).unwrap();
            let _ = write!(shown, "{:?}", collector.stop_within(stop_within));
        }
        Client::Async(stride, runtime) => runtime.block_on(async {
            let collector = AsyncCollector::start(stride.target()).unwrap();
            collector.collect("a", &event).unwrap();
            let _ = write!(shown, "{:?}", collector.stop_within(stop_within).await);
        }),
    }
    shown
}

#[test]
fn n2_no_log_shows_the_key_or_a_password() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    tracing::subscriber::set_global_default(Tracer).unwrap();
    watchdog(|| {
        let authority = Authority::new();
        let plain = Server::always(exchange);
        let secure = Server::always_tls(&authority.identity("localhost"), exchange);
        let refusing = RefusingPort::new();
        let opening = Server::proxy();
        let denying = Server::responding(response("407 Proxy Authentication Required", ""));
        let url = |proxy: &Server| format!("http://{USER}:{PASSWORD}@{}", proxy.address());
        let credentials = BASE64.encode(format!("{USER}:{PASSWORD}"));
        let header = format!("Basic {}", BASE64.encode(format!("{KEY}:")));

        let mut shown = String::new();
        for over in ["ureq", "hyper"] {
            for endpoint in
                [plain.endpoint(), secure.https_endpoint("localhost"), refusing.endpoint()]
            {
                for proxy in [None, Some(url(&opening)), Some(url(&denying))] {
                    let builder = match over {
                        "ureq" => Builder::Blocking(stride_blocking::Stride::builder(KEY)),
                        _ => Builder::Async(stride_async::Stride::builder(KEY)),
                    };
                    let builder = builder.endpoint(&endpoint).root_certificate(authority.pem());
                    let builder = match &proxy {
                        Some(proxy) => builder.proxy(proxy),
                        None => builder,
                    };
                    shown += &format!("{builder:?}");
                    // Where nobody responds, a collector would go on trying.
                    let responds = endpoint != refusing.endpoint() && proxy != Some(url(&denying));
                    let stop_within = if responds { MINUTE } else { PAUSE };
                    shown += &use_all(&builder.build().unwrap(), stop_within);
                }
            }
        }

        // Everything came where it should: six requests, two ways, by two clients.
        for server in [&plain, &secure] {
            let requests = server.requests();
            assert_eq!(requests.len(), 24);
            for request in requests {
                assert_eq!(request.header("authorization"), Some(header.as_str()));
            }
        }
        let expected = format!("Basic {credentials}");
        for proxy in [&opening, &denying] {
            for request in proxy.requests() {
                assert_eq!(request.header("proxy-authorization"), Some(expected.as_str()));
            }
        }

        let mut texts = texts();
        // The dumps are read right: what may be logged is found in them.
        for harmless in ["GET /v1/collect HTTP/1.1", "content-type: application/json"] {
            let dumped = harmless.replace(' ', ".");
            assert!(texts.iter().any(|text| text.contains(harmless)), "no {harmless}");
            assert!(texts.iter().any(|text| text.contains(&dumped)), "no {dumped}");
        }
        texts.push(shown);
        let secrets = [KEY, &header, USER, PASSWORD, &credentials];
        for shape in secrets.iter().flat_map(|secret| shapes(secret)) {
            for text in &texts {
                assert!(!text.contains(&shape), "{shape} in {text}");
            }
        }
    });
}
