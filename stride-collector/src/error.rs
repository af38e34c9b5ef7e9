//! Why a collector cannot be started, and why an event is not accepted.

use std::io;

use stride_core::{ConfigError, Error};

/// Why a collector could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system could not start a thread.
    #[error("a sender thread cannot be started")]
    Thread(#[source] io::Error),
    /// The folder of the spool cannot be made, or not be locked.
    #[cfg(feature = "spool")]
    #[error("the folder of the spool cannot be used")]
    Spool(#[source] io::Error),
    /// An `AsyncCollector` has to be started inside a tokio runtime, on which it runs.
    #[error("there is no tokio runtime to run on")]
    NoRuntime,
}

/// A setting's error as it is, and the others as [`Error::Collect`].
impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            error => Self::Collect(Box::new(error)),
        }
    }
}

/// Why an event was not accepted. Nothing of it is kept, and no other event is affected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A stream's name is a letter, then letters, digits and underscores, all of them ASCII.
    #[error("{name:?} is not a name: a letter, then letters, digits and underscores")]
    Name {
        /// The name as it was given.
        name: String,
    },
    /// An event is a JSON object.
    #[error("an event must be a JSON object")]
    NotAnObject,
    /// The event is longer than the collector's `max_event`.
    #[error("the event is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes of JSON.
        limit: usize,
    },
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The memory budget is used up: the server is slower than the events come, or down.
    #[error("the collector is full: its memory budget is used up")]
    Full,
    /// The collector was stopped.
    #[error("the collector was stopped")]
    Stopped,
}

/// [`Error::Collect`], so that `?` works through a whole program.
///
/// ```
/// use stride_collector::CollectError;
/// use stride_core::Error;
///
/// let Error::Collect(error) = Error::from(CollectError::Full) else { panic!() };
/// assert!(matches!(error.downcast_ref(), Some(CollectError::Full)));
/// ```
impl From<CollectError> for Error {
    fn from(error: CollectError) -> Self {
        Self::Collect(Box::new(error))
    }
}

/// Not all of several events were accepted: those before this one were, and those after it were not
/// looked at.
#[derive(Debug, thiserror::Error)]
#[error("event {accepted} of several was not accepted")]
#[non_exhaustive]
pub struct CollectAllError {
    /// How many were accepted; also the index of the one that was not.
    pub accepted: usize,
    /// Why it was not.
    #[source]
    pub error: CollectError,
}

/// [`Error::Collect`].
impl From<CollectAllError> for Error {
    fn from(error: CollectAllError) -> Self {
        Self::Collect(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_one_error_serves_a_whole_program() {
        fn program(setting: bool) -> Result<(), Error> {
            if setting {
                let reason = "is not between 1 and 256";
                Err(StartError::from(ConfigError::Setting { setting: "concurrency", reason }))?;
            }
            Err(CollectAllError { accepted: 3, error: CollectError::Full })?;
            Ok(())
        }
        let error = program(true).unwrap_err();
        assert_eq!(error.to_string(), "concurrency is not between 1 and 256");
        assert!(matches!(error, Error::Config(_)), "{error:?}");
        let error = program(false).unwrap_err();
        assert_eq!(error.to_string(), "event 3 of several was not accepted");
        let source = std::error::Error::source(&error).expect("the cause is kept");
        assert_eq!(source.to_string(), CollectError::Full.to_string());
    }
}
