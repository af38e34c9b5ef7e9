//! What sends: two short loops, on threads and as tasks. They decide nothing: they ask the batcher, do
//! what it says, and tell it what came of it.

mod request;
#[cfg(feature = "tokio")]
pub(crate) mod tasks;
pub(crate) mod threads;

pub(crate) use self::request::limits;
