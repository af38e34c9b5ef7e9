//! Subscriptions: the machine that decides when to connect, and the options of one.

mod machine;
mod options;

pub use self::machine::{DisconnectCause, Reconnect, Step, Subscription, SubscriptionEvent};
pub use self::options::SubscribeOptions;
