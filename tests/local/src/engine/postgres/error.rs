//! What PostgreSQL says that went wrong, as errors of the engine.

use postgres::Error;

use crate::engine::EngineError;

/// Why a piece of work with the database failed, and whether it may be tried again at once.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: EngineError,
    pub(super) again: bool,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { error, again: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let again = match error.code() {
            // A deadlock or a serialisation failure, or the server is ending or changing its role.
            Some(code) => code.code().starts_with("40") || code.code().starts_with("57P"),
            None => error.is_closed() || is_io(&error),
        };
        Self { error: EngineError::from(error), again }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Unavailable(format!("the database cannot be reached: {}", whole(&error)));
        };
        let message = format!("the database failed: {}", db.message());
        match &db.code().code()[..2] {
            // 25006: it is a standby, and the primary is elsewhere.
            "08" | "25" | "40" | "53" | "55" | "57" | "58" => Self::Unavailable(message),
            "XX" => Self::Damaged(message),
            _ => Self::Broken(message),
        }
    }
}

/// An error at somebody's query: theirs, unless the database failed.
pub(super) fn query_error(error: Error) -> EngineError {
    if let Some(db) = error.as_db_error() {
        let code = db.code().code();
        if code == "57014" {
            return EngineError::Invalid("the query takes too long".to_owned());
        }
        if matches!(&code[..2], "0A" | "21" | "22" | "42" | "54" | "2F") {
            return EngineError::Invalid(db.message().to_owned());
        }
    }
    error.into()
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// The message with those of its sources, which say what it was.
fn whole(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
