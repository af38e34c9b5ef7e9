//! Subscriptions as streams: a loop that does what `stride_core::subscribe::Subscription` says.

use std::fmt;
use std::future::{pending, poll_fn};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use http::Response;
use serde::de::DeserializeOwned;
use stride_core::Error;
use stride_core::api::RequestError;
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::{
    AsyncBody, AsyncTarget, AsyncTransport, BoxFuture, Delivery, Limits, TransportError,
};
use tokio::task::coop;

use crate::alarm::Alarm;
use crate::client::not_zero;

/// A subscription that is about to be made. Made by [`Stride::subscribe`](crate::Stride::subscribe).
#[must_use = "it connects when events() or data() is awaited"]
pub struct SubscribeBuilder {
    target: AsyncTarget,
    path: String,
    limits: Limits,
    sample: Option<u32>,
    reconnect: Reconnect,
    jitter_seed: Option<u64>,
}

impl fmt::Debug for SubscribeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SubscribeBuilder {
    pub(crate) fn new(target: AsyncTarget, path: &str, limits: Limits) -> Self {
        let path = path.to_owned();
        let reconnect = Reconnect::default();
        Self { target, path, limits, sample: None, reconnect, jitter_seed: None }
    }

    /// Asks the server for at most so many events per second; all of them by default.
    pub fn sample(mut self, events_per_second: u32) -> Self {
        self.sample = Some(events_per_second);
        self
    }

    /// When to connect again. By default a first connection that fails is an error, and one that is
    /// lost later is made again, for ever.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// How long the server may send nothing, not even a keep-alive, before the connection counts as
    /// lost; 90 s by default, several keep-alives long. The clock runs only while the stream is
    /// waited for, so time spent on an event does not count.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.limits.idle = Some(idle);
        self
    }

    /// Makes the delays between connections the same in every run, for tests that compare them. By
    /// default the seed is chance, so that clients that lost their connections together do not come
    /// back together.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = Some(seed);
        self
    }

    /// Connects, and yields everything that happens: connections made and lost, values, and what is
    /// no value or no `T`.
    ///
    /// It returns with the head of the first answer, which takes 90 s at most. Dropping the future
    /// gives the connection up.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] for a path that cannot be subscribed to or a sample of 0;
    /// [`Error::Transport`] when the first connection fails, and [`Error::Status`] when it is
    /// refused. Later errors are items: one is the last item.
    ///
    /// ```no_run
    /// use serde_json::Value;
    /// use stride_async::SubscriptionEvent;
    ///
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let mut events = stride.subscribe("/process/myproc").events::<Value>().await?;
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         SubscriptionEvent::Data(change) => println!("{change}"),
    ///         SubscriptionEvent::Disconnected { cause, delay } => {
    ///             eprintln!("{cause}; connecting again in {delay:?}");
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn events<T: DeserializeOwned>(self) -> Result<Events<T>, Error> {
        let sample = match self.sample {
            None => None,
            Some(sample) => Some(NonZeroU32::new(sample).ok_or(RequestError::Sample)?),
        };
        not_zero("idle_timeout", self.limits.idle.unwrap_or(Duration::MAX))?;
        let request = self.target.api.subscribe(&self.path, sample)?;
        let seed = self.jitter_seed.unwrap_or_else(|| fastrand::u64(..));
        let mut driver = Driver {
            transport: self.target.transport,
            subscription: Subscription::new(request, self.limits, self.reconnect, seed),
            answer: Box::pin(pending()),
            body: AsyncBody::default(),
            alarm: Alarm::default(),
            now: tokio::time::Instant::now().into_std(),
        };
        let first = poll_fn(|context| driver.poll_next(context)).await.transpose()?;
        Ok(Events { first, driver })
    }

    /// Connects, and yields the values alone. Connections that are lost are made again silently;
    /// text that is no JSON is counted ([`Data::malformed`]) and skipped.
    ///
    /// # Errors
    ///
    /// Those of [`events`](Self::events); and a value that is not a `T` is an error
    /// ([`Error::Frame`]), which is the last item like any other.
    ///
    /// ```no_run
    /// #[derive(Debug, serde::Deserialize)]
    /// struct AppEvent {
    ///     x: i64,
    /// }
    ///
    /// # async fn example() -> Result<(), stride_async::Error> {
    /// # let stride = stride_async::Stride::new("secret_key")?;
    /// let mut data = stride.subscribe("/collect/app_events").data::<AppEvent>().await?;
    /// while let Some(event) = data.next().await {
    ///     println!("{}", event?.x);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn data<T: DeserializeOwned>(self) -> Result<Data<T>, Error> {
        Ok(Data(self.events().await?))
    }
}

/// Everything that happens on a subscription, by [`SubscribeBuilder::events`]. It has no end of its own:
/// dropping it stops it and closes the connection at once.
#[must_use = "dropping it ends the subscription"]
pub struct Events<T> {
    /// What came of connecting, until it is taken.
    first: Option<SubscriptionEvent<T>>,
    driver: Driver,
}

impl<T: DeserializeOwned> Events<T> {
    /// Waits for what happens next; `None` when the subscription is over.
    ///
    /// CancelToken safe: dropping the future loses nothing.
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

/// The values of a subscription, by [`SubscribeBuilder::data`]. It has no end of its own: dropping it stops
/// it and closes the connection at once.
#[must_use = "dropping it ends the subscription"]
pub struct Data<T>(Events<T>);

impl<T: DeserializeOwned> Data<T> {
    /// Waits for the next value; `None` when the subscription is over.
    ///
    /// CancelToken safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What ended the subscription: a value that is not a `T` ([`Error::Frame`]), a refusal
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
            if let Some(value) = event.into_data() {
                if value.is_err() {
                    self.0.driver.stop();
                }
                return Poll::Ready(Some(value));
            }
        }
    }
}

impl<T> Data<T> {
    /// How much that came so far was no value: text that is no JSON, records cut off or too large.
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

/// Does what the subscription says, and decides nothing.
struct Driver {
    transport: Arc<dyn AsyncTransport>,
    subscription: Subscription,
    /// While the head of an answer is awaited.
    answer: BoxFuture<Result<Response<AsyncBody>, TransportError>>,
    body: AsyncBody,
    alarm: Alarm,
    /// As of the last wait: events that are there already cost no look at the clock.
    now: Instant,
}

impl Driver {
    fn poll_next<T: DeserializeOwned>(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<SubscriptionEvent<T>, Error>>> {
        // Events that are there already need no waiting: without this, a busy stream would not let
        // the other tasks of its thread run.
        let budget = ready!(coop::poll_proceed(context));
        let next = loop {
            match self.subscription.poll_as(self.now) {
                Step::Connect(call) => self.answer = self.transport.send(*call),
                Step::AwaitHead => {
                    let answer = ready!(self.answer.as_mut().poll(context));
                    self.look_at_the_clock();
                    match answer {
                        Ok(answer) => {
                            let (head, body) = answer.into_parts();
                            self.body = body;
                            self.subscription.handle_head(head, self.now);
                        }
                        Err(error) => self.subscription.handle_end(Err(error), self.now),
                    }
                }
                Step::Read => {
                    let chunk = ready!(Pin::new(&mut self.body).poll_next(context)).transpose();
                    self.look_at_the_clock();
                    match chunk {
                        Ok(Some(chunk)) => self.subscription.handle_bytes(&chunk, self.now),
                        Ok(None) => self.subscription.handle_end(Ok(()), self.now),
                        Err(error) => self.subscription.handle_end(Err(error), self.now),
                    }
                }
                Step::Wait { until } => {
                    if let Err(none) = ready!(self.alarm.poll(until.into(), context)) {
                        self.stop();
                        break Some(Err(none.with(Delivery::NotSent).into()));
                    }
                    self.look_at_the_clock();
                }
                Step::Close => self.close(),
                Step::Item(event) => break Some(Ok(event)),
                Step::Closed(result) => break result.err().map(Err),
            }
        };
        budget.made_progress();
        Poll::Ready(next)
    }

    fn look_at_the_clock(&mut self) {
        self.now = tokio::time::Instant::now().into_std();
    }

    fn close(&mut self) {
        self.answer = Box::pin(pending());
        self.body = AsyncBody::default();
    }

    fn stop(&mut self) {
        self.subscription.stop();
        self.close();
    }
}
