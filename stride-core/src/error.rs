//! One error for a whole program, made of small ones: each names the direction that failed.

use crate::api::RequestError;
use crate::config::ConfigError;
use crate::frame::FrameError;
use crate::response::{DataError, StatusError};
use crate::transport::TransportError;

/// Everything that can go wrong between a program and Stride, so that `?` works throughout.
///
/// Its text is that of the error inside it. None of them ever shows an API key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API key, the base URL or another setting is no good; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request could not be built; nothing was sent.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request could not be sent, or its answer not be read.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server answered with a status that is not a success.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The body of an answer is not the JSON that was asked for.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A value of a subscription is not what was asked for.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
