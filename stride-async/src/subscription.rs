//! Subscriptions as streams: a loop that does what `stride_core::subscribe::Subscription` says.

use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::{FusedStream, Stream};
use http::Response;
use serde::de::DeserializeOwned;
use stride_core::client::Client;
use stride_core::subscribe::{
    Position, Reconnect, Step, SubscribeOptions, Subscription, SubscriptionEvent,
};
use stride_core::transport::TransportErrorKind::{self, HeadTimeout, IdleTimeout};
use stride_core::transport::{
    AsyncBody, AsyncTransport, BoxFuture, Delivery, Limits, TransportError,
};
use stride_core::{Api, Error};

use crate::alarm::{Alarm, after};
use crate::turn::Turn;

/// The most of a chunk that is decoded before other tasks may have their turn, in bytes: what
/// [`Turn`] allows for.
const LARGEST_PIECE: usize = 64 << 10;

/// The options of a subscription that is not connected yet, by
/// [`Stride::subscribe`](crate::Stride::subscribe).
#[derive(Clone)]
#[must_use = "it connects when `events` or `data` is awaited"]
pub struct SubscribeBuilder {
    api: Api,
    transport: Arc<dyn AsyncTransport>,
    options: SubscribeOptions,
}

impl fmt::Debug for SubscribeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubscribeBuilder").field(&self.options).finish()
    }
}

impl SubscribeBuilder {
    pub(crate) fn new(client: &Client<dyn AsyncTransport>, path: &str) -> Self {
        let options = SubscribeOptions::new(path, client.streams());
        Self { api: client.api().clone(), transport: Arc::clone(client.transport()), options }
    }

    /// See [`SubscribeOptions::sample`]: every event by default.
    pub fn sample(mut self, events_per_second: u32) -> Self {
        self.options = self.options.sample(events_per_second);
        self
    }

    /// See [`SubscribeOptions::reconnect`]: after a first connection by default.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.options = self.options.reconnect(reconnect);
        self
    }

    /// See [`SubscribeOptions::after`]: what comes from now on by default.
    pub fn after(mut self, position: Position) -> Self {
        self.options = self.options.after(position);
        self
    }

    /// See [`SubscribeOptions::snapshot`]: the changes alone by default.
    pub fn snapshot(mut self) -> Self {
        self.options = self.options.snapshot();
        self
    }

    /// See [`SubscribeOptions::head_timeout`]: 90 s by default.
    pub fn head_timeout(mut self, head: Duration) -> Self {
        self.options = self.options.head_timeout(head);
        self
    }

    /// See [`SubscribeOptions::idle_timeout`]: 90 s by default.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options = self.options.idle_timeout(idle);
        self
    }

    /// See [`SubscribeOptions::jitter_seed`]: random by default.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.options = self.options.jitter_seed(seed);
        self
    }

    /// Connects, and yields everything that happens: connects and disconnects, values, and anything
    /// that could not be decoded as a `T`.
    ///
    /// Ready with the head of the first response. Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// Those of the options, [`Error::Request`] and [`Error::Config`]; and those of the first
    /// connection, [`Error::Transport`] and [`Error::Status`]. A later error is the last item.
    ///
    /// ```no_run
    /// # use stride_async::Resumed;
    /// # use stride_async::SubscriptionEvent::{Connected, Data};
    /// # async fn example(stride: stride_async::Stride) -> Result<(), stride_async::Error> {
    /// let mut changes = stride.subscribe("/process/myproc").events::<serde_json::Value>().await?;
    /// while let Some(event) = changes.next().await.transpose()? {
    ///     if let Connected { gap: Some(gap), resumed: Resumed::No } = &event {
    ///         println!("changes of {gap:?} are missing");
    ///     } else if let Data(change) = event {
    ///         println!("{change}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn events<T: DeserializeOwned>(self) -> Result<Events<T>, Error> {
        let Self { api, transport, options } = self;
        let mut driver = Driver {
            subscription: options.start(&api, fastrand::u64(..))?,
            transport,
            limits: Limits::for_stream(),
            response: Box::pin(pending()),
            body: AsyncBody::default(),
            chunk: Bytes::new(),
            alarm: Alarm::default(),
            turn: Turn::default(),
            limit_at: None,
            now: tokio::time::Instant::now().into_std(),
            is_over: false,
        };
        let first = poll_fn(|context| driver.poll_next(context)).await.transpose()?;
        Ok(Events { first, driver })
    }

    /// Connects, and yields the values alone. Connections that are lost are made again silently;
    /// text that is not valid JSON is counted ([`Data::malformed`]) and skipped.
    ///
    /// # Errors
    ///
    /// Those of [`events`](Self::events). A value that is not a `T` ends the stream with
    /// [`Error::Data`].
    pub async fn data<T: DeserializeOwned>(self) -> Result<Data<T>, Error> {
        Ok(Data(self.events().await?))
    }
}

/// Everything that happens on a subscription, by [`SubscribeBuilder::events`]. It goes on for as long
/// as it is held: dropping it stops it and closes the connection at once.
#[must_use = "dropping it ends the subscription"]
pub struct Events<T> {
    /// The outcome of connecting, until it is taken.
    first: Option<SubscriptionEvent<T>>,
    driver: Driver,
}

impl<T: DeserializeOwned> Events<T> {
    /// Waits for what happens next; `None` when the subscription is over.
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What ended the subscription: a refusal ([`Error::Status`]), or a failure where
    /// [`Reconnect`] allows no further attempt.
    pub async fn next(&mut self) -> Option<Result<SubscriptionEvent<T>, Error>> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<SubscriptionEvent<T>, Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.driver.poll_next(context),
        }
    }
}

impl<T> Events<T> {
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

// No event is ever pinned.
impl<T> Unpin for Events<T> {}

impl<T: DeserializeOwned> Stream for Events<T> {
    type Item = Result<SubscriptionEvent<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

/// The values of a subscription, by [`SubscribeBuilder::data`]. It goes on for as long as it is held:
/// dropping it stops it and closes the connection at once.
#[must_use = "dropping it ends the subscription"]
pub struct Data<T>(Events<T>);

impl<T: DeserializeOwned> Data<T> {
    /// Waits for the next value; `None` when the subscription is over.
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What ended the subscription: a value that is not a `T` ([`Error::Data`]), a refusal
    /// ([`Error::Status`]), or a failure where [`Reconnect`] allows no further attempt.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        loop {
            let event = match ready!(self.0.poll(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(event)) => event,
            };
            match event.into_data() {
                None => {}
                Some(Ok(value)) => return Poll::Ready(Some(Ok(value))),
                Some(Err(error)) => {
                    self.0.driver.stop();
                    return Poll::Ready(Some(Err(self.0.driver.subscription.data_error(error))));
                }
            }
        }
    }
}

impl<T> Data<T> {
    /// The place behind the last value, for [`SubscribeBuilder::after`]. See
    /// [`Subscription::position`].
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position()
    }

    /// The number of malformed frames so far.
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

impl<T: DeserializeOwned> Stream for Data<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl<T: DeserializeOwned> FusedStream for Events<T> {
    fn is_terminated(&self) -> bool {
        self.first.is_none() && self.driver.is_over
    }
}

impl<T: DeserializeOwned> FusedStream for Data<T> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

/// Does what the subscription says, and decides nothing.
struct Driver {
    transport: Arc<dyn AsyncTransport>,
    subscription: Subscription,
    /// Of the connection.
    limits: Limits,
    /// While the head of a response is awaited.
    response: BoxFuture<Result<Response<AsyncBody>, TransportError>>,
    body: AsyncBody,
    /// What is left of the last chunk.
    chunk: Bytes,
    alarm: Alarm,
    turn: Turn,
    /// When the present wait takes too long.
    limit_at: Option<tokio::time::Instant>,
    /// As of the last wait: events that are there already cost no look at the clock.
    now: Instant,
    /// Nothing more will come.
    is_over: bool,
}

impl Driver {
    fn poll_next<T: DeserializeOwned>(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<SubscriptionEvent<T>, Error>>> {
        let next = loop {
            // What is there already needs no waiting: without this, a busy stream would not let the
            // other tasks of its thread run. One step is never long, but for decoding one value.
            ready!(self.turn.poll(context));
            match self.subscription.poll_as(self.now) {
                Step::Connect(call) => {
                    self.limits = call.limits;
                    self.response = self.transport.send(*call);
                }
                Step::AwaitHead => {
                    let response = match self.response.as_mut().poll(context) {
                        Poll::Ready(response) => response,
                        Poll::Pending => {
                            let limit = self.limits.connect.saturating_add(self.limits.head);
                            Err(ready!(self.poll_limit(Some(limit), None, HeadTimeout, context)))
                        }
                    };
                    self.waited();
                    let body = self.subscription.handle_response(response, self.now);
                    self.body = body.unwrap_or_default();
                }
                Step::Read { .. } if !self.chunk.is_empty() => {
                    let piece = self.chunk.split_to(self.chunk.len().min(LARGEST_PIECE));
                    self.turn.did(piece.len());
                    self.subscription.handle_bytes(&piece, self.now);
                }
                Step::Read { by } => {
                    let chunk = match Pin::new(&mut self.body).poll_next(context) {
                        Poll::Ready(chunk) => chunk.transpose(),
                        Poll::Pending => {
                            let idle = self.limits.idle;
                            Err(ready!(self.poll_limit(idle, by, IdleTimeout, context)))
                        }
                    };
                    self.waited();
                    match chunk {
                        Ok(Some(chunk)) if chunk.is_empty() => self.turn.did(0),
                        Ok(Some(chunk)) => self.chunk = chunk,
                        end => self.subscription.handle_end(end.map(drop), self.now),
                    }
                }
                Step::Wait { until } => {
                    if let Err(none) = ready!(self.alarm.poll(until.into(), context)) {
                        self.stop();
                        break Some(Err(none.with(Delivery::NotSent).into()));
                    }
                    self.waited();
                }
                Step::Close => self.close(),
                Step::Item(event) => {
                    self.turn.did(0);
                    break Some(Ok(event));
                }
                Step::Closed(result) => break result.err().map(Err),
            }
        };
        self.is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    /// Holds any transport to a limit, also one that keeps none itself, such as a mock that hangs;
    /// and to a time, where the subscription sets one. The clock starts with the wait.
    fn poll_limit(
        &mut self,
        limit: Option<Duration>,
        by: Option<Instant>,
        kind: TransportErrorKind,
        context: &mut Context<'_>,
    ) -> Poll<TransportError> {
        if self.limit_at.is_none() {
            self.limit_at = [limit.map(after), by.map(Into::into)].into_iter().flatten().min();
        }
        match self.limit_at.map(|at| self.alarm.poll(at, context)) {
            Some(Poll::Ready(Ok(()))) => {
                Poll::Ready(TransportError::new(kind, Delivery::MaybeSent))
            }
            // Without a runtime there is no clock to hold it by.
            _ => Poll::Pending,
        }
    }

    /// Notes the time after a wait.
    fn waited(&mut self) {
        self.limit_at = None;
        self.now = tokio::time::Instant::now().into_std();
    }

    fn close(&mut self) {
        self.response = Box::pin(pending());
        self.body = AsyncBody::default();
        self.chunk = Bytes::new();
    }

    fn stop(&mut self) {
        self.subscription.stop();
        self.close();
    }
}
