//! When to send again: the health of the server as a whole, and the trouble of single lanes.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use http::StatusCode;
use stride_core::retry::{Backoff, Jitter};
use stride_core::transport::{TransportError, TransportErrorKind};

use super::step::LaneId;
use crate::activity::ServerState;

/// The delays between attempts.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// After so many failures without a success between, by more than one lane, the server is suspect.
const SUSPECT_AFTER: usize = 8;

/// How much of the time that the server asked for does not count for a batch's age.
pub(super) const MOST_EXCUSED: Duration = Duration::from_secs(300);

pub(super) fn backoff(seed: u64) -> Backoff {
    Backoff::new(FIRST_DELAY, LONGEST_DELAY, Jitter::Full, seed)
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection to the server.
    Unreachable,
    /// A status that may pass, or a broken request: by the server's or the lane's fault.
    Transient,
    /// 401: the key is not accepted.
    Unauthorized,
    /// 403: the key may not write to this stream.
    Forbidden,
    /// No attempt will succeed.
    Permanent,
}

impl Failure {
    /// What an error means for further attempts.
    pub(super) fn of(error: &TransportError) -> Self {
        use TransportErrorKind::{Connect, ConnectTimeout, Proxy, Resolve, Tls, Unsupported};
        match error.kind() {
            Unsupported => Self::Permanent,
            Tls if !is_broken(error) => Self::Permanent,
            Connect | ConnectTimeout | Proxy | Resolve | Tls => Self::Unreachable,
            _ => Self::Transient,
        }
    }
}

/// Whether a TLS handshake failed because its connection broke, rather than because the two sides
/// could not agree: a certificate that is refused is reported as invalid data.
fn is_broken(error: &TransportError) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() != io::ErrorKind::InvalidData;
        }
        source = error.source();
    }
    false
}

/// The server as a whole. When it is not healthy, one request at a time probes it.
#[derive(Debug)]
pub(super) struct Health {
    /// Whether one request at a time probes the server.
    pub(super) probing: bool,
    /// The key was not accepted at the last attempt.
    pub(super) unauthorized: bool,
    /// The lanes of the last failures without a success between; `None` for bundles. The same lane
    /// twice in a row counts once: it may be its own fault.
    failed: VecDeque<Option<LaneId>>,
    backoff: Backoff,
    /// When the next probe may go out.
    not_before: Instant,
    /// Requests of the same outage that fail together count once.
    outage: u64,
    /// Until when the server asked us to wait.
    held_until: Instant,
    /// The lane whose request made it ask, until that lane is tried again.
    held_by: Option<LaneId>,
    /// All the time that it asked for, the future included.
    excused: Duration,
    pub(super) last_failure: Option<Instant>,
}

impl Health {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            probing: false,
            unauthorized: false,
            failed: VecDeque::new(),
            backoff: backoff(seed),
            not_before: now,
            outage: 0,
            held_until: now,
            held_by: None,
            excused: Duration::ZERO,
            last_failure: None,
        }
    }

    pub(super) fn state(&self, now: Instant) -> ServerState {
        if !self.probing {
            ServerState::Healthy
        } else if self.unauthorized {
            ServerState::Paused
        } else if self.held_until > now {
            ServerState::Throttled { until: self.held_until }
        } else {
            ServerState::Down
        }
    }

    pub(super) fn outage(&self) -> u64 {
        self.outage
    }

    /// When the next probe may go out.
    pub(super) fn probes_at(&self) -> Instant {
        self.not_before.max(self.held_until)
    }

    /// What of the time that the server asked for lies before now.
    pub(super) fn excused_before(&self, now: Instant) -> Duration {
        self.excused.saturating_sub(self.held_until.saturating_duration_since(now))
    }

    /// How much later a batch expires than by its age alone.
    pub(super) fn excuse(&self, before: Duration) -> Duration {
        self.excused.saturating_sub(before)
    }

    /// A request failed that was sent during `outage`.
    pub(super) fn failed(
        &mut self,
        failure: Failure,
        lane: Option<LaneId>,
        outage: u64,
        now: Instant,
    ) {
        self.last_failure = Some(now);
        self.unauthorized = failure == Failure::Unauthorized;
        if lane.is_none() || self.failed.back() != Some(&lane) {
            self.failed.push_back(lane);
        }
        let began = !self.probing
            && (matches!(failure, Failure::Unreachable | Failure::Unauthorized)
                || self.failed.len() >= SUSPECT_AFTER);
        self.failed.truncate(SUSPECT_AFTER);
        self.probing |= began;
        if self.probing && outage == self.outage {
            self.outage += 1;
            self.not_before = now + self.backoff.next_delay();
        }
    }

    /// The server asks for a pause, and holds up everybody once.
    pub(super) fn hold(&mut self, pause: Duration, lane: Option<LaneId>, now: Instant) {
        let until = now + pause;
        if until > self.held_until {
            self.excused += until - self.held_until.max(now);
            self.held_until = until;
        }
        self.held_by = lane;
        self.probing = true;
    }

    /// A request got a response as from a server that works. Says which lane alone must have been
    /// meant by the last pause.
    pub(super) fn worked(&mut self, lanes: impl Fn(LaneId) -> bool) -> Option<LaneId> {
        self.failed.clear();
        self.backoff.reset();
        self.unauthorized = false;
        self.probing = false;
        self.held_by.take().filter(|lane| !lanes(*lane))
    }
}

/// A lane that fails though the server works.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) backoff: Backoff,
    pub(super) not_before: Instant,
    pub(super) last_failure: Instant,
    /// 403 at the last attempt.
    pub(super) forbidden: bool,
    /// Time that the server asked for because of this lane, and until when batches were closed that
    /// had to wait for it.
    pub(super) excused: Duration,
    pub(super) excused_until: Instant,
}

/// Whether the next attempt may get another response than this one, which is neither a success nor
/// transient.
pub(super) fn is_pause(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
