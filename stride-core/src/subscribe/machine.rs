//! A subscription as a state machine: it decides when to connect, what a broken connection means
//! and how long to wait, and is told everything else.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, response};
use serde::de::DeserializeOwned;

use super::event::{DisconnectCause, Resumed, SubscriptionEvent};
use super::position::{Position, Progress, with_query};
use super::step::Step;
use crate::error::Error;
use crate::frame::{Frame, FrameDecoder, FrameError};
use crate::response::{DataError, Response, StatusError, check_encoding};
use crate::retry::{Backoff, Jitter, is_transient, least_delay};
use crate::transport::{Attempt, Call, Limits, TransportError};

/// The first delay before connecting again; it doubles with every failure.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The longest delay before connecting again.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long a connection must have lived, and not in silence, to count as healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// How much is read of the body of a response that ends the subscription, in bytes.
const MAX_REFUSAL: usize = 64 << 10;

/// How long reading that body may take as a whole: the status is what matters.
const REFUSAL_WITHIN: Duration = Duration::from_secs(10);

/// When a [`Subscription`] connects again. The default does once it has been connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reconnect {
    /// A first connection that fails ends the subscription; one that is lost later is made again.
    #[default]
    AfterFirstConnect,
    /// A first connection that fails is tried again, too, if its failure may pass.
    Always,
    /// Never: the subscription ends with its connection.
    Never,
}

fn as_dyn(error: &Error) -> &(dyn StdError + 'static) {
    error
}

/// A subscription, without the IO: [`poll`](Self::poll) says what to do next, and the `handle_`
/// methods report what came of it. Time is an argument throughout.
///
/// The limits on connecting, on the head and on silence belong to the transport, which reports them
/// as errors; only the delays between connections are kept here. After a lost connection the next
/// attempt waits 500 ms, then twice as long up to 30 s, of which a random part of at most half is
/// taken off. Only a connection that lived for 30 s and received a byte starts the count again.
/// `Retry-After` is obeyed, up to 300 s. Statuses that may pass (408, 425, 429, 5xx but 501 and 505)
/// are tried again like broken connections. Any other status than 200 ends the subscription with an
/// error that holds the response; of its body at most 64 KiB are read, within 10 s. So does a 200
/// whose body is encoded, for example compressed, because that was not asked for.
///
/// A connection to a server that knows positions begins where the one before it ended; see
/// [`resuming`](super::resuming).
///
/// ```
/// use std::time::Instant;
/// use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
/// use stride_core::transport::Limits;
/// use stride_core::Api;
///
/// let request = Api::new("key")?.subscribe("/collect/app_events", None)?;
/// let now = Instant::now();
/// let mut subscription =
///     Subscription::new(request, Limits::for_stream(), Reconnect::default(), 42);
/// let Step::Connect(call) = subscription.poll(now) else { panic!("it starts by connecting") };
/// assert_eq!(call.request.uri().path(), "/v1/collect/app_events/subscribe");
///
/// // The transport of your choice sends it and tells what comes back.
/// let (head, ()) = http::Response::new(()).into_parts();
/// subscription.handle_head(head, now);
/// assert!(matches!(subscription.poll(now), Step::Item(SubscriptionEvent::Connected { .. })));
/// assert!(matches!(subscription.poll(now), Step::Read { by: None }));
///
/// subscription.handle_bytes(b"{\"bojack\": \"horseman\"}\r\n", now);
/// let Step::Item(SubscriptionEvent::Data(frame)) = subscription.poll(now) else { panic!() };
/// assert_eq!(frame.as_str(), r#"{"bojack": "horseman"}"#);
/// # Ok::<(), stride_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Subscription {
    // Apart from the decoder, because an item borrows the decoder while the machine moves on.
    machine: Machine,
    decoder: FrameDecoder,
}

#[derive(Debug)]
struct Machine {
    request: Request<Bytes>,
    limits: Limits,
    reconnect: Reconnect,
    backoff: Backoff,
    state: State,
    /// When the last connection was lost, once there was one.
    lost_at: Option<Instant>,
    /// To be given out before anything that was read.
    // Boxed, because it is looked at for each event, and there is hardly ever any.
    news: Option<Box<News>>,
    progress: Progress,
    /// The connection begins with a snapshot, of so many rows.
    has_snapshot: bool,
    rows: u64,
    /// The driver still holds a connection that is over.
    must_close: bool,
    /// To be given out once that connection is closed.
    disconnected: Option<(DisconnectCause, Duration)>,
    malformed: u64,
}

/// What the user does not know of yet.
#[derive(Debug)]
enum News {
    Connected {
        gap: Option<Duration>,
        resumed: Resumed,
        progress: Progress,
        /// The rows that the connection begins with.
        snapshot: Option<u64>,
    },
    SnapshotDone,
}

/// How many rows of a process a response begins with.
const SNAPSHOT: &str = "stride-snapshot";

/// The query that asks for them.
const ASK_SNAPSHOT: &str = "snapshot=1";

#[derive(Debug)]
enum State {
    Unconnected,
    AwaitingHead,
    Streaming {
        since: Instant,
        received: bool,
    },
    /// Reading the body of a response that ends the subscription.
    Refused {
        // Boxed, because all other states are small.
        head: Box<response::Parts>,
        body: BytesMut,
        by: Instant,
    },
    Waiting {
        until: Instant,
    },
    Closed(Option<Error>),
}

impl Subscription {
    /// A subscription that sends `request`, made by [`Api::subscribe`](crate::Api::subscribe), with
    /// these limits. The seed decides the jitter: give every client a different one.
    #[must_use]
    pub fn new(request: Request<Bytes>, limits: Limits, reconnect: Reconnect, seed: u64) -> Self {
        let backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, Jitter::UpperHalf, seed);
        let machine = Machine {
            request,
            limits,
            reconnect,
            backoff,
            state: State::Unconnected,
            lost_at: None,
            news: None,
            progress: Progress::default(),
            has_snapshot: false,
            rows: 0,
            must_close: false,
            disconnected: None,
            malformed: 0,
        };
        Self { machine, decoder: FrameDecoder::new() }
    }

    /// The same, going on from a position. Its request must not have a sample.
    #[must_use]
    pub fn after(mut self, position: Position) -> Self {
        self.machine.progress = Progress::after(position);
        self
    }

    /// The same, beginning each connection with all rows of the process.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        let uri = self.machine.request.uri_mut();
        // One without room for this is refused by every server.
        *uri = with_query(uri, ASK_SNAPSHOT).unwrap_or_else(|| uri.clone());
        self
    }

    /// What to do next, with items as text that is not parsed yet.
    pub fn poll(&mut self, now: Instant) -> Step<Frame<'_>> {
        let Self { machine, decoder } = self;
        if let Some(news) = machine.news.take() {
            return machine.tell(*news);
        }
        match decoder.next_frame() {
            Some(Ok(value)) => machine.value(value),
            Some(Err(error)) => machine.malformed(error, now),
            None => machine.step(now),
        }
    }

    /// What to do next, with items parsed as `T`.
    pub fn poll_as<T: DeserializeOwned>(&mut self, now: Instant) -> Step<T> {
        let Self { machine, decoder } = self;
        if let Some(news) = machine.news.take() {
            return machine.tell(*news);
        }
        match decoder.next_as() {
            Some(Ok(value)) => machine.value(value),
            Some(Err(error)) => machine.malformed(error, now),
            None => machine.step(now),
        }
    }

    /// The head of the response was received.
    pub fn handle_head(&mut self, head: response::Parts, now: Instant) {
        let machine = &mut self.machine;
        if !matches!(machine.state, State::AwaitingHead) {
            return;
        }
        if head.status == StatusCode::OK {
            if let Err(error) = check_encoding(&head.headers) {
                return machine.close(error.with_attempt(machine.attempt()).into());
            }
            let gap = machine.lost_at.map(|lost| now.saturating_duration_since(lost));
            // A sample leaves events out, so its values are not places in the stream.
            let (progress, resumed) = match machine.request.uri().query() {
                None => machine.progress.of_connection(&head.headers),
                Some(_) => (Progress::default(), Resumed::No),
            };
            let path = machine.request.uri().path();
            tracing::debug!(target: "stride::subscription", path, ?gap, ?resumed, "connected");
            let asked = machine.request.uri().query() == Some(ASK_SNAPSHOT);
            let rows = head.headers.get(SNAPSHOT).filter(|_| asked);
            let snapshot = rows.and_then(|rows| rows.to_str().ok()?.parse().ok());
            machine.news = Some(Box::new(News::Connected { gap, resumed, progress, snapshot }));
            machine.state = State::Streaming { since: now, received: false };
            self.decoder = FrameDecoder::new();
        } else if head.status == StatusCode::GONE && machine.may_forget() {
            let path = machine.request.uri().path();
            tracing::warn!(target: "stride::subscription", path, "the position is gone");
            // At once: only a connection that was accepted brings another position to be refused.
            machine.progress = Progress::default();
            machine.must_close = true;
            machine.state = State::Unconnected;
        } else if is_transient(head.status) && machine.may_retry() {
            let least = least_delay(head.status, &head.headers);
            machine.disconnected(DisconnectCause::Status(head.status), least, now);
        } else {
            let (head, by) = (Box::new(head), now + REFUSAL_WITHIN);
            machine.state = State::Refused { head, body: BytesMut::new(), by };
        }
    }

    /// A chunk of the body was received.
    pub fn handle_bytes(&mut self, chunk: &[u8], now: Instant) {
        match &mut self.machine.state {
            State::Streaming { received, .. } => {
                *received |= !chunk.is_empty();
                self.decoder.feed(chunk);
            }
            State::Refused { body, by, .. } => {
                let room = MAX_REFUSAL - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() == MAX_REFUSAL || now >= *by {
                    self.machine.refused();
                }
            }
            _ => {}
        }
    }

    /// The body has ended, or sending or reading failed.
    pub fn handle_end(&mut self, end: Result<(), TransportError>, now: Instant) {
        let machine = &mut self.machine;
        match machine.state {
            State::Streaming { .. } => self.decoder.finish(),
            // The status is what matters, however much of the body is there.
            State::Refused { .. } => return machine.refused(),
            State::AwaitingHead => {}
            _ => return,
        }
        let cause = match end {
            Ok(()) => DisconnectCause::Ended,
            Err(error) => DisconnectCause::Transport(error.with_attempt(machine.attempt())),
        };
        machine.disconnected(cause, Duration::ZERO, now);
    }

    /// What came of sending: the head is taken, and the body returned for the driver to read.
    pub fn handle_response<B>(
        &mut self,
        response: Result<http::Response<B>, TransportError>,
        now: Instant,
    ) -> Option<B> {
        match response {
            Ok(response) => {
                let (head, body) = response.into_parts();
                self.handle_head(head, now);
                Some(body)
            }
            Err(error) => {
                self.handle_end(Err(error), now);
                None
            }
        }
    }

    /// Ends the subscription: what was read but not taken yet is dropped.
    pub fn stop(&mut self) {
        let machine = &mut self.machine;
        machine.must_close |= machine.has_connection();
        machine.news = None;
        machine.disconnected = None;
        if !matches!(machine.state, State::Closed(_)) {
            machine.state = State::Closed(None);
        }
        self.decoder = FrameDecoder::new();
    }

    /// The place behind the last item that was handed out, to start another subscription
    /// [`after`](Self::after) it. `None` while there is no connection from which one could go on:
    /// before the first one, with a sample, or if the server knows no positions.
    ///
    /// Behind text that is not valid JSON it stays where it was, until the next connection: how many
    /// events the text was is not known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.machine.progress.position()
    }

    /// The number of malformed frames so far.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.machine.malformed
    }

    /// A value that was not of the type asked for, as an error that names this subscription.
    #[must_use]
    pub fn data_error(&self, error: FrameError) -> Error {
        DataError::new(error, Some(self.machine.attempt())).into()
    }
}

impl Machine {
    #[cold]
    fn tell<F>(&mut self, news: News) -> Step<F> {
        Step::Item(match news {
            News::Connected { gap, resumed, progress, snapshot } => {
                self.progress = progress;
                self.has_snapshot = snapshot.is_some();
                self.rows = snapshot.unwrap_or_default();
                if snapshot == Some(0) {
                    self.news = Some(Box::new(News::SnapshotDone));
                }
                SubscriptionEvent::Connected { gap, resumed }
            }
            News::SnapshotDone => SubscriptionEvent::SnapshotDone,
        })
    }

    fn value<F>(&mut self, value: F) -> Step<F> {
        self.count();
        Step::Item(SubscriptionEvent::Data(value))
    }

    #[inline(always)]
    fn count(&mut self) {
        if self.progress.count() == self.rows {
            self.news = Some(Box::new(News::SnapshotDone));
        }
    }

    #[cold]
    fn malformed<F>(&mut self, error: FrameError, now: Instant) -> Step<F> {
        match error {
            // It comes again, as a whole. Nothing of the connection is left behind it.
            FrameError::Truncated { .. } if self.progress.is_known() || self.has_snapshot => {
                return self.step(now);
            }
            // One event, whatever is in it.
            FrameError::Mismatch(_) => self.count(),
            _ => self.progress.doubt(),
        }
        self.malformed += 1;
        let path = self.request.uri().path();
        tracing::warn!(target: "stride::subscription", path, %error, "malformed frame");
        Step::Item(SubscriptionEvent::Malformed(error))
    }

    fn attempt(&self) -> Attempt {
        Attempt::of(&self.request)
    }

    /// What to do when nothing that was read is left.
    fn step<F>(&mut self, now: Instant) -> Step<F> {
        if matches!(self.state, State::Refused { by, .. } if now >= by) {
            self.refused();
        }
        if std::mem::take(&mut self.must_close) {
            return Step::Close;
        }
        if let Some((cause, delay)) = self.disconnected.take() {
            return Step::Item(SubscriptionEvent::Disconnected { cause, delay });
        }
        match &mut self.state {
            State::Waiting { until } if now < *until => Step::Wait { until: *until },
            State::Unconnected | State::Waiting { .. } => {
                self.state = State::AwaitingHead;
                let request = self.progress.ask(&self.request);
                Step::Connect(Box::new(Call::new(request, self.limits)))
            }
            State::AwaitingHead => Step::AwaitHead,
            State::Streaming { .. } => Step::Read { by: None },
            State::Refused { by, .. } => Step::Read { by: Some(*by) },
            State::Closed(error) => Step::Closed(error.take().map_or(Ok(()), Err)),
        }
    }

    fn has_connection(&self) -> bool {
        matches!(self.state, State::AwaitingHead | State::Streaming { .. } | State::Refused { .. })
    }

    /// Whether another connection follows when the present one fails.
    fn may_retry(&self) -> bool {
        match self.reconnect {
            Reconnect::Never => false,
            Reconnect::Always => true,
            Reconnect::AfterFirstConnect => {
                self.lost_at.is_some() || matches!(self.state, State::Streaming { .. })
            }
        }
    }

    /// Whether a position that is refused leads to an attempt without it: not one of the user's.
    fn may_forget(&self) -> bool {
        self.lost_at.is_some() && self.progress.is_known()
    }

    /// Ends a connection that may be made again.
    fn disconnected(&mut self, cause: DisconnectCause, least: Duration, now: Instant) {
        let path = self.request.uri().path();
        self.must_close = true;
        if !self.may_retry() {
            cause.log(|cause, error| {
                tracing::debug!(target: "stride::subscription", path, cause, error, "ended");
            });
            self.state = State::Closed(match cause {
                DisconnectCause::Transport(error) => Some(error.into()),
                DisconnectCause::Ended | DisconnectCause::Status(_) => None,
            });
            return;
        }
        if let State::Streaming { since, received } = self.state {
            if received && now.saturating_duration_since(since) >= HEALTHY_AFTER {
                self.backoff.reset();
            }
            self.lost_at = Some(now);
        }
        let delay = self.backoff.next_delay().max(least);
        cause.log(|cause, error| {
            tracing::warn!(target: "stride::subscription", path, cause, error, ?delay, "disconnected");
        });
        self.state = State::Waiting { until: now + delay };
        self.disconnected = Some((cause, delay));
    }

    /// The response that ends the subscription has been read.
    fn refused(&mut self) {
        if let State::Refused { head, body, .. } =
            std::mem::replace(&mut self.state, State::Closed(None))
        {
            let response = Response::from(http::Response::from_parts(*head, body.freeze()));
            self.close(StatusError::from(response.with_attempt(self.attempt())).into());
        }
    }

    /// Ends the subscription with an error.
    fn close(&mut self, error: Error) {
        tracing::warn!(target: "stride::subscription", error = as_dyn(&error), "refused");
        self.must_close = true;
        self.state = State::Closed(Some(error));
    }
}
