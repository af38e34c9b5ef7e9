//! A subscriber: the real machine, a driver in virtual time, and the server's side of its connections.
//! The oracle knows what the server sent, and demands it item by item; and it knows the stream, and demands
//! each of its events exactly once wherever that is promised.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::HeaderName;
use http::response::Parts;
use serde_json::Value;
use stride_core::Api;
use stride_core::subscribe::{Reconnect, Resumed, Step, Subscription, SubscriptionEvent};
use stride_core::transport::{Delivery, Limits, TransportError, TransportErrorKind};

use crate::choice::Choices;
use crate::history::{Begin, History};
use crate::script::{Found, Script};
use crate::server::Mode;
use crate::world::Checked;

// What the machine's docs promise.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
const REFUSAL_WITHIN: Duration = Duration::from_secs(10);

const POSITION: HeaderName = HeaderName::from_static("stride-position");
const MISSED: HeaderName = HeaderName::from_static("stride-missed");

/// A subscriber and its connection.
#[derive(Debug)]
pub struct Subscriber {
    machine: Subscription,
    limits: Limits,
    reconnect: Reconnect,
    connection: Option<Connection>,
    /// When the driver has something to tell next.
    due: Option<Instant>,
    stream: History,
    /// The server's faults have ended.
    calm: bool,
    // What the oracle knows.
    /// What the next connection has to ask for.
    asks: Option<Place>,
    /// The place in the stream behind the last event that came for certain, once one has begun.
    cursor: Option<u64>,
    /// The items that have to come out at once, in this order.
    expected: VecDeque<Found>,
    /// The next delay, if the connection is lost: at least and at most.
    delay: (Duration, Duration),
    /// When the next connection has to be made.
    retry_at: Option<Instant>,
    /// It has to end, with an error or without one.
    ends: Option<bool>,
    is_over: bool,
    failures: u32,
    lost_at: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    head: Head,
    /// When the head came.
    since: Option<Instant>,
    /// When the last byte came, and whether there was one.
    last: Instant,
    received: bool,
    script: Script,
    /// It was asked for a position.
    asked: bool,
    /// Where the body begins.
    begin: Begin,
    /// What it calls that.
    token: Option<String>,
    /// The machine was told that it is over, and has to say that it is to be closed.
    ended: bool,
}

/// How far a connection has come, or the one before it had.
#[derive(Debug, Clone)]
struct Place {
    token: String,
    values: u64,
    /// How many of them came before broken text.
    certain: Option<u64>,
}

impl Place {
    fn skip(&self) -> u64 {
        self.certain.unwrap_or(self.values)
    }

    /// As a user saves it.
    fn text(&self) -> String {
        format!("{}:{}", self.skip(), self.token)
    }

    fn query(&self) -> String {
        format!("after={}&skip={}", self.token.replace('~', "%7E"), self.skip())
    }
}

/// How the server responds to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Accepted,
    /// Accepted, with a body that is compressed.
    Encoded,
    /// A status that may pass, and how many seconds to wait before the next attempt.
    Busy(u16, Option<u64>),
    /// Any other status.
    Refused(u16),
    Error(TransportErrorKind),
}

impl Head {
    /// How long to wait at least.
    fn pause(self) -> Duration {
        Duration::from_secs(match self {
            Self::Busy(_, Some(seconds)) => seconds.min(300),
            Self::Busy(429, None) => 5,
            _ => 0,
        })
    }

    fn parts(self) -> Parts {
        let (mut head, ()) = http::Response::new(()).into_parts();
        match self {
            Self::Encoded => {
                head.headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
            }
            Self::Busy(status, pause) => {
                head.status = http::StatusCode::from_u16(status).unwrap_or_default();
                head.headers.extend(pause.map(|it| (http::header::RETRY_AFTER, it.into())));
            }
            Self::Refused(status) => {
                head.status = http::StatusCode::from_u16(status).unwrap_or_default();
            }
            Self::Accepted | Self::Error(_) => {}
        }
        head
    }
}

impl Subscriber {
    /// One that connects as soon as it is told the time, perhaps where the one before it ended.
    ///
    /// # Errors
    ///
    /// The core does not make its request.
    pub fn new(before: Option<Self>, now: Instant, choices: &mut Choices) -> Result<Self, String> {
        let reconnect =
            choices.of(&[Reconnect::AfterFirstConnect, Reconnect::Always, Reconnect::Never]);
        let mut limits = Limits::for_stream();
        limits.idle = Some(Duration::from_secs(choices.of(&[90, 20])));
        let api = Api::new("key").map_err(|error| error.to_string())?;
        let request = api.subscribe("/collect/s0", None).map_err(|error| error.to_string())?;
        let seed = u64::from(choices.pick(1000));
        let mut machine = Subscription::new(request, limits, reconnect, seed);
        let (stream, mut asks, mut cursor) = match before {
            None => (History::new(choices), None, None),
            Some(before) => (before.stream, before.asks, before.cursor),
        };
        if asks.is_some() && choices.pick(4) > 0 {
            let saved = asks.as_ref().map(Place::text).unwrap_or_default();
            machine = machine.after(saved.parse().map_err(|_| format!("{saved} is no position"))?);
        } else {
            (asks, cursor) = (None, None);
        }
        Ok(Self {
            machine,
            limits,
            reconnect,
            connection: None,
            due: Some(now),
            stream,
            asks,
            cursor,
            calm: false,
            expected: VecDeque::new(),
            delay: (Duration::ZERO, Duration::ZERO),
            retry_at: None,
            ends: None,
            is_over: false,
            failures: 0,
            lost_at: None,
        })
    }

    /// When it does something next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it has ended for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the server sends to it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|it| it.since.is_some() && it.head == Head::Accepted)
    }

    /// The server's faults end, but for those that are under way.
    pub fn calm(&mut self) {
        self.calm = true;
    }

    /// The program stops it.
    ///
    /// # Errors
    ///
    /// It does not end at once.
    pub fn stop(&mut self, now: Instant) -> Checked {
        self.machine.stop();
        self.expected.clear();
        self.ends = Some(false);
        if let Some(connection) = &mut self.connection {
            connection.ended = true;
        }
        self.follow(now, Mode::Works, &mut Choices::recorded(Vec::new()))?;
        if self.is_over { Ok(()) } else { Err("a subscription goes on after a stop".to_owned()) }
    }

    /// Tells the machine what is due, and does all that follows from it at once.
    ///
    /// # Errors
    ///
    /// Something is wrong.
    pub fn advance(&mut self, now: Instant, mode: Mode, choices: &mut Choices) -> Checked {
        if self.due.is_none_or(|due| due > now) {
            return Ok(());
        }
        match &self.connection {
            None => {}
            Some(Connection { since: None, .. }) => self.tell_head(now),
            Some(_) => self.tell_body(now),
        }
        self.follow(now, mode, choices)
    }

    fn follow(&mut self, now: Instant, mode: Mode, choices: &mut Choices) -> Checked {
        for _ in 0..1000 {
            // Both ways to read have to give the same.
            let step = if choices.pick(2) == 0 {
                numbered(self.machine.poll(now), |frame| frame.parse::<Value>().ok())
            } else {
                numbered(self.machine.poll_as::<Value>(now), Some)
            };
            match step {
                Step::Item(item) => self.check_item(&item, now)?,
                Step::Close => match self.connection.take() {
                    Some(Connection { ended: true, .. }) => {}
                    other => return Err(format!("{other:?} was closed")),
                },
                step => return self.settle(&step, now, mode, choices),
            }
        }
        Err("a subscription never waits".to_owned())
    }

    fn check_item(&mut self, item: &SubscriptionEvent<Option<u64>>, now: Instant) -> Checked {
        let found = match *item {
            SubscriptionEvent::Connected { gap, resumed } => Found::Connected(gap, resumed),
            SubscriptionEvent::Data(Some(number)) => Found::Frame(number),
            SubscriptionEvent::Malformed(_) => Found::Malformed,
            SubscriptionEvent::Disconnected { delay, .. } => {
                let (least, most) = self.delay;
                if self.connection.is_some() || delay < least || delay > most {
                    return Err(format!("a delay of {delay:?}, not {least:?} to {most:?}"));
                }
                self.retry_at = Some(now + delay);
                Found::Disconnected
            }
            _ => return Err(format!("a subscriber got {item:?}")),
        };
        match self.expected.pop_front() {
            Some(expected) if expected == found => self.count(&found),
            expected => Err(format!("a subscriber got {found:?}, not {expected:?}")),
        }
    }

    /// An item came: checks that it is what the stream has next, and that the machine knows where it is.
    fn count(&mut self, found: &Found) -> Checked {
        match (found, &mut self.asks) {
            (Found::Connected(_, resumed), asks) => {
                let connection = self.connection.as_ref();
                let Some(Connection { begin: Begin::At { place, .. }, token, .. }) = connection
                else {
                    return Err("a connection that is refused is one".to_owned());
                };
                *asks = token.clone().map(|token| Place { token, values: 0, certain: None });
                self.cursor = match (*resumed, self.cursor) {
                    (Resumed::Fully, Some(cursor)) => Some(cursor),
                    (Resumed::Missing(missing), Some(cursor)) => Some(cursor + missing),
                    _ => Some(*place),
                };
                if matches!(resumed, Resumed::Missing(_))
                    && self.cursor != Some(self.stream.first())
                {
                    return Err(format!("{resumed:?} up to {:?}", self.cursor));
                }
            }
            (Found::Frame(number), asks) => {
                // Without a position, text that is broken leaves nothing to compare with.
                if let Some(cursor) = &mut self.cursor
                    && asks.as_ref().is_none_or(|place| place.certain.is_none())
                {
                    if self.stream.at(*cursor) != Some(*number) {
                        return Err(format!("{number} came, not the event at {cursor}"));
                    }
                    *cursor += 1;
                }
                if let Some(place) = asks {
                    place.values += 1;
                }
            }
            (Found::Malformed, None) => self.cursor = None,
            (Found::Malformed, Some(place)) => {
                place.certain.get_or_insert(place.values);
            }
            (Found::Disconnected, _) => {}
        }
        let (position, known) = (self.machine.position(), self.asks.as_ref().map(Place::text));
        if position.as_ref().map(ToString::to_string) != known {
            return Err(format!("a subscriber is at {position:?}, not at {known:?}"));
        }
        Ok(())
    }

    /// The machine waits for something.
    fn settle<F: std::fmt::Debug>(
        &mut self,
        step: &Step<F>,
        now: Instant,
        mode: Mode,
        choices: &mut Choices,
    ) -> Checked {
        let wrong = || Err(format!("a subscription says {step:?}"));
        if let Some(missing) = self.expected.front() {
            return Err(format!("a subscriber got {step:?}, not {missing:?}"));
        }
        match (step, &self.connection) {
            (Step::Closed(result), None) if self.ends == Some(result.is_err()) => {
                self.is_over = true;
                self.due = None;
            }
            _ if self.ends.is_some() => return wrong(),
            (Step::Wait { until }, None) if self.retry_at == Some(*until) && *until > now => {
                self.due = Some(*until);
            }
            (Step::Connect(call), None) if self.retry_at.is_none_or(|at| at <= now) => {
                if call.limits != self.limits {
                    return wrong();
                }
                let query = call.request.uri().query();
                let asks = self.asks.as_ref().map(Place::query);
                if query != asks.as_deref() {
                    return Err(format!("a subscription asks for {query:?}, not {asks:?}"));
                }
                self.stream.pass(self.calm, choices);
                let begin = self.stream.begin(query)?;
                let head = match self.choose_head(mode, choices) {
                    Head::Accepted if begin == Begin::Gone => Head::Refused(410),
                    head => head,
                };
                let time = match head {
                    Head::Error(TransportErrorKind::HeadTimeout) => self.limits.head,
                    _ => Duration::from_millis(5),
                };
                self.due = Some(now + time);
                let (script, token) = match (head, begin) {
                    (Head::Accepted, Begin::At { place, .. }) => {
                        let token = self.stream.token(place);
                        (Script::of_stream(&mut self.stream, place, self.calm, choices), token)
                    }
                    _ => (Script::of_refusal(choices), None),
                };
                self.connection = Some(Connection {
                    head,
                    since: None,
                    last: now,
                    received: false,
                    script,
                    asked: asks.is_some(),
                    begin,
                    token,
                    ended: false,
                });
            }
            (Step::Read { by }, Some(connection))
                if !connection.ended
                    && by.is_some()
                        == matches!(connection.head, Head::Refused(_) | Head::Busy(..)) =>
            {
                let next = connection.last + connection.script.wait(self.calm);
                let idle = connection.last + self.limits.idle.unwrap_or(LONGEST_DELAY);
                self.due = Some(next.min(idle).min(by.unwrap_or(next)));
            }
            _ => return wrong(),
        }
        Ok(())
    }

    fn tell_head(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        (connection.since, connection.last) = (Some(now), now);
        let head = connection.head;
        // A first connection counts once its head was accepted.
        let retries = self.reconnect == Reconnect::Always
            || self.reconnect != Reconnect::Never && self.lost_at.is_some();
        if let Head::Error(kind) = head {
            connection.ended = true;
            self.machine.handle_end(Err(error(kind)), now);
            return self.expect_end(head, retries, true);
        }
        let mut parts = head.parts();
        let (mut resumed, asked) = (Resumed::No, connection.asked);
        if let (Some(token), Begin::At { missed, .. }) = (&connection.token, connection.begin) {
            parts.headers.extend(token.parse().map(|token| (POSITION, token)));
            if missed > 0 {
                parts.headers.insert(MISSED, missed.into());
            }
            resumed = match missed {
                _ if !asked => Resumed::No,
                0 => Resumed::Fully,
                missed => Resumed::Missing(missed),
            };
        }
        self.machine.handle_head(parts, now);
        match head {
            Head::Accepted => {
                let gap = self.lost_at.map(|lost| now.saturating_duration_since(lost));
                self.expected.push_back(Found::Connected(gap, resumed));
            }
            // Not a position of the program's own: it is tried without one, at once.
            Head::Refused(410) if asked && self.lost_at.is_some() => {
                connection.ended = true;
                (self.asks, self.cursor) = (None, None);
            }
            Head::Busy(..) if retries => {
                connection.ended = true;
                self.expect_end(head, true, true);
            }
            Head::Encoded => {
                connection.ended = true;
                self.ends = Some(true);
            }
            Head::Busy(..) | Head::Refused(_) | Head::Error(_) => {}
        }
    }

    fn tell_body(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        let Some(since) = connection.since else { return };
        let (head, is_refused) = (connection.head, connection.head != Head::Accepted);
        let idle = self.limits.idle.is_some_and(|idle| now - connection.last >= idle);
        let is_late = idle || is_refused && now - since >= REFUSAL_WITHIN;
        let piece = if is_late { None } else { connection.script.next(self.calm) };
        if let Some((piece, found)) = piece {
            connection.last = now;
            connection.received |= !piece.is_empty();
            self.machine.handle_bytes(&piece, now);
            if !is_refused {
                self.expected.extend(found);
            }
            return;
        }
        connection.ended = true;
        let end =
            if is_late { Some(TransportErrorKind::IdleTimeout) } else { connection.script.end() };
        if is_refused {
            self.ends = Some(true);
        } else {
            // What was cut off comes again, if the server knows where that was.
            let is_seen = connection.script.is_cut() && connection.token.is_none();
            self.expected.extend(is_seen.then_some(Found::Malformed));
            if connection.received && now - since >= HEALTHY_AFTER {
                self.failures = 0;
            }
            self.lost_at = Some(now);
            self.expect_end(head, self.reconnect != Reconnect::Never, end.is_some());
        }
        self.machine.handle_end(end.map_or(Ok(()), |kind| Err(error(kind))), now);
    }

    /// The connection is over: says what has to follow.
    fn expect_end(&mut self, head: Head, retries: bool, fails: bool) {
        if !retries {
            self.ends = Some(fails);
            return;
        }
        let whole = FIRST_DELAY.saturating_mul(1 << self.failures.min(20)).min(LONGEST_DELAY);
        self.failures += 1;
        self.delay = ((whole / 2).max(head.pause()), whole.max(head.pause()));
        self.expected.push_back(Found::Disconnected);
    }

    fn choose_head(&self, mode: Mode, choices: &mut Choices) -> Head {
        if self.calm {
            return Head::Accepted;
        }
        match mode {
            Mode::Works => {}
            Mode::Refuses => return Head::Error(TransportErrorKind::Connect),
            Mode::Unavailable => return Head::Busy(503, None),
            Mode::Unauthorized => return Head::Refused(401),
            Mode::Stalls => return Head::Error(TransportErrorKind::HeadTimeout),
        }
        match choices.pick(20) {
            14 => Head::Error(TransportErrorKind::Connect),
            15 => Head::Error(TransportErrorKind::Io),
            16 => Head::Busy(503, choices.of(&[None, Some(2), Some(1000)])),
            17 => Head::Busy(429, choices.of(&[None, Some(1)])),
            18 => Head::Refused(choices.of(&[404, 401, 204, 410])),
            19 => Head::Encoded,
            _ => Head::Accepted,
        }
    }
}

fn error(kind: TransportErrorKind) -> TransportError {
    let is_sent = kind != TransportErrorKind::Connect;
    TransportError::new(kind, if is_sent { Delivery::MaybeSent } else { Delivery::NotSent })
}

/// The step with the number in its frame instead of the frame.
fn numbered<F>(step: Step<F>, value: impl Fn(F) -> Option<Value>) -> Step<Option<u64>> {
    match step {
        Step::Item(SubscriptionEvent::Data(frame)) => {
            let number = value(frame).and_then(|value| value["n"].as_u64());
            Step::Item(SubscriptionEvent::Data(number))
        }
        Step::Item(SubscriptionEvent::Connected { gap, resumed }) => {
            Step::Item(SubscriptionEvent::Connected { gap, resumed })
        }
        Step::Item(SubscriptionEvent::Malformed(error)) => {
            Step::Item(SubscriptionEvent::Malformed(error))
        }
        Step::Item(SubscriptionEvent::Disconnected { cause, delay }) => {
            Step::Item(SubscriptionEvent::Disconnected { cause, delay })
        }
        Step::Item(_) => Step::Item(SubscriptionEvent::Data(None)),
        Step::Connect(call) => Step::Connect(call),
        Step::AwaitHead => Step::AwaitHead,
        Step::Read { by } => Step::Read { by },
        Step::Wait { until } => Step::Wait { until },
        Step::Close => Step::Close,
        Step::Closed(result) => Step::Closed(result),
    }
}
