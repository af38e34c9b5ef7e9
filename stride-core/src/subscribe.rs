//! Subscriptions: the machine that decides when to connect, and the options of one.

mod event;
mod machine;
mod options;
mod position;
pub mod resuming;
mod step;

pub use self::event::{DisconnectCause, Resumed, SubscriptionEvent};
pub use self::machine::{Reconnect, Subscription};
pub use self::options::SubscribeOptions;
pub use self::position::Position;
pub use self::step::Step;
