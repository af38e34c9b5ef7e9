//! From a file to a database that serves several servers.

use std::path::Path;
use std::time::Duration;
use std::{io, thread};

use crate::engine::postgres::import::{self, Migrated};
use crate::engine::sqlite::export::Export;
use crate::sql;

/// How long the session of a copy that was killed may go on in the database: until the end of its statement.
const PATIENCE: Duration = Duration::from_secs(20);

/// Copies what the file of a server holds into a PostgreSQL database that holds nothing of a Stride yet. The file stays as it
/// is. Neither may be served meanwhile. How far it has come is logged.
///
/// Places and ids stay what they were, so subscriptions go on where they were. Processes are copied with their results, which
/// may be of events that the file no longer has. A result that PostgreSQL does not keep in the same way is made anew over the events that are
/// left. After an error or a kill, the same call goes on where it was, also if the file has changed since; once all is copied, it does nothing.
///
/// # Errors
///
/// There is no such file, a server has it or the database open, the database cannot be reached or holds something else, or a query
/// of the file is not one that PostgreSQL knows: then its name is said, and what was copied stays.
pub fn migrate(data: &Path, database: &str) -> io::Result<Migrated> {
    // The driver has a runtime of its own, which cannot be used inside of another, and queries need a stack.
    thread::scope(|scope| {
        let copy = || import::copy(database, &Export::open(data)?, PATIENCE);
        let copying = thread::Builder::new()
            .name("stride-local-migrate".to_owned())
            .stack_size(sql::STACK)
            .spawn_scoped(scope, copy)?;
        copying.join().unwrap_or_else(|_| Err(io::Error::other("copying panicked")))
    })
}
