//! Subscriptions as iterators: a loop that does what `stride_core::subscribe::Subscription` says.

use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use stride_core::Error;
use stride_core::api::RequestError;
use stride_core::cancel::CancelToken;
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::{Body, Limits, Target, Transport};

use crate::client::not_zero;

/// A subscription that is about to be made. Made by [`Stride::subscribe`](crate::Stride::subscribe).
#[must_use = "it connects when events() or data() is called"]
pub struct SubscribeBuilder {
    target: Target,
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
    pub(crate) fn new(target: Target, path: &str, limits: Limits) -> Self {
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
    /// lost; 90 s by default, several keep-alives long. The clock runs only while the iterator waits,
    /// so time spent on an event does not count.
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

    /// Connects, and iterates over everything that happens: connections made and lost, values, and
    /// what is no value or no `T`.
    ///
    /// It returns with the head of the first answer, which takes 90 s at most.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] for a path that cannot be subscribed to or a sample of 0;
    /// [`Error::Transport`] when the first connection fails, and [`Error::Status`] when it is
    /// refused. Later errors are items: one is the last item.
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
            body: None,
            cancel: CancelToken::new(),
            now: Instant::now(),
        };
        let first = driver.next().transpose()?;
        Ok(Events { first, driver })
    }

    /// Connects, and iterates over the values alone. Connections that are lost are made again
    /// silently; text that is no JSON is counted ([`Data::malformed`]) and skipped.
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

/// Everything that happens on a subscription, by [`SubscribeBuilder::events`]. It waits for what comes
/// next, for ever, unless it is stopped: see [`stop_handle`](Self::stop_handle). Dropping it closes
/// the connection.
pub struct Events<T> {
    /// What came of connecting, until it is taken.
    first: Option<SubscriptionEvent<T>>,
    driver: Driver,
}

impl<T> Events<T> {
    /// Stops the iterator from another thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.driver.cancel.clone())
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
            Some(first) if !self.driver.cancel.is_cancelled() => Some(Ok(first)),
            _ => self.driver.next(),
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Events<T> {}

/// The values of a subscription, by [`SubscribeBuilder::data`]. It waits for the next one, for ever, unless
/// it is stopped: see [`stop_handle`](Self::stop_handle). Dropping it closes the connection.
pub struct Data<T>(Events<T>);

impl<T> Data<T> {
    /// Stops the iterator from another thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.0.stop_handle()
    }

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

impl<T: DeserializeOwned> Iterator for Data<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = match self.0.next()? {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            if let Some(value) = event.into_data() {
                if value.is_err() {
                    self.0.driver.stop();
                }
                return Some(value);
            }
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Data<T> {}

/// Stops a subscription from another thread, though no byte arrives.
#[derive(Debug, Clone)]
pub struct StopHandle(CancelToken);

impl StopHandle {
    /// Ends the iterator: it returns `None` soon, whether it is waiting for an event, for an answer
    /// or for the next attempt to connect. Only opening a connection is not interrupted, and ends by
    /// its own limit. What was received but not taken yet is dropped.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// Does what the subscription says, and decides nothing.
struct Driver {
    transport: Arc<dyn Transport>,
    subscription: Subscription,
    body: Option<Body>,
    cancel: CancelToken,
    /// As of the last wait: events that are there already cost no look at the clock.
    now: Instant,
}

impl Driver {
    fn next<T: DeserializeOwned>(&mut self) -> Option<Result<SubscriptionEvent<T>, Error>> {
        loop {
            // Looked at before anything else: what comes of an interrupted wait is not to be
            // believed.
            if self.cancel.is_cancelled() {
                self.stop();
            }
            match self.subscription.poll_as(self.now) {
                Step::Connect(call) => {
                    let answer = self.transport.send(*call, self.cancel.clone());
                    if self.waited() {
                        match answer {
                            Ok(answer) => {
                                let (head, body) = answer.into_parts();
                                self.body = Some(body);
                                self.subscription.handle_head(head, self.now);
                            }
                            Err(error) => self.subscription.handle_end(Err(error), self.now),
                        }
                    }
                }
                // The head is never awaited here: `send` returns with it.
                Step::AwaitHead | Step::Read => {
                    let chunk = self.body.as_mut().and_then(Iterator::next).transpose();
                    if self.waited() {
                        match chunk {
                            Ok(Some(chunk)) => self.subscription.handle_bytes(&chunk, self.now),
                            Ok(None) => self.subscription.handle_end(Ok(()), self.now),
                            Err(error) => self.subscription.handle_end(Err(error), self.now),
                        }
                    }
                }
                Step::Wait { until } => {
                    let (wake, woken) = mpsc::channel();
                    let _hook = self.cancel.on_cancel(move || {
                        let _ = wake.send(());
                    });
                    // Whether it was woken is seen from the flag.
                    let _ = woken.recv_timeout(until.saturating_duration_since(Instant::now()));
                    self.now = Instant::now();
                }
                Step::Close => self.body = None,
                Step::Item(event) => return Some(Ok(event)),
                Step::Closed(result) => return result.err().map(Err),
            }
        }
    }

    /// Notes the time after a wait, and says whether it was not interrupted.
    fn waited(&mut self) -> bool {
        self.now = Instant::now();
        !self.cancel.is_cancelled()
    }

    fn stop(&mut self) {
        self.subscription.stop();
        self.body = None;
    }
}
