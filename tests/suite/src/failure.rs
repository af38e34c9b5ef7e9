use std::error::Error as StdError;
use std::fmt::Debug;

use stride_core::Error;
use stride_core::transport::TransportError;

/// The error of the transport with which something failed.
#[track_caller]
#[must_use]
pub fn failed<T: Debug>(result: Result<T, Error>) -> TransportError {
    match result {
        Err(Error::Transport(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// An error and its sources, as text.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
