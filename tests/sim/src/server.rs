//! The server of the model: what it takes, what it refuses, and how it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use stride_collector::batcher::Response;
use stride_core::transport::{Delivery, TransportError, TransportErrorKind};

use crate::choice::Choices;

/// A request as it arrives: the numbers of its events by stream.
pub type Arrived = Vec<(String, Vec<u64>)>;

/// What the model's client gets.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A response.
    Status(u16, Option<u64>),
    /// No response.
    Error(TransportErrorKind, Delivery),
}

impl Outcome {
    /// As the batcher is told of it.
    ///
    /// # Errors
    ///
    /// The outcome is one.
    pub fn result(&self) -> Result<Response, TransportError> {
        match self {
            Self::Status(status, retry_after) => {
                let mut headers = HeaderMap::new();
                if let Some(seconds) = retry_after {
                    headers.insert("retry-after", (*seconds).into());
                }
                let status = StatusCode::from_u16(*status).unwrap_or_default();
                let message = (!status.is_success()).then(|| Arc::from("the model says no"));
                Ok(Response { status, headers, message })
            }
            Self::Error(kind, delivery) => Err(TransportError::new(*kind, *delivery)),
        }
    }

    /// Whether a client may rightly send the same events again after they were stored.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Status(status, _) => !(200..300).contains(status),
            Self::Error(_, delivery) => *delivery == Delivery::MaybeSent,
        }
    }
}

/// What the whole server does with every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It works, but for its faults.
    Works,
    /// Nobody listens.
    Refuses,
    /// 503.
    Unavailable,
    /// 401.
    Unauthorized,
    /// It reads and never responds.
    Stalls,
}

/// What is wrong with a single stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ailment {
    /// 500 to every request that holds it.
    Fails,
    /// No response to any such request.
    Stalls,
    /// 403.
    Forbidden,
    /// 404.
    Missing,
    /// 503 with a `Retry-After` of 2 s.
    Limited,
    /// 503 with a `Retry-After` of so many seconds.
    Paused(u64),
    /// The transport cannot send such a request.
    Unsupported,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    /// What it does now.
    pub mode: Mode,
    /// Streams with something wrong.
    pub ailing: BTreeMap<String, Ailment>,
    /// Events that it rejects, and with them the request.
    pub bad: BTreeSet<u64>,
    /// More events than that in a request are a 413.
    pub most: usize,
    /// Percent of requests that fail at random.
    pub flaky: u32,
    /// A 503 with `Retry-After` is among the random failures.
    pub asks_for_pauses: bool,
    /// How often each event was stored.
    pub stored: BTreeMap<u64, u32>,
    /// The newest event of each stream that was stored, and one that came after a newer one.
    newest: BTreeMap<String, u64>,
    pub(crate) overtaken: Option<u64>,
    /// The longest response time that is chosen, in milliseconds.
    pub slow: u32,
    /// The client's time-out.
    pub timeout: Duration,
    /// So many requests are decided one by one.
    pub chosen: u32,
}

impl Server {
    /// One that works.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mode: Mode::Works,
            ailing: BTreeMap::new(),
            bad: BTreeSet::new(),
            most: usize::MAX,
            flaky: 0,
            asks_for_pauses: false,
            stored: BTreeMap::new(),
            newest: BTreeMap::new(),
            overtaken: None,
            slow: 0,
            timeout: Duration::from_secs(5),
            chosen: 0,
        }
    }

    /// Ends every fault, but for events that it rejects.
    pub fn heal(&mut self) {
        self.mode = Mode::Works;
        self.ailing.clear();
        self.flaky = 0;
        self.slow = 0;
    }

    fn store(&mut self, arrived: &Arrived) {
        for (stream, events) in arrived {
            let newest = self.newest.entry(stream.clone()).or_default();
            for event in events {
                let times = self.stored.entry(*event).or_default();
                *times += 1;
                // What is stored again stands where it was stored first.
                if *times == 1 && event < newest {
                    self.overtaken = Some(*event);
                }
                *newest = (*newest).max(*event);
            }
        }
    }

    /// Takes a request; says what the client gets, and after how long.
    pub fn take(&mut self, arrived: &Arrived, choices: &mut Choices) -> (Outcome, Duration) {
        let time = if self.slow == 0 { 5 } else { 5 + choices.pick(self.slow) };
        let soon = Duration::from_millis(time.into());
        let timeout =
            (Outcome::Error(TransportErrorKind::TotalTimeout, Delivery::MaybeSent), self.timeout);
        if self.chosen > 0 {
            self.chosen -= 1;
            match choices.pick(5) {
                0 => {}
                1 => return (Outcome::Status(503, None), soon),
                2 => return (Outcome::Error(TransportErrorKind::Connect, Delivery::NotSent), soon),
                3 => {
                    self.store(arrived);
                    return (Outcome::Error(TransportErrorKind::Io, Delivery::MaybeSent), soon);
                }
                _ => return (Outcome::Status(404, None), soon),
            }
        }
        match self.mode {
            Mode::Works => {}
            Mode::Refuses => {
                return (Outcome::Error(TransportErrorKind::Connect, Delivery::NotSent), soon);
            }
            Mode::Unavailable => return (Outcome::Status(503, None), soon),
            Mode::Unauthorized => return (Outcome::Status(401, None), soon),
            Mode::Stalls => return timeout,
        }
        if self.flaky > 0 && choices.happens(self.flaky) {
            return match choices.pick(if self.asks_for_pauses { 6 } else { 5 }) {
                0 => (Outcome::Status(503, None), soon),
                1 => (Outcome::Error(TransportErrorKind::Connect, Delivery::NotSent), soon),
                2 => (Outcome::Error(TransportErrorKind::Io, Delivery::MaybeSent), soon),
                3 => {
                    self.store(arrived);
                    (Outcome::Error(TransportErrorKind::Io, Delivery::MaybeSent), soon)
                }
                4 => {
                    self.store(arrived);
                    timeout
                }
                _ => (Outcome::Status(503, Some(choices.of(&[1, 30, 150]))), soon),
            };
        }
        let ailment = arrived.iter().find_map(|(stream, _)| self.ailing.get(stream));
        match ailment {
            Some(Ailment::Fails) => return (Outcome::Status(500, None), soon),
            Some(Ailment::Stalls) => return timeout,
            Some(Ailment::Forbidden) => return (Outcome::Status(403, None), soon),
            Some(Ailment::Missing) => return (Outcome::Status(404, None), soon),
            Some(Ailment::Limited) => return (Outcome::Status(503, Some(2)), soon),
            Some(Ailment::Paused(seconds)) => return (Outcome::Status(503, Some(*seconds)), soon),
            Some(Ailment::Unsupported) => {
                let kind = TransportErrorKind::Unsupported;
                return (Outcome::Error(kind, Delivery::NotSent), Duration::ZERO);
            }
            None => {}
        }
        let events: Vec<u64> = arrived.iter().flat_map(|(_, events)| events).copied().collect();
        if events.len() > self.most {
            return (Outcome::Status(413, None), soon);
        }
        if events.iter().any(|event| self.bad.contains(event)) {
            let status = if events[0].is_multiple_of(2) { 400 } else { 422 };
            return (Outcome::Status(status, None), soon);
        }
        self.store(arrived);
        (Outcome::Status(200, None), soon)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}
