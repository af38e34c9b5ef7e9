//! What SQLite says that went wrong, as errors of the engine.

use crate::engine::EngineError;

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let message = || format!("the storage failed: {error}");
        match error.sqlite_error_code() {
            Some(
                Code::DiskFull
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::SystemIoFailure
                | Code::ReadOnly
                | Code::CannotOpen
                | Code::PermissionDenied
                | Code::OutOfMemory
                | Code::FileLockingProtocolFailed,
            ) => Self::Unavailable(message()),
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged(message()),
            _ => Self::Broken(message()),
        }
    }
}

/// An error of SQLite at somebody's query: theirs, unless the storage failed.
pub(super) fn query_error(error: rusqlite::Error) -> EngineError {
    let message = match &error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        _ => error.to_string(),
    };
    match EngineError::from(error) {
        EngineError::Broken(_) => EngineError::Invalid(message),
        error => error,
    }
}
