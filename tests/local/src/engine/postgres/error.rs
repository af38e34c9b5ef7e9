//! What PostgreSQL says that went wrong, as errors of the engine.

use postgres::Error;
use postgres::error::SqlState;

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
        let again = passes(&error) || is_ended(&error);
        Self { error: EngineError::from(error), again }
    }
}

impl Failure {
    /// A commit failed. Where the database did not say that there was none, nobody can know.
    pub(super) fn of_commit(error: Error) -> Self {
        let again = passes(&error);
        if again || (error.as_db_error().is_some() && !is_ended(&error)) {
            return Self { error: error.into(), again };
        }
        let why = format!(
            "the database was lost during a commit, and what was sent may be stored: {}",
            whole(&error)
        );
        Self { error: EngineError::Unavailable(why), again: false }
    }

    /// Somebody's query failed.
    pub(super) fn of_query(error: Error) -> Self {
        let again = passes(&error) || is_ended(&error);
        Self { error: query_error(error), again }
    }
}

/// A deadlock or a serialisation failure. (40003 leaves open what became of the transaction.)
fn passes(error: &Error) -> bool {
    let code = error.code();
    code.is_some_and(|code| code.code().starts_with("40") && code.code() != "40003")
}

/// The connection was lost, the server is ending, or it is no longer the primary.
fn is_ended(error: &Error) -> bool {
    match error.code() {
        Some(code) => {
            code.code().starts_with("57P")
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        }
        None => error.is_closed() || is_io(error),
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Unavailable(format!("the database cannot be reached: {}", whole(&error)));
        };
        if *db.code() == SqlState::READ_ONLY_SQL_TRANSACTION {
            return standby();
        }
        let message = format!("the database failed: {}", db.message());
        match db.code().code() {
            "XX001" | "XX002" => Self::Damaged(message),
            code => match &code[..2] {
                // 28 and 3D: who may connect to what is the database's business, and may be set right.
                "08" | "25" | "28" | "3D" | "40" | "53" | "55" | "57" | "58" => {
                    Self::Unavailable(message)
                }
                _ => Self::Broken(message),
            },
        }
    }
}

/// What a server says that follows another.
pub(super) fn standby() -> EngineError {
    EngineError::Unavailable("the database can only be read: it is a standby".to_owned())
}

/// An error at somebody's query: theirs, unless the database failed.
pub(super) fn query_error(error: Error) -> EngineError {
    if let Some(db) = error.as_db_error() {
        let code = db.code().code();
        if code == "57014" {
            return too_long();
        }
        // Nobody can name a table: it is that of a process whose tables were made anew since it was looked up.
        if code == "42P01" {
            return EngineError::Unavailable("a process that is read is changing".to_owned());
        }
        if matches!(&code[..2], "0A" | "21" | "22" | "42" | "54" | "2F") {
            return EngineError::Invalid(db.message().to_owned());
        }
    }
    error.into()
}

/// A query was cancelled, by its `statement_timeout` or by somebody.
pub(super) fn too_long() -> EngineError {
    EngineError::Invalid("the query takes too long".to_owned())
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// The message with those of its sources, which say what it was.
fn whole(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    message
}
