//! The options of a subscription.

use std::num::NonZeroU32;
use std::time::Duration;

use super::machine::{Reconnect, Subscription};
use super::position::Position;
use crate::api::{Api, RequestError};
use crate::config::not_zero;
use crate::error::Error;
use crate::transport::Limits;

/// Options for a subscription, which the builders of the clients set.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    path: String,
    limits: Limits,
    sample: Option<u32>,
    reconnect: Reconnect,
    after: Option<Position>,
    snapshot: bool,
    jitter_seed: Option<u64>,
}

impl SubscribeOptions {
    /// Every option at its default, for what happens at `path` (`/collect/NAME` or `/process/NAME`),
    /// with the client's limits for subscriptions.
    #[must_use]
    pub fn new(path: &str, limits: Limits) -> Self {
        let (path, reconnect) = (path.to_owned(), Reconnect::default());
        Self {
            path,
            limits,
            sample: None,
            reconnect,
            after: None,
            snapshot: false,
            jitter_seed: None,
        }
    }

    /// Asks the server for at most so many events per second; all of them by default.
    #[must_use]
    pub fn sample(mut self, events_per_second: u32) -> Self {
        self.sample = Some(events_per_second);
        self
    }

    /// When to connect again. By default ([`Reconnect::AfterFirstConnect`]) a first connection that
    /// fails is an error, and one that is lost later is made again, for as long as it takes.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Starts behind a position of the same stream instead of with what comes from now on; see
    /// [`resuming`](super::resuming). If the server no longer knows it, the first connection is refused
    /// with 410.
    #[must_use]
    pub fn after(mut self, position: Position) -> Self {
        self.after = Some(position);
        self
    }

    /// Begins with all rows that the process has, each as a change from nothing, and goes on with what changes
    /// after that; so does every connection that is made later.
    /// [`SnapshotDone`](super::SubscriptionEvent::SnapshotDone) tells where the rows end. A server that makes no
    /// snapshots sends the changes alone.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        self.snapshot = true;
        self
    }

    /// How long the head of the server's response may take, on every connection; 90 s by default,
    /// because some proxies hold the head back until the first byte of the body.
    #[must_use]
    pub fn head_timeout(mut self, head: Duration) -> Self {
        self.limits.head = head;
        self
    }

    /// How long the server may send nothing, not even a keep-alive, before the connection counts as
    /// lost; 90 s by default, several keep-alives long. The clock runs only while the client waits
    /// for bytes, so time that the program spends on an event does not count.
    #[must_use]
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.limits.idle = Some(idle);
        self
    }

    /// Makes the delays between connections the same in every run, for tests that compare them.
    /// Random by default, so that clients that were disconnected together do not all reconnect at
    /// once.
    #[must_use]
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = Some(seed);
        self
    }

    /// The subscription. `seed` decides the jitter, unless [`jitter_seed`](Self::jitter_seed) does.
    ///
    /// # Errors
    ///
    /// The path cannot be subscribed to, the sample is 0, there are both a sample and a position, a snapshot with
    /// either or of a stream, or a time-out is zero.
    pub fn start(self, api: &Api, seed: u64) -> Result<Subscription, Error> {
        let Self { path, limits, sample, reconnect, after, snapshot, jitter_seed } = self;
        let sample = match sample {
            None => None,
            Some(sample) => Some(NonZeroU32::new(sample).ok_or(RequestError::Sample)?),
        };
        not_zero("head_timeout", limits.head)?;
        not_zero("idle_timeout", limits.idle.unwrap_or(Duration::MAX))?;
        if snapshot && (!path.starts_with("/process/") || sample.is_some() || after.is_some()) {
            return Err(RequestError::Snapshot.into());
        }
        if sample.is_some() && after.is_some() {
            return Err(RequestError::SampleAfter.into());
        }
        let request = api.subscribe(&path, sample)?;
        let subscription =
            Subscription::new(request, limits, reconnect, jitter_seed.unwrap_or(seed));
        Ok(match after {
            None if snapshot => subscription.snapshot(),
            None => subscription,
            Some(position) => subscription.after(position),
        })
    }
}
