//! Subscriptions as iterators: a loop that does what `stride_core::subscribe::Subscription` says.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use stride_core::cancel::{CancelRegistration, CancelToken};
use stride_core::client::Client;
use stride_core::subscribe::{
    Position, Reconnect, Step, SubscribeOptions, Subscription, SubscriptionEvent,
};
use stride_core::transport::{Body, Transport, TransportError};
use stride_core::{Api, Error};

/// Options for a subscription. Made by [`Stride::subscribe`](crate::Stride::subscribe).
#[derive(Clone)]
#[must_use = "it connects when `events` or `data` is called"]
pub struct SubscribeBuilder {
    api: Api,
    transport: Arc<dyn Transport>,
    options: SubscribeOptions,
    stop: CancelToken,
}

impl fmt::Debug for SubscribeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubscribeBuilder").field(&self.options).finish()
    }
}

impl SubscribeBuilder {
    pub(crate) fn new(client: &Client<dyn Transport>, path: &str) -> Self {
        let options = SubscribeOptions::new(path, client.streams());
        Self {
            api: client.api().clone(),
            transport: Arc::clone(client.transport()),
            options,
            stop: CancelToken::new(),
        }
    }

    /// Asks the server for at most so many events per second; all of them by default.
    pub fn sample(mut self, events_per_second: u32) -> Self {
        self.options = self.options.sample(events_per_second);
        self
    }

    /// When to connect again. By default a first connection that fails is an error, and one that is
    /// lost later is made again, for as long as it takes.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.options = self.options.reconnect(reconnect);
        self
    }

    /// Starts behind a position of the same stream, such as one that was saved, instead of with what
    /// comes from now on. If the server no longer knows it, the first connection is refused with 410.
    /// See [`SubscribeOptions::after`].
    pub fn after(mut self, position: Position) -> Self {
        self.options = self.options.after(position);
        self
    }

    /// Begins with all rows that the process has; see [`SubscribeOptions::snapshot`].
    pub fn snapshot(mut self) -> Self {
        self.options = self.options.snapshot();
        self
    }

    /// How long the head of the server's response may take, on every connection; 90 s by default.
    /// See [`SubscribeOptions::head_timeout`].
    pub fn head_timeout(mut self, head: Duration) -> Self {
        self.options = self.options.head_timeout(head);
        self
    }

    /// How long the server may send nothing before the connection counts as lost; 90 s by default.
    /// See [`SubscribeOptions::idle_timeout`].
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options = self.options.idle_timeout(idle);
        self
    }

    /// Makes the delays between connections the same in every run, for tests; random by default.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.options = self.options.jitter_seed(seed);
        self
    }

    /// Stops the subscription from another thread, also while [`events`](Self::events) or
    /// [`data`](Self::data) is still connecting. Clones of this builder share it.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// Connects, and iterates over everything that happens: connects and disconnects, values, and
    /// anything that could not be decoded as a `T`.
    ///
    /// It returns with the head of the first response, which takes at most
    /// [`connect_timeout`](crate::StrideBuilder::connect_timeout) and
    /// [`head_timeout`](Self::head_timeout) together.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] for a path that cannot be subscribed to, a sample of 0 or a sample after a
    /// position, [`Error::Config`] for a time-out of zero, [`Error::Transport`] when the first connection
    /// fails, and [`Error::Status`] when it is refused. Later errors are items; an error is always
    /// the last item.
    ///
    /// ```no_run
    /// use serde_json::Value;
    /// use stride_blocking::SubscriptionEvent;
    ///
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// for event in stride.subscribe("/process/myproc").events::<Value>()? {
    ///     match event? {
    ///         SubscriptionEvent::Data(change) => println!("{change}"),
    ///         SubscriptionEvent::Disconnected { cause, delay } => {
    ///             eprintln!("{cause}; connecting again in {delay:?}");
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn events<T: DeserializeOwned>(self) -> Result<Events<T>, Error> {
        let Self { api, transport, options, stop } = self;
        let mut driver = Driver {
            subscription: options.start(&api, fastrand::u64(..))?,
            transport,
            connection: None,
            stop,
            now: Instant::now(),
        };
        let first = driver.next().transpose()?;
        Ok(Events { first, driver })
    }

    /// Connects, and iterates over the values alone. Connections that are lost are made again
    /// silently; text that is not valid JSON is counted ([`Data::malformed`]) and skipped.
    ///
    /// # Errors
    ///
    /// As [`events`](Self::events); and a value that is not a `T` is an error ([`Error::Data`]),
    /// which ends the iterator like any other.
    ///
    /// ```no_run
    /// #[derive(Debug, serde::Deserialize)]
    /// struct AppEvent {
    ///     x: i64,
    /// }
    ///
    /// # let stride = stride_blocking::Stride::new("secret_key")?;
    /// for event in stride.subscribe("/collect/app_events").data::<AppEvent>()? {
    ///     println!("{}", event?.x);
    /// }
    /// # Ok::<(), stride_blocking::Error>(())
    /// ```
    pub fn data<T: DeserializeOwned>(self) -> Result<Data<T>, Error> {
        Ok(Data(self.events()?))
    }
}

/// Everything that happens on a subscription, by [`SubscribeBuilder::events`]. It waits for what
/// comes next for as long as it takes, unless it is stopped: see [`stop_handle`](Self::stop_handle).
/// Dropping it closes the connection.
pub struct Events<T> {
    /// The outcome of connecting, until it is taken.
    first: Option<SubscriptionEvent<T>>,
    driver: Driver,
}

impl<T> Events<T> {
    /// Stops the iterator from another thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.driver.stop.clone())
    }

    /// The place behind the last item, for [`SubscribeBuilder::after`]. See
    /// [`Subscription::position`].
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.driver.subscription.position()
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Iterator for Events<T> {
    type Item = Result<SubscriptionEvent<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.first.take() {
            Some(first) if !self.driver.stop.is_cancelled() => Some(Ok(first)),
            _ => self.driver.next(),
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Events<T> {}

/// The values of a subscription, by [`SubscribeBuilder::data`]. It waits for the next one for as long
/// as it takes, unless it is stopped: see [`stop_handle`](Self::stop_handle). Dropping it closes the
/// connection.
pub struct Data<T>(Events<T>);

impl<T> Data<T> {
    /// Stops the iterator from another thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.0.stop_handle()
    }

    /// The place behind the last value, for [`SubscribeBuilder::after`]. See
    /// [`Subscription::position`].
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position()
    }

    /// The number of malformed frames so far: text that is not valid JSON, and values that were cut
    /// off or too large.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.0.driver.subscription.malformed()
    }
}

impl<T> fmt::Debug for Data<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").field("malformed", &self.malformed()).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Iterator for Data<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = match self.0.next()? {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            match event.into_data() {
                None => {}
                Some(Ok(value)) => return Some(Ok(value)),
                Some(Err(error)) => {
                    self.0.driver.close();
                    return Some(Err(self.0.driver.subscription.data_error(error)));
                }
            }
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Data<T> {}

/// Stops a subscription from another thread, even if no byte arrives.
#[derive(Debug, Clone)]
pub struct StopHandle(CancelToken);

impl StopHandle {
    /// Ends the iterator: it returns `None` soon, whether it is waiting for an event, for a response,
    /// for a connection to open or for the next attempt. What was received but not taken yet is
    /// dropped.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// Does what the subscription says, and decides nothing.
struct Driver {
    transport: Arc<dyn Transport>,
    subscription: Subscription,
    connection: Option<Connection>,
    stop: CancelToken,
    /// As of the last wait: events that are there already cost no look at the clock.
    now: Instant,
}

/// What is open between `Connect` and `Close`.
struct Connection {
    body: Body,
    /// Interrupts this connection alone.
    cancel: CancelToken,
    _stop: CancelRegistration,
    limit: Option<Limit>,
}

impl Connection {
    fn next(&mut self, by: Option<Instant>) -> Option<Result<Bytes, TransportError>> {
        if let (Some(by), None) = (by, &self.limit) {
            self.limit = Limit::start(by, self.cancel.clone());
        }
        self.body.next()
    }
}

/// Cancels a connection at a time, unless it is dropped before: a thread, because nothing else ends
/// a blocked read. Only the body of a refusal needs one.
struct Limit {
    _dropped: Sender<()>,
}

impl Limit {
    /// `None` if a thread cannot be started; the idle limit still holds then.
    fn start(at: Instant, cancel: CancelToken) -> Option<Self> {
        let (_dropped, dropped) = mpsc::channel::<()>();
        let wait = move || {
            let left = at.saturating_duration_since(Instant::now());
            if dropped.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                cancel.cancel();
            }
        };
        thread::Builder::new().name("stride-limit".to_owned()).spawn(wait).ok()?;
        Some(Self { _dropped })
    }
}

impl Driver {
    fn next<T: DeserializeOwned>(&mut self) -> Option<Result<SubscriptionEvent<T>, Error>> {
        loop {
            // Looked at before anything else: the outcome of an interrupted wait means nothing.
            if self.stop.is_cancelled() {
                self.close();
            }
            match self.subscription.poll_as(self.now) {
                Step::Connect(call) => {
                    let cancel = CancelToken::new();
                    let interrupted = cancel.clone();
                    let stop = self.stop.on_cancel(move || interrupted.cancel());
                    let response = self.transport.send(*call, cancel.clone());
                    if self.waited() {
                        let body = self.subscription.handle_response(response, self.now);
                        self.connection =
                            body.map(|body| Connection { body, cancel, _stop: stop, limit: None });
                    }
                }
                // Not reached, because `send` returns with the head.
                Step::AwaitHead => self.subscription.handle_end(Ok(()), self.now),
                Step::Read { by } => {
                    let chunk = self.connection.as_mut().and_then(|it| it.next(by)).transpose();
                    if self.waited() {
                        match chunk {
                            Ok(Some(chunk)) => self.subscription.handle_bytes(&chunk, self.now),
                            end => self.subscription.handle_end(end.map(drop), self.now),
                        }
                    }
                }
                Step::Wait { until } => {
                    let (wake, woken) = mpsc::channel();
                    let _stop = self.stop.on_cancel(move || {
                        let _ = wake.send(());
                    });
                    // Whether it was woken is seen from the flag.
                    let _ = woken.recv_timeout(until.saturating_duration_since(Instant::now()));
                    self.now = Instant::now();
                }
                Step::Close => self.connection = None,
                Step::Item(event) => return Some(Ok(event)),
                Step::Closed(result) => return result.err().map(Err),
            }
        }
    }

    /// Notes the time after a wait, and tells whether it was not interrupted.
    fn waited(&mut self) -> bool {
        self.now = Instant::now();
        !self.stop.is_cancelled()
    }

    fn close(&mut self) {
        self.subscription.stop();
        self.connection = None;
    }
}
