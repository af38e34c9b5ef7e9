//! What happens on a subscription, as its user sees it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::frame::FrameError;
use crate::transport::TransportError;

/// What happens on a subscription. Nothing is dropped unseen.
#[derive(Debug)]
#[non_exhaustive]
pub enum SubscriptionEvent<T> {
    /// The server accepted the subscription.
    Connected {
        /// On a reconnect, how long there was no connection.
        gap: Option<Duration>,
        /// Whether it goes on where it was. If not, what was sent during the gap is gone.
        resumed: Resumed,
    },
    /// An event of a stream, or a change of a process.
    Data(T),
    /// All rows that the process had when the subscription was accepted have been handed out, as changes from
    /// nothing. What follows has changed since. Only after [`snapshot`](super::SubscribeOptions::snapshot), and
    /// then once per connection, if the server makes snapshots.
    SnapshotDone,
    /// Something that is not valid JSON, or not what was asked for; reading goes on after it. Not an
    /// event that was cut off by a disconnect, if the subscription can go on where it was: it comes
    /// again.
    Malformed(FrameError),
    /// The connection is lost; the next attempt comes after the delay.
    Disconnected {
        /// Why it was lost, or could not be made.
        cause: DisconnectCause,
        /// How long until the next attempt.
        delay: Duration,
    },
}

impl<T> SubscriptionEvent<T> {
    /// The value alone, for readers that need nothing else: `None` for connects, disconnects and
    /// malformed text.
    ///
    /// # Errors
    ///
    /// A value that is not a `T`.
    pub fn into_data(self) -> Option<Result<T, FrameError>> {
        match self {
            Self::Data(value) => Some(Ok(value)),
            Self::Malformed(error @ FrameError::Mismatch(_)) => Some(Err(error)),
            Self::Malformed(_)
            | Self::Connected { .. }
            | Self::SnapshotDone
            | Self::Disconnected { .. } => None,
        }
    }
}

/// How what a connection brings follows what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumed {
    /// It begins with what the server is sent from now on: it was not asked to go on from a
    /// [`Position`](super::Position), or cannot, or no longer knows that one.
    No,
    /// It goes on with the next event.
    Fully,
    /// It goes on with the oldest event that is left: so many before it are gone.
    Missing(u64),
}

/// Why a connection of a subscription was lost, or could not be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DisconnectCause {
    /// The server ended the body. A subscription does not end, so the connection is lost.
    Ended,
    /// The server responded with a status that may pass.
    Status(StatusCode),
    /// The connection broke, or a limit was reached.
    Transport(TransportError),
}

impl DisconnectCause {
    /// The fields of an event in the log: the cause, and the error with its sources.
    pub(super) fn log(&self, log: impl FnOnce(&str, Option<&(dyn StdError + 'static)>)) {
        match self {
            Self::Transport(error) => log(&error.kind().to_string(), Some(error)),
            Self::Ended | Self::Status(_) => log(&self.to_string(), None),
        }
    }
}

impl fmt::Display for DisconnectCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the server ended the stream"),
            Self::Status(status) => write!(f, "the server responded {status}"),
            Self::Transport(error) => error.kind().fmt(f),
        }
    }
}
