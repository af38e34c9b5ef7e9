//! What a subscription asks its driver for.

use std::time::Instant;

use super::event::SubscriptionEvent;
#[cfg(doc)]
use super::machine::Subscription;
use crate::error::Error;
use crate::transport::Call;

/// What the driver of a [`Subscription`] does next.
#[derive(Debug)]
pub enum Step<F> {
    /// Send this, and report the head of the response with [`Subscription::handle_head`], or the
    /// failure with [`Subscription::handle_end`]. Returned once per connection.
    ///
    /// Boxed, because a step is returned for each event, and this one is large and rare.
    Connect(Box<Call>),
    /// The head has not been reported yet: go on waiting for it.
    AwaitHead,
    /// Take the next chunk of the body, and report it with [`Subscription::handle_bytes`], or the
    /// body's end with [`Subscription::handle_end`].
    Read {
        /// If there is one and nothing came by then, report any error with
        /// [`Subscription::handle_end`].
        by: Option<Instant>,
    },
    /// No connection is open. Poll again at that time.
    Wait {
        /// When the next attempt is due.
        until: Instant,
    },
    /// Drop the connection (the response, its body, or the wait for it) now.
    Close,
    /// Hand this to the user.
    Item(SubscriptionEvent<F>),
    /// The subscription is over for good; the error is returned once.
    Closed(Result<(), Error>),
}
