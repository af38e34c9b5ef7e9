//! Why the program did not do all that it was asked to, and its exit code.

use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;

use stride_blocking::http::StatusCode;
use stride_blocking::{ConfigError, DataError, Error, StatusError};
use stride_collector::{CollectError, StartError};
use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The server did not take what it was sent, or not all of it.
    #[error("{0}")]
    Refused(String),
    /// The program was called in a wrong way.
    #[error("{0}")]
    Usage(String),
    /// There is no key, or the server does not accept it for this.
    #[error("{0}")]
    Key(String),
    /// The server was not reached, or not to the end.
    #[error("{0}")]
    Unreached(String),
    /// Nobody reads the output.
    #[error("the output was closed")]
    Closed,
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Refused(_) | Self::Output(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Key(_) => ExitCode::from(3),
            Self::Unreached(_) => ExitCode::from(4),
        }
    }

    /// A file of the user's that cannot be used.
    pub(crate) fn file(name: &str, error: &io::Error) -> Self {
        Self::Usage(format!("{name}: {error}"))
    }
}

/// Of what is written to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Output(error),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::EmptyKey | ConfigError::ColonInKey | ConfigError::ControlInKey => {
                Self::Key(format!("STRIDE_API_KEY: {error}"))
            }
            ConfigError::PlainHttp { host } => Self::Usage(format!(
                "plain http to {host} would show the API key to the network: use https, or \
                 --allow-plain-http"
            )),
            error => Self::Usage(error.to_string()),
        }
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        let text = match error.message() {
            Some(message) => message,
            None => error.to_string(),
        };
        match error.status() {
            StatusCode::UNAUTHORIZED => Self::Key(format!("the key was refused: {text}")),
            StatusCode::FORBIDDEN => Self::Key(format!("the key may not do this: {text}")),
            _ => Self::Refused(text),
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Refused(with_sources(&error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => error.into(),
            Error::Status(error) => error.into(),
            Error::Request(error) => Self::Usage(with_sources(&error)),
            Error::Data(error) => error.into(),
            error => Self::Unreached(with_sources(&error)),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Usage(with_sources(&error))
    }
}

/// About the name of the stream: what is wrong with an event is told with its line.
impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        Self::Usage(with_sources(&error))
    }
}

/// An error and what led to it, on one line.
pub(crate) fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
