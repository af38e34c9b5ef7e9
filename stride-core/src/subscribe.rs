//! Subscriptions: the machine that decides when to connect, and the options of one.

mod machine;

pub use self::machine::{DisconnectCause, Reconnect, Step, Subscription, SubscriptionEvent};
