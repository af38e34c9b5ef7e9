//! One error for a whole program, made of small ones, one for each direction.

use std::error::Error as StdError;

use http::StatusCode;

use crate::api::RequestError;
use crate::config::ConfigError;
use crate::frame::FrameError;
use crate::response::{DataError, StatusError};
use crate::transport::{Attempt, TransportError};

/// Everything that can go wrong between a program and Stride, so that `?` works throughout.
///
/// Its text is that of the error inside it, which names the method, host and path of the request
/// where there was one. None of them ever shows an API key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API key, the base URL or another setting cannot be used; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request could not be built; nothing was sent.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request could not be sent, or its response could not be read.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The status of the response is not a success.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The body of a response, or a value of a subscription, is not what was asked for.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A frame of a subscription could not be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A collector could not be started, or did not accept an event. Inside is a `StartError`, a
    /// `CollectError` or a `CollectAllError` of `stride-collector`, for `downcast_ref`.
    #[error(transparent)]
    Collect(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// The request that failed, if the error belongs to one.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Transport(error) => error.attempt(),
            Self::Status(error) => error.response().attempt(),
            Self::Data(error) => error.attempt(),
            Self::Config(_) | Self::Request(_) | Self::Frame(_) | Self::Collect(_) => None,
        }
    }

    /// The status of the response, if it was received and is not a success.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status(error) => Some(error.status()),
            _ => None,
        }
    }
}
